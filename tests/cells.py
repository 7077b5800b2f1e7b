"""Named scenes: small labellings that can be checked by eye, and pairs of (labels_true, labels_pred).

All are int32, of 6x8 = 48 pixels or one row (for the matching). Slow reference computations live in `tests.oracles`.
"""

import numpy as np

SHAPE = (6, 8)


def empty():
    """No cell."""
    return np.zeros(SHAPE, np.int32)


def one_cell():
    """One square of 4x4 = 16 pixels, columns 1 to 4."""
    labels = empty()
    labels[1:5, 1:5] = 1
    return labels


def two_touching():
    """Two cells of 4x3 = 12 pixels that share a side: columns 1 to 3 and 4 to 6."""
    labels = empty()
    labels[1:5, 1:4] = 1
    labels[1:5, 4:7] = 2
    return labels


def sparse_ids():
    """`two_touching` with ids far apart."""
    return np.array([0, 7, 70_000], np.int32)[two_touching()]


def nested():
    """A ring of 20 pixels around a cell of 2."""
    labels = empty()
    labels[0:6, 1:6] = 1
    labels[1:5, 2:5] = 0
    labels[2:4, 3] = 2
    return labels


def missed_cell():
    """Two touching cells, of which the prediction has the left one."""
    labels = two_touching()
    return labels, np.where(labels == 1, 1, 0).astype(np.int32)


def extra_cell():
    """The prediction has the left cell and one that is not there."""
    labels = two_touching()
    return np.where(labels == 1, 1, 0).astype(np.int32), labels


def merged_pair():
    """Two touching cells, predicted as one: IoU 12/24 with each, exactly a half."""
    labels = two_touching()
    return labels, (labels > 0).astype(np.int32)


def split_cell():
    """One cell of 24 pixels, predicted as two halves: each covers exactly half of it."""
    labels = two_touching()
    return (labels > 0).astype(np.int32), labels


def shifted_cell():
    """The square of `one_cell`, predicted one column to the right: 12 pixels shared of 20, IoU 0.6."""
    labels = one_cell()
    return labels, np.roll(labels, 1, axis=1)


def greedy_trap():
    """One row where taking the best pair first (4/9) loses one of two pairs at IoU 0.3.

    True 1 with predicted 1: 2/6, with predicted 2: 4/9; true 2 with predicted 2: 3/7.
    """
    return np.array([[1, 1, 1, 1, 1, 1, 2, 2, 2]], np.int32), np.array([[1, 1, 2, 2, 2, 2, 2, 2, 2]], np.int32)


def sum_trap():
    """One row where the largest sum of IoU (9/11, one pair) has fewer pairs than there are at IoU 0.1.

    True 1 with predicted 1: 1/10, with predicted 2: 9/11; true 2 with predicted 2: 1/10.
    """
    return np.array([[1] * 10 + [2]], np.int32), np.array([[1] + [2] * 10], np.int32)


def two_candidates():
    """One row: a cell of 6 pixels and two predictions inside it, IoU 2/6 and 4/6."""
    return np.array([[1, 1, 1, 1, 1, 1]], np.int32), np.array([[1, 1, 2, 2, 2, 2]], np.int32)


PAIRS = {
    "missed_cell": missed_cell,
    "extra_cell": extra_cell,
    "merged_pair": merged_pair,
    "split_cell": split_cell,
    "shifted_cell": shifted_cell,
    "greedy_trap": greedy_trap,
    "sum_trap": sum_trap,
    "two_candidates": two_candidates,
}
