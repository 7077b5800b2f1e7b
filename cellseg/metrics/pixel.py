"""Pixel measures: foreground against background, and their forms for several classes.

They do not see single cells: two cells merged into one score as well as two apart. For that: `cellseg.metrics.objects`.

Counts of one image are (tp, fp, fn, tn), pixels of the foreground `labels > 0`. Pooled over a data set the counts are
added before the ratio is taken, so a large image weighs more than a small one.

Empty images follow scikit-learn's `zero_division=1`: where neither truth nor prediction has foreground, `iou` and
`dice` are 1 (the right answer was given); where one of the two has, they are 0. Without a counted pixel all are NaN.
"""

import numpy as np

from cellseg.metrics.measure import Measure, ratio
from cellseg.overlap import check_pair
from pipelines.errors import InputError

NAN = float("nan")


def confusion(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> np.ndarray:
    """Pixel counts (tp, fp, fn, tn) of the foreground, float64 (4,).

    Args:
        labels_true: integer or bool array, foreground > 0.
        labels_pred: the same shape.
        ignore: bool, the same shape; True pixels are not counted.

    Raises:
        InputError: not integers, or of different shapes.
    """
    check_pair(labels_true, labels_pred, ignore)
    mask_true, mask_pred = np.asarray(labels_true) > 0, np.asarray(labels_pred) > 0
    if ignore is not None:
        mask_true, mask_pred = mask_true[~ignore], mask_pred[~ignore]
    tp = np.count_nonzero(mask_true & mask_pred)
    fp = np.count_nonzero(mask_pred) - tp
    fn = np.count_nonzero(mask_true) - tp
    return np.array([tp, fp, fn, mask_true.size - tp - fp - fn], dtype=float)


def pixel_accuracy(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Share of pixels called rightly, (TP + TN) / all. Under imbalance it flatters: compare with all background."""
    return _pixel_accuracy(confusion(labels_true, labels_pred, ignore))


def pixel_error(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Share of pixels called wrongly, 1 - pixel accuracy (ISBI 2012; the mean squared difference of two masks)."""
    return _pixel_error(confusion(labels_true, labels_pred, ignore))


def iou(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union (Jaccard) of the foreground, TP / (TP + FP + FN). Both empty: 1; one empty: 0."""
    return _iou(confusion(labels_true, labels_pred, ignore))


def background_iou(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union of the background, TN / (TN + FP + FN). No background on either side: 1."""
    return _iou(confusion(labels_true, labels_pred, ignore)[::-1])


def dice(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Dice (F1, Sorensen) of the foreground, 2 TP / (2 TP + FP + FN). Both empty: 1; one empty: 0."""
    return _dice(confusion(labels_true, labels_pred, ignore))


def frequency_weighted_iou(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """IoU of foreground and of background, each weighted by its share of the true pixels.

    A class that the truth does not have has weight 0, so an empty truth gives the background's IoU alone.

    Reference:
        Long, Shelhamer, Darrell 2015, sec. 5, https://arxiv.org/abs/1411.4038
    """
    return _frequency_weighted_iou(confusion(labels_true, labels_pred, ignore))


def confusion_matrix(
    classes_true: np.ndarray, classes_pred: np.ndarray, *, num_classes: int, ignore_class: int | None = None
) -> np.ndarray:
    """Pixels of true class i called class j, float64 (num_classes, num_classes). Additive over images.

    Args:
        classes_true: integer array of classes 0..num_classes - 1, or `ignore_class`.
        classes_pred: the same shape, classes 0..num_classes - 1.
        num_classes: Number of classes, background included.
        ignore_class: True pixels of this value are left out, for example 255.

    Raises:
        InputError: not integers, different shapes, or a class outside the range on a counted pixel.
    """
    check_pair(classes_true, classes_pred)
    classes_true, classes_pred = np.ravel(classes_true).astype(np.int64), np.ravel(classes_pred).astype(np.int64)
    if ignore_class is not None:
        counted = classes_true != ignore_class
        classes_true, classes_pred = classes_true[counted], classes_pred[counted]
    for name, classes in (("classes_true", classes_true), ("classes_pred", classes_pred)):
        if classes.size and classes.max() >= num_classes:
            raise InputError(
                f"{name} holds class {classes.max()}, but num_classes={num_classes} allows 0..{num_classes - 1}. "
                "Raise num_classes, or name the value as ignore_class if it means unannotated."
            )
    code = classes_true * num_classes + classes_pred
    return np.bincount(code, minlength=num_classes**2).reshape(num_classes, num_classes).astype(float)


def multiclass_pixel_accuracy(matrix: np.ndarray) -> float:
    """Share of pixels called rightly, from a `confusion_matrix`; NaN without a counted pixel."""
    return ratio(np.trace(matrix), matrix.sum())


def iou_per_class(matrix: np.ndarray, *, undefined: float = NAN) -> np.ndarray:
    """IoU of each class from a `confusion_matrix`, float64 (K,).

    `undefined` stands where a class is in neither truth nor prediction. NaN leaves it out of a `nanmean`; 0 is
    scikit-learn's rule, under which an absent class pulls the mean down.
    """
    hits = np.diag(matrix)
    return _divide(hits, matrix.sum(axis=0) + matrix.sum(axis=1) - hits, undefined)


def dice_per_class(matrix: np.ndarray, *, undefined: float = NAN) -> np.ndarray:
    """Dice of each class from a `confusion_matrix`, float64 (K,); `undefined` as in `iou_per_class`."""
    return _divide(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1), undefined)


def multiclass_frequency_weighted_iou(matrix: np.ndarray) -> float:
    """IoU of each class weighted by its share of the true pixels, from a `confusion_matrix`; NaN without pixels."""
    return ratio(matrix.sum(axis=1) @ iou_per_class(matrix, undefined=0.0), matrix.sum())


def _pixel_accuracy(counts: np.ndarray) -> float:
    tp, _, _, tn = counts
    return ratio(tp + tn, counts.sum())


def _pixel_error(counts: np.ndarray) -> float:
    _, fp, fn, _ = counts
    return ratio(fp + fn, counts.sum())


def _iou(counts: np.ndarray) -> float:
    tp, fp, fn, tn = counts
    return ratio(tp, tp + fp + fn, undefined=1.0 if tn else NAN)


def _dice(counts: np.ndarray) -> float:
    tp, fp, fn, tn = counts
    return ratio(2 * tp, 2 * tp + fp + fn, undefined=1.0 if tn else NAN)


def _frequency_weighted_iou(counts: np.ndarray) -> float:
    tp, fp, fn, tn = counts
    return multiclass_frequency_weighted_iou(np.array([[tn, fp], [fn, tp]]))


def _divide(numerator: np.ndarray, denominator: np.ndarray, undefined: float) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(denominator), undefined), where=denominator > 0)


def _itself(counts: np.ndarray) -> np.ndarray:
    return counts


METRICS = {
    "pixel_accuracy": Measure(confusion, _itself, _pixel_accuracy, higher_is_better=True, kind="pixel"),
    "iou": Measure(confusion, _itself, _iou, higher_is_better=True, kind="pixel"),
    "frequency_weighted_iou": Measure(confusion, _itself, _frequency_weighted_iou, higher_is_better=True, kind="pixel"),
    "dice": Measure(confusion, _itself, _dice, higher_is_better=True, kind="pixel"),
    "pixel_error": Measure(confusion, _itself, _pixel_error, higher_is_better=False, kind="pixel"),
}
