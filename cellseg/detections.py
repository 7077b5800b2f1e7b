"""Detections: cells that a network has found one by one, each with box, class, score and mask, made into labels.

Finding them is the work of `cellseg.models.mask_rcnn`; an image of any size is brought to it by `cellseg.predictors`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from pipelines.errors import InputError

SAME_CELL = 0.5  # share of the smaller mask that two tiles' masks of one cell have in common, at least
EDGE = 2.0  # pixels: a box that comes as near to the edge of its tile may be cut off there
MASK = 0.5  # of a mask's probability, where tiles are joined


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in an image, the best first.

    Args:
        shape: (H, W) of the image.
        boxes: float32 (n, 4), top, left, bottom, right in pixels, bottom and right exclusive.
        scores: float32 (n,) in [0, 1], descending.
        classes: int32 (n,), 1..K.
        masks: float32 (n, m, m), probability that a point of the box belongs to the cell.
    """

    shape: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, which: np.ndarray) -> "Detections":
        """Some of them, by index or as a bool array."""
        parts = (self.boxes[which], self.scores[which], self.classes[which], self.masks[which])
        return Detections(self.shape, *parts)

    def moved(self, down: float, across: float, shape: tuple[int, int]) -> "Detections":
        """In an image of another shape, in which this one's corner lies at (down, across)."""
        return replace(self, shape=shape, boxes=self.boxes + np.array([down, across] * 2, np.float32))

    def resized(self, shape: tuple[int, int]) -> "Detections":
        """In the same image at another size."""
        factors = np.array([shape[0] / self.shape[0], shape[1] / self.shape[1]] * 2, np.float32)
        return replace(self, shape=shape, boxes=self.boxes * factors)


def nothing(shape: tuple[int, int], *, side: int = 28) -> Detections:
    """No cell in an image (H, W)."""
    floats = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    return Detections(shape, *floats, np.zeros(0, np.int32), np.zeros((0, side, side), np.float32))


def paste(detections: Detections, index: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """The mask of one cell in the image's pixels: (rows, columns) of a window, and the probability there, float32.

    The mask's points are the middles of its m x m fields over the box; between them it is bilinear, and beyond the
    outermost ones it keeps their value. Pixels whose middle lies outside of the box have 0. A box that holds the middle
    of no pixel, as thin ones may, has the pixel that its own middle lies in.
    """
    height, width = detections.shape
    top, left, bottom, right = (float(value) for value in detections.boxes[index])
    side = detections.masks.shape[1]
    rows, row_weights = _spread(top, bottom, height, side)
    columns, column_weights = _spread(left, right, width, side)
    return (rows, columns), row_weights @ detections.masks[index] @ column_weights.T


def probability(detections: Detections) -> np.ndarray:
    """Probability of foreground, float32 (H, W): the largest score x mask of all cells found there; 0 elsewhere."""
    largest = np.zeros(detections.shape, np.float32)
    for index, score in enumerate(detections.scores):
        window, mask = paste(detections, index)
        np.maximum(largest[window], score * mask, out=largest[window])
    return largest


def draw(
    detections: Detections,
    inner: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    min_visible: float = 0.5,
    min_size: int = 0,
    border: Literal["keep", "drop"] = "keep",
    margin: int = 0,
) -> np.ndarray:
    """Labels of the cells that were found: the best score first, each on the pixels that are still free.

    Args:
        detections: What was found.
        inner: Not used.
        threshold: Least score of a cell.
        mask_threshold: A cell's pixels are those where its mask's probability is at least this.
        min_visible: A cell of which better ones leave less than this share of its pixels is left out, as one that was
            found twice.
        min_size: Smaller cells are dropped, in pixels; 0 and 1 keep all.
        border: `drop` leaves out the cells that touch the image border.
        margin: Cells that lie wholly within so many pixels of the image border are left out.

    Returns:
        int32 (H, W), 0 = background, 1..n in the order in which a scan by rows meets them. A cell is one connected
        piece: of what better cells leave of it the largest.

    Raises:
        InputError: an option outside its range.

    Reference:
        Kirillov et al. 2019, Panoptic segmentation, https://arxiv.org/abs/1801.00868 (overlaps by score, least share).
    """
    return drawn(
        detections,
        threshold=threshold,
        mask_threshold=mask_threshold,
        min_visible=min_visible,
        min_size=min_size,
        border=border,
        margin=margin,
    )[0]


def drawn(
    detections: Detections,
    *,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    min_visible: float = 0.5,
    min_size: int = 0,
    border: Literal["keep", "drop"] = "keep",
    margin: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """As `draw`, with the number of the detection that each label 1..n comes from, int (n,)."""
    _check(mask_threshold, min_visible, min_size, margin)
    labels = np.zeros(detections.shape, np.int32)
    found: list[int] = []
    for index in np.flatnonzero(detections.scores >= threshold):
        window, mask = paste(detections, int(index))
        wanted = mask >= mask_threshold
        free = wanted & (labels[window] == 0)
        count = int(np.count_nonzero(free))
        if count < max(min_size, 1) or count < min_visible * np.count_nonzero(wanted):
            continue
        piece = _largest_piece(free)
        if np.count_nonzero(piece) < max(min_size, 1) or (border == "drop" and _touches(piece, window, labels.shape)):
            continue
        if margin and not _reaches_inside(piece, window, labels.shape, margin):
            continue
        found.append(int(index))
        labels[window][piece] = len(found)
    return _in_scan_order(labels, np.array(found, np.int64))


def join(parts: Sequence[Detections], tiles: Sequence[tuple[int, int, int, int]]) -> Detections:
    """What overlapping tiles have found, each cell once.

    Of two masks from different tiles that share half of the smaller one, one stays: the one that its tile's edge has
    not cut off, else the better score. A cell should be smaller than the overlap, or no tile shows the whole of it.

    Args:
        parts: Of each tile, in the coordinates of the image; at least one.
        tiles: Top, left, bottom, right of each.

    Returns:
        The best first.
    """
    height, width = parts[0].shape
    cut, tile = [], []
    for number, (part, (top, left, bottom, right)) in enumerate(zip(parts, tiles, strict=True)):
        edges = np.array([top, left, bottom, right], np.float32)
        inside = np.array([top > 0, left > 0, bottom < height, right < width])  # edges that are not the image's
        cut.append((inside & (np.abs(part.boxes - edges) < EDGE)).any(axis=1))
        tile.append(np.full(len(part), number))
    together = Detections(
        parts[0].shape,
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "classes", "masks")),
    )
    own_tile, is_cut = np.concatenate(tile), np.concatenate(cut)
    kept: list[int] = []
    for index in np.lexsort((-together.scores, is_cut)):
        others = [other for other in kept if own_tile[other] != own_tile[index]]
        near = _meeting(together.boxes[index], together.boxes[others])
        if not any(_share(together, int(index), others[other]) >= SAME_CELL for other in near):
            kept.append(int(index))
    ranked = np.array(kept, np.int64)
    return together.chosen(ranked[np.argsort(-together.scores[ranked], kind="stable")])


