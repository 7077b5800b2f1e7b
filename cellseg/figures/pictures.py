"""Pictures: images with what was found in them, as PNG bytes.

Plots of tables live in `cellseg.figures.plots`; the preview of a prepared data set in `pipelines.preview`.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure

from cellseg.figures.canvas import DPI, legend, pixels, png, put
from cellseg.overlap import contingency, match, without_ignored
from pipelines.contrast import contrast_limits
from pipelines.preview import COLOURS, displayed, outline, resized, tinted

# After Okabe & Ito: blue and orange differ for every kind of colour vision, and white from both.
TRUTH, PREDICTION, BOTH, UNMATCHED = (86, 180, 233), (255, 122, 20), (255, 255, 255), (190, 190, 190)
UNKNOWN = (120, 120, 120)  # cells where the truth says nothing
LARGE, SMALLEST = 5.2, 0.8  # inches, longer and least side of the picture with both outlines
COLUMN = 2.4  # inches that a caption needs
GAP, MARGIN, CAPTION, LEGEND = 0.1, 0.05, 0.2, 0.3  # inches
DIMMED = 0.7  # brightness of the image under the outlines, so that white lines show on bright cells


def outlines(
    image: np.ndarray,
    labels_true: np.ndarray,
    labels_pred: np.ndarray,
    *,
    limits: tuple[float, float] | None = None,
    title: str = "",
    probability: np.ndarray | None = None,
    ignore: np.ndarray | None = None,
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
        ignore: bool (H, W), where the truth is unknown; predicted cells mostly there are drawn and counted apart.

    Returns:
        PNG.

    Raises:
        InputError: labels that are not integers >= 0 of one shape.
    """
    judged = labels_pred if ignore is None else without_ignored(labels_pred, ignore)
    unknown = np.where(judged == labels_pred, 0, labels_pred)
    cells_true, cells_pred, found = _matched(labels_true, judged)
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
    large, small = pixels(height, width), pixels(small_height, small_width)

    shown = displayed(image, limits)
    both = _both_outlines(*(resized(one, large) for one in (shown, cells_true, cells_pred, unknown)))
    put(figure, both, "Outlines of truth and prediction", MARGIN, top)
    shown = resized(shown, small)
    put(figure, shown, "Image", left, top)
    if probability is not None:
        levels = np.clip(255 * np.asarray(probability, np.float32), 0, 255).astype(np.uint8)
        put(figure, resized(levels, small), "Probability (white = 1)", right, top)
    for cells, name, place in ((cells_true, "Truth", left), (cells_pred, "Prediction", right)):
        count = int(cells.max(initial=0))
        palette = np.array([COLOURS[i % len(COLOURS)] if i <= found else UNMATCHED for i in range(count + 1)], np.uint8)
        alone = f", {count - found} unmatched" if count > found else ""
        picture = tinted(shown, resized(cells, small), palette=palette)
        if cells is cells_pred and unknown.any():
            picture[outline(resized(unknown, small))] = UNKNOWN
        put(figure, picture, f"{name}: {count} cell{'' if count == 1 else 's'}{alone}", place, below)
    if title:
        left_end, upper_end = MARGIN / total[0], 1 - 0.05 / total[1]
        figure.text(left_end, upper_end, title, fontsize=10.5, fontweight="bold", va="top", parse_math=False)
    colours = {"truth": TRUTH, "prediction": PREDICTION, "both agree": BOTH}
    unjudged = len(np.unique(unknown)) - 1 if unknown.any() else 0
    legend(figure, MARGIN, colours | ({f"truth unknown ({unjudged})": UNKNOWN} if unjudged else {}))
    legend(figure, left, {"coloured: shared, IoU 0.5 or more": COLOURS[2], "grey: unmatched": UNMATCHED})
    return png(figure)


def answers(
    image: np.ndarray,
    labels_true: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    *,
    limits: tuple[float, float] | None = None,
) -> bytes:
    """The image with the outlines of its truth, and beside it several probabilities of the same foreground.

    Args:
        image: (H, W, C), any dtype.
        labels_true: int (H, W), 0 = background.
        probabilities: float (H, W) in [0, 1] by caption.
        limits: As in `outlines`.

    Returns:
        PNG.
    """
    scale = COLUMN / image.shape[1]
    height, width = max(image.shape[0] * scale, SMALLEST), max(COLUMN, SMALLEST)
    size = pixels(height, width)
    total = (MARGIN + (1 + len(probabilities)) * (width + GAP), height + CAPTION + MARGIN)
    figure = Figure(figsize=total, dpi=DPI, facecolor="white")
    shown = resized(displayed(image, limits), size)
    shown[outline(resized(labels_true, size), thickness=2)] = TRUTH
    put(figure, shown, "Image and truth", MARGIN, CAPTION)
    for place, (caption, probability) in enumerate(probabilities.items(), start=1):
        levels = np.clip(255 * np.asarray(probability, np.float32), 0, 255).astype(np.uint8)
        put(figure, resized(levels, size), caption, MARGIN + place * (width + GAP), CAPTION)
    return png(figure)


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


def class_outlines(
    image: np.ndarray,
    classes_true: np.ndarray,
    labels_true: np.ndarray,
    classes_pred: np.ndarray,
    labels_pred: np.ndarray,
    *,
    names: Sequence[str],
    limits: tuple[float, float] | None = None,
) -> bytes:
    """Truth and prediction side by side, each cell outlined in the colour of its class.

    Args:
        image: (H, W, C), any dtype.
        classes_true: int (H, W), class of each pixel's cell; 0 = background or unknown, drawn grey.
        labels_true: int (H, W), 0 = background.
        classes_pred: int (H, W), 0 = background.
        labels_pred: int (H, W).
        names: Of the classes, class 1 first.
        limits: As in `outlines`.

    Returns:
        PNG.
    """
    scale = LARGE / max(image.shape[:2])
    height, width = (max(side * scale, SMALLEST) for side in image.shape[:2])
    total = (2 * width + 2 * MARGIN + GAP, height + CAPTION + LEGEND + MARGIN)
    figure = Figure(figsize=total, dpi=DPI, facecolor="white")
    size = pixels(height, width)
    shown = resized((DIMMED * displayed(image, limits)).astype(np.uint8), size)
    palette = [UNMATCHED, *(COLOURS[place % len(COLOURS)] for place in range(len(names)))]
    sides = (("Truth", labels_true, classes_true), ("Prediction", labels_pred, classes_pred))
    for number, (name, labels, classes) in enumerate(sides):
        drawn = shown.copy()
        line = outline(resized(labels, size), thickness=2)
        drawn[line] = np.array(palette, np.uint8)[resized(classes.astype(np.int32), size)[line]]
        count = len(np.unique(labels[labels > 0]))
        put(figure, drawn, f"{name}: {count} cells", MARGIN + number * (width + GAP), CAPTION)
    legend(figure, MARGIN, dict(zip(names, palette[1:], strict=True)))
    return png(figure)


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


def _both_outlines(
    picture: np.ndarray, labels_true: np.ndarray, labels_pred: np.ndarray, unknown: np.ndarray
) -> np.ndarray:
    out = (DIMMED * picture).astype(np.uint8)
    out[outline(unknown, thickness=2)] = UNKNOWN
    true, pred = outline(labels_true, thickness=2), outline(labels_pred, thickness=2)
    out[true], out[pred], out[true & pred] = TRUTH, PREDICTION, BOTH
    return out
