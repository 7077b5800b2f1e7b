"""Probability to labels: where one cell ends and the next begins.

Where one connected piece falls into cells says `cellseg.cuts`. Predicting the probability is the work of
`cellseg.inference`, choosing the threshold of `cellseg.thresholds`; images larger than memory are labelled in
`cellseg.merging`, with the same cells.
"""

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from cellseg.cuts import NO_INNER, Cut, Necks, Seeds
from cellseg.detections import draw
from pipelines.errors import InputError

Border = Literal["keep", "drop"]


def components(
    probability: np.ndarray,
    inner: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
    min_size: int = 0,
    fill_holes: bool = False,
    border: Border = "keep",
    margin: int = 0,
    connectivity: Literal[4, 8] = 8,
) -> np.ndarray:
    """Every connected piece of the foreground is one cell; touching cells become one.

    Args:
        probability: float (H, W) in [0, 1], or a bool mask.
        inner: Not used.
        threshold: Foreground is probability >= threshold.
        min_size: Smaller pieces are dropped, in pixels; 0 and 1 keep all.
        fill_holes: Background enclosed by foreground becomes foreground, before pieces are told apart: a piece
            that lies in the hole of another joins it.
        border: `drop` leaves out the cells that touch the image border, which show a part of themselves alone.
        margin: Cells that lie wholly within so many pixels of the image border are left out: the truth of the Cell
            Tracking Challenge has hardly any there, outside of its field of interest.
        connectivity: 8 joins pixels that touch at a corner, as scikit-image and MATLAB's bwlabel do; 4 does not
            (scipy.ndimage).

    Returns:
        int32 (H, W), 0 = background, 1..n in the order in which a scan by rows meets them. Nothing above the
        threshold: all 0.

    Raises:
        InputError: not a 2-D float or bool array, a NaN, or an option outside its range.
    """
    check_probability(probability, connectivity, min_size, margin)
    mask = _mask(probability, threshold, fill_holes, connectivity)
    _, labels = cv2.connectedComponents(mask, connectivity=connectivity, ltype=cv2.CV_32S)
    return _number(labels, min_size, border, margin)


def watershed(
    probability: np.ndarray,
    inner: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
    min_size: int = 0,
    fill_holes: bool = False,
    border: Border = "keep",
    margin: int = 0,
    sigma: float = 1.0,
    depth: float = 0.75,
) -> np.ndarray:
    """The foreground is cut into cells at its narrow places: watershed on the distance to the background.

    Touching cells form one piece whose distance transform has a hill for each. The hills grow downwards until they
    meet, there the cut is made. A dip that is shallower than `depth` makes no cut. A piece's cells depend on this piece
    alone, not on what lies beside it.

    Args:
        probability: float (H, W) in [0, 1], or a bool mask.
        inner: Not used.
        threshold: Foreground is probability >= threshold.
        min_size: Smaller cells are dropped, in pixels; 0 and 1 keep all.
        fill_holes, border, margin: As in `components`.
        sigma: Gaussian smoothing of the distances, in pixels; 0 = none. Rough outlines make false hills.
        depth: How far a hill must rise above the pass to its higher neighbour to be a cell of its own, in pixels.

    Returns:
        int32 (H, W), 0 = background, 1..n in the order in which a scan by rows meets them. Nothing above the
        threshold: all 0.

    Raises:
        InputError: not a 2-D float or bool array, a NaN, or an option outside its range.

    Reference:
        Beucher, Lantuejoul 1979; scikit-image's `watershed` and `h_maxima`.
    """
    check_probability(probability, 8, min_size, margin)
    cut = Necks(sigma=sigma, depth=depth)
    return _cut_mask(_mask(probability, threshold, fill_holes, 8), cut, None, min_size, border, margin)


