import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops_table

from cellseg.shapes import measure_shapes, number_cells, perimeters
from tests.cells import empty, nested, one_cell, sparse_ids


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


def test_orientation_counts_from_the_row_axis_counter_clockwise():
    labels = np.zeros((5, 20), np.int32)
    labels[0:5, 0] = 1  # upright
    labels[2, 2:7] = 2  # lying: pi/2 and -pi/2 are the same line
    labels[range(5), range(8, 13)] = 3  # down and to the right
    labels[range(5), range(19, 14, -1)] = 4  # down and to the left
    orientation = measure_shapes(labels)["orientation"]
    orientation[1] = abs(orientation[1])
    np.testing.assert_allclose(orientation, [0, np.pi / 2, np.pi / 4, -np.pi / 4])


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 4, 1.2, -0.7])
def test_an_ellipse_has_its_own_axes(angle):
    found = measure_shapes(ellipse((101, 101), (50, 50), (40.0, 20.0), angle))
    assert found["major_axis"][0] == pytest.approx(80, rel=0.01)
    assert found["minor_axis"][0] == pytest.approx(40, rel=0.01)
    assert found["eccentricity"][0] == pytest.approx(np.sqrt(1 - 0.25), rel=0.01)
    assert found["orientation"][0] == pytest.approx(angle, abs=0.01)
    # The area of an ellipse is that of the disk whose diameter is the mean of both axes, geometrically.
    assert found["equivalent_diameter"][0] == pytest.approx(np.sqrt(80 * 40), rel=0.01)


@pytest.mark.parametrize("spacing", [(3.0, 1.0), (0.5, 2.0)])
def test_an_ellipse_seen_on_pixels_that_are_not_square(spacing):
    labels = ellipse((121, 121), (60, 60), (48.0, 24.0), 0.0)
    found = measure_shapes(labels, spacing)
    high, wide = 96 * spacing[0], 48 * spacing[1]
    assert found["major_axis_um"][0] == pytest.approx(max(high, wide), rel=0.01)
    assert found["minor_axis_um"][0] == pytest.approx(min(high, wide), rel=0.01)
    assert found["area_um2"][0] == pytest.approx(np.pi / 4 * high * wide, rel=0.01)
    assert abs(np.cos(found["orientation"][0])) == pytest.approx(float(high > wide), abs=1e-6)
    assert found["eccentricity"][0] == pytest.approx(np.sqrt(1 - (min(high, wide) / max(high, wide)) ** 2), rel=0.01)


@pytest.mark.parametrize("touching", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_on_square_pixels_the_perimeter_is_regionprops_own(seed, touching):
    ids, labels = number_cells(blobs(seed, touching=touching))
    assert len(ids) > 5
    theirs = regionprops_table(labels, properties=["perimeter_crofton"])["perimeter_crofton"]
    np.testing.assert_allclose(perimeters(labels, (1, 1)), theirs, atol=1e-9)
    np.testing.assert_allclose(perimeters(labels, (0.3, 0.3)), 0.3 * theirs, atol=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.5), (1.0, 2.0), (3.0, 1.0)])
@pytest.mark.parametrize("radius", [30.0, 60.0])
def test_the_outline_of_a_disk_is_two_pi_r_on_pixels_of_any_shape(radius, spacing):
    size = [2 * int(radius / side) + 5 for side in spacing]
    places = [(np.arange(count) - count // 2) * side for count, side in zip(size, spacing, strict=True)]
    disk = (np.hypot(*np.meshgrid(*places, indexing="ij")) <= radius).astype(np.int32)
    assert perimeters(disk, spacing)[0] == pytest.approx(2 * np.pi * radius, rel=0.02)
    assert measure_shapes(disk, spacing)["perimeter_um"][0] == pytest.approx(2 * np.pi * radius, rel=0.02)


@pytest.mark.parametrize(("tall", "wide"), [(50.0, 20.0), (20.0, 50.0)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0)])
def test_the_outline_of_an_ellipse_on_pixels_of_any_shape(tall, wide, spacing):
    rows, columns = (np.arange(-count, count + 1) * side for count, side in zip((60, 60), spacing, strict=True))
    inside = (rows[:, None] / tall) ** 2 + (columns / wide) ** 2 <= 1
    # Ramanujan's formula.
    ratio = ((tall - wide) / (tall + wide)) ** 2
    length = np.pi * (tall + wide) * (1 + 3 * ratio / (10 + np.sqrt(4 - 3 * ratio)))
    assert perimeters(inside.astype(np.int32), spacing)[0] == pytest.approx(length, rel=0.07)


def test_small_cells_by_hand():
    found = measure_shapes(one_cell())
    # 4x4 pixels: variance (16 - 1) / 12 = 1.25 along each axis, so both axes are 4 * sqrt(1.25).
    assert found["major_axis"][0] == found["minor_axis"][0] == pytest.approx(4 * np.sqrt(1.25))
    assert found["eccentricity"][0] == 0 and np.isnan(found["orientation"][0])
    assert found["solidity"][0] == 1
    # Crossings: 4 lines x 2 sides in rows and in columns, 7 diagonals x 2 in each; the diagonals are 1/sqrt(2) apart.
    length = np.pi / 8 * (16 + 28 / np.sqrt(2))
    assert [perimeters(one_cell(), (1, 1))[0], found["perimeter"][0]] == pytest.approx([length, length])


def test_one_pixel_has_axes_0_solidity_1_and_no_direction():
    labels = np.zeros((3, 3), np.int32)
    labels[0, 2] = 1
    found = measure_shapes(labels)
    assert [found[name][0] for name in ("major_axis", "minor_axis", "eccentricity", "solidity")] == [0, 0, 0, 1]
    assert np.isnan(found["orientation"][0])


def test_a_ring_is_less_solid_and_its_hole_has_an_outline():
    ring, hole = (nested() == 1).astype(np.int32), np.zeros((6, 8), np.int32)
    hole[1:5, 2:5] = 1
    # 30 pixels in the hull of 6 rows x 5 columns, less 12 in the hole.
    assert measure_shapes(ring)["solidity"][0] == pytest.approx(18 / 30)
    length, inner, outer = (perimeters(one, (1, 1))[0] for one in (ring, hole, ring + hole))
    assert length == pytest.approx(inner + outer)


def test_ids_may_be_far_apart_and_cells_may_touch():
    ids, labels = number_cells(sparse_ids())
    assert ids.tolist() == [7, 70_000]
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert measure_shapes(labels)["area"].tolist() == [12, 12]
    np.testing.assert_allclose(*perimeters(labels, (1, 1)))


def test_more_cells_than_16_bits_can_number():
    labels = np.arange(300 * 300, dtype=np.int32).reshape(300, 300)
    ids, numbered = number_cells(3 * labels)
    np.testing.assert_array_equal(ids, 3 * np.arange(1, 90_000))
    np.testing.assert_array_equal(numbered, labels)


def test_no_cell():
    ids, labels = number_cells(empty())
    assert len(ids) == len(perimeters(labels, (1, 1))) == 0
    assert {len(values) for values in measure_shapes(labels, (1, 2)).values()} == {0}
