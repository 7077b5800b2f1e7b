"""Splits: disjoint, complete, far enough apart, and the same for the same seed."""

import random
from collections import Counter

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


# By block


def test_by_block_ranges_hold_both_ends_and_leave_the_gap_out():
    result = assign(frames("01", range(200)), by="block", train="0-139", validation="145-159", test="165-199", gap=5)
    assert Counter(result.values()) == {"train": 140, "validation": 15, "test": 35, None: 10}
    edges = {139: "train", 140: None, 144: None, 145: "validation", 159: "validation", 160: None, 165: "test"}
    assert {frame: result[f"01/t{frame}"] for frame in edges} == edges


def test_by_block_lists_of_ranges_in_every_sequence():
    items = frames("01", range(8)) + frames("02", range(8))
    result = assign(items, by="block", train=["0-1", "6-7"], validation=[3, "4"])
    for source in ("01", "02"):
        splits = [result[f"{source}/t{i:03d}"] for i in range(8)]
        assert splits == ["train", "train", None, "validation", "validation", None, "train", "train"]


@given(
    numbers=st.lists(st.integers(0, 99), min_size=3, max_size=60, unique=True),
    fractions=THIRDS,
    gap=st.integers(0, 6),
)
def test_by_block_fractions_are_in_order_with_the_gap_between(numbers, fractions, gap):
    train, validation, test = fractions
    try:
        result = assign(frames("01", numbers), by="block", train=train, validation=validation, test=test, gap=gap)
    except InputError as error:
        assert "cannot be cut" in str(error)
        # Rightly: even blocks of one frame each, as early as the gap allows, do not fit.
        first = min(numbers)
        second = min((one for one in numbers if one > first + gap), default=None)
        assert second is None or max(numbers) <= second + gap
        return
    found = {name: sorted(int(one[-3:]) for one in taken(result, name)) for name in ("train", "validation", "test")}
    assert found["validation"][0] - found["train"][-1] > gap
    assert found["test"][0] - found["validation"][-1] > gap
    # No frame is left out inside a block.
    assert all(len(one) == sum(one[0] <= number <= one[-1] for number in numbers) for one in found.values())


@given(st.lists(st.integers(1, 9), min_size=9, max_size=60), THIRDS, st.data())
def test_by_block_frames_further_apart_than_the_gap_are_all_used(steps, fractions, data):
    numbers = [sum(steps[:i]) for i in range(len(steps))]
    gap = data.draw(st.integers(0, min(steps[:-1]) - 1))
    train, validation, test = fractions
    total = train + validation + test
    items = frames("01", numbers)
    result = assign(items, by="block", train=train / total, validation=validation / total, test=test / total, gap=gap)
    counts = Counter(result.values())
    assert counts[None] == 0
    # Two splits may each have taken one frame from the largest, so that they are not empty.
    assert all(
        abs(counts[name] - len(items) * one / total) < 3
        for name, one in zip(("train", "validation", "test"), fractions, strict=True)
    )


def test_by_block_counts_the_frames_that_are_there_and_not_the_time_between():
    # Ten frames with truth, eight of them early: by time, train 0-119 would take 8 and validation none.
    numbers = [0, 7, 14, 21, 28, 35, 42, 49, 150, 199]
    result = assign(frames("01", numbers), by="block", train=0.6, validation=0.2, test=0.2, gap=5)
    assert list(result.values()) == ["train"] * 6 + ["validation"] * 2 + ["test"] * 2


def test_by_block_a_pair_of_frames_is_enough_for_two_blocks():
    items = frames("01", (0, 50)) + frames("02", (3, 9)) + frames("03", (1, 90))
    result = assign(items, by="block", train=0.5, validation=0.5, gap=5)
    assert list(result.values()) == ["train", "validation"] * 3


