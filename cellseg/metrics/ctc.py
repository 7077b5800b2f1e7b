"""Measures of the Cell Tracking Challenge that look at single frames: SEG.

Other object measures live in `cellseg.metrics.objects`.
"""

import numpy as np

from cellseg.metrics.measure import Measure, ratio
from cellseg.metrics.objects import object_overlap
from cellseg.overlap import Overlap, iou_pairs


def seg(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Mean over the reference objects of the Jaccard index with the predicted object that covers them.

    A predicted object covers a reference object if it holds more than half of its pixels, strictly; a reference object
    that none covers counts 0. Predicted objects elsewhere cost nothing. Pooled, all reference objects of all images are
    averaged, not images.

    Args:
        labels_true: integer array (H, W), 0 = background; ids may have gaps.
        labels_pred: the same shape.
        ignore: bool, the same shape, unannotated pixels; see `cellseg.metrics.objects`.

    Returns:
        A float in [0, 1]. Truth empty (with or without prediction): NaN; prediction empty: 0.

    Reference:
        Maska et al. 2014, sec. 2.2; http://celltrackingchallenge.net/evaluation-methodology/
    """
    return _seg(_count_seg(object_overlap(labels_true, labels_pred, ignore)))


def _count_seg(overlap: Overlap) -> np.ndarray:
    """(sum of Jaccard indices, reference objects)."""
    objects = (overlap.rows > 0) & (overlap.columns > 0)
    covers = 2 * overlap.pixels[objects] > overlap.areas_true[overlap.rows[objects]]
    _, _, jaccard = iou_pairs(overlap)
    return np.array([jaccard[covers].sum(), overlap.num_true])


def _seg(counts: np.ndarray) -> float:
    return ratio(*counts)


METRICS = {"seg": Measure(object_overlap, _count_seg, _seg, higher_is_better=True, kind="object")}
