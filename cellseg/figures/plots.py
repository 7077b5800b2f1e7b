"""Plots: tables of a run as curves, as PNG bytes.

Images live in `cellseg.figures.pictures`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cellseg.figures.canvas import BLUE, DPI, GREY, ORANGE, png

# What the best epoch was chosen by, the first that a history holds.
MONITORS = {
    "val_average_precision": "validation average precision",
    "val_class_dice": "validation Dice, mean of the classes",
    "val_dice": "validation Dice",
}
NAMED = 3  # images with the lowest score that carry their name


def training_curves(history: pd.DataFrame) -> bytes:
    """Loss, validation Dice, learning rate and drawn / true foreground over the epochs, the best epoch marked.

    Args:
        history: `history.csv` of a run: epoch (from 0), loss, val_dice (or another of MONITORS, which then is what the
            best epoch was chosen by), learning_rate, val_foreground_ratio. A
            column that is missing or holds no number is said to be missing.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(9.6, 3.9), dpi=DPI, facecolor="white", layout="constrained")
    (loss, dice), (rate, ratio) = figure.subplots(2, 2, sharex=True, gridspec_kw={"height_ratios": [3, 1.15]})
    epochs = (_column(history, "epoch") if "epoch" in history else np.arange(len(history))) + 1
    monitor = next((name for name in MONITORS if name in history), "val_dice")
    scores = _column(history, monitor)
    best = int(np.nanargmax(scores)) if np.isfinite(scores).any() else None
    told = "" if best is None else f", best {scores[best]:.3f} in epoch {epochs[best]:.0f}"
    rates = _column(history, "learning_rate")
    _curve(loss, epochs, _column(history, "loss"), "training loss", BLUE)
    _curve(dice, epochs, scores, f"{MONITORS[monitor]}{told}", ORANGE)
    _curve(rate, epochs, rates, "learning rate", GREY)
    told = "the best least score" if monitor == "val_average_precision" else "threshold 0.5"
    _curve(ratio, epochs, _column(history, "val_foreground_ratio"), f"drawn / true foreground at {told}", GREY)
    ratio.axhline(1, color="#bbbbbb", linewidth=0.8, zorder=0)
    if np.isfinite(rates).any() and np.nanmin(rates) > 0:
        ends = sorted({float(np.nanmin(rates)), float(np.nanmax(rates))})
        rate.set_yscale("log")
        rate.minorticks_off()
        rate.set_yticks(ends, [f"{value:.2g}" for value in ends])
        rate.margins(y=0.2)
    if best is not None:
        for axis in (loss, dice, rate, ratio):
            axis.axvline(epochs[best], color="#999999", linewidth=0.9, linestyle=":", zorder=0)
        dice.plot(epochs[best], scores[best], "o", color=ORANGE, markersize=6)
    for axis in (rate, ratio):
        axis.set_xlabel("epoch", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)