def test_by_block_frames_beside_a_hole_are_not_lost():
    # 4 + 1 + 1 and 3 + 1 + 1 do not fit with the gap; 2 + 1 + 1 do, at 0, 20 and 40, and leave 21 and 41 to take.
    result = assign(frames("01", (0, 1, 20, 21, 40, 41)), by="block", train=0.6, validation=0.2, test=0.2, gap=5)
    assert list(result.values()) == ["train", "train", "validation", "validation", "test", "test"]


def test_by_block_the_rest_of_the_fractions_is_left_out_at_the_end():
    # 12 frames less 2 gaps of 1 are 10: 5, 2, 1 and a rest of 2.
    result = assign(frames("01", range(12)), by="block", train=0.5, validation=0.2, test=0.1, gap=1)
    assert list(result.values()) == [*["train"] * 5, None, *["validation"] * 2, None, "test", None, None]


def test_by_block_fractions_of_each_sequence():
    # 01: 23 frames less 2 gaps of 4 are 15: 9, 3, 3. 02: 18 less 8 are 10: 6, 2, 2.
    items = frames("01", range(23)) + frames("02", range(100, 118))
    result = assign(items, by="block", train=0.6, validation=0.2, test=0.2, gap=4)
    assert taken(result, "train") == [f"01/t{i:03d}" for i in range(9)] + [f"02/t{i}" for i in range(100, 106)]
    assert taken(result, "validation") == ["01/t013", "01/t014", "01/t015", "02/t110", "02/t111"]
    assert taken(result, "test") == ["01/t020", "01/t021", "01/t022", "02/t116", "02/t117"]


def test_by_block_errors():
    items = frames("01", range(200))
    with pytest.raises(InputError, match=r"split\.train 0-139 and split\.validation 139-159 overlap"):
        assign(items, by="block", train="0-139", validation="139-159")
    with pytest.raises(InputError, match=r"145-159 lie 5 frames, but split\.gap is 6\. Start at 146"):
        assign(items, by="block", train="0-139", validation="145-159", gap=6)
    with pytest.raises(InputError, match=r"split\.validation: '159-145' is no range.*0-139"):
        assign(items, by="block", train="0-139", validation="159-145")
    with pytest.raises(InputError, match=r"split\.train: 'all' is no range"):
        assign(items, by="block", train="all", validation="159")
    with pytest.raises(InputError, match=r"5 of 5 images have no frame number, for example cell000.*by: image"):
        assign(single(5), by="block", train=0.5, validation=0.5)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            frames("02", range(10)),
            r"The 10 frames of sequence '02' \(0 to 9\) cannot be cut into 3 blocks \(train, validation, test\) with "
            r"4 frames between them\. Use a smaller split\.gap, or no split\.test, or ranges of frames such as 0-139",
        ),
        (
            [item for source in ("01", "02", "03") for item in frames(source, (0, 40))],
            r"The 2 frames of sequence '01' \(0 to 40\) cannot be cut into 3 .*Use split\.by: sequence \(each of the "
            r"3 sequences goes to one split\), or a smaller split\.gap",
        ),
        ([item for item in frames("", (0, 40))], r"The 2 frames \(0 to 40\) cannot be cut into 3 blocks"),
    ],
)
def test_by_block_too_few_frames(items, message):
    with pytest.raises(InputError, match=message):
        assign(items, by="block", train=0.6, validation=0.2, test=0.2, gap=4)


# For every way


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "blok"}, r"split\.by is 'blok'\. Did you mean 'block'\? Known: image, sequence, block"),
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


def test_duplicates_across_splits_are_named():
    splits = {"a": "train", "b": "test", "c": "train", "d": None, "e": "validation"}
    check_duplicates(splits, {"a": "1", "c": "1", "b": "2", "d": "2", "e": "3"})
    with pytest.raises(InputError, match=r"two splits: a \(train\) = b \(test\); c \(train\) = e \(validation\)"):
        check_duplicates(splits, {"a": "1", "b": "1", "c": "2", "e": "2", "d": "1"})
