"""TIFF files: their pages in the order of the file, and what the numbers in them mean.

Damage is found by `pipelines.damage` before pixels are decoded. PNG, BMP and JPEG, and what is common to all files,
live in `pipelines.decoding`; windows of large images in `pipelines.rasters`.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from tifffile import EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG

from pipelines.damage import check_claim, checked_pages, damage_reported, damaged
from pipelines.errors import InputError

JPEG = (6, 7, 34892, 33007)  # of TIFF's compressions: tables lie in the header, and YCbCr becomes RGB
ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
COLOURS = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE, PHOTOMETRIC.MASK)
# Age in seconds from which a file's time stamps tell whether it has changed.
YOUNG_S = 1.0

Series = tifffile.TiffPageSeries
Header = tifffile.TiffPage | tifffile.TiffFrame


@dataclass(frozen=True)
class Tiff:
    """A TIFF whose every byte is there.

    Attributes:
        file: What tifffile knows of it.
        series: Its full-size images, of one size and dtype. The headers of a series are decoded alike.
        ends: How many pages there are up to the end of each series.
        order: For each page of the file, its number among those of all series in turn; None where that is the same.
    """

    file: tifffile.TiffFile
    series: list[Series]
    ends: np.ndarray
    order: np.ndarray | None

    @property
    def num_pages(self) -> int:
        """Number of pages of all series."""
        return int(self.ends[-1])

    def place(self, page: int) -> tuple[int, int]:
        """Series of a page of the file, and its number there."""
        number = page if self.order is None else int(self.order[page])
        which = int(np.searchsorted(self.ends, number, side="right"))
        return which, number - (int(self.ends[which - 1]) if which else 0)


@contextlib.contextmanager
def open_tiff(path: Path) -> Iterator[Tiff]:
    """A TIFF, open for reading. Nothing but this file is read, whatever its description says.

    Raises:
        InputError: damaged; pages of different sizes or dtypes; images that lie in other files.
    """
    with damage_reported(path):
        file = path.stat()
        # A thread to each, since a TiffFile has one position in its file.
        state = (path.absolute(), file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
        # A file this young may be written again without its time stamps changing: they are as coarse as 10 ms.
        settled = abs(time.time() - file.st_mtime) > YOUNG_S
        headers = _headers if settled else _headers.__wrapped__
        tiff = headers(path, (*state, threading.get_ident()))
        tiff.file.filehandle.open()
        try:
            yield tiff
        finally:
            tiff.file.filehandle.close()


@functools.lru_cache(maxsize=8)
def _headers(path: Path, state: tuple) -> Tiff:
    """All headers of a file, which is checked, and closed again: a stack that is read page by page needs them once.

    Args:
        path: The file.
        state: What changes when the file does; a new one reads it anew.
    """
    with tifffile.TiffFile(path, _multifile=False) as tif:
        # These two would look for the other files of a folder. Micro-Manager describes each of them for ImageJ, too.
        vars(tif).update(is_mmstack=False, is_ndtiff=False)
        # By place: whole headers of thousands of pages would take their memory.
        looks = {page.offset: hash(_look(page, tif)) for page in checked_pages(tif, path)}
        if len(set(looks.values())) > 1:
            vars(tif).update(is_uniform=False)  # tifffile compares three of the pages only
        series = _full_size(tif.series)
        if not series:
            raise damaged(path, "it holds no image")
        _check_description(tif, series, path)
        _check_alike(series, looks, path)
        return Tiff(tif, series, np.cumsum([num_pages(one) for one in series]), _order(series))


def _look(page: Header, tif: tifffile.TiffFile) -> tuple[int, bool, bytes]:
    """What pages have in common that are decoded alike."""
    key: Any = page.keyframe
    has_colours = key.photometric == PHOTOMETRIC.PALETTE and key.colormap is not None and not tif.is_imagej
    return key.hash, key.is_mask, key.colormap.tobytes() if has_colours else b""


def _full_size(found: list[Series]) -> list[Series]:
    """Series of images; copies of another size and masks of transparency are left out where there is anything else."""
    series = [part for one in found for part in (_parted(one) if one.kind == "generic" else [one])]
    series = [one for one in series if not one.keyframe.is_reduced]
    series = [one for one in series if not one.keyframe.is_subifd] or series
    return [one for one in series if not one.keyframe.is_mask] or series


def _parted(series: Series) -> list[Series]:
    """The pages that tifffile has put together by their layout, apart where they differ in more than that."""
    parts: dict[object, list[Any]] = {}
    for page in series:
        if page is not None:
            parts.setdefault((page.is_subifd, _look(page, page.parent)), []).append(page)
    return [
        Series(pages, (len(pages), *pages[0].shape), pages[0].dtype, "I" + pages[0].axes, kind="generic")
        for pages in parts.values()
    ]


def _check_description(tif: tifffile.TiffFile, series: list[Series], path: Path) -> None:
    kind = next((kind for kind in ("ome", "imagej", "shaped") if getattr(tif, f"is_{kind}")), None)
    # tifffile falls back to single pages when the description promises more than the file holds.
    fits = kind is None or series[0].kind == kind
    if any(page is None for one in series for page in one) or (not fits and _names_other_files(tif)):
        raise InputError(
            f"{path} describes images that lie in other files, and only the file itself is read. Open the series in "
            "Fiji (File > Import > Bio-Formats) and save it as one plain TIFF."
        )
    if not fits:
        raise damaged(path, f"its {kind} description does not fit its content")
    if any({"Y", "X"} - set(one.axes) for one in series):
        raise InputError(f"{path}: its axes are {series[0].axes}; rows (Y) and columns (X) were expected.")


def _names_other_files(tif: tifffile.TiffFile) -> bool:
    """Whether OME-XML places an image, or all it has to say, in a file of another UUID."""
    with contextlib.suppress(ElementTree.ParseError):
        root = ElementTree.fromstring(tif.ome_metadata or "<OME/>")
        own, name = root.get("UUID"), tif.filename.lower()
        for one in root.iter():
            if one.tag.endswith("}BinaryOnly"):
                return True
            if one.tag.endswith("}UUID") and one.text != own:
                if own is not None or one.get("FileName", "").lower() != name:
                    return True
                own = one.text
    return False


def _check_alike(series: list[Series], looks: dict[int, int], path: Path) -> None:
    sizes = [(one.shape[one.axes.index("Y")], one.shape[one.axes.index("X")]) for one in series]
    if len(set(sizes)) > 1:
        said = ", ".join(f"{rows}x{columns}" for rows, columns in sizes[:4])
        raise InputError(f"{path} holds pages of different sizes ({said}, ...). Save them as separate files.")
    dtypes = list(dict.fromkeys(str(one.dtype) for one in series))
    if len(dtypes) > 1:
        raise InputError(
            f"{path} holds pages of different types ({', '.join(dtypes[:4])}), whose grey values do not compare. Save "
            "all as one of them, or as separate files."
        )
    for one in series:
        own = looks.get(one.keyframe.offset)
        if own is not None and any(page is not None and looks.get(page.offset, own) != own for page in one):
            raise InputError(
                f"{path} describes its pages as one image, but they are stored in different ways (compression, strips, "
                "bits a pixel or colours). Save it again as one plain TIFF."
            )


def check_channels(path: Path, channels: list[int]) -> None:
    """Raise InputError if the pages of a file have different numbers of channels."""
    if len(set(channels)) > 1:
        said = ", ".join(map(str, dict.fromkeys(channels)))
        raise InputError(f"{path} holds pages of different numbers of channels ({said}). Save them as separate files.")


def _order(series: list[Series]) -> np.ndarray | None:
    """See `Tiff`. The order of described series is that of their description."""
    if len(series) == 1 or any(one.kind != "generic" for one in series):
        return None
    places = [
        header.treeindex
        for one in series
        for header in one
        if header is not None
        for _ in range(num_pages(one) // len(one))
    ]
    return np.array(sorted(range(len(places)), key=places.__getitem__))


def num_pages(series: Series) -> int:
    """Pages of a series: every axis but rows, columns, channels and samples counts them."""
    return int(np.prod([n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXCS"], dtype=int))


def tiff_pages(tiff: Tiff, path: Path, *, labels: bool, page: int | None) -> np.ndarray:
    """Pages of an open TIFF, or one of them; see `pipelines.decoding.decode`."""
    tif, series = tiff.file, tiff.series
    decoded = sum(one.nbytes for one in series) if page is None else max(one.keyframe.nbytes for one in series)
    check_claim(path, decoded, tif.filehandle.size, labels=labels)
    if page is None:
        parts = [plain(arranged(one.asarray(), one.axes), tif, one, path, labels=labels) for one in series]
        check_channels(path, [part.shape[-1] for part in parts])
        if len(parts) == 1:
            return parts[0]
        if tiff.order is None:
            return np.concatenate(parts)
        pages = np.empty((tiff.num_pages, *parts[0].shape[1:]), parts[0].dtype)
        for part, numbers in zip(parts, np.split(np.argsort(tiff.order), tiff.ends[:-1]), strict=True):
            pages[numbers] = part
        return pages
    if not 0 <= page < tiff.num_pages:
        raise InputError(f"{path} has {tiff.num_pages} pages; page {page} was asked for (counted from 0).")
    which, number = tiff.place(page)
    return plain(_one_page(tif, series[which], number), tif, series[which], path, labels=labels)


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


def plain(pages: np.ndarray, tif: tifffile.TiffFile, series: Series, path: Path, *, labels: bool) -> np.ndarray:
    """Pages without alpha, palette, bool and "0 is white".

    Raises:
        InputError: colours that are no grey values, palette or RGB; "0 is white" where there is no highest value.
    """
    page = series.keyframe
    first = page.samplesperpixel - len(page.extrasamples)
    alpha = {first + number for number, sample in enumerate(page.extrasamples) if sample in ALPHA}
    kept = [channel for channel in range(page.samplesperpixel) if channel not in alpha]
    if alpha and kept and pages.shape[-1] == page.samplesperpixel:
        pages = pages[..., : len(kept)] if kept[-1] == len(kept) - 1 else pages[..., kept]
    if not labels:
        _check_colours(page, path)
    # In ImageJ files palette and inversion are how the picture is shown; the numbers are the measurement.
    stored = labels or tif.is_imagej
    if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None and not stored:
        pages = (page.colormap >> 8).astype(np.uint8).T[pages[..., 0]]
    if page.photometric == PHOTOMETRIC.MINISWHITE and not stored:
        if pages.dtype.kind not in "ub":
            raise InputError(
                f"{path} says that 0 is white, but its pixels are {pages.dtype}, whose black is not known. Save it "
                "again with 0 as black (TIFF's MinIsBlack)."
            )
        pages = ~pages if pages.dtype == bool else np.subtract(2**page.bitspersample - 1, pages, dtype=pages.dtype)
    return pages.astype(np.uint8) * 255 if pages.dtype == bool else pages


def _check_colours(page: tifffile.TiffPage, path: Path) -> None:
    # The decoder of JPEG gives RGB for YCbCr, unless the planes are apart or there are more of them.
    becomes_rgb = page.compression in JPEG and page.planarconfig == PLANARCONFIG.CONTIG and not page.extrasamples
    if page.photometric in COLOURS or (page.photometric == PHOTOMETRIC.YCBCR and becomes_rgb):
        return
    name = getattr(page.photometric, "name", f"colour space {page.photometric}")
    raise InputError(
        f"{path} holds {name} colours; grey values, RGB or a palette were expected. Convert it to RGB in the program "
        "that wrote it, and save it again as TIFF."
    )
