"""CTC track tables: read, check and write man_track.txt and res_track.txt, one line `label begin end parent` a track.

Which files a sequence has is known by `pipelines.sources.ctc`; finding tracks in labels is no work of this package.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import InputError
from pipelines.files import whole_file

HIGHEST = 2**31 - 1  # ids and frames; labels are int32
DIGITS = len(str(HIGHEST))
# Enough ids to see the pattern, few enough to read.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Track:
    """One cell through frames.

    Args:
        label: Its id in the marker images, >= 1.
        begin, end: First and last frame in which it lives, 0-based, both included.
        parent: Label of the track that it divided from, 0 = none.
    """

    label: int
    begin: int
    end: int
    parent: int


def read_tracks(path: Path | str) -> dict[int, Track]:
    """Tracks by label, in the order of the file; blank lines are passed over, an empty file has no track.

    A child may begin any number of frames after its parent's end, not only in the next one: a cell that cannot be
    seen for a while goes on as a child of its own earlier track (Fluo-N2DH-GOWT1 and PhC-C2DL-PSC hold such gaps). The
    byte-order mark that Windows' Notepad writes is passed over.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A line that is not four whole numbers >= 0, a label 0 or given twice, an end before the begin, a
            parent that is not there, is the track itself, or lives on when the track begins. The line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. A table of tracks (label begin end parent) was expected.")
    tracks: dict[int, Track] = {}
    places: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            track = _parsed(line, where)
            if track.label in tracks:
                raise InputError(f"{where}: label {track.label} stands in {places[track.label]} already. Keep one.")
            tracks[track.label], places[track.label] = track, f"line {number}"
    for label, track in tracks.items():
        _check_parent(track, tracks, f"{path}, {places[label]}")
    return tracks


def write_tracks(path: Path | str, tracks: Mapping[int, Track]) -> None:
    """Write a table of tracks in the order of their labels; it appears whole or not at all. Without tracks it is empty.

    Raises:
        ValueError: The table contradicts itself, so that `read_tracks` would refuse it.
    """
    for label, track in tracks.items():
        if label != track.label or label < 1 or track.end < track.begin:
            raise ValueError(f"{path}: {track} cannot stand under label {label}.")
        _check_parent(track, tracks, str(path))
    lines = [f"{one.label} {one.begin} {one.end} {one.parent}\n" for _, one in sorted(tracks.items())]
    with whole_file(path) as temporary:
        temporary.write_text("".join(lines), encoding="ascii")


def check_frame(tracks: Mapping[int, Track], ids: Iterable[int], frame: int, where: str) -> None:
    """Raise InputError unless the ids in a marker image are those of the tracks that live in its frame.

    Args:
        tracks: All tracks of the sequence, or at least those that live in this frame.
        ids: Ids in the image; 0 counts as background.
        frame: Its frame.
        where: Names the image and the table, for the message.
    """
    present = {int(one) for one in ids} - {0}
    alive = {label for label, track in tracks.items() if track.begin <= frame <= track.end}
    faults = []
    if present - alive:
        faults.append(f"the image holds {_few(present - alive)}, which the table does not let live in frame {frame}")
    if alive - present:
        faults.append(f"the table lets {_few(alive - present)} live in frame {frame}, but the image does not hold them")
    if faults:
        raise InputError(f"{where} disagree: {'; '.join(faults)}. Correct the one that is wrong.")


def _parsed(line: str, where: str) -> Track:
    fields = line.split()
    if len(fields) != 4 or not all(field.isascii() and field.isdigit() for field in fields):
        raise InputError(
            f"{where} is '{line.strip()[:60]}': four whole numbers were expected, 'label begin end parent'."
        )
    if any(len(field.lstrip("0")) > DIGITS or int(field) > HIGHEST for field in fields):
        raise InputError(f"{where} is '{line.strip()[:60]}': no label and no frame is higher than {HIGHEST}.")
    track = Track(*map(int, fields))
    if track.label == 0:
        raise InputError(f"{where}: a track has label 0, which is the background. Labels begin at 1.")
    if track.end < track.begin:
        raise InputError(f"{where}: track {track.label} ends in frame {track.end}, before it begins in {track.begin}.")
    return track


def _check_parent(track: Track, tracks: Mapping[int, Track], where: str) -> None:
    if track.parent == 0:
        return
    if track.parent == track.label:
        raise InputError(f"{where}: track {track.label} is its own parent. Write 0 where a track has none.")
    if track.parent not in tracks:
        raise InputError(
            f"{where}: the parent of track {track.label} is {track.parent}, but the table has no such track. Write 0 "
            "where a track has none."
        )
    parent = tracks[track.parent]
    if parent.end >= track.begin:
        raise InputError(
            f"{where}: track {track.label} begins in frame {track.begin}, but its parent {parent.label} lives until "
            f"frame {parent.end}. A parent ends before its child begins."
        )


def _few(labels: set[int]) -> str:
    names = [str(label) for label in sorted(labels)]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
