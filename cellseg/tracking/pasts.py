"""Pasts: what is known of each cell from the frames before, as the odds of its division need it.

The odds are made in `cellseg.tracking.hypotheses`; which cell goes on as which is chosen in `linking`.
"""

from dataclasses import dataclass

import numpy as np

from cellseg.tracking.cells import Cells


@dataclass(frozen=True, eq=False)
class Past:
    """The lives of the cells of a frame, so far. Arrays are filled in as links are chosen.

    Args:
        born: float64 (n,), frame in which each was born in a division, -inf where that is not known.
        certainty: float64 (n,), how sure that division is, 0 to 1.
        shapes: float64 (n,), sum of log roundness over the frames in which it was seen.
        num_seen: int64 (n,), how many these are.
    """

    born: np.ndarray
    certainty: np.ndarray
    shapes: np.ndarray
    num_seen: np.ndarray

    @classmethod
    def new(cls, cells: Cells) -> "Past":
        """Of cells that were never seen before."""
        size = len(cells)
        return cls(np.full(size, -np.inf), np.ones(size), np.log(cells.roundness), np.ones(size, np.int64))

    def go_on(self, cell: int, before: "Past", source: int) -> None:
        """A cell is the source of a frame before."""
        self.born[cell], self.certainty[cell] = before.born[source], before.certainty[source]
        self.shapes[cell] += before.shapes[source]
        self.num_seen[cell] += before.num_seen[source]

    def begin(self, cell: int, frame: int, odds: float) -> None:
        """A cell was born in a division of these log odds."""
        self.born[cell], self.certainty[cell] = frame, 1 / (1 + np.exp(-odds))

    def youth(self, frame: int, ripe: float) -> np.ndarray:
        """float64 (n,), 1 = surely just born, falling to 0 in `ripe` frames; 0 where the birth is not known."""
        return self.certainty * np.maximum(0, 1 - (frame - self.born) / ripe)

    def rounding(self, cells: Cells) -> np.ndarray:
        """float64 (n,), log of how much rounder each is now than over its life, >= 0."""
        return np.maximum(0, np.log(cells.roundness) - self.shapes / self.num_seen)
