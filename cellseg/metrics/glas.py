"""Measures of the gland contest (GlaS, MICCAI 2015): F1, object Dice and object Hausdorff distance.

Matching at an IoU is the subject of `cellseg.metrics.objects`; ranks, from which the contest makes its order, of
`cellseg.metrics.ranks`.

An object's partner is the object of the other side that it shares most pixels with; it need not be its partner's
partner. Pooled, the contest's way: all objects of all images of a data set together, not a mean of images.

`ignore` (bool) marks unannotated pixels: they are background on both sides, and a predicted object with more than half
of its pixels there is left out. Empty images follow the contest's programs: both empty is perfect (F1 and Dice 1,
Hausdorff 0); one empty gives F1 and Dice 0, and where they would divide by nothing the distance is the image's
diagonal, the largest that it allows.

`ties` says which of two objects that share as many pixels is the partner: "place", the one that begins first in reading
order, so that ids do not matter; "id", the lower id, as in the contest's programs.

Reference:
    Sirinukunwattana et al. 2017, https://arxiv.org/abs/1603.00275, and the contest's MATLAB programs of 2015
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from cellseg.metrics.measure import Measure, ratio
from cellseg.metrics.objects import object_overlap
from cellseg.overlap import Overlap, contingency, partners

Image = np.ndarray
Window = tuple[slice, slice]

FEW = 4096  # pairs of pixels of two objects; up to this, their distances are sooner taken than a distance transform
SMALL = 4096  # pixels of the window around two objects; up to this, both transforms are sooner made than `_Shape`
KEPT = 4  # images; how much of them the boxes of every `_Shape` that is kept may fill


def glas_f1(
    labels_true: Image, labels_pred: Image, ignore: Image | None = None, *, ties: str = "place", undefined: float = 0.0
) -> float:
    """2 TP / (2 TP + FP + FN), in [0, 1], higher is better.

    A predicted object is a TP if it holds more than half of the pixels of its partner, strictly; else a FP. FN = true
    objects - TP. (One version of the contest's program counts as FN only true objects that are nobody's partner.)

    Args:
        labels_true: integer array (H, W), 0 = background; ids may have gaps.
        labels_pred: the same shape.
        ignore: bool, the same shape.
        ties: See the top of this module.
        undefined: Value where both have objects and there is no TP; the contest's program divides 0 by 0 there.
    """
    return _f1(_count_f1(object_overlap(labels_true, labels_pred, ignore), ties=ties), undefined=undefined)


def object_dice(labels_true: Image, labels_pred: Image, ignore: Image | None = None, *, ties: str = "place") -> float:
    """Mean Dice of objects with their partners, weighted by area, of both sides; in [0, 1], higher is better.

    (sum_i w_i Dice(S_i, G(S_i)) + sum_j v_j Dice(G_j, S(G_j))) / 2, where w and v are the objects' shares of their
    side's area; an object without a partner has Dice 0. Arguments as `glas_f1`.
    """
    return _object_dice(_count_dice(object_overlap(labels_true, labels_pred, ignore), ties=ties))


def object_hausdorff(
    labels_true: Image, labels_pred: Image, ignore: Image | None = None, *, ties: str = "place"
) -> float:
    """Mean Hausdorff distance of objects from their partners, weighted as in `object_dice`, in pixels; lower is better.

    The distance is that of all pixels of both objects. An object that shares no pixel with any takes the object of the
    other side at the smallest distance in its image. Arguments as `glas_f1`.
    """
    return _object_hausdorff(_count_hausdorff(_cleaned(labels_true, labels_pred, ignore), ties=ties))


def glas_counts(
    labels_true: Image, labels_pred: Image, ignore: Image | None = None, *, ties: str = "place"
) -> np.ndarray:
    """Everything that the three scores need of one image, float64 (11,). Additive over images; arguments as `glas_f1`.

    TP, FP, FN; then sum of area x Dice and sum of areas of the predicted objects, the same of the true ones; then these
    four with the distance for Dice.
    """
    prepared = _cleaned(labels_true, labels_pred, ignore)
    overlap, _ = prepared
    return np.concatenate(
        [_count_f1(overlap, ties=ties), _count_dice(overlap, ties=ties), _count_hausdorff(prepared, ties=ties)]
    )


def glas_scores(counts: np.ndarray, *, undefined: float = 0.0) -> dict[str, float]:
    """f1, tp, fp, fn, object_dice, object_hausdorff from `glas_counts`, pooled if the counts are a sum over images.

    Args:
        counts: float64 (11,).
        undefined: As `glas_f1`.
    """
    tp, fp, fn = counts[:3].tolist()
    return {
        "f1": _f1(counts[:3], undefined=undefined),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "object_dice": _object_dice(counts[3:7]),
        "object_hausdorff": _object_hausdorff(counts[7:]),
    }


def _count_f1(overlap: Overlap, *, ties: str = "place") -> np.ndarray:
    rows, _, shared = overlap.object_pairs
    pairs = partners(overlap, of="pred", ties=ties)
    pairs = pairs[pairs >= 0]
    tp = np.count_nonzero(2 * shared[pairs] > overlap.areas_true[rows[pairs]])
    return np.array([tp, overlap.num_pred - tp, overlap.num_true - tp], dtype=float)


def _f1(counts: np.ndarray, *, undefined: float = 0.0) -> float:
    tp, fp, fn = counts.tolist()
    if not (fp or fn):
        undefined = 1.0  # without TP, both are empty
    elif not (fp and fn):
        undefined = 0.0  # without TP, one is
    return ratio(2 * tp, 2 * tp + fp + fn) if tp else undefined


def _count_dice(overlap: Overlap, *, ties: str = "place") -> np.ndarray:
    """(sum of area x Dice, sum of areas) of the predicted objects, then of the true ones."""
    rows, columns, shared = overlap.object_pairs
    both = 2 * shared / (overlap.areas_true[rows] + overlap.areas_pred[columns])
    counts = []
    for side, areas in (("pred", overlap.areas_pred[1:]), ("true", overlap.areas_true[1:])):
        pairs = partners(overlap, of=side, ties=ties)
        counts += [areas[pairs >= 0] @ both[pairs[pairs >= 0]], areas.sum()]
    return np.array(counts, dtype=float)


def _object_dice(counts: np.ndarray) -> float:
    pred, area_pred, true, area_true = counts
    empty = 0.0 if area_pred or area_true else 1.0
    return (ratio(pred, area_pred, empty) + ratio(true, area_true, empty)) / 2


def _object_hausdorff(counts: np.ndarray) -> float:
    pred, area_pred, true, area_true = counts
    sides = [ratio(*side) for side in ((pred, area_pred), (true, area_true)) if side[1]]
    return sum(sides) / len(sides) if sides else 0.0


def _cleaned(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> tuple[Overlap, tuple[int, int]]:
    """The table of all pixels, ignored ones as background, and the image's shape."""
    overlap = object_overlap(labels_true, labels_pred, ignore)
    if ignore is not None:
        kept = np.isin(labels_pred, overlap.ids_pred) & ~ignore
        overlap = contingency(np.where(ignore, 0, labels_true), np.where(kept, labels_pred, 0))
    return overlap, np.shape(labels_true)


