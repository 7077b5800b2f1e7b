"""Warping error: what is left of a prediction's mistakes once shifted boundaries are forgiven.

The other measures of the ISBI 2012 challenge live in `cellseg.metrics.rand`.
"""

from functools import cache

import numpy as np

from cellseg.metrics.measure import Measure, itself, quotient
from cellseg.metrics.pixel import check_maps, foreground


def warping_error(
    image_true: np.ndarray, image_pred: np.ndarray, ignore: np.ndarray | None = None, *, threshold: float = 0.5
) -> float:
    """Share of pixels that differ after the truth is warped towards the prediction; in [0, 1], lower is better.

    Warping flips pixels that change no topology (`warp`), so a boundary may move, but no cell may split, merge, appear
    or vanish. Of single cells it sees only those that background parts: touching labels are one region. Both empty: 0;
    one empty: what a cell shrunk to a pixel leaves. No annotated pixel: NaN. Pooled, the mean over pixels.

    Args:
        image_true: integer labels (H, W), foreground > 0; or float in [0, 1], foreground > 0.5; or bool.
        image_pred: The same for the prediction; of a float image the surest mistakes are flipped first.
        ignore: bool, the same shape; unannotated pixels are not flipped and not counted.
        threshold: Foreground of a float prediction is where it is greater.

    Reference:
        Jain et al. 2010, https://doi.org/10.1109/CVPR.2010.5539950; Fiji's `WarpingError`, whose order of flips we keep
    """
    return quotient(_count_warping(image_true, image_pred, ignore, threshold=threshold))


def warp(
    mask: np.ndarray, target: np.ndarray, ignore: np.ndarray | None = None, *, sureness: np.ndarray | None = None
) -> np.ndarray:
    """Flip pixels in which a mask differs from its target as long as no flip changes the mask's topology.

    A flip is allowed at a simple point: the pixel has one 4-connected neighbour region of foreground and one
    8-connected of background among its eight neighbours. Outside of the image is background. Passes over all
    differing pixels, the surest first and columns from left to right, go on until one leaves their number as it was.

    Args:
        mask: bool (H, W).
        target: bool, the same shape.
        ignore: bool, the same shape; True pixels stay as they are.
        sureness: float, the same shape; pixels of high values are flipped first. Without it all are equal.

    Returns:
        bool (H, W), the warped mask.
    """
    simple = _simple_points()
    height, width = mask.shape
    # One list, column after column, with background around it.
    state = np.pad(np.asarray(mask, dtype=np.int64).T, 1).ravel().tolist()
    step = height + 2
    # Bit k of a neighbourhood is the pixel that far away; the order is that of `_simple_points`.
    around = (-step - 1, -step, -step + 1, -1, 1, step - 1, step, step + 1)
    movable = np.ones(mask.shape, bool) if ignore is None else ~ignore
    wrong = np.asarray(mask) != target
    before = -1
    while (left := int(np.count_nonzero(wrong & movable))) not in (0, before):
        before = left
        columns, rows = np.nonzero((wrong & movable).T)
        if sureness is not None:
            order = np.argsort(-sureness[rows, columns], kind="stable")
            rows, columns = rows[order], columns[order]
        for here in ((columns + 1) * step + rows + 1).tolist():
            code = 0
            for bit, away in enumerate(around):
                code |= state[here + away] << bit
            if simple[code]:
                state[here] ^= 1
        now = np.array(state, bool).reshape(width + 2, step)[1:-1, 1:-1].T
        wrong = now != target
    return np.array(state, bool).reshape(width + 2, step)[1:-1, 1:-1].T.copy()


@cache
def _simple_points() -> list[bool]:
    """For each of the 256 neighbourhoods, whether flipping the pixel in the middle keeps the topology.

    For foreground that is 4-connected the number of its regions that touch the pixel (Yokoi's number) is the sum over
    the four sides of x_k - x_k x_(k+1) x_(k+2), around the ring; it is 1 at a simple point.
    """
    # The ring around the pixel, beginning with a side; sides and corners take turns.
    ring = [1, 2, 4, 7, 6, 5, 3, 0]
    found = []
    for code in range(256):
        pixels = [code >> bit & 1 for bit in ring]
        found.append(sum(pixels[k] - pixels[k] * pixels[k + 1] * pixels[(k + 2) % 8] for k in (0, 2, 4, 6)) == 1)
    return found


def _count_warping(
    image_true: np.ndarray, image_pred: np.ndarray, ignore: np.ndarray | None = None, *, threshold: float = 0.5
) -> np.ndarray:
    """(pixels that still differ, pixels)."""
    check_maps(image_true, image_pred, ignore)
    target = foreground(image_pred, threshold=threshold)
    sureness = None
    if np.asarray(image_pred).dtype.kind == "f":
        # In float32, where Fiji finds its ties.
        sureness = np.abs(np.asarray(image_pred, dtype=np.float64) - threshold).astype(np.float32)
    warped = warp(foreground(image_true), target, ignore, sureness=sureness)
    wrong = warped != target
    if ignore is not None:
        wrong = wrong[~ignore]
    return np.array([np.count_nonzero(wrong), wrong.size], dtype=float)


METRICS = {
    "warping_error": Measure(
        _count_warping, itself, quotient, higher_is_better=False, kind="pixel", takes_probability=True
    )
}
