"""Measuring: labels of each frame as a table with one line a cell, and tables as files.

The shapes of single cells are measured in `cellseg.shapes`; what is measured on tracks, in `cellseg.motion`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import regionprops_table

from cellseg.shapes import measure_shapes, number_cells
from pipelines.decoding import SPACINGS_UM
from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.workers import in_order

TABLE_SUFFIXES = (".csv", ".parquet")
INTENSITIES = {
    "mean": ndimage.mean,
    "std": ndimage.standard_deviation,
    "min": ndimage.minimum,
    "max": ndimage.maximum,
    "median": ndimage.median,
    "sum": ndimage.sum_labels,
}
# What is known of a cell that was drawn where it was not seen; everything else would be measured on invented pixels.
KNOWN_OF_FILLED = ("frame", "label", "track", "row", "column", "row_um", "column_um", "touches_border", "filled")


def measure_cells(
    frames: Iterable[tuple[int, np.ndarray]],
    images: Iterable[np.ndarray] | None = None,
    *,
    spacing_um: Sequence[float] | None = None,
    interval_s: float | None = None,
    nucleus_channel: int | None = None,
    channels: Sequence[str] | None = None,
    tracked: bool = True,
    filled: Mapping[int, Collection[int]] | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """Measure every cell of every frame; a few frames are in memory at once.

    Lengths are in pixels, and again in micrometres where the pixel size is known. The conventions are those of
    scikit-image's `regionprops` (see `cellseg.shapes.measure_shapes`).

    Args:
        frames: (frame, labels) in any order; labels int (H, W), 0 = background.
        images: The image (H, W) or (H, W, C) of each frame, in the same order; None measures no intensities.
        spacing_um: (row, column) size of a pixel in micrometres, where known.
        interval_s: Seconds between frames, where known.
        nucleus_channel: Channel of the images, from 0, in which the nuclei are bright. Then the nucleus is the part of
            the cell above Otsu's threshold of the cell's own pixels (the whole cell where they are all equal).
        channels: Names of the image's channels for the columns; None names several by their number from 0.
        tracked: Whether label ids are tracks; if not, the column `track` holds 0.
        filled: Frame -> label ids of cells that were not seen there but drawn, to fill a gap of their track. They keep
            their place; all that would be measured on their pixels is NaN.
        workers: Processes that measure. A script that asks for several needs `if __name__ == "__main__":`.

    Returns:
        One line a cell, frames in the order given and label ids ascending; without cells no line, but all columns:

        - frame, label, track, row, column (centroid)
        - area, equivalent_diameter, major_axis, minor_axis, eccentricity, orientation, solidity, perimeter
          (eccentricity and orientation are those of the real cell where pixels are not square)
        - touches_border: the cell may go on outside the image
        - filled: drawn, not seen
        - nucleus_row, nucleus_column, nucleus_area, with `nucleus_channel`
        - row_um, column_um, area_um2, equivalent_diameter_um, major_axis_um, minor_axis_um, perimeter_um, with
          `spacing_um` (nucleus_row_um, nucleus_column_um, nucleus_area_um2 too)
        - time_s = frame * interval_s, with `interval_s`
        - intensity_mean, _std, _min, _max, _median, _sum with images, in the file's own values; with several channels
          intensity_mean_NAME and so on

    Raises:
        InputError: Labels that are not integers >= 0 (H, W), a frame given twice, images of another size or number of
            channels, a channel that is not there, a size or interval <= 0.
    """
    spacing = check_spacing(spacing_um)
    check_interval(interval_s)
    if nucleus_channel is not None and images is None:
        raise InputError(f"nucleus_channel is {nucleus_channel}, but there are no images. Give the images as well.")
    measure = partial(_measure, spacing=spacing, nucleus_channel=nucleus_channel, channels=channels, tracked=tracked)
    tables: list[pd.DataFrame] = []
    checked = _checked(frames, images, nucleus_channel, channels, filled or {})
    for number, columns in in_order(measure, checked, workers):
        if interval_s is not None:
            columns["time_s"] = columns["frame"] * float(interval_s)
        tables.append(pd.DataFrame(columns))
        if list(tables[-1]) != list(tables[0]):
            raise InputError(
                f"Frame {number}: the image has another number of channels than those before. The images of a "
                "sequence must have the same channels."
            )
    if not tables:
        # The names of the columns: as for a frame without cells.
        count = max(len(channels or ()), 1, (nucleus_channel or 0) + 1)
        return measure_cells(
            [(0, np.zeros((1, 1), np.int32))],
            None if images is None else [np.zeros((1, 1, count), np.uint8)],
            spacing_um=spacing_um,
            interval_s=interval_s,
            nucleus_channel=nucleus_channel,
            channels=channels,
            tracked=tracked,
        )
    # Frames without cells would otherwise decide the dtypes.
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def write_table(path: Path | str, table: pd.DataFrame) -> None:
    """Write a table as CSV or Parquet, by the suffix; the file appears whole or not at all.

    Numbers are written in full, so that both files hold the same values; NaN is an empty field of the CSV.

    Raises:
        InputError: Another suffix, or Parquet where pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix not in TABLE_SUFFIXES:
        raise InputError(f"{path}: a table is written as {' or '.join(TABLE_SUFFIXES)}, not as '{path.suffix}'.")
    if path.suffix == ".parquet":
        check_parquet(path)
    with whole_file(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False, engine="pyarrow")


