import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops_table

from cellseg.shapes import axes, crossings, group, perimeters, second_moments, solidities
from tests.cells import empty, nested, one_cell, sparse_ids

PROPERTIES = (
    "label",
    "area",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "orientation",
    "solidity",
    "perimeter_crofton",
)


def ellipse(shape, centre, half, angle):
    """Pixels of an ellipse; `half` = semi-axes along `angle` (from the row axis, counter-clockwise) and across."""
    rows, columns = np.indices(shape) - np.reshape(centre, (2, 1, 1))
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = -rows * np.sin(angle) + columns * np.cos(angle)
    return ((along / half[0]) ** 2 + (across / half[1]) ** 2 <= 1).astype(np.int32)


def blobs(seed, *, touching):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(90, 130)), 1 + seed % 4)
    pieces = label(noise > 0.0)
    if touching:
        return np.where(pieces > 0, 1 + np.indices(pieces.shape).sum(axis=0) // 30, 0).astype(np.int32)
    return pieces.astype(np.int32)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("touching", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_number_is_regionprops_own(seed, touching):
    labels = blobs(seed, touching=touching)
    cells = group(labels)
    moments = second_moments(cells)
    major, minor, eccentricity, orientation = axes(moments)
    theirs = regionprops_table(labels, properties=PROPERTIES)
    assert len(cells.ids) > 5
    np.testing.assert_array_equal(cells.ids, theirs["label"])
    np.testing.assert_array_equal(cells.area, theirs["area"])
    np.testing.assert_allclose(major, theirs["axis_major_length"], atol=1e-6)
    np.testing.assert_allclose(minor, theirs["axis_minor_length"], atol=1e-6)
    np.testing.assert_allclose(eccentricity, theirs["eccentricity"], atol=1e-6)
    np.testing.assert_allclose(solidities(cells), theirs["solidity"], atol=1e-12)
    np.testing.assert_allclose(perimeters(crossings(cells), (1, 1)), theirs["perimeter_crofton"], atol=1e-9)
    # The same line, whichever end it is counted from; cells without a direction have none to compare.
    directed = eccentricity > 0
    turned = (orientation - theirs["orientation"])[directed]
    np.testing.assert_allclose(np.sin(turned), 0, atol=1e-6)
    assert (orientation[~directed] == 0).all()


def test_orientation_counts_from_the_row_axis_counter_clockwise():
    labels = np.zeros((5, 20), np.int32)
    labels[0:5, 0] = 1  # upright
    labels[2, 2:7] = 2  # lying
    labels[range(5), range(8, 13)] = 3  # down and to the right
    labels[range(5), range(19, 14, -1)] = 4  # down and to the left
    *_, orientation = axes(second_moments(group(labels)))
    np.testing.assert_allclose(orientation, [0, np.pi / 2, np.pi / 4, -np.pi / 4])


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 4, 1.2, -0.7])
def test_an_ellipse_has_its_own_axes(angle):
    major, minor, eccentricity, orientation = axes(
        second_moments(group(ellipse((101, 101), (50, 50), (40.0, 20.0), angle)))
    )
    assert major[0] == pytest.approx(80, rel=0.01)
    assert minor[0] == pytest.approx(40, rel=0.01)
    assert eccentricity[0] == pytest.approx(np.sqrt(1 - 0.25), rel=0.01)
    assert orientation[0] == pytest.approx(angle, abs=0.01)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.5), (1.0, 2.0), (3.0, 1.0)])
@pytest.mark.parametrize("radius", [30.0, 60.0])
def test_the_outline_of_a_disk_is_two_pi_r_on_pixels_of_any_shape(radius, spacing):
    size = [2 * int(radius / side) + 5 for side in spacing]
    places = [(np.arange(count) - count // 2) * side for count, side in zip(size, spacing, strict=True)]
    disk = (np.hypot(*np.meshgrid(*places, indexing="ij")) <= radius).astype(np.int32)
    assert perimeters(crossings(group(disk)), spacing)[0] == pytest.approx(2 * np.pi * radius, rel=0.02)


@pytest.mark.parametrize(("tall", "wide"), [(50.0, 20.0), (20.0, 50.0)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0)])
def test_the_outline_of_an_ellipse_on_pixels_of_any_shape(tall, wide, spacing):
    rows, columns = (np.arange(-count, count + 1) * side for count, side in zip((60, 60), spacing, strict=True))
    inside = (rows[:, None] / tall) ** 2 + (columns / wide) ** 2 <= 1
    # Ramanujan's formula.
    ratio = ((tall - wide) / (tall + wide)) ** 2
    length = np.pi * (tall + wide) * (1 + 3 * ratio / (10 + np.sqrt(4 - 3 * ratio)))
    assert perimeters(crossings(group(inside.astype(np.int32))), spacing)[0] == pytest.approx(length, rel=0.07)


def test_small_cells_by_hand():
    cells = group(one_cell())
    # 4x4 pixels: variance (16 - 1) / 12 = 1.25 along each axis, so both axes are 4 * sqrt(1.25).
    major, minor, eccentricity, orientation = axes(second_moments(cells))
    assert major[0] == minor[0] == pytest.approx(4 * np.sqrt(1.25))
    assert eccentricity[0] == orientation[0] == 0
    assert solidities(cells)[0] == 1
    # Crossings: 4 lines x 2 sides in rows and in columns, 7 diagonals x 2 in each; the diagonals are 1/sqrt(2) apart.
    np.testing.assert_array_equal(crossings(cells), [[8, 8, 14, 14]])
    assert perimeters(crossings(cells), (1, 1))[0] == pytest.approx(np.pi / 8 * (16 + 28 / np.sqrt(2)))


def test_one_pixel_has_axes_0_and_solidity_1():
    labels = np.zeros((3, 3), np.int32)
    labels[0, 2] = 9
    cells = group(labels)
    assert np.concatenate(axes(second_moments(cells))).tolist() == [0, 0, 0, 0]
    assert solidities(cells).tolist() == [1]


def test_a_ring_is_less_solid_and_its_hole_has_an_outline():
    ring, hole = (nested() == 1).astype(np.int32), np.zeros((6, 8), np.int32)
    hole[1:5, 2:5] = 1
    # 30 pixels in the hull of 6 rows x 5 columns, less 12 in the hole.
    assert solidities(group(ring))[0] == pytest.approx(18 / 30)
    length, inner, outer = (perimeters(crossings(group(one)), (1, 1))[0] for one in (ring, hole, ring + hole))
    assert length == pytest.approx(inner + outer)


def test_ids_may_be_far_apart_and_cells_may_touch():
    cells = group(sparse_ids())
    assert cells.ids.tolist() == [7, 70_000]
    assert cells.area.tolist() == [12, 12]
    assert cells.labels.max() == 2
    np.testing.assert_allclose(*perimeters(crossings(cells), (1, 1)))


def test_no_cell():
    cells = group(empty())
    assert [len(values) for values in axes(second_moments(cells))] == [0, 0, 0, 0]
    assert len(solidities(cells)) == len(perimeters(crossings(cells), (1, 1))) == 0
