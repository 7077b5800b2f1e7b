"""Measures of classes: pixels of several classes, and single cells found and called by the right name.

Without classes: `cellseg.metrics.pixel` and `cellseg.metrics.objects`.

Everything starts from additive counts, so that a data set is the sum over its images: `confusion_matrix` for pixels;
`class_match_counts` (panoptic quality, F1 and average precision a class) and `class_pair_counts` (HoVer-Net's F1) for
cells. All scores are in [0, 1], higher is better, and NaN for a class that is in neither truth nor prediction.

A cell's class is that of most of its pixels, pixels without a class (0) not counted; of two classes with as many
pixels, the lower; 0 if none of its pixels has a class.
"""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cellseg.metrics.measure import ratio
from cellseg.metrics.objects import match_counts, match_scores, object_overlap
from cellseg.overlap import check_pair, contingency, match
from pipelines.errors import InputError

NAN = float("nan")
RATIOS = ("precision", "recall", "accuracy", "f1", "segmentation_quality", "panoptic_quality")
RADIUS = 12.0  # HoVer-Net: pixels at 40x, about 3 um


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


def class_of_objects(labels: np.ndarray, classes: np.ndarray) -> Mapping[int, int]:
    """Class of every cell, by its label; see the top of this module.

    Args:
        labels: integer array (H, W), 0 = background.
        classes: integer array of the same shape, 0 = none.
    """
    table = contingency(labels, classes)
    rows, columns, pixels = table.object_pairs
    found = dict.fromkeys(table.ids_true[1:].tolist(), 0)
    # The last of a cell's pairs stays: most pixels, and among equals the lowest class.
    order = np.lexsort((-columns, pixels, rows))
    found |= zip(table.ids_true[rows[order]].tolist(), table.ids_pred[columns[order]].tolist(), strict=True)
    return found


def class_match_counts(
    labels_true: np.ndarray,
    classes_true: np.ndarray,
    labels_pred: np.ndarray,
    classes_pred: np.ndarray,
    ignore: np.ndarray | None = None,
    *,
    num_classes: int,
    threshold: float = 0.5,
    strict: bool = True,
) -> np.ndarray:
    """(TP, FP, FN, sum of the matched pairs' IoU) of each class, float64 (num_classes, 4). Additive over images.

    The cells of one class are matched among themselves, as if the others were not there: a cell that is found but
    called by the wrong name is a FN of its class and a FP of the other. `class_scores` makes ratios of the counts.

    Args:
        labels_true: integer array (H, W), 0 = background.
        classes_true: integer array (H, W), class of each pixel, 0 = none.
        labels_pred, classes_pred: The same for the prediction.
        ignore: bool (H, W), unannotated pixels; see `cellseg.metrics.objects`.
        num_classes: Number of classes, background included; row 0 counts cells without a class.
        threshold: IoU from which on a pair is a match.
        strict: The IoU must be greater than the threshold (panoptic quality), not equal.

    Raises:
        InputError: not integers, different shapes, or a class outside the range.
    """
    maps = []
    for name, labels, classes in (("true", labels_true, classes_true), ("pred", labels_pred, classes_pred)):
        _check_classes(f"classes_{name}", labels, classes, num_classes)
        maps.append((labels, _class_image(labels, classes)))
    (labels_true, named_true), (labels_pred, named_pred) = maps
    return np.stack(
        [
            match_counts(
                np.where(named_true == one, labels_true, 0),
                np.where(named_pred == one, labels_pred, 0),
                ignore,
                threshold=threshold,
                strict=strict,
            )
            for one in range(num_classes)
        ]
    )


def class_scores(counts: np.ndarray, *, undefined: float = NAN) -> dict[str, np.ndarray]:
    """Scores of each class from `class_match_counts`; `mean_over_classes` makes one number of each.

    Args:
        counts: float64 (num_classes, 4), of one image or a sum over images: with the sum, the mean of
            panoptic_quality is the mPQ+ of the CoNIC contest; with one image's, its mPQ.
        undefined: Value of a score without denominator.

    Returns:
        {score: float64 (num_classes - 1,), classes from 1 on} for the ratios of `objects.match_scores`.

    Reference:
        Graham et al. 2021 (CoNIC), https://arxiv.org/abs/2111.14485
    """
    rows = [match_scores(row, undefined=undefined) for row in counts[1:]]
    return {name: np.array([row[name] for row in rows]) for name in RATIOS}


def mean_over_classes(values: np.ndarray) -> float:
    """Mean of the classes that have a value; NaN if none has."""
    known = values[~np.isnan(values)]
    return ratio(known.sum(), len(known))