def seeded(
    probability: np.ndarray,
    inner: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
    min_size: int = 0,
    fill_holes: bool = False,
    border: Border = "keep",
    margin: int = 0,
    sigma: float = 1.0,
    depth: float = 0.05,
    seed_threshold: float = 0.3,
) -> np.ndarray:
    """The foreground is cut into cells between the hills of what the network says of their middles.

    For targets `foreground_border`, `distance` and `foreground_distance`, whose networks have learned where a cell's
    inside is. Every hill of `inner` is a seed, the seeds grow downhill until they meet, there the cut is made. A
    connected piece without a seed is one cell: the foreground alone decides that something is a cell, the seeds decide
    how many; specks are dropped by `min_size`.

    Args:
        probability: float (H, W) in [0, 1], or a bool mask.
        inner: float (H, W) in [0, 1], high in the middle of each cell, from `cellseg.answers.inner`.
        threshold: Foreground is probability >= threshold.
        min_size: Smaller cells are dropped, in pixels; 0 and 1 keep all.
        fill_holes, border, margin: As in `components`.
        sigma: Gaussian smoothing of `inner`, in pixels; 0 = none.
        depth: A hill is a seed if it rises more than this above the pass to a higher one, in units of `inner`.
        seed_threshold: How high a seed must be at least, after smoothing.

    Returns:
        int32 (H, W), 0 = background, 1..n in the order in which a scan by rows meets them. Nothing above the
        threshold: all 0.

    Raises:
        InputError: not 2-D float or bool arrays of the same shape, no `inner`, a NaN, or an option outside its range.

    Reference:
        Meyer, Beucher 1990; scikit-image's `watershed` and `reconstruction`.
    """
    check_probability(probability, 8, min_size, margin)
    check_inner(inner, probability.shape)
    cut = Seeds(sigma=sigma, depth=depth, seed_threshold=seed_threshold)
    return _cut_mask(_mask(probability, threshold, fill_holes, 8), cut, inner, min_size, border, margin)


