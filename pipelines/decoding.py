"""What is inside an image file: pixels, number of pages and pixel size of TIFF, PNG, BMP and JPEG.

Damage is found by `pipelines.damage` before pixels are decoded; files of microscopes go to `pipelines.microscopes`.
Dtypes, labels and writing are the work of `pipelines.images`, through which everything else reads files.
"""

import contextlib
import functools
import io
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import tifffile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from pipelines import microscopes
from pipelines.damage import PNG_SIGNATURE, check_claim, check_tiff, checked_png, damage_reported, damaged, jpeg_pixels
from pipelines.errors import InputError
from pipelines.microscopes import MICROSCOPE_SUFFIXES

TIFF_SUFFIXES = (".tif", ".tiff")
OPEN_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".bmp", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (*OPEN_SUFFIXES, *MICROSCOPE_SUFFIXES)
PNG_GREY, PNG_PALETTE, PNG_GREY_ALPHA = 0, 3, 4
PICTURES: dict[bytes, type[ImageFile]] = {PNG_SIGNATURE: PngImageFile, b"BM": BmpImageFile, b"\xff\xd8": JpegImageFile}
ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
# Coarser "spacings" are printer resolutions (300 dpi = 84.7 um) that an editor wrote, not microscopes.
COARSEST_SPACING_UM = 50.0
# The least and the greatest side of a pixel or voxel: a picometre and a metre.
SPACINGS_UM = (1e-6, 1e6)
MICROMETRES = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0}
MICROMETRES |= {"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
# Age in seconds from which a file's time stamps tell whether it has changed.
YOUNG_S = 1.0

Series = tifffile.TiffPageSeries


def decode(path: Path, *, labels: bool, page: int | None = None) -> np.ndarray:
    """Pages of a file, (N, H, W, C) in the file's dtype; with `page`, that one alone (N = 1).

    Args:
        path: File with one of IMAGE_SUFFIXES.
        labels: Give stored numbers: palette indices instead of colours, no inversion of "0 is white", and no JPEG.
        page: Number of the page, from 0.

    Raises:
        FileNotFoundError, InputError: As `pipelines.images.read_pages`.
    """
    suffix = checked_suffix(path)
    if suffix in TIFF_SUFFIXES:
        with open_tiff(path) as (tif, series):
            return _tiff_pages(tif, series, path, labels=labels, page=page)
    if suffix in MICROSCOPE_SUFFIXES:
        with damage_reported(path):
            return microscopes.read(path, page=page)
    if page not in (None, 0):
        raise InputError(f"{path} has one page; page {page} was asked for (counted from 0).")
    with damage_reported(path):
        return _decode_bytes(path, labels=labels)[np.newaxis]


def count_pages(path: Path | str) -> int:
    """Number of pages of an image file, from its header; 1 for everything but TIFF and files of microscopes."""
    path = Path(path)
    suffix = checked_suffix(path)
    if suffix in MICROSCOPE_SUFFIXES:
        with damage_reported(path):
            return microscopes.layout(path)[0]
    if suffix not in TIFF_SUFFIXES:
        return 1
    with open_tiff(path) as (_, series):
        return sum(num_pages(one) for one in series)


def read_spacing_um(path: Path | str) -> tuple[float, float] | None:
    """(row, column) pixel size in micrometres from OME-XML, ImageJ or centimetre tags; None where it is not known."""
    path = Path(path)
    suffix = checked_suffix(path)
    if suffix in MICROSCOPE_SUFFIXES:
        with damage_reported(path):
            return microscopes.read_calibration(path).spacing_um
    if suffix not in TIFF_SUFFIXES:
        return None
    with open_tiff(path) as (tif, _):
        spacing = _ome_spacing(tif.ome_metadata) if tif.ome_metadata else _tag_spacing(tif)
    if spacing is None or not all(SPACINGS_UM[0] <= side <= COARSEST_SPACING_UM for side in spacing):
        return None
    return spacing


def checked_suffix(path: Path) -> str:
    """Suffix of an image file, in small letters. Raises FileNotFoundError or InputError if it is none."""
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}. An image was looked for there.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; an image file was expected.")
    if not path.is_file():
        raise InputError(f"{path} is a device or a pipe; an image file was expected.")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path} is not of a known image type. Known: {', '.join(IMAGE_SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes). Copy it again from where it came.")
    return path.suffix.lower()


@contextlib.contextmanager
def open_tiff(path: Path) -> Iterator[tuple[tifffile.TiffFile, list[Series]]]:
    """A TIFF whose every byte is there, and its series of full-size images."""
    with damage_reported(path):
        file = path.stat()
        # A thread to each, since a TiffFile has one position in its file.
        state = (path.absolute(), file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
        # A file this young may be written again without its time stamps changing: they are as coarse as 10 ms.
        settled = abs(time.time() - file.st_mtime) > YOUNG_S
        headers = _headers if settled else _headers.__wrapped__
        tif, series = headers(path, (*state, threading.get_ident()))
        tif.filehandle.open()
        try:
            yield tif, series
        finally:
            tif.filehandle.close()


@functools.lru_cache(maxsize=8)
def _headers(path: Path, state: tuple) -> tuple[tifffile.TiffFile, list[Series]]:
    """All headers of a file, which is checked, and closed again: a stack that is read page by page needs them once.

    Args:
        path: The file.
        state: What changes when the file does; a new one reads it anew.
    """
    with tifffile.TiffFile(path) as tif:
        check_tiff(tif, path)
        series = [one for one in tif.series if not one.keyframe.is_reduced]
        if not series:
            raise damaged(path, "it holds no image")
        for kind in ("ome", "imagej", "shaped"):
            # tifffile falls back to single pages when the description promises more than the file holds.
            if getattr(tif, f"is_{kind}") and series[0].kind != kind:
                raise damaged(path, f"its {kind} description does not fit its content")
            if getattr(tif, f"is_{kind}"):
                break
        if any(page is None for one in series for page in one):
            raise InputError(f"{path} describes images that lie in other files. Save it as one plain TIFF.")
        if any({"Y", "X"} - set(one.axes) for one in series):
            raise InputError(f"{path}: its axes are {series[0].axes}; rows (Y) and columns (X) were expected.")
    return tif, series


def num_pages(series: Series) -> int:
    """Pages of a series: every axis but rows, columns, channels and samples counts them."""
    return int(np.prod([n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXCS"], dtype=int))


def _tiff_pages(
    tif: tifffile.TiffFile, series: list[Series], path: Path, *, labels: bool, page: int | None
) -> np.ndarray:
    counts = [num_pages(one) for one in series]
    decoded = sum(one.nbytes for one in series) if page is None else max(one.keyframe.nbytes for one in series)
    check_claim(path, decoded, tif.filehandle.size, labels=labels)
    if page is None:
        parts = [plain(arranged(one.asarray(), one.axes), tif, one, labels=labels) for one in series]
        if len({part.shape[1:] for part in parts}) > 1:
            sizes = ", ".join("x".join(map(str, part.shape[1:3])) for part in parts[:4])
            raise InputError(f"{path} holds pages of different sizes ({sizes}, ...). Save them as separate files.")
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    if not 0 <= page < sum(counts):
        raise InputError(f"{path} has {sum(counts)} pages; page {page} was asked for (counted from 0).")
    which = int(np.searchsorted(np.cumsum(counts), page, side="right"))
    one = series[which]
    return plain(_one_page(tif, one, page - sum(counts[:which])), tif, one, labels=labels)


def _one_page(tif: tifffile.TiffFile, series: Series, page: int) -> np.ndarray:
    """One page of a series as (1, H, W, C); the others are decoded only if its layout is none of the usual ones."""
    if series.dataoffset is not None and series.transform is None:
        dtype = series.dtype.newbyteorder(tif.byteorder)
        stored = tif.filehandle.memmap_array(dtype, series.shape, offset=series.dataoffset)
        places = [i for i, axis in enumerate(series.axes) if axis not in "YXCS"]
        index: list[int | slice] = [slice(None)] * len(series.shape)
        for place, number in zip(places, np.unravel_index(page, [series.shape[i] for i in places]), strict=True):
            index[place] = slice(number, number + 1)
        return arranged(np.array(stored[tuple(index)], series.dtype), series.axes)
    split = len(series.shape) - series.keyframe.ndim
    outer, sides = series.axes[:split], series.shape[:split]
    unusual = series.transform is not None or bool(set(series.axes[split:]) - set("YXCS"))
    if unusual or len(series) != np.prod(sides) or series.shape[split:] != series.keyframe.shape:
        return arranged(series.asarray(), series.axes)[page : page + 1]
    # Every header is one channel of one page, or all of them.
    order = [i for is_channel in (False, True) for i, axis in enumerate(outer) if (axis in "CS") == is_channel]
    numbers = np.arange(len(series)).reshape(sides).transpose(order).reshape(num_pages(series), -1)[page]
    headers = [series[int(number)] for number in numbers]
    channels = np.stack([header.asarray() for header in headers if header is not None])
    return arranged(channels, "C" + series.axes[split:])


def arranged(array: np.ndarray, axes: str) -> np.ndarray:
    """(N, H, W, C): C and S are channels, every other axis but Y and X counts pages."""
    kinds = ["CS" if axis in "CS" else axis if axis in "YX" else "page" for axis in axes]
    order = [i for kind in ("page", "Y", "X", "CS") for i, one in enumerate(kinds) if one == kind]
    rows, columns = array.shape[axes.index("Y")], array.shape[axes.index("X")]
    channels = int(np.prod([n for n, kind in zip(array.shape, kinds, strict=True) if kind == "CS"], dtype=int))
    return array.transpose(order).reshape(-1, rows, columns, channels)


def plain(pages: np.ndarray, tif: tifffile.TiffFile, series: Series, *, labels: bool) -> np.ndarray:
    """Pages without alpha, palette, bool and "0 is white"."""
    page = series.keyframe
    alpha = sum(sample in ALPHA for sample in page.extrasamples)
    if alpha and pages.shape[-1] == page.samplesperpixel:
        pages = pages[..., :-alpha]
    # In ImageJ files palette and inversion are how the picture is shown; the numbers are the measurement.
    stored = labels or tif.is_imagej
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None and not stored:
        pages = (page.colormap >> 8).astype(np.uint8).T[pages[..., 0]]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and not stored:
        pages = ~pages if pages.dtype == bool else np.subtract(2**page.bitspersample - 1, pages, dtype=pages.dtype)
    return pages.astype(np.uint8) * 255 if pages.dtype == bool else pages


def _ome_spacing(text: str) -> tuple[float, float] | None:
    with contextlib.suppress(ElementTree.ParseError, ValueError, KeyError):
        pixels = next(one for one in ElementTree.fromstring(text).iter() if one.tag.endswith("}Pixels"))
        rows, columns = (
            float(pixels.attrib[f"PhysicalSize{axis}"]) * MICROMETRES[pixels.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "YX"
        )
        return rows, columns
    return None


def _tag_spacing(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    page = tif.pages.first
    columns, rows = page.get_resolution()
    unit = str((tif.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
    if not unit and page.resolutionunit == tifffile.RESUNIT.CENTIMETER:
        unit = "cm"
    if unit not in MICROMETRES or not rows or not columns:
        return None
    return MICROMETRES[unit] / rows, MICROMETRES[unit] / columns


def picture_layout(path: Path) -> tuple[tuple[int, int, int], np.dtype]:
    """(H, W, C) and dtype of a PNG, BMP or JPEG, from its header."""
    with damage_reported(path):
        data = path.read_bytes()
        if data.startswith(PNG_SIGNATURE):
            # As labels, which may be smaller: whoever decodes it knows what it is.
            data, bits, colour = checked_png(data, path, labels=True)
            width, height = struct.unpack_from(">II", data, 16)
            grey = colour in (PNG_GREY, PNG_GREY_ALPHA)
            return (height, width, 1 if grey else 3), np.dtype(np.uint16 if bits == 16 else np.uint8)
        with _opened(data, path) as picture:
            return (picture.height, picture.width, 1 if picture.mode in ("1", "L") else 3), np.dtype(np.uint8)


def _decode_bytes(path: Path, *, labels: bool) -> np.ndarray:
    """(H, W, C) of a PNG, BMP or JPEG, whatever its suffix says."""
    data = path.read_bytes()
    if data.startswith(PNG_SIGNATURE):
        data, bits, colour = checked_png(data, path, labels=labels)
        if not (labels and colour == PNG_PALETTE):
            return _decode_png(data, bits, colour, path, labels=labels)
    # OpenCV alone decodes 16-bit colour; Pillow alone gives palette indices, and finds damage without printing.
    with _opened(data, path) as picture:
        if labels and picture.format == "JPEG":
            raise InputError(f"{path}: JPEG changes label ids when it is saved. Export the labels as TIFF or PNG.")
        check_claim(path, picture.width * picture.height * len(picture.getbands()), len(data), labels=labels)
        as_it_is = labels or picture.mode in ("1", "L", "RGB")
        image = np.array(picture if as_it_is else picture.convert("RGB"))
    image = image.astype(np.uint8) * 255 if image.dtype == bool else image
    return image[..., np.newaxis] if image.ndim == 2 else image[..., :3]


def _opened(data: bytes, path: Path) -> ImageFile:
    """A picture by Pillow, whose own `open` would warn of large ones: no thread can silence that for itself."""
    opener = next((PICTURES[start] for start in PICTURES if data.startswith(start)), None)
    if opener is None:
        raise damaged(path, "it begins neither as a PNG nor as a BMP or JPEG")
    return opener(io.BytesIO(jpeg_pixels(data) if opener is JpegImageFile else data))


def _decode_png(data: bytes, bits: int, colour: int, path: Path, *, labels: bool) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise damaged(path, "OpenCV cannot decode it")
    image = image[..., np.newaxis] if image.ndim == 2 else image[..., 2::-1]
    if colour not in (PNG_GREY, PNG_GREY_ALPHA):
        return image
    # OpenCV spreads 2 and 4 bits over 0 to 255.
    return image[..., :1] // (255 // (2**bits - 1)) if labels and bits in (2, 4) else image[..., :1]
