"""Cuts: where one connected piece of foreground falls into cells.

Finding the pieces, and numbering what they fall into, is the work of `cellseg.instances` and `cellseg.merging`.
"""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from scipy import ndimage
from skimage import segmentation
from skimage.morphology import h_maxima, local_maxima, reconstruction

from pipelines.errors import InputError

NEIGHBOURS = np.ones((3, 3), np.uint8)
TRUNCATE = 4.0  # a Gaussian reaches this many sigmas
NO_INNER = (
    "instances.name 'seeded' needs `inner`, which says where the middle of each cell is; a foreground alone can be cut "
    "by 'watershed'."
)


class Cut(Protocol):
    """Where one connected piece falls into cells. It sees nothing else, so that pieces can be cut one by one.

    Attributes:
        margin: Pixels round the piece that it must see, as far as the image goes.
    """

    @property
    def margin(self) -> int:
        """See above."""

    def __call__(self, piece: np.ndarray, inner: np.ndarray | None = None) -> np.ndarray | None:
        """Cells 1..n of a piece.

        Args:
            piece: bool (h, w).
            inner: float (h, w), how far inside of a cell each pixel lies, where the network says that.

        Returns:
            int (h, w), 0 outside of the piece; None where it is a single cell.
        """


@dataclass(frozen=True)
class Necks:
    """The cut of `instances.watershed`: at a piece's narrow places.

    Raises:
        InputError: an option outside its range.
    """

    sigma: float
    depth: float

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and self.depth > 0):
            raise InputError(f"sigma must be >= 0 and depth > 0 pixels, got sigma {self.sigma} and depth {self.depth}.")

    @property
    def margin(self) -> int:
        """Reach of the smoothing; 1 px of background at least, which the distances are measured to."""
        return max(1, _reach(self.sigma))

    def __call__(self, piece: np.ndarray, inner: np.ndarray | None = None) -> np.ndarray | None:
        """See `Cut`."""
        # The background pixel next to a pixel touches the pixel's own piece, so no other piece changes the distance.
        # The frame counts as background nowhere: a cell cut by the image border keeps its hill.
        distance = _smoothed(ndimage.distance_transform_edt(piece), piece, self.sigma)
        # `h_maxima` takes ten times as long as what tells that a piece has one summit, or none that is high enough.
        if distance.max() < self.depth or _num_summits(distance, piece) < 2:
            return None
        hills, num_hills = ndimage.label(piece & (h_maxima(distance, self.depth) > 0), structure=NEIGHBOURS)
        return None if num_hills < 2 else _flooded(distance, hills, piece)


@dataclass(frozen=True)
class Seeds:
    """The cut of `instances.seeded`: between the hills of what the network says of the cells' middles.

    Raises:
        InputError: an option outside its range.
    """

    sigma: float
    depth: float
    seed_threshold: float

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and 0 < self.depth <= 1 and 0 <= self.seed_threshold <= 1):
            raise InputError(
                "sigma must be >= 0 pixels, depth above 0 and at most 1, and seed_threshold in [0, 1], got sigma "
                f"{self.sigma}, depth {self.depth} and seed_threshold {self.seed_threshold}."
            )

    @property
    def margin(self) -> int:
        """Reach of the smoothing; 1 px of background at least, which the hills rise from."""
        return max(1, _reach(self.sigma))

    def __call__(self, piece: np.ndarray, inner: np.ndarray | None = None) -> np.ndarray | None:
        """See `Cut`."""
        if inner is None:
            raise InputError(NO_INNER)
        height = _smoothed(inner, piece, self.sigma)
        if _num_summits(height, piece & (height >= self.seed_threshold)) < 2:
            return None
        # Not `h_maxima`, which takes two summits of the same height for two hills however shallow the dip: here many
        # have exactly 1, the end of a sigmoid in float32.
        lowered = reconstruction(height - self.depth, height)
        hills, num_hills = ndimage.label(piece & local_maxima(lowered), structure=NEIGHBOURS)
        if num_hills < 2:
            return None
        high = np.asarray(ndimage.maximum(height, hills, np.arange(1, num_hills + 1))) >= self.seed_threshold
        seeds = np.zeros(num_hills + 1, np.int32)
        seeds[1:][high] = np.arange(1, np.count_nonzero(high) + 1)
        return None if seeds.max() < 2 else _flooded(height, seeds[hills], piece)


def _reach(sigma: float) -> int:
    return int(TRUNCATE * sigma + 0.5)


def _smoothed(height: np.ndarray, piece: np.ndarray, sigma: float) -> np.ndarray:
    """Heights of the piece after smoothing, float (h, w), 0 outside."""
    if sigma > 0:
        height = ndimage.gaussian_filter(height, sigma, truncate=TRUNCATE)
    return np.where(piece, height, 0)


def _num_summits(height: np.ndarray, where: np.ndarray) -> int:
    """Number of pixels, or groups of them, that no neighbour is higher than."""
    summits = where & (height == cv2.dilate(height, NEIGHBOURS))
    return cv2.connectedComponents(summits.astype(np.uint8), connectivity=8)[0] - 1


def _flooded(height: np.ndarray, seeds: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Seeds 1..n grown downhill over the piece until they meet."""
    return segmentation.watershed(-height, seeds, mask=piece, connectivity=2)
