"""Linking: labels frame after frame, in any order of ids, become tracks with divisions and gaps.

What may have happened to a cell is weighed in `hypotheses`, chosen in `selection`, and numbered in `lineage`.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from cellseg.tracking.cells import Cells, find_cells, usual_diameter
from cellseg.tracking.drift import common_shift, local_motion
from cellseg.tracking.hypotheses import Costs, Divisions, move, possible_divisions, possible_links
from cellseg.tracking.lineage import Lineage, Origin, between, make_lineage, without_cuts
from cellseg.tracking.pasts import Past
from cellseg.tracking.selection import assign, select
from pipelines.errors import InputError

STAGE_REACH = 10.0  # the largest jump of a whole frame that is looked for, in diameters of a cell
ENOUGH_DIVISIONS = 5  # to know how often cells divide
UNKNOWN_TIME = 1e-9  # every cell is old enough to divide
STAGE_STEP = 8.0  # and how finely: a diameter over this


@dataclass(frozen=True)
class Options:
    """How cells are followed.

    Args:
        max_gap: Frames in which a cell may be missing and still be found again; 0 = none.
        divisions: Whether cells divide.
        fill_gaps: Give a cell that is found again pixels in the frames between (see `lineage.between`): the link says
            that it was there. Otherwise the labels are kept as they are, and it goes on as a child of its own track.
        costs: Weights.
    """

    max_gap: int = 3
    divisions: bool = True
    fill_gaps: bool = True
    costs: Costs = field(default_factory=Costs)


USUAL = Options()


@dataclass
class _Lost:
    seen: Cells
    cell: int
    shift: np.ndarray
    past: Past


def follow(frames: Iterable[tuple[int, np.ndarray]], options: Options = USUAL) -> Lineage:
    """Follow cells through time; their ids mean nothing from frame to frame. A few frames are in memory at once.

    Args:
        frames: (number, labels): int (H, W), 0 = background, numbers ascending; some may be left out, and cells are
            followed over up to `max_gap` of them. Frames without cells are fine.
        options: See `Options`.

    Returns:
        The tracks. Without cells there are none; of a single frame, each cell is a track.

    Raises:
        InputError: A frame of another size or dtype, or out of order.
    """
    linker = _Linker(options)
    for number, labels in frames:
        linker.add(number, labels)
    return make_lineage(linker.frames, without_cuts(linker.origins, linker.areas))


class _Linker:
    """Holds the last frame, the lost cells, and the links that have been chosen."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.frames: list[tuple[int, np.ndarray]] = []
        self.areas: dict[int, np.ndarray] = {}
        self.origins: dict[tuple[int, int], Origin] = {}
        self.lost: list[_Lost] = []
        self.past = Past.new(find_cells(np.zeros((1, 1), np.int32)))
        self.num_divisions = self.cell_frames = 0
        self.recent: deque[Cells] = deque(maxlen=options.max_gap + 1)

    def add(self, number: int, labels: np.ndarray) -> None:
        last = self.recent[-1] if self.recent else None
        _check(number, labels, last)
        cells = find_cells(labels, number)
        self.frames.append((number, cells.ids))
        self.areas[number] = cells.areas
        past, self.past = self.past, Past.new(cells)
        if last is not None and number - last.frame <= self.options.max_gap + 1:
            self._link(last, cells, past)
        else:
            self.lost = []
        self.recent.append(cells)

    def _link(self, last: Cells, cells: Cells, past: Past) -> None:
        costs = self.options.costs
        diameter = usual_diameter(last, cells)
        places = np.concatenate([last.centres, *(one.seen.centres[[one.cell]] + one.shift for one in self.lost)])
        motion = _motion(last, cells, places, diameter, costs)
        for one, step in zip(self.lost, motion[len(last) :], strict=True):
            one.shift = one.shift + step
        motion = motion[: len(last)]
        lost = [(one.seen, one.cell, one.shift) for one in self.lost]
        youth = past.youth(cells.frame, costs.ripe * self._doubling_time())
        sources = move(last, motion, lost, youth=youth, rounding=past.rounding(last))
        links = possible_links(sources, cells, diameter, costs)
        nothing = np.zeros(0, np.int64)
        divisions = Divisions(nothing, nothing, nothing, np.zeros(0), np.zeros(0))
        if self.options.divisions:
            divisions = possible_divisions(sources, cells, links, diameter, costs)
        chosen, divided = select(links, divisions, len(sources.areas), len(cells))
        gone = np.ones(len(sources.areas), bool)
        for source, target in zip(links.sources[chosen].tolist(), links.targets[chosen].tolist(), strict=True):
            gone[source] = False
            if source < len(last):
                self.past.go_on(target, past, source)
            else:
                one = self.lost[source - len(last)]
                self.past.go_on(target, one.past, one.cell)
            self.origins[cells.frame, target] = self._origin(last, source, cells, target)
        self.num_divisions += len(divided)
        self.cell_frames += len(last)
        for position in divided.tolist():
            parent = int(divisions.parents[position])
            gone[parent] = False
            for daughters in (divisions.firsts, divisions.seconds):
                daughter = int(daughters[position])
                self.past.begin(daughter, cells.frame, float(divisions.odds[position]))
                self.origins[cells.frame, daughter] = Origin(last.frame, parent, divided=True)
        self._remember(last, cells, motion, gone, past)

    def _doubling_time(self) -> float:
        """Frames in which the cells double at the rate of divisions seen so far; next to 0 while that is unknown."""
        if self.num_divisions < ENOUGH_DIVISIONS:
            return UNKNOWN_TIME
        return float(np.log(2) * self.cell_frames / self.num_divisions)

    def _origin(self, last: Cells, source: int, cells: Cells, target: int) -> Origin:
        if source < len(last):
            return Origin(last.frame, source)
        lost = self.lost[source - len(last)]
        filled: dict = {}
        if self.options.fill_gaps:
            gap = [one for one in self.recent if one.frame > lost.seen.frame]
            filled = between(lost.seen, lost.cell, cells, target, gap)
            for one in gap:
                if one.frame in filled:
                    # Taken: no second cell is filled in there.
                    one.numbers[filled[one.frame]] = -2
        return Origin(lost.seen.frame, lost.cell, filled=filled)

    def _remember(self, last: Cells, cells: Cells, motion: np.ndarray, gone: np.ndarray, past: Past) -> None:
        old = [one for one, still in zip(self.lost, gone[len(last) :], strict=True) if still]
        new = [_Lost(last, cell, motion[cell], past) for cell in np.flatnonzero(gone[: len(last)]).tolist()]
        self.lost = [one for one in [*old, *new] if cells.frame - one.seen.frame <= self.options.max_gap]


