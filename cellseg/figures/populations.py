"""Populations: the tables of cells and tracks as plots: lineage tree, counts, sizes, speeds, displacement.

Tracks over the images are drawn in `cellseg.figures.tracks`.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from cellseg.figures.canvas import BLUE, DPI, GREY, ORANGE, png
from cellseg.figures.tracks import track_colours
from pipelines.tracks import Track

BRANCH, TALLEST = 0.085, 14.0  # inches: of a cell in the tree, of the tree
BINS = 40
FEW = 0.05  # of the pairs of the lag that has most: lags with fewer are not drawn
MICRO = {"um2": "µm²", "um_per_s": "µm/s"}


def lineage_tree(tracks: Mapping[int, Track], *, interval_s: float | None = None) -> bytes:
    """Who divides into whom and when: time to the right, a line for each track, a dot where it divides.

    Colours as in the pictures of the tracks. Where not all families fit, those with the most tracks are shown.

    Args:
        tracks: Tracks by label; without any the frame alone.
        interval_s: Seconds between frames, for a second axis in hours.

    Returns:
        PNG.
    """
    families = _families(tracks)
    daughters = {label: ones for _, children in families for label, ones in children.items()}
    shown: list[tuple[int, dict[int, float]]] = []
    height = 0.0
    most = (TALLEST - 1) / BRANCH
    for founder, children in families:
        places, leaves = _layout(founder, children)
        if height + leaves + 1 <= most or not shown:
            shown.append((founder, {label: place + height for label, place in places.items()}))
            height += leaves + 1
    figure = Figure(figsize=(9.6, max(1.6, height * BRANCH + 1)), dpi=DPI, facecolor="white", layout="constrained")
    axis = figure.subplots()
    colours = track_colours(tracks)
    for _, places in shown:
        for label, place in sorted(places.items()):
            track, colour = tracks[label], tuple(level / 255 for level in colours[label])
            axis.plot([track.begin, track.end], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
            for one in daughters[label]:
                axis.plot([track.end, tracks[one].begin], [place, places[one]], color=colour, linewidth=0.9)
            if len(daughters[label]) > 1:
                axis.plot(track.end, place, "o", color="#333333", markersize=2.2, zorder=3)
    divisions = sum(len(ones) > 1 for ones in daughters.values())
    some = f"the {len(shown)} largest of {len(families)}" if len(shown) < len(families) else f"{len(families)}"
    axis.set_title(
        f"{len(tracks)} tracks, {divisions} divisions; shown: {some} families",
        fontsize=9.5,
        loc="left",
        color="#222222",
    )
    axis.set_ylim(height, -1.5)
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)
    _time_axis(axis, interval_s)
    return png(figure)


def population(cells: pd.DataFrame, tracks: pd.DataFrame | None = None, *, interval_s: float | None = None) -> bytes:
    """Cells over time, and how areas, mean speeds and division times are distributed, each with its median.

    In micrometres and seconds where the tables have them, else in pixels and frames.

    Args:
        cells: `cellseg.measuring.measure_cells`.
        tracks: `cellseg.motion.measure_tracks`; None leaves speeds and division times out.
        interval_s: Seconds between frames, for a second axis in hours.

    Returns:
        PNG.
    """
    rows = 1 if tracks is None else 2
    figure = Figure(figsize=(9.6, 2.9 * rows), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    _counts(axes[0], cells)
    _time_axis(axes[0], interval_s)
    _distribution(axes[1], cells, "area", "area of the cells, all frames", "pixels")
    if tracks is not None:
        _distribution(axes[2], tracks, "mean_speed", "mean speed of the tracks", "pixels/frame")
        _distribution(axes[3], tracks, "division_time", "time from division to division", "frames")
    return png(figure)


def displacement(msd: pd.DataFrame) -> bytes:
    """Mean squared displacement over the time between two frames, all tracks together and each for itself (pale).

    On logarithmic axes a straight walk rises with slope 2, a random one with slope 1; both slopes are drawn.

    Args:
        msd: `cellseg.motion.mean_squared_displacement`.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(5.4, 4.0), dpi=DPI, facecolor="white", layout="constrained")
    axis = figure.subplots()
    time = "lag_s" if "lag_s" in msd else "lag"
    square = "msd_um2" if "msd_um2" in msd else "msd"
    _style(axis, f"mean squared displacement, {'µm²' if square == 'msd_um2' else 'pixels²'}")
    axis.set_xlabel("time between frames, s" if time == "lag_s" else "time between frames, frames", fontsize=9)
    kept = msd[msd[square] > 0]
    whole = kept[kept["track"] == 0]
    # The longest lags have the pairs of a few tracks alone.
    whole = whole[whole["num_pairs"] >= FEW * whole["num_pairs"].max()]
    if not len(whole):
        _say_nothing(axis)
        return png(figure)
    single = []
    for _, own in kept[kept["track"] > 0].groupby("track"):
        # Above a quarter of a track's length there are too few for a mean; the table itself may end sooner.
        length = own["num_pairs"].iloc[0] + own["lag"].iloc[0]
        reliable = own[own["lag"] <= max(1, length // 4)]
        single.append(reliable[[time, square]].to_numpy(np.float64))
    # One artist: a line for each of some hundred tracks takes seconds.
    axis.add_collection(LineCollection(single, colors=GREY, alpha=0.12, linewidths=0.7))
    axis.plot(whole[time], whole[square], color=ORANGE, linewidth=2, label="all tracks together")
    first = whole.iloc[0]
    reach = np.array([first[time], whole[time].max()])
    for slope, line, name in ((2, "--", "slope 2: straight"), (1, ":", "slope 1: random")):
        axis.plot(reach, first[square] * (reach / reach[0]) ** slope, line, color="#333333", linewidth=1, label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for one in (axis.xaxis, axis.yaxis):
        # Matplotlib's own labels overlap where an axis spans little more than a decade.
        one.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        one.set_major_formatter(StrMethodFormatter("{x:g}"))
        one.set_minor_formatter(NullFormatter())
    axis.legend(frameon=False, fontsize=8.5)
    return png(figure)


def _families(tracks: Mapping[int, Track]) -> list[tuple[int, dict[int, list[int]]]]:
    """Founders and who descends from whom in their family, the families with the most tracks first."""
    children: dict[int, list[int]] = {label: [] for label in tracks}
    founders: list[int] = []
    for label in sorted(tracks):
        parent = tracks[label].parent
        children.get(parent, founders).append(label)
    found = []
    for founder in founders:
        family, open_ = {}, [founder]
        while open_:
            one = open_.pop()
            family[one] = children[one]
            open_.extend(children[one])
        found.append((founder, family))
    return sorted(found, key=lambda family: (-len(family[1]), family[0]))


def _layout(founder: int, children: Mapping[int, list[int]]) -> tuple[dict[int, float], int]:
    """The height of each track, its daughters on both sides of it, and the number of leaves."""
    order, open_ = [], [founder]
    while open_:
        order.append(open_.pop())
        # Last in, first out: the first daughter's branch stands above.
        open_.extend(reversed(children[order[-1]]))
    leaves = [label for label in order if not children[label]]
    places = {label: float(number) for number, label in enumerate(leaves)}
    for label in reversed(order):
        if children[label]:
            places[label] = float(np.mean([places[one] for one in children[label]]))
    return places, len(leaves)


def _counts(axis: Axes, cells: pd.DataFrame) -> None:
    _style(axis, "cells in each frame")
    if not len(cells):
        _say_nothing(axis)
        return
    counts = cells["frame"].value_counts()
    known = counts.index.to_numpy(np.int64)
    # Where frames have no cells, the first and the last of them draw the line: numbers may lie 2**31 apart.
    around = np.unique(np.concatenate([known - 1, known, known + 1]))
    frames = around[(around >= known.min()) & (around <= known.max())]
    axis.plot(frames, counts.reindex(frames, fill_value=0), color=BLUE, linewidth=1.6)
    axis.set_ylim(bottom=0)


def _distribution(axis: Axes, table: pd.DataFrame, name: str, title: str, unit: str) -> None:
    real = next((f"{name}{end}" for end in ("_um2", "_um_per_s", "_s") if f"{name}{end}" in table), name)
    values = table[real].to_numpy(np.float64)
    values = values[np.isfinite(values)]
    unit = MICRO.get(real.removeprefix(f"{name}_"), unit)
    if real.endswith("_s") and unit == "frames":
        values, unit = values / 3600, "h"
    _style(axis, f"{title} ({len(values)})")
    axis.set_xlabel(unit, fontsize=9)
    if not len(values):
        _say_nothing(axis)
        return
    # A few giants would squeeze all others into the first bars.
    top = float(np.quantile(values, 0.995))
    shown = values[values <= top] if top > values.min() else values
    axis.hist(shown, bins=min(BINS, max(5, len(values) // 3)), color=BLUE, alpha=0.85)
    median = float(np.median(values))
    axis.axvline(median, color=ORANGE, linewidth=1.4)
    number = f"{median:,.0f}" if median >= 1000 else f"{median:.3g}"
    axis.text(0.99, 1.02, f"median {number} {unit}", transform=axis.transAxes, ha="right", va="bottom", fontsize=9,
              color=ORANGE)  # fmt: skip


def _style(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9.5, loc="left", color="#222222")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8.5)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)


def _say_nothing(axis: Axes) -> None:
    axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", va="center", color=GREY, fontsize=9)
    axis.set_yticks([])


def _time_axis(axis: Axes, interval_s: float | None) -> None:
    axis.set_xlabel("frame", fontsize=9)
    axis.tick_params(labelsize=8.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if interval_s is not None:
        hours = interval_s / 3600
        above = axis.secondary_xaxis("top", functions=(partial(np.multiply, hours), partial(np.multiply, 1 / hours)))
        above.set_xlabel("hours", fontsize=8.5)
        above.tick_params(labelsize=8)
