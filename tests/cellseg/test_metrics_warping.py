import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from cellseg.metrics import warping
from tests import cells, oracles

MASK = arrays(bool, (6, 7))
PROPERTY = settings(max_examples=60, derandomize=True, deadline=None)


def test_shifted_boundary_is_forgiven():
    assert metrics.warping_error(*cells.shifted_cell()) == 0
    assert metrics.pixel_error(*cells.shifted_cell()) == 8 / 48


def two_apart():
    """Two cells of 4x2 pixels with a column between them."""
    labels = cells.empty()
    labels[1:5, 1:3], labels[1:5, 4:6] = 1, 2
    return labels


def test_bridge_is_one_pixel():
    truth = two_apart()
    prediction = (truth > 0).astype(int)
    prediction[2, 3] = 1
    # A bridge of one pixel is one mistake, and so is one of the full height: the cells may grow towards it, not meet.
    assert metrics.warping_error(truth, prediction) == 1 / 48
    prediction[1:5, 3] = 1
    assert metrics.warping_error(truth, prediction) == 4 / 48


def test_missed_cell_leaves_a_pixel_and_a_spurious_one_all_of_its_own():
    truth = two_apart()
    prediction = np.where(truth == 1, 1, 0)
    # The second cell shrinks to one pixel; the other way round nothing can appear.
    assert metrics.warping_error(truth, prediction) == 1 / 48
    assert metrics.warping_error(prediction, truth) == 8 / 48


def test_hole_is_a_mistake():
    truth = cells.one_cell()
    prediction = truth.copy()
    prediction[2, 2] = 0
    assert metrics.warping_error(truth, prediction) == 1 / 48


def test_touching_cells_are_one_region():
    assert metrics.warping_error(*cells.merged_pair()) == 0


def test_empty_images():
    cell, empty = cells.one_cell(), cells.empty()
    assert metrics.warping_error(empty, empty) == 0
    assert metrics.warping_error(empty, cell) == 16 / 48
    assert metrics.warping_error(cell, empty) == 1 / 48
    assert np.isnan(metrics.warping_error(cell, cell, np.ones(cell.shape, bool)))


def test_ignored_pixels_stay():
    truth, prediction = cells.shifted_cell()
    ignore = np.zeros(cells.SHAPE, bool)
    ignore[:, 5] = True
    # Column 1 of the cell can be given up, column 5 not be won; it is not counted.
    warped = warping.warp(truth > 0, prediction > 0, ignore)
    assert (warped == (truth > 0) & (prediction > 0)).all()
    assert metrics.warping_error(truth, prediction, ignore) == 0


@pytest.mark.parametrize(
    ("probability", "expected"), [([0.9, 0.8, 0.7, 0.9], [1, 1, 0, 1]), ([0.9, 0.7, 0.8, 0.9], [1, 0, 1, 1])]
)
def test_surest_mistakes_are_flipped_first(probability, expected):
    # Two cells with two pixels between: either may grow, and then the other no more.
    truth, probability = np.array([[1, 0, 0, 1]]), np.array([probability])
    warped = warping.warp(truth > 0, probability > 0.5, sureness=np.abs(probability - 0.5))
    assert warped.astype(int).tolist() == [expected]
    assert metrics.warping_error(truth, probability) == 1 / 4


@PROPERTY
@given(MASK, MASK)
def test_warping_keeps_the_topology_and_no_simple_mistake(mask, target):
    warped = warping.warp(mask, target)
    assert oracles.topology(warped) == oracles.topology(mask)
    assert np.count_nonzero(warped != target) <= np.count_nonzero(mask != target)
    for place in np.argwhere(warped != target).tolist():
        flipped = warped.copy()
        flipped[tuple(place)] ^= True
        # No single flip that is left keeps the number of pieces and holes, or it merges and splits at once.
        assert not is_simple(np.pad(warped, 1)[place[0] : place[0] + 3, place[1] : place[1] + 3])


def is_simple(patch):
    """One region of each kind touches the middle: foreground over the sides, background over the corners too."""
    sides = {(0, 1), (1, 0), (1, 2), (2, 1)}
    kinds = []
    for mask, connectivity in ((patch, 4), (~patch, 8)):
        ring = mask.copy()
        ring[1, 1] = False
        touching = sides if connectivity == 4 else set(np.ndindex(3, 3))
        kinds.append(
            [one for one in oracles.objects(oracles.components(ring, connectivity)).values() if one & touching]
        )
    return len(kinds[0]) == len(kinds[1]) == 1


def test_simple_points_equal_counting_regions():
    table = warping._simple_points()
    around = [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2), (2, 2)]  # column after column
    for code in range(256):
        patch = np.zeros((3, 3), bool)
        for bit, place in enumerate(around):
            patch[place] = code >> bit & 1
        assert table[code] == is_simple(patch), patch


@PROPERTY
@given(MASK)
def test_identity_is_perfect(mask):
    assert metrics.warping_error(mask, mask) == 0


def test_pooled_is_the_mean_over_pixels():
    truth = two_apart()
    pair = [truth, truth], [truth, np.where(truth == 1, 1, 0)]
    assert metrics.score(*pair, "warping_error")["warping_error"] == pytest.approx(1 / 96, abs=1e-12)
