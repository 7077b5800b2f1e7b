"""Sample: one image with its truth, checked once, at the door.

Reading files is the work of `pipelines.images` and `pipelines.sources`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import InputError

IMAGE_DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and what is known about it.

    Args:
        image: (H, W, C), uint8, uint16 or float32, as in the file: nothing is rescaled here.
        labels: int32 (H, W), 0 = background, 1..n = one cell each; None where there is no truth.
        name: Unique in its data set, for example `01/t000`; parts joined by `/`.
        source: Sequence, volume or group that the image comes from; "" where there is none.
        frame: Time point or slice, 0-based as in the file name; None for unordered images.
        classes: int32 (H, W), class of each pixel, 0 = background; None where there are no classes.
        weight_map: float32 (H, W), how much each pixel counts in the loss; None = one everywhere.
        ignore: bool (H, W), True = unannotated: weight 0 in every loss, left out of every score.
        spacing_um: (row, column) pixel size in micrometres, where known.
        interval_s: Seconds between frames, where known.

    Raises:
        InputError: wrong shapes or dtypes, sides that differ, NaN or infinity in a float image, a negative label.
    """

    image: np.ndarray
    labels: np.ndarray | None
    name: str
    source: str = ""
    frame: int | None = None
    classes: np.ndarray | None = None
    weight_map: np.ndarray | None = None
    ignore: np.ndarray | None = None
    spacing_um: tuple[float, float] | None = None
    interval_s: float | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.size == 0:
            raise InputError(f"{self.name}: an image must be (H, W, C) and not empty, got shape {self.image.shape}.")
        if self.image.dtype.name not in IMAGE_DTYPES:
            raise InputError(
                f"{self.name}: an image must be one of {', '.join(IMAGE_DTYPES)}, got {self.image.dtype}. "
                "Save it again as 8- or 16-bit unsigned integers."
            )
        if self.image.dtype.kind == "f" and not np.isfinite(self.image).all():
            bad = int(np.count_nonzero(~np.isfinite(self.image)))
            raise InputError(f"{self.name}: {bad} pixels are NaN or infinite. Replace them by numbers.")
        for what in ("labels", "classes", "weight_map", "ignore"):
            self._check_map(what)
        if self.labels is not None and self.labels.size and self.labels.min() < 0:
            raise InputError(f"{self.name}: labels must be >= 0 (0 = background), got {self.labels.min()}.")

    def _check_map(self, what: str) -> None:
        array = getattr(self, what)
        if array is None:
            return
        dtype = {"labels": "int32", "classes": "int32", "weight_map": "float32", "ignore": "bool"}[what]
        if array.dtype.name != dtype:
            raise InputError(f"{self.name}: {what} must be {dtype}, got {array.dtype}.")
        if array.shape != self.image.shape[:2]:
            raise InputError(
                f"{self.name}: the image is {self.image.shape[0]}x{self.image.shape[1]} pixels, but its {what} "
                f"are {'x'.join(map(str, array.shape))}. They must be the same size."
            )


@dataclass(frozen=True, slots=True)
class Item:
    """One image that a source has found but not read: its place in the data set is known before its pixels.

    Args:
        name, source, frame: As in `Sample`.
        load: Reads the files and returns the `Sample`. Picklable (a `functools.partial` of a module-level
            function), so that worker processes can run it.
        files: What `load` reads, for messages and to notice changes. As text they take a fifth of the memory.
        published: "train" or "test" where the data set itself says so, else "".
        stratum: Class of the whole image, by which a split by image is stratified; "" = none.
        group: Images of one group (a patient, for example) never lie in two splits by image; "" = none.
    """

    name: str
    load: Callable[[], Sample]
    source: str = ""
    frame: int | None = None
    files: tuple[Path | str, ...] = ()
    published: str = ""
    stratum: str = ""
    group: str = ""
