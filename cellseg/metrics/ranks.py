"""Ranks: which method is best over several measures? Standard competition ranking and the sum of ranks.

The scores themselves come from the other modules of this package; tables of runs are made in `cellseg.evaluation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import InputError


@dataclass(frozen=True, eq=False)
class Ranking:
    """Methods ranked by several scores.

    Args:
        ranks: int64 (methods, scores), 1 = best; equal scores share the better rank, and the next is left out (1224).
        rank_sum: int64 (methods,), sum of a method's ranks; lower is better.
        final_rank: int64 (methods,), rank of the sums, ties as above.
    """

    ranks: np.ndarray
    rank_sum: np.ndarray
    final_rank: np.ndarray


def competition_ranks(scores: Sequence[float] | np.ndarray, *, higher_is_better: bool) -> np.ndarray:
    """Rank of each score: 1 + the number of better ones, int64 (n,).

    NaN, a score that is missing or undefined, is worse than any other; several NaN share the last rank.
    """
    values = np.asarray(scores, dtype=float)
    badness = np.where(np.isnan(values), np.inf, -values if higher_is_better else values)
    return 1 + np.searchsorted(np.sort(badness), badness, side="left")


def rank_sum(scores: Sequence[Sequence[float]] | np.ndarray, *, higher_is_better: bool | Sequence[bool]) -> Ranking:
    """Rank methods by the sum of their ranks, as the GlaS contest does.

    Args:
        scores: float (methods, scores): a row a method, a column a measure on a part of the data. Scores are compared
            as given: round them first if a printed table did.
        higher_is_better: For each column, or for all.

    Raises:
        InputError: not a table, or directions that do not fit it.

    Reference:
        Sirinukunwattana et al. 2017, https://arxiv.org/abs/1603.00275
    """
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2:
        raise InputError(f"scores must be a table, a row a method and a column a measure, got shape {table.shape}.")
    given = [higher_is_better] * table.shape[1] if isinstance(higher_is_better, bool) else list(higher_is_better)
    if len(given) != table.shape[1]:
        raise InputError(
            f"scores has {table.shape[1]} columns, but higher_is_better has {len(given)} directions. "
            "Give one for each column."
        )
    ranks = np.zeros(table.shape, np.int64)
    for column, higher in enumerate(given):
        ranks[:, column] = competition_ranks(table[:, column], higher_is_better=bool(higher))
    total = ranks.sum(axis=1)
    return Ranking(ranks, total, competition_ranks(total, higher_is_better=False))
