"""Tracking of true masks, every frame's ids permuted: ours beside plain assignments, laptrack, btrack and true links.

With --data or CELLSEG_DATA, on PhC-C2DL-PSC 01 (silver masks) and Fluo-N2DH-GOWT1 01 (markers); without, on disks.
Both peers are optional (`pip install laptrack btrack`), and the better of a few settings of theirs is shown.
`--hard` adds every second and third frame of PSC, and masks with drops, merges and splits.

The truth lacks parents: on PSC, tracks end without daughters where two others begin without a parent. "F1 all" counts
divisions against a table in which these are daughters; it is found by the true masks alone, not by any tracker.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from side_by_side import machine, parser
from tracking_peers import PEERS

from cellseg.metrics.biological import ct, division_counts, division_f1
from cellseg.metrics.ctc import lnk, tra
from cellseg.metrics.tracking import compare_tracking
from cellseg.tracking import Options, follow
from cellseg.tracking.cells import find_cells, usual_diameter
from pipelines.images import read_labels
from pipelines.tracks import Track, read_tracks

REACHES = (0.6, 1.0, 1.5)  # of a peer's links, in diameters of a cell
SETS = (("PhC-C2DL-PSC", "01_ST/SEG/man_seg"), ("Fluo-N2DH-GOWT1", "01_GT/TRA/man_track"))


@dataclass(frozen=True)
class Score:
    """One tracker on one sequence."""

    sequence: str
    tracker: str
    tra: float
    lnk: float
    division_f1: float | None
    division_f1_all: float | None
    division_counts: tuple[int, int, int]
    ct: float
    seconds: float


@dataclass
class Sequence:
    """Masks with permuted ids, the true ids behind them, and the markers with their table."""

    name: str
    frames: list[np.ndarray]
    truth: list[np.ndarray]  # the same masks with true ids
    markers: list[np.ndarray]
    table: dict[int, Track]


def permuted(frames, seed=0):
    """Every frame's ids in another order."""
    rng = np.random.default_rng(seed)
    for labels in frames:
        ids = np.unique(labels[labels > 0])
        names = np.zeros(int(labels.max()) + 1, np.int32)
        names[ids] = rng.permutation(len(ids)) + 1
        yield names[labels]


def read(data, name, prefix, step=1):
    """A sequence of the Cell Tracking Challenge, every `step`-th frame."""
    folder = Path(data) / name
    files = sorted(folder.glob(f"{prefix}*.tif"))[::step]
    markers = sorted((folder / "01_GT/TRA").glob("man_track*.tif"))[::step]
    truth = [read_labels(path)[0] for path in files]
    table = thinned(read_tracks(folder / "01_GT/TRA/man_track.txt"), step)
    title = name if step == 1 else f"{name}, every {step}. frame"
    return Sequence(title, list(permuted(truth)), truth, [read_labels(path)[0] for path in markers], table)


