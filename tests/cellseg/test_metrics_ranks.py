import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.metrics.ranks import competition_ranks, rank_sum
from pipelines.errors import InputError


def test_equal_scores_share_the_better_rank():
    assert competition_ranks([0.7, 0.9, 0.7, 0.1], higher_is_better=True).tolist() == [2, 1, 2, 4]
    assert competition_ranks([0.7, 0.9, 0.7, 0.1], higher_is_better=False).tolist() == [2, 4, 2, 1]


def test_missing_score_is_last():
    assert competition_ranks([math.nan, -5.0, math.nan, 2.0], higher_is_better=True).tolist() == [3, 2, 3, 1]
    assert competition_ranks([math.nan, math.inf], higher_is_better=False).tolist() == [1, 1]


def test_rank_sum_by_hand():
    # F1 (higher is better) and a distance (lower is better) of four methods.
    ranking = rank_sum([[0.9, 50], [0.9, 40], [0.8, 60], [0.7, 45]], higher_is_better=[True, False])
    assert ranking.ranks.tolist() == [[1, 3], [1, 1], [3, 4], [4, 2]]
    assert ranking.rank_sum.tolist() == [4, 2, 7, 6]
    assert ranking.final_rank.tolist() == [2, 1, 4, 3]


def test_equal_sums_share_the_final_rank():
    ranking = rank_sum([[1, 2], [2, 1], [0, 0]], higher_is_better=True)
    assert ranking.final_rank.tolist() == [1, 1, 3]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.randoms())
def test_order_of_the_methods_does_not_matter(scores, random):
    order = random.sample(range(len(scores)), len(scores))
    ranks = competition_ranks(scores, higher_is_better=True)
    assert competition_ranks(np.array(scores)[order], higher_is_better=True).tolist() == ranks[order].tolist()
    # The rank is 1 + the number of better ones.
    assert ranks.tolist() == [1 + sum(other > one for other in scores) for one in scores]


def test_no_table():
    with pytest.raises(InputError, match=r"scores must be a table.*got shape \(3,\)"):
        rank_sum([1, 2, 3], higher_is_better=True)


def test_directions_do_not_fit():
    with pytest.raises(InputError, match="scores has 2 columns, but higher_is_better has 3 directions"):
        rank_sum([[1, 2]], higher_is_better=[True, False, True])