def _count_hausdorff(prepared: tuple[Overlap, tuple[int, int]], *, ties: str = "place") -> np.ndarray:
    """(sum of area x distance, sum of areas) of the predicted objects, then of the true ones."""
    overlap, shape = prepared
    distances = _Distances(overlap, shape)
    counts = []
    for side, areas in (("pred", overlap.areas_pred[1:]), ("true", overlap.areas_true[1:])):
        pairs = partners(overlap, of=side, ties=ties)
        found = [distances.of(side, own, int(pair)) for own, pair in enumerate(pairs, start=1)]
        counts += [areas @ np.array(found, dtype=float), areas.sum()]
    return np.array(counts, dtype=float)


class _Distances:
    """Hausdorff distances of the objects of an image, each computed once.

    Args:
        overlap: Table of all of the image's pixels.
        shape: Of the image.
    """

    def __init__(self, overlap: Overlap, shape: tuple[int, int]) -> None:
        self._diagonal = float(np.hypot(shape[0] - 1, shape[1] - 1))
        self._rows, self._columns, _ = overlap.object_pairs
        self._labels = {"true": overlap.index_true.reshape(shape), "pred": overlap.index_pred.reshape(shape)}
        self._areas = {"true": overlap.areas_true, "pred": overlap.areas_pred}
        self._windows = {side: ndimage.find_objects(labels) for side, labels in self._labels.items()}
        self._known: dict[tuple[int, int], float] = {}
        self._shapes: dict[tuple[str, int], _Shape] = {}
        self._room = KEPT * self._labels["true"].size

    def of(self, side: str, own: int, pair: int) -> float:
        """Distance of an object from its partner, or from the nearest object where it has none (pair = -1)."""
        if pair >= 0:
            return self._between(int(self._rows[pair]), int(self._columns[pair]))
        tree = self._boxes["pred" if side == "true" else "true"]
        if not tree.n:
            return self._diagonal
        best, num, box = np.inf, 8, _sides([self._windows[side][own - 1]])[0]
        while True:
            # Two objects are at least as far apart as the sides of their bounding boxes are.
            found = tree.query(box, k=np.arange(1, min(num, tree.n) + 1), p=np.inf)
            for least, other in zip(*(part.tolist() for part in found), strict=True):
                if least >= best:
                    return best
                best = min(best, self._between(*((own, other + 1) if side == "true" else (other + 1, own))))
            if num >= tree.n:
                return best
            num *= 2

    @cached_property
    def _boxes(self) -> dict[str, cKDTree]:
        return {side: cKDTree(_sides(windows)) for side, windows in self._windows.items()}

    def _between(self, row: int, column: int) -> float:
        if (row, column) not in self._known:
            self._known[row, column] = self._measure(row, column)
        return self._known[row, column]

    def _measure(self, row: int, column: int) -> float:
        window = _around(self._windows["true"][row - 1], self._windows["pred"][column - 1])
        few = int(self._areas["true"][row] * self._areas["pred"][column]) <= FEW
        if few or _size(window) <= SMALL:
            masks = self._labels["true"][window] == row, self._labels["pred"][window] == column
            return _between_pixels(*masks) if few else _between_masks(*masks)
        one, other = self._shape("true", row), self._shape("pred", column)
        return max(_farthest(one, other), _farthest(other, one))

    def _shape(self, side: str, label: int) -> "_Shape":
        if (side, label) not in self._shapes:
            window = self._windows[side][label - 1]
            self._room -= _size(window)
            # Large objects that lie through one another must not each keep an image's worth of distances.
            if self._room < 0:
                self._shapes.clear()
                self._room = KEPT * self._labels[side].size - _size(window)
            self._shapes[side, label] = _Shape(window, self._labels[side][window] == label)
        return self._shapes[side, label]


