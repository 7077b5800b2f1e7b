import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.targets import (
    TARGETS,
    classes,
    distance,
    foreground,
    foreground_border,
    foreground_distance,
    num_outputs,
)
from tests import oracles
from tests.cells import empty, nested, one_cell, sparse_ids, two_touching


def random_cells(seed, shape=(23, 31)):
    """Cells that touch each other and the edge, each the points nearest to one of seven seeds, and some background."""
    rng = np.random.default_rng(seed)
    seeds = rng.random((7, 2)) * shape
    places = np.stack(np.indices(shape), axis=-1)[:, :, None]
    labels = 1 + np.argmin(((places - seeds) ** 2).sum(-1), axis=-1)
    return np.where(labels < 3, 0, labels * 20_000).astype(np.int32)


def no_background():
    """Two cells with large ids that fill the array."""
    return np.repeat([[80_000, 80_000, 80_000, 90_000, 90_000]], 4, axis=0).astype(np.int32)


SCENES = [
    no_background(),
    empty(),
    one_cell(),
    two_touching(),
    sparse_ids(),
    nested(),
    *(random_cells(seed) for seed in range(4)),
]


def test_foreground_is_one_inside_cells():
    target = foreground(sparse_ids())
    assert target.dtype == np.float32 and target.shape == (6, 8, 1) and target.sum() == 24


def test_distance_by_hand():
    # Cell 1 is 1, 2, 1 pixels away from what is not cell 1; cell 2 is one pixel away from it on both sides.
    row = np.array([[0, 1, 1, 1, 2, 2, 0]], np.int32)
    np.testing.assert_array_equal(distance(row)[0, :, 0], np.float32([0, 0.5, 1, 0.5, 1, 1, 0]))


def test_distance_takes_cells_to_go_on_at_the_edge_of_the_array():
    row = np.array([[5, 5, 5, 0]], np.int32)  # 3, 2, 1 pixels away from the background
    np.testing.assert_allclose(distance(row)[0, :, 0], [1, 2 / 3, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_array_equal(distance(np.full((4, 5), 7, np.int32)), np.ones((4, 5, 1)))


@pytest.mark.parametrize("labels", SCENES)
def test_distance_equals_the_slow_reference(labels):
    expected = oracles.depth(labels)
    for pixels in oracles.objects(labels).values():
        inside = tuple(np.transpose(list(pixels)))
        expected[inside] /= expected[inside].max()
    found = distance(labels)
    assert found.dtype == np.float32 and found.shape == (*labels.shape, 1)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("labels", SCENES)
def test_border_equals_the_slow_reference(labels, width):
    depth = oracles.depth(labels)
    interior = depth > width
    for pixels in oracles.objects(labels).values():
        inside = tuple(np.transpose(list(pixels)))
        interior[inside] |= depth[inside] == depth[inside].max()
    target = foreground_border(labels, width=width)
    assert target.dtype == np.float32 and target.shape == (*labels.shape, 3)
    np.testing.assert_array_equal(target[..., 0], labels == 0)
    np.testing.assert_array_equal(target[..., 1], interior)
    np.testing.assert_array_equal(target.sum(-1), 1)


def test_touching_cells_are_separated_and_none_is_lost():
    # 4x3 pixels each: the innermost two are two pixels away from the outside, so a border of 1 leaves them, and so
    # does a border of 2, which would take all.
    for width in (1, 2):
        interior = foreground_border(two_touching(), width=width)[..., 1]
        np.testing.assert_array_equal(np.argwhere(interior), [[2, 2], [2, 5], [3, 2], [3, 5]])


def test_the_edge_of_the_array_is_no_border():
    labels = np.full((5, 5), 3, np.int32)
    assert foreground_border(labels)[..., 1].all()


def test_border_below_one_pixel_is_refused():
    with pytest.raises(InputError, match="target.width must be at least 1 pixel, got 0"):
        foreground_border(one_cell(), width=0)


def test_classes_are_one_hot_and_background_comes_from_the_labels():
    labels = np.array([[0, 4, 4, 9]], np.int32)
    kinds = np.array([[2, 1, 1, 3]], np.int32)  # the class on background does not count
    target = classes(labels, kinds, num_classes=3)
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target[0], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def test_a_cell_of_unknown_class_is_in_no_channel():
    target = classes(np.array([[0, 4]], np.int32), np.array([[0, 0]], np.int32), num_classes=2)
    np.testing.assert_array_equal(target[0], [[1, 0, 0], [0, 0, 0]])


def test_a_class_beyond_the_last_is_refused():
    with pytest.raises(InputError, match=r"Cells are of class \[4, 7\], but the classes are 1 to 3"):
        classes(np.array([[1, 1, 1]], np.int32), np.array([[4, 7, 2]], np.int32), num_classes=3)


def test_no_classes_are_refused():
    with pytest.raises(InputError, match="target 'classes' needs the class of each cell"):
        classes(one_cell(), None, num_classes=3)


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("foreground", {}, 1),
        ("foreground", {"softmax": True}, 2),
        ("foreground_border", {"width": 3}, 3),
        ("distance", {}, 1),
        ("foreground_distance", {}, 2),
        ("classes", {"num_classes": 4}, 5),
    ],
)
def test_the_number_of_channels(name, options, channels):
    labels = two_touching()
    assert num_outputs(name, **options) == channels
    assert TARGETS[name](labels, labels, **options).shape == (6, 8, channels)


def test_foreground_for_a_softmax_is_one_hot():
    labels = np.array([[0, 7]], np.int32)
    np.testing.assert_array_equal(foreground(labels, softmax=True), [[[1, 0], [0, 1]]])


@pytest.mark.parametrize("name", TARGETS)
def test_the_number_of_a_cell_does_not_matter(name):
    options = {"num_classes": 2} if name == "classes" else {}
    kinds = two_touching()
    np.testing.assert_array_equal(
        TARGETS[name](two_touching(), kinds, **options), TARGETS[name](sparse_ids(), kinds, **options)
    )


def test_foreground_and_distance_side_by_side():
    target = foreground_distance(two_touching())
    np.testing.assert_array_equal(target[..., :1], foreground(two_touching()))
    np.testing.assert_array_equal(target[..., 1:], distance(two_touching()))
