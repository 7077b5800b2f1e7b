import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from cellseg.metrics import glas
from tests import cells, oracles

LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 4))
PROPERTY = settings(max_examples=50, derandomize=True, deadline=None)
NAMES = list(glas.METRICS)


def take(labels_true, labels_pred, ignore=None):
    return metrics.score(labels_true, labels_pred, NAMES, ignore)


def test_half_of_the_true_object_is_not_enough():
    truth = np.array([[1, 1, 1, 1]])
    # IoU plays no part: the prediction may be as large as it likes.
    assert glas.glas_counts(truth, np.array([[5, 5, 0, 0]]))[:3].tolist() == [0, 1, 1]
    assert glas.glas_counts(truth, np.array([[5, 5, 5, 0]]))[:3].tolist() == [1, 0, 0]
    assert glas.glas_counts(np.array([[1, 0, 0, 0]]), np.array([[5, 5, 5, 5]]))[:3].tolist() == [1, 0, 0]


def test_prediction_belongs_to_the_object_it_overlaps_most():
    # It holds all of object 2, but more of object 1, and not half of that.
    truth, prediction = np.array([[1, 1, 1, 1, 1, 1, 1, 2, 2]]), np.array([[0, 0, 0, 0, 6, 6, 6, 6, 6]])
    assert glas.glas_counts(truth, prediction)[:3].tolist() == [0, 1, 2]


def test_missed_cell_by_hand():
    found = take(*cells.missed_cell())
    assert found["glas_f1"] == pytest.approx(2 / (2 + 1), abs=1e-12)
    # The predicted cell has Dice 1; of the two true ones, of equal area, one has 1 and one 0.
    assert found["object_dice"] == pytest.approx((1 + 1 / 2) / 2, abs=1e-12)
    # The missed cell's columns 4 to 6 and the found cell's 1 to 3: 3 pixels apart.
    assert found["object_hausdorff"] == pytest.approx((0 + (0 + 3) / 2) / 2, abs=1e-12)


def test_merged_pair_by_hand():
    found = take(*cells.merged_pair())
    # One prediction, TP for one of two.
    assert found["glas_f1"] == pytest.approx(2 / 3, abs=1e-12)
    # Each true cell shares 12 of 12 and 24 pixels with the merged one.
    assert found["object_dice"] == pytest.approx(24 / 36, abs=1e-12)
    assert found["object_hausdorff"] == 3


def test_whole_objects_are_compared_not_their_outlines():
    ring = np.ones((7, 7), int)
    ring[1:6, 1:6] = 0
    # The middle of the full square is 3 pixels from the ring.
    assert metrics.object_hausdorff(np.ones((7, 7), int), ring) == 3