def _motion(last: Cells, cells: Cells, places: np.ndarray, diameter: float, costs: Costs) -> np.ndarray:
    """How far the neighbourhood of each place moves: the frame as a whole first, then by links of a first look."""
    stage = common_shift(
        last.numbers >= 0,
        cells.numbers >= 0,
        reach=round(STAGE_REACH * diameter),
        step=max(1, round(diameter / STAGE_STEP)),
    )
    sources = move(last, np.tile(stage, (len(last), 1)))
    links = possible_links(sources, cells, diameter, costs)
    links = links.where(assign(links, len(last), len(cells)))
    if len(links.sources) < 3:
        return np.tile(stage, (len(places), 1))
    seen = last.centres[links.sources]
    return local_motion(places, seen, cells.centres[links.targets] - seen)


def _check(number: int, labels: np.ndarray, last: Cells | None) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InputError(
            f"Frame {number}: labels must be whole numbers (H, W), got {labels.dtype} of shape {labels.shape}."
        )
    if last is None:
        return
    if number <= last.frame:
        raise InputError(f"Frame {number} comes after frame {last.frame}. Frames must come in the order of time.")
    if labels.shape != last.numbers.shape:
        sizes = ["x".join(map(str, shape)) for shape in (last.numbers.shape, labels.shape)]
        raise InputError(
            f"Frame {last.frame} is {sizes[0]} pixels, but frame {number} is {sizes[1]}. All frames of a sequence must "
            "have one size."
        )
