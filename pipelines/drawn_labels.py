"""Drawn labels: the truth of an image from outlines that someone drew on it, in Fiji or QuPath.

Their files are read in `pipelines.outline_files`; which file belongs to which image is known by `pipelines.sources`.
"""

import functools
import os
from pathlib import Path

import numpy as np

from pipelines.errors import InputError
from pipelines.outline_files import Outlined, PageAxes, read_outlines

# Not .json: beside images it is often something else.
OUTLINES = (".zip", ".roi", ".geojson")
SHOWN = 5


def is_outlines(path: Path | str) -> bool:
    """Whether a truth file holds outlines, which need an image to be drawn on."""
    return os.fspath(path).lower().endswith(OUTLINES)


def draw(path: Path | str, page: int | None, shape: tuple[int, int], *, axes: PageAxes = ()) -> np.ndarray:
    """Labels of an image from a file of outlines.

    Args:
        path: See `is_outlines`.
        page: Of the image in its stack; None for an image of its own.
        shape: (H, W) of the image.
        axes: Of the stack, as of `pipelines.decoding.page_axes`; () where they are not known.

    Returns:
        int32 (H, W), cells 1, 2, ... in the order of the file, the later one on top where two overlap.

    Raises:
        InputError: No such file of outlines, or a cell without any pixel, which is hardly meant.
    """
    status = os.stat(path)
    outlined = _outlines(os.fspath(path), status.st_mtime_ns, status.st_size, axes)
    # An image of its own may have been a page of a stack when it was drawn on.
    only = next(iter(outlined.pages)) if page is None and len(outlined.pages) == 1 else page or 0
    labels, _, hidden = outlined.labels(only, shape)
    if hidden:
        count = len(outlined.pages[only])
        missing = sorted(set(range(1, count + 1)) - set(np.unique(labels).tolist()))
        which = ", ".join(map(str, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
        raise InputError(
            f"{path}: {hidden} of {count} outlines have no pixel of their own in the image of {shape[0]}x{shape[1]} "
            f"pixels (number {which} of the file): they lie outside of it, under a later one (the same twice?), or are "
            "smaller than a pixel. Delete or move them."
        )
    return labels


def check_outlines(image_file: Path | str, label_file: Path | str, pages: int, *, axes: PageAxes = ()) -> None:
    """Raise InputError where it is not clear which page of an image the outlines are of, or none of them is an area."""
    outlined = read_outlines(label_file, axes=axes)
    if outlined.passed_over and not any(outlined.pages.values()):
        name, kind = outlined.passed_over[0]
        raise InputError(
            f"{label_file} holds no area: {len(outlined.passed_over)} of its outlines are others, such as "
            f"'{name}' ({kind}). Draw cells as polygons, freehand selections, ovals or rectangles."
        )
    if pages == 1 and len(outlined.pages) > 1:
        raise InputError(
            f"{label_file} holds outlines at {len(outlined.pages)} positions of a stack, but {image_file} is one "
            "image. Keep those of this image, or give the whole stack."
        )
    if pages > 1 and outlined.unclear:
        raise InputError(
            f"{image_file} has {pages} pages, and its axes do not say which of them are frames and which sections, but "
            f"outlines of {label_file} have both, such as '{outlined.unclear}'. Save the image as a hyperstack (in "
            "ImageJ, Image > Hyperstacks > Stack to Hyperstack), or give a file a frame."
        )
    if pages > 1 and outlined.unplaced:
        raise InputError(
            f"{image_file} has {pages} pages, and {outlined.unplaced} outlines of {label_file} do not say which of "
            "them they are on. In ImageJ's ROI manager choose More > Options > Associate 'Show All' ROIs with slices, "
            "and draw them again; or give an image a file."
        )
    if pages > 1 and max(outlined.pages, default=0) >= pages:
        raise InputError(
            f"{label_file} holds outlines at position {max(outlined.pages) + 1}, but {image_file} has {pages} pages. "
            "Are they of another stack?"
        )


@functools.lru_cache(maxsize=2)
def _outlines(path: str, mtime_ns: int, size: int, axes: PageAxes) -> Outlined:
    """Outlines of a file, kept for the other pages of a stack; time and size tell another file of the same name."""
    return read_outlines(path, axes=axes)
