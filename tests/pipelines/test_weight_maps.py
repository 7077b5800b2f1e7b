from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.measure import label

from pipelines.weight_maps import border, border_ridge
from tests import cells
from tests.datasets import discs

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def naive(labels, w0, sigma):
    """The formula as it stands in the paper: one distance transform a cell over the whole image, sorted."""
    ids = np.unique(labels[labels > 0])
    if len(ids) < 2:
        return np.zeros(labels.shape)
    distances = np.sort([distance_transform_edt(labels != i) for i in ids], axis=0)
    return np.where(labels == 0, w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2)), 0)


@pytest.mark.parametrize(("w0", "sigma"), [(10, 5), (3, 2.5), (10, 0.7), (1, 30)])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_naive_formula(seed, w0, sigma):
    labels = discs(seed, side=96, num=8, radius=5)
    np.testing.assert_allclose(border_ridge(labels, w0=w0, sigma=sigma), naive(labels, w0, sigma), atol=1e-6)


def test_by_hand():
    # One row: cell, gap of three, cell. In the middle d1 = d2 = 2: 10 exp(-16 / 50) = 7.2615.
    labels = np.array([[1, 0, 0, 0, 2]])
    ridge = border_ridge(labels)
    assert ridge[0, 2] == pytest.approx(7.2615, abs=1e-4)
    assert ridge[0, 1] == ridge[0, 3] == pytest.approx(7.2615, abs=1e-4)  # 1 + 3 = 2 + 2
    assert ridge[0, 0] == ridge[0, 4] == 0
    np.testing.assert_allclose(border(labels), 1 + ridge)


@pytest.mark.parametrize("labels", [cells.empty(), cells.one_cell()])
def test_fewer_than_two_cells_have_no_ridge(labels):
    assert (border(labels) == 1).all()


def test_touching_cells_need_ids():
    labels = cells.two_touching()
    assert border_ridge(labels).max() > 0
    assert not border_ridge((labels > 0).astype(np.int32)).any()


def test_ids_do_not_matter():
    np.testing.assert_array_equal(border(cells.two_touching()), border(cells.sparse_ids()))


def test_without_background():
    assert (border(np.array([[1, 2], [1, 2]])) == 1).all()


@pytest.mark.parametrize("case", ["pub_two_cells", "pub_random"])
def test_equal_to_an_independent_tool(case):
    with np.load(GOLDEN / f"weightmap_{case}.npz") as data:
        labels = label(data["mask"], connectivity=2).astype(np.int32)
        np.testing.assert_allclose(border_ridge(labels), data["border_w10_s5"], atol=1e-6)
        np.testing.assert_allclose(border_ridge(labels, w0=3, sigma=2.5), data["border_w3_s2p5"], atol=1e-6)


def test_bad_labels():
    with pytest.raises(ValueError, match="float64"):
        border(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        border(cells.two_touching(), sigma=0)
