"""Published: the test split stays what it was, and validation comes out of the training part."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.sample import Item
from pipelines.splits import assign

# What a YAML file says that says nothing.
DEFAULTS = {"by": "published", "train": 0.7, "validation": 0.15, "test": 0.15}


def load():
    raise AssertionError("a split needs no pixels")


def published(source, number, part, **more):
    return [
        Item(name=f"{source}_{i:02d}", load=load, source=source, published=part, **more) for i in range(1, number + 1)
    ]


def stack(source, number, part):
    return [Item(name=f"{source}/z{i}", load=load, source=source, frame=i, published=part) for i in range(number)]


GLANDS = published("train", 20, "train") + published("testA", 6, "test") + published("testB", 3, "test")


def of(items, result):
    return Counter((item.source, result[item.name]) for item in items)


@pytest.mark.parametrize("test", [None, 0.15, 1.0])
def test_fractions_take_validation_alone(test):
    # 20 * 0.15 = 3; the train fraction, 0.7 of 20 = 14, is not asked.
    result = assign(GLANDS, **(DEFAULTS | {"test": test}))
    assert of(GLANDS, result) == {
        ("train", "train"): 17,
        ("train", "validation"): 3,
        ("testA", "test"): 6,
        ("testB", "test"): 3,
    }


def test_train_and_validation_may_be_more_than_one():
    result = assign(GLANDS, **(DEFAULTS | {"validation": 0.5}))
    assert of(GLANDS, result)["train", "validation"] == 10


@pytest.mark.parametrize("test", ["testA", ["testA"]])
def test_named_sources_alone_are_tested(test):
    result = assign(GLANDS, **(DEFAULTS | {"test": test}))
    assert of(GLANDS, result)["testA", "test"] == 6
    assert of(GLANDS, result)["testB", None] == 3


def test_named_sources_alone_are_trained_on():
    items = GLANDS + published("more", 10, "train")
    result = assign(items, **(DEFAULTS | {"train": ["more"]}))
    assert of(items, result)["train", None] == 20
    assert of(items, result)["more", "train"] + of(items, result)["more", "validation"] == 10


@given(st.integers(0, 5))
def test_validation_is_stratified_and_tears_no_group(seed):
    items = [
        Item(name=f"{i:02d}", load=load, published="train", group=f"patient {i % 8}", stratum="ab"[i % 2])
        for i in range(32)
    ]
    items += published("test", 2, "test")
    result = assign(items, **(DEFAULTS | {"validation": 0.25, "seed": seed}))
    # Eight patients of 4 images: two of them, one of each stratum.
    validated = [item for item in items if result[item.name] == "validation"]
    assert Counter(item.stratum for item in validated) == {"a": 4, "b": 4}
    assert len({item.group for item in validated}) == 2
    blind = assign(items, **(DEFAULTS | {"validation": 0.25, "seed": 0, "stratify": False}))
    assert Counter(blind.values()) == {"train": 24, "validation": 8, "test": 2}


def test_a_group_in_both_published_parts_stays_in_both():
    items = published("train", 6, "train", group="p") + published("more", 6, "train", group="q")
    items += published("test", 3, "test", group="p")
    assert of(items, assign(items, **DEFAULTS))["test", "test"] == 3


def test_copies_stay_together():
    groups = {item.name: "copy" for item in GLANDS[:10]}
    for seed in range(5):
        result = assign(GLANDS, **DEFAULTS, groups=groups, seed=seed)
        assert len({result[name] for name in groups}) == 1


def test_stacks_give_their_end_with_the_gap():
    # 24 slices less a gap of 2 are 22: 0.85 of them are 18.7, so 19, and 3 at the end.
    items = stack("training", 24, "train") + stack("testing", 24, "test")
    result = assign(items, **DEFAULTS, gap=2)
    assert list(result.values()) == ["train"] * 19 + [None] * 2 + ["validation"] * 3 + ["test"] * 24


def test_every_fold_validates_another_part_of_the_training_images():
    validated = Counter()
    for part in range(1, 6):
        result = assign(GLANDS, **DEFAULTS, fold=f"{part}/5")
        assert of(GLANDS, result)["testA", "test"] == 6 and of(GLANDS, result)["testB", "test"] == 3
        validated.update(name for name, one in result.items() if one == "validation")
    assert validated == {f"train_{i:02d}": 1 for i in range(1, 21)}


def test_folds_of_stacks_are_blocks_with_the_gap():
    items = stack("training", 9, "train") + stack("testing", 2, "test")
    result = assign(items, **DEFAULTS, fold="2/3", gap=1)
    assert list(result.values()) == [
        *["train"] * 2,
        None,
        *["validation"] * 3,
        None,
        *["train"] * 2,
        *["test"] * 2,
    ]


TRAIN, TEST = published("train", 4, "train"), published("testA", 2, "test")


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        (published("a", 3, ""), {}, r"says of none of its 3 images what it is for\. Use split\.by: image"),
        (TRAIN, {}, r"none of the 4 images is published as test\. Use split\.by: image, or split\.by: block"),
        (TEST, {}, r"none of the 2 images is published as train"),
        (TRAIN + TEST + published("a", 1, ""), {}, r"1 of 7 images are published neither .* for example a_01\..*csv"),
        (TRAIN + TEST, {"gap": 3}, r"split\.gap is 3, but no image has a frame number"),
        (TRAIN + TEST, {"validation": 1.0}, r"split\.validation is 1: .* none would be left to train on"),
        (TRAIN + TEST, {"validation": 0.0}, r"split\.validation is 0: the split would be empty"),
        (TRAIN + TEST, {"validation": "train"}, r"split\.validation is 'train'; with split\.by: published, a fraction"),
        (TRAIN + TEST, {"train": 1.5}, r"split\.train is 1\.5"),
        (TRAIN + TEST, {"test": ["testC"]}, r"split\.test names the sequence 'testC'\. There are: testA\."),
        (TRAIN + TEST, {"train": ["testA"]}, r"split\.train names the sequence 'testA'\. There are: train\."),
        (TRAIN + TEST, {"test": []}, r"split\.test is an empty list\. Name some of testA, or remove it"),
        (TRAIN + TEST, {"test": True}, r"split\.test is True; names of sources"),
        (TRAIN + published("", 2, "test"), {"test": "x"}, r"split\.test names 'x', but .* have no sources to choose"),
        (TRAIN[:1] + TEST, {}, r"1 images cannot be divided among train, validation: at least one for each"),
        (TRAIN + TEST, {"fold": "1/5"}, r"split\.fold is 1/5, but there are 4 images: at least one for each of the 5"),
        (
            stack("training", 4, "train") + TEST,
            {"gap": 3},
            r"The 4 frames of sequence 'training' \(0 to 3\) cannot be cut into 2 blocks \(train, validation\) with "
            r"3 frames between them\. Use a smaller split\.gap, or split\.by: csv",
        ),
    ],
)
def test_errors(items, options, message):
    with pytest.raises(InputError, match=message):
        assign(items, **(DEFAULTS | options))
