import numpy as np
import pytest

from cellseg.averaging import averaged, mean, symmetric, symmetric_back


def noise(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_the_eight_symmetries_are_all_turns_and_reflections():
    square = np.arange(9).reshape(3, 3, 1)
    expected = {np.rot90(one, turns).tobytes() for one in (square, square[:, ::-1]) for turns in range(4)}
    assert {symmetric(square, number).tobytes() for number in range(8)} == expected and len(expected) == 8


@pytest.mark.parametrize("number", range(8))
def test_a_symmetry_is_undone(number):
    image = noise(4, 7, 2)
    np.testing.assert_array_equal(symmetric_back(symmetric(image, number), number), image)


@pytest.mark.parametrize("symmetries", [1, 4, 8])
def test_a_network_that_looks_at_single_pixels_needs_no_average(symmetries):
    image = noise(13, 8, 1)
    np.testing.assert_allclose(averaged(image, lambda view: 1 - view, symmetries=symmetries), 1 - image, atol=1e-6)


def lean(view):
    """A network that leans down: each pixel answers with the one above, the first row with 0."""
    return np.concatenate([np.zeros_like(view[:1]), view[:-1]])


def spot():
    image = np.zeros((5, 5, 1), np.float32)
    image[2, 2] = 1
    return image


def test_an_average_over_symmetries_leans_nowhere():
    assert averaged(spot(), lean)[..., 0].nonzero() == ([3], [2])
    half, quarter = np.zeros((5, 5)), np.zeros((5, 5))
    half[1, 2] = half[3, 2] = 0.5
    quarter[[1, 3, 2, 2], [2, 2, 1, 3]] = 0.25
    np.testing.assert_allclose(averaged(spot(), lean, symmetries=4)[..., 0], half)
    np.testing.assert_allclose(averaged(spot(), lean, symmetries=8)[..., 0], quarter)


def test_an_averaged_answer_turns_with_its_image():
    image = noise(6, 9, 1)
    answer = averaged(image, lean, symmetries=8)
    for number in range(8):
        turned = averaged(np.ascontiguousarray(symmetric(image, number)), lean, symmetries=8)
        np.testing.assert_allclose(turned, symmetric(answer, number), atol=1e-6)


def test_zoomed_views_come_back_in_the_images_size():
    sizes = []

    def look(view):
        sizes.append(view.shape[:2])
        return np.full((*view.shape[:2], 3), len(sizes), np.float32)

    answer = averaged(noise(10, 7, 1), look, zoom=[1.0, 1.5, 0.5])
    assert sizes == [(10, 7), (15, 10), (5, 4)]  # 10.5 and 3.5 go to the even one
    np.testing.assert_allclose(answer, np.full((10, 7, 3), 2.0))  # the mean of 1, 2 and 3


def test_zooming_does_not_shift():
    ramp = np.linspace(0, 1, 20, dtype=np.float32)[:, None, None].repeat(20, axis=1)
    for zoom in (0.5, 1.5, 2.0):
        error = (averaged(ramp, lambda view: view, zoom=[zoom]) - ramp)[3:-3] * 19  # in pixels: 1/19 a pixel
        # a mean over 1.5 pixels takes each as a step, which moves two of three by 1/18 px, one up and one down
        assert np.abs(error).max() < (0.06 if zoom == 1.5 else 1e-4) and abs(error[:12].mean()) < 1e-2


def test_a_tiny_image_keeps_a_pixel():
    np.testing.assert_allclose(averaged(np.full((1, 1, 1), 0.3, np.float32), lambda view: view, zoom=[0.1]), 0.3)


def test_a_mean_of_one_is_that_one_and_of_none_an_error():
    one = noise(3, 3, 1)
    assert mean([one]) is one
    np.testing.assert_allclose(mean([one, 3 * one]), 2 * one)
    with pytest.raises(ValueError, match="mean of no probabilities"):
        mean([])
