"""Object measures: is each cell found, once, and nothing else? Average precision, panoptic quality, counts.

Foreground against background alone is the subject of `cellseg.metrics.pixel`; the matching itself of `cellseg.overlap`.

`ignore` (bool) marks unannotated pixels: they are background on both sides, and a predicted object with more than half
of its pixels there is neither true nor false. Truth and prediction both empty: undefined (NaN), because an image
without cells says nothing about finding cells; one of the two empty: 0.
"""

from functools import partial

import numpy as np

from cellseg.metrics.measure import Measure, ratio
from cellseg.overlap import Overlap, check_pair, contingency, match

NAN = float("nan")
# Hundredths divided, not steps of 0.05 added: 0.5 + 0.05 + 0.05 is not the double that an IoU of 6/10 is.
MEAN_THRESHOLDS = tuple(hundredths / 100 for hundredths in range(50, 100, 5))


def object_overlap(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> Overlap:
    """Contingency table for object measures: without predicted objects that lie mostly (> 1/2) on ignored pixels.

    Args:
        labels_true: integer array (H, W), 0 = background; ids may have gaps.
        labels_pred: the same shape.
        ignore: bool, the same shape.

    Raises:
        InputError: not integers, negative, or of different shapes.
    """
    check_pair(labels_true, labels_pred, ignore)
    if ignore is not None and np.any(ignore):
        labels_pred = _without_mostly_ignored(np.asarray(labels_pred), ignore)
    return contingency(labels_true, labels_pred, ignore)


def match_counts(
    labels_true: np.ndarray,
    labels_pred: np.ndarray,
    ignore: np.ndarray | None = None,
    *,
    threshold: float = 0.5,
    strict: bool = False,
) -> np.ndarray:
    """(TP, FP, FN, sum of the matched pairs' IoU) of one image, float64 (4,). Additive over images.

    Args:
        labels_true: integer array (H, W), 0 = background.
        labels_pred: the same shape.
        ignore: bool, the same shape; see the top of this module.
        threshold: IoU from which on a pair is a match.
        strict: The IoU must be greater than the threshold, not equal.
    """
    return _count_matches(object_overlap(labels_true, labels_pred, ignore), threshold=threshold, strict=strict)


def match_scores(counts: np.ndarray, *, undefined: float = NAN) -> dict[str, float]:
    """The usual ratios of `match_counts`, pooled if the counts are a sum over images.

    Args:
        counts: float64 (4,).
        undefined: Value of a ratio whose denominator is 0, as precision has without predictions. stardist says 0.

    Returns:
        tp, fp, fn, precision, recall, accuracy (the average precision here), f1, panoptic_quality.
    """
    tp, fp, fn, iou_sum = counts
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": ratio(tp, tp + fp, undefined),
        "recall": ratio(tp, tp + fn, undefined),
        "accuracy": ratio(tp, tp + fp + fn, undefined),
        "f1": ratio(2 * tp, 2 * tp + fp + fn, undefined),
        "panoptic_quality": ratio(2 * iou_sum, 2 * tp + fp + fn, undefined),
    }


def average_precision(
    labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None, *, threshold: float = 0.5
) -> float:
    """TP / (TP + FP + FN) of cells matched at IoU >= threshold. Both empty: NaN; one empty: 0.

    The name is that of the 2018 Data Science Bowl and of stardist; it is not the area under a precision-recall curve.
    """
    return _average_precision(match_counts(labels_true, labels_pred, ignore, threshold=threshold))


def average_precision_mean(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Mean of `average_precision` over IoU 0.5, 0.55, ..., 0.95. Both empty: NaN; one empty: 0.

    Pooled, TP, FP and FN are added over the images at each threshold; the Data Science Bowl averaged images instead.
    """
    return _average_precision_mean(_count_mean(object_overlap(labels_true, labels_pred, ignore)))


def panoptic_quality(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Sum of the matched cells' IoU / (TP + FP/2 + FN/2), matched at IoU > 0.5. Both empty: NaN; one empty: 0.

    Strictly greater, as in the paper; stardist's `panoptic_quality` takes IoU >= 0.5 and differs at exact ties.

    Reference:
        Kirillov et al. 2019, eq. 1, https://arxiv.org/abs/1801.00868
    """
    return _panoptic_quality(match_counts(labels_true, labels_pred, ignore, strict=True))


def count_error(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """|n_pred - n_true| / n_true, the relative error of the number of cells.

    Pooled it is the mean over images. Truth empty: NaN, and the image is left out of the mean. Prediction empty: 1.
    """
    return _count_error(_count_objects(object_overlap(labels_true, labels_pred, ignore)))


def _without_mostly_ignored(labels_pred: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    inside = contingency(ignore, labels_pred)
    ignored = np.zeros(len(inside.ids_pred))
    on_ignored = inside.rows == 1
    ignored[inside.columns[on_ignored]] = inside.pixels[on_ignored]
    return np.where(np.isin(labels_pred, inside.ids_pred[2 * ignored > inside.areas_pred]), 0, labels_pred)


def _count_matches(overlap: Overlap, *, threshold: float, strict: bool = False) -> np.ndarray:
    pairs = match(overlap, threshold=threshold, strict=strict)
    return np.array([pairs.true_positives, pairs.false_positives, pairs.false_negatives, pairs.iou.sum()])


def _count_mean(overlap: Overlap) -> np.ndarray:
    hits = [match(overlap, threshold=threshold).true_positives for threshold in MEAN_THRESHOLDS]
    return np.array([*hits, overlap.num_true, overlap.num_pred], dtype=float)


def _count_objects(overlap: Overlap) -> np.ndarray:
    """(sum of relative errors, images that have one)."""
    if overlap.num_true == 0:
        return np.zeros(2)
    return np.array([abs(overlap.num_pred - overlap.num_true) / overlap.num_true, 1.0])


def _average_precision(counts: np.ndarray) -> float:
    return match_scores(counts)["accuracy"]


def _average_precision_mean(counts: np.ndarray) -> float:
    *hits, num_true, num_pred = counts
    return float(np.mean([ratio(tp, num_true + num_pred - tp) for tp in hits]))


def _panoptic_quality(counts: np.ndarray) -> float:
    return match_scores(counts)["panoptic_quality"]


def _count_error(counts: np.ndarray) -> float:
    return ratio(*counts)


def _precision_at(threshold: float) -> Measure:
    count = partial(_count_matches, threshold=threshold)
    return Measure(object_overlap, count, _average_precision, higher_is_better=True, kind="object")


METRICS = {
    "average_precision": _precision_at(0.5),
    "average_precision_75": _precision_at(0.75),
    "average_precision_90": _precision_at(0.9),
    "average_precision_mean": Measure(
        object_overlap, _count_mean, _average_precision_mean, higher_is_better=True, kind="object"
    ),
    "panoptic_quality": Measure(
        object_overlap,
        partial(_count_matches, threshold=0.5, strict=True),
        _panoptic_quality,
        higher_is_better=True,
        kind="object",
    ),
    "count_error": Measure(object_overlap, _count_objects, _count_error, higher_is_better=False, kind="object"),
}
