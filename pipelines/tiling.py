"""Tiling: cut an image of any size into tiles of one size, mirror at the border, stitch the answers; resize.

What happens to a tile (a network, usually) is the caller's function; patches for training are cut in
`pipelines.dataset`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from pipelines.errors import InputError

Blend = Literal["linear", "gaussian"]
SIGMA = 1 / 8  # of a tile's answer; as nnU-Net, https://doi.org/10.1038/s41592-020-01008-z


@dataclass(frozen=True)
class Grid:
    """Where tiles lie and how their answers meet.

    Tiles are spread evenly, so the last one is no mostly empty rest. Where a tile reaches over the image's border the
    image is mirrored (Ronneberger 2015, fig. 2), also where the image is smaller than a tile.

    A network that halves its features answers a pixel by where it lies on the network's grid. With `stride`, every
    tile lies on the grid of a tile at the image's first pixel: where a pixel's answer rests on the tile's inside alone,
    overlapping tiles agree, and the answer is that of one tile as large as the image.

    Args:
        tile: Side of an input tile, in pixels.
        output: Side of a tile's answer that is kept; smaller than `tile` for a `valid` network.
        overlap: Least overlap of neighbouring answers, in pixels; 0 = they only touch.
        stride: Tiles start at multiples of this; the last one then reaches up to stride - 1 px over the image's end.
        blend: How answers are weighted where they overlap; see `blend_weight`.

    Raises:
        InputError: overlap is not in [0, output - stride].
    """

    tile: int
    output: int
    overlap: int = 0
    stride: int = 1
    blend: Blend = "linear"

    def __post_init__(self) -> None:
        _check_overlap(self.overlap, self.output, self.stride)

    def starts(self, length: int) -> list[int]:
        """Where answers begin along an axis of `length` pixels."""
        return _starts(length, self.output, self.overlap, self.stride)

    def reaching(self, length: int, span: tuple[int, int]) -> list[int]:
        """Those of `starts` whose answers reach into the pixels span[0] to span[1] - 1."""
        return [start for start in self.starts(length) if start < span[1] and start + self.output > span[0]]


def predict_tiled(
    image: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    tile: int,
    output: int | None = None,
    overlap: int = 0,
    stride: int = 1,
    blend: Blend = "linear",
    batch: int = 1,
) -> np.ndarray:
    """Apply `predict` to overlapping tiles and stitch the answers, averaged where they overlap; see `Grid`.

    Args:
        image: (H, W, C), any size.
        predict: (batch, tile, tile, C) -> (batch, side, side, K), side >= output; a rim beyond `output`, the halo,
            is cut off. Every call gets the same shape.
        tile, output, overlap, stride, blend: As in `Grid`; output None = tile.
        batch: Tiles a call.

    Returns:
        float32 (H, W, K).

    Raises:
        InputError: overlap is not in [0, output - stride].
    """
    grid = Grid(tile, tile if output is None else output, overlap, stride, blend)

    def window(row: int, column: int) -> np.ndarray:
        return mirrored_window(image, row, column, tile)

    answer = np.empty((*image.shape[:2], 0), np.float32)
    for row, rows in predict_rows(window, image.shape[:2], predict, grid=grid, batch=batch):
        if answer.shape[2] != rows.shape[2]:
            answer = np.empty((*image.shape[:2], rows.shape[2]), np.float32)
        answer[row : row + len(rows)] = rows
    return answer


def predict_rows(
    window: Callable[[int, int], np.ndarray],
    shape: tuple[int, int],
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    grid: Grid,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    batch: int = 1,
) -> Iterator[tuple[int, np.ndarray]]:
    """The answer of `predict_tiled`, a few rows at a time, as soon as no later tile reaches into them.

    Every pixel is the same to the last bit, whichever rows and columns it is asked for with: a part is computed from
    all tiles that reach into it, and they are added up in the same order.

    Args:
        window: (row, column) -> the tile that begins there, (tile, tile, C); it may reach over the image's border.
        shape: (H, W) of the image.
        predict, batch: As in `predict_tiled`.
        grid: Where tiles lie.
        rows, columns: The part that is wanted, (first, last + 1); None = all.

    Yields:
        (row, answer): the first row, and float32 (h, w, K) of all wanted columns. Rows follow one another.
    """
    first, end = rows or (0, shape[0])
    left, right = columns or (0, shape[1])
    margin, line = (grid.tile - grid.output) // 2, _blend_line(grid.output, grid.overlap, grid.blend)
    weight = np.outer(line, line)[..., None]
    across = _weights(grid.reaching(shape[1], (left, right)), line, left, right)
    down = _weights(grid.reaching(shape[0], (first, end)), line, first, end)
    lefts = grid.reaching(shape[1], (left, right))
    corners = [(row, column) for row in grid.reaching(shape[0], (first, end)) for column in lefts]
    sums = np.zeros((0, right - left, 0), np.float32)  # of the rows from `first` on
    for some in _batches(corners, batch):
        if some[0][0] > first:
            done = some[0][0] - first
            yield first, _mean(sums[:done], down[:done], across)
            sums, down, first = sums[done:].copy(), down[done:], some[0][0]
        tiles = np.stack([window(row - margin, column - margin) for row, column in some])
        short = batch - len(some)
        if short:  # one shape for every call: a second shape would compile the network again
            tiles = np.concatenate([tiles, np.zeros((short, *tiles.shape[1:]), tiles.dtype)])
        answers = np.asarray(predict(tiles))[: len(some)]
        halo = (answers.shape[1] - grid.output) // 2
        answers = answers[:, halo : halo + grid.output, halo : halo + grid.output]
        if sums.shape[2] != answers.shape[3]:
            sums = np.zeros((0, right - left, answers.shape[3]), np.float32)
        lowest = min(some[-1][0] + grid.output, end) - first
        if lowest > len(sums):
            sums = np.concatenate([sums, np.zeros((lowest - len(sums), *sums.shape[1:]), np.float32)])
        for (row, column), answer in zip(some, answers, strict=True):
            top, bottom = max(row, first), min(row + grid.output, end)
            start, stop = max(column, left), min(column + grid.output, right)
            part = slice(top - row, bottom - row), slice(start - column, stop - column)
            sums[top - first : bottom - first, start - left : stop - left] += weight[part] * answer[part]
    yield first, _mean(sums, down, across)


def predict_resized(
    image: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], *, tile: int, output: int | None = None
) -> np.ndarray:
    """Apply `predict` to the whole image as one tile: a shortcut that costs detail, to compare `predict_tiled` with.

    The image is resized to the side of a tile's answer, mirrored to the tile's, and the answer resized back. Sides
    that are not equal are not kept in proportion.

    Args:
        image: float32 (H, W, C), any size.
        predict: (1, tile, tile, C) -> (1, output, output, K).
        tile: Side of an input tile, in pixels.
        output: Side of a tile's answer; None = tile.

    Returns:
        float32 (H, W, K).
    """
    output = tile if output is None else output
    margin = (tile - output) // 2
    window = mirrored_window(resized(image, (output, output)), -margin, -margin, tile)
    return resized(np.asarray(predict(window[None]))[0], image.shape[:2])


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An image or probability in another size, never labels.

    Each axis on its own: the mean over the area where it shrinks, linear between pixel centres where it grows, and
    untouched where it stays.

    Args:
        image: float (H, W, C).
        shape: (height, width), each >= 1.

    Returns:
        float32 (height, width, C), within the values of `image`.
    """
    image = image.astype(np.float32, copy=False)
    height, width = shape
    for now in ((height, image.shape[1]), (height, width)):
        if now != image.shape[:2]:
            way = cv2.INTER_AREA if now[0] * now[1] < image.shape[0] * image.shape[1] else cv2.INTER_LINEAR
            planes = [cv2.resize(plane, now[::-1], interpolation=way) for plane in np.moveaxis(image, 2, 0)]
            image = np.stack(planes, axis=2)
    return image


