"""From raw frames to tracks: a run's own cells, linked by cellseg-track and by three baselines, against the markers.

`python benchmarks/raw_frames.py RUN --sequence PhC-C2DL-PSC --frames 165-199 --outlines 01_ST` (CELLSEG_DATA set), with
frames that the network never saw. Identity takes the ids of each frame as tracks; the assignment is that of
benchmarks/tracking.py.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from side_by_side import machine, parser
from tracking import assignment, ours, renamed

import cellseg
from cellseg.metrics.biological import ct, division_counts, division_f1
from cellseg.metrics.ctc import det, lnk, sequence_seg, tra
from cellseg.metrics.tracking import Frame, track_frames
from cellseg.tracking.cells import find_cells, usual_diameter
from pipelines.images import read_image, read_labels
from pipelines.tracks import Track, read_tracks

REACH = 1.5  # of the nearest neighbour, in diameters of a cell
Tracked = tuple[list[np.ndarray], dict[int, Track]]


def cut(table, first, last):
    """The table as seen in the frames first to last; a parent that ended before is no parent."""
    kept = {label: one for label, one in table.items() if one.begin <= last and one.end >= first}
    return {
        label: Track(
            label,
            max(one.begin, first) - first,
            min(one.end, last) - first,
            one.parent if one.parent in kept and one.begin > first else 0,
        )
        for label, one in kept.items()
    }


def identity(frames) -> Tracked:
    """No tracking at all: the same number in two neighbouring frames is the same cell."""
    tracks: dict[int, list[int]] = {}
    names: dict[int, int] = {}
    made = []
    for number, labels in enumerate(frames):
        here = {}
        for cell in np.unique(labels[labels > 0]).tolist():
            here[cell] = names.get(cell, len(tracks) + 1)
            tracks.setdefault(here[cell], [number, number])[1] = number
        made.append(renamed(labels, here) if here else labels)
        names = here
    return made, {label: Track(label, *span, 0) for label, span in tracks.items()}


def nearest(frames) -> Tracked:
    """Every cell goes on as the nearest cell of the next frame within REACH, the nearest pairs first."""
    tracks: dict[int, list[int]] = {}
    made, names, before = [], np.zeros(0, int), None
    for number, labels in enumerate(frames):
        cells = find_cells(labels, number)
        fresh = np.zeros(len(cells), int)
        if before is not None and len(before) and len(cells):
            distances = cdist(before.centres, cells.centres)
            reach, taken = REACH * usual_diameter(before, cells), set()
            for flat in np.argsort(distances, axis=None):
                row, column = divmod(int(flat), len(cells))
                if distances[row, column] > reach:
                    break
                if row not in taken and not fresh[column]:
                    taken.add(row)
                    fresh[column] = names[row]
        for cell in np.flatnonzero(fresh == 0).tolist():
            fresh[cell] = len(tracks) + 1
            tracks[len(tracks) + 1] = [number, number]
        for name in fresh.tolist():
            tracks[name][1] = number
        made.append(
            renamed(labels, dict(zip(cells.ids.tolist(), fresh.tolist(), strict=True))) if len(cells) else labels
        )
        names, before = fresh, cells
    return made, {label: Track(label, *span, 0) for label, span in tracks.items()}


TRACKERS = {
    "all-frames identity": identity,
    "nearest neighbour": nearest,
    "assignment, crude rule": lambda frames: assignment(frames, divide=True),
    "cellseg-track": ours,
}


def main():
    """Predict, track, score, print."""
    options = parser(__doc__)
    options.add_argument("run")
    options.add_argument("--data", default=os.environ.get("CELLSEG_DATA", "data"))
    options.add_argument("--sequence", required=True, help="folder of a data set of the Cell Tracking Challenge")
    options.add_argument("--number", default="01")
    options.add_argument("--frames", required=True, metavar="FIRST-LAST")
    options.add_argument("--outlines", help="folder whose SEG has the true masks; default NUMBER_GT")
    options = options.parse_args()
    first, last = map(int, options.frames.split("-"))
    folder = Path(options.data) / options.sequence
    run = cellseg.load_run(options.run)
    begin = time.perf_counter()
    raw = [f for f in sorted((folder / options.number).glob("t*.tif")) if first <= int(f.stem[1:]) <= last]
    masks = [run.predict(read_image(file)).labels for file in raw]
    predicted = time.perf_counter() - begin
    markers = [
        read_labels(folder / f"{options.number}_GT/TRA/man_track{number:03d}.tif")[0]
        for number in range(first, last + 1)
    ]
    outlines: dict[int, np.ndarray] = {}
    for number in range(first, last + 1):
        file = folder / (options.outlines or f"{options.number}_GT") / f"SEG/man_seg{number:03d}.tif"
        if file.is_file():
            outlines[number - first] = read_labels(file)[0]
    table = cut(read_tracks(folder / f"{options.number}_GT/TRA/man_track.txt"), first, last)
    title = f"{options.sequence} {options.number}, frames {first} to {last}, cells of {Path(options.run).name}"
    print(
        f"{title}\n{machine()}\npredicted in {predicted:.1f} s; {len(outlines)} frames with outlines\n", file=sys.stderr
    )
    print(
        f"| {title} | TRA | SEG | DET | LNK | division F1 (TP / FP / FN) | CT | s |\n|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for name, tracker in TRACKERS.items():
        begin = time.perf_counter()
        labels, tracks = tracker(masks)
        seconds = time.perf_counter() - begin
        scored = track_frames(
            (Frame(n, labels[n], markers[n], outlines.get(n)) for n in range(len(markers))), table, tracks
        )
        found = {"tra": tra(scored), "seg": sequence_seg(scored), "det": det(scored), "lnk": lnk(scored)}
        found |= {"division_f1": division_f1(scored), "ct": ct(scored), "seconds": seconds}
        counts = " / ".join(map(str, division_counts(scored)))
        print(
            f"| {name} | {found['tra']:.4f} | {found['seg']:.4f} | {found['det']:.4f} | {found['lnk']:.4f} | "
            f"{found['division_f1']:.3f} ({counts}) | {found['ct']:.3f} | {seconds:.1f} |"
        )
        rows.append({"tracker": name, **found})
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), "title": title, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
