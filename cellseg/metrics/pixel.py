"""Pixel measures: foreground against background.

They do not see single cells: two cells merged into one score as well as two apart. For that: `cellseg.metrics.objects`.
Several classes are the subject of `cellseg.metrics.classes`, outlines that of `cellseg.metrics.boundary`.

Counts of one image are (tp, fp, fn, tn), pixels of the foreground `labels > 0`. Pooled over a data set the counts are
added before the ratio is taken, so a large image weighs more than a small one.

Empty images follow scikit-learn's `zero_division=1`: where neither truth nor prediction has foreground, `iou` and
`dice` are 1 (the right answer was given); where one of the two has, they are 0. Without a counted pixel all are NaN.
"""

import numpy as np

from cellseg.metrics.classes import multiclass_frequency_weighted_iou
from cellseg.metrics.measure import Measure, itself, ratio
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


def check_maps(map_true: np.ndarray, map_pred: np.ndarray, ignore: np.ndarray | None = None) -> None:
    """As `check_pair`, where float images in [0, 1] are right too. Raises InputError."""
    for name, values in (("labels_true", map_true), ("labels_pred", map_pred)):
        values = np.asarray(values)
        if values.dtype.kind == "f" and values.size and not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"{name} is a float image, so its values must be probabilities in [0, 1], got {values.min():g} to "
                f"{values.max():g}. Scale it, or give integer labels (0 = background, one id a cell)."
            )
    check_pair(_integers(map_true), _integers(map_pred), ignore)


def foreground(image: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """bool, the same shape: probability > threshold where the image is float, > 0 where it is integer or bool."""
    image = np.asarray(image)
    # In float64: float32(0.1) is above 0.1.
    return image.astype(np.float64) > threshold if image.dtype.kind == "f" else image > 0


def confusion_of_maps(map_true: np.ndarray, map_pred: np.ndarray, ignore: np.ndarray | None = None) -> np.ndarray:
    """`confusion` where either image may be float in [0, 1]: > 0.5 is foreground."""
    check_maps(map_true, map_pred, ignore)
    return confusion(foreground(map_true), foreground(map_pred), ignore)


def pixel_accuracy(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Share of pixels called rightly, (TP + TN) / all, in [0, 1], higher is better.

    Under imbalance it flatters: compare with all background. Empty images need no rule.
    """
    return _pixel_accuracy(confusion(labels_true, labels_pred, ignore))


def pixel_error(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Share of pixels called wrongly, 1 - pixel accuracy, in [0, 1], lower is better. Empty images need no rule.

    The mean squared difference of two masks, as in ISBI 2012. Either image may be float in [0, 1]: > 0.5 is foreground.

    Reference:
        Arganda-Carreras et al. 2015, https://doi.org/10.3389/fnana.2015.00142; `PixelError` of Fiji
    """
    return _pixel_error(confusion_of_maps(labels_true, labels_pred, ignore))


def iou(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union (Jaccard) of the foreground, TP / (TP + FP + FN), in [0, 1], higher is better.

    Both empty: 1; one empty: 0.
    """
    return _iou(confusion(labels_true, labels_pred, ignore))


def background_iou(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Intersection over union of the background, TN / (TN + FP + FN). No background on either side: 1."""
    return _iou(confusion(labels_true, labels_pred, ignore)[::-1])


def dice(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Dice (F1, Sorensen) of the foreground, 2 TP / (2 TP + FP + FN), in [0, 1], higher is better.

    Both empty: 1; one empty: 0.
    """
    return _dice(confusion(labels_true, labels_pred, ignore))


def frequency_weighted_iou(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """IoU of foreground and of background, each weighted by its share of the true pixels; higher is better.

    A class that the truth does not have has weight 0, so an empty truth gives the background's IoU alone.

    Reference:
        Long, Shelhamer, Darrell 2015, sec. 5, https://arxiv.org/abs/1411.4038
    """
    return _frequency_weighted_iou(confusion(labels_true, labels_pred, ignore))


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


def _integers(image: np.ndarray) -> np.ndarray:
    """The image, or its foreground where it is float."""
    return foreground(image) if np.asarray(image).dtype.kind == "f" else image


METRICS = {
    "pixel_accuracy": Measure(confusion, itself, _pixel_accuracy, higher_is_better=True, kind="pixel"),
    "iou": Measure(confusion, itself, _iou, higher_is_better=True, kind="pixel"),
    "frequency_weighted_iou": Measure(confusion, itself, _frequency_weighted_iou, higher_is_better=True, kind="pixel"),
    "dice": Measure(confusion, itself, _dice, higher_is_better=True, kind="pixel"),
    "pixel_error": Measure(
        confusion_of_maps, itself, _pixel_error, higher_is_better=False, kind="pixel", takes_probability=True
    ),
}
