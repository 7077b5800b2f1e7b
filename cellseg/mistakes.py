"""Mistakes: what became of each single cell: found, missed, split, merged; and which predictions are spurious.

Scores made of such counts live in `cellseg.metrics.objects`; pictures of them in `cellseg.figures.mistakes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cellseg.metrics.objects import object_overlap
from cellseg.overlap import Overlap, match

KINDS = ("found", "missed", "spurious", "split", "merged")
FOUND, MISSED, SPURIOUS, SPLIT, MERGED = KINDS


@dataclass(frozen=True)
class Mistakes:
    """The kind of every cell of one image; see `find_mistakes`.

    Args:
        true: Kind of each true cell by its id: found, missed, split or merged.
        pred: Kind of each predicted cell by its id: found, spurious, split (a fragment) or merged (several in one).
    """

    true: Mapping[int, str]
    pred: Mapping[int, str]

    @property
    def counts(self) -> dict[str, int]:
        """Number of each of KINDS: true cells, and of spurious ones predicted cells."""
        kinds = [*self.true.values(), *(kind for kind in self.pred.values() if kind == SPURIOUS)]
        return {kind: kinds.count(kind) for kind in KINDS}


def find_mistakes(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> Mistakes:
    """Give each cell exactly one kind, from the contingency table alone.

    A holds B if more than half of B's pixels lie in A. The first rule that a true cell t meets is its kind:

    1. found: a predicted cell has an IoU greater than 0.5 with t. At that overlap a cell has one partner at most, so
       the pairs are those of the panoptic quality, whatever the ids are.
    2. split: t holds two or more predicted cells, which together cover at least half of t.
    3. merged: a predicted cell holds t and another true cell as well, be that found or not.
    4. missed: everything else: nothing was drawn there, or an outline that fits too badly to count as t.

    A predicted cell is the first of these that it can be: found (partner of a found cell), split (held by a split
    cell), merged (it holds a merged cell), spurious (nothing is there, or what is there is found or missed without it).

    So found + missed + split + merged is the number of true cells. An IoU of exactly 0.5 is no match here, as in the
    panoptic quality, while average_precision takes it: two equal halves of a cell are a split, two equal cells in one
    a merger.

    Args:
        labels_true: integer array of any shape, 0 = background; ids may have gaps.
        labels_pred: the same shape.
        ignore: bool, the same shape; unannotated pixels, see `cellseg.metrics.objects`.

    Returns:
        The kinds; without cells none.

    Raises:
        InputError: not integers, negative, or of different shapes.

    Reference:
        IoU > 0.5: Kirillov et al. 2019, https://arxiv.org/abs/1801.00868; one cell holds another, and a prediction that
        holds several is to be split: Matula et al. 2015, https://doi.org/10.1371/journal.pone.0144959; counting
        missed, spurious, split and merged cells apart: Caicedo et al. 2019, https://doi.org/10.1002/cyto.a.23863
        (their program calls a cell split or merged if its IoU with two others is above 0.1, so that one can be both)
    """
    overlap = object_overlap(labels_true, labels_pred, ignore)
    true, pred = _kinds(overlap)
    ids_true, ids_pred = overlap.ids_true[1:].tolist(), overlap.ids_pred[1:].tolist()
    return Mistakes(
        {label: KINDS[kind] for label, kind in zip(ids_true, true[1:].tolist(), strict=True)},
        {label: KINDS[kind] for label, kind in zip(ids_pred, pred[1:].tolist(), strict=True)},
    )


def _kinds(overlap: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """Index among KINDS of each row and each column; place 0 of both is the background's."""
    found, missed, spurious, split, merged = range(len(KINDS))
    rows, columns, shared = overlap.object_pairs
    size_true, size_pred = overlap.num_true + 1, overlap.num_pred + 1
    true, pred = np.full(size_true, missed), np.full(size_pred, spurious)

    in_true = 2 * shared > overlap.areas_pred[columns]  # this true cell holds this predicted one
    in_pred = 2 * shared > overlap.areas_true[rows]
    fragments = np.bincount(rows[in_true], minlength=size_true)
    covered = np.bincount(rows[in_true], weights=shared[in_true], minlength=size_true)
    is_split = (fragments >= 2) & (2 * covered >= overlap.areas_true)
    held = np.bincount(columns[in_pred], minlength=size_pred)
    is_merged = np.zeros(size_true, bool)
    is_merged[rows[in_pred & (held[columns] >= 2)]] = True

    # The stronger kind is written last.
    true[is_merged] = merged
    true[is_split] = split
    pairs = match(overlap, threshold=0.5, strict=True)
    true[np.searchsorted(overlap.ids_true, pairs.ids_true)] = found

    pred[columns[in_pred & (true[rows] == merged)]] = merged
    pred[columns[in_true & (true[rows] == split)]] = split
    pred[np.searchsorted(overlap.ids_pred, pairs.ids_pred)] = found
    return true, pred
