"""Losses of Mask R-CNN: on proposals, classes, boxes and masks of the sampled rows.

Which rows those are is the work of `cellseg.models.mask_rcnn.matching`. Losses of other networks live in
`cellseg.losses`. Everything is float32, whatever the network computes in.
"""

from keras import ops

BETA = 1 / 9  # where smooth L1 turns from square to straight, as torchvision


def smooth_l1(truth, prediction):
    """Square below an error of 1/9, straight above; summed over the last axis."""
    error = ops.abs(truth - prediction)
    return ops.sum(ops.where(error < BETA, 0.5 * error**2 / BETA, error - 0.5 * BETA), axis=-1)


def score_loss(foreground, background, scores):
    """Cross-entropy of proposals' scores (logits), mean over rows that are foreground or background."""
    counted = ops.logical_or(foreground, background)
    return mean_where(counted, cross_entropy(ops.cast(foreground, scores.dtype), scores), over=counted)


def class_loss(classes, counted, logits):
    """Cross-entropy of classes int (...), 0 = background, and logits (..., K + 1), mean over `counted` rows."""
    entropy = ops.sparse_categorical_crossentropy(classes, logits, from_logits=True)
    return mean_where(counted, entropy, over=counted)


def box_loss(codes_true, codes, foreground, counted):
    """Smooth L1 of the foreground's box codes (..., 4), summed, over the number of `counted` rows."""
    return mean_where(foreground, smooth_l1(codes_true, codes), over=counted)


def mask_loss(share, logits, foreground):
    """Cross-entropy of masks (..., h, w), mean over the pixels of the foreground's; 0 where there is none."""
    entropy = ops.mean(cross_entropy(share, logits), axis=(-2, -1))
    return mean_where(foreground, entropy, over=foreground)


def mean_where(chosen, values, *, over):
    """Sum of the chosen values over the number of rows in `over`; what is not chosen may even be infinite."""
    total = ops.sum(ops.where(chosen, values, ops.zeros_like(values)))
    return total / ops.maximum(ops.sum(ops.cast(over, values.dtype)), 1)


def cross_entropy(truth, logits):
    """Binary cross-entropy of each logit; the truth may lie between 0 and 1."""
    return ops.relu(logits) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
