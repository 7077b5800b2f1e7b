"""Read and write TIFF, PNG, BMP and JPEG at full bit depth.

What the formats look like inside is the work of `pipelines.decoding`; contrast and channels, of `pipelines.contrast`;
which files belong together is known by `pipelines.sources`; an image is checked against its labels in
`pipelines.sample`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from pipelines.contrast import contrast_limits, stretch_contrast, to_channels
from pipelines.damage import check_claim
from pipelines.decoding import (
    IMAGE_SUFFIXES,
    OPEN_SUFFIXES,
    TIFF_SUFFIXES,
    count_pages,
    decode,
    page_axes,
    read_spacing_um,
)
from pipelines.errors import InputError
from pipelines.files import whole_file

__all__ = [
    "IMAGE_SUFFIXES",
    "OPEN_SUFFIXES",
    "check_ids",
    "contrast_limits",
    "count_pages",
    "image_files",
    "image_names",
    "image_stem",
    "page_axes",
    "read_image",
    "read_labels",
    "read_page",
    "read_pages",
    "read_spacing_um",
    "stored_dtype",
    "stretch_contrast",
    "to_channels",
    "write_image",
    "write_labels",
]


def image_files(folder: Path | str) -> list[Path]:
    """Image files of a folder, sorted by name; hidden files and other types are passed over.

    So are the microscope's own files (.czi, .nd2, .lif) where others lie beside them: those have been exported.

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: It is a file, or holds no image.
    """
    return [Path(folder) / name for name in image_names(folder)]


def image_names(folder: Path | str) -> list[str]:
    """Names of `image_files` without their folder: of ten thousand files, a tenth of the memory."""
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}. Images were looked for there.")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; a folder of images was expected.")
    there = [name for name in os.listdir(folder) if not name.startswith(".")]
    found = [name for name in there if name.lower().endswith(OPEN_SUFFIXES)]
    found = found or [name for name in there if name.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        raise InputError(f"{folder} holds no image: no file there ends in {', '.join(IMAGE_SUFFIXES)}.")
    return sorted(found)


def image_stem(path: Path | str) -> str:
    """What an image is called: its file name without suffix, `a` for `a.tif` and for the OME-TIFF `a.ome.tif`."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return stem[:-4] if stem.lower().endswith(".ome") and len(stem) > 4 else stem


def read_pages(path: Path | str) -> np.ndarray:
    """All pages of an image file.

    Alpha is dropped, a palette gives its colours (but the values of an ImageJ file, whose palette is a display
    setting), 1 bit becomes 0 and 255, and "0 is white" is turned round.

    Returns:
        (N, H, W, C), uint8, uint16 or float32: the dtype of the file where it is one of these, else the smallest
        that holds every value exactly (float64 and float16 become float32).

    Raises:
        FileNotFoundError: There is no such file.
        InputError: Damaged or empty file, unknown type, negative or too large integers.
    """
    path = Path(path)
    return image_dtype(decode(path, labels=False), path)


def read_page(path: Path | str, page: int) -> np.ndarray:
    """Page `page` (from 0) of an image file as (H, W, C); of a plain stack, only that page is decoded."""
    path = Path(path)
    return image_dtype(decode(path, labels=False, page=page), path)[0]


def read_image(path: Path | str) -> np.ndarray:
    """The image of a file with one page, as (H, W, C); InputError if it has several (see `read_pages`)."""
    pages = count_pages(path)
    if pages > 1:
        raise InputError(f"{path} holds {pages} pages; a file with one image was expected. Split the stack into files.")
    return read_pages(path)[0]


