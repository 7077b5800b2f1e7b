"""Answers: what the channels of a network's probability say: foreground, and the class of each pixel and each cell.

Cutting the foreground into cells is the work of `cellseg.instances`.
"""

from typing import Literal

import numpy as np

Decision = Literal["threshold", "argmax"]


def foreground(probability: np.ndarray, *, decision: Decision = "threshold") -> np.ndarray:
    """Probability of foreground.

    Args:
        probability: float (H, W, K). K = 1: foreground itself. K > 1: a softmax over classes, background first.
        decision: `threshold`: 1 - p(background), to be thresholded where validation images say. `argmax`: the most
            probable class c of the others against the background alone, p(c) / (p(c) + p(background)), which is at
            least 0.5 exactly where the background is not more probable than every class. Both are the same for K <= 2.

    Returns:
        float32 (H, W) in [0, 1].
    """
    if probability.shape[2] == 1:
        return probability[..., 0].astype(np.float32, copy=False)
    background = probability[..., 0]
    if decision == "threshold":
        return (1 - background).astype(np.float32)
    strongest = probability[..., 1:].max(axis=2)
    total = strongest + background
    return np.divide(strongest, total, out=np.zeros(total.shape, np.float32), where=total > 0, dtype=np.float32)


def classes(probability: np.ndarray) -> np.ndarray:
    """The most probable class of each pixel, given that it is no background.

    Args:
        probability: float (H, W, K), background first, K > 1.

    Returns:
        int32 (H, W), 1..K - 1; the lower class among equals.
    """
    return probability[..., 1:].argmax(axis=2).astype(np.int32) + 1


def cell_classes(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """One class for every cell: that of most of its pixels.

    Args:
        labels: int (H, W), 0 = background, ids >= 0.
        classes: int (H, W), >= 0; 0 = no class, which has no vote.

    Returns:
        int32 (H, W): 0 on background, else the class of the cell that the pixel lies in: the lower one of a tie, and 0
        for a cell without any vote.
    """
    ids, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(-1)
    num_classes = int(classes.max(initial=0)) + 1
    votes = np.bincount(compact * num_classes + classes.reshape(-1), minlength=len(ids) * num_classes)
    votes = votes.reshape(len(ids), num_classes)
    votes[:, 0] = 0
    winner = np.where(ids > 0, votes.argmax(axis=1), 0).astype(np.int32)
    return winner[compact].reshape(labels.shape)