def check_parquet(path: Path | str) -> None:
    """Raise InputError unless Parquet can be written; for the door, before anything is computed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(
            f"{path}: Parquet needs pyarrow, which is not installed. Install it (pip install 'cellseg[parquet]'), or "
            "write a .csv."
        ) from None


def check_spacing(spacing_um: Sequence[float] | None, axes: Sequence[str] = ("row", "column")) -> tuple | None:
    """The size of a pixel or voxel as floats; InputError unless each axis has a number within `SPACINGS_UM`."""
    if spacing_um is None:
        return None
    spacing = tuple(float(size) for size in spacing_um)
    low, high = SPACINGS_UM
    if len(spacing) != len(axes) or not all(low <= size <= high for size in spacing):
        raise InputError(
            f"spacing_um is {spacing}; ({', '.join(axes)}) in micrometres was expected, each above 0, from {low:g} to "
            f"{high:g}."
        )
    return spacing


def check_interval(interval_s: float | None) -> None:
    """Raise InputError unless the time between frames is a number > 0."""
    if interval_s is not None and not 0 < interval_s < np.inf:
        raise InputError(f"interval_s is {interval_s}; the seconds between two frames were expected, above 0.")


class _Frame(NamedTuple):
    number: int
    labels: np.ndarray
    image: np.ndarray | None
    filled: Collection[int]


def _checked(
    frames: Iterable[tuple[int, np.ndarray]],
    images: Iterable[np.ndarray] | None,
    nucleus_channel: int | None,
    channels: Sequence[str] | None,
    filled: Mapping[int, Collection[int]],
) -> Iterator[_Frame]:
    seen: set[int] = set()
    pairs = zip(frames, images, strict=True) if images is not None else zip(frames, repeat(None))
    for (number, labels), image in pairs:
        if number in seen:
            raise InputError(f"Frame {number} is given twice. Each frame is measured once.")
        seen.add(number)
        if labels.ndim != 2 or labels.dtype.kind not in "ui" or (labels.size and labels.min() < 0):
            raise InputError(
                f"Frame {number}: labels must be integers >= 0 of shape (H, W), got {labels.dtype} {labels.shape}."
            )
        if image is not None:
            image = _with_channels(image, labels, number, nucleus_channel, channels)
        yield _Frame(number, labels, image, filled.get(number, ()))


def _with_channels(
    image: np.ndarray, labels: np.ndarray, frame: int, nucleus_channel: int | None, channels: Sequence[str] | None
) -> np.ndarray:
    image = image[..., np.newaxis] if image.ndim == 2 else image
    if image.shape[:2] != labels.shape or image.ndim != 3:
        raise InputError(f"Frame {frame}: the image has shape {image.shape}, but its labels {labels.shape}.")
    count = image.shape[-1]
    if nucleus_channel is not None and not 0 <= nucleus_channel < count:
        raise InputError(f"nucleus_channel is {nucleus_channel}, but the image has channels 0 to {count - 1}.")
    if channels is not None and len(channels) != count:
        raise InputError(f"Frame {frame}: {len(channels)} channels are named, but the image has {count}.")
    return image


def _measure(
    frame: _Frame,
    *,
    spacing: tuple | None,
    nucleus_channel: int | None,
    channels: Sequence[str] | None,
    tracked: bool,
) -> tuple[int, dict[str, np.ndarray]]:
    ids, labels = number_cells(frame.labels)
    ids = ids.astype(np.int64)
    drawn = np.isin(ids, list(frame.filled))
    columns = {
        "frame": np.full(len(ids), frame.number, np.int64),
        "label": ids,
        "track": ids if tracked else np.zeros_like(ids),
        **measure_shapes(labels, spacing),
        "filled": drawn,
    }
    if frame.image is not None:
        if nucleus_channel is not None:
            columns |= _nuclei(labels, frame.image[..., nucleus_channel], spacing)
        columns |= _intensities(labels, len(ids), frame.image, channels)
    for name, values in columns.items():
        if name not in KNOWN_OF_FILLED:
            values[drawn] = np.nan
    return frame.number, columns


def _nuclei(labels: np.ndarray, image: np.ndarray, spacing: tuple | None) -> dict[str, np.ndarray]:
    nuclei = labels.copy()
    for cell, box in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[box] == cell
        values = image[box][own]
        # Otsu's threshold is the last value that is background; a flat cell has none.
        if values.min() < values.max():
            nuclei[box][own & (image[box] <= threshold_otsu(values))] = 0
    found = regionprops_table(nuclei, properties=("centroid", "area"))
    columns = {
        "nucleus_row": found["centroid-0"],
        "nucleus_column": found["centroid-1"],
        "nucleus_area": found["area"],
    }
    if spacing is not None:
        columns["nucleus_row_um"] = columns["nucleus_row"] * spacing[0]
        columns["nucleus_column_um"] = columns["nucleus_column"] * spacing[1]
        columns["nucleus_area_um2"] = columns["nucleus_area"] * spacing[0] * spacing[1]
    return columns


def _intensities(
    labels: np.ndarray, count: int, image: np.ndarray, channels: Sequence[str] | None
) -> dict[str, np.ndarray]:
    inside, cells = labels > 0, np.arange(count)
    members = labels[inside] - 1
    names = channels if channels is not None else [str(channel) for channel in range(image.shape[-1])]
    columns: dict[str, np.ndarray] = {}
    for channel, channel_name in enumerate(names):
        values = image[..., channel][inside].astype(np.float64)
        suffix = f"_{channel_name}" if len(names) > 1 or channels is not None else ""
        for name, function in INTENSITIES.items():
            # These functions know no empty labelling.
            found = function(values, members, cells) if count else []
            columns[f"intensity_{name}{suffix}"] = np.array(found, np.float64)
    return columns
