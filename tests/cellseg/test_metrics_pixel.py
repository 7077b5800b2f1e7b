import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from cellseg.metrics import classes as by_class
from cellseg.metrics import pixel
from tests import cells, oracles

LABELS = arrays(np.int32, (4, 5), elements=st.integers(0, 3))
MASK = arrays(bool, (4, 5))
PROPERTY = settings(max_examples=60, derandomize=True, deadline=None)
PIXEL = list(pixel.METRICS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 48 pixels: TP 12, FP 0, FN 12, TN 24.
        ("pixel_accuracy", 36 / 48),
        ("pixel_error", 12 / 48),
        ("iou", 12 / 24),
        ("dice", 24 / 36),
        # Foreground 24/48 * IoU 12/24 + background 24/48 * IoU 24/36.
        ("frequency_weighted_iou", 0.5 * 12 / 24 + 0.5 * 24 / 36),
    ],
)
def test_missed_cell_by_hand(name, expected):
    assert getattr(metrics, name)(*cells.missed_cell()) == pytest.approx(expected, abs=1e-12)


def test_background_iou_by_hand():
    assert pixel.background_iou(*cells.missed_cell()) == pytest.approx(24 / 36, abs=1e-12)


def test_merged_cells_are_perfect_pixels():
    assert metrics.dice(*cells.merged_pair()) == 1


@pytest.mark.parametrize(
    ("name", "both_empty", "truth_empty", "prediction_empty"),
    [
        # The cell of `one_cell` has 16 of 48 pixels.
        ("pixel_accuracy", 1, 32 / 48, 32 / 48),
        ("pixel_error", 0, 16 / 48, 16 / 48),
        ("iou", 1, 0, 0),
        ("dice", 1, 0, 0),
        # Truth empty: background alone, IoU 32/48. Prediction empty: 16/48 * 0 + 32/48 * 32/48.
        ("frequency_weighted_iou", 1, 32 / 48, (32 / 48) ** 2),
    ],
)
def test_empty_images(name, both_empty, truth_empty, prediction_empty):
    measure = getattr(metrics, name)
    cell, empty = cells.one_cell(), cells.empty()
    assert measure(empty, empty) == both_empty
    assert measure(empty, cell) == pytest.approx(truth_empty, abs=1e-12)
    assert measure(cell, empty) == pytest.approx(prediction_empty, abs=1e-12)


@pytest.mark.parametrize("name", PIXEL)
def test_all_ignored_is_undefined(name):
    cell = cells.one_cell()
    assert math.isnan(getattr(metrics, name)(cell, cell, np.ones(cell.shape, bool)))


def test_all_foreground():
    full = np.ones((2, 3), np.int32)
    assert metrics.iou(full, full) == metrics.frequency_weighted_iou(full, full) == 1
    assert pixel.background_iou(full, full) == 1


@PROPERTY
@given(LABELS, LABELS, MASK)
def test_counts_equal_a_loop(labels_true, labels_pred, ignore):
    assert tuple(pixel.confusion(labels_true, labels_pred)) == oracles.pixel_counts(labels_true, labels_pred)
    expected = oracles.pixel_counts(labels_true, labels_pred, ignore)
    assert tuple(pixel.confusion(labels_true, labels_pred, ignore)) == expected


def test_probability_is_cut_above_a_half():
    truth = np.array([[1.0, 1.0, 0.0, 0.0]])
    probability = np.array([[0.51, 0.5, 0.5, 0.9]], np.float32)
    assert metrics.pixel_error(truth, probability) == 2 / 4
    assert metrics.pixel_error(truth > 0, probability) == 2 / 4


def test_threshold_is_not_rounded_to_the_images_precision():
    # float32(0.1) is 0.100000001.
    assert pixel.foreground(np.array([0.1], np.float32), threshold=0.1).all()


@PROPERTY
@given(LABELS, LABELS)
def test_symmetric_but_for_the_weighting(labels_true, labels_pred):
    for name in ("pixel_accuracy", "pixel_error", "iou", "dice"):
        measure = getattr(metrics, name)
        assert measure(labels_true, labels_pred) == measure(labels_pred, labels_true)


@PROPERTY
@given(LABELS, LABELS)
def test_dice_follows_from_iou(labels_true, labels_pred):
    iou = metrics.iou(labels_true, labels_pred)
    assert metrics.dice(labels_true, labels_pred) == pytest.approx(2 * iou / (1 + iou), abs=1e-12)


@PROPERTY
@given(LABELS)
def test_identity_is_perfect(labels):
    for name in PIXEL:
        expected = 1 if metrics.METRICS[name].higher_is_better else 0
        assert getattr(metrics, name)(labels, labels) == pytest.approx(expected, abs=1e-12)


@PROPERTY
@given(LABELS, LABELS)
def test_two_classes_equal_the_binary_form(labels_true, labels_pred):
    matrix = by_class.confusion_matrix(labels_true > 0, labels_pred > 0, num_classes=2)
    assert by_class.multiclass_pixel_accuracy(matrix) == metrics.pixel_accuracy(labels_true, labels_pred)
    expected = metrics.frequency_weighted_iou(labels_true, labels_pred)
    assert by_class.multiclass_frequency_weighted_iou(matrix) == pytest.approx(expected, abs=1e-12)
