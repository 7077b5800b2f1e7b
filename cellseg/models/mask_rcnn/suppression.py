"""Non-maximum suppression with static shapes: of boxes that overlap, the one of the best score stays.

What the boxes are lives elsewhere: proposals in `cellseg.models.mask_rcnn.proposals`, found objects in `detections`.
"""

from keras import ops

from cellseg.models.mask_rcnn.boxes import iou


def suppress(boxes, valid, *, threshold: float):
    """Which boxes non-maximum suppression keeps, bool (..., N), of boxes sorted by score.

    A box is dropped where one before it that is kept overlaps it by more than `threshold`: the answer of the greedy
    loop over the boxes, found for all of them at once. First all are taken to be kept; each round then asks which of
    them a kept one drops, until nothing changes. Round n is right for every box at the end of a chain of at most n
    boxes of which each would drop the next; chains are short, and N rounds are enough for any.

    Args:
        boxes: float (..., N, 4), best score first.
        valid: bool (..., N); False = no box: it neither stays nor drops others.
        threshold: IoU in [0, 1].

    Reference:
        Zheng et al. 2022, Cluster-NMS, https://arxiv.org/abs/2005.03572
    """
    boxes, number = ops.stop_gradient(boxes), boxes.shape[-2]
    place = ops.arange(number)
    before = place[:, None] < place[None, :]
    drops = ops.cast(ops.logical_and(iou(boxes, boxes) > threshold, before), "float32")
    start = ops.cast(valid, "float32")

    def judge(stays):
        dropped = ops.matmul(stays[..., None, :], drops)[..., 0, :]
        return ops.where(dropped > 0, ops.zeros_like(start), start)

    stays, _ = ops.while_loop(
        lambda now, previous: ops.any(now != previous),
        lambda now, previous: (judge(now), now),
        (judge(start), start),
        maximum_iterations=number,
    )
    return ops.stop_gradient(stays) > 0


def sort_by_score(scores, *arrays, number: int):
    """The `number` best of scores (..., N), best first, and the rows (..., N, ...) of other arrays that belong to them.

    Returns:
        [scores (..., number), *rows (..., number, ...)].
    """
    best, places = ops.top_k(scores, number)
    return [best, *(take_rows(array, places) for array in arrays)]


def take_rows(array, places):
    """Rows of an array (B, N, ...) at places int (B, n) -> (B, n, ...), image by image."""
    batch, number = array.shape[:2]
    inner = tuple(array.shape[2:])
    flat = ops.reshape(array, (batch * number, *inner))
    offset = ops.cast(ops.arange(batch) * number, places.dtype)
    return ops.take(flat, places + offset[:, None], axis=0)
