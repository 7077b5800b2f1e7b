"""Figures: arrays and tables to PNG bytes, for the report and for whoever wants one alone.

The report that holds them is `cellseg.report`; the preview of a prepared data set is `pipelines.preview`.
"""

import io
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cellseg.overlap import contingency, match
from pipelines.images import contrast_limits
from pipelines.preview import COLOURS, displayed, outline, resized, tinted

# After Okabe & Ito: blue and orange differ for every kind of colour vision, and white from both.
TRUTH, PREDICTION, BOTH, UNMATCHED = (86, 180, 233), (255, 122, 20), (255, 255, 255), (190, 190, 190)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6b6b6b"
DPI = 150
LARGE, SMALLEST = 5.2, 0.8  # inches, longer and least side of the picture with both outlines
COLUMN = 2.4  # inches that a caption needs
GAP, MARGIN, CAPTION, LEGEND = 0.1, 0.05, 0.2, 0.3  # inches
DIMMED = 0.7  # brightness of the image under the outlines, so that white lines show on bright cells
NAMED = 3  # images with the lowest score that carry their name


def outlines(
    image: np.ndarray,
    labels_true: np.ndarray,
    labels_pred: np.ndarray,
    *,
    limits: tuple[float, float] | None = None,
    title: str = "",
    probability: np.ndarray | None = None,
) -> bytes:
    """Truth against prediction: large, the outlines of both; beside it image, probability, truth and prediction.

    In the small pictures a cell that truth and prediction share (IoU >= 0.5) has the same colour in both, and one
    without a partner is grey.

    Args:
        image: (H, W, C), any dtype.
        labels_true: int (H, W), 0 = background.
        labels_pred: int (H, W), the same shape.
        limits: (low, high) of the contrast in the image's own values; None = 2nd and 98th percentile.
        title: A line above the pictures.
        probability: float (H, W) in [0, 1]; None leaves its place empty.

    Returns:
        PNG.

    Raises:
        InputError: labels that are not integers >= 0 of one shape.
    """
    cells_true, cells_pred, found = _matched(labels_true, labels_pred)
    scale = LARGE / max(image.shape[:2])
    height, width = (max(side * scale, SMALLEST) for side in image.shape[:2])
    head = 0.32 if title else 0.04
    # Two small pictures with a caption between them are as high as the large one.
    ratio = (height - CAPTION - GAP) / 2 / height
    small_height, small_width = height * ratio, width * ratio
    column = max(small_width, COLUMN)
    top, left = head + CAPTION, MARGIN + max(width, COLUMN) + 2 * GAP
    right, below = left + column + GAP, top + small_height + GAP + CAPTION
    total = (right + column + MARGIN, top + height + LEGEND)
    figure = Figure(figsize=total, dpi=DPI, facecolor="white")
    large, small = _pixels(height, width), _pixels(small_height, small_width)

    shown = displayed(image, limits)
    both = _both_outlines(resized(shown, large), resized(cells_true, large), resized(cells_pred, large))
    _place(figure, both, "Outlines of truth and prediction", MARGIN, top)
    shown = resized(shown, small)
    _place(figure, shown, "Image", left, top)
    if probability is not None:
        levels = np.clip(255 * np.asarray(probability, np.float32), 0, 255).astype(np.uint8)
        _place(figure, resized(levels, small), "Probability (white = 1)", right, top)
    for cells, name, place in ((cells_true, "Truth", left), (cells_pred, "Prediction", right)):
        count = int(cells.max(initial=0))
        palette = np.array([COLOURS[i % len(COLOURS)] if i <= found else UNMATCHED for i in range(count + 1)], np.uint8)
        alone = f", {count - found} unmatched" if count > found else ""
        picture = tinted(shown, resized(cells, small), palette=palette)
        _place(figure, picture, f"{name}: {count} cell{'' if count == 1 else 's'}{alone}", place, below)
    if title:
        left_end, upper_end = MARGIN / total[0], 1 - 0.05 / total[1]
        figure.text(left_end, upper_end, title, fontsize=10.5, fontweight="bold", va="top", parse_math=False)
    _legend(figure, MARGIN, {"truth": TRUTH, "prediction": PREDICTION, "both agree": BOTH})
    _legend(figure, left, {"coloured: shared, IoU 0.5 or more": COLOURS[2], "grey: unmatched": UNMATCHED})
    return _png(figure)


