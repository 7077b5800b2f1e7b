"""Answers: what the channels of a network's probability say: foreground, and the class of each pixel and each cell.

Cutting the foreground into cells is the work of `cellseg.instances`.
"""

from typing import Literal

import numpy as np

Decision = Literal["threshold", "argmax"]
FOREGROUND_FIRST = ("distance", "foreground_distance")  # targets whose first channel is not the background
INNER_CHANNEL = {"foreground_border": 1, "distance": 0, "foreground_distance": 1}


def foreground(probability: np.ndarray, *, target: str = "foreground", decision: Decision = "threshold") -> np.ndarray:
    """Probability of foreground.

    Args:
        probability: float (H, W, K). Of the targets `foreground` with K = 1, `distance` and `foreground_distance` the
            first channel is the answer; the others are a softmax over classes, background first.
        target: Name of what the network was trained on, from `pipelines.targets.TARGETS`.
        decision: `threshold`: 1 - p(background), to be thresholded where validation images say. `argmax`: the most
            probable class c of the others against the background alone, p(c) / (p(c) + p(background)), which is at
            least 0.5 exactly where the background is not more probable than every class. Both are the same for K <= 2.

    Returns:
        float32 (H, W) in [0, 1].
    """
    if probability.shape[2] == 1 or target in FOREGROUND_FIRST:
        return probability[..., 0].astype(np.float32, copy=False)
    background = probability[..., 0]
    if decision == "threshold":
        return (1 - background).astype(np.float32)
    strongest = probability[..., 1:].max(axis=2)
    total = strongest + background
    return np.divide(strongest, total, out=np.zeros(total.shape, np.float32), where=total > 0, dtype=np.float32)


def inner(probability: np.ndarray, *, target: str) -> np.ndarray | None:
    """How far inside of a cell each pixel lies, which tells touching cells apart: high in the middle of each.

    Args:
        probability: float (H, W, K).
        target: Name of what the network was trained on, from `pipelines.targets.TARGETS`.

    Returns:
        float32 (H, W) in [0, 1]; None where the target does not say it (`foreground`, `classes`).
    """
    channel = INNER_CHANNEL.get(target)
    return None if channel is None else probability[..., channel].astype(np.float32, copy=False)


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
