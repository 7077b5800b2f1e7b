"""Region proposals: the head that scores and corrects anchors, and the choice of the best regions.

Anchors are made in `cellseg.models.mask_rcnn.anchors`; which of them are trained is the work of `matching`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from cellseg.models.mask_rcnn.boxes import clip, decode
from cellseg.models.mask_rcnn.suppression import sort_by_score, suppress, take_rows

SMALLEST = 1e-3  # side of a proposal in pixels; thinner ones lie outside of the image
NONE = -1e9  # score of what is no region: far below any logit, and finite


def proposal_head(features: list[Any], *, anchors: int) -> tuple[list[Any], list[Any]]:
    """Scores (logits) and box codes of the anchors of each cell, by the same three convolutions at each level.

    Args:
        features: Keras tensors (N, h, w, C).
        anchors: Of each cell.

    Returns:
        ([(N, h, w, anchors)], [(N, h, w, 4 * anchors)]), float32.
    """
    start = keras.initializers.RandomNormal(stddev=0.01)
    options: dict[str, Any] = {"kernel_initializer": start}
    conv = layers.Conv2D(features[0].shape[-1], 3, padding="same", activation="relu", name="proposal_conv", **options)
    score = layers.Conv2D(anchors, 1, dtype="float32", name="proposal_score", **options)
    code = layers.Conv2D(4 * anchors, 1, dtype="float32", name="proposal_code", **options)
    hidden = [conv(x) for x in features]
    return [score(x) for x in hidden], [code(x) for x in hidden]


def propose(
    scores: Sequence[Any],
    codes: Sequence[Any],
    anchors: Sequence[Any],
    *,
    height: int,
    width: int,
    each: int,
    total: int,
    iou: float,
):
    """The best regions of a batch of images, best first.

    Of each level the `each` best anchors are decoded and cut at the image's edges, then overlapping ones of the same
    level dropped; of what is left on all levels the `total` best are taken.

    Args:
        scores: Logits of each level, float (B, A).
        codes: float (B, A, 4).
        anchors: float (A, 4).
        height: Of the image, as `width`.
        each: Number of regions of a level before non-maximum suppression.
        total: Number of regions of an image after it.
        iou: Of two regions above which the worse is dropped.

    Returns:
        (boxes float32 (B, n, 4), valid bool (B, n)) with n = total, or all anchors where those are fewer. Rows that
        are not valid are boxes, too, and count for nothing.
    """
    best = [_best_of_level(*of, height, width, each, iou) for of in zip(scores, codes, anchors, strict=True)]
    scores_left = ops.concatenate([score for score, _ in best], axis=1)
    boxes = ops.concatenate([box for _, box in best], axis=1)
    score, chosen = sort_by_score(scores_left, boxes, number=min(total, boxes.shape[1]))
    return chosen, score > NONE


def _best_of_level(scores, codes, anchors, height: int, width: int, each: int, iou: float):
    scores, codes = ops.stop_gradient(scores), ops.stop_gradient(codes)
    best, places = ops.top_k(scores, min(each, scores.shape[1]))
    boxes = decode(take_rows(codes, places), ops.take(anchors, places, axis=0))
    boxes = clip(boxes, height=height, width=width)
    large = ops.minimum(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]) >= SMALLEST
    return ops.where(suppress(boxes, large, threshold=iou), best, NONE), boxes
