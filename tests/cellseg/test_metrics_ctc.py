import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from tests import cells, oracles

LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 3))


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        ("missed_cell", (1 + 0) / 2),
        # The merged cell holds all of each: 12 shared of 24, twice.
        ("merged_pair", (12 / 24 + 12 / 24) / 2),
        # Each half holds 12 of 24 pixels, which is not more than half.
        ("split_cell", 0),
        ("shifted_cell", 12 / 20),
        # False positives cost nothing.
        ("extra_cell", 1),
    ],
)
def test_seg_by_hand(scene, expected):
    assert metrics.seg(*cells.PAIRS[scene]()) == pytest.approx(expected, abs=1e-12)


def test_one_pixel_more_than_half_is_enough():
    truth, prediction = cells.split_cell()
    prediction[4, 4] = 1
    # 13 of 24 pixels, all of them truth.
    assert metrics.seg(truth, prediction) == pytest.approx(13 / 24, abs=1e-12)


def test_pools_objects_not_images():
    truths, predictions = zip(cells.shifted_cell(), cells.missed_cell(), strict=True)
    # Objects 0.6, 1 and 0; images would give (0.6 + 0.5) / 2.
    assert metrics.score(truths, predictions, "seg")["seg"] == pytest.approx(1.6 / 3, abs=1e-12)


def test_truth_empty_is_undefined():
    assert math.isnan(metrics.seg(cells.empty(), cells.one_cell()))
    assert math.isnan(metrics.seg(cells.empty(), cells.empty()))


def test_prediction_empty_is_zero():
    assert metrics.seg(cells.one_cell(), cells.empty()) == 0


@settings(max_examples=60, derandomize=True, deadline=None)
@given(LABELS, LABELS)
def test_seg_equals_sets(labels_true, labels_pred):
    values = oracles.seg(labels_true, labels_pred)
    expected = float(sum(values)) / len(values) if values else math.nan
    assert metrics.seg(labels_true, labels_pred) == pytest.approx(expected, abs=1e-12, nan_ok=True)
