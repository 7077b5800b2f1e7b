"""Detections: regions and what the box head says of them, to the objects that are found.

Their masks are the mask head's work; pasting masks into a label image is done outside of the network.
"""

from keras import ops

from cellseg.models.mask_rcnn.boxes import BOX_WEIGHTS, clip, decode
from cellseg.models.mask_rcnn.suppression import sort_by_score, suppress, take_rows

SMALLEST = 1e-2  # side of a found box in pixels, as torchvision


def detect(
    boxes,
    valid,
    logits,
    codes,
    *,
    height: int,
    width: int,
    score_threshold: float,
    iou: float,
    number: int,
):
    """The found objects of each image, best first.

    Each region is taken once for each class, with that class's box; of a class, overlapping boxes are dropped.

    Args:
        boxes: Regions, float32 (B, R, 4).
        valid: bool (B, R).
        logits: float32 (B, R, K + 1), background first.
        codes: float32 (B, R, K + 1, 4).
        height: Of the image, as `width`.
        score_threshold: Least probability of an object's class.
        iou: Of two boxes of a class above which the worse is dropped.
        number: Of rows to return.

    Returns:
        (boxes float32 (B, number, 4), scores float32 (B, number), classes int32 (B, number), found int32 (B,)); empty
        rows have class 0 and score 0. `found` counts the objects before the cut at `number`.
    """
    batch, regions, classes = boxes.shape[0], boxes.shape[1], logits.shape[-1] - 1
    scores = ops.transpose(ops.softmax(logits, axis=-1)[..., 1:], (0, 2, 1))  # (B, K, R)
    found = clip(decode(codes[:, :, 1:], boxes[:, :, None], weights=BOX_WEIGHTS), height=height, width=width)
    found = ops.transpose(found, (0, 2, 1, 3))
    side = ops.minimum(found[..., 2] - found[..., 0], found[..., 3] - found[..., 1])
    good = ops.logical_and(scores > score_threshold, side >= SMALLEST)
    good = ops.logical_and(good, valid[:, None, :])
    scores = ops.reshape(ops.where(good, scores, ops.zeros_like(scores)), (batch * classes, regions))
    found = ops.reshape(found, (batch * classes, regions, 4))

    scores, found = sort_by_score(scores, found, number=regions)
    scores = ops.where(suppress(found, scores > 0, threshold=iou), scores, ops.zeros_like(scores))
    scores, found = ops.reshape(scores, (batch, -1)), ops.reshape(found, (batch, -1, 4))
    total = ops.sum(ops.cast(scores > 0, "int32"), axis=1)
    number_there = min(number, regions * classes)
    best, places = ops.top_k(scores, number_there)
    there = best > 0
    of_class = ops.where(there, ops.cast(places, "int32") // regions + 1, 0)
    best_boxes = ops.where(there[..., None], take_rows(found, places), ops.zeros((batch, number_there, 4)))
    missing = ((0, 0), (0, number - number_there))
    return (
        ops.pad(best_boxes, (*missing, (0, 0))),
        ops.pad(best, missing),
        ops.cast(ops.pad(of_class, missing), "int32"),
        total,
    )