def threshold_curve(
    curve: Mapping[str, Sequence[float | None]],
    chosen: float,
    *,
    tuned: Mapping[str, Sequence[float | None]] | None = None,
    measure: str = "",
    cells: bool = False,
) -> bytes:
    """Dice, and drawn / true foreground, at every threshold of the probability; the chosen threshold marked.

    Args:
        curve: `curve` of `threshold.json`: threshold, dice, foreground_ratio; None = undefined.
        chosen: The run's threshold.
        tuned: `search` of `threshold.json`: threshold, value; it gets a plot of its own, the first, with a dot at each
            threshold that was tried and a ring at the chosen one.
        measure: What the values of `tuned` are.
        cells: The threshold is the least score of a cell, and marked where that is drawn; a pixel's probability is the
            score of its cell times the mask.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(9.6, 2.9), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2 if tuned is None else 3)
    left, right = axes[-2:]
    label_at = dict.fromkeys(axes, 0.04)
    if tuned is not None:
        points = pd.DataFrame({"threshold": tuned["threshold"], "value": tuned["value"]})
        tried, values = _column(points, "threshold"), _column(points, "value")
        _curve(axes[0], tried, values, f"{measure}, cells", ORANGE, dots=True)
        at = int(np.argmin(np.abs(tried - chosen)))
        if np.isfinite(values[at]):
            axes[0].plot(tried[at], values[at], "o", markersize=9, markerfacecolor="none", color="#444444")
            if values[at] < (np.nanmin(values) + np.nanmax(values)) / 2:
                label_at[axes[0]] = 0.92  # the label leaves the ring free
    table = pd.DataFrame(dict(curve))
    thresholds, ratio = _column(table, "threshold"), _column(table, "foreground_ratio")
    _curve(left, thresholds, _column(table, "dice"), "Dice, pixels", BLUE if tuned else ORANGE)
    _curve(right, thresholds, ratio, "drawn / true foreground", BLUE)
    right.axhline(1, color="#bbbbbb", linewidth=0.8, zorder=0)
    if np.isfinite(ratio).any():
        right.set_ylim(0, min(float(np.nanmax(ratio)) * 1.05, 3.0))
    for axis in axes:
        axis.set_xlim(0, 1)
        scored = cells and axis in (left, right)
        name = "least score of a cell" if cells else "threshold of the probability"
        axis.set_xlabel("threshold of score x mask" if scored else name, fontsize=9)
        if scored:
            continue
        axis.axvline(chosen, color="#444444", linewidth=1, linestyle="--")
        axis.annotate(
            f"chosen: {chosen:.3g}",
            (chosen, label_at[axis]),
            xycoords=("data", "axes fraction"),
            xytext=(5 if chosen < 0.7 else -5, 0),
            textcoords="offset points",
            ha="left" if chosen < 0.7 else "right",
            fontsize=9,
        )
    return png(figure)


def per_image_scores(per_image: Sequence[Mapping], measure: str = "dice") -> bytes:
    """Every image's score, sorted, with the median and the names of the worst.

    Args:
        per_image: Rows of `scores.json`: {"name": ..., measure: value or None}.
        measure: Which score to draw.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(9.6, 2.9), dpi=DPI, facecolor="white", layout="constrained")
    axis = figure.subplots()
    # None sorts nowhere: images where the measure is undefined are counted on the axis instead.
    scored = sorted((float(row[measure]), str(row["name"])) for row in per_image if row.get(measure) is not None)
    values = np.array([value for value, _ in scored])
    undefined = len(per_image) - len(scored)
    note = f" ({undefined} more without a value)" if undefined else ""
    _curve(axis, np.arange(1, len(values) + 1), values, f"{measure} of each image", BLUE, points=True)
    axis.set_xlabel(f"images, worst first: {len(values)}{note}", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(values):
        median = float(np.median(values))
        axis.axhline(median, color="#999999", linewidth=0.9, linestyle=":", zorder=0)
        axis.text(
            1,
            median,
            f"median {median:.3f} ",
            transform=axis.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=9,
        )
        axis.set_xlim(0.3, len(values) + 0.7)
        axis.margins(y=0.15)
        worst = "\n".join(f"{_shortened(name)}  {value:.3f}" for value, name in scored[:NAMED])
        axis.text(
            0.995,
            0.04,
            f"worst:\n{worst}",
            transform=axis.transAxes,
            ha="right",
            va="bottom",
            fontsize=8.5,
            linespacing=1.4,
            parse_math=False,
        )
    return png(figure)


def _shortened(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else f"{name[: longest - 13]}…{name[-12:]}"


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column as float64, NaN where it is no number; all NaN if the table has no such column."""
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)


def _curve(
    axis: Axes,
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    colour: str,
    *,
    points: bool = False,
    dots: bool = False,
) -> None:
    """Draw a curve with its name; `points` alone without a line, or `dots` on the line."""
    axis.set_title(name, fontsize=9.5, loc="left", color="#222222")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8.5)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)
    if not np.isfinite(y).any():
        axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", va="center", color=GREY, fontsize=9)
        axis.set_yticks([])
        return
    alone = np.count_nonzero(np.isfinite(y)) == 1
    style = "o" if points else "o-" if alone or dots else "-"
    axis.plot(x, y, style, color=colour, linewidth=1.6, markersize=3 if dots else 4)