def connected(mask: np.ndarray, connectivity: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Connected pieces of a mask.

    Args:
        mask: uint8 (H, W), 0 or 1.
        connectivity: 4 or 8.

    Returns:
        (count, pieces, boxes): numbers run from 0, the background, to count - 1; int32 (H, W); int32 (count, 4) with
        the first and last + 1 row and column of each.
    """
    count, pieces, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity, ltype=cv2.CV_32S)
    left, top, width, height = (found[:, i] for i in range(4))
    return count, pieces, np.stack([top, top + height, left, left + width], axis=1)


def cut_pieces(
    pieces: np.ndarray,
    numbers: np.ndarray,
    boxes: np.ndarray,
    cut: Cut,
    *,
    first: int,
    inner: np.ndarray | None = None,
) -> int:
    """Cut connected pieces into cells, in place: the first cell keeps the piece's number.

    Args:
        pieces: int32 (H, W), changed; an image, or a window of one that holds the pieces' boxes and `cut.margin` px
            round them as far as the image goes.
        numbers: Of the pieces to be cut.
        boxes: (n, 4), their first and last + 1 row and column in `pieces`.
        cut: How.
        first: The next number that is free.
        inner: float, of the shape of `pieces`, for cuts that want it.

    Returns:
        The next number that is free afterwards.
    """
    margin = cut.margin
    for number, (top, bottom, left, right) in zip(numbers.tolist(), boxes.tolist(), strict=True):
        around = slice(max(top - margin, 0), bottom + margin), slice(max(left - margin, 0), right + margin)
        window = pieces[around]
        cells = cut(window == number, None if inner is None else inner[around])
        if cells is not None:
            others = cells > 1
            window[others] = cells[others] + (first - 2)
            first += int(cells.max()) - 1
    return first


class Census:
    """How large every label is and where a scan by rows meets it first, from which its final number follows.

    Labels at the image border are told apart with `mark` and `look_inside`.

    Args:
        num_labels: Labels lie in 0..num_labels - 1.
    """

    def __init__(self, num_labels: int):
        self._areas = np.zeros(num_labels, np.int64)
        self._first = np.full(num_labels, np.iinfo(np.int64).max)
        self._marked = np.zeros(num_labels, bool)
        self._inside: np.ndarray | None = None

    def mark(self, labels: np.ndarray, *, top: bool = True, bottom: bool = True) -> None:
        """Note the labels at the border of an image, or of some whole rows of it: its first ones, its last ones?"""
        for edge, there in ((labels[0], top), (labels[-1], bottom), (labels[:, 0], True), (labels[:, -1], True)):
            if there:
                self._marked[edge] = True

    def look_inside(self, labels: np.ndarray, margin: int, *, first: int = 0, height: int | None = None) -> None:
        """Note the labels with a pixel beyond the margin of an image, of which these are the rows from `first`.

        Once this was called, all others are dropped.
        """
        if self._inside is None:
            self._inside = np.zeros(len(self._areas), bool)
        last = (first + len(labels) if height is None else height) - margin - first
        rows = slice(max(margin - first, 0), max(last, 0))
        self._inside[labels[rows, margin : max(labels.shape[1] - margin, 0)]] = True

    def add(self, labels: np.ndarray, *, offset: int = 0) -> None:
        """Count the labels of an image, or of some rows of it: `offset` is the number of pixels before them."""
        flat = labels.ravel()
        places = np.flatnonzero(flat)
        if not len(places):
            return
        found = flat[places]
        low = int(found.min())
        found = found - low
        areas = np.bincount(found)
        first = np.full(len(areas), np.iinfo(np.int64).max)
        # Written back to front, so that the first pixel of each label is the one that stays.
        first[found[::-1]] = places[::-1] + offset
        span = slice(low, low + len(areas))
        self._areas[span] += areas
        np.minimum(self._first[span], first, out=self._first[span])

    def numbers(self, min_size: int) -> np.ndarray:
        """int32 (num_labels,), the final number of each label: in scan order from 1; 0 for those that are dropped."""
        dropped = self._marked if self._inside is None else self._marked | ~self._inside
        kept = np.flatnonzero((self._areas >= max(min_size, 1)) & ~dropped)
        numbers = np.zeros(len(self._areas), np.int32)
        numbers[kept[np.argsort(self._first[kept])]] = np.arange(1, len(kept) + 1)
        return numbers


def check_probability(probability: np.ndarray, connectivity: int = 8, min_size: int = 0, margin: int = 0) -> None:
    """Raise InputError for what is no probability or bool mask (H, W), and for options outside their range."""
    if probability.ndim != 2 or probability.size == 0:
        raise InputError(f"A probability must be (H, W) and not empty, got shape {probability.shape}.")
    if probability.dtype.kind not in "fb":
        raise InputError(
            f"A probability must be float in [0, 1] or a bool mask, got {probability.dtype}. "
            "For a 0/255 mask pass mask > 0."
        )
    if probability.dtype.kind == "f" and np.isnan(probability).any():
        raise InputError(f"{np.count_nonzero(np.isnan(probability))} pixels of the probability are NaN.")
    if connectivity not in (4, 8):
        raise InputError(f"connectivity must be 4 or 8, got {connectivity}.")
    if min_size < 0:
        raise InputError(f"min_size must be >= 0 pixels, got {min_size}.")
    if margin < 0:
        raise InputError(f"margin must be >= 0 pixels, got {margin}.")


def check_inner(inner: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """`inner`, or InputError where it does not say something of each pixel of an image of this shape."""
    if inner is None:
        raise InputError(NO_INNER)
    if inner.shape != shape or inner.dtype.kind != "f":
        raise InputError(f"inner must be float {shape} as the probability is, got {inner.dtype} {inner.shape}.")
    if np.isnan(inner).any():
        raise InputError(f"{np.count_nonzero(np.isnan(inner))} pixels of inner are NaN.")
    return inner


def _mask(probability: np.ndarray, threshold: float, fill_holes: bool, connectivity: int) -> np.ndarray:
    """Foreground, uint8 (H, W)."""
    mask = (probability if probability.dtype == bool else probability >= threshold).astype(np.uint8)
    return _fill(mask, connectivity) if fill_holes else mask


def _cut_mask(
    mask: np.ndarray, cut: Cut, inner: np.ndarray | None, min_size: int, border: Border, margin: int
) -> np.ndarray:
    count, pieces, boxes = connected(mask, 8)
    cut_pieces(pieces, np.arange(1, count), boxes[1:], cut, first=count, inner=inner)
    return _number(pieces, min_size, border, margin)


def _fill(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """Fill the pieces of background that do not reach the image border."""
    # The background is connected the other way, or a thin diagonal wall would leak.
    _, outside = cv2.connectedComponents(1 - mask, connectivity=12 - connectivity, ltype=cv2.CV_32S)
    reaches = np.unique(np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]]))
    return np.where((mask == 0) & np.isin(outside, reaches), 0, 1).astype(np.uint8)


def _number(labels: np.ndarray, min_size: int, border: Border, margin: int) -> np.ndarray:
    """Drop what is small or at the border, number the rest in scan order (OpenCV's own order goes by 2x2 blocks)."""
    census = Census(int(labels.max(initial=0)) + 1)
    census.add(labels)
    if border == "drop":
        census.mark(labels)
    if margin:
        census.look_inside(labels, margin)
    return census.numbers(min_size)[labels]


INSTANCES: dict[str, Callable[..., np.ndarray]] = {
    "components": components,
    "watershed": watershed,
    "seeded": seeded,
    "detections": draw,  # takes Detections where the others take a probability
}
DETECTIONS = ("detections",)
# What is done to a connected piece after it was found, by the method's name; options by name.
CUTS: dict[str, Callable[..., Cut]] = {"watershed": Necks, "seeded": Seeds}
NEEDS_INNER = ("seeded",)
