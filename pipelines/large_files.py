"""Large files: results larger than memory, written window by window as tiled BigTIFF or OME-Zarr.

Results in memory are written by `pipelines.images`, with the same tags.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

from pipelines.files import whole_file, whole_folder
from pipelines.images import image_stem, label_tags, resolution_tags
from pipelines.ome_zarr import CHUNK, SUFFIX, create_zarr

TILE = 256
MARKER = ".zattrs"
ACROSS = 4096  # columns that are held at once

Window = Callable[[int, slice, slice], np.ndarray]  # (page, rows, columns) -> (h, w)


def write_large(
    path: Path,
    window: Window,
    shape: tuple[int, int, int],
    dtype: np.dtype | type,
    *,
    labels: bool = False,
    spacing_um: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> None:
    """Write one plane, or several as a stack; it appears whole or not at all.

    Args:
        path: `.zarr`: an OME-Zarr folder of one level; else a tiled BigTIFF, deflated.
        window: Gives the windows, in any order that is asked for.
        shape: (N, H, W).
        dtype: Of the file.
        labels: Label ids, and marked as such.
        spacing_um: (row, column) pixel size.
        overwrite: Replace an OME-Zarr that is there; a TIFF always is.
    """
    if path.suffix.lower() == SUFFIX:
        with whole_folder(path, marker=MARKER, overwrite=overwrite) as folder:
            name = image_stem(path)
            array = create_zarr(folder, shape, dtype, name=name, spacing_um=spacing_um, labels=labels)
            for page, rows, columns in _windows(shape, CHUNK):
                index = (rows, columns) if shape[0] == 1 else (page, rows, columns)
                array[index] = window(page, rows, columns).astype(dtype, copy=False)
        return
    axes = "YX" if shape[0] == 1 else "TYX"
    tags = label_tags(None if shape[0] == 1 else shape[0], spacing_um=spacing_um) if labels else {}
    tags = tags or {"metadata": {"axes": axes}}
    with whole_file(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as tif:
        tif.write(
            _tiles(window, shape, dtype),
            shape=shape[-len(axes) :],
            dtype=dtype,
            tile=(TILE, TILE),
            photometric="minisblack",
            compression="zlib",
            maxworkers=1,
            **resolution_tags(spacing_um, imagej=labels),
            **tags,
        )


def _windows(shape: tuple[int, int, int], side: int) -> Iterator[tuple[int, slice, slice]]:
    pages, height, width = shape
    for page in range(pages):
        for row in range(0, height, side):
            for column in range(0, width, ACROSS):
                yield page, slice(row, min(row + side, height)), slice(column, min(column + ACROSS, width))


def _tiles(window: Window, shape: tuple[int, int, int], dtype: np.dtype | type) -> Iterator[np.ndarray]:
    for page, rows, columns in _windows(shape, TILE):
        some = window(page, rows, columns).astype(dtype, copy=False)
        for left in range(0, some.shape[1], TILE):
            tile = np.zeros((TILE, TILE), dtype)
            part = some[:, left : left + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
