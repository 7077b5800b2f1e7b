"""Sequence report: a tracked and measured sequence as one HTML page with its movie, pictures and numbers.

The pictures are drawn in `cellseg.sequence_pictures`, the page is written in `cellseg.pages`; the report of a run is
`cellseg.report`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg import pages
from cellseg.image_series import ImageSeries
from cellseg.motion import daughters
from cellseg.pages import Figure, Page, Section, Tile
from cellseg.score_tables import number
from cellseg.sequence_pictures import FOLDER, Pictures, draw_sequence
from pipelines.prepare import Progress
from pipelines.tracks import Track

DASH = "–"


@dataclass(frozen=True, eq=False)
class Tables:
    """What is known of the cells.

    Args:
        tracks: By label.
        cells: `cellseg.measuring.measure_cells`.
        of_tracks: `cellseg.motion.measure_tracks`.
        msd: `cellseg.motion.mean_squared_displacement`.
    """

    tracks: Mapping[int, Track]
    cells: pd.DataFrame
    of_tracks: pd.DataFrame
    msd: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the sequence.

    Args:
        name: What it is called.
        files: Frame -> file whose labels are tracks, ascending.
        images: That were segmented, of the same frames; None where they are not known.
        spacing_um: (row, column) pixel size, where known.
        interval_s: Seconds between frames, where known.
        told: Where each of the two is known from.
        run: Folder of the run that has found the cells, where it was one.
        notes: What the user was told.
    """

    name: str
    files: Mapping[int, Path]
    images: ImageSeries | None
    spacing_um: tuple[float, float] | None
    interval_s: float | None
    told: tuple[str, str]
    run: Path | None
    notes: Sequence[str]


def write_sequence_report(
    folder: Path, tables: Tables, known: Known, *, progress: Progress = lambda items, total: items
) -> Path:
    """Draw the pictures of a tracked sequence and write `report.html`, both into its result folder.

    A movie of more than 15 MB stays a file beside the page; all else is inside.

    Args:
        folder: With the label files and tables.
        tables: Of the cells.
        known: Of the sequence.
        progress: Wraps an iterable of known length, to draw a bar.

    Returns:
        Path of the report.
    """
    pictures = draw_sequence(
        folder,
        known.files,
        known.images,
        (tables.tracks, tables.cells, tables.of_tracks, tables.msd),
        interval_s=known.interval_s,
        progress=progress,
    )
    beside = [pictures.movie.name] if pictures.movie and pictures.movie.stat().st_size > pages.EMBEDDED else []
    page = Page(
        title=known.name,
        subtitle=_subtitle(known),
        tiles=_tiles(tables, known),
        notes=known.notes,
        sections=[_movie(pictures, known, beside), _numbers(tables, known), *_plots(pictures), *_pictures(pictures)],
        files=_files(pictures, known),
        command=pages.command(),
        beside=beside,
    )
    pages.write_page(folder / pages.NAME, page)
    return folder / pages.NAME


def mean_speed(of_tracks: pd.DataFrame) -> tuple[float, str]:
    """Length of all paths over the time that they took, and its unit; NaN where no cell is seen in two frames.

    Args:
        of_tracks: `cellseg.motion.measure_tracks`.
    """
    moved = of_tracks[of_tracks["duration"] > 0]
    real = "path_length_um" in of_tracks and "duration_s" in of_tracks
    length, time = ("path_length_um", "duration_s") if real else ("path_length", "duration")
    total = float(moved[time].sum())
    return float(moved[length].sum()) / total if total else float("nan"), "µm/s" if real else "pixels/frame"


def _subtitle(known: Known) -> str:
    found = f"Cells found by the run {known.run.resolve().name}, tracked" if known.run else "Labels tracked"
    return f"{found} and measured by cellseg, {pages.today()}."


def _tiles(tables: Tables, known: Known) -> list[Tile]:
    speed, unit = mean_speed(tables.of_tracks)
    slow = ""
    if unit == "µm/s" and np.isfinite(speed):
        speed, unit, slow = 60 * speed, "µm/min", f"{speed:.3g} µm/s"
    counts = _counts(tables, known)
    counted = f"{counts.iloc[0]} in the first frame, {counts.iloc[-1]} in the last"
    return [
        Tile("Frames", number(len(known.files)), _span(list(known.files))),
        Tile("Cells, all frames", number(len(tables.cells)), counted),
        Tile("Tracks", number(len(tables.tracks)), f"{number(_num_complete(tables, known))} through all frames"),
        Tile("Divisions", number(_num_children(tables, least=2))),
        Tile("Mean speed", f"{speed:.3g} {unit}" if np.isfinite(speed) else DASH, slow),
    ]


def _span(frames: Sequence[int]) -> str:
    return f"{frames[0]} to {frames[-1]}" if len(frames) > 1 else f"number {frames[0]}"


def _counts(tables: Tables, known: Known) -> pd.Series:
    return tables.cells["frame"].value_counts().reindex(list(known.files), fill_value=0)


def _num_complete(tables: Tables, known: Known) -> int:
    first, last = min(known.files), max(known.files)
    return sum(track.begin == first and track.end == last for track in tables.tracks.values())


def _num_children(tables: Tables, *, least: int, most: int | None = None) -> int:
    sizes = [len(ones) for ones in daughters(tables.tracks).values()]
    return sum(size >= least and (most is None or size <= most) for size in sizes)


