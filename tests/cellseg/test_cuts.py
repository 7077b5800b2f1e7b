import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg.cuts import Necks, Seeds
from pipelines.errors import InputError
from tests import oracles

PROPERTY = settings(max_examples=150, derandomize=True, deadline=None)
EIGHTHS = arrays(np.int64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 8))


def row(*values):
    return np.array([values], np.float32)


def cells_of(height, *, sigma=0.0, depth=0.2, seed_threshold=0.3):
    cut = Seeds(sigma=sigma, depth=depth, seed_threshold=seed_threshold)
    cells = cut(np.ones(height.shape, bool), height)
    return np.ones(height.shape, int) if cells is None else cells


def test_the_cut_is_made_in_the_valley():
    assert cells_of(row(0.5, 0.9, 0.5, 0.1, 0.6, 0.8)).tolist() in ([[1, 1, 1, 1, 2, 2]], [[1, 1, 1, 2, 2, 2]])


@pytest.mark.parametrize(("depth", "count"), [(0.24, 2), (0.26, 1)])
def test_a_hill_must_rise_above_its_pass(depth, count):
    assert cells_of(row(0.9, 0.5, 0.75), depth=depth).max() == count  # 0.75 - 0.5 = 0.25


@pytest.mark.parametrize(("seed_threshold", "count"), [(0.5, 2), (0.51, 1)])
def test_a_hill_must_be_high_enough(seed_threshold, count):
    assert cells_of(row(0.9, 0.1, 0.5), seed_threshold=seed_threshold).max() == count


def test_equal_summits_with_a_shallow_dip_are_one_hill():
    # scikit-image's h_maxima finds two here.
    assert cells_of(row(1, 1, 0.95, 1, 1)).max() == 1
    assert cells_of(row(1, 1, 0.75, 1, 1)).max() == 2


def test_a_piece_of_low_hills_is_one_cell():
    assert Seeds(sigma=0, depth=0.1, seed_threshold=0.5)(np.ones((1, 3), bool), row(0.4, 0, 0.4)) is None
    assert Seeds(sigma=0, depth=0.1, seed_threshold=0)(np.ones((1, 3), bool), row(0, 0, 0)) is None


def test_smoothing_takes_a_rough_hill_for_one():
    rows, columns = np.mgrid[:25, :25]
    hill = np.exp(-((rows - 12) ** 2 + (columns - 12) ** 2) / 50)
    rough = np.clip(hill + np.random.default_rng(0).normal(0, 0.1, hill.shape), 0, 1).astype(np.float32)
    assert cells_of(rough).max() > 1 and cells_of(rough, sigma=2.0).max() == 1


@PROPERTY
@given(EIGHTHS, st.integers(0, 4), st.integers(0, 8))
def test_as_many_cells_as_hills(eighths, depth, least):
    # Depths lie between the steps of 1/8, so that rounding decides nothing.
    height = (eighths / 8).astype(np.float32)
    cut = Seeds(sigma=0, depth=(depth + 0.5) / 8, seed_threshold=least / 8)
    islands = oracles.components(eighths > 0, 8)
    for number in range(1, islands.max() + 1):
        piece = islands == number
        # The frame keeps the piece apart from what is outside of the array, as the margin does.
        cells = cut(np.pad(piece, 1), np.pad(height, 1))
        count = 1 if cells is None else cells.max()
        assert count == max(1, oracles.num_hills(height, piece, (depth + 0.5) / 8, least / 8))
        if cells is not None:
            np.testing.assert_array_equal(cells[1:-1, 1:-1] > 0, piece)


@pytest.mark.parametrize(
    "options", [{"sigma": -1.0}, {"depth": 0.0}, {"depth": 1.5}, {"seed_threshold": 1.5}, {"seed_threshold": -0.1}]
)
def test_options(options):
    with pytest.raises(InputError, match="sigma must be >= 0 pixels, depth above 0 and at most 1, and seed_threshold"):
        Seeds(**{"sigma": 1.0, "depth": 0.1, "seed_threshold": 0.5, **options})
    with pytest.raises(InputError, match="sigma must be >= 0 and depth > 0 pixels, got sigma -1.0"):
        Necks(sigma=-1.0, depth=1)


def test_seeds_need_to_be_told_the_inside():
    with pytest.raises(InputError, match="'seeded' needs `inner`"):
        Seeds(sigma=1.0, depth=0.1, seed_threshold=0.5)(np.ones((3, 3), bool))
