"""Following: labels of a sequence in, a folder of tracks and their tables out. The cellseg-track workflow.

The linking itself lives in `cellseg.tracking`, what can be read as labels in `cellseg.label_series`, the tables in
`cellseg.measuring` and `cellseg.motion`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg.label_series import Series, few, find_series, frame_numbers
from cellseg.measuring import check_interval, check_spacing, measure_cells, write_table
from cellseg.motion import measure_tracks
from cellseg.tracking import USUAL, Lineage, Options, follow
from cellseg.tracks import RESULT_TABLE
from pipelines.errors import InputError
from pipelines.files import check_free, whole_folder
from pipelines.images import count_pages, image_files, read_page, read_spacing_um, write_labels
from pipelines.prepare import Progress
from pipelines.tracks import write_tracks

CELLS_TABLE, TRACKS_TABLE = "cells.csv", "tracks.csv"


@dataclass(frozen=True, eq=False)
class Followed:
    """A tracked sequence.

    Args:
        lineage: The tracks.
        cells, tracks: What is measured on them.
        num_frames: Frames that were read.
    """

    lineage: Lineage
    cells: pd.DataFrame
    tracks: pd.DataFrame
    num_frames: int


def track_folder(
    labels: Path | str,
    out: Path | str,
    *,
    images: Path | str | None = None,
    spacing_um: tuple[float, float] | None = None,
    interval_s: float | None = None,
    options: Options = USUAL,
    label_masks: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> Followed:
    """Track the cells of a sequence and write a result folder of the Cell Tracking Challenge with tables.

    The folder holds `maskNNN.tif` with the number of the frame it was made of and the track of each cell as its id,
    `res_track.txt`, `cells.csv` and `tracks.csv`. It appears whole or not at all. Where a cell is not seen for a while,
    its track ends and goes on as a child of its own, as `res_track.txt` demands; with `options.fill_gaps` it goes on.

    Args:
        labels: See `label_series.find_series`.
        out: The result folder.
        images: Folder or stack of the images that were segmented: intensities are measured on them, and outlines get
            their size. Frames are matched by number, or where the numbers differ, in order.
        spacing_um: (row, column) pixel size; None takes that of the images or label files, where they know it.
        interval_s: Seconds between frames.
        options: See `tracking.Options`.
        label_masks: Take masks, and make a cell of every piece.
        overwrite: Replace an older result folder.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user what was found, passed over or missing.

    Raises:
        FileNotFoundError: A folder is missing.
        InputError: No labels, masks in place of labels, frames of different size, images that do not fit, a folder
            that may not be replaced.
    """
    out = Path(out)
    check_spacing(spacing_um)
    check_interval(interval_s)
    _check_apart(labels, out)
    check_free(out, marker=RESULT_TABLE, overwrite=overwrite)
    pictures = _pictures(images) if images is not None else {}
    shape = read_page(*next(iter(pictures.values()))).shape[:2] if pictures else None
    series = find_series(labels, shape=shape, label_masks=label_masks, say=say)
    if images is not None:
        pictures = _matched(pictures, series, images)
        _check_image_size(pictures, series)
    spacing_um = spacing_um or _known_spacing(pictures, series)
    _tell_frames(series, options, say)
    lineage = follow(_same_size(progress(list(series.load), 2 * len(series)), series), options)
    with whole_folder(out, marker=RESULT_TABLE, overwrite=overwrite) as folder:
        width = max(3, *(len(str(frame)) for frame in series.load))

        def written() -> Iterator[tuple[int, np.ndarray]]:
            for frame in progress(list(series.load), len(series)):
                tracked = lineage.relabel(series.read(frame), frame)
                path = folder / f"mask{frame:0{width}d}.tif"
                write_labels(path, tracked, spacing_um=spacing_um, interval_s=interval_s)
                yield frame, tracked

        read = (read_page(*pictures[frame]) for frame in series.load) if pictures else None
        cells = measure_cells(written(), read, spacing_um=spacing_um, interval_s=interval_s)
        tracks = measure_tracks(cells, lineage.tracks, spacing_um=spacing_um, interval_s=interval_s)
        write_tracks(folder / RESULT_TABLE, lineage.tracks)
        write_table(folder / CELLS_TABLE, cells)
        write_table(folder / TRACKS_TABLE, tracks)
    return Followed(lineage, cells, tracks, len(series))


def _check_apart(labels: Path | str, out: Path) -> None:
    if Path(labels).resolve() == out.resolve():
        raise InputError(f"{out} holds the labels themselves. Choose another --out; the labels are kept as they are.")


def _tell_frames(series: Series, options: Options, say: Callable[[str], None]) -> None:
    if len(series) == 1:
        say("There is one frame only: each of its cells is a track of its own.")
    if missing := series.missing():
        longest = max(after - before - 1 for before, after in zip(series.load, list(series.load)[1:], strict=False))
        beyond = (
            f"; no cell is followed over more than {options.max_gap} of them (--max-gap)"
            if longest > options.max_gap
            else ""
        )
        say(
            f"{len(missing)} frame{'s have' if len(missing) > 1 else ' has'} no file: {few(missing)}. Cells are "
            f"followed from the frame before to the one after{beyond}."
        )


def _same_size(frames: Iterable[int], series: Series) -> Iterator[tuple[int, np.ndarray]]:
    first: tuple[int, tuple[int, ...]] | None = None
    for frame in frames:
        labels = series.read(frame)
        first = first or (frame, labels.shape)
        if labels.shape != first[1]:
            sizes = ["x".join(map(str, shape)) for shape in (first[1], labels.shape)]
            raise InputError(
                f"{series.where[first[0]]} is {sizes[0]} pixels, but {series.where[frame]} is {sizes[1]}. All frames "
                "of a sequence must have one size; crop or segment them alike."
            )
        yield frame, labels


def _pictures(images: Path | str) -> dict[int, tuple[Path, int]]:
    """Frame -> (file, page) of the images."""
    images = Path(images)
    if images.is_file():
        return {page: (images, page) for page in range(count_pages(images))}
    files = image_files(images)
    if len(files) == 1 and count_pages(files[0]) > 1:
        return {page: (files[0], page) for page in range(count_pages(files[0]))}
    return {frame: (path, 0) for frame, path in frame_numbers(files).items()}


def _matched(pictures: dict[int, tuple[Path, int]], series: Series, images: Path | str) -> dict[int, tuple[Path, int]]:
    frames = list(series.load)
    if pictures.keys() >= series.load.keys():
        return {frame: pictures[frame] for frame in frames}
    if len(pictures) == len(frames):
        return dict(zip(frames, pictures.values(), strict=True))
    missing = [frame for frame in frames if frame not in pictures]
    raise InputError(
        f"--images {images} has no image for {len(missing)} of {len(frames)} frames of labels, for example frame "
        f"{missing[0]} ({series.where[missing[0]]}). Images and labels are matched by the number in their names."
    )


def _check_image_size(pictures: dict[int, tuple[Path, int]], series: Series) -> None:
    """Before anything is computed; the other frames are checked when they are measured."""
    frame = next(iter(pictures))
    sizes = read_page(*pictures[frame]).shape[:2], series.read(frame).shape
    if sizes[0] != sizes[1]:
        image, labels = ("x".join(map(str, size)) for size in sizes)
        raise InputError(
            f"{pictures[frame][0]} is {image} pixels, but its labels {series.where[frame]} are {labels}. They must be "
            "the same size."
        )


def _known_spacing(pictures: dict[int, tuple[Path, int]], series: Series) -> tuple[float, float] | None:
    files = [next(iter(pictures.values()))[0]] if pictures else []
    first = Path(next(iter(series.where.values()), "").partition(", page")[0])
    for path in [*files, first]:
        if path.suffix.lower() in (".tif", ".tiff") and (spacing := read_spacing_um(path)):
            return spacing
    return None