def _numbers(tables: Tables, known: Known) -> Section:
    cells, of_tracks = tables.cells, tables.of_tracks
    counts = _counts(tables, known)
    facts = [
        ("Cells a frame: median (least to most)", f"{counts.median():g} ({counts.min()} to {counts.max()})"),
        ("Frames without cells", number(int((counts == 0).sum()))),
        ("Tracks", number(len(tables.tracks))),
        ("… through all frames", number(_num_complete(tables, known))),
        ("… that enter without parent after the first frame", number(_num_entering(tables, known))),
        ("Divisions", number(_num_children(tables, least=2))),
        ("Cells lost and found again after a gap", number(_num_children(tables, least=1, most=1))),
        _middle("Area of a cell", cells, "area", {"area_um2": "µm²"}, "pixels"),
        _middle("Mean speed of a track", of_tracks, "mean_speed", {"mean_speed_um_per_s": "µm/s"}, "pixels/frame"),
        _middle("Fastest step of a track", of_tracks, "max_speed", {"max_speed_um_per_s": "µm/s"}, "pixels/frame"),
        _middle("Net displacement of a track", of_tracks, "net_displacement", {"net_displacement_um": "µm"}, "pixels"),
        _middle("Directionality of a track", of_tracks, "directionality", {}, ""),
        _middle("Time from division to division", of_tracks, "division_time", {"division_time_s": "h"}, "frames"),
        ("Pixel size", _pixel(known)),
        ("Time between frames", f"{known.interval_s:g} s, {known.told[1]}" if known.interval_s else "not known"),
    ]
    lacking = [
        name
        for name, value in (("--spacing-um Y X", known.spacing_um), ("--interval-s S", known.interval_s))
        if not value
    ]
    texts = [f"Pass {' and '.join(lacking)} to have micrometres and seconds."] if lacking else []
    note = (
        "Of the cells and tracks: the median, and in brackets the 5th and 95th percentile; tracks of one frame have no "
        "speed. Directionality: net displacement / path, 1 = straight. docs/tracking.md says what each column means."
    )
    return Section("Numbers", texts, facts, note=note)


def _num_entering(tables: Tables, known: Known) -> int:
    return sum(not track.parent and track.begin > min(known.files) for track in tables.tracks.values())


def _middle(name: str, table: pd.DataFrame, column: str, real: Mapping[str, str], unit: str) -> tuple[str, str]:
    """Median and 90 % range of a column, in real units where the table has them."""
    column, unit = next(((other, one) for other, one in real.items() if other in table), (column, unit))
    values = table[column].to_numpy(np.float64)
    values = values[np.isfinite(values)]
    if unit == "h":
        values = values / 3600
    if not len(values):
        return name, DASH
    low, middle, high = (_short(value) for value in np.quantile(values, [0.05, 0.5, 0.95]))
    return name, f"{middle} ({low} to {high}) {unit}".rstrip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _pixel(known: Known) -> str:
    if known.spacing_um is None:
        return "not known"
    sizes = known.spacing_um[:1] if known.spacing_um[0] == known.spacing_um[1] else known.spacing_um
    return f"{' x '.join(f'{size:.4g}' for size in sizes)} µm, {known.told[0]}"


def _movie(pictures: Pictures, known: Known, beside: Sequence[str]) -> Section:
    ground = "" if known.images is not None else " The images were not given, so the ground is black."
    figures = []
    if pictures.movie is not None:
        source = pictures.movie.name if beside else pages.embedded(pictures.movie)
        is_movie = pictures.movie.suffix == ".mp4"
        figures.append(Figure(source, f"All frames; the file is {pictures.movie.name}.", is_movie=is_movie, wide=True))
    texts = [
        "Each family of cells has a colour, daughters in shades of their parent's; the line behind a cell is its path "
        "of the last 20 frames. A white ring: a cell that divides two frames later at most, and then for four frames "
        f"its daughters, with lines from where it was.{ground}"
    ]
    return Section("Tracks", texts, figures=figures)


def _pictures(pictures: Pictures) -> list[Section]:
    stills = [Figure(pages.embedded(path), f"Frame {frame}.", wide=True) for frame, path in sorted(pictures.stills)]
    return [
        Section("All paths", figures=[Figure(pages.embedded(pictures.paths), "On the last frame.", wide=True)]),
        Section("Single frames", figures=stills),
    ]


def _plots(pictures: Pictures) -> list[Section]:
    return [
        Section(
            "Counts, sizes, speeds",
            figures=[Figure(pages.embedded(pictures.population), "Orange: the median.")],
        ),
        Section(
            "Who descends from whom",
            figures=[Figure(pages.embedded(pictures.lineage), "Time runs to the right; a dot: a division.")],
        ),
        Section(
            "How far cells wander",
            figures=[
                Figure(
                    pages.embedded(pictures.displacement),
                    "The steeper the line, the straighter the cells go. Pale: single tracks, up to a quarter of their "
                    "length.",
                )
            ],
        ),
    ]


def _files(pictures: Pictures, known: Known) -> list[tuple[str, str]]:
    names = list(known.files.values())
    span = names[0].name if len(names) == 1 else f"{names[0].name} to {names[-1].name}"
    listed = [
        (span, "labels of each frame; the id of a cell is its track"),
        ("res_track.txt", "track, first frame, last frame, parent (0 = none), as the Cell Tracking Challenge has it"),
        ("cells.csv", "a line for each cell in each frame"),
        ("tracks.csv", "a line for each track"),
        ("msd.csv", "mean squared displacement of each track, and of all together (track 0), over the time between"),
        (f"{FOLDER}/", "the pictures of this page"),
    ]
    return listed + ([(pictures.movie.name, "the movie")] if pictures.movie else [])
