"""Figures of the error analysis: recall by facts of the cells, merged neighbours by gap, background inside cells.

The numbers come from `cellseg.error_analysis`; outlines on images live in `cellseg.figures.pictures`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellseg.figures.canvas import BLUE, DPI, GREY, ORANGE, png

WIDTH = 9.6  # inches, as the other plots of the report
FACTS = {
    "border_distance": "distance to the image's border, px",
    "brightness": "brightness, 0 to 1 after the contrast stretch",
    "area": "size: diameter, px",
}
PANELS = (1.2, 1.2, 1.0)  # widths: the border's bins are six, and those of the brightness have the longest names
LONGEST = 9  # characters of a bin's name in one line


def recall_by_fact(errors: Mapping[str, Any]) -> bytes:
    """Share of the true cells that were found, by distance to the border, brightness and size, in one row.

    A bar is a bin with its number of cells under it, a whisker the 95 % interval, the dotted line the recall of all.
    Size is the diameter of the circle of the cell's area.

    Args:
        errors: `ErrorAnalysis.result` or `errors.json`. A fact without cells is said to have none.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(WIDTH, 3.0), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(1, len(FACTS), sharey=True, width_ratios=PANELS)
    for axis, (fact, title) in zip(axes, FACTS.items(), strict=True):
        bins = errors["by_fact"][fact]
        if fact == "area":
            names = [_span(one["diameter_low"], one["diameter_high"], ".0f") for one in bins]
        elif fact == "brightness":
            names = [_span(one["low"], one["high"], ".2f") for one in bins]
        else:
            names = ["touches" if one["high"] == 0 else _span(one["low"], one["high"], ".0f") for one in bins]
        rates, intervals = [one["recall"] for one in bins], [one["interval"] for one in bins]
        _bars(axis, names, [one["cells"] for one in bins], rates, intervals, colour=BLUE, title=title)
        if bins:
            axis.axhline(errors["recall"], color="#444444", linewidth=0.9, linestyle=":")
        if fact == next(iter(FACTS)):
            axis.set_ylabel("recall (IoU 0.5 or more)", fontsize=9)
            axis.tick_params(axis="y", labelleft=True)
    return png(figure)


def merges_and_membranes(errors: Mapping[str, Any]) -> bytes:
    """Left: share of merged neighbours by the gap between them. Right: cells by how much of them is background.

    Args:
        errors: `ErrorAnalysis.result` or `errors.json`. A panel without pairs or cells says that it has none.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(WIDTH, 3.0), dpi=DPI, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    merges, membranes = errors["merges"], errors["false_membranes"]
    bins = merges["bins"]
    names = [
        "touching" if one["low"] == 0 else f"{one['low']:.0f} to {'<' if one is not bins[-1] else ''}{one['high']:.0f}"
        for one in bins
    ]
    counts = [one["pairs"] for one in bins]
    rates, intervals = [one["share"] for one in bins], [one["interval"] for one in bins]
    title = "neighbours merged into one, by the gap between them, px"
    _bars(left, names, counts, rates, intervals, colour=ORANGE, title=title)
    left.set_ylabel("share of the pairs", fontsize=9)

    bins = membranes["bins"]
    names = [
        "none" if one["high"] == 0 else f"up to {100 * one['high']:.0f} %" if one is not bins[-1] else "more"
        for one in bins
    ]
    counts = [one["cells"] for one in bins]
    rates = [count / sum(counts) for count in counts] if sum(counts) else [None] * len(counts)
    title = "share of a cell's core that was drawn as background"
    _bars(right, names, counts, rates, [None] * len(counts), colour=GREY, title=title)
    right.set_ylabel("share of the cells", fontsize=9)
    return png(figure)


def _bars(
    axis: Axes,
    names: Sequence[str],
    counts: Sequence[int],
    rates: Sequence[float | None],
    intervals: Sequence[Sequence[float] | None],
    *,
    colour: str,
    title: str,
) -> None:
    """Bars from 0 to 1 with whiskers; under each its name and its count. An undefined rate leaves its place empty."""
    axis.set_title(title, fontsize=9.5, loc="left", color="#222222")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.set_ylim(0, 1.02)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)
    if not any(counts):
        axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", va="center", color=GREY, fontsize=9)
        axis.set_xticks([])
        return
    places = np.arange(len(names))
    axis.bar(places, [rate or 0 for rate in rates], width=0.72, color=colour, alpha=0.75)
    for place, rate, interval in zip(places, rates, intervals, strict=True):
        if rate is not None and interval is not None:
            whisker = [[max(rate - interval[0], 0)], [max(interval[1] - rate, 0)]]
            axis.errorbar(place, rate, yerr=whisker, color="#222222", capsize=3, linewidth=1.1)
    axis.set_xticks(places, [f"{name}\nn={count:,}" for name, count in zip(names, counts, strict=True)])
    axis.tick_params(axis="x", length=0, labelsize=7.5)
    axis.set_xlim(-0.6, len(names) - 0.4)


def _span(low: float, high: float, form: str) -> str:
    first, last = format(low, form), format(high, form)
    name = f"{first}–{last}"
    return first if first == last else name if len(name) <= LONGEST else name.replace("–", "–\n")
