"""Anchors: the boxes that a region proposal network corrects, at every cell of every level of the pyramid.

Their coding lives in `cellseg.models.mask_rcnn.boxes`; which of them are trained in `matching`.
"""

from collections.abc import Sequence

import numpy as np

FIRST_STRIDE = 4  # of level P2


def strides(levels: int) -> list[int]:
    """Pixels from cell to cell of each level: 4, 8, ..."""
    return [FIRST_STRIDE * 2**level for level in range(levels)]


def level_sizes(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Rows and columns of each level for an image; the last row may reach over the edge (P6 of a side of 32)."""
    return [(-(-height // stride), -(-width // stride)) for stride in strides(levels)]


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Anchors round the origin, float32 (len(sizes) * len(ratios), 4), ratio by ratio.

    A ratio is height / width; each anchor has the area size**2. Sides are not rounded to pixels, as torchvision does:
    at sizes of 8 pixels rounding changes the ratio.
    """
    anchors = []
    for ratio in ratios:
        for size in sizes:
            height, width = size * ratio**0.5, size / ratio**0.5
            anchors.append((-height / 2, -width / 2, height / 2, width / 2))
    return np.asarray(anchors, np.float32)


def pyramid_anchors(
    height: int, width: int, *, sizes: Sequence[Sequence[float]], ratios: Sequence[float]
) -> list[np.ndarray]:
    """Anchors of an image: a list, one float32 (rows * columns * anchors of a cell, 4) a level.

    They stand at the middle of each cell (torchvision: at its first corner), row by row, and reach over the image's
    edges.

    Args:
        height: Of the image, as `width`.
        sizes: Side lengths in pixels of each level, P2 first.
        ratios: Height / width.
    """
    anchors = []
    grids = level_sizes(height, width, len(sizes))
    for (rows, columns), stride, of_level in zip(grids, strides(len(sizes)), sizes, strict=True):
        y, x = np.meshgrid((np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, indexing="ij")
        centres = np.stack([y, x, y, x], axis=-1)[:, :, None].astype(np.float32)
        anchors.append((centres + cell_anchors(of_level, ratios)).reshape(-1, 4))
    return anchors
