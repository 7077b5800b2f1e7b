"""Layout `ctc`: sequences of the Cell Tracking Challenge with gold, silver or marker truth.

The table of tracks is read and checked in `pipelines.tracks`.
"""

import bisect
import functools
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from skimage.draw import disk

from pipelines import images
from pipelines.errors import InputError, nearest
from pipelines.numbering import frame_number
from pipelines.sample import Item, Sample
from pipelines.tracks import Track, check_frame, read_tracks

# Truth: folder after the name of the sequence, and what its files are called before the frame number.
TRUTHS = {
    "gold": ("_GT/SEG", "man_seg"),
    "silver": ("_ST/SEG", "man_seg"),
    "markers": ("_GT/TRA", "man_track"),
}
AUTO = "auto"
TRACKS = "man_track.txt"
SEQUENCE = re.compile(r"\d+")
# Diameter of the disc around the marker of an unannotated cell, in diameters of the median annotated one: wide enough
# for its outline although the marker need not lie in its middle.
DISC_DIAMETERS = 1.5


def find(source: Path | str, *, truth: str = "gold", sequence: str | int | None = None) -> list[Item]:
    """Frames that have a truth file; frames without one are left out.

    Gold truth is often partial: a cell that has a marker in 01_GT/TRA but no mask in 01_GT/SEG is unannotated, not
    background, and its surroundings are ignored (see `unannotated`). On a frame without marker file nothing is known
    about missing cells, and nothing is ignored.

    Marker images, as truth or beside gold, are checked against 01_GT/TRA/man_track.txt when they are read; without
    that table they are taken as they are. Silver truth is not checked.

    Args:
        source: Data-set folder, which holds 01/tNNN.tif and 01_GT/SEG, 01_GT/TRA or 01_ST/SEG.
        truth: "gold" (by hand, often few frames, and not every cell of them), "silver" (computed, every cell),
            "markers" (01_GT/TRA: one blob a cell, not its outline), or "auto": silver where every sequence has it,
            otherwise gold.
        sequence: Only this one, "01" or 1; None takes all.

    Returns:
        Items sorted by name: name `01/t000`, source `01`, frame 0.

    Raises:
        FileNotFoundError: The data set, the sequence or its truth folder is missing.
        InputError: An unknown truth, a truth folder without files, a truth file without image, two folders of one
            number (01 and 1), a table of tracks that contradicts itself.
    """
    known = [*TRUTHS, AUTO]
    if truth not in known:
        raise InputError(f"data.truth is '{truth}'.{nearest(str(truth), known)} Known: {', '.join(known)}.")
    source = Path(source)
    names = _sequences(source, sequence)
    if truth == AUTO:
        truth = "silver" if all((source / f"{name}{TRUTHS['silver'][0]}").is_dir() for name in names) else "gold"
    return [item for name in names for item in _items(source, name, truth)]


def tracks_file(source: Path | str, sequence: str) -> Path | None:
    """Path of the sequence's man_track.txt, None if it has none."""
    path = Path(source) / f"{sequence}_GT" / "TRA" / TRACKS
    return path if path.is_file() else None


def load(
    image_file: Path,
    label_file: Path,
    name: str,
    marker_file: Path | None = None,
    tracks: dict[int, Track] | None = None,
) -> Sample:
    """Read one frame and its truth.

    Args:
        image_file, label_file: The two files.
        name: `SEQUENCE/tFRAME`.
        marker_file: Markers of all cells in this frame: `label_file` itself if they are the truth; another file says
            which cells the truth leaves out.
        tracks: Tracks that live in this frame, to check the markers against; None = not known.

    Raises:
        InputError: Files that do not fit each other.
    """
    sequence, frame = name.split("/t")
    labels = _one_page(label_file)
    try:
        sample = Sample(
            image=images.read_image(image_file),
            labels=labels,
            name=name,
            source=sequence,
            frame=int(frame),
            spacing_um=images.read_spacing_um(image_file),
        )
    except InputError as error:
        if str(image_file) in str(error) or str(label_file) in str(error):
            raise
        raise InputError(f"{error} Files: {image_file}, {label_file}.") from error
    if marker_file is None:
        return sample
    markers = labels if marker_file == label_file else _one_page(marker_file)
    if markers.shape != labels.shape:
        raise InputError(
            f"{name}: {label_file} is {labels.shape[0]}x{labels.shape[1]} pixels, but {marker_file} is "
            f"{markers.shape[0]}x{markers.shape[1]}. They must be the same size."
        )
    if tracks is not None:
        check_frame(tracks, np.unique(markers), int(frame), f"{marker_file} and {marker_file.with_name(TRACKS)}")
    if marker_file == label_file:
        return sample
    return replace(sample, ignore=unannotated(labels, markers, median_diameter(label_file.parent)))


