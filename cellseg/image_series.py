"""Image series: the images of a sequence or volume by the number of their frame or section, whatever files they lie in.

Labels of a sequence are found by `cellseg.label_series`; pixels are read in `pipelines.images` and `pipelines.rasters`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cellseg.label_series import few, frame_numbers
from cellseg.results import find_inputs
from pipelines.calibration import read_interval_s, read_section_um
from pipelines.errors import InputError
from pipelines.files import check_name, readable
from pipelines.images import image_stem, read_page
from pipelines.numbering import gaps
from pipelines.ome_zarr import is_zarr
from pipelines.rasters import open_raster

ALL = slice(None)


@dataclass(frozen=True)
class ImageSeries:
    """Images in order.

    Args:
        name: What the series is called: its folder, or its stack.
        places: Frame -> (file, page), ascending.
    """

    name: str
    places: dict[int, tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, frame: int) -> np.ndarray:
        """The image of a frame, (H, W, C) as in the file."""
        path, page = self.places[frame]
        return open_raster(path).read(page, ALL) if is_zarr(path) else read_page(path, page)

    def where(self, frame: int) -> str:
        """The file of a frame, and its page where the file has several, for messages."""
        path, page = self.places[frame]
        return f"{path}, page {page}" if len(self.files) < len(self) else str(path)

    @cached_property
    def files(self) -> list[Path]:
        """The files, each once, in order."""
        return list(dict.fromkeys(path for path, _ in self.places.values()))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the first image."""
        return open_raster(self.files[0]).shape[:2]

    def check_sizes(self) -> None:
        """Raise InputError, which names two files, unless all images have one size; their headers alone are read."""
        first: tuple[Path, tuple[int, ...]] | None = None
        for path in self.files:
            try:
                shape = open_raster(path).shape[:2]
            except (InputError, OSError):
                continue  # whoever reads it says what is wrong
            first = first or (path, shape)
            if shape != first[1]:
                one, other = ("x".join(map(str, size)) for size in (first[1], shape))
                raise InputError(
                    f"{first[0]} is {one} pixels, but {path} is {other}. All images of a sequence or volume must have "
                    "one size; crop them alike."
                )

    @property
    def spacing_um(self) -> tuple[float, float] | None:
        """(row, column) pixel size, where the first file knows it."""
        return open_raster(self.files[0]).spacing_um

    @property
    def interval_s(self) -> float | None:
        """Seconds between frames, where the first file knows them."""
        return read_interval_s(self.files[0])

    @property
    def section_um(self) -> float | None:
        """Distance of sections, where the first file knows it."""
        return read_section_um(self.files[0])

    def missing(self) -> list[range]:
        """Numbers between the first and the last that have no image; see `pipelines.numbering.gaps`."""
        return gaps(self.places)

    def matched(self, frames: Sequence[int], where: Mapping[int, str]) -> "ImageSeries":
        """The images of some frames: by number, or where the numbers differ, in order.

        Args:
            frames: Ascending.
            where: Frame -> what it has labels in, for the message.

        Raises:
            InputError: Neither fits.
        """
        missing = [frame for frame in frames if frame not in self.places]
        if not missing:
            return ImageSeries(self.name, {frame: self.places[frame] for frame in frames})
        if len(self.places) == len(frames):
            return ImageSeries(self.name, dict(zip(frames, self.places.values(), strict=True)))
        raise InputError(
            f"The images {self.name} have no image for {len(missing)} of {len(frames)} frames of labels, for example "
            f"frame {missing[0]} ({where[missing[0]]}). Images and labels are matched by the number in their names."
        )


def find_images(inputs: Path | str | Sequence[Path | str]) -> ImageSeries:
    """The images of one sequence or volume.

    Args:
        inputs: A folder of images whose names differ in one number, one stack (TIFF of several pages, OME-Zarr) or a
            folder that holds one stack and nothing else; or the images of a series one by one.

    Raises:
        FileNotFoundError: Something is not there.
        InputError: Several folders or stacks, names that are no series or no text, two files of one number.
    """
    given = [Path(inputs)] if isinstance(inputs, Path | str) else [Path(one) for one in inputs]
    if len(given) > 1 and any(path.is_dir() for path in given):
        raise InputError(
            f"{few(given)} are {len(given)} inputs. One sequence or volume was expected: a folder of numbered images, "
            "or a stack. Give the others to calls of their own."
        )
    files = find_inputs(given)
    for path in files:
        check_name(path)
    if len(files) == 1 and (pages := _num_pages(files[0])) > 1:
        return ImageSeries(image_stem(files[0]), {page: (files[0], page) for page in range(pages)})
    numbered = frame_numbers(files)
    for path in files:
        if (pages := _num_pages(path)) > 1:
            raise InputError(
                f"{path} holds {pages} pages, and there are {len(files)} files. Give one stack, or images of one page "
                "each."
            )
    name = given[0].resolve().name if given[0].is_dir() else files[0].resolve().parent.name
    return ImageSeries(readable(name), {frame: (path, 0) for frame, path in numbered.items()})


def _num_pages(path: Path) -> int:
    """Pages of a file; 1 for a damaged one, which fails when it is read."""
    try:
        return open_raster(path).pages
    except (InputError, OSError):
        return 1
