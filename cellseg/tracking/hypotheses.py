"""Hypotheses: what may have become of each cell in the next frame, and how likely it is.

A cell goes on as one cell (a link) or as two (a division). Which hypotheses are true together is chosen by
`cellseg.tracking.selection`.

The gain of a link is what it is worth more than a cell that vanishes and another that appears. Lengths are measured in
usual diameters of the two frames, and after the motion of the neighbourhood is taken off, so that nothing depends on
the magnification. That overlap, distance and size are enough for the cost of a link, and that a division is judged by
the sum and the symmetry of its daughters, is common to Jaqaman et al. 2008 (https://doi.org/10.1038/nmeth.1237),
Magnusson et al. 2015 (https://doi.org/10.1109/TMI.2014.2370951) and Löffler et al. 2021
(https://doi.org/10.1371/journal.pone.0249257); the weights here are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from cellseg.tracking.cells import Cells


@dataclass(frozen=True)
class Costs:
    """Weights of the hypotheses.

    The defaults were chosen on PhC-C2DL-PSC 01 at its own and at a third of its frame rate, from some 130 settings;
    `link`, `gap` and `least_odds` with an eye on Fluo-N2DH-GOWT1 01, whose cells jump. What they reach on these two
    sequences is therefore a little better than elsewhere. `rounding` is what the regression gave on PSC at a half and
    at a third of its frame rate (3.0 both; 1.0 at its own, 3.8 with spoilt labels). Changed one by one around the
    chosen values, those weights that were tried so moved the F1 of the divisions on PSC by 0.01 at most; of the others
    this is not known.

    cost of a link = overlap (1 - IoU) + distance d + size |log area ratio|
    gain of a link = link - cost; of a link over a gap, less gap (3 + frames) / 4
    gain of a division = link - division + certainty l
    l = odds - area |log(daughters / parent) - growth| - symmetry |log area ratio of the daughters|
        - centre d(daughters, parent) + share s + rounding r - youth c max(0, 1 - age / ripe), a logistic regression of
        true divisions against other new cells, but for the last term; s = share of the daughter with the worse link
        that lies on the parent, r = log of how much rounder the parent is than it was over its life, >= 0 (cells round
        up before they divide; nuclei, which need not, lose nothing), age = time since the parent was born in a division
        itself, in doubling times of all cells, c = probability of that division by its own l

    Args:
        overlap, distance, size, link, gap: Of links.
        reach: Cells farther apart, in diameters, are linked only if they overlap.
        division, certainty, odds, least_odds, area, growth, symmetry, centre, share, rounding, youth, ripe: Of
            divisions.
    """

    overlap: float = 0.8
    distance: float = 0.2
    size: float = 0.35
    link: float = 4.0
    gap: float = 1.5
    reach: float = 1.6
    division: float = 0.15
    certainty: float = 0.07
    odds: float = 1.5
    least_odds: float = -4.0
    area: float = 1.8
    growth: float = 0.1
    symmetry: float = 4.2
    centre: float = 3.5
    share: float = 5.2
    rounding: float = 3.0
    youth: float = 20.0
    ripe: float = 0.35


@dataclass(frozen=True, eq=False)
class Sources:
    """Cells that may go on in the next frame: those of the last frame, then those lost some frames ago.

    Args:
        areas: float64 (n,).
        centres: float64 (n, 2), moved with their neighbourhood.
        rows, columns, owners: int64 (p,), their pixels, moved likewise.
        missed: int64 (n,), frames in which each was not seen.
        youth, rounding: float64 (n,), see `Past`; 0 for lost ones, which do not divide.
    """

    areas: np.ndarray
    centres: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    owners: np.ndarray
    missed: np.ndarray
    youth: np.ndarray
    rounding: np.ndarray


@dataclass(frozen=True, eq=False)
class Links:
    """Pairs that may be one cell.

    Args:
        sources, targets: int64 (k,), which cells.
        shared: float64 (k,), pixels that they share.
        gains: float64 (k,).
    """

    sources: np.ndarray
    targets: np.ndarray
    shared: np.ndarray
    gains: np.ndarray

    def where(self, kept: np.ndarray) -> "Links":
        """Some of the pairs."""
        return Links(self.sources[kept], self.targets[kept], self.shared[kept], self.gains[kept])


@dataclass(frozen=True, eq=False)
class Divisions:
    """Triples that may be a parent and its daughters.

    Args:
        parents, firsts, seconds: int64 (k,), which cells; the first daughter has the better link.
        odds, gains: float64 (k,).
    """

    parents: np.ndarray
    firsts: np.ndarray
    seconds: np.ndarray
    odds: np.ndarray
    gains: np.ndarray


def move(
    cells: Cells,
    motion: np.ndarray,
    lost: Sequence[tuple[Cells, int, np.ndarray]] = (),
    *,
    youth: np.ndarray | None = None,
    rounding: np.ndarray | None = None,
) -> Sources:
    """Sources of a frame.

    Args:
        cells: Of the last frame.
        motion: float (n, 2), how far each moves until the next frame.
        lost: Cells that were last seen before, with their motion since then.
        youth, rounding: Of the cells of the last frame, see `Past`; None = zeros.
    """
    steps = np.rint(motion).astype(np.int64)[cells.owners]
    rows, columns, owners = [cells.rows + steps[:, 0]], [cells.columns + steps[:, 1]], [cells.owners]
    areas, centres, missed = [cells.areas], [cells.centres + motion], [np.zeros(len(cells), np.int64)]
    for number, (seen, cell, shift) in enumerate(lost, start=len(cells)):
        row, column = seen.pixels(cell)
        step = np.rint(shift).astype(np.int64)
        rows.append(row + step[0])
        columns.append(column + step[1])
        owners.append(np.full(len(row), number))
        areas.append(seen.areas[[cell]])
        centres.append(seen.centres[[cell]] + shift)
        missed.append(np.array([cells.frame - seen.frame]))
    of_divisions = np.zeros((2, len(cells) + len(lost)))
    for row_of, known in zip(of_divisions, (youth, rounding), strict=True):
        if known is not None:
            row_of[: len(cells)] = known
    return Sources(
        np.concatenate(areas),
        np.concatenate(centres),
        np.concatenate(rows),
        np.concatenate(columns),
        np.concatenate(owners),
        np.concatenate(missed),
        *of_divisions,
    )


def possible_links(sources: Sources, targets: Cells, diameter: float, costs: Costs) -> Links:
    """Every pair that overlaps or lies within reach, with a gain above 0."""
    num_targets = len(targets)
    if not len(sources.areas) or not num_targets:
        nothing = np.zeros(0, np.int64)
        return Links(nothing, nothing, np.zeros(0), np.zeros(0))
    height, width = targets.numbers.shape
    inside = (sources.rows >= 0) & (sources.rows < height) & (sources.columns >= 0) & (sources.columns < width)
    below = targets.numbers[sources.rows[inside], sources.columns[inside]]
    codes, counts = np.unique(
        sources.owners[inside][below >= 0].astype(np.int64) * num_targets + below[below >= 0], return_counts=True
    )
    near = cKDTree(targets.centres).query_ball_point(sources.centres, costs.reach * diameter)
    close = np.repeat(np.arange(len(near)), [len(one) for one in near]) * num_targets
    close += np.array([cell for one in near for cell in one], np.int64)
    pairs = np.union1d(codes, close)
    source, target = np.divmod(pairs, num_targets)
    shared = np.zeros(len(pairs))
    shared[np.searchsorted(pairs, codes)] = counts
    before, after = sources.areas[source], targets.areas[target]
    iou = shared / (before + after - shared)
    distances = np.hypot(*(targets.centres[target] - sources.centres[source]).T) / diameter
    cost = costs.overlap * (1 - iou) + costs.distance * distances + costs.size * np.abs(np.log(after / before))
    missed = sources.missed[source]
    cost += np.where(missed > 0, costs.gap * (3 + missed) / 4, 0)
    links = Links(source, target, shared, costs.link - cost)
    return links.where(links.gains > 0)


def possible_divisions(sources: Sources, targets: Cells, links: Links, diameter: float, costs: Costs) -> Divisions:
    """Every pair of links of one parent that is worth more as a division than the better of the two alone.

    A cell that was not seen in the last frame does not divide: what comes back as two has more often been merged.
    """
    links = links.where(sources.missed[links.sources] == 0)
    first, second = _pairs_within(links.sources)
    swapped = links.gains[first] < links.gains[second]
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    parent, one, other = links.sources[first], links.targets[first], links.targets[second]
    areas_one, areas_other = targets.areas[one], targets.areas[other]
    both = areas_one + areas_other
    share = (areas_one / both)[:, np.newaxis]
    centres = share * targets.centres[one] + (1 - share) * targets.centres[other]
    odds = (
        costs.odds
        - costs.area * np.abs(np.log(both / sources.areas[parent]) - costs.growth)
        - costs.symmetry * np.abs(np.log(areas_one / areas_other))
        - costs.centre * np.hypot(*(centres - sources.centres[parent]).T) / diameter
        + costs.share * links.shared[second] / areas_other
        + costs.rounding * sources.rounding[parent]
        - costs.youth * sources.youth[parent]
    )
    gains = costs.link - costs.division + costs.certainty * odds
    kept = (gains > links.gains[first]) & (odds > costs.least_odds)
    return Divisions(parent[kept], one[kept], other[kept], odds[kept], gains[kept])


def _pairs_within(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of every two equal entries of a sorted array."""
    begins = np.searchsorted(groups, groups, side="left")
    earlier = np.arange(len(groups)) - begins
    second = np.repeat(np.arange(len(groups)), earlier)
    first = np.arange(len(second)) - np.repeat(np.cumsum(earlier) - earlier, earlier) + np.repeat(begins, earlier)
    return first, second
