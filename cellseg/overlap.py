"""Overlap of two labellings: contingency table, IoU matrix, matching. The one primitive under all object measures.

What is made of it, a number for a user, lives in `cellseg.metrics`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from pipelines.errors import InputError


@dataclass(frozen=True, eq=False)
class Overlap:
    """How many pixels each true label shares with each predicted label, without the zeros.

    Index 0 of either side is always the background, also where it has no pixel; objects are 1..n in order of their ids.

    Args:
        ids_true: int64 (n + 1,), label of each row, ascending, `ids_true[0] == 0`.
        ids_pred: int64 (m + 1,), label of each column, ascending, `ids_pred[0] == 0`.
        rows: int64 (k,), index into `ids_true` of each pair that shares pixels.
        columns: int64 (k,), index into `ids_pred`.
        pixels: int64 (k,), number of shared pixels, all > 0.
        index_true: int64, the row of every counted pixel, in reading order.
        index_pred: int64, the column of every counted pixel.
    """

    ids_true: np.ndarray
    ids_pred: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    pixels: np.ndarray
    index_true: np.ndarray
    index_pred: np.ndarray

    @property
    def num_true(self) -> int:
        """Number of true objects."""
        return len(self.ids_true) - 1

    @property
    def num_pred(self) -> int:
        """Number of predicted objects."""
        return len(self.ids_pred) - 1

    @cached_property
    def areas_true(self) -> np.ndarray:
        """int64 (n + 1,), pixels of each true label, background first."""
        return _sum_by(self.rows, self.pixels, len(self.ids_true))

    @cached_property
    def areas_pred(self) -> np.ndarray:
        """int64 (m + 1,), pixels of each predicted label, background first."""
        return _sum_by(self.columns, self.pixels, len(self.ids_pred))

    @cached_property
    def object_pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and shared pixels of the pairs of objects, background left out."""
        objects = (self.rows > 0) & (self.columns > 0)
        return self.rows[objects], self.columns[objects], self.pixels[objects]

    @cached_property
    def first_true(self) -> np.ndarray:
        """int64 (n + 1,), where in reading order each true label has its first pixel."""
        return _first(self.index_true, len(self.ids_true))

    @cached_property
    def first_pred(self) -> np.ndarray:
        """int64 (m + 1,), where in reading order each predicted label has its first pixel."""
        return _first(self.index_pred, len(self.ids_pred))


@dataclass(frozen=True, eq=False)
class Matching:
    """Which true object is which predicted object.

    Args:
        ids_true: int64 (tp,), labels of the matched true objects.
        ids_pred: int64 (tp,), label of the predicted object that each is matched with.
        iou: float64 (tp,), IoU of each pair.
        num_true: Number of true objects, matched or not.
        num_pred: Number of predicted objects, matched or not.
    """

    ids_true: np.ndarray
    ids_pred: np.ndarray
    iou: np.ndarray
    num_true: int
    num_pred: int

    @property
    def true_positives(self) -> int:
        """Matched pairs."""
        return len(self.iou)

    @property
    def false_positives(self) -> int:
        """Predicted objects without a partner."""
        return self.num_pred - len(self.iou)

    @property
    def false_negatives(self) -> int:
        """True objects without a partner."""
        return self.num_true - len(self.iou)


