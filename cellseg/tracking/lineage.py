"""Lineage: tracks and their table, made of the links that were chosen from frame to frame.

The links are chosen in `cellseg.tracking.linking`; the text of the table is read and written in `pipelines.tracks`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cellseg.tracking.cells import Cells
from pipelines.tracks import Track


@dataclass(frozen=True)
class Origin:
    """Where a cell comes from.

    Args:
        frame: Number of the frame in which its predecessor was last seen.
        cell: The predecessor, as numbered by `find_cells`.
        divided: Whether it is one of two daughters.
        filled: Pixels (rows, columns) that the cell gets in each frame between; empty, where it stays unseen there.
    """

    frame: int
    cell: int
    divided: bool = False
    filled: Mapping[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Lineage:
    """Tracks of a sequence.

    Args:
        tracks: By label, 1, 2, ... in the order in which they begin, and in a frame that of their first pixels.
        names: Frame -> (ids in the labels that came in, track of each), both int64.
        filled: Frame -> [(rows, columns, track)], cells that were not in the labels.
    """

    tracks: dict[int, Track]
    names: dict[int, tuple[np.ndarray, np.ndarray]]
    filled: dict[int, list[tuple[np.ndarray, np.ndarray, int]]]

    def relabel(self, labels: np.ndarray, frame: int) -> np.ndarray:
        """int32 (H, W), the labels of a frame with the track of each cell in place of its id."""
        ids, names = self.names[frame]
        order = np.argsort(ids)
        place = np.searchsorted(ids[order], labels[labels > 0])
        relabelled = np.zeros(labels.shape, np.int32)
        relabelled[labels > 0] = names[order][place]
        for rows, columns, name in self.filled.get(frame, ()):
            relabelled[rows, columns] = name
        return relabelled

    @property
    def num_divisions(self) -> int:
        """Tracks with two daughters."""
        return sum(count > 1 for count in self._children().values())

    @property
    def num_gaps(self) -> int:
        """Tracks that go on as their own child after frames in which the cell is not seen."""
        return sum(count == 1 for count in self._children().values())

    @property
    def num_filled(self) -> int:
        """Cells that were drawn in frames in which they were not seen."""
        return sum(len(drawn) for drawn in self.filled.values())

    def _children(self) -> Counter[int]:
        return Counter(track.parent for track in self.tracks.values() if track.parent)


def make_lineage(frames: Sequence[tuple[int, np.ndarray]], origins: Mapping[tuple[int, int], Origin]) -> Lineage:
    """Number the tracks.

    A track ends where its cell divides or is not seen for a while; what comes after is its child. This is how the Cell
    Tracking Challenge writes a gap, because a track must be seen in each frame from its begin to its end.

    Args:
        frames: (number, ids of its cells), ascending.
        origins: (frame, cell) -> where the cell comes from; cells that enter have none.
    """
    rows: list[list[int]] = []
    names: dict[int, np.ndarray] = {}
    filled: dict[int, list[tuple[np.ndarray, np.ndarray, int]]] = {}
    for number, ids in frames:
        names[number] = np.zeros(len(ids), np.int64)
        for cell in range(len(ids)):
            origin = origins.get((number, cell))
            before = int(names[origin.frame][origin.cell]) if origin else 0
            unbroken = origin is not None and len(origin.filled) == number - origin.frame - 1
            if origin is None or origin.divided or not unbroken:
                rows.append([len(rows) + 1, number, number, before])
                names[number][cell] = len(rows)
                continue
            rows[before - 1][2] = number
            names[number][cell] = before
            for between, (row, column) in origin.filled.items():
                filled.setdefault(between, []).append((row, column, before))
    tracks = {row[0]: Track(*row) for row in rows}
    return Lineage(tracks, {number: (ids, names[number]) for number, ids in frames}, filled)


def without_cuts(
    origins: Mapping[tuple[int, int], Origin], areas: Mapping[int, np.ndarray]
) -> dict[tuple[int, int], Origin]:
    """The origins without divisions that were a cell cut in two for one frame.

    One daughter is seen in no further frame, and the other one is there again with the parent's area rather than its
    own: it goes on as the parent, and the piece stays a track of one frame. In the last frame nothing is known yet.

    Args:
        origins: As for `make_lineage`.
        areas: Frame -> float (n,), of its cells.
    """
    following = {(origin.frame, origin.cell): place for place, origin in origins.items() if not origin.divided}
    daughters: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for place, origin in origins.items():
        if origin.divided:
            daughters.setdefault((origin.frame, origin.cell), []).append(place)
    kept = dict(origins)
    for place, origin in origins.items():
        if not origin.divided or place in following or place in daughters:
            continue
        (sister,) = (one for one in daughters[origin.frame, origin.cell] if one != place)
        if sister in following:
            own, parent, later = (
                areas[frame][cell] for frame, cell in (sister, (origin.frame, origin.cell), following[sister])
            )
            if 2 * later > own + parent and parent > own:
                del kept[place]
                kept[sister] = replace(origin, divided=False)
    return kept


def between(seen: Cells, cell: int, found: Cells, target: int, gap: Sequence[Cells]) -> dict:
    """Pixels for a cell in the frames in which it was not seen: its last ones, moved evenly to where it is found again.

    Only background is taken. Where less than half of the cell would lie on background, nothing is filled at all: the
    cell has then been merged with a neighbour rather than missed.

    Args:
        seen, cell: The frame in which it was last seen.
        found, target: The frame in which it is found again.
        gap: All frames between, ascending.

    Returns:
        Frame -> (rows, columns).
    """
    rows, columns = seen.pixels(cell)
    way = found.centres[target] - seen.centres[cell]
    filled = {}
    for cells in gap:
        share = (cells.frame - seen.frame) / (found.frame - seen.frame)
        row, column = (place + round(float(step * share)) for place, step in zip((rows, columns), way, strict=True))
        height, width = cells.numbers.shape
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        row, column = row[inside], column[inside]
        free = cells.numbers[row, column] == -1
        if 2 * np.count_nonzero(free) < len(rows):
            return {}
        filled[cells.frame] = row[free], column[free]
    if len(filled) != found.frame - seen.frame - 1:
        return {}
    return filled