def blend_weight(side: int, overlap: int, *, blend: Blend = "linear") -> np.ndarray:
    """Weight of a tile's answer, float32 (side, side), > 0.

    `linear`: 1 inside, a ramp down over `overlap` pixels to each border. The ramps of two tiles that overlap by exactly
    `overlap` add up to 1, so the seam has no step. `gaussian`: a bell over the whole answer, sigma = side / 8.
    """
    line = _blend_line(side, overlap, blend)
    return np.outer(line, line)


def mirrored_window(image: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """The side x side window at (row, column), mirrored where it leaves the image (numpy's `reflect`)."""
    rows = mirrored_index(np.arange(row, row + side), image.shape[0])
    columns = mirrored_index(np.arange(column, column + side), image.shape[1])
    return image[rows[:, None], columns]


def mirrored_index(index: np.ndarray, length: int) -> np.ndarray:
    """Map any integer index into [0, length) by reflection at the first and last pixel, which are not repeated."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.mod(index, period)
    return np.minimum(index, period - index)


def _check_overlap(overlap: int, output: int, stride: int) -> None:
    if stride > output:
        raise InputError(
            f"The tile's answer of {output} px is smaller than the network's stride of {stride} px, so tiles on its "
            "grid leave gaps. Choose a larger inference.tile."
        )
    if 0 <= overlap <= output - stride:
        return
    if stride == 1:
        raise InputError(
            f"inference.overlap must be at least 0 and below the tile's answer of {output} px, got {overlap}."
        )
    raise InputError(
        f"inference.overlap must be 0 to {output - stride}, the tile's answer of {output} px less the network's stride "
        f"of {stride} px, got {overlap}."
    )


def _blend_line(side: int, overlap: int, blend: Blend) -> np.ndarray:
    if blend == "gaussian":
        line = np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (SIGMA * side)) ** 2)
    else:
        distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0
        line = np.minimum(distance / (overlap + 1), 1.0)
    return line.astype(np.float32)


def _weights(starts: Sequence[int], line: np.ndarray, first: int, end: int) -> np.ndarray:
    """Sum of the weights along one axis at pixels first to end - 1. That of both axes is their product."""
    sums = np.zeros(end - first, np.float32)
    for start in starts:
        low, high = max(start, first), min(start + len(line), end)
        sums[low - first : high - first] += line[low - start : high - start]
    return sums


def _mean(sums: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    return sums / (down[:, None] * across)[..., None]


def _starts(length: int, side: int, overlap: int, stride: int) -> list[int]:
    if length <= side:
        return [0]
    last = -(-(length - side) // stride)  # in strides
    count = -(-last // ((side - overlap) // stride)) + 1
    return [stride * round(start) for start in np.linspace(0, last, count)]


def _batches(items: list, size: int) -> Iterator[list]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
