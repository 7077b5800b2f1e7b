"""Probability to labels: where one cell ends and the next begins.

Predicting the probability is the work of `cellseg.inference`, choosing the threshold of `cellseg.thresholds`.
"""

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from scipy import ndimage
from skimage import segmentation
from skimage.morphology import h_maxima

from pipelines.errors import InputError


def components(
    probability: np.ndarray,
    *,
    threshold: float = 0.5,
    min_size: int = 0,
    fill_holes: bool = False,
    connectivity: Literal[4, 8] = 8,
) -> np.ndarray:
    """Every connected piece of the foreground is one cell; touching cells become one.

    Args:
        probability: float (H, W) in [0, 1], or a bool mask.
        threshold: Foreground is probability >= threshold.
        min_size: Smaller pieces are dropped, in pixels; 0 and 1 keep all.
        fill_holes: Background enclosed by foreground becomes foreground, before pieces are told apart: a piece
            that lies in the hole of another joins it.
        connectivity: 8 joins pixels that touch at a corner, as scikit-image and MATLAB's bwlabel do; 4 does not
            (scipy.ndimage).

    Returns:
        int32 (H, W), 0 = background, 1..n in the order in which a scan by rows meets them. Nothing above the
        threshold: all 0.

    Raises:
        InputError: not a 2-D float or bool array, a NaN, or an option outside its range.
    """
    _check(probability, connectivity, min_size)
    mask = (probability if probability.dtype == bool else probability >= threshold).astype(np.uint8)
    if fill_holes:
        mask = _fill(mask, connectivity)
    _, labels = cv2.connectedComponents(mask, connectivity=connectivity, ltype=cv2.CV_32S)
    return _number(labels, min_size)


def watershed(
    probability: np.ndarray,
    *,
    threshold: float = 0.5,
    min_size: int = 0,
    fill_holes: bool = False,
    sigma: float = 1.0,
    depth: float = 0.75,
) -> np.ndarray:
    """The foreground is cut into cells at its narrow places: watershed on the distance to the background.

    Touching cells form one piece whose distance transform has a hill for each. The hills grow downwards until they
    meet, there the cut is made. A dip that is shallower than `depth` makes no cut.

    Args:
        probability: float (H, W) in [0, 1], or a bool mask.
        threshold: Foreground is probability >= threshold.
        min_size: Smaller cells are dropped, in pixels; 0 and 1 keep all.
        fill_holes: As in `components`.
        sigma: Gaussian smoothing of the distances, in pixels; 0 = none. Rough outlines make false hills.
        depth: How far a hill must rise above the pass to its higher neighbour to be a cell of its own, in pixels.

    Returns:
        int32 (H, W), 0 = background, 1..n in the order in which a scan by rows meets them. Nothing above the
        threshold: all 0.

    Raises:
        InputError: not a 2-D float or bool array, a NaN, or an option outside its range.

    Reference:
        Beucher, Lantuejoul 1979; scikit-image's `watershed` and `h_maxima`.
    """
    _check(probability, 8, min_size)
    if sigma < 0 or depth <= 0:
        raise InputError(f"sigma must be >= 0 and depth > 0 pixels, got sigma {sigma} and depth {depth}.")
    mask = probability if probability.dtype == bool else probability >= threshold
    if fill_holes:
        mask = _fill(mask.astype(np.uint8), 8).astype(bool)
    # The frame counts as background nowhere: a cell cut by the image border keeps its hill.
    distance = ndimage.distance_transform_edt(mask)
    if sigma > 0:
        distance = np.where(mask, ndimage.gaussian_filter(distance, sigma), 0)
    hills, _ = ndimage.label(h_maxima(distance, depth) & mask, structure=np.ones((3, 3)))
    # A piece whose hill is lower than `depth` has no marker; it is a small cell, not background.
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    lost = mask & ~np.isin(pieces, np.unique(pieces[hills > 0]))
    markers = np.where(lost, pieces + hills.max(), hills)
    labels = segmentation.watershed(-distance, markers, mask=mask, connectivity=2)
    return _number(labels.astype(np.int32), min_size)


def _check(probability: np.ndarray, connectivity: int, min_size: int) -> None:
    if probability.ndim != 2 or probability.size == 0:
        raise InputError(f"A probability must be (H, W) and not empty, got shape {probability.shape}.")
    if probability.dtype.kind not in "fb":
        raise InputError(
            f"A probability must be float in [0, 1] or a bool mask, got {probability.dtype}. "
            "For a 0/255 mask pass mask > 0."
        )
    if probability.dtype.kind == "f" and np.isnan(probability).any():
        raise InputError(f"{np.count_nonzero(np.isnan(probability))} pixels of the probability are NaN.")
    if connectivity not in (4, 8):
        raise InputError(f"connectivity must be 4 or 8, got {connectivity}.")
    if min_size < 0:
        raise InputError(f"min_size must be >= 0 pixels, got {min_size}.")


def _fill(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """Fill the pieces of background that do not reach the image border."""
    # The background is connected the other way, or a thin diagonal wall would leak.
    _, outside = cv2.connectedComponents(1 - mask, connectivity=12 - connectivity, ltype=cv2.CV_32S)
    reaches = np.unique(np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]]))
    return np.where((mask == 0) & np.isin(outside, reaches), 0, 1).astype(np.uint8)


def _number(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Drop small pieces and number the rest in scan order (OpenCV's own order goes by 2x2 blocks)."""
    flat = labels.ravel()
    foreground = np.flatnonzero(flat)
    num_labels = int(flat.max(initial=0)) + 1
    first = np.zeros(num_labels, dtype=np.int64)
    # Written back to front, so that the first pixel of each piece is the one that stays.
    first[flat[foreground[::-1]]] = foreground[::-1]
    kept = np.flatnonzero(np.bincount(flat, minlength=num_labels) >= min_size)
    kept = kept[kept > 0]
    new = np.zeros(num_labels, dtype=np.int32)
    new[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    return new[labels]


INSTANCES: dict[str, Callable[..., np.ndarray]] = {"components": components, "watershed": watershed}
