"""Contrast and channels: what is 0 and what is 1 in an image, and which of its channels are taken.

Files are read and written in `pipelines.images`; of an image on disk, `pipelines.working_copies` measures the contrast.
"""

import difflib
from collections.abc import Sequence

import numpy as np

from pipelines.errors import InputError

CHANNELS = ("grey", "rgb")


def contrast_limits(image: np.ndarray, low: float = 2.0, high: float = 98.0) -> tuple[float, float]:
    """Percentiles `low` and `high` over all pixels and channels together, equal to `np.percentile`'s.

    Where the two are one value although the image is not constant (a few bright cells on a black ground), they
    would tell cells and ground apart no more: minimum and maximum are given instead.
    """
    if image.dtype in (np.uint8, np.uint16):
        return limits_of_counts(np.bincount(image.ravel()), low, high)
    first, last = (float(value) for value in np.percentile(image, [low, high]))
    return (first, last) if first < last else (float(image.min()), float(image.max()))


def ranks_of_percentile(count: int, percent: float) -> tuple[int, int, float]:
    """Where a percentile lies among `count` sorted values: before it, after it (from 0), and how far between them.

    As numpy's "linear": at position (count - 1) * percent / 100.
    """
    position = (count - 1) * (percent / 100)
    return int(np.floor(position)), int(np.ceil(position)), float(position - np.floor(position))


def interpolated(left: float, right: float, step: float, share: float) -> float:
    """Between two neighbours, right - left = step; in numpy's two forms, so that the last bit agrees as well."""
    return float(left + step * share if share < 0.5 else right - step * (1 - share))


def limits_of_counts(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """`contrast_limits` of an image of whole numbers, from how often each number 0, 1, ... occurs in it."""
    cumulated = np.cumsum(counts)

    def value(percent: float) -> float:
        before, after, share = ranks_of_percentile(int(cumulated[-1]), percent)
        left, right = (int(number) for number in np.searchsorted(cumulated, [before, after], side="right"))
        return interpolated(left, right, right - left, share)

    first, last = value(low), value(high)
    there = np.flatnonzero(counts)
    return (first, last) if first < last else (float(there[0]), float(there[-1]))


def stretch_contrast(
    image: np.ndarray,
    *,
    low: float = 2.0,
    high: float = 98.0,
    limits: tuple[float, float] | None = None,
    minimum_range: float = 0.0,
) -> np.ndarray:
    """(image - lo) / max(hi - lo, minimum_range), clipped to [0, 1], with one pair (lo, hi) for all channels.

    Args:
        image: (H, W, C), any real dtype.
        low, high: Percentiles that become 0 and 1.
        limits: (lo, hi) in the image's own values, for example those of the whole image when this is a tile of it;
            None measures them here (see `contrast_limits`).
        minimum_range: Least divisor, in the image's own values, so that a nearly empty frame is not blown up.

    Returns:
        float32, same shape. A constant image becomes zeros.
    """
    first, last = contrast_limits(image, low, high) if limits is None else limits
    divisor = max(last - first, minimum_range)
    if divisor <= 0:
        return np.zeros(image.shape, np.float32)
    # In place: this runs once a patch.
    stretched = image.astype(np.float32)
    stretched -= np.float32(first)
    stretched /= np.float32(divisor)
    np.maximum(stretched, np.float32(0), out=stretched)
    return np.minimum(stretched, np.float32(1), out=stretched)


def to_channels(image: np.ndarray, channels: str | Sequence[int] | None) -> np.ndarray:
    """Choose or make the channels of an image (H, W, C).

    Args:
        image: Any dtype; it is kept.
        channels: "grey": ITU-R 601 luminance 0.299 R + 0.587 G + 0.114 B, rounded to the dtype; one channel stays as
            it is. "rgb": one channel three times. A list of channel numbers picks those. None changes nothing.

    Raises:
        InputError: Unknown word, a channel that is not there, or a number of channels that is neither 1 nor 3.
    """
    count = image.shape[-1]
    if channels is None:
        return image
    if not isinstance(channels, str):
        picked = list(channels)
        if not picked or not all(isinstance(number, int) and 0 <= number < count for number in picked):
            raise InputError(f"data.channels is {picked}, but the image has channels 0 to {count - 1}.")
        return image[..., picked]
    if channels not in CHANNELS:
        near = difflib.get_close_matches(channels, CHANNELS, 1, 0.0)[0]
        raise InputError(f"data.channels is '{channels}'. Did you mean '{near}'? Known: grey, rgb, or a list as [0].")
    if count not in (1, 3):
        raise InputError(
            f"data.channels is '{channels}', but the image has {count} channels: which of them are red, green and "
            "blue is not known. Pick by number, for example channels: [0]."
        )
    if channels == "rgb":
        return image if count == 3 else np.repeat(image, 3, axis=-1)
    if count == 1 or (image == image[..., :1]).all():
        return image[..., :1]
    # Sums of our own: those of a matrix product may differ in the last bit between an image and a window of it.
    red, green, blue = (np.float64(share) * image[..., i] for i, share in enumerate((0.299, 0.587, 0.114)))
    grey = red + green + blue
    return (np.rint(grey) if image.dtype.kind in "ui" else grey).astype(image.dtype)[..., np.newaxis]
