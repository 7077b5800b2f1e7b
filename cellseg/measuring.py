"""Measuring: labels of each frame as a table with one line a cell, and tables as files.

The geometry of single cells lives in `cellseg.shapes`; what is measured on tracks, in `cellseg.motion`.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.filters import threshold_otsu

from cellseg.shapes import Cells, axes, crossings, group, perimeters, second_moments, solidities
from pipelines.errors import InputError
from pipelines.files import whole_file

TABLE_SUFFIXES = (".csv", ".parquet")
INTENSITIES = ("mean", "std", "min", "max", "median", "sum")
SQUARE = (1.0, 1.0)


def measure_cells(
    frames: Iterable[tuple[int, np.ndarray]],
    images: Iterable[np.ndarray] | None = None,
    *,
    spacing_um: Sequence[float] | None = None,
    interval_s: float | None = None,
    nucleus_channel: int | None = None,
    channels: Sequence[str] | None = None,
    tracked: bool = True,
) -> pd.DataFrame:
    """Measure every cell of every frame; one frame at a time is held in memory.

    Lengths are in pixels, and again in micrometres where the pixel size is known. The conventions are those of
    scikit-image's `regionprops`: the centre of the first pixel is (0, 0), the axes are those of the ellipse with the
    same second moments, the perimeter is `perimeter_crofton`, a cell of one pixel has axes 0 and solidity 1
    (`cellseg.shapes` says more).

    Args:
        frames: (frame, labels) in any order; labels int (H, W), 0 = background.
        images: The image (H, W) or (H, W, C) of each frame, in the same order; None measures no intensities.
        spacing_um: (row, column) size of a pixel in micrometres, where known.
        interval_s: Seconds between frames, where known.
        nucleus_channel: Channel of the images, from 0, in which the nuclei are bright. Then the nucleus is the part of
            the cell above Otsu's threshold of the cell's own pixels (the whole cell where they are all equal).
        channels: Names of the image's channels for the columns; None names several by their number from 0.
        tracked: Whether label ids are tracks; if not, the column `track` holds 0.

    Returns:
        One line a cell, frames in the order given and label ids ascending; without cells no line, but all columns:

        - frame, label, track, row, column (centroid)
        - area, equivalent_diameter, major_axis, minor_axis, eccentricity, solidity, perimeter, orientation
          (`cellseg.shapes.axes`; eccentricity and orientation are those of the real cell where pixels are not square)
        - touches_border: the cell may go on outside the image
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
    tables: list[pd.DataFrame] = []
    seen: set[int] = set()
    pairs = zip(frames, images, strict=True) if images is not None else zip(frames, repeat(None))
    for (frame, labels), image in pairs:
        if frame in seen:
            raise InputError(f"Frame {frame} is given twice. Each frame is measured once.")
        seen.add(frame)
        _check_labels(labels, frame)
        if image is not None:
            image = _with_channels(image, labels, frame, nucleus_channel, channels)
        cells = group(labels)
        columns = _identity(cells, frame, tracked) | _shape(cells, spacing)
        if image is not None and nucleus_channel is not None:
            columns |= _nucleus(cells, image[..., nucleus_channel], spacing)
        if interval_s is not None:
            columns["time_s"] = columns["frame"] * float(interval_s)
        if image is not None:
            columns |= _intensities(cells, image, channels)
        tables.append(pd.DataFrame(columns))
        if list(tables[-1]) != list(tables[0]):
            raise InputError(
                f"Frame {frame}: the image has {image.shape[-1] if image is not None else 0} channels, those before "
                "have another number. The images of a sequence must have the same channels."
            )
    if not tables:
        nothing = np.zeros((1, 1), np.int32)
        # The names of the columns: as for a frame without cells.
        blank = None
        if images is not None:
            count = max(len(channels or ()), 1, (nucleus_channel or 0) + 1)
            blank = [np.zeros((1, 1, count), np.uint8)]
        return measure_cells(
            [(0, nothing)],
            blank,
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
    """The size of a pixel or voxel as floats; InputError unless there is one number > 0 for each axis."""
    if spacing_um is None:
        return None
    spacing = tuple(float(size) for size in spacing_um)
    if len(spacing) != len(axes) or not all(0 < size < np.inf for size in spacing):
        raise InputError(f"spacing_um is {spacing}; ({', '.join(axes)}) in micrometres was expected, each above 0.")
    return spacing


def check_interval(interval_s: float | None) -> None:
    """Raise InputError unless the time between frames is a number > 0."""
    if interval_s is not None and not 0 < interval_s < np.inf:
        raise InputError(f"interval_s is {interval_s}; the seconds between two frames were expected, above 0.")


def _check_labels(labels: np.ndarray, frame: int) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "ui" or (labels.size and labels.min() < 0):
        raise InputError(
            f"Frame {frame}: labels must be integers >= 0 of shape (H, W), got {labels.dtype} {labels.shape}."
        )


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


def _identity(cells: Cells, frame: int, tracked: bool) -> dict[str, np.ndarray]:
    ids = cells.ids.astype(np.int64)
    return {
        "frame": np.full(len(ids), frame, np.int64),
        "label": ids,
        "track": ids if tracked else np.zeros_like(ids),
        "row": cells.mean(cells.rows),
        "column": cells.mean(cells.columns),
    }


def _shape(cells: Cells, spacing: tuple | None) -> dict[str, np.ndarray]:
    moments, crossed = second_moments(cells), crossings(cells)
    major, minor, eccentricity, orientation = axes(moments)
    height, width = cells.labels.shape
    rim = np.isin(cells.rows, (0, height - 1)) | np.isin(cells.columns, (0, width - 1))
    columns = {
        "area": cells.area.astype(np.int64),
        "equivalent_diameter": np.sqrt(4 * cells.area / np.pi),
        "major_axis": major,
        "minor_axis": minor,
        "eccentricity": eccentricity,
        "solidity": solidities(cells),
        "perimeter": perimeters(crossed, SQUARE),
        "orientation": orientation,
        "touches_border": cells.total(rim) > 0,
    }
    if spacing is not None:
        high, wide = spacing
        columns |= {
            "row_um": cells.mean(cells.rows) * high,
            "column_um": cells.mean(cells.columns) * wide,
            "area_um2": cells.area * high * wide,
            "equivalent_diameter_um": columns["equivalent_diameter"] * np.sqrt(high * wide),
        }
        real = axes(moments * (high * high, wide * wide, high * wide))
        columns["major_axis_um"], columns["minor_axis_um"], columns["eccentricity"], columns["orientation"] = real
        columns["perimeter_um"] = perimeters(crossed, spacing)
    return columns


def _nucleus(cells: Cells, image: np.ndarray, spacing: tuple | None) -> dict[str, np.ndarray]:
    values = image[cells.rows, cells.columns]
    inside = np.ones(len(values), bool)
    ends = np.cumsum(cells.area)
    for start, end in zip(ends - cells.area, ends, strict=True):
        own = values[start:end]
        # Otsu's threshold is the last value that is background; a flat cell has none.
        if own.min() < own.max():
            inside[start:end] = own > threshold_otsu(own)
    area = cells.total(inside)
    columns = {
        "nucleus_row": cells.total(inside * cells.rows) / area,
        "nucleus_column": cells.total(inside * cells.columns) / area,
        "nucleus_area": area.astype(np.int64),
    }
    if spacing is not None:
        columns["nucleus_row_um"] = columns["nucleus_row"] * spacing[0]
        columns["nucleus_column_um"] = columns["nucleus_column"] * spacing[1]
        columns["nucleus_area_um2"] = area * spacing[0] * spacing[1]
    return columns


def _intensities(cells: Cells, image: np.ndarray, channels: Sequence[str] | None) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    count = image.shape[-1]
    names = channels if channels is not None else [str(channel) for channel in range(count)]
    area = cells.area
    starts = np.cumsum(area) - area
    for channel in range(count):
        values = image[cells.rows, cells.columns, channel].astype(np.float64)
        ordered = values[np.lexsort((values, cells.members))]
        mean = cells.mean(values)
        deviation = values - mean[cells.members]
        middle = (ordered[starts + (area - 1) // 2] + ordered[starts + area // 2]) / 2
        found = (
            mean,
            np.sqrt(cells.mean(deviation * deviation)),
            ordered[starts],
            ordered[starts + area - 1],
            middle,
            cells.total(values),
        )
        suffix = f"_{names[channel]}" if count > 1 or channels is not None else ""
        columns |= {f"intensity_{name}{suffix}": value for name, value in zip(INTENSITIES, found, strict=True)}
    return columns