@dataclass(frozen=True, eq=False)
class _Shape:
    """An object that may have many partners, and what is the same for all of them.

    Args:
        window: Its bounding box.
        mask: bool, its pixels there.
    """

    window: Window
    mask: np.ndarray

    @cached_property
    def distances(self) -> np.ndarray:
        """float64, distance of every place of the window from the object."""
        return ndimage.distance_transform_edt(~self.mask)

    @cached_property
    def rim(self) -> np.ndarray:
        """int64 (n, 2), the first and the last pixel of every row and of every column that the object has."""
        ends = []
        for lines, turned in ((self.mask, slice(None)), (self.mask.T, slice(None, None, -1))):
            held = np.flatnonzero(lines.any(axis=1))
            first, last = lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
            ends += [np.stack([held, end[held]], axis=1)[:, turned] for end in (first, last)]
        return np.concatenate(ends) + [part.start for part in self.window]

    @cached_property
    def tree(self) -> cKDTree:
        """The rim, to be searched."""
        return cKDTree(self.rim)


def _farthest(one: _Shape, other: _Shape) -> float:
    """Largest distance of a pixel of `one` from the nearest pixel of `other`.

    Within the other's box its distance transform has it. A pixel below the box is nearer than the last pixel of its own
    column, and nearest to the last pixel of some column of the other; so beyond the box the two rims have it.
    """
    shared = _common(one.window, other.window)
    held = one.mask[_within(shared, one.window)]
    inside = float(other.distances[_within(shared, other.window)][held].max(initial=0.0))
    low, high = np.array([(part.start, part.stop - 1) for part in other.window]).T
    least = (np.maximum(np.maximum(low - one.rim, one.rim - high), 0) ** 2).sum(axis=1)
    if not least.any():
        return inside
    # Of the rim, most pixels are nearer to some pixels of the other than the farthest is to the other's box.
    some = other.rim[:: -(-len(other.rim) // 8)]
    most = cdist(one.rim, some, "sqeuclidean").min(axis=1)
    beyond = one.rim[(least > 0) & (most >= max(least.max(), inside**2))]
    return max(inside, float(other.tree.query(beyond)[0].max())) if len(beyond) else inside


def _sides(windows: list[Window]) -> np.ndarray:
    """int64 (n, 4), where the rows and the columns of each window start and stop."""
    sides = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in windows]
    return np.array(sides, np.int64).reshape(-1, 4)


def _size(window: Window) -> int:
    rows, columns = window
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def _around(one: Window, other: Window) -> Window:
    rows, columns = (
        slice(min(first.start, second.start), max(first.stop, second.stop))
        for first, second in zip(one, other, strict=True)
    )
    return rows, columns


def _common(one: Window, other: Window) -> Window:
    """What two windows share; of no size where that is nothing."""
    starts = [max(first.start, second.start) for first, second in zip(one, other, strict=True)]
    stops = [min(first.stop, second.stop) for first, second in zip(one, other, strict=True)]
    rows, columns = (slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))
    return rows, columns


def _within(window: Window, outer: Window) -> Window:
    """The window, counted from the outer one's corner."""
    rows, columns = (
        slice(part.start - start.start, part.stop - start.start) for part, start in zip(window, outer, strict=True)
    )
    return rows, columns


def _between_pixels(one: np.ndarray, other: np.ndarray) -> float:
    """Hausdorff distance of two masks that are not empty, from every pixel to every pixel."""
    distances = cdist(np.argwhere(one), np.argwhere(other))
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def _between_masks(one: np.ndarray, other: np.ndarray) -> float:
    """The same from distance transforms."""
    there = ndimage.distance_transform_edt(~other)[one].max()
    return float(max(there, ndimage.distance_transform_edt(~one)[other].max()))


METRICS = {
    "glas_f1": Measure(object_overlap, _count_f1, _f1, higher_is_better=True, kind="object"),
    "object_dice": Measure(object_overlap, _count_dice, _object_dice, higher_is_better=True, kind="object"),
    "object_hausdorff": Measure(_cleaned, _count_hausdorff, _object_hausdorff, higher_is_better=False, kind="object"),
}
