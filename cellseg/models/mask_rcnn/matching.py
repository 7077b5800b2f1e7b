"""Matching and sampling: which anchors and regions are trained, and on which object.

The losses on them live in `cellseg.models.mask_rcnn.losses`. An object is a row of the truth; class 0 = empty row.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from cellseg.models.mask_rcnn.boxes import area, iou
from cellseg.models.mask_rcnn.suppression import take_rows

ANCHOR_FOREGROUND, ANCHOR_BACKGROUND = 0.7, 0.3  # Ren et al. 2015, sec. 3.1.2
REGION_FOREGROUND = 0.5
MOSTLY = 0.5  # share of a box on ignored pixels above which it is no background


class Samples(NamedTuple):
    """Chosen boxes of each image, foreground first. Rows that are neither foreground nor background count for nothing.

    `places` int (B, S) into the boxes; `foreground` and `background` bool (B, S); `objects` int (B, S) rows of the
    truth that suit the boxes best, meaningful where `foreground`.
    """

    places: Any
    foreground: Any
    background: Any
    objects: Any


def match_anchors(anchors, truth_boxes, present, ignored):
    """Foreground and background among anchors, and each one's object.

    Foreground: IoU >= 0.7 with an object, or an object's best anchor (all of them, where several are equally good),
    even where that anchor suits another object better. Background: IoU < 0.3 with all. Others count for nothing.

    Args:
        anchors: float (A, 4).
        truth_boxes: float (B, M, 4).
        present: bool (B, M).
        ignored: float (B, A): share of each anchor on ignored pixels.

    Returns:
        (foreground bool (B, A), background bool (B, A), objects int32 (B, A)).
    """
    overlap = _overlap(anchors[None], truth_boxes, present)
    best = ops.max(overlap, axis=2)
    of_object = ops.max(overlap, axis=1, keepdims=True)
    kept = ops.any(ops.logical_and(overlap == of_object, of_object > 0), axis=2)
    foreground = ops.logical_or(best >= ANCHOR_FOREGROUND, kept)
    background = ops.logical_and(best < ANCHOR_BACKGROUND, ops.logical_not(kept))
    background = ops.logical_and(background, ignored <= MOSTLY)
    return foreground, background, ops.cast(ops.argmax(overlap, axis=2), "int32")


def match_regions(boxes, valid, truth_boxes, present, ignored):
    """As `match_anchors`, for regions (B, N, 4) of which `valid` (B, N) are there: IoU >= 0.5 foreground, else not."""
    overlap = _overlap(boxes, truth_boxes, present)
    best = ops.max(overlap, axis=2)
    foreground = ops.logical_and(best >= REGION_FOREGROUND, valid)
    background = ops.logical_and(best < REGION_FOREGROUND, valid)
    background = ops.logical_and(background, ignored <= MOSTLY)
    return foreground, background, ops.cast(ops.argmax(overlap, axis=2), "int32")


def sample(foreground, background, objects, *, number: int, most_foreground: int, seed) -> Samples:
    """`number` boxes of each image drawn at random, `most_foreground` of them foreground at most.

    Missing foreground is made up with background; where both are few, the last rows are neither.
    """
    number = min(number, foreground.shape[1])
    most_foreground = min(most_foreground, number)
    noise = keras.random.uniform(foreground.shape, seed=seed)
    drawn = ops.where(foreground, noise, -ops.ones_like(noise))
    least = ops.top_k(drawn, most_foreground)[0][:, -1:]
    chosen = ops.logical_and(foreground, drawn >= least)
    rank = ops.where(chosen, 2 + noise, ops.where(background, noise, -ops.ones_like(noise)))
    best, places = ops.top_k(rank, number)
    return Samples(places, best >= 2, ops.logical_and(best >= 0, best < 2), take_rows(objects, places))


def ignored_share(labels, boxes):
    """Share of each box (B, N, 4) on ignored pixels (label -1), float32 (B, N); edges rounded to whole pixels.

    Of the part of the box inside the image; 0 where nothing of it is inside.
    """
    batch, height, width = labels.shape
    ignored = ops.cast(labels < 0, "float32")
    sums = ops.pad(ops.cumsum(ops.cumsum(ignored, axis=1), axis=2), ((0, 0), (1, 0), (1, 0)))
    flat = ops.reshape(sums, (batch, -1))
    limits = (height, width, height, width)
    edges = [ops.round(ops.clip(boxes[..., side], 0, limits[side])) for side in range(4)]
    top, left, bottom, right = (ops.cast(edge, "int32") for edge in edges)

    def until(row, column):
        return take_rows(flat, row * (width + 1) + column)

    inside = until(bottom, right) - until(top, right) - until(bottom, left) + until(top, left)
    return inside / ops.maximum(area(ops.stack(edges, axis=-1)), 1)


def _overlap(boxes, truth_boxes, present):
    """IoU (B, N, M), -1 with empty rows of the truth."""
    overlap = iou(boxes, truth_boxes)
    return ops.stop_gradient(ops.where(present[:, None, :], overlap, -ops.ones_like(overlap)))
