"""Drawing: every unit in one place, totals and strata as near to their shares as whole units allow."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.drawing import Fold, allot, counts, deal, draw, read_fold
from pipelines.errors import InputError

FRACTIONS = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.integers(0, 8)).map(
    lambda parts: dict(zip(("train", "validation", "test"), (one / sum(parts) for one in parts), strict=False))
)
STRATA = st.lists(st.sampled_from("abcd"), min_size=5, max_size=60)
SIZES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4)), min_size=20, max_size=40)


def alike(strata):
    return {f"{place:02d}": {stratum: 1} for place, stratum in enumerate(strata)}


def sized(sizes):
    return {f"{place:02d}": {stratum: size} for place, (stratum, size) in enumerate(sizes)}


def images(units, places):
    """Images in each place, and in each place of each stratum."""
    total, of = Counter(), Counter()
    for name, place in places.items():
        total[place] += sum(units[name].values())
        for stratum, number in units[name].items():
            of[place, stratum] += number
    return total, of


@given(strata=STRATA, fractions=FRACTIONS, seed=st.integers(0, 5))
def test_strata_leave_the_totals_as_they_are_and_are_within_one_of_their_share(strata, fractions, seed):
    units = alike(strata)
    split = draw(units, fractions, seed)
    total, of = images(units, split)
    assert dict(total) == counts(len(strata), fractions)
    for name in fractions:
        for stratum, number in Counter(strata).items():
            assert abs(of[name, stratum] - number * total[name] / len(strata)) <= 1


def test_strata_by_hand():
    # 85 images: 59.5, 12.75, 12.75, so 59, 13, 13. Of 37 benign the shares are 25.7, 5.66, 5.66: one of the three is
    # rounded down. Of 48 malignant: 33.3, 7.34, 7.34: one is rounded up. Train lacks 59 - 25 - 33 = 1, the others
    # 13 - 5 - 7 = 1.
    units = alike(["benign"] * 37 + ["malignant"] * 48)
    split = draw(units, {"train": 0.7, "validation": 0.15, "test": 0.15}, 0)
    total, of = images(units, split)
    assert total == {"train": 59, "validation": 13, "test": 13}
    assert [of[name, "benign"] for name in ("train", "validation", "test")] == [26, 6, 5]
    assert [of[name, "malignant"] for name in ("train", "validation", "test")] == [33, 7, 8]


def test_of_splits_that_lack_the_same_the_larger_remainder_goes_first():
    # Shares of the 3 are 2.14 and 0.86, of the 4 they are 2.86 and 1.14; each split lacks one more.
    units = alike("aaabbbb")
    of = images(units, draw(units, {"train": 5 / 7, "validation": 2 / 7}, 0))[1]
    assert of == {("train", "a"): 2, ("validation", "a"): 1, ("train", "b"): 3, ("validation", "b"): 1}


def test_a_rare_stratum_is_shared_out_where_a_blind_draw_would_not():
    for seed in range(20):
        split = draw(alike("a" * 18 + "b" * 2), {"train": 0.5, "validation": 0.5}, seed)
        assert {split["18"], split["19"]} == {"train", "validation"}


@given(st.integers(3, 40), st.integers(0, 5))
def test_one_stratum_is_the_plain_draw(number, seed):
    units = alike("a" * number)
    order = np.random.default_rng(seed).permutation(number)
    split = draw(units, {"train": 0.5, "validation": 0.25, "test": 0.25}, seed)
    num = counts(number, {"train": 0.5, "validation": 0.25, "test": 0.25})
    expected = ["train"] * num["train"] + ["validation"] * num["validation"] + ["test"] * num["test"]
    assert [split[f"{place:02d}"] for place in order] == expected


@given(SIZES, st.integers(0, 5))
def test_units_of_several_sizes_come_within_the_biggest_of_every_quota(sizes, seed):
    units = sized(sizes)
    fractions = {"train": 0.5, "validation": 0.2, "test": 0.2}
    split = draw(units, fractions, seed)
    total, of = images(units, split)
    wanted = counts(sum(size for _, size in sizes), fractions)
    biggest = max(size for _, size in sizes)
    for name in fractions:
        assert abs(total[name] - wanted[name]) <= biggest
        for stratum in "ab":
            share = sum(size for one, size in sizes if one == stratum) * wanted[name] / sum(size for _, size in sizes)
            assert abs(of[name, stratum] - share) <= biggest


def test_big_units_first_by_hand():
    # 12 images: quotas 6, 3, 3. 5 -> train (1, 3, 3); 3 -> validation (1, 0, 3); 2 -> test (1, 0, 1); 1 -> train,
    # the first of equals; 1 -> test.
    units = sized([("", 1), ("", 2), ("", 1), ("", 5), ("", 3)])
    split = draw(units, {"train": 0.5, "validation": 0.25, "test": 0.25}, 0)
    assert images(units, split)[0] == {"train": 6, "validation": 3, "test": 3}
    assert split["03"] == "train" and split["04"] == "validation" and split["01"] == "test"


def test_no_split_is_empty_though_one_unit_is_more_than_its_quota():
    split = draw(sized([("", 3), ("", 3), ("", 4)]), {"train": 0.8, "validation": 0.1, "test": 0.1}, 0)
    assert split["02"] == "train" and set(split.values()) == {"train", "validation", "test"}


def test_what_no_fraction_takes_is_left_out_of_every_stratum():
    units = alike("a" * 10 + "b" * 10)
    total, of = images(units, draw(units, {"train": 0.4, "validation": 0.2}, 0))
    assert total == {"train": 8, "validation": 4}
    assert of == {("train", "a"): 4, ("train", "b"): 4, ("validation", "a"): 2, ("validation", "b"): 2}


@given(strata=STRATA, num=st.integers(2, 5), seed=st.integers(0, 3))
def test_parts_and_strata_in_them_differ_by_one_unit_at_most(strata, num, seed):
    units = alike(strata)
    total, of = images(units, deal(units, num, seed))
    assert max(total.values()) - min(total[part] for part in range(1, num + 1)) <= 1
    for stratum in set(strata):
        numbers = [of[part, stratum] for part in range(1, num + 1)]
        assert max(numbers) - min(numbers) <= 1


@given(SIZES, st.integers(2, 5), st.integers(0, 3))
def test_parts_of_units_of_several_sizes_are_none_empty_and_within_the_biggest(sizes, num, seed):
    units = sized(sizes)
    total, _ = images(units, deal(units, num, seed))
    assert set(total) == set(range(1, num + 1))
    assert max(total.values()) - min(total.values()) <= max(size for _, size in sizes)


@given(st.integers(2, 6), STRATA, st.integers(0, 3))
def test_every_unit_is_tested_in_one_fold(num, strata, seed):
    units = alike([*strata, "a"])
    shares = {"train": 0.7, "validation": 0.15, "test": 0.15}
    tested = Counter()
    for part in range(1, num + 1):
        split = allot(units, shares, seed=seed, fold=Fold(part, num), what="images", framed=False)
        assert set(split) == set(units)
        total, _ = images(units, split)
        rest = len(units) - total["test"]
        assert abs(total["validation"] - rest * 0.15 / 0.85) < 1 or total["validation"] == 1
        tested.update(name for name, one in split.items() if one == "test")
    assert tested == dict.fromkeys(units, 1)


def test_another_seed_deals_other_parts():
    units = alike("a" * 30)
    assert deal(units, 3, 0) == deal(units, 3, 0) != deal(units, 3, 1)


@pytest.mark.parametrize("text", ["2/5", " 2 / 5 "])
def test_folds_as_text(text):
    assert read_fold(text) == (2, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", r"split\.fold is '2'; a part and the number of parts were expected, such as 2/5"),
        ("a/5", r"split\.fold is 'a/5'; a part"),
        ("-1/5", r"split\.fold is '-1/5'; a part"),
        ("6/5", r"split\.fold is '6/5': the part must be from 1 to 5"),
        ("0/5", r"split\.fold is '0/5': the part must be from 1 to 5"),
        ("1/1", r"split\.fold is '1/1': there must be at least 2 parts"),
    ],
)
def test_bad_folds(text, message):
    with pytest.raises(InputError, match=message):
        read_fold(text)


def test_too_few_units_for_a_fold():
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    with pytest.raises(
        InputError, match=r"split\.fold is 1/5, but there are 3 images: .* each of the 5 parts.* Take f"
    ):
        allot(alike("aaa"), shares, seed=0, fold=Fold(1, 5), what="images", framed=False)
    with pytest.raises(InputError, match=r"there are 3 sequences: .* Use split\.by: block, take fewer parts"):
        allot(alike("aaa"), shares, seed=0, fold=Fold(1, 5), what="sequences", framed=True)
    with pytest.raises(InputError, match=r"split\.fold is 2/2: beside the test part there is 1 of 2 images, too few"):
        allot(alike("aa"), shares, seed=0, fold=Fold(2, 2), what="images", framed=False)
