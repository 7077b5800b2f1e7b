"""Weight maps: how much each pixel counts in the loss.

Losses themselves live in `cellseg.losses`; class balance is theirs, too. This room only makes the map.
"""

import numpy as np
from scipy import ndimage

REACH = 6.0  # sigmas; beyond, the ridge is below w0 * exp(-18), under half a float32 step of 1 + w0


def border(labels: np.ndarray, *, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """1 + a ridge between neighbouring cells, so that the network learns the gaps between touching cells.

    w(x) = 1 + w0 * exp(-(d1(x) + d2(x))^2 / (2 sigma^2)) on background pixels and 1 on cells, where d1 and d2 are the
    distances to the nearest and the second nearest cell. The distances are taken in a window around each cell that
    holds every pixel where the ridge is not zero to float32; equal to the formula over all cells (tested).

    Args:
        labels: int array (H, W), 0 = background, one id a cell: a mask of touching cells has no gaps to learn.
        w0: Height of the ridge.  # Ronneberger 2015, sec. 3
        sigma: Width of the ridge, in pixels.  # likewise

    Returns:
        float32 (H, W), all >= 1. With fewer than two cells it is 1 everywhere.

    Raises:
        ValueError: `labels` is not a 2-D integer array, or sigma is not positive.

    Reference:
        Ronneberger, Fischer, Brox 2015, eq. 2, https://arxiv.org/abs/1505.04597
    """
    return 1 + border_ridge(labels, w0=w0, sigma=sigma)


def border_ridge(labels: np.ndarray, *, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """The ridge of `border` alone: float32 (H, W), 0 on cells and where fewer than two cells are near."""
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise ValueError(f"labels must be a 2-D integer array, got {labels.dtype} {labels.shape}.")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}.")
    ids, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.reshape(labels.shape) + (ids[0] != 0)  # 0 stays background, cells become 1..n
    nearest = np.full(labels.shape, np.inf)
    second = np.full(labels.shape, np.inf)
    # d1 + d2 <= REACH sigma where the ridge is not zero, so d2 is at most that and d1 at most half of it.
    margin = int(np.ceil(REACH * sigma))
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        window = tuple(
            slice(max(side.start - margin, 0), min(side.stop + margin, length))
            for side, length in zip(box, labels.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(numbers[window] != number)
        second[window] = np.minimum(second[window], np.maximum(nearest[window], distance))
        nearest[window] = np.minimum(nearest[window], distance)
    with np.errstate(over="ignore"):
        ridge = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(numbers == 0, ridge, 0).astype(np.float32)


WEIGHT_MAPS = {"border": border}
