"""Balancing: near to every quota, and no swap or move of units would come nearer."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.balancing import balanced

# Images of grade a and b in each group, at least one.
GROUPS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any).map(lambda one: dict(zip("ab", one, strict=True))),
    min_size=4,
    max_size=9,
)


def distance(units, shares, result):
    """Squared distance from the quotas, straight from its definition."""
    total = 0.0
    for place, share in shares.items():
        off = []
        for stratum in "ab":
            there = sum(one.get(stratum, 0) for name, one in units.items() if result[name] == place)
            off.append(there - sum(one.get(stratum, 0) for one in units.values()) * share / sum(shares.values()))
        total += off[0] ** 2 + off[1] ** 2 + (off[0] + off[1]) ** 2
    return total


@given(GROUPS, st.sampled_from([{"x": 6, "y": 2, "z": 2}, {"x": 1, "y": 1, "z": 1}, {"x": 5, "y": 1, "": 2}]))
def test_nothing_that_is_swapped_or_moved_comes_nearer(groups, shares):
    units = {f"{place}": group for place, group in enumerate(groups)}
    needed = [place for place in shares if place]
    result = balanced(list(units), units, shares, needed=needed)
    assert set(result) == set(units) and set(needed) <= set(result.values()) <= set(shares)
    reached = distance(units, shares, result) - 1e-9
    for one, other in combinations(units, 2):
        assert distance(units, shares, result | {one: result[other], other: result[one]}) >= reached
    for name in units:
        for place in shares:
            moved = result | {name: place}
            assert not set(needed) <= set(moved.values()) or distance(units, shares, moved) >= reached


def test_patients_with_both_grades():
    # As in GlaS: 34 benign and 44 malignant images; 54, 12 and 12 are wanted, 5.2 and 6.8 of 12.
    patients = [(7, 4), (0, 10), (2, 8), (8, 0), (0, 8), (3, 5), (7, 0), (4, 2), (2, 3), (1, 0), *[(0, 1)] * 4]
    units = {f"{place:02d}": {"a": a, "b": b} for place, (a, b) in enumerate(patients)}
    result = balanced(list(units), units, {"train": 54, "validation": 12, "test": 12}, needed=["train"])
    for split in ("validation", "test"):
        there = [units[name] for name in units if result[name] == split]
        assert abs(sum(one["a"] for one in there) - 5.2) < 2.5
        assert abs(sum(one["b"] for one in there) - 6.8) < 2.5


def test_the_needed_are_served_first_when_units_run_out():
    result = balanced(
        ["0", "1", "2"], {name: {"a": 3} for name in "012"}, {"x": 97, "y": 1, "z": 1}, needed=["x", "z", "y"]
    )
    assert sorted(result.values()) == ["x", "y", "z"]
