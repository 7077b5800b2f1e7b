import numpy as np
import pytest
from scipy import stats

from cellseg import intervals
from cellseg.intervals import bootstrap_intervals
from cellseg.metrics import IMAGE_METRICS
from cellseg.metrics.measure import quotient


def one(counts, value=quotient, **options):
    return bootstrap_intervals({"m": [np.array(row, float) for row in counts]}, {"m": value}, **options)["m"]


def test_two_images_by_hand():
    # Draws: first twice 1/4, both 1/2, second twice 1/4: the 2.5 % quantile is 1/10, the 97.5 % quantile 3/4; the
    # middle half is the pooled 4/14.
    assert one([(1, 10), (3, 4)]) == (0.1, 0.75)
    assert one([(1, 10), (3, 4)], level=0.4) == (4 / 14, 4 / 14)


def test_large_images_weigh_as_in_the_pooled_score():
    # A mean of the images' own scores would reach far lower than this.
    low, high = one([(99, 100)] * 9 + [(0, 1)])
    assert low > 0.97 and high == 0.99


def test_alike_images_have_no_spread():
    assert one([(3, 4)] * 5) == (0.75, 0.75)


@pytest.mark.parametrize("counts", [[], [(1, 2)], [(1, 2), (0, 0)], [(0, 0)] * 3])
def test_fewer_than_two_images_with_a_value_have_none(counts):
    assert one(counts) is None


def test_images_without_a_value_are_drawn_and_say_nothing():
    # One draw in 4 ** 4 takes the empty images alone; it has no score and is left out.
    low, high = one([(1, 10), (3, 4), (0, 0), (0, 0)])
    assert (low, high) == (0.1, 0.75)


def test_agrees_with_scipy():
    values = np.random.default_rng(3).gamma(2.0, size=60)
    ours = one([(value, 1) for value in values], resamples=4000)
    options = {"n_resamples": 4000, "method": "percentile", "rng": np.random.default_rng(5)}
    theirs = stats.bootstrap((values,), np.mean, confidence_level=0.95, **options).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_the_same_every_time_and_other_with_another_seed():
    counts = [(value, 10) for value in range(9)]
    assert one(counts) == one(counts)
    assert one(counts) != one(counts, seed=1)


def test_measures_see_the_same_draws():
    counts = [np.array([value, 10.0]) for value in range(9)]
    found = bootstrap_intervals(
        {"a": counts, "b": counts, "alone": counts[:1]}, dict.fromkeys(("a", "b", "alone"), quotient)
    )
    assert found["a"] == found["b"] and found["alone"] is None


def test_blocks_of_draws_are_as_good_as_one(monkeypatch):
    counts = [(value, 10) for value in range(9)]
    whole = one(counts)
    monkeypatch.setattr(intervals, "BLOCK", 20)
    assert one(counts) == pytest.approx(whole, abs=0.03)


def test_every_measure_lies_in_its_interval():
    rng = np.random.default_rng(0)
    counts: dict = {name: [] for name in IMAGE_METRICS}
    for _ in range(6):
        truth = np.kron(rng.integers(0, 4, (4, 4)), np.ones((4, 4), int)).astype(np.int32)
        prediction = np.where(rng.random(truth.shape) < 0.1, 0, truth)
        for name, measure in IMAGE_METRICS.items():
            counts[name].append(measure.count(truth, prediction))
    found = bootstrap_intervals(counts, {name: one.value for name, one in IMAGE_METRICS.items()}, resamples=200)
    for name, measure in IMAGE_METRICS.items():
        low, high = found[name]
        assert low <= measure.value(sum(counts[name])) <= high, name