def unannotated(labels: np.ndarray, markers: np.ndarray, diameter: float) -> np.ndarray | None:
    """Where there may be cells that the labels leave out.

    A marker is annotated if at least half of its pixels lie in one cell of the labels. Every other one gives its own
    pixels and a disc around its centroid, none of them where the labels have a cell.

    Args:
        labels: int32 (H, W), cells drawn by hand, perhaps not all.
        markers: int32 (H, W), one blob a cell, all of them; its ids have nothing to do with those of the labels.
        diameter: Usual diameter of a cell in pixels; the disc's is 1.5 times that. With NaN there are no discs.

    Returns:
        bool (H, W), or None if every marker is annotated or there is none.
    """
    rows, columns = np.nonzero(markers)
    _, marker = np.unique(markers[rows, columns], return_inverse=True)
    sizes = np.bincount(marker)
    cells, cell = np.unique(labels[rows, columns], return_inverse=True)
    shared = np.bincount(marker * len(cells) + cell, minlength=len(sizes) * len(cells)).reshape(len(sizes), len(cells))
    alone = 2 * shared[:, cells > 0].max(axis=1, initial=0) < sizes
    ignore = np.zeros(labels.shape, bool)
    ignore[rows, columns] = alone[marker]
    if not np.isnan(diameter):
        centres = np.stack([np.bincount(marker, rows), np.bincount(marker, columns)], axis=1) / sizes[:, np.newaxis]
        for centre in centres[alone]:
            ignore[disk(centre, DISC_DIAMETERS * diameter / 2, shape=labels.shape)] = True
    ignore &= labels == 0
    return ignore if ignore.any() else None


def median_diameter(folder: Path) -> float:
    """Median of 2 sqrt(area / pi) over all cells of all truth files man_segNNN of a folder, in pixels.

    The files are read once in each process, and again when one of them changes. NaN if they hold no cell.
    """
    files = numbered_files(folder, TRUTHS["gold"][1]).values()
    return _median_diameter(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=16)
def _median_diameter(files: tuple[tuple[Path, int, int], ...]) -> float:
    diameters: list[float] = []
    for path, _, _ in files:
        labels = _one_page(path)
        _, areas = np.unique(labels[labels > 0], return_counts=True)
        diameters.extend(2 * np.sqrt(areas / np.pi))
    return float(np.median(diameters)) if diameters else float("nan")


def _one_page(path: Path) -> np.ndarray:
    labels = images.read_labels(path)
    if len(labels) != 1:
        raise InputError(f"{path} holds {len(labels)} pages; 2-D truth with one page was expected.")
    return labels[0]


def _sequences(source: Path, wanted: str | int | None) -> list[str]:
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}. It should hold 01/tNNN.tif and 01_GT or 01_ST.")
    found = sorted(path.name for path in source.iterdir() if path.is_dir() and SEQUENCE.fullmatch(path.name))
    if not found:
        hint = f" Give its parent folder, {source.parent}." if SEQUENCE.fullmatch(source.name) else ""
        raise InputError(f"{source} holds no sequence: a folder such as 01 with t000.tif in it was expected.{hint}")
    by_number: dict[int, str] = {}
    for name in found:
        if (first := by_number.setdefault(int(name), name)) != name:
            raise InputError(
                f"{source / first} and {source / name} are both sequence {int(name)}. Rename one of the folders, with "
                "its truth."
            )
    if wanted is None:
        return found
    # YAML reads an unquoted 01 as the number 1.
    chosen = [name for name in found if name == str(wanted) or (str(wanted).isdigit() and int(name) == int(wanted))]
    if not chosen:
        raise FileNotFoundError(f"{source} has no sequence '{wanted}'. It has: {', '.join(found)}.")
    return chosen


