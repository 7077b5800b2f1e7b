"""SEG, DET and TRA of a tracked sequence, from its files: ours against py-ctcmetrics (`pip install py-ctcmetrics`).

With --data or CELLSEG_DATA, on PhC-C2DL-PSC 01 (its silver outlines stand for SEG); without, on as many squares.
"""

import contextlib
import io
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
from side_by_side import alternate, parser, report, row

from cellseg.metrics.sequence import evaluate_sequence
from pipelines.images import read_labels, write_labels

try:
    from ctc_metrics.scripts.evaluate import evaluate_sequence as peer_sequence
except ImportError:
    peer_sequence = None

SEQUENCE = "PhC-C2DL-PSC"
SHAPE, CELLS, SIDE = (576, 720), 150, 11
MEASURES = ["seg", "det", "tra"]


def write_sequence(folder, frames, data):
    """Truth and result in CTC layout; returns what they are. The result is the truth, shifted, with cells lost."""
    truth, result = folder / "01_GT", folder / "01_RES"
    for made in (truth / "TRA", truth / "SEG", result):
        made.mkdir(parents=True)
    source = Path(data) / SEQUENCE if data else None
    stack, named = [], ""
    if source is not None and source.is_dir():
        table = np.loadtxt(source / "01_GT/TRA/man_track.txt", dtype=int)
        for frame in range(frames):
            os.symlink(source / f"01_GT/TRA/man_track{frame:03d}.tif", truth / f"TRA/man_track{frame:03d}.tif")
            os.symlink(source / f"01_ST/SEG/man_seg{frame:03d}.tif", truth / f"SEG/man_seg{frame:03d}.tif")
            stack.append(read_labels(source / f"01_ST/SEG/man_seg{frame:03d}.tif")[0])
        write_table(truth / "TRA/man_track.txt", table[table[:, 1] < frames], frames)
        named = f"{SEQUENCE}, {frames} frames"
    else:
        stack = list(squares(frames))
        for frame, labels in enumerate(stack):
            write_labels(truth / f"TRA/man_track{frame:03d}.tif", labels)
            write_labels(truth / f"SEG/man_seg{frame:03d}.tif", labels)
        write_table(truth / "TRA/man_track.txt", [[cell, 0, frames - 1, 0] for cell in range(1, CELLS + 1)], frames)
        named = f"{CELLS} squares, {frames} frames"
    write_result(result, stack)
    return truth, result, named


def squares(frames):
    """Cells that drift; where two meet, the one of the higher id lies on top, and a pixel of each stays its own."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, np.array(SHAPE) - SIDE, (CELLS, 2))
    for _ in range(frames):
        places = np.clip(places + rng.integers(-2, 3, places.shape), 0, np.array(SHAPE) - SIDE)
        labels = np.zeros(SHAPE, np.int32)
        for cell, (top, left) in enumerate(places, start=1):
            labels[top : top + SIDE, left : left + SIDE] = cell
        # A table must not promise cells that are hidden.
        labels[0, :CELLS] = np.arange(1, CELLS + 1)
        yield labels


def write_result(folder, stack):
    """The outlines one pixel down and right, 2 % of the cells lost; what comes back is a child of what was lost."""
    rng = np.random.default_rng(1)
    tracks, last, fresh = {}, {}, 1
    for frame, labels in enumerate(stack):
        ids = np.unique(labels[labels > 0])
        kept = ids[rng.random(len(ids)) >= 0.02]
        names = np.zeros(labels.max() + 1, np.int32)
        for cell in kept.tolist():
            before = last.get(cell)
            if before is not None and tracks[before][1] == frame - 1:
                tracks[before][1] = frame
            else:
                tracks[fresh] = [frame, frame, before or 0]
                last[cell], fresh = fresh, fresh + 1
            names[cell] = last[cell]
        shifted = np.zeros_like(labels)
        shifted[1:, 1:] = names[labels][:-1, :-1]
        lost = set(names[kept].tolist()) - set(np.unique(shifted).tolist())
        # A cell of one row at the rim may have gone over it.
        for name in lost:
            shifted[names[labels] == name] = name
        write_labels(folder / f"mask{frame:03d}.tif", shifted)
    write_table(folder / "res_track.txt", [[label, *track] for label, track in tracks.items()], len(stack))


def write_table(path, tracks, frames):
    """Tracks cut at the last frame, in the challenge's text format."""
    path.write_text(
        "".join(f"{label} {begin} {min(end, frames - 1)} {parent}\n" for label, begin, end, parent in tracks)
    )


def peer(truth, result, threads):
    """py-ctcmetrics on the same folders."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer_sequence(str(result), str(truth), [name.upper() for name in MEASURES], threads=threads)


def main():
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--data", default=os.environ.get("CELLSEG_DATA"), help="folder that holds PhC-C2DL-PSC")
    options.add_argument("--frames", type=int, default=200)
    options.add_argument("--repeats", type=int, default=5)
    options = options.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        truth, result, name = write_sequence(Path(folder), options.frames, options.data)
        scores = evaluate_sequence(truth, result, MEASURES)["measures"]
        runs, extra = [lambda: evaluate_sequence(truth, result, MEASURES)], {}
        if peer_sequence is not None:
            theirs = peer(truth, result, cores)
            extra["largest_difference"] = float(max(abs(scores[key] - theirs[key.upper()]) for key in MEASURES))
            runs += [lambda: peer(truth, result, 1), lambda: peer(truth, result, cores)]
        ours, *others = alternate(*runs, repeats=options.repeats, warm_up=0)
        rows = [row(f"SEG + DET + TRA, {name}; one process, s", ours, others[0] if others else None)]
        if others:
            rows.append(row(f"the same; peer with {cores} processes, s", ours, others[1]))
    title = "Sequence measures: ours, peer = " + (
        "py-ctcmetrics" if others else "py-ctcmetrics, which is not installed"
    )
    report(title, rows, options.json, **{key: round(value, 6) for key, value in scores.items()}, **extra)


if __name__ == "__main__":
    main()
