"""Pictures of the dashboard: what the network is given, and what it answers, four panels to a picture.

What is written, and when, is decided in `cellseg.dashboard`. The pictures of a finished run live in `cellseg.figures`.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from cellseg.callbacks import ValidationImage
from cellseg.thresholds import ThresholdCurve
from pipelines.preview import COLOURS, displayed, resized, tinted

SIDE = 256  # pixels of a panel's longer side: small files
GAP, HEAD, SIZE = 6, 24, 0.6  # pixels between panels and above them; size of the letters
GROUND, INK, RULE = 255, (40, 40, 40), (215, 215, 215)
PLOT = (380, 480)  # pixels, height and width of the threshold curve
DICE, PRECISION, RECALL = (213, 94, 0), (0, 114, 178), (107, 107, 107)  # orange, blue, grey
# As the pictures of truth against prediction in the report: blue = truth alone, orange = prediction alone.
MISSED, EXTRA, HIT, UNKNOWN = (86, 180, 233), (255, 122, 20), (255, 255, 255), (110, 110, 110)
INPUT_TOLD = (
    "A patch as the network gets it, after augmentation: **image**; the cells of its **truth** on it; the **target** "
    "that the network is to answer; the **weight map** from dark (0, or least) to bright, how much each pixel counts "
    "in the loss. Where the network finds cells one by one, the last two are its **boxes**, and white what counts for "
    "nothing."
)
CURVE_TOLD = (
    "The pixels of all validation images, at each threshold of the probability: **Dice** orange, **precision** blue, "
    "**recall** grey. The line is the epoch's best threshold: of those whose Dice is within 0.005 of the highest, that "
    "whose drawn area is nearest to the true one."
)
ANSWER_TOLD = (
    "A whole validation image: **image**; **truth**; **probability** of foreground, white = 1; and what is right and "
    "wrong at the epoch's best threshold: white = found, blue = missed, orange = drawn too much, grey = unannotated."
)


def answer(image: ValidationImage, probability: np.ndarray, threshold: float) -> np.ndarray:
    """A validation image, its truth, the network's answer and its mistakes.

    Args:
        image: (H, W, C) with its truth.
        probability: float32 (H, W) of foreground.
        threshold: Where foreground begins in the last panel.

    Returns:
        uint8 RGB.
    """
    drawn = probability >= threshold
    mistakes = np.zeros((*drawn.shape, 3), np.uint8)
    mistakes[drawn & image.mask], mistakes[drawn & ~image.mask] = HIT, EXTRA
    mistakes[image.mask & ~drawn] = MISSED
    truth = _grey(image.mask.astype(np.float32))
    if image.ignore is not None:
        mistakes[image.ignore] = truth[image.ignore] = UNKNOWN
    panels = {
        "image": displayed(image.image, image.limits),
        "truth": truth,
        "probability": _grey(probability),
        f"mistakes at {threshold:.2g}": mistakes,
    }
    return _in_a_square(panels)


def patch(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """A training patch with its truth, target and weight map; or with boxes and ignored pixels.

    Args:
        arrays: Of `pipelines.dataset.Batches.example`: image (patch, patch, C) in [0, 1], labels (output, output),
            target (output, output, K), weight_map (output, output, 1); or of `pipelines.objects.ObjectBatches`.

    Returns:
        uint8 RGB.
    """
    if "boxes" in arrays:
        return _objects(arrays["image"], arrays["labels"], arrays["boxes"])
    image, labels, weights = arrays["image"], arrays["labels"], arrays["weight_map"][..., 0]
    margin = (len(image) - len(labels)) // 2
    picture = displayed(image, (0.0, 1.0))
    inner = picture[margin : margin + len(labels), margin : margin + len(labels)]
    shown = np.clip(weights / max(1.0, float(weights.max())), 0, 1)
    coloured = cv2.applyColorMap((255 * shown).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    panels = {
        "image": picture,
        "truth": tinted(inner, labels),
        "target": _target(arrays["target"]),
        f"weights {weights.min():.2g} - {weights.max():.2g}": coloured,
    }
    return _in_a_square(panels)


def _objects(image: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    picture = displayed(image, (0.0, 1.0))
    boxed = picture.copy()
    for top, left, bottom, right in boxes[boxes.any(axis=1)].astype(int).tolist():
        cv2.rectangle(boxed, (left, top), (right - 1, bottom - 1), EXTRA, 1)
    truth = tinted(picture, np.maximum(labels, 0))
    ignored = _grey((labels < 0).astype(np.float32))
    return _in_a_square({"image": picture, "truth": truth, "boxes": boxed, "counts for nothing": ignored})


def threshold_curve(curve: ThresholdCurve, chosen: float) -> np.ndarray:
    """Dice, precision and recall of the pixels at each threshold, and a line at the chosen one: uint8 RGB.

    Drawn with OpenCV: matplotlib takes fifty times as long, and the page shows it small.
    """
    height, width = PLOT
    left, top = 44, 2 * HEAD
    page = np.full((top + height + HEAD, left + width + HEAD, 3), GROUND, np.uint8)

    def place(threshold: float, value: float) -> tuple[int, int]:
        return left + round(threshold * width), top + round((1 - value) * height)

    for tenth in range(0, 11, 2):
        share = tenth / 10
        cv2.line(page, place(0, share), place(1, share), RULE, 1)
        cv2.line(page, place(share, 0), place(share, 1), RULE, 1)
        _write(page, f"{share:g}", 6, place(0, share)[1] + 6)
        _write(page, f"{share:g}", place(share, 0)[0] - 10, top + height + HEAD - 4)
    cv2.line(page, place(chosen, 0), place(chosen, 1), INK, 1)
    hits, drawn, true, _ = curve.counts
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = {"Dice": curve.dice, "precision": hits / drawn, "recall": hits / np.float64(true)}
    for number, (name, values) in enumerate(curves.items()):
        colour = (DICE, PRECISION, RECALL)[number]
        known = np.isfinite(values)
        points = [place(*pair) for pair in zip(curve.thresholds[known], values[known], strict=True)]
        cv2.polylines(page, [np.array(points, np.int32).reshape(-1, 1, 2)], False, colour, 2, cv2.LINE_AA)
        _write(page, name, left + 110 * number, HEAD - 4, colour)
    _write(page, f"threshold {chosen:.2g}", left + 330, HEAD - 4)
    return page


def _write(page: np.ndarray, text: str, left: int, bottom: int, colour: tuple[int, int, int] = INK) -> None:
    cv2.putText(page, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, SIZE, colour, 1, cv2.LINE_AA)


def _target(target: np.ndarray) -> np.ndarray:
    """One channel grey; of a one-hot target each pixel's class in a colour; else three channels as red, green, blue."""
    channels = target.shape[2]
    if channels == 1:
        return _grey(target[..., 0])
    if np.allclose(target.sum(axis=2), 1) and np.isin(target, (0, 1)).all():
        palette = np.concatenate([np.zeros((1, 3), np.uint8), COLOURS])
        return palette[target.argmax(axis=2) % len(palette)]
    return displayed(target, (0.0, 1.0))


def _grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(np.round(255 * np.clip(levels, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def _in_a_square(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Two rows of two RGB panels, each under its name: TensorBoard shows a row of four too small."""
    pictures = [_fitted(panel) for panel in panels.values()]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    page = np.full((2 * (HEAD + height), 2 * width + GAP, 3), GROUND, np.uint8)
    for number, (name, picture) in enumerate(zip(panels, pictures, strict=True)):
        top, left = number // 2 * (HEAD + height) + HEAD, number % 2 * (width + GAP)
        page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        _write(page, name, left + 1, top - 7)
    return page


def _fitted(picture: np.ndarray) -> np.ndarray:
    """With a longer side of SIDE pixels."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size: Sequence[int] = (max(1, round(height * scale)), max(1, round(width * scale)))
    if scale > 1:
        rows = (np.arange(size[0]) * height // size[0]).astype(int)
        columns = (np.arange(size[1]) * width // size[1]).astype(int)
        return picture[rows[:, None], columns]
    return resized(picture, (size[0], size[1]))