def class_pair_counts(
    labels_true: np.ndarray,
    classes_true: np.ndarray,
    labels_pred: np.ndarray,
    classes_pred: np.ndarray,
    ignore: np.ndarray | None = None,
    *,
    num_classes: int,
    radius: float | None = RADIUS,
) -> np.ndarray:
    """(TP_c, FP_c, FN_c, FP_d, FN_d) of each class, float64 (num_classes, 5). Additive over images.

    Cells are first paired whatever their class. TP_c: pairs of this class on both sides; FP_c, FN_c: pairs that have it
    in the prediction, in the truth alone; FP_d, FN_d: cells of this class without a partner.

    Args:
        labels_true: integer array (H, W), 0 = background.
        classes_true: integer array (H, W), class of each pixel, 0 = none.
        labels_pred, classes_pred: The same for the prediction.
        ignore: bool (H, W), unannotated pixels; see `cellseg.metrics.objects`.
        num_classes: Number of classes, background included; row 0 counts cells without a class.
        radius: Pairs have the least sum of distances between centres of mass, and none above this distance in pixels
            (HoVer-Net). None: pairs have an IoU >= 0.5 instead.

    Raises:
        InputError: not integers, different shapes, or a class outside the range.
    """
    _check_classes("classes_true", labels_true, classes_true, num_classes)
    _check_classes("classes_pred", labels_pred, classes_pred, num_classes)
    overlap = object_overlap(labels_true, labels_pred, ignore)
    named_true, named_pred = class_of_objects(labels_true, classes_true), class_of_objects(labels_pred, classes_pred)
    ids_true, ids_pred = overlap.ids_true[1:], overlap.ids_pred[1:]
    if radius is None:
        pairs = match(overlap)
        first, second = np.searchsorted(ids_true, pairs.ids_true), np.searchsorted(ids_pred, pairs.ids_pred)
    else:
        distances = cdist(_centres(labels_true, ids_true, ignore), _centres(labels_pred, ids_pred, ignore))
        first, second = linear_sum_assignment(distances)
        near = distances[first, second] <= radius
        first, second = first[near], second[near]
    types_true = np.array([named_true[one] for one in ids_true.tolist()], dtype=int)
    types_pred = np.array([named_pred[one] for one in ids_pred.tolist()], dtype=int)
    both = np.zeros((num_classes, num_classes))
    np.add.at(both, (types_true[first], types_pred[second]), 1)
    hits, paired_true, paired_pred = np.diag(both), both.sum(axis=1), both.sum(axis=0)
    all_true, all_pred = (np.bincount(types, minlength=num_classes) for types in (types_true, types_pred))
    return np.stack(
        [hits, paired_pred - hits, paired_true - hits, all_pred - paired_pred, all_true - paired_true], axis=1
    )


def class_f1(counts: np.ndarray, *, undefined: float = NAN) -> np.ndarray:
    """F_c of each class, 2 TP_c / (2 TP_c + 2 FP_c + 2 FN_c + FP_d + FN_d), float64 (num_classes - 1,), from 1 on.

    In the paper's formula TP_c + TN_c stands for TP_c; the authors' program, which we follow, looks at the pairs that
    have the class on a side, among which there is no TN_c.

    Args:
        counts: float64 (num_classes, 5), of `class_pair_counts`.
        undefined: Value for a class that is in neither truth nor prediction.

    Reference:
        Graham et al. 2019 (HoVer-Net), https://doi.org/10.1016/j.media.2019.101563; its compute_stats.py
    """
    tp, fp, fn, lonely_pred, lonely_true = np.asarray(counts, dtype=float)[1:].T
    return _divide(2 * tp, 2 * (tp + fp + fn) + lonely_pred + lonely_true, undefined)


def detection_f1(counts: np.ndarray) -> float:
    """F_d, 2 TP_d / (2 TP_d + FP_d + FN_d) over the cells of all classes, from `class_pair_counts`. No cells: NaN."""
    tp, fp, _, lonely_pred, lonely_true = np.sum(counts, axis=0)
    # Every pair is a TP_c or the FP_c of one class.
    return ratio(2 * (tp + fp), 2 * (tp + fp) + lonely_pred + lonely_true)


def _check_classes(name: str, labels: np.ndarray, classes: np.ndarray, num_classes: int) -> None:
    check_pair(labels, classes)
    if np.size(classes) and np.max(classes) >= num_classes:
        raise InputError(
            f"{name} holds class {np.max(classes)}, but num_classes={num_classes} allows 0..{num_classes - 1}. "
            "Raise num_classes; unannotated pixels are named by ignore."
        )


def _class_image(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """int64 (H, W), class of the cell that each pixel belongs to; 0 outside."""
    named = class_of_objects(labels, classes)
    ids, index = np.unique(labels, return_inverse=True)
    return np.array([named.get(one, -1) for one in ids.tolist()], dtype=np.int64)[index].reshape(np.shape(labels))


def _centres(labels: np.ndarray, ids: np.ndarray, ignore: np.ndarray | None) -> np.ndarray:
    """float64 (n, 2), centre of mass of each label."""
    counted = np.isin(labels, ids) if ignore is None else np.isin(labels, ids) & ~ignore
    rows, columns = np.nonzero(counted)
    index = np.searchsorted(ids, labels[rows, columns])
    sums = [np.bincount(index, weights=places, minlength=len(ids)) for places in (rows, columns)]
    return np.stack(sums, axis=1) / np.bincount(index, minlength=len(ids))[:, np.newaxis]


def _divide(numerator: np.ndarray, denominator: np.ndarray, undefined: float) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(denominator), undefined), where=denominator > 0)
