import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg.metrics import classes as by_class
from cellseg.metrics import objects
from pipelines.errors import InputError
from tests import cells

LABELS = arrays(np.int32, (4, 5), elements=st.integers(0, 3))
PROPERTY = settings(max_examples=40, derandomize=True, deadline=None)


def classes():
    """Truth 0 0 1 / 1 2 ?, prediction 0 1 1 / 1 0 2, ? = 255 not annotated; class 3 is in neither."""
    return np.array([[0, 0, 1], [1, 2, 255]], np.uint8), np.array([[0, 1, 1], [1, 0, 2]], np.uint8)


def test_multiclass_by_hand():
    matrix = by_class.confusion_matrix(*classes(), num_classes=4, ignore_class=255)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert by_class.multiclass_pixel_accuracy(matrix) == pytest.approx(3 / 5, abs=1e-12)
    # Class 0: 1 shared of 2 + 2 - 1; class 1: 2 of 2 + 3 - 2; class 2: 0 of 1; class 3 nowhere.
    np.testing.assert_allclose(by_class.iou_per_class(matrix), [1 / 3, 2 / 3, 0, np.nan])
    np.testing.assert_allclose(by_class.dice_per_class(matrix), [2 / 4, 4 / 5, 0, np.nan])
    assert by_class.iou_per_class(matrix, undefined=0.0)[3] == 0
    # 2/5 * 1/3 + 2/5 * 2/3 + 1/5 * 0.
    assert by_class.multiclass_frequency_weighted_iou(matrix) == pytest.approx(2 / 5, abs=1e-12)


def test_multiclass_without_pixels_is_undefined():
    nothing = by_class.confusion_matrix(np.full((2, 2), 255), np.zeros((2, 2), int), num_classes=2, ignore_class=255)
    assert math.isnan(by_class.multiclass_pixel_accuracy(nothing))
    assert math.isnan(by_class.multiclass_frequency_weighted_iou(nothing))


def test_class_out_of_range_is_refused():
    with pytest.raises(InputError, match="classes_true holds class 255, but num_classes=4"):
        by_class.confusion_matrix(*classes(), num_classes=4)


def named():
    """Three cells in a row of 4, 4 and 4 pixels, classes 1, 2 and 2; the prediction calls the second 1, misses the
    third and adds a fourth of class 2 where there is none."""
    truth = np.array([[1, 1, 1, 1, 0, 5, 5, 5, 5, 0, 7, 7, 7, 7, 0, 0, 0]])
    prediction = np.array([[3, 3, 3, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 0, 9, 9, 0]])
    return (
        (truth, np.select([truth == 1, truth > 1], [1, 2])),
        (prediction, np.select([prediction == 9, prediction > 0], [2, 1])),
    )


def test_class_of_a_cell_is_that_of_most_of_its_pixels():
    labels = np.array([[4, 4, 4, 4, 4, 8, 8, 8, 8, 2, 2, 0]])
    classes = np.array([[0, 0, 0, 3, 1, 2, 2, 1, 1, 0, 0, 3]])
    # 4: one pixel each of 3 and 1; 8: two each of 2 and 1; 2: none has a class.
    assert by_class.class_of_objects(labels, classes) == {2: 0, 4: 1, 8: 1}


def test_matches_of_each_class_by_hand():
    counts = by_class.class_match_counts(*named()[0], *named()[1], num_classes=3)
    # Class 1: cell 1 found with IoU 3/4, cell 4 spurious; class 2: cells 5 and 7 missed, cell 9 spurious.
    assert counts.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0.75], [0, 1, 2, 0]]
    scores = by_class.class_scores(counts)
    np.testing.assert_allclose(scores["panoptic_quality"], [0.75 / 1.5, 0])
    np.testing.assert_allclose(scores["f1"], [2 / 3, 0])
    np.testing.assert_allclose(scores["accuracy"], [1 / 2, 0])
    assert by_class.mean_over_classes(scores["panoptic_quality"]) == pytest.approx(0.25, abs=1e-12)