def overlay(image: np.ndarray, labels: np.ndarray, *, contrast: tuple[float, float] = (2.0, 98.0)) -> bytes:
    """One labelling on its image, pixel for pixel: each cell tinted and outlined in a colour of its own.

    Args:
        image: (H, W, C), any dtype.
        labels: int32 (H, W), 0 = background; without cells the image alone.
        contrast: Percentiles that become black and white.

    Returns:
        PNG of H x W pixels.
    """
    picture = tinted(displayed(image, contrast_limits(image, *contrast)), labels)
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def training_curves(history: pd.DataFrame) -> bytes:
    """Loss, validation Dice, learning rate and drawn / true foreground over the epochs, the best epoch marked.

    Args:
        history: `history.csv` of a run: epoch (from 0), loss, val_dice, learning_rate, val_foreground_ratio. A
            column that is missing or holds no number is said to be missing.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(9.6, 3.9), dpi=DPI, facecolor="white", layout="constrained")
    (loss, dice), (rate, ratio) = figure.subplots(2, 2, sharex=True, gridspec_kw={"height_ratios": [3, 1.15]})
    epochs = (_column(history, "epoch") if "epoch" in history else np.arange(len(history))) + 1
    scores = _column(history, "val_dice")
    best = int(np.nanargmax(scores)) if np.isfinite(scores).any() else None
    told = "" if best is None else f", best {scores[best]:.3f} in epoch {epochs[best]:.0f}"
    rates = _column(history, "learning_rate")
    _curve(loss, epochs, _column(history, "loss"), "training loss", BLUE)
    _curve(dice, epochs, scores, f"validation Dice{told}", ORANGE)
    _curve(rate, epochs, rates, "learning rate", GREY)
    _curve(ratio, epochs, _column(history, "val_foreground_ratio"), "drawn / true foreground at threshold 0.5", GREY)
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
    return _png(figure)


def threshold_curve(curve: Mapping[str, Sequence[float | None]], chosen: float) -> bytes:
    """Dice, and drawn / true foreground, at every threshold of the probability; the chosen threshold marked.

    Args:
        curve: `curve` of `threshold.json`: threshold, dice, foreground_ratio; None = undefined.
        chosen: The run's threshold.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(9.6, 2.9), dpi=DPI, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    table = pd.DataFrame(dict(curve))
    thresholds, ratio = _column(table, "threshold"), _column(table, "foreground_ratio")
    _curve(left, thresholds, _column(table, "dice"), "Dice", ORANGE)
    _curve(right, thresholds, ratio, "drawn / true foreground", BLUE)
    right.axhline(1, color="#bbbbbb", linewidth=0.8, zorder=0)
    if np.isfinite(ratio).any():
        right.set_ylim(0, min(float(np.nanmax(ratio)) * 1.05, 3.0))
    for axis in (left, right):
        axis.set_xlim(0, 1)
        axis.set_xlabel("threshold of the probability", fontsize=9)
        axis.axvline(chosen, color="#444444", linewidth=1, linestyle="--")
        axis.annotate(
            f"chosen: {chosen:.3g}",
            (chosen, 0.04),
            xycoords=("data", "axes fraction"),
            xytext=(5 if chosen < 0.7 else -5, 0),
            textcoords="offset points",
            ha="left" if chosen < 0.7 else "right",
            fontsize=9,
        )
    return _png(figure)


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
    return _png(figure)


def _matched(labels_true: np.ndarray, labels_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Both labellings numbered anew: partners are 1..k on both sides, those without are k + 1 and above; and k."""
    overlap = contingency(labels_true, labels_pred)
    pairs = match(overlap)
    found = pairs.true_positives
    renumbered = []
    for labels, ids, partners in (
        (labels_true, overlap.ids_true, pairs.ids_true),
        (labels_pred, overlap.ids_pred, pairs.ids_pred),
    ):
        order = np.concatenate([[0], partners, np.setdiff1d(ids[1:], partners)]).astype(np.int64)
        numbers = np.empty(len(ids), np.int32)
        numbers[np.searchsorted(ids, order)] = np.arange(len(ids), dtype=np.int32)
        renumbered.append(numbers[np.searchsorted(ids, labels)])
    return renumbered[0], renumbered[1], found


def _both_outlines(picture: np.ndarray, labels_true: np.ndarray, labels_pred: np.ndarray) -> np.ndarray:
    out = (DIMMED * picture).astype(np.uint8)
    true, pred = outline(labels_true, thickness=2), outline(labels_pred, thickness=2)
    out[true], out[pred], out[true & pred] = TRUTH, PREDICTION, BOTH
    return out


def _shortened(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else f"{name[: longest - 13]}…{name[-12:]}"


def _pixels(height: float, width: float) -> tuple[int, int]:
    return max(1, round(height * DPI)), max(1, round(width * DPI))


def _place(figure: Figure, picture: np.ndarray, caption: str, left: float, top: float) -> None:
    """Put a picture, one pixel a pixel, with its caption above; left and top in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    tall, wide = (side / DPI for side in picture.shape[:2])
    axis = figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))
    axis.imshow(picture, interpolation="nearest", aspect="auto", cmap="gray", vmin=0, vmax=255)
    axis.set_axis_off()
    figure.text(left / width, 1 - (top - 0.04) / height, caption, fontsize=9, va="bottom", color="#222222")


def _legend(figure: Figure, left: float, colours: Mapping[str, Sequence[int]]) -> None:
    patches = [
        Patch(
            facecolor=(colour[0] / 255, colour[1] / 255, colour[2] / 255),
            edgecolor="#555555",
            linewidth=0.5,
            label=name,
        )
        for name, colour in colours.items()
    ]
    figure.legend(
        handles=patches,
        loc="lower left",
        bbox_to_anchor=(left / figure.get_size_inches()[0], 0),
        ncols=len(patches),
        frameon=False,
        fontsize=8.5,
        handlelength=1.2,
        handleheight=0.9,
        columnspacing=1.2,
        borderpad=0.3,
        borderaxespad=0,
    )


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column as float64, NaN where it is no number; all NaN if the table has no such column."""
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)


def _curve(axis: Axes, x: np.ndarray, y: np.ndarray, name: str, colour: str, *, points: bool = False) -> None:
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
    axis.plot(x, y, "o" if points else "o-" if alone else "-", color=colour, linewidth=1.6, markersize=4)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


FIGURES: dict[str, Callable[..., bytes]] = {
    "outlines": outlines,
    "overlay": overlay,
    "training_curves": training_curves,
    "threshold_curve": threshold_curve,
    "per_image_scores": per_image_scores,
}
