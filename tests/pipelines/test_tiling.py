import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.tiling import blend_weight, mirrored_index, mirrored_window, predict_tiled


def test_mirrored_index_reflects_without_repeating_the_border():
    # 0 1 2 3 seen from -3 to 6: 3 2 1 | 0 1 2 3 | 2 1 0
    assert mirrored_index(np.arange(-3, 7), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]


def test_mirrored_index_of_a_single_pixel():
    assert mirrored_index(np.arange(-2, 3), 1).tolist() == [0] * 5


@pytest.mark.parametrize("pad", [1, 3, 9])
def test_mirrored_window_equals_numpys_reflect(pad):
    image = np.random.default_rng(0).random((4, 4, 2))
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(mirrored_window(image, -pad, -pad, 4 + 2 * pad), padded)


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (16, 16), (17, 40), (63, 64), (100, 31)])
@pytest.mark.parametrize("overlap", [0, 5])
def test_an_identity_network_gives_the_image_back(size, overlap):
    image = np.random.default_rng(1).random((*size, 2)).astype(np.float32)
    answer = predict_tiled(image, lambda tiles: tiles, tile=16, overlap=overlap)
    np.testing.assert_allclose(answer, image, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 9), (40, 23)])
def test_an_identity_network_with_a_smaller_answer_gives_the_image_back(size):
    image = np.random.default_rng(2).random((*size, 1)).astype(np.float32)
    answer = predict_tiled(image, lambda tiles: tiles[:, 3:-3, 3:-3], tile=16, output=10, overlap=2)
    np.testing.assert_allclose(answer, image, atol=1e-6)


def test_a_valid_network_sees_the_mirrored_surroundings():
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1)

    def sum_of_neighbours(tiles):  # what a valid 3x3 convolution of ones computes
        return sum(tiles[:, r : r + 6, c : c + 6] for r in range(3) for c in range(3))

    padded = np.pad(image[..., 0], 1, mode="reflect")
    expected = [[padded[r : r + 3, c : c + 3].sum() for c in range(4)] for r in range(3)]
    answer = predict_tiled(image, sum_of_neighbours, tile=8, output=6)
    np.testing.assert_allclose(answer[..., 0], expected)


def test_every_call_gets_the_same_shape():
    shapes = set()

    def look(tiles):
        shapes.add(tiles.shape)
        return tiles

    predict_tiled(np.zeros((50, 41, 1), np.float32), look, tile=16, overlap=4, batch=4)
    predict_tiled(np.zeros((8, 8, 1), np.float32), look, tile=16, overlap=4, batch=4)
    assert shapes == {(4, 16, 16, 1)}


def test_ramps_of_two_tiles_add_up_to_one():
    ramp = blend_weight(10, 4)[5]
    np.testing.assert_allclose(ramp[-4:] + ramp[:4], 1, atol=1e-6)


def test_answers_that_disagree_are_blended_without_a_step():
    # The left tile says 0, the right one 1: across the overlap the answer must rise in small steps.
    answers = iter([0.0, 1.0])
    image = np.zeros((16, 28, 1), np.float32)
    answer = predict_tiled(image, lambda tiles: np.full_like(tiles, next(answers)), tile=16, overlap=4)[8, :, 0]
    assert answer[11] == 0 and answer[16] == 1
    assert np.diff(answer).max() < 0.21  # 5 steps of 1/5


def test_overlap_must_leave_something_of_a_tile():
    with pytest.raises(InputError, match="below the tile's answer of 16 px, got 16"):
        predict_tiled(np.zeros((20, 20, 1), np.float32), lambda tiles: tiles, tile=16, overlap=16)