def read_labels(path: Path | str, *, page: int | None = None) -> np.ndarray:
    """Label ids of a file, exactly as stored: palette indices stay indices, 1 bit becomes 0 and 255.

    Args:
        path: Integer TIFF of 1 to 64 bits, PNG or BMP; several channels only if they are all equal. A float TIFF whose
            values are all whole is taken, too: MorphoLibJ and ImageJ's 32-bit images hold labels so. Of 0 and 1 alone
            it is what integers would be: no cell, one cell, or a mask. A probability is known by its fractions.
        page: Read only this page (from 0).

    Returns:
        int32 (N, H, W), or (H, W) with `page`.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: Damaged file, JPEG, fractions, colours, negative ids, ids of 2**31 and above, or ids that take far
            more memory than the file's size lets expect.
    """
    path = Path(path)
    pages = decode(path, labels=True, page=page)
    if pages.dtype.kind == "f" and pages.size and _are_ids(pages):
        pages = pages.astype(np.int64)
    if pages.dtype.kind not in "ui":
        raise InputError(f"{path}: labels must be whole numbers, the file holds {pages.dtype}. Save 16-bit integers.")
    if pages.shape[-1] > 1 and (pages != pages[..., :1]).any():
        raise InputError(
            f"{path}: labels must have one channel, the file has {pages.shape[-1]} that differ. "
            "It may be a coloured picture of the labels: export the label ids themselves, as a 16-bit TIFF."
        )
    pages = pages[..., 0]
    check_ids(pages, path)
    if page is not None:
        pages = pages[0]
    if pages.size and not pages.any():
        # No cell takes no memory, however large the image: the system gives zeros when they are written to.
        return np.zeros(pages.shape, np.int32)
    if pages.dtype.itemsize < 4:
        check_claim(path, 4 * pages.size, path.stat().st_size, labels=True)
    return pages.astype(np.int32, copy=False)


def check_ids(labels: np.ndarray, path: Path | str) -> None:
    """Raise InputError unless all whole numbers of an array are ids that int32 holds, 0 for the background included."""
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(f"{path}: label ids must be between 0 and 2147483647, found {bad}. Number the cells again.")


def stored_dtype(path: Path | str) -> np.dtype:
    """Dtype of the numbers in a label file, as stored: how many ids it could hold."""
    return decode(Path(path), labels=True, page=0).dtype


def write_labels(
    path: Path | str,
    labels: np.ndarray,
    *,
    spacing_um: tuple[float, ...] | None = None,
    interval_s: float | None = None,
    sections: bool = False,
    highest: int | None = None,
) -> None:
    """Write labels as a deflate TIFF that ImageJ opens with its calibration; the file appears whole or not at all.

    Args:
        path: Final name.
        labels: Integers >= 0, (H, W) or (T, H, W); uint16 where the ids fit, else uint32.
        spacing_um: (row, column) pixel size, of sections (z, row, column).
        interval_s: Seconds between frames.
        sections: The pages are the sections of a volume (Z, H, W), not frames.
        highest: The highest id of all files of a sequence, so that they have one dtype; None looks at this file.
    """
    if labels.ndim not in (2, 3) or labels.dtype.kind not in "ui" or labels.size == 0 or labels.min() < 0:
        raise ValueError(f"Labels must be integers >= 0, (H, W) or (T, H, W); got {labels.dtype} {labels.shape}.")
    if labels.max() >= 2**32:
        raise ValueError(f"{path}: label {labels.max()} does not fit 32 bits.")
    labels = labels.astype(np.uint16 if max(labels.max(), highest or 0) < 2**16 else np.uint32)
    pages = len(labels) if labels.ndim == 3 else None
    tags = label_tags(pages, sections=sections, spacing_um=spacing_um, interval_s=interval_s)
    pixel_um = None if spacing_um is None else (spacing_um[-2], spacing_um[-1])
    _write_tiff(path, labels, spacing_um=pixel_um, **tags)


def label_tags(
    num_pages: int | None,
    *,
    sections: bool = False,
    spacing_um: Sequence[float] | None = None,
    interval_s: float | None = None,
) -> dict[str, Any]:
    """Tags by which ImageJ knows a label file as a stack with its calibration; `num_pages` is None for a plain one."""
    lines = ["ImageJ=1.54f"]
    if num_pages is not None:
        lines += [f"images={num_pages}", f"{'slices' if sections else 'frames'}={num_pages}", "hyperstack=true"]
    if spacing_um is not None:
        lines += ["unit=um", *(f"spacing={distance}" for distance in spacing_um[:-2])]
    if interval_s is not None:
        lines += [f"finterval={interval_s}", "tunit=sec"]
    # The description is written here because tifffile's ImageJ mode refuses 32-bit integers, which ImageJ reads.
    return {"metadata": None, "description": "\n".join([*lines, ""])}


