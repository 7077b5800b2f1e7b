import numpy as np
import pytest

from cellseg.answers import cell_classes, classes, foreground, inner


def softmax(seed, shape=(9, 11), channels=4):
    values = np.exp(np.random.default_rng(seed).normal(size=(*shape, channels)))
    return (values / values.sum(axis=2, keepdims=True)).astype(np.float32)


def test_one_channel_is_the_foreground_itself():
    probability = np.array([[[0.25], [1.0]]], np.float32)
    np.testing.assert_array_equal(foreground(probability), [[0.25, 1.0]])


def test_foreground_is_what_is_not_background():
    np.testing.assert_allclose(foreground(np.array([[[0.7, 0.1, 0.2]]], np.float32)), [[0.3]], atol=1e-7)


def test_two_channels_are_the_same_for_both_decisions():
    probability = softmax(0, channels=2)
    np.testing.assert_allclose(foreground(probability), foreground(probability, decision="argmax"), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_argmax_is_a_threshold_of_a_half(seed):
    probability = softmax(seed)
    drawn = foreground(probability, decision="argmax") >= 0.5
    np.testing.assert_array_equal(drawn, probability.argmax(axis=2) > 0)
    # 0.4 background, 0.3 and 0.3: not background by the sum, but background is the most probable class
    split = np.array([[[0.4, 0.3, 0.3]]], np.float32)
    assert foreground(split)[0, 0] > 0.5 > foreground(split, decision="argmax")[0, 0]


@pytest.mark.parametrize(
    ("target", "drawn", "middle"),
    [
        ("foreground_distance", 0.2, 0.7),
        ("foreground_border", 0.8, 0.7),
        ("classes", 0.8, None),
        ("foreground", 0.8, None),
    ],
)
def test_what_the_channels_say_goes_by_the_target(target, drawn, middle):
    probability = np.array([[[0.2, 0.7, 0.1]]], np.float32)[..., : 2 if target == "foreground_distance" else 3]
    assert foreground(probability, target=target)[0, 0] == pytest.approx(drawn)
    found = inner(probability, target=target)
    assert (found is None) if middle is None else found[0, 0] == pytest.approx(middle)


def test_a_distance_is_both():
    probability = np.array([[[0.25]]], np.float32)
    assert foreground(probability, target="distance") == inner(probability, target="distance") == 0.25


def test_argmax_of_nothing_at_all_is_background():
    assert foreground(np.zeros((1, 1, 3), np.float32), decision="argmax")[0, 0] == 0


def test_the_class_of_a_pixel_is_the_most_probable_one_but_background():
    np.testing.assert_array_equal(classes(np.array([[[0.9, 0.02, 0.08], [0.1, 0.6, 0.3]]], np.float32)), [[2, 1]])


def test_the_class_of_a_cell_is_that_of_most_of_its_pixels():
    labels = np.array([[5, 5, 5, 0, 9], [0, 0, 0, 0, 9]])
    kinds = np.array([[2, 1, 2, 3, 1], [1, 1, 1, 1, 3]])
    # cell 5: 2, 1, 2 -> 2; cell 9: 1, 3 -> the lower one of a tie
    np.testing.assert_array_equal(cell_classes(labels, kinds), [[2, 2, 2, 0, 1], [0, 0, 0, 0, 1]])


def test_pixels_without_a_class_have_no_vote():
    labels = np.array([[1, 1, 1, 2]])
    kinds = np.array([[0, 0, 3, 0]])
    np.testing.assert_array_equal(cell_classes(labels, kinds), [[3, 3, 3, 0]])


def test_without_cells_there_are_no_classes():
    answer = cell_classes(np.zeros((3, 4), np.int32), np.ones((3, 4), np.int32))
    assert answer.dtype == np.int32 and not answer.any() and answer.shape == (3, 4)


def test_permuting_the_ids_changes_nothing():
    rng = np.random.default_rng(1)
    labels, kinds = rng.integers(0, 6, (20, 20)), rng.integers(0, 4, (20, 20))
    order = np.concatenate([[0], 1 + rng.permutation(5)]) * 1000
    np.testing.assert_array_equal(cell_classes(labels, kinds), cell_classes(order[labels], kinds))
