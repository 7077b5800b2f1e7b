"""Working copies: a page of a raster as plain pixels on disk, checked, and the contrast limits of all of it.

Rasters are read in `pipelines.rasters`; of an image in memory, `pipelines.contrast` measures the contrast.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pipelines.contrast import interpolated, limits_of_counts, ranks_of_percentile
from pipelines.disk import DiskArray
from pipelines.errors import InputError
from pipelines.rasters import Raster

Channels = Callable[[np.ndarray], np.ndarray]  # (h, w, C) -> (h, w, C'), pixel by pixel


def working_copy(
    raster: Raster, page: int, path: Path, *, channels: Channels, num_bytes: int
) -> tuple[DiskArray, bool]:
    """Copy a page to disk, uncompressed: every later window costs one read, and damage shows before the long work.

    Args:
        raster, page: What is copied.
        path: New file.
        channels: What is made of the channels of a window.
        num_bytes: About as much is read at once, or one block of the file.

    Returns:
        (copy, grey): (H, W, C'), and whether all its channels are equal everywhere.

    Raises:
        InputError: damaged, NaN or infinity, or values that no image may hold.
    """
    copy, grey, bad = None, True, 0
    for rows, columns in raster.windows(num_bytes):
        window = raster.read(page, rows, columns)
        if window.dtype.kind == "f":
            bad += int(np.count_nonzero(~np.isfinite(window)))
        window = channels(window)
        if copy is None:
            copy = DiskArray(path, (*raster.shape[:2], window.shape[2]), window.dtype)
        copy.write(rows.start, columns.start, window)
        grey = grey and bool((window == window[..., :1]).all())
    if bad:
        raise InputError(f"{raster.path}: {bad} pixels are NaN or infinite. Replace them before preparing.")
    if copy is None:
        raise InputError(f"{raster.path} holds no pixels.")
    return copy, grey


def limits_on_disk(image: DiskArray, low: float, high: float, *, num_bytes: int) -> tuple[float, float]:
    """`pipelines.contrast.contrast_limits` of an image on disk, equal to the last bit.

    Args:
        image: (H, W, C), uint8, uint16 or float32 without NaN.
        low, high: Percentiles.
        num_bytes: About as much is held at once.
    """

    def values() -> Iterator[np.ndarray]:
        rows = max(1, num_bytes // (image.shape[1] * image.shape[2] * 8))
        for first in range(0, image.shape[0], rows):
            yield image.read(slice(first, first + rows)).reshape(-1)

    if image.dtype.kind != "f":
        length = 1 << 8 * image.dtype.itemsize
        return limits_of_counts(_counted(values(), length), low, high)
    # Two passes over the halves of the numbers' bits, which are sorted as the numbers are.
    cumulated = np.cumsum(_counted((_sortable(some) >> 16 for some in values()), 1 << 16))
    total = int(cumulated[-1])
    ranks = [ranks_of_percentile(total, percent) for percent in (low, high)]
    wanted = sorted({0, total - 1, *(rank for before, after, _ in ranks for rank in (before, after))})
    buckets = {rank: int(np.searchsorted(cumulated, rank, side="right")) for rank in wanted}
    halves = {bucket: np.zeros(1 << 16, np.int64) for bucket in buckets.values()}
    for some in values():
        bits = _sortable(some)
        for bucket, found in halves.items():
            found += np.bincount(bits[bits >> 16 == bucket] & 0xFFFF, minlength=1 << 16)
    number = {}
    for rank, bucket in buckets.items():
        before = int(cumulated[bucket - 1]) if bucket else 0
        low_half = int(np.searchsorted(np.cumsum(halves[bucket]), rank - before, side="right"))
        number[rank] = _unsorted(np.uint32(bucket << 16 | low_half))
    first, last = (
        interpolated(float(number[a]), float(number[b]), float(number[b] - number[a]), share) for a, b, share in ranks
    )
    return (first, last) if first < last else (float(number[0]), float(number[total - 1]))


def _sortable(values: np.ndarray) -> np.ndarray:
    """uint32 in the order of the float32 numbers: all bits of negative ones are turned, of others the sign."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _unsorted(bits: np.uint32) -> np.float32:
    return np.float32(np.array(bits & np.uint32(0x7FFFFFFF) if bits >> 31 else ~bits, np.uint32).view(np.float32))


def _counted(parts: Iterable[np.ndarray], length: int) -> np.ndarray:
    """How often each number below `length` occurs."""
    counts = np.zeros(length, np.int64)
    for part in parts:
        counts += np.bincount(part, minlength=length)
    return counts