def test_absent_class_is_left_out_of_the_mean():
    scores = by_class.class_scores(by_class.class_match_counts(*named()[0], *named()[1], num_classes=5))
    assert np.isnan(scores["panoptic_quality"]).tolist() == [False, False, True, True]
    assert by_class.mean_over_classes(scores["panoptic_quality"]) == pytest.approx(0.25, abs=1e-12)
    assert math.isnan(by_class.mean_over_classes(by_class.class_scores(np.zeros((3, 4)))["f1"]))


def test_pairs_of_each_class_by_hand():
    # Centres 1.5, 6.5, 11.5 and 1, 6.5, 14.5: two pairs within 2 pixels, and 11.5 with 14.5 within 3.
    counts = by_class.class_pair_counts(*named()[0], *named()[1], num_classes=3, radius=2)
    # TP_c, FP_c, FN_c, FP_d, FN_d.
    assert counts.tolist() == [[0] * 5, [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    np.testing.assert_allclose(by_class.class_f1(counts), [2 / (2 + 2), 0])
    assert by_class.detection_f1(counts) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1), abs=1e-12)
    near = by_class.class_pair_counts(*named()[0], *named()[1], num_classes=3, radius=3)
    assert near.tolist() == [[0] * 5, [1, 1, 0, 0, 0], [1, 0, 1, 0, 0]]
    by_iou = by_class.class_pair_counts(*named()[0], *named()[1], num_classes=3, radius=None)
    assert by_iou.tolist() == counts.tolist()


def test_nothing_to_find():
    empty = cells.empty()
    counts = by_class.class_pair_counts(empty, empty, empty, empty, num_classes=2)
    assert math.isnan(by_class.detection_f1(counts))
    assert np.isnan(by_class.class_f1(counts)).all()
    assert by_class.class_match_counts(empty, empty, empty, empty, num_classes=2).tolist() == [[0] * 4] * 2


def test_ignored_prediction_is_neither_true_nor_false():
    ignore = np.zeros((1, 17), bool)
    ignore[0, 14:] = True
    assert by_class.class_match_counts(*named()[0], *named()[1], ignore, num_classes=3)[2].tolist() == [0, 0, 2, 0]
    assert by_class.class_pair_counts(*named()[0], *named()[1], ignore, num_classes=3)[2].tolist() == [0, 0, 1, 0, 1]


@PROPERTY
@given(LABELS, LABELS)
def test_one_class_equals_the_measures_without_classes(labels_true, labels_pred):
    ones = np.ones(labels_true.shape, int)
    counts = by_class.class_match_counts(labels_true, ones, labels_pred, ones, num_classes=2)[1]
    np.testing.assert_allclose(counts, objects.match_counts(labels_true, labels_pred, strict=True))


@PROPERTY
@given(LABELS, LABELS, LABELS, LABELS, st.permutations([3, 11, 500]))
def test_ids_do_not_matter(labels_true, classes_true, labels_pred, classes_pred, ids):
    renamed = np.array([0, *ids])[labels_pred]
    arguments = (labels_true, classes_true, labels_pred, classes_pred)
    changed = (labels_true, classes_true, renamed, classes_pred)
    found, again = (by_class.class_match_counts(*one, num_classes=4) for one in (arguments, changed))
    np.testing.assert_allclose(found, again)
    found, again = (by_class.class_pair_counts(*one, num_classes=4, radius=None) for one in (arguments, changed))
    assert found[:, :2].sum() == again[:, :2].sum()


def test_class_of_cells_out_of_range_is_refused():
    labels = cells.one_cell()
    with pytest.raises(InputError, match="classes_pred holds class 4, but num_classes=3 allows 0..2"):
        by_class.class_match_counts(labels, labels, labels, labels * 4, num_classes=3)
    with pytest.raises(InputError, match="classes_true holds class 4, but num_classes=3 allows 0..2"):
        by_class.class_pair_counts(labels, labels * 4, labels, labels, num_classes=3)
