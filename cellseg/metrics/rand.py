"""Partition measures: which pixels belong together? Rand index, variation of information, and the scores of ISBI 2012.

Single cells are the subject of `cellseg.metrics.objects`; the thinning of membranes of `cellseg.metrics.thinning`.

Below, p_ij is the number of pixels of true region i and predicted region j, a_i and b_j are its sums over j and i, and
n is the sum of all. The measures differ in what the background (0) is:

| measure | true background | predicted background |
|---|---|---|
| rand_error | a region | a region |
| adapted_rand_error, vi_split, vi_merge | left out | a region |
| v_rand, v_info | left out | every pixel of it a region of its own |

`ignore` (bool) marks unannotated pixels; they are left out. Images without a counted pixel are undefined (NaN) and left
out of means over images.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from cellseg.metrics.measure import Measure, itself, quotient, ratio
from cellseg.metrics.pixel import check_maps, confusion, foreground
from cellseg.metrics.thinning import regions, thin
from cellseg.overlap import Overlap, contingency

NAN = float("nan")
# Arganda-Carreras 2015: from 0 in steps of 0.1. At 1 nothing would be foreground.
THRESHOLDS = tuple(tenths / 10 for tenths in range(10))

Image = np.ndarray


def rand_index(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """Share of the pixel pairs on which both agree, together or apart, 1 - `rand_error`; higher is better."""
    return 1 - rand_error(labels_true, labels_pred, ignore)


def rand_error(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """Share of all pairs of pixels that one puts together and the other apart, in [0, 1], lower is better.

    ((sum a_i^2 + sum b_j^2) / 2 - sum p_ij^2) / (n (n - 1) / 2). Background is a region like any other on both sides,
    so empty images need no rule; fewer than two pixels: NaN. Pooled, the pairs of pixels of each image are added.

    Reference:
        Rand 1971, https://doi.org/10.2307/2284239; scikit-learn's `rand_score`
    """
    return quotient(_count_rand(contingency(labels_true, labels_pred, ignore)))


def pixel_rand_error(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """Rand error of the two classes of pixels, foreground and background: 2 e (1 - e) of the pixel error e.

    It knows no regions; it is here because a report printed it as its Rand error. In [0, 0.5], lower is better, except
    that a prediction which is wrong everywhere scores 0 too. Empty images need no rule. Pooled, e is the data set's.
    """
    return _pixel_rand_error(confusion(labels_true, labels_pred, ignore))


def adapted_rand_error(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """1 - F of pairs of pixels: 1 - 2 sum p_ij (p_ij - 1) / (sum a_i (a_i - 1) + sum b_j (b_j - 1)).

    In [0, 1], lower is better. Truth empty: NaN; prediction empty: it is one region, whatever the truth is. Pooled, the
    pairs of pixels of each image are added. The numbers of scikit-image; 1 - V_rand is another measure, see the top.

    Reference:
        Arganda-Carreras et al. 2015, https://doi.org/10.3389/fnana.2015.00142
    """
    return _adapted_rand_error(_count_adapted(_without_background(contingency(labels_true, labels_pred, ignore))))


def vi_split(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """H(prediction | truth) in bits: how far true regions are split; 0 if none is. Lower is better.

    sum p_ij log2(a_i / p_ij) / n. Truth empty: NaN; prediction empty: it is one region. Pooled, the mean over pixels.

    Reference:
        Meila 2007, https://doi.org/10.1016/j.jmva.2006.11.013; scikit-image's `variation_of_information`
    """
    return quotient(_count_split(_without_background(contingency(labels_true, labels_pred, ignore))))


def vi_merge(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """H(truth | prediction) in bits: how far true regions are merged; 0 if none is. Lower is better.

    sum p_ij log2(b_j / p_ij) / n, else as `vi_split`; their sum is the variation of information.
    """
    return quotient(_count_merge(_without_background(contingency(labels_true, labels_pred, ignore))))


def v_rand(
    image_true: Image,
    image_pred: Image,
    ignore: Image | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    undefined: float = NAN,
) -> float:
    """V_rand, F of pairs of pixels inside the true regions, 2 sum p_ij^2 / (sum a_i^2 + sum b_j^2); higher is better.

    A probability is thresholded, its foreground's pieces are thinned (`cellseg.metrics.thinning`), and the best
    threshold counts, as in the ISBI 2012 challenge. Labels are scored as they are; `thin` them first if their gaps
    are wide. Pooled: the mean over images at every threshold, then its maximum.

    Args:
        image_true: integer labels (H, W), 0 = background; or a float or bool map, whose 4-connected pieces above 0.5
            are the regions.
        image_pred: integer labels of the same shape; or a float image in [0, 1], the probability of not being
            membrane; or a bool mask.
        ignore: bool, the same shape.
        thresholds: Foreground is where the probability is greater.
        undefined: Value where the truth is empty. Fiji's program says 0.

    Returns:
        A float in (0, 1]. Prediction empty: labels, 2 n / (sum a_i^2 + n); a map, as if it were one region.

    Reference:
        Arganda-Carreras et al. 2015, https://doi.org/10.3389/fnana.2015.00142
    """
    return _best(_over_thresholds(_tables(image_true, image_pred, ignore, thresholds), _v_rand), undefined)


def v_rand_merge(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """Merge score (precision) of V_rand on labels, sum p_ij^2 / sum b_j^2: 1 if nothing is merged. Truth empty: NaN."""
    joint, _, pred = _squares(contingency(labels_true, labels_pred, ignore))
    return ratio(joint, pred)


def v_rand_split(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> float:
    """Split score (recall) of V_rand on labels, sum p_ij^2 / sum a_i^2: 1 if nothing is split. Truth empty: NaN."""
    joint, true, _ = _squares(contingency(labels_true, labels_pred, ignore))
    return ratio(joint, true)


def v_info(
    image_true: Image,
    image_pred: Image,
    ignore: Image | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    undefined: float | None = None,
) -> float:
    """V_info, F of information inside the true regions, 2 I(T; S) / (H(T) + H(S)); higher is better.

    Everything else is as in `v_rand`.

    Args:
        image_true, image_pred, ignore, thresholds: As `v_rand` takes them.
        undefined: Value where the truth is empty (without it: NaN), and where truth and prediction are one region
            each, so that there is no information on either side (without it: 1, they agree). Fiji's program says 0
            in both cases.

    Returns:
        A float in [0, 1]. Prediction empty: labels, 2 H(T) / (H(T) + log n); a map, 0.

    Reference:
        Arganda-Carreras et al. 2015, https://doi.org/10.3389/fnana.2015.00142
    """
    score = partial(_v_info, undefined=1.0 if undefined is None else undefined)
    tables = _tables(image_true, image_pred, ignore, thresholds)
    return _best(_over_thresholds(tables, score), NAN if undefined is None else undefined)


def _without_background(overlap: Overlap) -> np.ndarray:
    """p_ij of the true regions as a row of (a_i, b_j, p_ij) for each pair, float64 (k, 3)."""
    inside = overlap.rows > 0
    rows, columns, pixels = overlap.rows[inside], overlap.columns[inside], overlap.pixels[inside]
    sums = np.bincount(columns, weights=pixels, minlength=1)
    return np.stack([overlap.areas_true[rows], sums[columns], pixels], axis=1).astype(float)


def _count_rand(overlap: Overlap) -> np.ndarray:
    """(pairs of pixels that they disagree on, pairs of pixels)."""
    true, pred, joint = (_square(counts) for counts in (overlap.areas_true, overlap.areas_pred, overlap.pixels))
    num = float(overlap.pixels.sum())
    return np.array([(true + pred) / 2 - joint, num * (num - 1) / 2])


def _count_adapted(table: np.ndarray) -> np.ndarray:
    """(pairs together in both, in the truth, in the prediction), each pair counted from both ends."""
    true, pred, joint = table.T
    # sum a_i^2 = sum_ij p_ij a_i.
    return np.array([joint @ (joint - 1), joint @ (true - 1), joint @ (pred - 1)])


def _count_split(table: np.ndarray) -> np.ndarray:
    """(bits, pixels)."""
    true, _, joint = table.T
    return np.array([joint @ np.log2(true / joint), joint.sum()])


def _count_merge(table: np.ndarray) -> np.ndarray:
    _, pred, joint = table.T
    return np.array([joint @ np.log2(pred / joint), joint.sum()])


def _tables(
    image_true: Image, image_pred: Image, ignore: Image | None = None, thresholds: Sequence[float] = THRESHOLDS
) -> list[Overlap]:
    """Truth against the prediction at each threshold; labels give the same table each time."""
    check_maps(image_true, image_pred, ignore)
    labels_true = regions(foreground(image_true)) if np.asarray(image_true).dtype.kind in "fb" else image_true
    if np.asarray(image_pred).dtype.kind not in "fb":
        return [contingency(labels_true, image_pred, ignore)] * len(thresholds)
    tables: dict[bytes, Overlap] = {}
    keys = []
    for threshold in thresholds:
        mask = foreground(image_pred, threshold=threshold)
        # A sharp prediction is the same mask at most thresholds.
        keys.append(np.packbits(mask).tobytes())
        if keys[-1] not in tables:
            tables[keys[-1]] = contingency(labels_true, thin(regions(mask)), ignore)
    return [tables[key] for key in keys]


def _over_thresholds(tables: list[Overlap], score: Callable[[Overlap], float]) -> np.ndarray:
    """(image has a score, its score at each threshold)."""
    scores = np.array([score(table) for table in tables])
    return np.zeros(len(tables) + 1) if np.isnan(scores).any() else np.concatenate([[1.0], scores])


def _best(counts: np.ndarray, undefined: float = NAN) -> float:
    return float(np.max(counts[1:]) / counts[0]) if counts[0] else undefined


def _squares(overlap: Overlap) -> tuple[float, float, float]:
    """sum p_ij^2, sum a_i^2, sum b_j^2 inside the true regions; a predicted background pixel is a region."""
    inside = overlap.rows > 0
    alone = overlap.pixels[inside & (overlap.columns == 0)].sum()
    _, columns, pixels = overlap.object_pairs
    pred = np.bincount(columns, weights=pixels, minlength=1)
    return _square(pixels) + alone, _square(overlap.areas_true[1:]), _square(pred) + alone


def _v_rand(overlap: Overlap) -> float:
    joint, true, pred = _squares(overlap)
    return ratio(2 * joint, true + pred)


def _v_info(overlap: Overlap, *, undefined: float = 1.0) -> float:
    num = overlap.areas_true[1:].sum()
    if not num:
        return NAN
    _, columns, pixels = overlap.object_pairs
    alone = num - pixels.sum()
    pred = np.bincount(columns, weights=pixels, minlength=1)
    # Each predicted background pixel is a region of 1 pixel.
    single = alone / num * np.log(num)
    true, both = _entropy(overlap.areas_true[1:] / num), _entropy(pixels / num) + single
    pred_entropy = _entropy(pred / num) + single
    # Rounding may leave -1e-17 of information.
    return ratio(2 * max(true + pred_entropy - both, 0.0), true + pred_entropy, undefined)


def _entropy(shares: np.ndarray) -> float:
    """Entropy in nats of what the shares cover."""
    shares = shares[shares > 0]
    return float(-(shares @ np.log(shares)))


def _square(counts: np.ndarray) -> float:
    counts = counts.astype(float)
    return float(counts @ counts)


def _pixel_rand_error(counts: np.ndarray) -> float:
    _, fp, fn, _ = counts
    error = ratio(fp + fn, counts.sum())
    return 2 * error * (1 - error)


def _adapted_rand_error(counts: np.ndarray) -> float:
    joint, true, pred = counts
    return 1 - ratio(2 * joint, true + pred)


def _partition_table(labels_true: Image, labels_pred: Image, ignore: Image | None = None) -> np.ndarray:
    return _without_background(contingency(labels_true, labels_pred, ignore))


METRICS = {
    "pixel_rand_error": Measure(confusion, itself, _pixel_rand_error, higher_is_better=False, kind="pixel"),
    "rand_error": Measure(contingency, _count_rand, quotient, higher_is_better=False, kind="partition"),
    "adapted_rand_error": Measure(
        _partition_table, _count_adapted, _adapted_rand_error, higher_is_better=False, kind="partition"
    ),
    "v_rand": Measure(
        _tables,
        partial(_over_thresholds, score=_v_rand),
        _best,
        higher_is_better=True,
        kind="partition",
        takes_probability=True,
    ),
    "v_info": Measure(
        _tables,
        partial(_over_thresholds, score=_v_info),
        _best,
        higher_is_better=True,
        kind="partition",
        takes_probability=True,
    ),
    "vi_split": Measure(_partition_table, _count_split, quotient, higher_is_better=False, kind="partition"),
    "vi_merge": Measure(_partition_table, _count_merge, quotient, higher_is_better=False, kind="partition"),
}