def write_image(path: Path | str, image: np.ndarray, *, spacing_um: tuple[float, float] | None = None) -> None:
    """Write an image unchanged, as TIFF or PNG by its suffix; the file appears whole or not at all.

    Args:
        path: Final name, `.tif`, `.tiff` or `.png`.
        image: (H, W), (H, W, C), or for TIFF (N, H, W, C); uint8, uint16, for TIFF also float32. PNG has C = 1 or 3.
        spacing_um: (row, column) pixel size, for TIFF.
    """
    path = Path(path)
    image = image[..., np.newaxis] if image.ndim == 2 else image
    channels = image.shape[-1]
    if path.suffix.lower() in TIFF_SUFFIXES and image.ndim in (3, 4):
        axes = "TYX"[4 - image.ndim :]
        if channels == 1:
            _write_tiff(path, image[..., 0], metadata={"axes": axes}, spacing_um=spacing_um)
        elif channels == 3 and image.dtype.kind == "u":
            _write_tiff(path, image, metadata={"axes": axes + "S"}, photometric="rgb", spacing_um=spacing_um)
        else:
            axes = axes.replace("Y", "CY")
            _write_tiff(path, np.moveaxis(image, -1, -3), metadata={"axes": axes}, spacing_um=spacing_um)
    elif path.suffix.lower() == ".png" and image.ndim == 3 and channels in (1, 3) and image.dtype.kind == "u":
        done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
        if not done:
            raise ValueError(f"{path}: OpenCV could not encode {image.dtype} {image.shape} as PNG.")
        with whole_file(path) as temporary:
            temporary.write_bytes(data.tobytes())
    else:
        raise ValueError(f"{path}: cannot write {image.dtype} {image.shape} there. Use a .tif file name.")


def _write_tiff(path: Path | str, array: np.ndarray, *, spacing_um: tuple[float, float] | None, **options: Any) -> None:
    options.setdefault("photometric", "minisblack")
    options |= resolution_tags(spacing_um, imagej="description" in options)
    with whole_file(path) as temporary:
        tifffile.imwrite(temporary, array, compression="zlib", **options)


def resolution_tags(spacing_um: tuple[float, float] | None, *, imagej: bool) -> dict[str, Any]:
    """Tags of the pixel size: ImageJ counts pixels per unit of its own; elsewhere TIFF knows centimetres."""
    if spacing_um is None:
        return {}
    per_unit, unit = (1.0, "NONE") if imagej else (1e4, "CENTIMETER")
    rows, columns = (per_unit / side for side in spacing_um)
    return {"resolution": (columns, rows), "resolutionunit": unit}


def _are_ids(pages: np.ndarray) -> bool:
    """Whether floats are whole and finite. A double holds more than int64 can."""
    low, high = float(pages.min()), float(pages.max())
    return high < 2**62 and low > -(2**62) and bool((pages == np.rint(pages)).all())


def image_dtype(pages: np.ndarray, path: Path) -> np.ndarray:
    """Pixels as uint8, uint16 or float32; see `read_pages`."""
    if pages.dtype.name in ("uint8", "uint16", "float32"):
        return pages
    if pages.dtype.kind == "f":
        # NaN and infinity stay what they are: whoever needs numbers says how many there are of them.
        with np.errstate(over="ignore"):
            return pages.astype(np.float32)
    if pages.dtype.kind not in "ui":
        raise InputError(f"{path}: pixels of type {pages.dtype} are not known. Save 8- or 16-bit unsigned integers.")
    low, high = pages.min(), pages.max()
    if low < 0 or high > 65535:
        raise InputError(
            f"{path} holds {pages.dtype} values from {low} to {high}; images must lie between 0 and 65535, or be "
            "32-bit floats. Save it again as 16-bit unsigned integers or as 32-bit floats."
        )
    # By type, not by value: the pages and files of one microscope must all get the same dtype.
    return pages.astype(np.uint8 if pages.dtype == np.int8 else np.uint16)
