"""Targets: what the network must output, made from labels. How much a pixel counts is the weight map's business."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from pipelines.errors import InputError

SPARSE = 65_535  # ids above are made compact first: the windows are listed up to the largest id


def foreground(labels: np.ndarray, classes: np.ndarray | None = None, *, softmax: bool = False) -> np.ndarray:
    """1 inside cells, 0 outside.

    Args:
        labels: int array (h, w), 0 = background.
        classes: Not used.
        softmax: Two channels, background and foreground, for a network that ends in a softmax as that of 2015 does.

    Returns:
        float32 (h, w, 1), or (h, w, 2) one-hot with `softmax`; no foreground without cells.
    """
    inside = labels > 0
    return np.stack([~inside, inside] if softmax else [inside], axis=-1).astype(np.float32)


def foreground_border(labels: np.ndarray, classes: np.ndarray | None = None, *, width: int = 2) -> np.ndarray:
    """Background, interior and border of cells, so that touching cells are separated.

    The border is what of a cell lies within `width` pixels of a pixel that is not of this cell: background or another
    cell. The edge of the array is no border. A cell that would be all border keeps its innermost pixels as interior,
    so that it does not get lost between its neighbours.

    Args:
        labels: int array (h, w), 0 = background.
        classes: Not used.
        width: Of the border, in pixels, at least 1.

    Returns:
        float32 (h, w, 3), one-hot; all background without cells.

    Raises:
        InputError: `width` is below 1.

    Reference:
        Caicedo et al. 2019, doi:10.1002/cyto.a.23863, whose border lies on both sides of the outline; as in BiaPy, ours
        lies inside.
    """
    if width < 1:
        raise InputError(f"target.width must be at least 1 pixel, got {width}.")
    inside, deepest = _depth(labels)
    interior = (labels > 0) & ((inside > width) | (inside == deepest))
    return np.stack([labels == 0, interior, (labels > 0) & ~interior], axis=-1).astype(np.float32)


def distance(labels: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Distance to the nearest pixel that is not of this cell, divided by the largest in the cell.

    The edge of the array is no boundary: a cell is taken to go on there. A cell that fills the whole array is 1.

    Args:
        labels: int array (h, w), 0 = background.
        classes: Not used.

    Returns:
        float32 (h, w, 1): in (0, 1] inside cells, where each cell reaches 1; 0 on background.
    """
    inside, deepest = _depth(labels)
    return np.divide(inside, deepest, out=np.zeros_like(inside), where=labels > 0)[..., None]


def foreground_distance(labels: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Foreground, and how deep inside of its cell a pixel lies: where cells are, and where one ends.

    Args:
        labels: int array (h, w), 0 = background.
        classes: Not used.

    Returns:
        float32 (h, w, 2): that of `foreground`, then that of `distance`; all 0 without cells.

    Reference:
        Naylor et al. 2019, https://doi.org/10.1109/TMI.2018.2865709 (distance maps alone).
    """
    return np.concatenate([foreground(labels), distance(labels)], axis=-1)


def classes(labels: np.ndarray, classes: np.ndarray | None, *, num_classes: int) -> np.ndarray:
    """Background and the class of each cell.

    Args:
        labels: int array (h, w), 0 = background.
        classes: int array (h, w), 1 to `num_classes` inside cells; 0 = a cell whose class is not known.
        num_classes: Number of classes.

    Returns:
        float32 (h, w, num_classes + 1), one-hot, channel 0 background. A cell of unknown class has zeros in all
        channels, so that a cross entropy passes over it.

    Raises:
        InputError: no classes, or one that is not in 0 to `num_classes`.
    """
    if classes is None:
        raise InputError("target 'classes' needs the class of each cell, and these data hold none.")
    kinds = np.where(labels > 0, classes, 0)
    if kinds.size and (kinds.min() < 0 or kinds.max() > num_classes):
        wrong = sorted({int(kind) for kind in np.unique(kinds) if not 0 <= kind <= num_classes})
        raise InputError(f"Cells are of class {wrong}, but the classes are 1 to {num_classes}.")
    target = (kinds[..., None] == np.arange(num_classes + 1)).astype(np.float32)
    target[..., 0] = labels == 0
    return target


def num_outputs(name: str, **options: Any) -> int:
    """Number of channels of a target: a key of `TARGETS` and keywords of its function."""
    blank = np.zeros((1, 1), np.int32)
    return TARGETS[name](blank, blank, **options).shape[-1]


def _depth(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each cell's pixels to the nearest pixel outside of the cell, and the largest in its cell.

    Both float32 (h, w), 0 on background; both 1 in a cell that fills the array.
    """
    inside, deepest = np.zeros(labels.shape, np.float32), np.zeros(labels.shape, np.float32)
    if labels.size and labels.max() > SPARSE:
        ids, compact = np.unique(labels, return_inverse=True)
        labels = compact.reshape(labels.shape) + (ids[0] > 0)
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        # One pixel of the surroundings, except where the array ends.
        window = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in window)
        cell = labels[window] == number
        depth = np.ones(cell.shape, np.float32)
        if not cell.all():
            depth = cv2.distanceTransform(cell.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        inside[window][cell] = depth[cell]
        deepest[window][cell] = depth.max()
    return inside, deepest


TARGETS: dict[str, Callable[..., np.ndarray]] = {
    "foreground": foreground,
    "foreground_border": foreground_border,
    "distance": distance,
    "foreground_distance": foreground_distance,
    "classes": classes,
}
