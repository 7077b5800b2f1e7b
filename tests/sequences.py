"""Named tracked sequences: a few frames of one row of pixels, with their table; and random ones.

A sequence is (list of int32 labels, table), the table {label: Track}. Scenes of single images live in `tests.cells`,
slow reference computations in `tests.oracles`.
"""

import numpy as np

from pipelines.images import write_labels
from pipelines.tracks import Track


def sequence(frames, table):
    """'1122' -> the labels 1, 1, 2, 2 of one row; (label, begin, end, parent) -> Track."""
    labels = [np.array([[int(one) for one in row]], np.int32) for row in frames]
    return labels, {row[0]: Track(*row) for row in table}


def two_cells():
    """Two cells of 3 pixels through three frames: 6 vertices, 4 links."""
    return sequence(["1110222"] * 3, [(1, 0, 2, 0), (2, 0, 2, 0)])


def division():
    """One cell in frames 0 and 1, its two children in 2 and 3: 6 vertices, 1 + 2 + 2 links."""
    return sequence(["1111110"] * 2 + ["2220333"] * 2, [(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)])


def late_division():
    """`division`, but seen one frame later: one of the children's first frame is the parent's last."""
    return sequence(
        ["1111110"] * 2 + ["1110000", "2220333"],
        [(1, 0, 2, 0), (2, 3, 3, 1), (3, 3, 3, 1)],
    )


def gap():
    """A cell that is not seen in frame 1 and goes on as a child of itself."""
    return sequence(["1110", "0000", "2220"], [(1, 0, 0, 0), (2, 2, 2, 1)])


def empty(frames=3, width=7):
    """No cell."""
    return sequence(["0" * width] * frames, [])


def renamed(labels, table, names):
    """The same sequence under other ids."""
    names = {0: 0, **names}
    look_up = np.zeros(max(names) + 1, np.int32)
    look_up[list(names)] = list(names.values())
    tracks = [Track(names[one.label], one.begin, one.end, names[one.parent]) for one in table.values()]
    return [look_up[one] for one in labels], {one.label: one for one in tracks}


def random_pair(seed, frames=7, cells=4):
    """(truth, prediction): cells that come, go, divide and are missed, merged, split, swapped and broken."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((frames, 2, 18), np.int32)
    for cell in range(1, cells + 1):
        column = int(rng.integers(0, 14))
        for frame in range(frames):
            column = int(np.clip(column + rng.integers(-1, 2), 0, 14))
            if rng.random() < 0.85:
                truth[frame, :, column : column + 4] = cell
    prediction = truth.copy()
    for frame in range(frames):
        one, other = rng.choice(np.arange(1, cells + 1), 2, replace=False)
        kind = rng.integers(0, 6)
        if kind == 0:
            prediction[frame][prediction[frame] == one] = 0
        elif kind == 1:
            prediction[frame][prediction[frame] == one] = other
        elif kind == 2:
            prediction[frame, 0][prediction[frame, 0] == one] = cells + 1
        elif kind == 3:
            first, second = prediction[frame:] == one, prediction[frame:] == other
            prediction[frame:][first], prediction[frame:][second] = other, one
        elif kind == 4:
            prediction[frame] = np.roll(prediction[frame], rng.integers(-2, 3), axis=1)
    return tracked(truth), tracked(prediction)


def tracked(labels):
    """Each unbroken run of an id becomes a track; its parent is the nearest track that ended one or two frames ago."""
    alive, rows, columns, made = {}, {}, {}, np.zeros_like(labels)
    for frame in range(len(labels)):
        present = np.unique(labels[frame][labels[frame] > 0]).tolist()
        alive = {cell: track for cell, track in alive.items() if cell in present}
        for cell in present:
            column = float(np.argwhere(labels[frame] == cell)[:, 1].mean())
            if cell not in alive:
                ended = [one for one, row in rows.items() if frame - 3 < row[1] < frame and one not in alive.values()]
                parent = min(ended, key=lambda one: abs(columns[one] - column), default=0)
                alive[cell] = len(rows) + 1
                rows[alive[cell]] = [frame, frame, parent]
            rows[alive[cell]][1], columns[alive[cell]] = frame, column
            made[frame][labels[frame] == cell] = alive[cell]
    return list(made), {label: Track(label, *row) for label, row in rows.items()}


def write_table(path, table):
    """The challenge's text format."""
    path.write_text("".join(f"{one.label} {one.begin} {one.end} {one.parent}\n" for one in table.values()))


def write_ctc(folder, truth, prediction, outlines=None):
    """(01_GT, 01_RES) of two sequences; `outlines` {frame: labels} are those of SEG, left out all of the truth's."""
    labels, table = truth
    (folder / "01_GT" / "TRA").mkdir(parents=True)
    (folder / "01_GT" / "SEG").mkdir()
    (folder / "01_RES").mkdir()
    for frame, one in enumerate(labels):
        write_labels(folder / "01_GT" / "TRA" / f"man_track{frame:03d}.tif", one)
    for frame, one in (dict(enumerate(labels)) if outlines is None else outlines).items():
        write_labels(folder / "01_GT" / "SEG" / f"man_seg{frame:03d}.tif", one)
    for frame, one in enumerate(prediction[0]):
        write_labels(folder / "01_RES" / f"mask{frame:03d}.tif", one)
    write_table(folder / "01_GT" / "TRA" / "man_track.txt", table)
    write_table(folder / "01_RES" / "res_track.txt", prediction[1])
    return folder / "01_GT", folder / "01_RES"
