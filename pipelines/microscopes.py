"""Files of microscopes: .czi of Zeiss, .nd2 of Nikon and .lif of Leica, read by bioio where its plugin is installed.

Open formats are decoded in `pipelines.decoding`, through which these files come as well.
"""

import functools
import importlib
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import InputError

PLUGINS = {".czi": "bioio_czi", ".nd2": "bioio_nd2", ".lif": "bioio_lif"}
MICROSCOPE_SUFFIXES = tuple(PLUGINS)
# The readers' libraries do not promise to be safe in threads.
_ONE_AT_A_TIME = threading.RLock()


class Calibration(NamedTuple):
    """What a file knows of its units; None where it does not.

    Args:
        spacing_um: (row, column) size of a pixel.
        section_um: Distance of sections.
        interval_s: Seconds between frames.
    """

    spacing_um: tuple[float, float] | None
    section_um: float | None
    interval_s: float | None


def layout(path: Path) -> tuple[int, tuple[int, int, int], np.dtype]:
    """Number of pages (frames times sections), (H, W, C) of each, and dtype.

    Raises:
        InputError: The plugin is not installed, or the file holds several images.
    """
    with _ONE_AT_A_TIME:
        data = _stack(path)
        pages, height, width = data.shape[0] * data.shape[1], data.shape[2], data.shape[3]
        return pages, (height, width, int(np.prod(data.shape[4:]))), np.dtype(data.dtype)


def page_axes(path: Path) -> tuple[tuple[str, int], ...]:
    """Frames and sections that the pages of `read` count; errors as `layout`."""
    with _ONE_AT_A_TIME:
        frames, sections = _stack(path).shape[:2]
        return ("T", frames), ("Z", sections)


def read(path: Path, *, page: int | None = None) -> np.ndarray:
    """Pages (N, H, W, C), frame by frame and in a frame section by section; with `page` that one alone (N = 1).

    Raises:
        InputError: As `layout`, or a page that is not there.
    """
    with _ONE_AT_A_TIME:
        data = _stack(path)
        count = data.shape[0] * data.shape[1]
        if page is not None:
            if not 0 <= page < count:
                raise InputError(f"{path} has {count} pages; page {page} was asked for (counted from 0).")
            frame, section = divmod(page, data.shape[1])
            data = data[frame : frame + 1, section : section + 1]
        pages = np.asarray(data.compute(scheduler="synchronous"))
    return pages.reshape(-1, *pages.shape[2:4], int(np.prod(pages.shape[4:])))


def read_calibration(path: Path) -> Calibration:
    """Units of a file; errors as `layout`."""
    with _ONE_AT_A_TIME:
        image = _opened(path, _state(path))
        section, row, column = (size if size and 0 < size < np.inf else None for size in image.physical_pixel_sizes)
        # Readers give a timedelta, where they give anything.
        interval: Any = getattr(image, "time_interval", None)
    seconds = interval.total_seconds() if hasattr(interval, "total_seconds") else 0.0
    return Calibration(
        (float(row), float(column)) if row and column else None,
        float(section) if section else None,
        float(seconds) if seconds > 0 else None,
    )


def _stack(path: Path) -> Any:
    """Lazy array (T, Z, H, W, C), or (T, Z, H, W, C, samples) of colours."""
    image = _opened(path, _state(path))
    return image.get_image_dask_data("TZYXCS" if "S" in image.dims.order else "TZYXC")


def _state(path: Path) -> tuple:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=2)
def _opened(path: Path, state: tuple) -> Any:
    """A bioio image; `state` is what changes when the file does."""
    suffix = path.suffix.lower()
    plugin = PLUGINS[suffix]
    try:
        open_image, reader = importlib.import_module("bioio").BioImage, importlib.import_module(plugin).Reader
    except ImportError as error:
        raise InputError(
            f"{path}: {suffix} files are read by {plugin.replace('_', '-')}, which is not installed ({error}). Install "
            f"it (pip install 'cellseg[{suffix[1:]}]'), or export the file as OME-TIFF: in Fiji, File > Import > "
            "Bio-Formats, then File > Save As > OME-TIFF."
        ) from None
    image = open_image(path, reader=reader)
    if len(image.scenes) > 1:
        raise InputError(
            f"{path} holds {len(image.scenes)} images ({', '.join(map(str, image.scenes[:3]))}, ...), such as several "
            "positions. Export each as a file of its own, for example as OME-TIFF."
        )
    return image
