"""Sequence pictures: the movie, single frames and plots of a tracked sequence, as files of its result folder.

Single pictures are drawn in `cellseg.figures`; the page that shows them is made in `cellseg.sequence_report`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg import figures
from cellseg.figures.movies import best_suffix, write_movie
from cellseg.figures.tracks import TrackPainter
from cellseg.image_series import ImageSeries
from cellseg.motion import daughters
from pipelines.files import whole_file
from pipelines.images import read_labels, write_image
from pipelines.prepare import Progress
from pipelines.preview import resized
from pipelines.tracks import Track

FOLDER, MOVIE = "pictures", "tracks"
LARGEST = 1440  # pixels of the longer side of a movie and of a still
SAMPLED, LIMITS = 5, (1.0, 99.0)  # frames and percentiles that set the contrast of all
STILLS = 4


@dataclass(frozen=True)
class Pictures:
    """Files that were written.

    Args:
        movie: MP4 or GIF; None of a single frame.
        stills: (frame, file), PNG.
        paths, lineage, population, displacement: PNG.
    """

    movie: Path | None
    stills: tuple[tuple[int, Path], ...]
    paths: Path
    lineage: Path
    population: Path
    displacement: Path


def draw_sequence(
    folder: Path,
    files: Mapping[int, Path],
    images: ImageSeries | None,
    tables: tuple[Mapping[int, Track], pd.DataFrame, pd.DataFrame, pd.DataFrame],
    *,
    interval_s: float | None,
    progress: Progress = lambda items, total: items,
) -> Pictures:
    """Draw all pictures of a tracked sequence into its folder.

    Args:
        folder: Of the result; the movie goes there, the other pictures to `pictures/`.
        files: Frame -> label file whose ids are tracks, ascending.
        images: Of the same frames; None draws on black.
        tables: Tracks by label, cells, table of tracks, mean squared displacements.
        interval_s: Seconds between frames, where known.
        progress: Wraps an iterable of known length, to draw a bar.
    """
    tracks, cells, of_tracks, msd = tables
    painter = TrackPainter(cells, tracks, limits=_limits(images), interval_s=interval_s)
    blank = np.zeros((*read_labels(next(iter(files.values())), page=0).shape, 1), np.uint8)

    def image(frame: int) -> np.ndarray:
        return blank if images is None else images.read(frame)

    stills: list[tuple[int, Path]] = []
    chosen = _frames_to_show(list(files), tracks)

    def painted() -> Iterator[np.ndarray]:
        for frame in progress(list(files), len(files)):
            picture = _reduced(painter.frame(frame, image(frame), read_labels(files[frame], page=0)))
            if frame in chosen:
                stills.append((frame, folder / FOLDER / f"frame_{frame:03d}.png"))
                write_image(stills[-1][1], picture)
            yield picture

    movie = folder / f"{MOVIE}{best_suffix()}" if len(files) > 1 else None
    if movie is not None:
        write_movie(movie, painted())
    else:
        list(painted())
    drawn: dict[str, Callable[[], bytes]] = {
        "paths": lambda: painter.all_paths(image(list(files)[-1])),
        "lineage": lambda: figures.lineage_tree(tracks, interval_s=interval_s),
        "population": lambda: figures.population(cells, of_tracks, interval_s=interval_s),
        "displacement": lambda: figures.displacement(msd),
    }
    places = {name: folder / FOLDER / f"{name}.png" for name in drawn}
    for name, draw in drawn.items():
        with whole_file(places[name]) as temporary:
            temporary.write_bytes(draw())
    return Pictures(movie, tuple(stills), **places)


def _limits(images: ImageSeries | None) -> tuple[float, float] | None:
    """The same contrast for all frames: percentiles of a few of them together."""
    if images is None:
        return None
    frames = list(images.places)
    chosen = {frames[round(place)] for place in np.linspace(0, len(frames) - 1, SAMPLED)}
    pixels = np.concatenate([images.read(frame)[::2, ::2].ravel() for frame in sorted(chosen)])
    low, high = (float(value) for value in np.percentile(pixels, LIMITS))
    return (low, high) if low < high else (float(pixels.min()), float(pixels.max()))


def _frames_to_show(frames: list[int], tracks: Mapping[int, Track]) -> set[int]:
    """The first and the last frame, and between them those in which most daughters are born."""
    born: dict[int, int] = {}
    for ones in daughters(tracks).values():
        if len(ones) > 1:
            frame = min(tracks[one].begin for one in ones)
            born[frame] = born.get(frame, 0) + 1
    between = sorted(set(frames[1:-1]) & born.keys(), key=lambda frame: (-born[frame], frame))
    middle = [frames[len(frames) // 2]] if not between else []
    return {frames[0], frames[-1], *between[: STILLS - 2], *middle}


def _reduced(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    share = min(1.0, LARGEST / max(height, width))
    return resized(picture, (max(1, round(height * share)), max(1, round(width * share))))
