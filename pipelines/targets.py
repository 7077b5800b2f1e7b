"""Targets: what the network must output, made from labels. How much a pixel counts is the weight map's business."""

import numpy as np


def foreground(labels: np.ndarray) -> np.ndarray:
    """1 inside cells, 0 outside.

    Args:
        labels: int array (h, w), 0 = background.

    Returns:
        float32 (h, w, 1); all zeros without cells.
    """
    return (labels > 0).astype(np.float32)[..., None]


TARGETS = {"foreground": foreground}
NUM_OUTPUTS = {"foreground": 1}
