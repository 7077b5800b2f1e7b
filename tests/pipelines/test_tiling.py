import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.tiling import (
    Grid,
    blend_weight,
    mirrored_index,
    mirrored_window,
    predict_resized,
    predict_rows,
    predict_tiled,
    resized,
)


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


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def valid_network(tiles):
    """3x3 sums without padding, 2x2 maxima, 3x3 sums, doubled: stride 2, 12 + 2k px in, 4 + 2k out."""

    def sums(x):
        height, width = x.shape[1] - 2, x.shape[2] - 2
        return sum(x[:, r : r + height, c : c + width] for r in range(3) for c in range(3))

    x = sums(tiles)
    x = np.maximum(np.maximum(x[:, ::2, ::2], x[:, 1::2, ::2]), np.maximum(x[:, ::2, 1::2], x[:, 1::2, 1::2]))
    return sums(sums(x)).repeat(2, axis=1).repeat(2, axis=2)[:, 1:-1, 1:-1]


MARGIN = 6  # of `valid_network`, on each side


@pytest.mark.parametrize("blend", ["linear", "gaussian"])
@pytest.mark.parametrize("side", range(1, 60, 2))
def test_an_identity_network_gives_the_image_back_at_every_odd_size(side, blend):
    image = noise(side, 60 - side, 1)
    for tile, options in ((16, {"stride": 4, "overlap": 3}), (16, {"output": 10, "stride": 2}), (17, {"output": 11})):
        answer = predict_tiled(image, lambda tiles: tiles, tile=tile, blend=blend, **options)
        np.testing.assert_allclose(answer, image, atol=1e-6)


def whole(image):
    """One tile as large as the image."""
    pads = [(MARGIN, MARGIN + side % 2) for side in image.shape[:2]]
    padded = np.pad(image, [*pads, (0, 0)], mode="reflect")
    return valid_network(padded[None])[0, : image.shape[0], : image.shape[1]]


@pytest.mark.parametrize("size", [(30, 30), (31, 47), (64, 25), (77, 101)])
@pytest.mark.parametrize("overlap", [0, 3, 6])
def test_tiles_on_the_networks_grid_equal_the_whole(size, overlap):
    image = noise(*size, 1)
    answer = predict_tiled(image, valid_network, tile=24, output=12, overlap=overlap, stride=2)
    np.testing.assert_allclose(answer, whole(image), rtol=1e-6)


def test_tiles_off_the_networks_grid_do_not():
    image = noise(31, 47, 1)
    assert np.abs(predict_tiled(image, valid_network, tile=24, output=12) / whole(image) - 1).max() > 0.01


@pytest.mark.parametrize("offset", [(2, 0), (4, 6), (0, 10)])
def test_an_image_shifted_by_the_stride_has_its_answer_shifted(offset):
    image = noise(70, 61, 1)
    options = {"tile": 24, "output": 12, "stride": 2}
    answer = predict_tiled(image, valid_network, **options)
    shifted = predict_tiled(image[offset[0] :, offset[1] :], valid_network, **options)
    inside = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))  # beyond, the mirror image is another one
    np.testing.assert_allclose(shifted[inside], answer[offset[0] :, offset[1] :][inside], rtol=1e-6)


def test_no_tile_on_a_grid_reaches_a_stride_over_the_end():
    starts = []

    def look(tiles):
        starts.append(int(tiles[0, 0, 0, 0]))
        return tiles

    rows = np.arange(41, dtype=np.float32)[:, None, None].repeat(16, axis=1)
    predict_tiled(rows, look, tile=16, stride=4)
    assert starts == [0, 16, 28]  # 28 + 16 = 44: 3 rows over the end, and no gap


def test_a_halo_is_cut_off():
    def spoil_rim(tiles):
        spoilt = np.full_like(tiles, np.nan)
        spoilt[:, 4:-4, 4:-4] = tiles[:, 4:-4, 4:-4]
        return spoilt

    image = noise(33, 41, 2)
    np.testing.assert_allclose(predict_tiled(image, spoil_rim, tile=24, output=16, stride=4), image, atol=1e-6)


def test_an_overlap_that_the_stride_leaves_no_room_for_is_explained():
    image = np.zeros((40, 40, 1), np.float32)
    with pytest.raises(InputError, match="0 to 12, .*answer of 16 px less the network's stride of 4 px, got 13"):
        predict_tiled(image, lambda tiles: tiles, tile=16, overlap=13, stride=4)
    with pytest.raises(InputError, match="answer of 4 px is smaller than the network's stride of 16 px"):
        predict_tiled(image, lambda tiles: tiles, tile=188, output=4, stride=16)


