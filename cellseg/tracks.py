"""Tracked sequences in CTC folders: which file holds which frame, and the table of tracks that goes with them.

The table itself is read and checked in `pipelines.tracks`; what is measured on a sequence lives in `cellseg.metrics`.
"""

import bisect
import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import InputError
from pipelines.images import read_labels
from pipelines.sources.ctc import numbered_files
from pipelines.tracks import Track, read_tracks

TRUTH_TABLE, RESULT_TABLE = "man_track.txt", "res_track.txt"
SHOWN = 5  # numbers that a message lists before it says how many more there are


@dataclass(frozen=True)
class TrackedFolder:
    """Label files of a sequence by frame, and its tracks.

    Args:
        files: Label file of each frame, ascending.
        table: Path of the table of tracks, whether it exists or not.
        tracks: Tracks by label; None without a table.
    """

    files: dict[int, Path]
    table: Path
    tracks: dict[int, Track] | None

    def read(self, frame: int) -> np.ndarray:
        """Labels of a frame, int32 (H, W), or (Z, H, W) of a volume."""
        return read_volume(self.files[frame])

    def where(self, frame: int) -> str:
        """Image of a frame and table of the tracks, for a message."""
        return f"{self.files[frame]} and {self.table}"


def read_truth(folder: Path | str) -> TrackedFolder:
    """The tracking truth of a sequence: `TRA/man_trackNNN.tif` and `TRA/man_track.txt` in a folder such as `01_GT`.

    Raises:
        FileNotFoundError: There is no folder, or no TRA in it.
        InputError: No file man_trackNNN.tif, two of one frame, a table that contradicts itself or has frames without
            a file.
    """
    return _tracked(Path(folder) / "TRA", "man_track", TRUTH_TABLE)


def read_result(folder: Path | str) -> TrackedFolder:
    """A tracking result: `maskNNN.tif` and `res_track.txt` in a folder such as `01_RES`.

    The table may be missing (a result of segmentation alone); errors as `read_truth`.
    """
    return _tracked(Path(folder), "mask", RESULT_TABLE)


def outline_files(folder: Path | str) -> dict[int, Path]:
    """Files `SEG/man_segNNN.tif` of a folder such as `01_GT` or `01_ST`, by frame; errors as `read_truth`."""
    return numbered_files(Path(folder) / "SEG", "man_seg")


def read_volume(path: Path) -> np.ndarray:
    """Label ids of a file, int32 (H, W), or (Z, H, W) where it has several pages."""
    pages = read_labels(path)
    return pages[0] if len(pages) == 1 else pages


def check_same_frames(truth: TrackedFolder, result: TrackedFolder) -> None:
    """Raise InputError unless both have a file for the same frames."""
    faults = [
        f"{_first(missing, len(missing), 'frame')} in {_folder(one)} {'has' if len(missing) == 1 else 'have'} no file "
        f"in {_folder(other)}"
        for one, other in ((truth, result), (result, truth))
        if (missing := sorted(one.files.keys() - other.files.keys()))
    ]
    if faults:
        raise InputError(
            f"{'; '.join(faults)}. A tracking result needs one maskNNN.tif for each man_trackNNN.tif; an empty frame "
            "is a file of zeros."
        )


def check_span(tracks: Mapping[int, Track], frames: Collection[int], where: str) -> None:
    """Raise InputError unless there is an image of every frame in which a track lives.

    Args:
        tracks: All tracks of the sequence.
        frames: Numbers of the frames that have an image.
        where: Names the table, for the message.
    """
    known = sorted(frames)
    for track in tracks.values():
        # Counted, not listed: a table of a few bytes may speak of 2**31 frames.
        held = known[bisect.bisect_left(known, track.begin) : bisect.bisect_right(known, track.end)]
        number = track.end - track.begin + 1 - len(held)
        if number:
            last = f"the last image is that of frame {known[-1]}" if known else "there is no image at all"
            there = set(held)
            missing = (frame for frame in range(track.begin, track.end + 1) if frame not in there)
            raise InputError(
                f"{where}: track {track.label} lives from frame {track.begin} to {track.end}, but there is no image of "
                f"{_first(missing, number, 'frame')} ({last}). Add the images, or correct the table."
            )


def _tracked(folder: Path, prefix: str, table_name: str) -> TrackedFolder:
    files, table = numbered_files(folder, prefix), folder / table_name
    tracks = read_tracks(table) if table.exists() else None
    if tracks is not None:
        check_span(tracks, files, str(table))
    return TrackedFolder(files, table, tracks)


def _folder(tracked: TrackedFolder) -> Path:
    return tracked.table.parent


def _first(numbers: Iterable[int], count: int, noun: str) -> str:
    """'frame 3' or 'frames 3, 4, 5, 6, 7 and 12 more', of `count` numbers."""
    names = [str(number) for number in itertools.islice(numbers, SHOWN)]
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return f"{noun}{'s' if count > 1 else ''} {', '.join(names)}{more}"
