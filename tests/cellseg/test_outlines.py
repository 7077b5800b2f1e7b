import numpy as np
import pytest
from skimage.measure import points_in_poly

from cellseg.outlines import polygons
from pipelines.outline_files import filled

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])


def scene(seed, *, shape=(23, 19), num=4):
    """Random pixels of `num` cells: holes, touching cells, single pixels, pieces, pinched corners, the image's rim."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num + 1, shape)
    return np.where(rng.random(shape) < 0.5, coarse, np.roll(coarse, 1, axis=0)).astype(np.int32)


def area(ring):
    """Shoelace formula in (x, y) = (column, row)."""
    y, x = ring.astype(float).T
    return 0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()


def painted(cells, shape):
    """Labels by asking for every pixel's centre whether it lies inside."""
    rows, columns = np.indices(shape)
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1) + 0.5
    labels = np.zeros(shape, np.int32)
    for cell, parts in cells.items():
        for rings in parts:
            inside = np.logical_xor.reduce([points_in_poly(centres, ring) for ring in rings])
            labels[inside.reshape(shape)] = cell
    return labels


def test_one_pixel_is_a_square_from_corner_to_corner():
    labels = np.zeros((4, 5), np.int32)
    labels[2, 3] = 7
    (((ring,),),) = polygons(labels).values()
    assert ring.dtype == np.int32
    assert ring.tolist() == [[2, 3], [2, 4], [3, 4], [3, 3]]


def test_a_hole_is_a_ring_of_the_other_sense_and_straight_sides_have_no_corners():
    ((outer, hole),) = polygons(RING)[1]
    assert outer.tolist() == [[0, 0], [0, 3], [3, 3], [3, 0]] and len(hole) == 4
    assert (area(outer), area(hole)) == (9, -1)


def test_touching_cells_share_their_border_and_pieces_stay_apart():
    labels = np.array([[1, 1, 2], [0, 0, 2], [1, 0, 0]])
    found = polygons(labels)
    assert list(found) == [1, 2]
    assert [area(rings[0]) for rings in found[1]] == [2, 1]
    assert [area(rings[0]) for rings in found[2]] == [2]


def test_pixels_that_meet_at_a_corner_are_two_polygons():
    assert [len(rings) for rings in polygons(np.eye(2, dtype=np.int32))[1]] == [1, 1]


def test_a_cell_in_the_hole_of_another_is_no_hole_of_it():
    labels = np.pad(np.where(RING, 1, 2), 1)
    found = polygons(labels)
    assert [len(found[cell][0]) for cell in (1, 2)] == [2, 1]


@pytest.mark.parametrize(
    "labels",
    [
        [[1, 1, 1], [1, 0, 1], [1, 1, 0]],  # a pocket that the corner closes
        [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]],  # two holes that meet at a corner
        [[0, 1, 1], [1, 0, 1], [1, 1, 1]],
        [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 0, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]],
    ],
)
def test_where_pixels_meet_at_a_corner_no_ring_meets_itself(labels):
    labels = np.array(labels)
    ((*rings,),) = polygons(labels)[1]
    for ring in rings:
        assert len(np.unique(ring, axis=0)) == len(ring)
    assert [area(ring) > 0 for ring in rings] == [True] + [False] * (len(rings) - 1)
    assert sum(area(ring) for ring in rings) == labels.sum()


@pytest.mark.parametrize("seed", range(12))
def test_filling_the_polygons_gives_the_labels_back(seed):
    labels = scene(seed, num=1 + seed % 4)
    found = polygons(labels)
    np.testing.assert_array_equal(painted(found, labels.shape), labels)
    np.testing.assert_array_equal(filled(found, labels.shape), labels)


@pytest.mark.parametrize("seed", range(12))
def test_polygons_are_valid_and_their_areas_are_those_of_the_pixels(seed):
    labels = scene(seed, num=1 + seed % 3)
    for cell, parts in polygons(labels).items():
        rings = [ring for polygon in parts for ring in polygon]
        assert all(len(np.unique(ring, axis=0)) == len(ring) for ring in rings), "a ring meets itself"
        # Corners only: every corner turns by a right angle.
        for ring in rings:
            steps = np.sign(np.roll(ring, -1, axis=0) - ring)
            assert not (steps * np.roll(steps, 1, axis=0)).any()
        assert all(area(outer) > 0 and all(area(hole) < 0 for hole in holes) for outer, *holes in parts)
        assert sum(map(area, rings)) == (labels == cell).sum()


def test_no_cells_no_polygons():
    assert polygons(np.zeros((3, 4), np.int32)) == {}
    assert not filled({}, (3, 4)).any()


def test_ids_are_kept():
    labels = np.array([[2**31 - 1, 0], [0, 5]])
    assert list(polygons(labels)) == [5, 2**31 - 1]
    np.testing.assert_array_equal(filled(polygons(labels), (2, 2)), labels)


def test_polygons_drawn_by_hand_are_filled_by_the_centres_of_pixels():
    triangle = np.array([[0.2, 0.1], [9.7, 3.3], [4.4, 11.9]])
    cells = {3: [[triangle]]}
    np.testing.assert_array_equal(filled(cells, (12, 14)), painted(cells, (12, 14)))
    closed = {3: [[np.vstack([triangle, triangle[:1]])]]}
    np.testing.assert_array_equal(filled(closed, (12, 14)), filled(cells, (12, 14)))


def test_what_lies_outside_is_cut_off():
    square = np.array([[-2, -3], [-2, 2], [2, 2], [2, -3]])
    assert filled({1: [[square]]}, (4, 5)).tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0] * 5, [0] * 5]
    wide = np.array([[1, 2], [1, 99], [99, 99], [99, 2]])
    assert filled({1: [[wide]]}, (3, 4)).tolist() == [[0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]]
    assert not filled({1: [[wide + 200]]}, (3, 4)).any() and not filled({1: [[-wide]]}, (3, 4)).any()


def test_what_is_no_labelling_is_refused():
    with pytest.raises(ValueError, match=r"integers \(H, W\), got float64 \(2, 2\)"):
        polygons(np.zeros((2, 2)))