def test_a_gaussian_weight_falls_from_the_middle_to_the_border():
    weight = blend_weight(17, 5, blend="gaussian")
    assert weight[8, 8] == 1 and (weight > 0).all() and (np.diff(weight[8, 8:]) < 0).all()
    # sigma = 17 / 8: at the border, 8 px from the middle, exp(-0.5 * (8 / 2.125)**2) = exp(-7.087)
    np.testing.assert_allclose(weight[8, 0], np.exp(-7.0865), rtol=1e-3)


def test_resizing_keeps_a_mean_and_a_ramp():
    image = np.array([[0, 2, 4, 6], [2, 4, 6, 8]], np.float32)[..., None]
    # shrunk: means of 2x2; grown: halfway and quarter points between pixel centres, ends repeated
    assert resized(image, (1, 2))[..., 0].tolist() == [[2, 6]]
    assert resized(image, (2, 8))[0, :, 0].tolist() == [0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6]
    assert resized(image, (1, 8))[0, :, 0].tolist() == [1, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7]
    np.testing.assert_array_equal(resized(image, (2, 4)), image)
    assert resized(np.ones((3, 5, 7), np.float32), (9, 2)).shape == (9, 2, 7)


def test_the_resize_shortcut_sees_the_whole_image_in_one_tile():
    seen = []

    def look(tiles):
        seen.append(tiles)
        return tiles[:, 3:-3, 3:-3]

    image = np.full((40, 26, 2), 0.25, np.float32)
    image[:20] = 0.75
    answer = predict_resized(image, look, tile=16, output=10)
    (tile,) = seen
    assert tile.shape == (1, 16, 16, 2)
    np.testing.assert_allclose(tile[0, 3:-3, 3:-3], resized(image, (10, 10)))
    assert answer.shape == image.shape
    np.testing.assert_allclose(answer[[0, 5, 34, 39]], image[[0, 5, 34, 39]], atol=1e-6)  # away from the step


def edge_network(tiles):
    """Sees where in its tile a pixel lies: tiles that overlap disagree."""
    where = np.add.outer(np.arange(tiles.shape[1]), 3 * np.arange(tiles.shape[2])).astype(np.float32)
    return tiles * where[..., None] + np.roll(tiles, 1, axis=1)


GRIDS = [Grid(16, 16, 5), Grid(16, 10, 3, 2), Grid(17, 11, 0), Grid(16, 16, 9, 4, "gaussian")]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("part", [((0, 41), (0, 53)), ((7, 30), (11, 12)), ((40, 41), (0, 53)), ((0, 1), (20, 53))])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_part_is_the_same_to_the_last_bit(grid, part, batch):
    image = noise(41, 53, 2)
    options = {"overlap": grid.overlap, "stride": grid.stride, "blend": grid.blend}
    whole = predict_tiled(image, edge_network, tile=grid.tile, output=grid.output, **options)
    (first, end), (left, right) = part

    def window(row, column):
        return mirrored_window(image, row, column, grid.tile)

    next_row = first
    found = predict_rows(window, (41, 53), edge_network, grid=grid, rows=part[0], columns=part[1], batch=batch)
    for row, rows in found:
        assert row == next_row
        np.testing.assert_array_equal(rows, whole[row : row + len(rows), left:right])
        next_row += len(rows)
    assert next_row == end


def test_a_part_asks_for_the_tiles_that_reach_into_it_alone():
    seen = []

    def window(row, column):
        seen.append((row, column))
        return np.zeros((16, 16, 1), np.float32)

    list(predict_rows(window, (48, 64), lambda tiles: tiles, grid=Grid(16, 16), rows=(16, 32), columns=(15, 33)))
    assert seen == [(16, 0), (16, 16), (16, 32)]


def test_rows_come_as_soon_as_they_are_done():
    rows = predict_rows(
        lambda row, column: np.zeros((16, 16, 1), np.float32), (60, 30), lambda tiles: tiles, grid=Grid(16, 16, 4)
    )
    assert [(row, len(answer)) for row, answer in rows] == [(0, 11), (11, 11), (22, 11), (33, 11), (44, 16)]
