import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from cellseg.metrics import boundary
from tests import cells, oracles

MASK = arrays(bool, (6, 7))
PROPERTY = settings(max_examples=60, derandomize=True, deadline=None)
DISTANCES = ("hausdorff", "hausdorff95", "average_surface_distance")
DIAGONAL = math.hypot(5, 7)  # of the 6x8 scenes, from centre to centre


def test_shifted_cell_by_hand():
    # 12 surface pixels each; of a square's columns 1 to 4 and 2 to 5, the outer column (4 pixels) is 1 away, the inner
    # pixels of the column beside it (2) too.
    assert metrics.hausdorff(*cells.shifted_cell()) == 1
    assert metrics.hausdorff95(*cells.shifted_cell()) == 1
    assert metrics.average_surface_distance(*cells.shifted_cell()) == pytest.approx(12 / 24, abs=1e-12)


def test_percentile_is_linear_between_ranks():
    truth, prediction = np.zeros((2, 30), int), np.zeros((2, 30), int)
    truth[0, :10] = 1
    prediction[0, [*range(10), 19]] = 1
    # 21 distances, 20 of them 0 and one 10: rank 0.95 * 20 = 19 is still 0.
    assert metrics.hausdorff95(truth, prediction) == 0
    truth[0, 9] = 0
    # Of 9 and 11: 18 times 0, 1 and 11; rank 0.95 * 19 = 18.05 lies between 1 and 11.
    assert metrics.hausdorff95(truth, prediction) == pytest.approx(1 + 0.05 * 10, abs=1e-12)


@PROPERTY
@given(MASK, MASK)
def test_distances_equal_loops(mask_true, mask_pred):
    assume(mask_true.any() and mask_pred.any())
    for connectivity in (1, 2):
        true, pred = (oracles.surface(mask, connectivity) for mask in (mask_true, mask_pred))
        both = oracles.distances(true, pred) + oracles.distances(pred, true)
        expected = [max(both), np.percentile(both, 95), sum(both) / len(both)]
        found = [getattr(boundary, name)(mask_true, mask_pred, connectivity=connectivity) for name in DISTANCES]
        assert found == pytest.approx(expected, abs=1e-9)


@PROPERTY
@given(MASK, MASK)
def test_band_equals_loops(mask_true, mask_pred):
    for ratio, width in ((0.02, 1), (0.2, 2), (0.33, 3)):  # of a diagonal of 9.2
        true, pred = (oracles.band(mask, width) for mask in (mask_true, mask_pred))
        expected = len(true & pred) / len(true | pred) if true | pred else 1
        assert boundary.boundary_iou(mask_true, mask_pred, dilation_ratio=ratio) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", boundary.METRICS)
def test_empty_images(name):
    cell, empty = cells.one_cell(), cells.empty()
    measure = getattr(metrics, name)
    best, worst = (1, 0) if name == "boundary_iou" else (0, DIAGONAL)
    assert measure(empty, empty) == best
    assert measure(empty, cell) == measure(cell, empty) == pytest.approx(worst, abs=1e-12)
    assert math.isnan(measure(cell, cell, np.ones(cell.shape, bool)))


def test_boundary_iou_without_boundaries():
    assert math.isnan(boundary.boundary_iou(cells.empty(), cells.empty(), undefined=math.nan))


def test_border_of_the_image_is_outside():
    full = np.ones((5, 5), int)
    hole = full.copy()
    hole[2, 2] = 0
    # The frame is 4-connected surface of both; around the hole 4 pixels more, each 1 from the frame.
    assert metrics.hausdorff(full, hole) == 1
    assert metrics.average_surface_distance(full, hole) == pytest.approx(4 / (16 + 20), abs=1e-12)
    assert metrics.boundary_iou(full, hole) == pytest.approx(16 / 24, abs=1e-12)


def test_ignored_pixels_make_no_surface():
    full = np.ones((5, 9), int)
    ignore = np.zeros((5, 9), bool)
    ignore[:, 5:] = True
    cut = np.where(ignore, 0, full)
    assert metrics.hausdorff(full, cut, ignore) == metrics.average_surface_distance(full, cut, ignore) == 0
    assert metrics.boundary_iou(full, cut, ignore) == 1
    assert metrics.hausdorff(full, cut) == 4


@PROPERTY
@given(MASK, MASK)
def test_symmetric_and_identity_is_perfect(mask_true, mask_pred):
    for name in boundary.METRICS:
        measure = getattr(metrics, name)
        assert measure(mask_true, mask_pred) == pytest.approx(measure(mask_pred, mask_true), abs=1e-12)
        assert measure(mask_true, mask_true) == (1 if name == "boundary_iou" else 0)


def test_pooled_distance_is_the_mean_over_images_that_have_one():
    pair, cell = cells.shifted_cell(), cells.one_cell()
    ignore = [np.zeros(cells.SHAPE, bool), np.zeros(cells.SHAPE, bool), np.ones(cells.SHAPE, bool)]
    found = metrics.score([pair[0], cell, cell], [pair[1], cell, cell], DISTANCES, ignore)
    assert found == pytest.approx({"hausdorff": 0.5, "hausdorff95": 0.5, "average_surface_distance": 0.25}, abs=1e-12)


def test_pooled_bands_are_added():
    pair, cell = cells.shifted_cell(), cells.one_cell()
    # Bands of 12 pixels, one wide: 6 shared of 18 in the first, 12 of 12 in the second.
    found = metrics.score([pair[0], cell], [pair[1], cell], "boundary_iou")["boundary_iou"]
    assert found == pytest.approx((6 + 12) / (18 + 12), abs=1e-12)
