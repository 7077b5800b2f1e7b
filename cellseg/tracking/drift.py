"""Drift: how far the neighbourhood of each cell has moved from one frame to the next.

What a cell does beside its neighbours is judged by `cellseg.tracking.hypotheses`.
"""

import numpy as np
from scipy.spatial import cKDTree

NEIGHBOURS = 12  # moving with the median of so many, a cell's own division or a wrong link does not count
MORE_SHARED, ENOUGH_SHARED = 1.1, 0.5


def local_motion(
    centres: np.ndarray, sources: np.ndarray, shifts: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Median shift of the nearest cells whose shift is known.

    Args:
        centres: float (n, 2), of the cells that are asked for.
        sources: float (m, 2), centres of the cells whose shift is known.
        shifts: float (m, 2), their shifts.
        neighbours: How many of them count.

    Returns:
        float64 (n, 2); zeros where fewer than three shifts are known: two cells say nothing about a third.
    """
    if len(sources) < 3 or not len(centres):
        return np.zeros((len(centres), 2))
    _, nearest = cKDTree(sources).query(centres, k=min(neighbours, len(sources)))
    return np.median(shifts[nearest], axis=1)


def common_shift(before: np.ndarray, after: np.ndarray, *, reach: int, step: int = 1) -> np.ndarray:
    """The shift of the whole frame that lays most foreground on foreground: a stage that has moved, a jump in time.

    Args:
        before, after: bool (H, W), foreground of two frames.
        reach: Largest shift that is looked for, in pixels along each axis.
        step: Only every so many pixels are looked at; the answer is a multiple of it.

    Returns:
        float64 (2,), (rows, columns). Zero unless it lays half of the foreground on foreground, and a tenth more than
        no shift at all does: cells that move for themselves must not draw the frame along.
    """
    before, after = before[::step, ::step], after[::step, ::step]
    if not before.any() or not after.any():
        return np.zeros(2)
    reaches = [min(reach // step, size - 1) for size in before.shape]
    # Padded, so that what leaves on one side does not come in on the other.
    shape = [size + far for size, far in zip(before.shape, reaches, strict=True)]
    spectrum = np.fft.rfft2(after, shape) * np.conj(np.fft.rfft2(before, shape))
    shared = np.rint(np.fft.irfft2(spectrum, shape))
    rows, columns = (np.r_[0 : far + 1, -far:0] for far in reaches)
    window = shared[np.ix_(rows, columns)]
    row, column = np.unravel_index(np.argmax(window), window.shape)
    enough = ENOUGH_SHARED * min(np.count_nonzero(before), np.count_nonzero(after))
    if window[row, column] < max(enough, MORE_SHARED * window[0, 0]):
        return np.zeros(2)
    return step * np.array([rows[row], columns[column]], np.float64)
