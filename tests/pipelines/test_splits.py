"""Splits: disjoint, complete, far enough apart, and the same for the same seed."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.sample import Item
from pipelines.splits import assign, check_duplicates


def load():
    raise AssertionError("a split needs no pixels")


def single(count):
    return [Item(name=f"cell{i:03d}", load=load) for i in range(count)]


def frames(source, numbers):
    return [Item(name=f"{source}/t{i:03d}", load=load, source=source, frame=i) for i in numbers]


def taken(result, split):
    return [name for name, one in result.items() if one == split]


THIRDS = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.integers(0, 8)).map(
    lambda parts: [part / sum(parts) for part in parts[:3]]
)


# By image


@given(count=st.integers(3, 60), fractions=THIRDS, seed=st.integers(0, 5))
def test_by_image_counts_are_within_one_of_the_fractions_or_the_least(count, fractions, seed):
    train, validation, test = fractions
    items = single(count)
    result = assign(items, by="image", train=train, validation=validation, test=test, seed=seed)
    assert list(result) == [item.name for item in items]
    counts = Counter(result.values())
    # Two splits may each have taken one image from the largest, so that they are not empty.
    assert all(
        abs(counts[name] - count * one) < 3
        for name, one in zip(("train", "validation", "test"), fractions, strict=True)
    )
    assert min(counts["train"], counts["validation"], counts["test"]) >= 1
    shuffled = random.Random(seed).sample(items, len(items))
    assert assign(shuffled, by="image", train=train, validation=validation, test=test, seed=seed) == result


def test_by_image_largest_remainder():
    # 10 * (0.55, 0.25, 0.2) = 5.5, 2.5, 2: one image is left after 5 + 2 + 2, the tie goes to the first.
    result = assign(single(10), by="image", train=0.55, validation=0.25, test=0.2)
    assert Counter(result.values()) == {"train": 6, "validation": 2, "test": 2}


def test_by_image_leaves_out_what_no_fraction_takes():
    result = assign(single(10), by="image", train=0.3, validation=0.1, test=0.1)
    assert Counter(result.values()) == {"train": 3, "validation": 1, "test": 1, None: 5}


def test_by_image_small_fractions_get_one_image_each():
    result = assign(single(4), by="image", train=0.98, validation=0.01, test=0.01)
    assert Counter(result.values()) == {"train": 2, "validation": 1, "test": 1}


def test_by_image_another_seed_draws_other_images():
    first, second = (assign(single(30), by="image", train=0.6, validation=0.2, test=0.2, seed=s) for s in (0, 1))
    assert taken(first, "test") != taken(second, "test")


def test_a_test_split_may_be_left_away():
    result = assign(single(4), by="image", train=0.5, validation=0.5)
    assert Counter(result.values()) == {"train": 2, "validation": 2}


@given(st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=30), st.integers(0, 3))
def test_by_image_duplicates_stay_together(contents, seed):
    items = single(len(contents))
    groups = {item.name: content for item, content in zip(items, contents, strict=True)}
    if len(set(contents)) < 3:
        with pytest.raises(InputError, match=rf"different images \(of {len(items)} files\) cannot be divided"):
            assign(items, by="image", train=0.5, validation=0.25, test=0.25, seed=seed, groups=groups)
        return
    result = assign(items, by="image", train=0.5, validation=0.25, test=0.25, seed=seed, groups=groups)
    check_duplicates(result, groups)
    assert all(len({result[n] for n, c in groups.items() if c == content}) == 1 for content in contents)


def test_groups_without_duplicates_change_nothing():
    items = single(12)
    fractions = {"by": "image", "train": 0.5, "validation": 0.25, "test": 0.25}
    # Hashes that sort the other way round than the names.
    groups = {item.name: f"{99 - i}" for i, item in enumerate(items)}
    assert assign(items, groups=groups, **fractions) == assign(items, **fractions)


def test_by_image_refuses_to_tear_a_sequence():
    items = frames("01", range(3)) + frames("02", range(2)) + frames("03", range(4))
    fractions = {"by": "image", "train": 0.5, "validation": 0.25, "test": 0.25}
    with pytest.raises(
        InputError,
        match=r"split\.by is image, but 9 of 9 images are frames or slices of 3 sequences or stacks, for example "
        r"01/t000: .* nearly the same picture.*Use split\.by: block, or split\.by: sequence\.$",
    ):
        assign(items, **fractions)
    with pytest.raises(InputError, match=r"9 of 9 images .* of 1 sequence or stack, .*Use split\.by: block\.$"):
        assign(frames("01", range(9)), **fractions)
    with pytest.raises(InputError, match=r"Use split\.by: block\.$"):
        assign(frames("", range(9)), **fractions)
    with pytest.raises(
        InputError,
        match=r"split\.by is image, but 9 of 11 images are frames .*Put the 2 images without frame, for example "
        r"cell000, into a data set of their own, and use split\.by: block, or split\.by: sequence, for the others\.$",
    ):
        assign(items + single(2), **fractions)


def test_by_image_takes_sequences_of_one_frame_and_sequences_kept_whole_by_their_groups():
    fractions = {"by": "image", "train": 0.5, "validation": 0.25, "test": 0.25}
    items = [item for i in range(4) for item in frames(f"{i:02d}", [i])]
    assert Counter(assign(items, **fractions).values()) == {"train": 2, "validation": 1, "test": 1}
    items = [item for i in range(4) for item in frames(f"{i:02d}", range(3))] + single(4)
    groups = {item.name: f"source {item.source}" for item in items if item.frame is not None}
    result = assign(items, groups=groups, **fractions)
    assert all(len({result[f"{i:02d}/t{frame:03d}"] for frame in range(3)}) == 1 for i in range(4))
    with pytest.raises(InputError, match=r"2 different images .* cannot be divided .*Use split\.by: block"):
        assign(items[:6], groups=groups, **fractions)


# By sequence

THREE = frames("01", range(3)) + frames("02", range(2)) + frames("03", range(4))


@pytest.mark.parametrize(("train", "validation"), [("01", "02"), (1, 2), (["01"], [2])])
def test_by_sequence_names_as_text_or_number(train, validation):
    result = assign(THREE, by="sequence", train=train, validation=validation)
    assert [result[f"0{i}/t000"] for i in (1, 2, 3)] == ["train", "validation", None]


@given(st.integers(3, 12), st.integers(0, 5))
def test_by_sequence_fractions_never_divide_a_sequence(count, seed):
    items = [item for i in range(count) for item in frames(f"{i:02d}", range(3))]
    result = assign(items, by="sequence", train=0.5, validation=0.25, test=0.25, seed=seed)
    assert all(len({result[item.name] for item in items if item.source == f"{i:02d}"}) == 1 for i in range(count))
    assert set(result.values()) == {"train", "validation", "test"}


def test_by_sequence_bad_names():
    with pytest.raises(InputError, match=r"split\.test names the sequence '04'\. There are: 01, 02, 03"):
        assign(THREE, by="sequence", train="01", validation="02", test="04")
    with pytest.raises(InputError, match=r"Sequence 01 is in split\.train and in split\.validation"):
        assign(THREE, by="sequence", train=["01", "02"], validation=1)
    with pytest.raises(InputError, match=r"split\.validation is '02'; .*by: sequence, every part must be a fraction"):
        assign(THREE, by="sequence", train=0.5, validation="02")
    with pytest.raises(InputError, match=r"5 of 14 images belong to no sequence, for example cell000.*by: image"):
        assign(THREE + single(5), by="sequence", train="01", validation="02")
    with pytest.raises(InputError, match="2 sequences cannot be divided among train, validation, test.*by: block"):
        assign(THREE[:5], by="sequence", train=0.5, validation=0.25, test=0.25)


@pytest.mark.parametrize("count", [5, 7])
def test_by_sequence_folds_test_every_sequence_once(count):
    items = [item for i in range(count) for item in frames(f"{i:02d}", range(2))]
    shares = {"by": "sequence", "train": 0.7, "validation": 0.15, "test": 0.15, "seed": 2}
    tested = []
    for part in range(1, 6):
        result = assign(items, **shares, fold=f"{part}/5")
        assert all(result[f"{i:02d}/t000"] == result[f"{i:02d}/t001"] for i in range(count))
        assert len(taken(result, "validation")) == 2  # 6 * 0.15 / 0.85 = 1.06: one sequence
        assert None not in result.values()
        tested += taken(result, "test")
    assert sorted(tested) == [item.name for item in items]
    last = assign(items, **(shares | {"test": None}), fold="5/5")
    assert taken(last, "validation") == taken(result, "test")


def test_by_sequence_fold_errors():
    shares = {"by": "sequence", "train": 0.7, "validation": 0.15, "test": 0.15}
    with pytest.raises(
        InputError, match=r"split\.fold is 2/5, but there are 3 sequences: .* Use split\.by: block, take"
    ):
        assign(THREE, **shares, fold="2/5")
    with pytest.raises(InputError, match=r"split\.fold is 1/3, but split\.train is '01': .* must be fractions"):
        assign(THREE, by="sequence", train="01", validation="02", test="03", fold="1/3")


# For every way


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "blok"}, r"split\.by is 'blok'\. Did you mean 'block'\? Known: image, sequence, block, published, csv"),
        ({"by": "block", "fold": "4"}, r"split\.fold is '4'; a part and the number of parts were expected"),
        ({"by": "image", "gap": 5}, r"split\.gap is 5, but only split\.by: block"),
        ({"by": "block", "gap": -1}, r"split\.gap is -1"),
        ({"by": "image", "validation": 0}, r"split\.validation is 0: the split would be empty"),
        ({"by": "image", "train": 0.0}, r"split\.train is 0: the split would be empty"),
        ({"by": "image", "test": 1.2}, r"split\.test is 1\.2"),
        ({"by": "image", "test": float("nan")}, r"split\.test is nan"),
        ({"by": "image", "test": 0.5}, r"split\.train \+ split\.validation \+ split\.test = 1\.3"),
        ({"by": "image", "train": "0-5"}, r"split\.train is '0-5'; with split\.by: image, every part must be a frac"),
        ({"by": "image", "train": True}, r"split\.train is True"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        assign(THREE, **({"train": 0.6, "validation": 0.2, "test": 0.2} | options))


def test_an_empty_split_is_named_with_its_key():
    with pytest.raises(InputError, match=r"The split 'validation' is empty: split\.validation = '50-60' .* 9 images"):
        assign(THREE, by="block", train="0-1", validation="50-60")
    with pytest.raises(InputError, match="2 images cannot be divided among train, validation, test"):
        assign(single(2), by="image", train=0.6, validation=0.2, test=0.2)
    with pytest.raises(InputError, match="no images to split"):
        assign([], by="image", train=0.6, validation=0.2)


def test_the_draws_of_a_seed_stay_what_they_were():
    # Golden: drawn by the first version that had splits.
    result = assign(single(10), by="image", train=0.6, validation=0.2, test=0.2, seed=3)
    assert "".join(one[:2] for one in result.values()) == "trtrtrtetrvatrvatetr"


def test_two_items_of_one_name_are_refused():
    twice = [Item(name="x", load=load, files=(Path(folder) / "x.tif",)) for folder in "ab"]
    with pytest.raises(InputError, match=r"Two images are called 'x': a/x\.tif and b/x\.tif\. Rename one"):
        assign([*single(5), *twice], by="image", train=0.6, validation=0.2)
    with pytest.raises(InputError, match=r"Two images are called 'cell000'\. Rename one"):
        assign(single(5) + single(1), by="image", train=0.6, validation=0.2)


def test_duplicates_across_splits_are_named():
    splits = {"a": "train", "b": "test", "c": "train", "d": None, "e": "validation"}
    check_duplicates(splits, {"a": "1", "c": "1", "b": "2", "d": "2", "e": "3"})
    with pytest.raises(InputError, match=r"two splits: a \(train\) = b \(test\); c \(train\) = e \(validation\)"):
        check_duplicates(splits, {"a": "1", "b": "1", "c": "2", "e": "2", "d": "1"})
