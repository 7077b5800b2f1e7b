"""The measures beside their peers: matching, AP, PQ and AJI; the gland contest's Hausdorff distance.

Ours, on a 1024x1024 pair with 500 cells, are all four object measures from one table of overlaps. The peers are the
public algorithms, written down plainly below and named where they come from: stardist's `matching` at one threshold
(BSD 3-clause; the package itself where it is installed) plus HoVer-Net's panoptic quality, both numpy.
"""

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from side_by_side import Row, alternate, parser, report, row

from cellseg.metrics import IMAGE_METRICS, count_image
from cellseg.metrics.glas import object_hausdorff

SIDE, CELLS = 1024, 500
FOUR = ("average_precision", "average_precision_mean", "panoptic_quality", "aji", "aji_plus")


def cells(seed=0, side=SIDE, num=CELLS):
    """Discs of 11 to 17 pixels' radius on a jittered grid, many of which touch, and the same a little wrong.

    Of the predicted ones 3 % are missing, 3 % have taken a neighbour in, 3 % are split, all are shifted by up to two
    pixels.
    """
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(num)))
    step = side / across
    places = [(row, column) for row in range(across) for column in range(across)][:num]
    truth, prediction = np.zeros((side, side), np.int32), np.zeros((side, side), np.int32)
    rows, columns = np.ogrid[:side, :side]
    for label, place in enumerate(places, start=1):
        centre = (np.array(place) + 0.5) * step + rng.uniform(-6, 6, 2)
        radius = rng.uniform(11, 17)
        for labels, shift in ((truth, np.zeros(2)), (prediction, rng.uniform(-2, 2, 2))):
            disc = np.hypot(rows - centre[0] - shift[0], columns - centre[1] - shift[1]) <= radius
            labels[disc] = label
    chosen = rng.permutation(np.arange(2, num))[: 3 * (num * 3 // 100)].reshape(3, -1)
    prediction[np.isin(prediction, chosen[0])] = 0
    for label in chosen[1]:
        prediction[prediction == label] = label - 1
    for offset, label in enumerate(chosen[2], start=1):
        where = np.argwhere(prediction == label)
        half = where[: len(where) // 2]
        prediction[half[:, 0], half[:, 1]] = num + offset
    return truth, prediction


def ours(truth, prediction):
    """Every measure of FOUR."""
    counts = count_image(FOUR, truth, prediction)
    return {name: IMAGE_METRICS[name].value(counts[name]) for name in FOUR}


def stardist_matching(truth, prediction, threshold=0.5):
    """`stardist.matching.matching` (v0.9.2, criterion "iou"): relabel, table, IoU, optimal assignment."""
    truth, prediction = (relabel_sequential(labels) for labels in (truth, prediction))
    # stardist counts in a loop that numba compiles; this is numpy's fastest count of the same table.
    num = prediction.max() + 1
    table = np.bincount((truth * num + prediction).ravel(), minlength=(truth.max() + 1) * num).reshape(-1, num)
    union = table.sum(axis=0, keepdims=True) + table.sum(axis=1, keepdims=True) - table
    scores = (table / np.maximum(union, 1)).astype(np.float32)[1:, 1:]
    matched = min(scores.shape)
    first, second = linear_sum_assignment(-(scores >= threshold).astype(float) - scores / (2 * matched))
    found = scores[first, second] >= threshold
    tp = np.count_nonzero(found)
    return tp / (scores.shape[0] + scores.shape[1] - tp)


def relabel_sequential(labels):
    """Ids 0, 1, 2, ... by a look-up table, as stardist has it from scikit-image."""
    ids = np.unique(labels)
    forward = np.zeros(ids[-1] + 1, np.int64)
    forward[ids] = np.arange(len(ids))
    return forward[labels]


def hovernet_pq(truth, prediction):
    """`get_fast_pq` of HoVer-Net's metrics/stats_utils.py: a mask of the whole image for every cell."""
    ids_true, ids_pred = list(np.unique(truth)), list(np.unique(prediction))
    masks_true = [None, *(np.array(truth == label, np.uint8) for label in ids_true[1:])]
    masks_pred = {label: np.array(prediction == label, np.uint8) for label in ids_pred[1:]}
    iou = np.zeros((len(ids_true) - 1, len(ids_pred) - 1))
    for number, mask in enumerate(masks_true[1:]):
        for label in np.unique(prediction[mask > 0]):
            if label == 0:
                continue
            total, shared = (mask + masks_pred[label]).sum(), (mask * masks_pred[label]).sum()
            iou[number, ids_pred.index(label) - 1] = shared / (total - shared)
    return iou[iou > 0.5].sum() / ((iou.shape[0] + iou.shape[1]) / 2)


def installed_matching():
    """stardist's own function, or None where the package is not installed."""
    try:
        from stardist.matching import matching
    except ImportError:
        return None
    return lambda truth, prediction: matching(truth, prediction, thresh=0.5).accuracy


def brute_object_hausdorff(truth, prediction):
    """The contest's ObjectHausdorff.m: every pixel of an object against every pixel of its partner."""
    total = 0.0
    for ours, theirs in ((prediction, truth), (truth, prediction)):
        area = np.count_nonzero(ours)
        for label in np.unique(ours)[1:]:
            pixels = np.argwhere(ours == label)
            inside = theirs[ours == label]
            inside = inside[inside > 0]
            if inside.size:
                distance = all_pixels(pixels, np.argwhere(theirs == np.bincount(inside).argmax()))
            else:
                distance = min(all_pixels(pixels, np.argwhere(theirs == other)) for other in np.unique(theirs)[1:])
            total += len(pixels) / area / 2 * distance
    return total


def all_pixels(one, other):
    """Hausdorff distance of two sets of places."""
    distances = cdist(one, other)
    return max(distances.min(axis=0).max(), distances.min(axis=1).max())


def object_rows() -> list[Row]:
    """Matching, AP, PQ and AJI together, and their values against the peers' own."""
    truth, prediction = cells()
    found = ours(truth, prediction)
    np.testing.assert_allclose(found["average_precision"], stardist_matching(truth, prediction), atol=1e-9)
    np.testing.assert_allclose(found["panoptic_quality"], hovernet_pq(truth, prediction), atol=1e-5)
    stardist = installed_matching() or stardist_matching
    own, matching, quality = alternate(
        lambda: ours(truth, prediction),
        lambda: stardist(truth, prediction),
        lambda: hovernet_pq(truth, prediction),
    )
    case = f"{SIDE}x{SIDE}, {CELLS} cells"
    source = "stardist" if installed_matching() else "stardist's algorithm"
    return [
        row(f"matching, AP, AP mean, PQ, AJI, AJI+; {case}; peer: {source} + HoVer-Net PQ, s", own, matching + quality),
        row(f"the same; peer: {source} at one threshold alone, s", own, matching),
    ]


def hausdorff_rows() -> list[Row]:
    """Object Hausdorff against all pixels, on a quarter of the scene: the peer needs half a minute for all of it."""
    side, num = SIDE // 2, CELLS // 4
    truth, prediction = cells(side=side, num=num)
    expected = brute_object_hausdorff(truth, prediction)
    np.testing.assert_allclose(object_hausdorff(truth, prediction), expected, rtol=1e-9)
    own, brute = alternate(
        lambda: object_hausdorff(truth, prediction), lambda: brute_object_hausdorff(truth, prediction)
    )
    return [row(f"object Hausdorff; {side}x{side}, {num} cells; peer: all pixels, s", own, brute)]


def hard_hausdorff_rows() -> list[Row]:
    """Object Hausdorff where one object is the partner of all, and where most objects have no partner."""
    truth, _ = cells(side=2 * SIDE // 3, num=CELLS // 2)
    noise = [ndimage.label(np.random.default_rng(seed).random((192, 192)) < 0.15)[0] for seed in (0, 1)]
    (own,) = alternate(lambda: object_hausdorff(truth, np.ones_like(truth)))
    (lonely,) = alternate(lambda: object_hausdorff(*noise))
    side = f"{len(truth)}x{len(truth)}"
    return [
        row(f"object Hausdorff; {side}, {CELLS // 2} cells against one foreground, s", own, None),
        row(f"object Hausdorff; 192x192, noise of {noise[0].max()} and {noise[1].max()} objects, s", lonely, None),
    ]


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    objects, hausdorff = object_rows(), hausdorff_rows()
    # The measures of tracking have a benchmark of their own: ctc_measures.py.
    rows = [*objects, *hausdorff, *hard_hausdorff_rows()]
    title = "Measures: ours, peer = public algorithms"
    report(title, rows, options.json, hausdorff_times_faster=1 / hausdorff[0].ratio)


if __name__ == "__main__":
    main()
