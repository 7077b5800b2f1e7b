"""Tiling: cut an image of any size into tiles of one size, mirror at the border, stitch the answers.

What happens to a tile (a network, usually) is the caller's function; patches for training are cut in
`pipelines.dataset`.
"""

from collections.abc import Callable, Iterator

import numpy as np

from pipelines.errors import InputError


def predict_tiled(
    image: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    tile: int,
    output: int | None = None,
    overlap: int = 0,
    batch: int = 1,
) -> np.ndarray:
    """Apply `predict` to overlapping tiles and stitch the answers, blended smoothly where they overlap.

    Tiles are spread evenly, so the last one is no mostly empty rest. Where a tile reaches over the image's border the
    image is mirrored (Ronneberger 2015, fig. 2), also where the image is smaller than a tile.

    Args:
        image: (H, W, C), any size.
        predict: (batch, tile, tile, C) -> (batch, output, output, K). Every call gets the same shape.
        tile: Side of an input tile, in pixels.
        output: Side of a tile's answer; smaller than `tile` for a `valid` network. None = tile.
        overlap: Least overlap of neighbouring answers, in pixels; 0 = they only touch.
        batch: Tiles a call.

    Returns:
        float32 (H, W, K).

    Raises:
        InputError: overlap is not in [0, output).
    """
    output = tile if output is None else output
    if not 0 <= overlap < output:
        raise InputError(
            f"inference.overlap must be at least 0 and below the tile's answer of {output} px, got {overlap}."
        )
    height, width = image.shape[:2]
    margin = (tile - output) // 2
    weight = blend_weight(output, overlap)
    total = np.zeros((height, width, 1), np.float32)
    norm = np.zeros((height, width, 1), np.float32)
    for corners in _batches(list(_corners(height, width, output, overlap)), batch):
        tiles = np.stack([mirrored_window(image, row - margin, column - margin, tile) for row, column in corners])
        short = batch - len(corners)
        if short:  # one shape for every call: a second shape would compile the network again
            tiles = np.concatenate([tiles, np.zeros((short, *tiles.shape[1:]), tiles.dtype)])
        answers = np.asarray(predict(tiles))[: len(corners)]
        if total.shape[2] != answers.shape[3]:
            total = np.zeros((height, width, answers.shape[3]), np.float32)
        for (row, column), answer in zip(corners, answers, strict=True):
            rows, columns = slice(row, min(row + output, height)), slice(column, min(column + output, width))
            part = weight[: rows.stop - row, : columns.stop - column, None]
            total[rows, columns] += part * answer[: part.shape[0], : part.shape[1]]
            norm[rows, columns] += part
    return total / norm


def blend_weight(side: int, overlap: int) -> np.ndarray:
    """Weight of a tile's answer, float32 (side, side): 1 inside, a ramp down over `overlap` pixels to each border.

    The ramps of two tiles that overlap by exactly `overlap` add up to 1, so the seam has no step.
    """
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0
    ramp = np.minimum(distance / (overlap + 1), 1.0)
    return np.outer(ramp, ramp).astype(np.float32)


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


def _corners(height: int, width: int, side: int, overlap: int) -> Iterator[tuple[int, int]]:
    for row in _starts(height, side, overlap):
        for column in _starts(width, side, overlap):
            yield row, column


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(start) for start in np.linspace(0, length - side, count)]


def _batches(items: list, size: int) -> Iterator[list]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
