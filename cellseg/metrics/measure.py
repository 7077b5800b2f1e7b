"""Measure: what every entry of `cellseg.metrics.METRICS` is.

The measures themselves live beside it, one module a family; scoring a whole data set in `cellseg.evaluation`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Prepare = Callable[[np.ndarray, np.ndarray, np.ndarray | None], Any]


@dataclass(frozen=True)
class Measure:
    """A number that compares predicted labels with true ones, over one image or pooled over many.

    A data set is scored in one pass and bounded memory: `count` gives a few additive numbers an image, and
    `value` makes the score from their sum. The score of one image is `value(count(...))` of that image alone. A mean
    over images has the counts (sum of the images' values, number of images); a maximum over thresholds has them for
    every threshold.

    Args:
        prepare: (labels_true, labels_pred, ignore) -> what several measures share, for example the contingency table.
        count_prepared: What `prepare` gave -> float64 (k,), the image's counts.
        value: float64 (k,), sum of counts over images -> the score; NaN where it is undefined.
        higher_is_better: Whether a perfect prediction has the highest score.
        kind: "pixel" sees only foreground and background, "boundary" only their outline, "object" single cells,
            "partition" which pixels belong together.
        takes_probability: Whether the prediction may be a float image in [0, 1] instead of labels.
    """

    prepare: Prepare
    count_prepared: Callable[[Any], np.ndarray]
    value: Callable[[np.ndarray], float]
    higher_is_better: bool
    kind: str
    takes_probability: bool = False

    def count(self, labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> np.ndarray:
        """Additive counts of one image, float64 (k,); `ignore` pixels (bool) are left out."""
        return self.count_prepared(self.prepare(labels_true, labels_pred, ignore))


def ratio(numerator: float, denominator: float, undefined: float = float("nan")) -> float:
    """numerator / denominator, or `undefined` where the denominator is 0."""
    return float(numerator / denominator) if denominator else undefined


def quotient(counts: np.ndarray) -> float:
    """`value` of a measure whose counts are (numerator, denominator); NaN where the denominator is 0."""
    return ratio(*counts)


def itself(counts: np.ndarray) -> np.ndarray:
    """`count_prepared` of a measure that `prepare` has counted already."""
    return counts
