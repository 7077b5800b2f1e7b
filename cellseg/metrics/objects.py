"""Object measures: is each cell found, once, and nothing else? Average precision, panoptic quality, AJI, counts.

Foreground against background alone is the subject of `cellseg.metrics.pixel`; the matching itself of `cellseg.overlap`;
the measures of the gland contest of `cellseg.metrics.glas`; cells that have a class of `cellseg.metrics.classes`.

`ignore` (bool) marks unannotated pixels: they are background on both sides, and a predicted object with more than half
of its pixels there is neither true nor false. Truth and prediction both empty: undefined (NaN), because an image
without cells says nothing about finding cells; one of the two empty: 0.
"""

from functools import partial

import numpy as np

from cellseg.metrics.measure import Measure, quotient, ratio
from cellseg.overlap import Overlap, assignment, check_pair, contingency, match, partners, without_ignored

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
        labels_pred = without_ignored(labels_pred, ignore)
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
        tp, fp, fn, precision, recall, accuracy (the average precision here), f1 (detection quality),
        segmentation_quality (the matched cells' mean IoU), panoptic_quality (their product).
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
        "segmentation_quality": ratio(iou_sum, tp, undefined),
        "panoptic_quality": ratio(2 * iou_sum, 2 * tp + fp + fn, undefined),
    }


def average_precision(
    labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None, *, threshold: float = 0.5
) -> float:
    """TP / (TP + FP + FN) of cells matched at IoU >= threshold, in [0, 1], higher is better. Both empty: NaN; one: 0.

    The name is that of the 2018 Data Science Bowl and of stardist; it is not the area under a precision-recall curve.
    Pooled, TP, FP and FN are added over the images.

    Reference:
        Caicedo et al. 2019, https://doi.org/10.1038/s41592-019-0612-7; stardist's `matching`, accuracy
    """
    return _average_precision(match_counts(labels_true, labels_pred, ignore, threshold=threshold))


def average_precision_mean(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Mean of `average_precision` over IoU 0.5, 0.55, ..., 0.95; higher is better. Both empty: NaN; one empty: 0.

    Pooled, TP, FP and FN are added over the images at each threshold; the Data Science Bowl averaged images instead.
    """
    return _average_precision_mean(_count_mean(object_overlap(labels_true, labels_pred, ignore)))


def panoptic_quality(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Sum of the matched cells' IoU / (TP + FP/2 + FN/2), matched at IoU > 0.5. Both empty: NaN; one empty: 0.

    In [0, 1], higher is better; the product of f1 and `segmentation_quality` of `match_scores`.
    Strictly greater, as in the paper; stardist's `panoptic_quality` takes IoU >= 0.5 and differs at exact ties: that
    variant is `match_scores(match_counts(..., strict=False))`.

    Reference:
        Kirillov et al. 2019, eq. 1, https://arxiv.org/abs/1801.00868
    """
    return _panoptic_quality(match_counts(labels_true, labels_pred, ignore, strict=True))


def aji(
    labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None, *, ties: str = "place"
) -> float:
    """Aggregated Jaccard index: shared pixels of all pairs / (their unions + every cell that is in no pair).

    Each true cell is paired with the predicted cell of highest IoU, even if another true cell has that one already, so
    a merger counts several times in the denominator. In [0, 1], higher is better. Both empty: NaN; one empty: 0.
    Pooled, numerators and denominators are added over the images.

    Args:
        labels_true: integer array (H, W), 0 = background; ids may have gaps.
        labels_pred: the same shape.
        ignore: bool, the same shape; see the top of this module.
        ties: Of two predicted cells with the same IoU, "place" takes the one that begins first in reading order, so
            that ids do not matter; "id" takes the lower id, as the public programs do.

    Reference:
        Kumar et al. 2017, algorithm 1, https://doi.org/10.1109/TMI.2017.2677499; `get_fast_aji` of HoVer-Net
    """
    return quotient(_count_aji(object_overlap(labels_true, labels_pred, ignore), ties=ties))


def aji_plus(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """`aji` with one-to-one pairs, those with the largest sum of IoU: a merger is not punished twice.

    In [0, 1], higher is better. Both empty: NaN; one empty: 0. Pooled as `aji`.

    Reference:
        Graham et al. 2019 (HoVer-Net), https://doi.org/10.1016/j.media.2019.101563, `get_fast_aji_plus`
    """
    return quotient(_count_aji_plus(object_overlap(labels_true, labels_pred, ignore)))


def count_error(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """|n_pred - n_true| / n_true, the relative error of the number of cells; lower is better.

    Pooled it is the mean over images. Truth empty: NaN, and the image is left out of the mean. Prediction empty: 1.
    """
    return quotient(_count_objects(object_overlap(labels_true, labels_pred, ignore)))


def _count_matches(overlap: Overlap, *, threshold: float, strict: bool = False) -> np.ndarray:
    pairs = match(overlap, threshold=threshold, strict=strict)
    return np.array([pairs.true_positives, pairs.false_positives, pairs.false_negatives, pairs.iou.sum()])


def _count_mean(overlap: Overlap) -> np.ndarray:
    hits = [match(overlap, threshold=threshold).true_positives for threshold in MEAN_THRESHOLDS]
    return np.array([*hits, overlap.num_true, overlap.num_pred], dtype=float)


def _count_aji(overlap: Overlap, *, ties: str = "place") -> np.ndarray:
    """(shared pixels of the pairs, their unions and all cells without a pair)."""
    rows, columns, shared = overlap.object_pairs
    union, gain = _unions(overlap)
    pairs = partners(overlap, gain, of="true", ties=ties)
    pairs = pairs[pairs >= 0]
    lonely_true = overlap.areas_true[1:].sum() - overlap.areas_true[rows[pairs]].sum()
    lonely_pred = overlap.areas_pred[1:].sum() - overlap.areas_pred[np.unique(columns[pairs])].sum()
    return np.array([shared[pairs].sum(), union[pairs].sum() + lonely_true + lonely_pred], dtype=float)


def _count_aji_plus(overlap: Overlap) -> np.ndarray:
    """As `_count_aji`; with one-to-one pairs the denominator is all cells, less what is shared."""
    shared = overlap.object_pairs[2][assignment(overlap, _unions(overlap)[1])].sum()
    return np.array([shared, overlap.areas_true[1:].sum() + overlap.areas_pred[1:].sum() - shared], dtype=float)


def _unions(overlap: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """Union of each pair of objects in pixels, and its IoU."""
    rows, columns, shared = overlap.object_pairs
    union = overlap.areas_true[rows] + overlap.areas_pred[columns] - shared
    # HoVer-Net's 1e-6 decides between equal IoU: the larger pair is taken.
    return union, shared / (union + 1e-6)


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


def _precision_at(threshold: float) -> Measure:
    count = partial(_count_matches, threshold=threshold)
    return Measure(object_overlap, count, _average_precision, higher_is_better=True, kind="object")


METRICS = {
    "average_precision": _precision_at(0.5),
    "average_precision_70": _precision_at(0.7),
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
    "aji": Measure(object_overlap, _count_aji, quotient, higher_is_better=True, kind="object"),
    "aji_plus": Measure(object_overlap, _count_aji_plus, quotient, higher_is_better=True, kind="object"),
    "count_error": Measure(object_overlap, _count_objects, quotient, higher_is_better=False, kind="object"),
}
