"""Rasters: images of any size on disk, read window by window: TIFF of all layouts, and OME-Zarr.

Whole images are read by `pipelines.images`, whose pixels these are; damage is found by `pipelines.damage`. OME-Zarr
itself is known by `pipelines.ome_zarr`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pipelines.damage import check_claim, damage_reported
from pipelines.decoding import TIFF_SUFFIXES, checked_suffix, picture_layout, read_spacing_um
from pipelines.disk import clipped
from pipelines.images import image_dtype, read_page
from pipelines.microscopes import MICROSCOPE_SUFFIXES, layout
from pipelines.ome_zarr import ZarrImage, is_zarr
from pipelines.tiffs import JPEG, arranged, check_channels, num_pages, open_tiff, plain


class Raster(ABC):
    """An image of one or several pages, all of one size.

    Attributes:
        path: The file or folder.
        pages: Number of pages.
        shape: (H, W, C) of a page.
        dtype: uint8, uint16 or float32; as `pipelines.images.read_pages`.
        spacing_um: (row, column) pixel size, where known.
        block: (rows, columns) of what is decoded at once; windows on its grid are read without waste.
        stored_bytes: Of a pixel as it is stored, with all channels.
    """

    path: Path
    pages: int
    shape: tuple[int, int, int]
    dtype: np.dtype
    spacing_um: tuple[float, float] | None
    block: tuple[int, int]
    stored_bytes: int

    @abstractmethod
    def read(self, page: int, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """The window at rows and columns of a page (from 0), cut off at the image's borders: (h, w, C).

        Raises:
            InputError: damaged, or values that no image may hold.
        """

    def windows(self, num_bytes: int) -> Iterator[tuple[slice, slice]]:
        """Windows that cover a page by rows of them, on the grid of its blocks, of about `num_bytes` or one block."""
        height, width, _ = self.shape
        pixels = max(1, num_bytes // self.stored_bytes)
        columns = pixels // self.block[0]
        columns = width if columns >= width else max(1, columns // self.block[1]) * self.block[1]
        rows = max(1, pixels // columns // self.block[0]) * self.block[0]
        for row in range(0, height, rows):
            for column in range(0, width, columns):
                yield slice(row, min(row + rows, height)), slice(column, min(column + columns, width))


def open_raster(path: Path | str) -> Raster:
    """Open an image for reading by windows: of a TIFF the full resolution, of an OME-Zarr level 0.

    What cannot be read by windows (PNG, BMP, JPEG, a TIFF with one compressed strip, a file of a microscope) is one
    block.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: Damaged or empty, unknown type, or pages of different sizes.
    """
    path = Path(path)
    if is_zarr(path):
        return ZarrRaster(path)
    suffix = checked_suffix(path)
    if suffix in MICROSCOPE_SUFFIXES:
        return MicroscopeRaster(path)
    return TiffRaster(path) if suffix in TIFF_SUFFIXES else PictureRaster(path)


@dataclass(frozen=True)
class _Place:
    """Where a page lies: series, its number there, and the numbers of its headers; none where it is read whole."""

    series: int
    page: int
    headers: tuple[int, ...] = ()


class TiffRaster(Raster):
    """A TIFF: striped, tiled, pyramidal, planar, BigTIFF or OME-TIFF."""

    def __init__(self, path: Path):
        self.path, self.spacing_um = path, read_spacing_um(path)
        with open_tiff(path) as tiff:
            tif, series = tiff.file, tiff.series
            check_claim(path, sum(one.nbytes for one in series), tif.filehandle.size, labels=True)
            places = [place for number, one in enumerate(series) for place in _places(number, one)]
            self._places = places if tiff.order is None else [places[number] for number in tiff.order]
            shapes, blocks = [], []
            for one in series:
                sides = {axis: side for axis, side in zip(one.axes, one.shape, strict=True) if axis in "YX"}
                channels = math.prod(n for n, axis in zip(one.shape, one.axes, strict=True) if axis in "CS")
                pixel = _converted(np.zeros((1, 1, 1, channels), one.dtype), tif, one, path)
                shapes.append((sides["Y"], sides["X"], pixel.shape[-1]))
                blocks.append(_block(one, (sides["Y"], sides["X"])))
            check_channels(path, [channels for _, _, channels in shapes])
            self.pages, self.shape, self.dtype = len(self._places), shapes[0], pixel.dtype
            self.block = max(rows for rows, _ in blocks), max(columns for _, columns in blocks)
            self.stored_bytes = channels * one.dtype.itemsize

    def read(self, page: int, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """See `Raster.read`."""
        rows, columns = clipped(rows, self.shape[0]), clipped(columns, self.shape[1])
        place = self._places[page]
        with open_tiff(self.path) as tiff:
            tif, series = tiff.file, tiff.series[place.series]
            if _is_plain(series):
                window = _plain_window(tif, series, place.page, rows, columns)
            elif place.headers:
                headers = [series[number] for number in place.headers]
                parts = [_window(header, rows, columns) for header in headers if header is not None]
                window = np.concatenate(parts, axis=2)[np.newaxis]
            else:
                return read_page(self.path, page)[rows, columns]
            return _converted(window, tif, series, self.path)[0]


class PictureRaster(Raster):
    """A PNG, BMP or JPEG, which is always decoded as a whole."""

    def __init__(self, path: Path):
        self.shape, self.dtype = picture_layout(path)
        self.path, self.pages, self.spacing_um, self.block = path, 1, None, self.shape[:2]
        self.stored_bytes = self.dtype.itemsize * self.shape[2]

    def read(self, page: int, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """See `Raster.read`."""
        return read_page(self.path, page)[rows, columns]


class MicroscopeRaster(Raster):
    """A .czi, .nd2 or .lif, read a page at a time."""

    def __init__(self, path: Path):
        with damage_reported(path):
            self.pages, self.shape, stored = layout(path)
        self.path, self.spacing_um, self.block = path, read_spacing_um(path), self.shape[:2]
        self.dtype = image_dtype(np.zeros((1, 1, 1, 1), stored), path).dtype
        self.stored_bytes = self.shape[2] * stored.itemsize

    def read(self, page: int, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """See `Raster.read`."""
        return read_page(self.path, page)[rows, columns]


class ZarrRaster(Raster):
    """An OME-Zarr: t, z and whatever else its axes are count pages, c channels."""

    def __init__(self, path: Path):
        with damage_reported(path):
            self._image = ZarrImage(path)
        image = self._image
        self.path, self.spacing_um, self.pages, self.block = path, image.spacing_um, image.pages, image.block
        self.dtype = image_dtype(np.zeros((1, 1, 1, 1), image.dtype), path).dtype
        self.shape, self.stored_bytes = image.shape, image.shape[2] * image.dtype.itemsize

    def read(self, page: int, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """See `Raster.read`."""
        with damage_reported(self.path):
            window = self._image.read(page, clipped(rows, self.shape[0]), clipped(columns, self.shape[1]))
        return image_dtype(window[np.newaxis], self.path)[0]


def _converted(pages: np.ndarray, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> np.ndarray:
    return image_dtype(plain(pages, tif, series, path, labels=False), path)


def _is_plain(series: tifffile.TiffPageSeries) -> bool:
    """Whether the pixels lie in the file as they are, one after another."""
    return series.dataoffset is not None and series.transform is None


def _places(number: int, series: tifffile.TiffPageSeries) -> list[_Place]:
    pages = num_pages(series)
    split = len(series.shape) - series.keyframe.ndim
    outer, sides = series.axes[:split], series.shape[:split]
    by_headers = (
        series.transform is None
        and len(series) == math.prod(sides)
        and series.shape[split:] == series.keyframe.shape
        and set(series.axes[split:]) <= set("YXS")
        and series.keyframe.imagedepth == 1
    )
    if _is_plain(series) or not by_headers:
        return [_Place(number, page) for page in range(pages)]
    # Every header is one channel of one page, or all of them.
    order = [i for is_channel in (False, True) for i, axis in enumerate(outer) if (axis in "CS") == is_channel]
    headers = np.arange(len(series)).reshape(sides).transpose(order).reshape(pages, -1)
    return [_Place(number, page, tuple(int(one) for one in headers[page])) for page in range(pages)]


def _block(series: tifffile.TiffPageSeries, shape: tuple[int, int]) -> tuple[int, int]:
    if _is_plain(series):
        return 1, shape[1]
    place, page = _places(0, series)[0], series.keyframe
    if not place.headers:
        return shape
    if page.is_tiled:
        return min(page.tilelength, shape[0]), min(page.tilewidth, shape[1])
    return min(page.rowsperstrip, shape[0]), shape[1]


def _plain_window(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, page: int, rows: slice, columns: slice
) -> np.ndarray:
    """(1, h, w, C) from pixels that lie in the file as they are."""
    dtype = series.dtype.newbyteorder(tif.byteorder)
    # Mapped for the moment of this copy alone: pages of a map that stays count as memory of the process.
    stored = tif.filehandle.memmap_array(dtype, series.shape, offset=series.dataoffset or 0)
    places = [i for i, axis in enumerate(series.axes) if axis not in "YXCS"]
    index: list[int | slice] = [{"Y": rows, "X": columns}.get(axis, slice(None)) for axis in series.axes]
    for place, number in zip(places, np.unravel_index(page, [series.shape[i] for i in places]), strict=True):
        index[place] = slice(int(number), int(number) + 1)
    return arranged(np.array(stored[tuple(index)], series.dtype), series.axes)


def _window(page: tifffile.TiffPage | tifffile.TiffFrame, rows: slice, columns: slice) -> np.ndarray:
    """(h, w, samples) of one header's image, from the tiles or strips that reach into the window."""
    key: Any = page.keyframe
    file = page.parent.filehandle
    planes = key.samplesperpixel if key.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
    samples = key.samplesperpixel // planes
    height, width = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
    height = min(height, key.imagelength)
    down, across = -(-key.imagelength // height), -(-key.imagewidth // width)
    tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader} if key.compression in JPEG else {}
    out = np.zeros((planes, rows.stop - rows.start, columns.stop - columns.start, samples), key.dtype)
    for plane in range(planes):
        for row in range(rows.start // height, -(-rows.stop // height)):
            for column in range(columns.start // width, -(-columns.stop // width)):
                number = (plane * down + row) * across + column
                file.seek(page.dataoffsets[number])
                data = file.read(page.databytecounts[number])
                segment = key.decode(data, number, _fullsize=key.is_tiled, **tables)[0][0]
                top, left = max(row * height, rows.start), max(column * width, columns.start)
                part = segment[top - row * height : rows.stop - row * height]
                part = part[:, left - column * width : columns.stop - column * width]
                place = slice(top - rows.start, top - rows.start + part.shape[0])
                out[plane, place, left - columns.start : left - columns.start + part.shape[1]] = part
    return np.moveaxis(out, 0, 2).reshape(*out.shape[1:3], -1)
