"""Blocks: sequences cut in the order of their frames, by fractions, by ranges and in folds, far enough apart."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.sample import Item
from pipelines.splits import assign

SHARES = {"by": "block", "train": 0.7, "validation": 0.15, "test": 0.15}


def load():
    raise AssertionError("a split needs no pixels")


def frames(source, numbers):
    return [Item(name=f"{source}/t{i:03d}", load=load, source=source, frame=i) for i in numbers]


def taken(result, split):
    return [name for name, one in result.items() if one == split]


def letters(result):
    return "".join({"train": "T", "validation": "v", "test": "t", None: "-"}[one] for one in result.values())


THIRDS = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.integers(0, 8)).map(
    lambda parts: [part / sum(parts) for part in parts[:3]]
)


# By fractions and ranges


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
        assign([Item(name=f"cell{i:03d}", load=load) for i in range(5)], by="block", train=0.5, validation=0.5)


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


# Folds


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        # 12 frames in 4 blocks of 3; the test block is whole, and one frame beside it is left out.
        ("1/4", "ttt-vv-TTTTT"),
        ("2/4", "TT-ttt-vv-TT"),
        ("3/4", "TTTTT-ttt-vv"),
        ("4/4", "vvv-TTTT-ttt"),
    ],
)
def test_folds_by_hand(fold, expected):
    result = assign(frames("01", range(12)), **SHARES, fold=fold, gap=1)
    assert letters(result) == expected


def test_a_fold_without_a_test_split_validates_its_block():
    result = assign(frames("01", range(8)), by="block", train=0.8, validation=0.2, fold="2/4", gap=1)
    assert letters(result) == "T-vv-TTT"


@given(
    numbers=st.lists(st.integers(0, 99), min_size=12, max_size=60, unique=True),
    num=st.integers(3, 6),
    gap=st.integers(0, 4),
    tested=st.booleans(),
)
def test_folds_hold_every_frame_once_and_keep_the_gap(numbers, num, gap, tested):
    items = frames("01", sorted(numbers))
    shares = SHARES if tested else SHARES | {"test": None}
    held = Counter()
    for part in range(1, num + 1):
        try:
            result = assign(items, **shares, fold=f"{part}/{num}", gap=gap)
        except InputError as error:
            assert gap and "cannot be cut" in str(error)
            return
        found = [(item.frame, result[item.name]) for item in items if result[item.name]]
        assert all(abs(one - other) > gap for one, here in found for other, there in found if here != there)
        # Frames are left out beside others that are not.
        left_out = [item.frame for item in items if not result[item.name]]
        assert all(any(abs(frame - one) <= gap for one, _ in found) for frame in left_out)
        held.update(frame for frame, split in found if split == ("test" if tested else "validation"))
    assert held == dict.fromkeys(numbers, 1)


def test_folds_cut_each_sequence():
    items = frames("01", range(6)) + frames("02", range(100, 109))
    assert letters(assign(items, **SHARES, fold="1/3")) == "ttvvTT" + "tttvvvTTT"
    result = assign(items, **SHARES, fold="3/3")
    assert letters(result) == "vvTTtt" + "vvvTTTttt"


def test_fold_errors():
    items = frames("01", range(10))
    with pytest.raises(
        InputError,
        match=r"split\.fold is 1/12, but the 10 frames of sequence '01' \(0 to 9\) cannot be cut into 12 blocks "
        r"\(train, validation, test\) with 0 frames between them\. Use fewer parts, or no split\.fold",
    ):
        assign(items, **SHARES, fold="1/12")
    with pytest.raises(InputError, match=r"cut into 5 blocks .* with 2 frames .*Use a smaller split\.gap, or fewer"):
        assign(items, **SHARES, fold="1/5", gap=2)
    with pytest.raises(InputError, match=r"cut into 2 blocks .*Use at least 3 parts, as in 1/3"):
        assign(items, **SHARES, fold="1/2")
    with pytest.raises(
        InputError, match=r"split\.fold is 1/9, but the 8 frames .* cannot be cut into 9 blocks \(train, val"
    ):
        assign(items, by="block", train="0-4", validation="5-7", test="8-9", fold="1/9")
    with pytest.raises(
        InputError, match=r"cut into 2 blocks .* with 5 frames .*Use a smaller split\.gap, or fewer parts"
    ):
        assign(items, by="block", train="0-1", validation="5-6", fold="1/2", gap=5)


@pytest.mark.parametrize(
    ("fold", "gap", "expected"),
    [
        ("1/3", 1, "vvv-TTTTT-tt"),  # frames 0-8 in three blocks; 3 lies in the gap, 9 in no range
        ("2/3", 1, "TT-vvv-TT-tt"),
        ("3/3", 1, "TTTTT-vvv-tt"),
        ("3/3", 0, "TTTTTTvvv-tt"),
        ("3/3", 2, "TTTT--vv--tt"),  # the test stays whole, then validation
    ],
)
def test_a_fold_of_ranges_keeps_the_test(fold, gap, expected):
    parts = {"train": "0-5", "validation": "6-8", "test": "10-11"}
    result = assign(frames("01", range(12)), by="block", **parts, fold=fold, gap=gap)
    assert letters(result) == expected


def test_the_gap_beside_the_test_comes_off_what_lies_there():
    parts = {"train": "0-5", "validation": "6-8", "test": "9-11"}
    both = [assign(frames("01", range(12)), by="block", **parts, fold=fold, gap=1) for fold in ("1/3", "3/3")]
    assert list(map(letters, both)) == ["vvv-TTTT-ttt", "TTTTT-vv-ttt"]


def test_a_test_range_may_lie_between_the_blocks():
    result = assign(
        frames("01", range(12)), by="block", train=["0-3", "8-11"], validation=[], test="5-6", fold="2/4", gap=1
    )
    assert letters(result) == "T-vv-tt-TTTT"
