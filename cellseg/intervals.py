"""Intervals: how far a pooled score would move if other images of the same kind had been scored.

The counts that are pooled come from `cellseg.metrics.measure`; scoring a data set lives in `cellseg.evaluation`.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
BLOCK = 1_000_000  # drawn numbers in memory at a time


def bootstrap_intervals(
    counts: Mapping[str, Sequence[np.ndarray]],
    values: Mapping[str, Callable[[np.ndarray], float]],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """Percentile bootstrap intervals of pooled scores, over images.

    As many images as there are, n, are drawn with replacement, their counts are added and the score is taken of the
    sum, as for the data set itself; that `resamples` times. The interval reaches from the (1 - level) / 2 quantile of
    those scores to the (1 + level) / 2 quantile. All measures see the same draws, so that two of them can be compared.

    It says how much the choice of images matters, nothing about the network's training. Images that are alike, as the
    frames of one sequence or crops of one image, count as independent, and then it is too narrow. Of few images (say
    fewer than ten) it is too narrow as well.

    Args:
        counts: For each measure the additive counts of each image, n arrays (k,).
        values: For each measure, sum of counts -> score, NaN where it is undefined.
        resamples: Number of draws of n images.
        level: Share of the scores that lie in the interval.
        seed: Of the draws; the same seed and counts give the same intervals.

    Returns:
        (low, high) for each measure; None where fewer than two images have a value (NaN otherwise), because then
        nothing can be said of their spread. Draws whose score is undefined, of images without a value alone, are left
        out.

    Reference:
        Efron 1979, https://doi.org/10.1214/aos/1176344552; Efron & Tibshirani 1993, sec. 13.3
    """
    tables = {
        name: np.stack(rows)
        for name, rows in counts.items()
        if sum(not math.isnan(values[name](row)) for row in rows) >= 2
    }
    scores: dict[str, list[float]] = {name: [] for name in tables}
    number = max((len(table) for table in tables.values()), default=0)
    rng = np.random.default_rng(seed)
    done = 0
    while tables and done < resamples:
        draws = min(resamples - done, max(1, BLOCK // number))
        times = _times_drawn(rng, draws, number)
        for name, table in tables.items():
            scores[name] += [values[name](total) for total in times @ table]
        done += draws
    return {name: _quantiles(np.array(scores[name]), level) if name in tables else None for name in counts}


def _times_drawn(rng: np.random.Generator, draws: int, number: int) -> np.ndarray:
    """float64 (draws, number): how often each of `number` images is among `number` drawn with replacement."""
    drawn = rng.integers(number, size=(draws, number)) + number * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * number).reshape(draws, number).astype(float)


def _quantiles(scores: np.ndarray, level: float) -> tuple[float, float] | None:
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return None
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