@PROPERTY
@given(LABELS, LABELS)
def test_scores_equal_loops_over_objects(labels_true, labels_pred):
    assume(labels_true.any() and labels_pred.any())
    tp, fp, fn, dice, far = oracles.glas(labels_true, labels_pred)
    assert glas.glas_counts(labels_true, labels_pred)[:3].tolist() == [tp, fp, fn]
    found = take(labels_true, labels_pred)
    assert found["object_dice"] == pytest.approx(dice, abs=1e-9)
    assert found["object_hausdorff"] == pytest.approx(far, abs=1e-9)
    assert found["glas_f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)


@PROPERTY
@given(LABELS, LABELS, st.sampled_from([(0, 0, 0), (0, 0, 4), (4, 0, 4), (0, 30, 4)]))
def test_every_way_to_a_distance_equals_loops_over_pixels(labels_true, labels_pred, sizes):
    assume(labels_true.any() and labels_pred.any())
    with pytest.MonkeyPatch.context() as patch:
        # Objects of this size would otherwise all go the way of those of few pixels.
        for name, value in zip(("FEW", "SMALL", "KEPT"), sizes, strict=True):
            patch.setattr(glas, name, value)
        found = metrics.object_hausdorff(labels_true, labels_pred)
    assert found == pytest.approx(oracles.glas(labels_true, labels_pred)[-1], abs=1e-9)


def test_pixel_within_a_ring_is_near_what_lies_in_the_ring(monkeypatch):
    for name in ("FEW", "SMALL"):
        monkeypatch.setattr(glas, name, 0)
    truth = np.zeros((12, 11), int)
    truth[1:] = 1
    truth[2:11, 1:10] = 0
    truth[6, 5] = 1
    prediction = truth.copy()
    # The prediction lacks the ring's middle row and has a pixel more, beyond the ring.
    prediction[6, [0, 10]] = 0
    prediction[0, 5] = 1
    assert metrics.object_hausdorff(truth, prediction) == 1


@pytest.mark.parametrize("hollow", [False, True])
def test_cells_under_one_foreground_equal_loops_over_pixels(hollow):
    truth = np.zeros((66, 70), int)
    for label, (row, column) in enumerate([(2, 3), (5, 60), (30, 31), (58, 8), (50, 50)], start=1):
        truth[row : row + 5, column : column + 4] = label
    foreground = np.ones_like(truth)
    if hollow:
        foreground[8:57, 7:62] = 0
    assert truth.size > glas.SMALL
    for pair in ((truth, foreground), (foreground, truth)):
        assert metrics.object_hausdorff(*pair) == pytest.approx(oracles.glas(*pair)[-1], abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_noise_without_partners_equals_loops_over_pixels(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = np.zeros((2, 24, 26), int)
    places = rng.permutation(truth.size)
    truth.flat[places[:150]] = rng.permutation(np.repeat(np.arange(1, 76), 2))
    prediction.flat[places[130:190]] = np.arange(1, 61)
    assert metrics.object_hausdorff(truth, prediction) == pytest.approx(oracles.glas(truth, prediction)[-1], abs=1e-9)


def test_nearest_object_lies_behind_more_boxes_than_are_asked_for_at_first():
    truth, prediction = np.zeros((2, 10, 10), int)
    prediction[0, 0] = prediction[9, 9] = 1
    # Nine pairs of pixels across the other diagonal, whose boxes differ from the prediction's by at most 2.
    for label, (row, column) in enumerate(np.ndindex(3, 3), start=1):
        truth[row, 9 - column] = truth[9 - row, column] = label
    truth[3, 0] = truth[6, 9] = 10
    own, areas = glas.glas_counts(truth, prediction)[7:9]
    assert own == 3 * areas
    assert metrics.object_hausdorff(truth, prediction) == pytest.approx(oracles.glas(truth, prediction)[-1], abs=1e-9)


def test_empty_images():
    cell, empty = cells.one_cell(), cells.empty()
    diagonal = math.hypot(5, 7)
    assert take(empty, empty) == {"glas_f1": 1, "object_dice": 1, "object_hausdorff": 0}
    for pair in ((cell, empty), (empty, cell)):
        assert take(*pair) == pytest.approx({"glas_f1": 0, "object_dice": 0, "object_hausdorff": diagonal}, abs=1e-12)


def test_nothing_found_is_nothing_divided_by_nothing_in_the_contest():
    truth, prediction = np.array([[1, 1, 0, 0]]), np.array([[0, 0, 1, 1]])
    assert metrics.glas_f1(truth, prediction) == 0
    assert math.isnan(metrics.glas_f1(truth, prediction, undefined=math.nan))
    # One side empty has its own rule there.
    assert metrics.glas_f1(truth, truth * 0, undefined=math.nan) == 0
    assert metrics.glas_f1(truth * 0, truth * 0, undefined=math.nan) == 1


def test_two_equal_partners():
    # The prediction shares 2 pixels with each of two true objects: the first one in the image is 9, the lower id 4.
    truth, prediction = np.array([[9, 9, 4, 4, 4, 4]]), np.array([[1, 1, 1, 1, 0, 0]])
    assert glas.glas_counts(truth, prediction)[:3].tolist() == [1, 0, 1]
    assert glas.glas_counts(truth, prediction, ties="id")[:3].tolist() == [0, 1, 2]
    # With 9: Dice 4/6; both true ones have it as partner: (2 * 4/6 + 4 * 4/8) / 6.
    true_side = (2 * 4 / 6 + 4 * 4 / 8) / 6
    assert metrics.object_dice(truth, prediction) == pytest.approx((4 / 6 + true_side) / 2, abs=1e-12)
    assert metrics.object_dice(truth, prediction, ties="id") == pytest.approx((4 / 8 + true_side) / 2, abs=1e-12)
    # Of the prediction: 2 to 9, 2 to 4. Of 9: 2, of 4: 2.
    assert metrics.object_hausdorff(truth, prediction, ties="id") == 2


def test_pooled_over_all_objects_of_all_images():
    truths, predictions = zip(cells.shifted_cell(), cells.missed_cell(), strict=True)
    found = take(truths, predictions)
    assert found["glas_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1), abs=1e-12)
    # Predicted: 16 pixels with Dice 24/32, 12 with 1; true: 16 with 24/32, 12 with 1, 12 with 0.
    dice = ((16 * 0.75 + 12) / 28 + (16 * 0.75 + 12) / 40) / 2
    assert found["object_dice"] == pytest.approx(dice, abs=1e-12)
    far = ((16 * 1 + 0) / 28 + (16 * 1 + 12 * 3) / 40) / 2
    assert found["object_hausdorff"] == pytest.approx(far, abs=1e-12)
    counts = sum(glas.glas_counts(*pair) for pair in zip(truths, predictions, strict=True))
    assert glas.glas_scores(counts) == {
        "f1": found["glas_f1"],
        "tp": 2,
        "fp": 0,
        "fn": 1,
        "object_dice": found["object_dice"],
        "object_hausdorff": found["object_hausdorff"],
    }


def test_image_without_prediction_counts_its_diagonal():
    cell, empty = cells.one_cell(), cells.empty()
    found = take([cell, cell], [cell, empty])
    assert found["glas_f1"] == pytest.approx(2 / 3, abs=1e-12)
    assert found["object_dice"] == pytest.approx((1 + 1 / 2) / 2, abs=1e-12)
    assert found["object_hausdorff"] == pytest.approx((0 + math.hypot(5, 7) / 2) / 2, abs=1e-12)


@PROPERTY
@given(LABELS, arrays(bool, (5, 6)))
def test_identity_is_perfect(labels, ignore):
    perfect = {"glas_f1": 1, "object_dice": 1, "object_hausdorff": 0}
    assert take(labels, labels) == pytest.approx(perfect, abs=1e-12)
    # A cell mostly ignored stays in the truth, but is not asked of the prediction.
    kept = np.where(ignore, 0, labels)
    assert take(kept, kept, ignore) == pytest.approx(perfect, abs=1e-12)


@PROPERTY
@given(LABELS, LABELS, st.permutations([3, 11, 500, 70_000]), st.permutations([1, 2, 9, 2**31 - 1]))
def test_ids_do_not_matter(labels_true, labels_pred, ids_true, ids_pred):
    renamed = np.array([0, *ids_true])[labels_true], np.array([0, *ids_pred])[labels_pred]
    assert take(labels_true, labels_pred) == pytest.approx(take(*renamed), abs=1e-9)


@PROPERTY
@given(LABELS, LABELS)
def test_object_dice_and_hausdorff_are_symmetric(labels_true, labels_pred):
    there, back = take(labels_true, labels_pred), take(labels_pred, labels_true)
    for name in ("object_dice", "object_hausdorff"):
        assert there[name] == pytest.approx(back[name], abs=1e-9)