def check_pair(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> None:
    """Raise InputError unless both are integer (or bool) arrays >= 0 of one shape, and `ignore` a bool one."""
    for name, labels in (("labels_true", labels_true), ("labels_pred", labels_pred)):
        if np.asarray(labels).dtype.kind not in "iub":
            raise InputError(
                f"{name} must hold integers (0 = background, one id a cell), got {np.asarray(labels).dtype}. "
                "A probability becomes labels with cellseg.instances.components; as it is, float in [0, 1], it suits "
                "the measures v_rand, v_info, warping_error and pixel_error alone."
            )
    if np.shape(labels_true) != np.shape(labels_pred):
        raise InputError(
            f"labels_true has shape {np.shape(labels_true)}, labels_pred {np.shape(labels_pred)}. "
            "They must be labels of the same image, at the same size."
        )
    for name, labels in (("labels_true", labels_true), ("labels_pred", labels_pred)):
        if np.asarray(labels).dtype.kind == "i" and np.size(labels) and np.min(labels) < 0:
            raise InputError(f"{name} must be >= 0 (0 = background), got {np.min(labels)}.")
    if ignore is None:
        return
    if np.asarray(ignore).dtype != bool or np.shape(ignore) != np.shape(labels_true):
        raise InputError(
            f"ignore must be a bool array of shape {np.shape(labels_true)}, like the labels, "
            f"got {np.asarray(ignore).dtype} of shape {np.shape(ignore)}."
        )


def contingency(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> Overlap:
    """Table of shared pixels.

    Args:
        labels_true: integer array of any shape, 0 = background; ids may have gaps.
        labels_pred: the same shape.
        ignore: bool, the same shape; True pixels are not counted at all.

    Returns:
        The table. Without objects its only label is the background; without pixels it has no pairs.

    Raises:
        InputError: not integers, negative, or of different shapes.
    """
    check_pair(labels_true, labels_pred, ignore)
    labels_true, labels_pred = np.ravel(labels_true), np.ravel(labels_pred)
    if ignore is not None:
        counted = ~np.ravel(ignore)
        labels_true, labels_pred = labels_true[counted], labels_pred[counted]
    ids_true, index_true = _index(labels_true)
    ids_pred, index_pred = _index(labels_pred)
    code, pixels = _count(index_true * len(ids_pred) + index_pred, len(ids_true) * len(ids_pred))
    rows, columns = np.divmod(code, len(ids_pred))
    return Overlap(ids_true, ids_pred, rows, columns, pixels, index_true, index_pred)


def without_ignored(labels: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    """The labels without objects that lie mostly (> 1/2) on ignored pixels: what they are, nobody has said.

    Args:
        labels: integer array (H, W), 0 = background.
        ignore: bool, the same shape.
    """
    labels = np.asarray(labels)
    inside = contingency(ignore, labels)
    ignored = np.zeros(len(inside.ids_pred))
    on_ignored = inside.rows == 1
    ignored[inside.columns[on_ignored]] = inside.pixels[on_ignored]
    return np.where(np.isin(labels, inside.ids_pred[2 * ignored > inside.areas_pred]), 0, labels)


def iou_pairs(overlap: Overlap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU of every pair of objects that share a pixel.

    Returns:
        rows, columns (indices into `ids_true`, `ids_pred`, never 0) and iou, float64 in (0, 1].
    """
    rows, columns, shared = overlap.object_pairs
    return rows, columns, shared / (overlap.areas_true[rows] + overlap.areas_pred[columns] - shared)


def iou_matrix(overlap: Overlap) -> np.ndarray:
    """float64 (n, m), IoU of true object i + 1 with predicted object j + 1; (0, m) or (n, 0) without objects."""
    rows, columns, iou = iou_pairs(overlap)
    matrix = np.zeros((overlap.num_true, overlap.num_pred))
    matrix[rows - 1, columns - 1] = iou
    return matrix


def match(overlap: Overlap, *, threshold: float = 0.5, strict: bool = False) -> Matching:
    """Match objects one to one: as many pairs as possible, and among those answers the largest sum of IoU.

    The rule of stardist's `matching`. From 0.5 on every method finds as many pairs (two candidates of one object are
    then its exact halves); below, taking the best pair first can lose some. The decimal threshold is compared exactly:
    an IoU of 9/10 is a match at 0.9.

    Args:
        overlap: Table of `contingency`.
        threshold: A pair counts from this IoU on, in (0, 1].
        strict: The IoU must be greater than the threshold (panoptic quality), not equal.

    Returns:
        The pairs; without objects on either side none.

    Raises:
        InputError: threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise InputError(f"The IoU threshold of a match must be in (0, 1], got {threshold}.")
    rows, columns, iou = iou_pairs(overlap)
    candidate = iou > threshold if strict else iou >= threshold
    rows, columns, iou = rows[candidate], columns[candidate], iou[candidate]
    # Almost all candidates are alone in their row and column; an assignment over the rest only keeps 5000 cells fast.
    alone = (np.bincount(rows, minlength=1)[rows] == 1) & (np.bincount(columns, minlength=1)[columns] == 1)
    contested = np.flatnonzero(~alone)
    chosen = np.flatnonzero(alone)
    if contested.size:
        chosen = np.concatenate([chosen, contested[_assign(rows[contested], columns[contested], iou[contested])]])
    chosen = chosen[np.argsort(rows[chosen])]
    return Matching(
        overlap.ids_true[rows[chosen]],
        overlap.ids_pred[columns[chosen]],
        iou[chosen],
        overlap.num_true,
        overlap.num_pred,
    )


def partners(
    overlap: Overlap, scores: np.ndarray | None = None, *, of: str = "true", ties: str = "place"
) -> np.ndarray:
    """For each object of one side, its best pair; an object of the other side may be the partner of several.

    Args:
        overlap: Table of `contingency`.
        scores: float (k,), how good each of `overlap.object_pairs` is; without it, their shared pixels.
        of: "true" finds a predicted partner for each true object, "pred" a true one for each predicted object.
        ties: Which of several equal partners is taken. "place": the one whose first pixel comes first in reading
            order, so that ids do not matter. "id": the one of the lowest id, as the programs of the contests do.

    Returns:
        int64 (n,), position of each object's pair among `overlap.object_pairs`, in order of the ids; -1 without one.
    """
    rows, columns, shared = overlap.object_pairs
    own, other = (rows, columns) if of == "true" else (columns, rows)
    best = -(shared if scores is None else scores)
    order = np.lexsort((other, best, own))
    tied = (np.diff(own[order]) == 0) & (np.diff(best[order]) == 0)
    if ties == "place" and tied.any():
        place = overlap.first_pred if of == "true" else overlap.first_true
        order = np.lexsort((place[other], best, own))
    first = np.flatnonzero(np.diff(own[order], prepend=0))
    found = np.full(overlap.num_true if of == "true" else overlap.num_pred, -1)
    found[own[order[first]] - 1] = order[first]
    return found


def assignment(overlap: Overlap, gains: np.ndarray) -> np.ndarray:
    """One-to-one pairs of objects with the largest sum of gains, over all objects at once.

    Args:
        overlap: Table of `contingency`.
        gains: float (k,), gain of each of `overlap.object_pairs`, all > 0.

    Returns:
        int64, positions of the chosen pairs among `overlap.object_pairs`.
    """
    rows, columns, _ = overlap.object_pairs
    if not len(rows):
        return np.zeros(0, np.int64)
    # The matching must give every row a column: row i also has column m + i to itself, for nothing. All gain 1 more,
    # because a sparse table does not tell a gain of 0 from none.
    own = np.arange(overlap.num_true)
    table = csr_array(
        (
            np.concatenate([1 + gains, np.ones(overlap.num_true)]),
            (np.concatenate([rows - 1, own]), np.concatenate([columns - 1, overlap.num_pred + own])),
        ),
        shape=(overlap.num_true, overlap.num_pred + overlap.num_true),
    )
    row, column = min_weight_full_bipartite_matching(table, maximize=True)
    real = column < overlap.num_pred
    # The pairs stand in order of row and column.
    return np.searchsorted((rows - 1) * overlap.num_pred + columns - 1, row[real] * overlap.num_pred + column[real])


def _assign(rows: np.ndarray, columns: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """Positions of the pairs that an optimal assignment takes."""
    row_ids, row = np.unique(rows, return_inverse=True)
    column_ids, column = np.unique(columns, return_inverse=True)
    gain = np.zeros((len(row_ids), len(column_ids)))
    # All the IoU together weigh at most 1/2, so that they never outweigh one more pair.
    gain[row, column] = 1 + iou / (2 * min(gain.shape))
    position = np.full(gain.shape, -1)
    position[row, column] = np.arange(len(iou))
    taken = position[linear_sum_assignment(gain, maximize=True)]
    return taken[taken >= 0]


def _index(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels with 0 first, and the position of every pixel's label among them."""
    labels = labels.astype(np.int64)
    if labels.size and labels.max() > 4 * labels.size + 1024:
        ids, index = np.unique(labels, return_inverse=True)
        if ids[0] == 0:
            return ids, index
        return np.concatenate([[0], ids]), index + 1
    # A look-up table is about ten times as fast as sorting the pixels.
    present = np.bincount(labels, minlength=1) > 0
    present[0] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[labels]


def _count(code: np.ndarray, num_codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct codes and how often each occurs."""
    if num_codes > 4 * code.size + 1024:
        return np.unique(code, return_counts=True)
    counts = np.bincount(code, minlength=num_codes)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _first(index: np.ndarray, length: int) -> np.ndarray:
    """Position of the first occurrence of each index; `length` of them, the number of pixels where there is none."""
    first = np.full(length, len(index))
    # Where an index is repeated the last assignment stays, so the pixels are walked backwards.
    first[index[::-1]] = np.arange(len(index) - 1, -1, -1)
    return first


def _sum_by(index: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    # Exact: bincount sums in float64, and pixel counts stay far below 2**53.
    return np.bincount(index, weights=values, minlength=length).astype(np.int64)
