"""Boxes: overlap, coding against anchors, clipping.

Boxes are float (top, left, bottom, right) in pixels of the image, bottom and right exclusive: the box of pixel (r, c)
is (r, c, r + 1, c + 1). Anchors are made in `cellseg.models.mask_rcnn.anchors`, overlapping boxes dropped in
`suppression`.
"""

import math

from keras import ops

PROPOSAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of (dy, dx, dh, dw), as torchvision
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
MOST_GROWTH = math.log(1000 / 16)  # of a side in one decoding: exp of a wild prediction would overflow


def area(boxes):
    """Area of boxes (..., 4) -> (...); 0 where a side is not positive."""
    return ops.maximum(boxes[..., 2] - boxes[..., 0], 0) * ops.maximum(boxes[..., 3] - boxes[..., 1], 0)


def iou(first, second):
    """Intersection over union of boxes (..., N, 4) and (..., M, 4) -> (..., N, M); 0 where both are empty."""
    top, left, bottom, right = (first[..., :, None, side] for side in range(4))
    other_top, other_left, other_bottom, other_right = (second[..., None, :, side] for side in range(4))
    height = ops.maximum(ops.minimum(bottom, other_bottom) - ops.maximum(top, other_top), 0)
    width = ops.maximum(ops.minimum(right, other_right) - ops.maximum(left, other_left), 0)
    common = height * width
    union = area(first)[..., :, None] + area(second)[..., None, :] - common
    return common / ops.maximum(union, 1e-9)


def encode(boxes, anchors, *, weights=PROPOSAL_WEIGHTS):
    """What a network must answer at `anchors` to mean `boxes`; both (..., 4) with positive sides.

    dy = wy (centre - anchor's centre) / anchor's height, dh = wh log(height / anchor's height); x likewise.

    Reference:
        Ren, He, Girshick, Sun 2015, eq. 2, https://arxiv.org/abs/1506.01497
    """
    (row, column, height, width), (y, x, h, w) = _centres(anchors), _centres(boxes)
    codes = [(y - row) / height, (x - column) / width, ops.log(h / height), ops.log(w / width)]
    return ops.stack([weight * code for weight, code in zip(weights, codes, strict=True)], axis=-1)


def decode(codes, anchors, *, weights=PROPOSAL_WEIGHTS):
    """The boxes that codes (..., 4) at anchors mean: the inverse of `encode`; a side grows to 62.5 times at most."""
    row, column, height, width = _centres(anchors)
    dy, dx, dh, dw = (codes[..., side] / weights[side] for side in range(4))
    y, x = row + dy * height, column + dx * width
    h, w = (ops.exp(ops.minimum(growth, MOST_GROWTH)) * side for growth, side in ((dh, height), (dw, width)))
    return ops.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], axis=-1)


def clip(boxes, *, height: int, width: int):
    """Boxes cut at the image's edges."""
    limits = (height, width, height, width)
    return ops.stack([ops.clip(boxes[..., side], 0, limits[side]) for side in range(4)], axis=-1)


def _centres(boxes):
    height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + height / 2, boxes[..., 1] + width / 2, height, width
