"""What is inside an image file: pixels, number of pages and pixel size of TIFF, PNG, BMP and JPEG.

Damage is found by `pipelines.damage` before pixels are decoded; what is in a TIFF is known by `pipelines.tiffs`, in a
microscope's own file by `pipelines.microscopes`.
Dtypes, labels and writing are the work of `pipelines.images`, through which everything else reads files.
"""

import contextlib
import io
import struct
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
from pipelines.damage import PNG_SIGNATURE, check_claim, checked_png, damage_reported, damaged, jpeg_pixels
from pipelines.errors import InputError
from pipelines.microscopes import MICROSCOPE_SUFFIXES
from pipelines.tiffs import open_tiff, tiff_pages

TIFF_SUFFIXES = (".tif", ".tiff")
OPEN_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".bmp", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (*OPEN_SUFFIXES, *MICROSCOPE_SUFFIXES)
PNG_GREY, PNG_PALETTE, PNG_GREY_ALPHA = 0, 3, 4
PICTURES: dict[bytes, type[ImageFile]] = {PNG_SIGNATURE: PngImageFile, b"BM": BmpImageFile, b"\xff\xd8": JpegImageFile}
# Coarser "spacings" are printer resolutions (300 dpi = 84.7 um) that an editor wrote, not microscopes.
COARSEST_SPACING_UM = 50.0
# The least and the greatest side of a pixel or voxel: a picometre and a metre.
SPACINGS_UM = (1e-6, 1e6)
MICROMETRES = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0}
MICROMETRES |= {"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


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
        with open_tiff(path) as tiff:
            return tiff_pages(tiff, path, labels=labels, page=page)
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
    with open_tiff(path) as tiff:
        return tiff.num_pages


def page_axes(path: Path | str) -> tuple[tuple[str, int], ...]:
    """Which axes count the pages of a file, T (frames) and Z (sections) with their lengths, the slowest first.

    () where they do not, or the file does not say: several images, or pages that are neither.
    """
    path = Path(path)
    suffix = checked_suffix(path)
    if suffix in MICROSCOPE_SUFFIXES:
        with damage_reported(path):
            return microscopes.page_axes(path)
    if suffix not in TIFF_SUFFIXES:
        return ()
    with open_tiff(path) as tiff:
        series = tiff.series
        sides = [(axis, n) for one in series for axis, n in zip(one.axes, one.shape, strict=True) if axis not in "YXCS"]
    counting = tuple((axis, int(n)) for axis, n in sides if n > 1)
    return counting if len(series) == 1 and {axis for axis, _ in counting} <= set("TZ") else ()


def read_spacing_um(path: Path | str) -> tuple[float, float] | None:
    """(row, column) pixel size in micrometres from OME-XML, ImageJ or centimetre tags; None where it is not known."""
    path = Path(path)
    suffix = checked_suffix(path)
    if suffix in MICROSCOPE_SUFFIXES:
        with damage_reported(path):
            return microscopes.read_calibration(path).spacing_um
    if suffix not in TIFF_SUFFIXES:
        return None
    with open_tiff(path) as tiff:
        text = tiff.file.ome_metadata
        spacing = _ome_spacing(text) if text else _tag_spacing(tiff.file)
    return None if spacing is None else plausible_spacing(*spacing)


def plausible_spacing(rows: float, columns: float) -> tuple[float, float] | None:
    """A pixel size in micrometres; None for one that no microscope has (0, NaN, more than COARSEST_SPACING_UM)."""
    return (rows, columns) if all(SPACINGS_UM[0] <= side <= COARSEST_SPACING_UM for side in (rows, columns)) else None


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
