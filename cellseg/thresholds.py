"""Thresholds: where a probability becomes foreground, chosen on validation data alone and kept in the run.

How a thresholded probability becomes cells is the work of `cellseg.instances`; choosing by measures that need cells,
that of `cellseg.tuning`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NUM_BINS = 200
TOLERANCE = 0.005  # of Dice; neighbouring epochs differ by as much


@dataclass(frozen=True)
class Choice:
    """A threshold and why: the measure that it is best in, the value reached, the split that it was chosen on.

    `instances` holds the options of the instance method that were chosen with it, if any were.
    """

    threshold: float
    measure: str
    value: float | None
    split: str
    instances: Mapping[str, Any] = field(default_factory=dict)


class ThresholdCurve:
    """Dice and drawn foreground at every threshold k / 200, collected image by image in one pass.

    Pixels are pooled over all images. The counts are exact: foreground is probability >= threshold.
    """

    def __init__(self) -> None:
        self._grid = np.arange(1, NUM_BINS) / NUM_BINS
        self._foreground = np.zeros(NUM_BINS, np.int64)
        self._background = np.zeros(NUM_BINS, np.int64)

    def add(self, mask_true: np.ndarray, probability: np.ndarray, ignore: np.ndarray | None = None) -> None:
        """Count one image: bool (H, W) truth, float (H, W) probability, bool (H, W) unannotated pixels."""
        known = np.ones(mask_true.shape, bool) if ignore is None else ~ignore
        bins = np.searchsorted(self._grid, probability[known].astype(np.float64), side="right")
        truth = mask_true[known]
        self._foreground += np.bincount(bins[truth], minlength=NUM_BINS)
        self._background += np.bincount(bins[~truth], minlength=NUM_BINS)

    def without(self, other: "ThresholdCurve") -> "ThresholdCurve":
        """The curve of the images of this one that are not in `other`, which must be part of it."""
        rest = ThresholdCurve()
        rest._foreground = self._foreground - other._foreground
        rest._background = self._background - other._background
        return rest

    def join(self, other: "ThresholdCurve") -> None:
        """Count the images of another curve, too."""
        self._foreground += other._foreground
        self._background += other._background

    @property
    def thresholds(self) -> np.ndarray:
        """The thresholds 0.005, 0.01, ..., 0.995."""
        return self._grid

    @property
    def dice(self) -> np.ndarray:
        """Pooled Dice at each threshold; NaN where neither truth nor answer has foreground."""
        hits, drawn, true = self._counts()
        with np.errstate(invalid="ignore"):
            return 2 * hits / (drawn + true)

    @property
    def foreground_ratio(self) -> np.ndarray:
        """Drawn / true foreground pixels at each threshold; NaN without true foreground."""
        _, drawn, true = self._counts()
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(true > 0, drawn / max(true, 1), np.nan)

    @property
    def foreground_fraction(self) -> float:
        """Share of foreground in the truth."""
        total = self._foreground.sum() + self._background.sum()
        return float(self._foreground.sum() / total) if total else float("nan")

    @property
    def drawn_fraction(self) -> np.ndarray:
        """Share of pixels drawn as foreground at each threshold."""
        total = self._foreground.sum() + self._background.sum()
        return self._counts()[1] / max(total, 1)

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray, int, int]:
        """Hits (true foreground drawn) and drawn pixels at each threshold; true foreground and all pixels."""
        return *self._counts(), int(self._foreground.sum() + self._background.sum())

    def best(self, *, split: str = "validation") -> Choice:
        """The threshold for this split: of those whose Dice is within TOLERANCE of the highest, the least biased one.

        Dice is flat near its maximum, and there it rewards drawing too much: areas would come out too large. So among
        thresholds that Dice can hardly tell apart, the one whose drawn area is nearest to the true one is taken, and
        among equals the one nearest to 0.5. Without true foreground: 0.5 and no value.
        """
        dice = self.dice
        if not self._foreground.sum():
            return Choice(0.5, "dice", None, split)
        good = np.flatnonzero(dice >= dice.max() - TOLERANCE)
        bias = np.abs(self.foreground_ratio[good] - 1).round(9)
        distance = np.abs(self._grid[good] - 0.5)
        index = good[np.lexsort((distance, bias))[0]]
        return Choice(float(self._grid[index]), "dice", float(dice[index]), split)

    def at(self, threshold: float, *, split: str = "validation") -> Choice:
        """A threshold that was not chosen, with the Dice that it reaches; the nearest of the grid counts."""
        value = float(self.dice[int(np.argmin(np.abs(self._grid - threshold)))])
        return Choice(threshold, "dice", None if np.isnan(value) else value, split)

    def as_dict(self) -> dict[str, list[float | None]]:
        """The curve for `threshold.json`; NaN is None."""
        columns = {"threshold": self._grid, "dice": self.dice, "foreground_ratio": self.foreground_ratio}
        return {name: [None if np.isnan(v) else round(float(v), 6) for v in column] for name, column in columns.items()}

    def _counts(self) -> tuple[np.ndarray, np.ndarray, int]:
        hits = self._foreground[::-1].cumsum()[::-1][1:]
        false = self._background[::-1].cumsum()[::-1][1:]
        return hits, hits + false, int(self._foreground.sum())
