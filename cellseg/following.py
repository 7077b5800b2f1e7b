"""Following: labels of a sequence, or its images and a run, in; a folder of tracks, tables and a report out.

The cellseg-track workflow, and that of cellseg-predict --track. The linking itself lives in `cellseg.tracking`, what
can be read as labels in `cellseg.label_series`, the tables in `cellseg.measuring` and `cellseg.motion`, the pictures
and the report in `cellseg.sequence_report`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg import results, series_prediction
from cellseg.class_columns import ClassColumns
from cellseg.image_series import ImageSeries, find_images
from cellseg.label_series import Series, find_series, in_pieces_told, lacking, same_size
from cellseg.magnification import AS_IT_IS, Magnification
from cellseg.measuring import check_interval, check_spacing, measure_cells, write_table
from cellseg.motion import mean_squared_displacement, measure_tracks
from cellseg.sequence_report import Known, Tables, write_sequence_report
from cellseg.tracking import USUAL, Lineage, Options, follow
from cellseg.tracks import RESULT_TABLE
from pipelines.calibration import read_interval_s
from pipelines.errors import InputError
from pipelines.files import check_free, readable, whole_folder
from pipelines.images import write_labels
from pipelines.prepare import Progress
from pipelines.rasters import open_raster
from pipelines.tracks import write_tracks

CELLS_TABLE, TRACKS_TABLE, MSD_TABLE = "cells.csv", "tracks.csv", "msd.csv"
LEAST_LAGS, LAGS = 10, 4  # of mean squared displacements: a quarter of the frames, or ten
GIVEN, FILES, RUN = "as given", "as the files say", "as the run's experiment says"


@dataclass(frozen=True)
class Units:
    """What a pixel and a frame are.

    Args:
        spacing_um: (row, column) pixel size; None where it is not known.
        interval_s: Seconds between frames; None where they are not known.
        told: Where each of them is known from, for the report.
    """

    spacing_um: tuple[float, float] | None = None
    interval_s: float | None = None
    told: tuple[str, str] = (GIVEN, GIVEN)


@dataclass(frozen=True)
class Wanted:
    """What is made of the tracks beside `maskNNN.tif` and `res_track.txt`.

    Args:
        tables: cells.csv, tracks.csv, msd.csv.
        report: The movie, the pictures and report.html; only with `tables`.
        workers: Processes that measure.
    """

    tables: bool = True
    report: bool = True
    workers: int = 1


@dataclass(frozen=True, eq=False)
class Followed:
    """A tracked sequence.

    Args:
        lineage: The tracks.
        cells, tracks: What is measured on them; without lines where no tables were wanted.
        num_frames: Frames that were read.
        failed: Images that could not be predicted.
    """

    lineage: Lineage
    cells: pd.DataFrame
    tracks: pd.DataFrame
    num_frames: int
    failed: tuple[str, ...] = ()


ALL, NO_UNITS, LABELS_ALONE = Wanted(), Units(), results.Options()


def track_folder(
    labels: Path | str,
    out: Path | str,
    *,
    images: Path | str | None = None,
    spacing_um: tuple[float, float] | None = None,
    interval_s: float | None = None,
    options: Options = USUAL,
    wanted: Wanted = ALL,
    label_masks: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> Followed:
    """Track the cells of a sequence and write a result folder of the Cell Tracking Challenge with tables and report.

    The folder holds `maskNNN.tif` with the number of the frame it was made of and the track of each cell as its id,
    `res_track.txt`, and what is `wanted`. It appears whole or not at all. Where a cell is not seen for a while, it is
    drawn on the background, for in `res_track.txt` a track has a cell in each of its frames; `cells.csv` marks it as
    filled, and nothing is measured on it. Without `options.fill_gaps`, and where there is no room for it, its track
    ends and goes on as a child of its own.

    Args:
        labels: See `label_series.find_series`.
        out: The result folder.
        images: Folder or stack of the images that were segmented: intensities are measured on them, the pictures show
            them, and outlines get their size. Frames are matched by number, or where the numbers differ, in order.
        spacing_um: (row, column) pixel size; None takes that of the images or label files, where they know it.
        interval_s: Seconds between frames; None likewise.
        options: See `tracking.Options`.
        wanted: Tables and report.
        label_masks: Take masks, and make a cell of every piece.
        overwrite: Replace an older result folder.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user what was found, passed over or missing.

    Raises:
        FileNotFoundError: A folder is missing.
        InputError: No labels, masks in place of labels, frames of different size, images that do not fit, a folder
            that may not be replaced.
    """
    out, notes = Path(out), series_prediction.Notes(say)
    given = _given(spacing_um, interval_s)
    _check_apart(labels, out)
    check_free(out, marker=RESULT_TABLE, overwrite=overwrite)
    pictures = find_images(images) if images is not None else None
    series = find_series(
        labels, shape=pictures.shape if pictures is not None else None, label_masks=label_masks, say=notes.say
    )
    if pictures is not None:
        pictures = pictures.matched(list(series.load), series.where)
        _check_image_size(pictures, series)
    files = [*(pictures.files[:1] if pictures else []), Path(next(iter(series.where.values())).partition(", page")[0])]
    sequence = _Sequence(
        readable("/".join(Path(labels).resolve().parts[-2:])), series, pictures, _units(given, files), notes
    )
    with whole_folder(out, marker=RESULT_TABLE, overwrite=overwrite) as folder:
        return sequence.track(folder, options, wanted, progress)


def track_images(
    run: Path | str | Sequence[Path],
    inputs: Path | str | Sequence[Path],
    out: Path | str,
    *,
    spacing_um: tuple[float, float] | None = None,
    interval_s: float | None = None,
    options: results.Options = LABELS_ALONE,
    tracking: Options = USUAL,
    magnification: Magnification = AS_IT_IS,
    wanted: Wanted = ALL,
    refused: Sequence[str] = (),
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> Followed:
    """Find the cells in the images of a sequence, track them and write the folder that `track_folder` writes.

    The labels that the run finds are kept until the folder is whole: after an interruption or an error the same call
    with `options.resume` goes on with them.

    Args:
        run: A run folder, or several whose probabilities are averaged.
        inputs: See `image_series.find_images`.
        out: The result folder.
        spacing_um: (row, column) pixel size; None takes that of the images, or else of the run's experiment.
        interval_s: Seconds between frames; None likewise.
        options: keep_going, overwrite and resume are taken; what else is asked for is refused. A frame that fails and
            is passed over is a frame without file: cells are followed over it.
        tracking: See `tracking.Options`.
        magnification: By what images are zoomed for the run; see `inference.load_run`.
        wanted: Tables and report.
        refused: Further options of the call that do not go with tracking.
        progress, say: As `track_folder`.

    Raises:
        InputError: As `prediction.predict_files` and `track_folder`; the labels until then are kept.
    """
    out, notes = Path(out), series_prediction.Notes(say)
    given = _given(spacing_um, interval_s)
    series_prediction.check_options(options, "--track", refused)
    if options.resume and (out / RESULT_TABLE).is_file():
        raise InputError(f"{out} is whole already. Nothing is left to --resume; pass --overwrite to make it anew.")
    check_free(out, marker=RESULT_TABLE, overwrite=options.overwrite)
    images = find_images(inputs)
    images.check_sizes()
    runs = series_prediction.read_runs(run)
    data = runs[0].experiment.data
    units = _units(given, images.files[:1], Units(data.spacing_um, data.interval_s, (RUN, RUN)))
    unfinished = series_prediction.unfinished(
        out, runs, images, marker=RESULT_TABLE, options=options, magnification=magnification
    )
    with unfinished as (folder, labels):
        failed = series_prediction.predict_series(
            runs,
            images,
            labels,
            magnification=magnification,
            keep_going=options.keep_going,
            progress=progress,
            say=notes.say,
        )
        frames = labels.done()
        if not frames:
            raise InputError(f"None of the {len(images)} images of {images.name} could be predicted.")
        # What the run finds are cells, whatever their ids look like.
        load: dict[int, Callable] = {frame: partial(labels.read, frame) for frame in frames}
        series = Series(load, {frame: images.where(frame) for frame in frames}, label_masks=True)
        known = runs[0].data.get("classes")
        classes = ClassColumns(known, labels.read_classes) if known else None
        shown = images.matched(frames, series.where)
        sequence = _Sequence(images.name, series, shown, units, notes, runs[0].folder, classes)
        return replace(sequence.track(folder, tracking, wanted, progress), failed=tuple(failed))


@dataclass(frozen=True)
class _Sequence:
    """Labels by frame, with what is known of them."""

    name: str
    series: Series
    images: ImageSeries | None
    units: Units
    notes: series_prediction.Notes
    run: Path | None = None
    classes: ClassColumns | None = None

    def track(self, folder: Path, options: Options, wanted: Wanted, progress: Progress) -> Followed:
        """Track the cells and write everything into a folder."""
        series, spacing, interval = self.series, self.units.spacing_um, self.units.interval_s
        _tell_frames(series, options, self.notes.say)
        frames = same_size(progress(list(series.load), len(series)), series)
        lineage = follow(in_pieces_told(frames, series, self.notes.say), options)
        width = max(3, *(len(str(frame)) for frame in series.load))
        files = {frame: folder / f"mask{frame:0{width}d}.tif" for frame in series.load}

        def written() -> Iterator[tuple[int, np.ndarray]]:
            for frame in progress(list(files), len(files)):
                tracked = lineage.relabel(series.read(frame), frame)
                write_labels(
                    files[frame], tracked, spacing_um=spacing, interval_s=interval, highest=len(lineage.tracks)
                )
                if self.classes:
                    self.classes.note(frame, tracked)
                yield frame, tracked

        cells, tracks = pd.DataFrame(), pd.DataFrame()
        if wanted.tables:
            read = (self.images.read(frame) for frame in files) if self.images else None
            filled = {frame: [track for _, _, track in drawn] for frame, drawn in lineage.filled.items()}
            cells = measure_cells(
                written(), read, spacing_um=spacing, interval_s=interval, filled=filled, workers=wanted.workers
            )
            tracks = measure_tracks(cells, lineage.tracks, spacing_um=spacing, interval_s=interval)
            if self.classes:
                cells = self.classes.cells(cells)
                tracks = self.classes.tracks(tracks, cells)
            lags = max(LEAST_LAGS, len(files) // LAGS)
            msd = mean_squared_displacement(cells, spacing_um=spacing, interval_s=interval, max_lag=lags)
            for name, table in ((CELLS_TABLE, cells), (TRACKS_TABLE, tracks), (MSD_TABLE, msd)):
                write_table(folder / name, table)
        else:
            for _ in written():
                pass
        write_tracks(folder / RESULT_TABLE, lineage.tracks)
        if wanted.tables and wanted.report:
            tables = Tables(lineage.tracks, cells, tracks, msd)
            told = self.units.told
            known = Known(self.name, files, self.images, spacing, interval, told, self.run, self.notes.told)
            write_sequence_report(folder, tables, known, progress=progress)
        return Followed(lineage, cells, tracks, len(series))


def _given(spacing_um: tuple[float, float] | None, interval_s: float | None) -> Units:
    check_spacing(spacing_um)
    check_interval(interval_s)
    return Units(spacing_um, interval_s)


def _units(given: Units, files: Iterable[Path], otherwise: Units = NO_UNITS) -> Units:
    """What is given, else what the files say, else otherwise; pixel size and interval each for itself."""
    files = [path for path in files if path.suffix.lower() in (".tif", ".tiff", ".zarr")]
    spacings = [(given.spacing_um, GIVEN), *((open_raster(path).spacing_um, FILES) for path in files)]
    intervals = [(given.interval_s, GIVEN), *((read_interval_s(path), FILES) for path in files)]
    spacing = next((one for one in spacings if one[0] is not None), (otherwise.spacing_um, otherwise.told[0]))
    interval = next((one for one in intervals if one[0] is not None), (otherwise.interval_s, otherwise.told[1]))
    return Units(spacing[0], interval[0], (spacing[1], interval[1]))


def _check_apart(labels: Path | str, out: Path) -> None:
    if Path(labels).resolve() == out.resolve():
        raise InputError(f"{out} holds the labels themselves. Choose another --out; the labels are kept as they are.")


def _tell_frames(series: Series, options: Options, say: Callable[[str], None]) -> None:
    if len(series) == 1:
        say("There is one frame only: each of its cells is a track of its own.")
    if missing := series.missing():
        longest = max(map(len, missing))
        beyond = (
            f"; no cell is followed over more than {options.max_gap} of them (--max-gap)"
            if longest > options.max_gap
            else ""
        )
        say(f"{lacking(missing, 'frame')}. Cells are followed from the frame before to the one after{beyond}.")


def _check_image_size(images: ImageSeries, series: Series) -> None:
    """Before anything is computed; the other frames are checked when they are measured."""
    frame = next(iter(images.places))
    sizes = images.read(frame).shape[:2], series.read(frame).shape
    if sizes[0] != sizes[1]:
        image, labels = ("x".join(map(str, size)) for size in sizes)
        raise InputError(
            f"{images.where(frame)} is {image} pixels, but its labels {series.where[frame]} are {labels}. They must be "
            "the same size."
        )