def _items(source: Path, sequence: str, truth: str) -> list[Item]:
    suffix, prefix = TRUTHS[truth]
    folder = source / f"{sequence}{suffix}"
    if not folder.is_dir():
        present = [name for name, (other, _) in TRUTHS.items() if (source / f"{sequence}{other}").is_dir()]
        there = f"It has: {', '.join(present)}; set data.truth (--truth)." if present else "It has no truth at all."
        raise FileNotFoundError(f"There is no folder {folder}, so sequence {sequence} has no {truth} truth. {there}")
    labels, pictures = numbered_files(folder, prefix), numbered_files(source / sequence, "t")
    missing = [path.name for frame, path in labels.items() if frame not in pictures]
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        raise InputError(
            f"{len(missing)} of {len(labels)} truth files in {folder} have no image in {source / sequence}: "
            f"{', '.join(missing[:5])}{more}. Each needs the tNNN.tif of its number."
        )
    markers = _markers(source, sequence) if truth != "silver" else {}
    table = tracks_file(source, sequence) if labels.keys() & markers.keys() else None
    alive = None
    if table is not None:
        tracks_of_all = read_tracks(table)
        _check_last_frame(tracks_of_all, max(markers), table)
        alive = _by_frame(tracks_of_all, labels)
    items = []
    for frame, path in labels.items():
        name = f"{sequence}/{pictures[frame].stem}"
        files, marker = [pictures[frame], path], markers.get(frame)
        if marker is not None and marker != path:
            files.append(marker)
        if marker is not None and table is not None:
            files.append(table)
        tracks = alive[frame] if alive is not None and marker is not None else None
        read = partial(load, pictures[frame], path, name, marker, tracks)
        items.append(Item(name=name, load=read, source=sequence, frame=frame, files=tuple(files)))
    return items


def _check_last_frame(tracks: dict[int, Track], last: int, table: Path) -> None:
    late = [track for track in tracks.values() if track.end > last]
    if late:
        raise InputError(
            f"{table}: {len(late)} tracks live on after the last marker image, that of frame {last}: for example track "
            f"{late[0].label}, from {late[0].begin} to {late[0].end}. The table or some images belong to another data "
            "set, or images are missing."
        )


def _markers(source: Path, sequence: str) -> dict[int, Path]:
    """Marker files by frame, none if the sequence has none."""
    suffix, prefix = TRUTHS["markers"]
    folder = source / f"{sequence}{suffix}"
    names = os.listdir(folder) if folder.is_dir() else []
    called = re.compile(rf"{prefix}_?\d")
    there = any(called.match(name) and name.lower().endswith(images.IMAGE_SUFFIXES) for name in names)
    return numbered_files(folder, prefix) if there else {}


def _by_frame(tracks: dict[int, Track], frames: Iterable[int]) -> dict[int, dict[int, Track]]:
    """Tracks that live in each of some frames: an item carries its own alone into a worker."""
    alive: dict[int, dict[int, Track]] = {frame: {} for frame in sorted(frames)}
    known = list(alive)
    for label, track in tracks.items():
        # The frames that are there alone: a table of a few bytes may speak of 2**31.
        for frame in known[bisect.bisect_left(known, track.begin) : bisect.bisect_right(known, track.end)]:
            alive[frame][label] = track
    return alive


def numbered_files(folder: Path, prefix: str) -> dict[int, Path]:
    """Files PREFIX + number by their number, in its order.

    Raises:
        FileNotFoundError: no such folder.
        InputError: no such file, two of one number, slices of a volume, or a number that is none of a frame.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Files {prefix}NNN.tif were looked for there.")
    found: dict[int, Path] = {}
    for path in images.image_files(folder):
        if match := re.fullmatch(rf"{prefix}(\d+)", path.stem):
            frame = frame_number(match[1], path)
            if frame in found:
                raise InputError(f"{found[frame]} and {path} are both frame {frame}. Keep one of them.")
            found[frame] = path
        elif re.fullmatch(rf"{prefix}_?\d+_\d+", path.stem):
            raise InputError(f"{path} is one slice of a 3-D volume; one file a frame, {prefix}NNN.tif, was expected.")
    if not found:
        raise InputError(f"{folder} holds no file {prefix}NNN.tif.")
    return dict(sorted(found.items()))
