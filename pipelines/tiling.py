"""Tiling: cut an image of any size into tiles of one size, mirror at the border, stitch the answers; resize.

What happens to a tile (a network, usually) is the caller's function; patches for training are cut in
`pipelines.dataset`.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import cv2
import numpy as np

from pipelines.errors import InputError

Blend = Literal["linear", "gaussian"]
SIGMA = 1 / 8  # of a tile's answer; as nnU-Net, https://doi.org/10.1038/s41592-020-01008-z


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
    """Apply `predict` to overlapping tiles and stitch the answers, averaged where they overlap.

    Tiles are spread evenly, so the last one is no mostly empty rest. Where a tile reaches over the image's border the
    image is mirrored (Ronneberger 2015, fig. 2), also where the image is smaller than a tile.

    A network that halves its features answers a pixel by where it lies on the network's grid. With `stride`, every
    tile lies on the grid of a tile at the image's first pixel: where a pixel's answer rests on the tile's inside alone,
    overlapping tiles agree, and the answer is that of one tile as large as the image.

    Args:
        image: (H, W, C), any size.
        predict: (batch, tile, tile, C) -> (batch, side, side, K), side >= output; a rim beyond `output`, the halo,
            is cut off. Every call gets the same shape.
        tile: Side of an input tile, in pixels.
        output: Side of a tile's answer that is kept; smaller than `tile` for a `valid` network. None = tile.
        overlap: Least overlap of neighbouring answers, in pixels; 0 = they only touch.
        stride: Tiles start at multiples of this; the last one then reaches up to stride - 1 px over the image's end.
        blend: How answers are weighted where they overlap; see `blend_weight`.
        batch: Tiles a call.

    Returns:
        float32 (H, W, K).

    Raises:
        InputError: overlap is not in [0, output - stride].
    """
    output = tile if output is None else output
    _check_overlap(overlap, output, stride)
    height, width = image.shape[:2]
    margin = (tile - output) // 2
    weight = blend_weight(output, overlap, blend=blend)
    total = np.zeros((height, width, 1), np.float32)
    norm = np.zeros((height, width, 1), np.float32)
    for corners in _batches(list(_corners(height, width, output, overlap, stride)), batch):
        tiles = np.stack([mirrored_window(image, row - margin, column - margin, tile) for row, column in corners])
        short = batch - len(corners)
        if short:  # one shape for every call: a second shape would compile the network again
            tiles = np.concatenate([tiles, np.zeros((short, *tiles.shape[1:]), tiles.dtype)])
        answers = np.asarray(predict(tiles))[: len(corners)]
        halo = (answers.shape[1] - output) // 2
        answers = answers[:, halo : halo + output, halo : halo + output]
        if total.shape[2] != answers.shape[3]:
            total = np.zeros((height, width, answers.shape[3]), np.float32)
        for (row, column), answer in zip(corners, answers, strict=True):
            rows, columns = slice(row, min(row + output, height)), slice(column, min(column + output, width))
            part = weight[: rows.stop - row, : columns.stop - column, None]
            total[rows, columns] += part * answer[: part.shape[0], : part.shape[1]]
            norm[rows, columns] += part
    return total / norm


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
    if blend == "gaussian":
        line = np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (SIGMA * side)) ** 2)
    else:
        distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0
        line = np.minimum(distance / (overlap + 1), 1.0)
    return np.outer(line, line).astype(np.float32)


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


def _corners(height: int, width: int, side: int, overlap: int, stride: int) -> Iterator[tuple[int, int]]:
    for row in _starts(height, side, overlap, stride):
        for column in _starts(width, side, overlap, stride):
            yield row, column


def _starts(length: int, side: int, overlap: int, stride: int) -> list[int]:
    if length <= side:
        return [0]
    last = -(-(length - side) // stride)  # in strides
    count = -(-last // ((side - overlap) // stride)) + 1
    return [stride * round(start) for start in np.linspace(0, last, count)]


def _batches(items: list, size: int) -> Iterator[list]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
