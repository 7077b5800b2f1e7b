"""Alignment: whether the truth lies where the images have their edges, or looks shifted against them.

A check of data, for a warning; nothing is moved.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

REACH = 24  # px, the largest shift that is looked for
SMALLEST = 3  # px; annotators draw cells too large or too small by as much
FEWEST, MANY = 3, 8  # images
IMAGES = 16  # more are not looked at
SIDE = 1024  # px; of a larger image, its middle


@dataclass(frozen=True)
class Shift:
    """The truth fits the images better where it is moved by (rows, columns).

    Args:
        rows, columns: To add to the truth's places; 0, 0 = it fits best where it is.
        before, after: Mean correlation of truth outlines and image edges as they are, and moved.
        images: How many were looked at.
        agree: How many of them fit better moved.
    """

    rows: int
    columns: int
    before: float
    after: float
    images: int
    agree: int

    @property
    def suspicious(self) -> bool:
        """Whether that is worth a warning: far enough, clear enough, and the same in nearly all images.

        Of few images, some shift of 2,401 fits by chance; a faint correlation counts where many have it.
        """
        far = max(abs(self.rows), abs(self.columns)) >= SMALLEST
        clear = self.after >= (0.03 if self.images >= MANY else 0.1) and self.after >= 1.3 * max(self.before, 0.0)
        return far and clear and self.images >= FEWEST and self.agree >= 0.8 * self.images

    def told(self) -> str:
        """The warning."""
        return (
            f"The truth looks shifted against the images: in {self.agree} of {self.images} images its outlines lie "
            f"better on edges where it is moved by {self.rows} rows and {self.columns} columns (correlation "
            f"{self.after:.3f}, as it is {max(self.before, 0.0):.3f}). Look at preview.png; an export with an offset, "
            "or images and labels that were cropped differently, make this."
        )


def shift_of(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Shift | None:
    """The one shift of all truths that brings their outlines best onto edges of the images.

    Edges are the magnitude of the gradient of the blurred image; for each shift of at most 24 px their correlation
    with the outlines is taken, and its mean over the images. Of shifts that differ by at most a pixel from none, the
    best counts as none.

    Args:
        pairs: (image (H, W) or (H, W, C), labels int (H, W)); images without cells, or smaller than 96 px, are passed
            over, and after 16 no more is looked at.

    Returns:
        None if no image could be looked at.
    """
    maps: list[np.ndarray] = []
    for image, labels in pairs:
        if len(maps) == IMAGES:
            break
        image, labels = _middle(image), _middle(labels)
        outlines = _outlines(labels)
        if min(labels.shape) >= 4 * REACH and outlines.any():
            maps.append(_correlations(_edges(image, outlines), outlines))
    if not maps:
        return None
    mean = np.mean(maps, axis=0)
    row, column = (int(place) for place in np.unravel_index(mean.argmax(), mean.shape))
    near = (slice(REACH - 1, REACH + 2),) * 2
    agree = sum(bool(one[row, column] > one[near].max()) for one in maps)
    return Shift(row - REACH, column - REACH, float(mean[near].max()), float(mean[row, column]), len(maps), agree)


def _middle(array: np.ndarray) -> np.ndarray:
    height, width = array.shape[:2]
    top, left = max(0, height - SIDE) // 2, max(0, width - SIDE) // 2
    return array[top : top + SIDE, left : left + SIDE]


def _edges(image: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    blurred = cv2.GaussianBlur(grey, (0, 0), 1.5)
    rows, columns = (cv2.Sobel(blurred, cv2.CV_32F, dx, 1 - dx) for dx in (0, 1))
    edges = np.hypot(rows, columns)
    # A few bright specks must not outvote all cells: half as many pixels as outlines have count as the strongest.
    return np.minimum(edges, np.quantile(edges, 1 - min(0.02, float(outlines.mean()) / 2)))


def _outlines(labels: np.ndarray) -> np.ndarray:
    outlines = np.zeros(labels.shape, np.float32)
    differs = labels[1:] != labels[:-1]
    outlines[1:][differs] = outlines[:-1][differs] = 1
    differs = labels[:, 1:] != labels[:, :-1]
    outlines[:, 1:][differs] = outlines[:, :-1][differs] = 1
    return outlines


def _correlations(edges: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """float (2 REACH + 1, 2 REACH + 1): Pearson correlation of the edges with the outlines moved by -REACH..REACH."""
    inner = edges[REACH:-REACH, REACH:-REACH]
    one = (inner - inner.mean()) / max(float(inner.std()), 1e-9)
    other = (outlines - outlines.mean()) / max(float(outlines.std()), 1e-9)
    # matchTemplate slides the inner edges over the outlines: place (0, 0) is where the outlines move by +REACH.
    found = cv2.matchTemplate(other.astype(np.float32), one.astype(np.float32), cv2.TM_CCORR) / one.size
    return found[::-1, ::-1]
