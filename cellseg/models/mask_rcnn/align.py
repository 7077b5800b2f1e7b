"""RoIAlign: regions cut from the pyramid, or from an image of ids, to one size, by bilinear interpolation.

Which regions lives in `cellseg.models.mask_rcnn.proposals` and `matching`; what is made of them in `heads`.
"""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from cellseg.models.mask_rcnn.anchors import FIRST_STRIDE, strides
from cellseg.models.mask_rcnn.boxes import area

FULL_SIZE, FULL_LEVEL = 224, 4  # a region of 224x224 is cut from P4
SAMPLING_RATIO = 2


def roi_align(features: Sequence[Any], boxes, *, size: int):
    """Regions (B, R, size, size, C) of a pyramid, each of the level that suits its size.

    Level k = floor(4 + log2(sqrt(area) / 224)), within those there are. A bin is the mean of 2x2 samples; samples are
    taken where they are (`half_pixel` in ONNX, `aligned` in PyTorch). Bilinear interpolation at a grid of rows and
    columns is two matrix products, so that neither way copies the four neighbours of each sample, and the gradient
    scatters nothing.

    Args:
        features: P2, P3, ...: float (B, h, w, C), stride 4, 8, ...
        boxes: float32 (B, R, 4) in pixels of the image, inside of it.
        size: Bins of a side.

    Reference:
        He, Gkioxari, Dollar, Girshick 2017, sec. 3, https://arxiv.org/abs/1703.06870; levels: Lin et al. 2017, eq. 1
    """
    boxes = ops.stop_gradient(boxes)
    levels = roi_levels(boxes, len(features))
    regions = 0
    for level, (stride, feature) in enumerate(zip(strides(len(features)), features, strict=True)):
        here = ops.cast(levels == level, feature.dtype)[:, :, None, None]
        rows = _interpolation(boxes[..., 0], boxes[..., 2], feature.shape[1], size=size, stride=stride)
        columns = _interpolation(boxes[..., 1], boxes[..., 3], feature.shape[2], size=size, stride=stride)
        regions += _cut(feature, ops.cast(rows, feature.dtype) * here, ops.cast(columns, feature.dtype))
    return regions


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


def _samples(start, stop, length: int, *, number: int, stride: int):
    """Positions (..., number) of equally spaced samples between two edges, in cells, within the cells' centres."""
    steps = (ops.arange(number, dtype="float32") + 0.5) / number
    positions = start[..., None] + (stop - start)[..., None] * steps
    return ops.clip(positions / stride - 0.5, 0, length - 1)


def _interpolation(start, stop, length: int, *, size: int, stride: int):
    """Matrix (..., size, length) that takes a row of cells to the bins' values."""
    positions = _samples(start, stop, length, number=size * SAMPLING_RATIO, stride=stride)
    weights = ops.relu(1 - ops.abs(positions[..., None] - ops.arange(length, dtype="float32")))
    shape = (*weights.shape[:-2], size, SAMPLING_RATIO, length)
    return ops.mean(ops.reshape(weights, shape), axis=-2)


def _cut(feature, rows, columns):
    """(B, h, w, C), (B, R, s, h), (B, R, s, w) -> (B, R, s, s, C)."""
    batch, height, width, channels = feature.shape
    number, size = rows.shape[1:3]
    rows = ops.reshape(rows, (batch, number * size, height))
    strips = ops.matmul(rows, ops.reshape(feature, (batch, height, width * channels)))
    strips = ops.reshape(strips, (batch, number, size, width, channels))
    return ops.matmul(columns[:, :, None], strips)


def _corners(start, stop, length: int, *, size: int):
    """The two neighbours of each bin's middle along an axis: [(index int32, weight float32)], each (B, R, size)."""
    positions = _samples(start, stop, length, number=size, stride=1)
    low = ops.floor(positions)
    part = positions - low
    low = ops.cast(low, "int32")
    return [(low, 1 - part), (ops.minimum(low + 1, length - 1), part)]