def thinned(table, step):
    """The table as seen in every `step`-th frame; a track that falls between two of them hands its parent on."""
    seen = {one.label: (-(-one.begin // step), one.end // step) for one in table.values()}
    seen = {label: span for label, span in seen.items() if span[0] <= span[1]}
    made = {}
    for label, (begin, end) in seen.items():
        parent = table[label].parent
        while parent and parent not in seen:
            parent = table[parent].parent
        made[label] = Track(label, begin, end, parent if parent and seen[parent][1] < begin else 0)
    return made


def with_parents(table, masks):
    """The table in which two tracks have a parent that begin without one just where a third has ended without child.

    Each of the two overlaps the last mask of the third more than any other cell, and no third track does so.
    """
    parents = {one.parent for one in table.values()}
    begins: dict[int, list[Track]] = {}
    for one in table.values():
        if not one.parent and one.begin > 0:
            begins.setdefault(one.begin, []).append(one)
    made = dict(table)
    for frame, ones in begins.items():
        before, found = masks[frame - 1], {}
        for one in ones:
            below = before[masks[frame] == one.label]
            if np.any(below > 0):
                found.setdefault(int(np.bincount(below[below > 0]).argmax()), []).append(one)
        for parent, daughters in found.items():
            ended = parent in table and table[parent].end == frame - 1 and parent not in parents
            if ended and len(daughters) == 2:
                made |= {one.label: Track(one.label, one.begin, one.end, parent) for one in daughters}
    return made


def disks(num_frames=40, seed=0):
    """Disks that wander and divide, where there is no data."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:400, :400]
    places = {1 + n: np.array([40.0 + 80 * (n // 5), 40.0 + 80 * (n % 5)]) for n in range(25)}
    spans, parents, frames = {}, dict.fromkeys(places, 0), []
    for frame in range(num_frames):
        for cell in [one for one in places if frame > spans.get(one, [0])[0] + 8 and rng.random() < 0.03]:
            place, angle = places.pop(cell), rng.uniform(0, np.pi)
            for side in (-6, 6):
                daughter = len(parents) + 1
                places[daughter] = place + side * np.array([np.sin(angle), np.cos(angle)])
                parents[daughter] = cell
        labels = np.zeros(rows.shape, np.int32)
        for cell in places:
            places[cell] = np.clip(places[cell] + rng.normal(0, 1.5, 2), 0, 399)
            age = frame - spans.get(cell, [frame])[0] if parents[cell] else 9
            radius = 5.5 + 2.5 * min(age, 9) / 9
            labels[np.hypot(rows - places[cell][0], columns - places[cell][1]) < radius] = cell
        for cell in np.unique(labels[labels > 0]).tolist():
            spans.setdefault(cell, [frame, frame])[1] = frame
        frames.append(labels)
    return frames, spans, parents


def true_links(frames, table):
    """The true ids as tracks: what a tracker without a fault would say of these masks. (labels, table)."""
    seen: dict[int, list[int]] = {}
    for number, labels in enumerate(frames):
        for cell in np.unique(labels[labels > 0]).tolist():
            seen.setdefault(cell, []).append(number)
    made, names, last, first = {}, {}, {}, {}
    for cell, numbers in seen.items():
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            label = len(made) + 1
            made[label] = Track(label, int(run[0]), int(run[-1]), last.get(cell, 0))
            names |= {(int(number), cell): label for number in run}
            first.setdefault(cell, label)
            last[cell] = label
    for cell, label in first.items():
        parent = last.get(table[cell].parent if cell in table else 0)
        if parent and made[parent].end < made[label].begin:
            one = made[label]
            made[label] = Track(label, one.begin, one.end, parent)
    return [
        renamed(labels, {c: n for (f, c), n in names.items() if f == number}) for number, labels in enumerate(frames)
    ], made


def renamed(labels, names):
    """Labels under other ids."""
    table = np.zeros(int(labels.max()) + 1, np.int32)
    table[list(names)] = list(names.values())
    return table[labels]


def assignment(frames, *, divide):
    """The sixty lines to beat: the best assignment of overlap and distance from frame to frame, and a crude rule.

    With `divide`, a new cell within 1.5 diameters of a cell of the last frame that has lost a fifth of its area is its
    daughter.
    """
    made, tracks, names, before = [], {}, np.zeros(0, int), None
    for number, labels in enumerate(frames):
        cells = find_cells(labels, number)
        fresh, parents = np.zeros(len(cells), int), {}
        if before is not None and len(before) and len(cells):
            diameter = usual_diameter(before, cells)
            pairs = (before.numbers >= 0) & (cells.numbers >= 0)
            shared = np.zeros((len(before), len(cells)))
            np.add.at(shared, (before.numbers[pairs], cells.numbers[pairs]), 1)
            iou = shared / (before.areas[:, None] + cells.areas - shared)
            distances = cdist(before.centres, cells.centres) / diameter
            cost = np.where(distances < 1.5, 1 - iou + 0.5 * distances, 10)
            rows, columns = linear_sum_assignment(cost)
            good = cost[rows, columns] < 1.6
            rows, columns = rows[good], columns[good]
            fresh[columns] = names[rows]
            following = dict(zip(rows.tolist(), columns.tolist(), strict=True))
            for cell in np.flatnonzero(fresh == 0).tolist() if divide else []:
                for parent in np.argsort(distances[:, cell])[:3].tolist():
                    daughter = following.get(parent, -1)
                    near = distances[parent, cell] < 1.5
                    if near and daughter >= 0 and cells.areas[daughter] < 0.8 * before.areas[parent]:
                        parents[cell] = parents[daughter] = int(names[parent])
                        fresh[daughter] = 0
                        del following[parent]
                        break
        for cell in np.flatnonzero(fresh == 0).tolist():
            fresh[cell] = len(tracks) + 1
            tracks[len(tracks) + 1] = [number, number, parents.get(cell, 0)]
        for name in fresh.tolist():
            tracks[name][1] = number
        made.append(renamed(labels, dict(zip(cells.ids.tolist(), fresh.tolist(), strict=True))))
        names, before = fresh, cells
    return made, {label: Track(label, *row) for label, row in tracks.items()}


def ours(frames, **options):
    """cellseg.tracking."""
    lineage = follow(enumerate(frames), Options(**options))
    return [lineage.relabel(labels, number) for number, labels in enumerate(frames)], lineage.tracks


def score(sequence, tracker, function, *arguments, **options):
    """Track and score; the time is that of tracking alone, the masks being in memory."""
    begin = time.perf_counter()
    labels, table = function(*arguments, **options)
    seconds = time.perf_counter() - begin
    scored = compare_tracking(sequence.markers, sequence.table, labels, table)
    complete = compare_tracking(sequence.markers, with_parents(sequence.table, sequence.truth), labels, table)
    f1, f1_all = (None if np.isnan(one) else one for one in (division_f1(scored), division_f1(complete)))
    return Score(
        sequence.name,
        tracker,
        tra(scored),
        lnk(scored),
        f1,
        f1_all,
        division_counts(scored),
        ct(scored),
        seconds,
    )


def spoilt(frames, seed=0):
    """Masks as a network makes them: 2 % dropped, 1 % merged with a neighbour, 1 % cut in two."""
    rng = np.random.default_rng(seed)
    for labels in frames:
        made, cells = labels.copy(), find_cells(labels)
        for cell in range(len(cells)):
            draw, own = rng.random(), made == cells.ids[cell]
            if draw < 0.02:
                made[own] = 0
            elif draw < 0.03:
                distances = np.hypot(*(cells.centres - cells.centres[cell]).T)
                distances[cell] = np.inf
                made[own] = cells.ids[int(np.argmin(distances))] if len(cells) > 1 else cells.ids[cell]
            elif draw < 0.04:
                rows = np.nonzero(own)[0]
                own[: int(rows.mean()) + 1 if len(rows) else 0] = False
                made[own] = made.max() + 1
        yield made


def compare(sequence, *, peers=True):
    """Every tracker on one sequence."""
    frames = sequence.frames
    yield score(sequence, "assignment, no divisions", assignment, frames, divide=False)
    yield score(sequence, "assignment, crude rule", assignment, frames, divide=True)
    for name, function in PEERS.items() if peers else ():
        try:
            tried = [score(sequence, name, function, frames, setting) for setting in REACHES]
        except Exception as error:
            # btrack's wheels hold a library of their own, which may not load.
            print(f"  {name} does not run here: {type(error).__name__} {error}")
            continue
        yield max(tried, key=lambda one: one.tra)
    yield score(sequence, "ours", ours, frames)
    yield score(sequence, "ours, gaps not filled", ours, frames, fill_gaps=False)
    yield score(sequence, "true links", true_links, sequence.truth, sequence.table)


def main():
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--data", default=os.environ.get("CELLSEG_DATA"), help="folder that holds the sequences")
    options.add_argument("--hard", action="store_true", help="also fewer frames, and spoilt masks")
    options = options.parse_args()
    there = [(name, prefix) for name, prefix in SETS if options.data and (Path(options.data) / name).is_dir()]
    sequences = [(read(options.data, name, prefix), True) for name, prefix in there]
    if not there:
        frames, spans, parents = disks()
        table = {cell: Track(cell, *span, parents[cell]) for cell, span in spans.items()}
        sequences = [(Sequence("disks", list(permuted(frames)), frames, frames, table), True)]
    elif options.hard:
        name, prefix = there[0]
        sequences += [(read(options.data, name, prefix, step), False) for step in (2, 3)]
        whole = read(options.data, name, prefix)
        noisy = list(permuted(spoilt(whole.truth)))
        sequences.append((Sequence(f"{name}, spoilt", noisy, whole.truth, whole.markers, whole.table), False))
    print(f"Tracking of true masks with permuted ids\n{machine()}\n")
    print(f"{'':26}{'TRA':>8}{'LNK':>8}{'div F1':>8}{'TP/FP/FN':>12}{'F1 all':>8}{'CT':>8}{'s':>8}")
    scores = []
    for sequence, peers in sequences:
        added = sum(one.parent != 0 for one in with_parents(sequence.table, sequence.truth).values())
        added -= sum(one.parent != 0 for one in sequence.table.values())
        print(f"{sequence.name}, {len(sequence.frames)} frames; {added // 2} divisions without parents in the truth")
        for one in compare(sequence, peers=peers):
            scores.append(one)
            f1, f1_all = ("-" if one is None else f"{one:.3f}" for one in (one.division_f1, one.division_f1_all))
            counts = "/".join(map(str, one.division_counts))
            print(
                f"  {one.tracker:24}{one.tra:8.4f}{one.lnk:8.4f}{f1:>8}{counts:>12}{f1_all:>8}{one.ct:8.3f}"
                f"{one.seconds:8.1f}",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), "rows": [asdict(one) for one in scores]}, indent=1))


if __name__ == "__main__":
    main()
