"""RoIAlign: regions cut from the pyramid, or from an image of ids, to one size, by bilinear interpolation.

Which regions lives in `cellseg.models.mask_rcnn.proposals` and `matching`; what is made of them in `heads`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from cellseg.models.mask_rcnn.anchors import FIRST_STRIDE, strides
from cellseg.models.mask_rcnn.boxes import area

FULL_SIZE, FULL_LEVEL = 224, 4  # a region of 224x224 is cut from P4
SAMPLING_RATIO = 2


def roi_align(features: Sequence[Any], boxes, *, size: int):
    """Regions (B, R, size, size, C) of a pyramid, each of the level that suits its size.

    Level k = floor(4 + log2(sqrt(area) / 224)), within those there are. A bin is the mean of 2x2 samples; samples are
    taken where they are (`half_pixel` in ONNX, `aligned` in PyTorch). The levels' cells lie in one table, of which each
    bin takes its 16 cells: what a region costs depends neither on the image's size nor on the number of levels.

    Args:
        features: P2, P3, ...: float (B, h, w, C), stride 4, 8, ...
        boxes: float32 (B, R, 4) in pixels of the image, inside of it.
        size: Bins of a side.

    Reference:
        He, Gkioxari, Dollar, Girshick 2017, sec. 3, https://arxiv.org/abs/1703.06870; levels: Lin et al. 2017, eq. 1
    """
    boxes = ops.stop_gradient(boxes)
    batch, number = boxes.shape[:2]
    channels, kind = features[0].shape[-1], features[0].dtype
    # float32: gradients of regions that share a cell add up there, in half precision with an error that grows.
    cells = [ops.reshape(ops.cast(feature, "float32"), (batch, -1, channels)) for feature in features]
    heights, widths = ([feature.shape[axis] for feature in features] for axis in (1, 2))
    starts = np.cumsum([0, *(level.shape[1] for level in cells)])
    levels = roi_levels(boxes, len(features))
    stride, height, width, first = (
        ops.take(ops.convert_to_tensor(of_level, "int32"), levels, axis=0)
        for of_level in (strides(len(features)), heights, widths, starts[:-1])
    )
    first = first + ops.arange(batch, dtype="int32")[:, None] * int(starts[-1])
    rows, row_weights = _neighbours(boxes[..., 0], boxes[..., 2], height, size=size, stride=stride)
    columns, column_weights = _neighbours(boxes[..., 1], boxes[..., 3], width, size=size, stride=stride)
    places = rows[:, :, :, None, :, None] * _spread(width) + columns[:, :, None, :, None, :] + _spread(first)
    weights = row_weights[:, :, :, None, :, None] * column_weights[:, :, None, :, None, :]
    table = ops.reshape(ops.concatenate(cells, axis=1), (-1, channels))
    taken = ops.take(table, ops.reshape(places, (-1, (2 * SAMPLING_RATIO) ** 2)), axis=0)
    regions = ops.matmul(ops.reshape(weights, (-1, 1, (2 * SAMPLING_RATIO) ** 2)), taken)
    return ops.cast(ops.reshape(regions, (batch, number, size, size, channels)), kind)


def roi_levels(boxes, levels: int):
    """Level that each box (..., 4) is cut from, int32 (...): 0 = P2."""
    side = ops.sqrt(ops.maximum(area(boxes), 1e-9))
    wanted = ops.floor(FULL_LEVEL + ops.log2(side / FULL_SIZE) + 1e-6) - math.log2(FIRST_STRIDE)
    return ops.cast(ops.clip(wanted, 0, levels - 1), "int32")


def crop_ids(labels, ids, boxes, *, size: int):
    """Share of each bin that belongs to the object, float32 (B, R, size, size), sampled at the bin's middle.

    `labels == id` interpolated bilinearly, without an array of (B, R, H, W).

    Args:
        labels: int32 (B, H, W).
        ids: int32 (B, R): which object.
        boxes: float32 (B, R, 4) in pixels.
        size: Bins of a side.
    """
    batch, height, width = labels.shape
    rows = _corners(boxes[..., 0], boxes[..., 2], height, size=size)
    columns = _corners(boxes[..., 1], boxes[..., 3], width, size=size)
    flat = ops.reshape(labels, (-1,))
    offset = (ops.arange(batch, dtype="int32") * (height * width))[:, None, None, None]
    share = 0
    for row, row_weight in rows:
        for column, column_weight in columns:
            places = offset + row[..., :, None] * width + column[..., None, :]
            mine = ops.cast(ops.take(flat, places, axis=0) == ids[:, :, None, None], "float32")
            share += mine * row_weight[..., :, None] * column_weight[..., None, :]
    return share


def _neighbours(start, stop, length, *, size: int, stride):
    """Cells along an axis that bins (B, R) need, int32 (B, R, size, 4), and the weight of each, float32.

    `length` and `stride` int32 (B, R): of each region's level.
    """
    stride, last = (ops.cast(x, "float32")[..., None] for x in (stride, length - 1))
    low, high, part = _between(start, stop, last, number=size * SAMPLING_RATIO, stride=stride)
    shape = (*low.shape[:-1], size, 2 * SAMPLING_RATIO)
    weights = ops.stack([1 - part, part], axis=-1) / SAMPLING_RATIO
    return ops.reshape(ops.stack([low, high], axis=-1), shape), ops.reshape(weights, shape)


def _corners(start, stop, length: int, *, size: int):
    """The two neighbours of each bin's middle along an axis: [(index int32, weight float32)], each (B, R, size)."""
    low, high, part = _between(start, stop, float(length - 1), number=size, stride=1.0)
    return [(low, 1 - part), (high, part)]


def _between(start, stop, last, *, number: int, stride):
    """Of equally spaced samples between two edges, kept between the first and last cell's middle: the cell before each,
    int32 (..., number), the one behind it, and the share of the latter."""
    steps = (ops.arange(number, dtype="float32") + 0.5) / number
    positions = start[..., None] + (stop - start)[..., None] * steps
    positions = ops.minimum(ops.maximum(positions / stride - 0.5, 0.0), last)
    low = ops.floor(positions)
    low, high = (ops.cast(x, "int32") for x in (low, ops.minimum(low + 1, last)))
    return low, high, positions - ops.cast(low, "float32")


def _spread(x):
    return x[:, :, None, None, None, None]
