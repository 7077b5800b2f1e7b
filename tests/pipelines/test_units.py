"""Units: images of one content or one group stay together, however a split by image is drawn."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.sample import Item
from pipelines.splits import assign
from pipelines.units import joined

HALVES = {"by": "image", "train": 0.5, "validation": 0.25, "test": 0.25}
# Group and stratum of each image; "" = none.
DRAWN = st.lists(
    st.tuples(st.sampled_from(["", *"pqrstuvw"]), st.sampled_from(["", "a", "b"])), min_size=6, max_size=40
)


def load():
    raise AssertionError("a split needs no pixels")


def grouped(pairs):
    return [
        Item(name=f"cell{place:02d}", load=load, group=group, stratum=stratum)
        for place, (group, stratum) in enumerate(pairs)
    ]


def of(items, attribute):
    """The items of each value of an attribute, those without one left out."""
    values = {getattr(item, attribute) for item in items} - {""}
    return {value: [item.name for item in items if getattr(item, attribute) == value] for value in values}


def test_joined_is_the_union_of_both_relations():
    # 0-1 by patient, 1-3 by content, 3-4 by patient; 2 and 5 alone.
    items = grouped([("p", ""), ("p", ""), ("", ""), ("q", ""), ("q", ""), ("r", "")])
    unit = joined(items, {"cell01": "x", "cell03": "x", "cell02": "y", "cell00": "z"})
    assert unit == {
        **dict.fromkeys(["cell00", "cell01", "cell03", "cell04"], "cell00"),
        "cell02": "cell02",
        "cell05": "cell05",
    }


def test_a_group_and_a_content_of_one_name_are_two_things():
    items = grouped([("p", ""), ("", "")])
    assert joined(items, {"cell01": "p"}) == {"cell00": "cell00", "cell01": "cell01"}


@given(DRAWN, st.integers(0, 4), st.sampled_from([None, "1/3", "3/3"]))
def test_no_group_is_torn_and_the_order_of_items_does_not_matter(pairs, seed, fold):
    items = grouped(pairs)
    if len(set(joined(items, {}).values())) < 3:
        with pytest.raises(InputError, match=r"groups of images \(of \d+ files\)"):
            assign(items, **HALVES, seed=seed, fold=fold)
        return
    result = assign(items, **HALVES, seed=seed, fold=fold)
    assert set(result.values()) == {"train", "validation", "test"}  # all of them: nothing is left out
    assert all(len({result[name] for name in names}) == 1 for names in of(items, "group").values())
    shuffled = random.Random(seed).sample(items, len(items))
    assert assign(shuffled, **HALVES, seed=seed, fold=fold) == result


def test_with_groups_fractions_count_images():
    # One patient of 10 images and 10 images of their own: half of the 20 are 10, not 5 or 6 of 11 units.
    items = grouped([("p", "")] * 10 + [("", "")] * 10)
    assert Counter(assign(items, **HALVES).values()) == {"train": 10, "validation": 5, "test": 5}


def test_copies_of_one_picture_count_once():
    # As before there were groups: 11 units, 5.5, 2.75, 2.75, so 5, 3 and 3 of them.
    items = grouped([("", "")] * 20)
    groups = {item.name: "x" for item in items[:10]}
    result = assign(items, **HALVES, groups=groups)
    units = Counter(result[name] for name in set(joined(items, groups).values()))
    assert units == {"train": 5, "validation": 3, "test": 3}


def test_groups_of_one_image_change_nothing():
    items = grouped([("", "")] * 12)
    alone = grouped([(f"p{place}", "") for place in range(12)])
    assert assign(items, **HALVES, seed=3) == assign(alone, **HALVES, seed=3)


@given(st.lists(st.sampled_from("abc"), min_size=6, max_size=40), st.integers(0, 3))
def test_strata_within_one_and_totals_as_without(strata, seed):
    items = grouped([("", stratum) for stratum in strata])
    blind = assign(items, **HALVES, seed=seed, stratify=False)
    assert blind == assign(grouped([("", "")] * len(items)), **HALVES, seed=seed)
    result = assign(items, **HALVES, seed=seed)
    total = Counter(result.values())
    assert total == Counter(blind.values())
    for names in of(items, "stratum").values():
        there = Counter(result[name] for name in names)
        assert all(abs(there[split] - len(names) * total[split] / len(items)) <= 1 for split in total)


def test_folds_of_patients_test_every_image_once_and_balance_the_strata():
    # 12 patients of 3 images, 4 of them malignant: each of 4 folds tests 1 malignant and 2 benign patients.
    items = grouped([(f"p{patient}", "malignant" if patient < 4 else "benign") for patient in range(12)] * 3)
    shares = {"by": "image", "train": 0.7, "validation": 0.15, "test": 0.15, "seed": 1}
    tested = Counter()
    for part in range(1, 5):
        result = assign(items, **shares, fold=f"{part}/4")
        test = {item.name for item in items if result[item.name] == "test"}
        assert Counter(item.stratum for item in items if item.name in test) == {"malignant": 3, "benign": 6}
        assert all(len({result[name] for name in names}) == 1 for names in of(items, "group").values())
        # 9 other patients, 9 * 0.15 / 0.85 = 1.6: 2 of them.
        assert Counter(result.values()) == {"train": 21, "validation": 6, "test": 9}
        tested.update(test)
    assert tested == {item.name: 1 for item in items}


def test_folds_without_a_test_split_validate_every_image_once():
    items = grouped([("", "")] * 10)
    validated = Counter()
    for part in (1, 2, 3):
        result = assign(items, by="image", train=0.8, validation=0.2, fold=f"{part}/3", seed=5)
        assert set(result.values()) == {"train", "validation"}
        validated.update(name for name, one in result.items() if one == "validation")
    assert validated == {item.name: 1 for item in items}
    # The fractions count for nothing here.
    assert assign(items, by="image", train=0.5, validation=0.3, fold="3/3", seed=5) == result


def test_too_few_groups():
    with pytest.raises(InputError, match=r"^2 groups of images \(of 9 files\) cannot be divided among train, val"):
        assign(grouped([("p", "")] * 4 + [("q", "")] * 5), **HALVES)
    with pytest.raises(InputError, match=r"split\.fold is 1/3, but there are 2 groups of images \(of 9 files\): at"):
        assign(grouped([("p", "")] * 4 + [("q", "")] * 5), **HALVES, fold="1/3")