def _spread(first: float, last: float, length: int, side: int) -> tuple[slice, np.ndarray]:
    """Pixels of one axis whose middle lies between first and last, and the weight of each of `side` points in them."""
    begin, end = max(int(np.ceil(first - 0.5)), 0), min(int(np.ceil(last - 0.5)), length)
    if end <= begin:
        begin = min(max(int((first + last) / 2), 0), length - 1)
        end = begin + 1
    middles = np.arange(begin, end) + 0.5
    places = np.clip((middles - first) / max(last - first, 1e-6) * side - 0.5, 0, side - 1)
    low = np.minimum(places.astype(int), max(side - 2, 0))
    weights = np.zeros((end - begin, side), np.float32)
    rows = np.arange(end - begin)
    weights[rows, low] = 1 - (places - low)
    weights[rows, np.minimum(low + 1, side - 1)] += places - low
    return slice(begin, end), weights


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    count, pieces, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return mask if count <= 2 else pieces == 1 + int(found[1:, cv2.CC_STAT_AREA].argmax())


def _touches(piece: np.ndarray, window: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    """Whether a piece of a window reaches the border of the image."""
    rows, columns = window
    sides = (
        (rows.start == 0, piece[0]),
        (rows.stop == shape[0], piece[-1]),
        (columns.start == 0, piece[:, 0]),
        (columns.stop == shape[1], piece[:, -1]),
    )
    return any(at_border and bool(side.any()) for at_border, side in sides)


def _reaches_inside(piece: np.ndarray, window: tuple[slice, slice], shape: tuple[int, ...], margin: int) -> bool:
    """Whether a piece of a window has a pixel farther than `margin` px from the border of the image."""
    (top, bottom), (left, right) = (
        (max(margin - side.start, 0), max(length - margin - side.start, 0))
        for side, length in zip(window, shape, strict=True)
    )
    return bool(piece[top:bottom, left:right].any())


def _in_scan_order(labels: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids, first = np.unique(labels, return_index=True)
    ids = ids[ids > 0]
    order = ids[np.argsort(first[-len(ids) :])] if len(ids) else ids
    numbers = np.zeros(len(found) + 1, np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers[labels], found[order - 1]


def _meeting(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Numbers of the boxes that share a point with a box."""
    if not len(boxes):
        return np.zeros(0, np.int64)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return np.flatnonzero((high > low).all(axis=1))


def _share(detections: Detections, first: int, second: int) -> float:
    """Pixels that two masks have in common, as a share of the smaller one."""
    masks = [(window, mask >= MASK) for window, mask in (paste(detections, index) for index in (first, second))]
    (here, one), (there, two) = masks
    smaller = min(np.count_nonzero(one), np.count_nonzero(two))
    low = [max(a.start, b.start) for a, b in zip(here, there, strict=True)]
    high = [min(a.stop, b.stop) for a, b in zip(here, there, strict=True)]
    if high[0] <= low[0] or high[1] <= low[1] or not smaller:
        return 0.0
    one, two = (
        mask[tuple(slice(a - side.start, b - side.start) for a, b, side in zip(low, high, window, strict=True))]
        for window, mask in masks
    )
    return float(np.count_nonzero(one & two) / smaller)


def _check(mask_threshold: float, min_visible: float, min_size: int, margin: int) -> None:
    for name, value in (("mask_threshold", mask_threshold), ("min_visible", min_visible)):
        if not 0 <= value <= 1:
            raise InputError(f"instances.{name} must be in [0, 1], got {value}.")
    if min_size < 0:
        raise InputError(f"min_size must be >= 0 pixels, got {min_size}.")
    if margin < 0:
        raise InputError(f"margin must be >= 0 pixels, got {margin}.")
