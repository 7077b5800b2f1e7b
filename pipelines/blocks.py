"""Blocks: a sequence or stack cut in the order of its frame numbers, with a gap between different splits.

Which images are cut, and what the parts are, is decided in `pipelines.splits` and `pipelines.published`.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from pipelines.drawing import Fold, counts
from pipelines.errors import InputError
from pipelines.parts import Part, listed
from pipelines.sample import Item

RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")

# First and last frame, both in the block, and its split.
Block = tuple[int, int, str]


def by_block(
    items: Sequence[Item],
    parts: Mapping[str, Part],
    fractions: Mapping[str, float] | None,
    *,
    gap: int,
    fold: Fold | None = None,
) -> dict[str, str | None]:
    """Split of each item, cut by block; the arguments are those of `pipelines.splits.assign`."""
    unordered = [item.name for item in items if item.frame is None]
    if unordered:
        raise InputError(
            f"split.by is block, but {len(unordered)} of {len(items)} images have no frame number, for example "
            f"{unordered[0]}. Use split.by: image."
        )
    if fractions is None:
        if fold is not None:
            return _fold_ranges(items, _ranges(parts, 0), fold, gap)
        ranges = _ranges(parts, gap)
        return {name: _split_of(frame, ranges) for _, members in _sequences(items) for name, frame in members.items()}
    num_sources = len({item.source for item in items})
    ways = ["ranges of frames such as 0-139 (a sequence need not have frames in all of them)"]
    if len(fractions) > 2:
        ways.insert(0, f"no split.{list(fractions)[-1]}")
    if gap:
        ways.insert(0, "a smaller split.gap")
    if num_sources >= len(fractions):
        ways.insert(0, f"split.by: sequence (each of the {num_sources} sequences goes to one split)")
    return cut_sequences(items, fractions, gap=gap, fold=fold, ways=ways)


def cut_sequences(
    items: Sequence[Item],
    fractions: Mapping[str, float],
    *,
    gap: int,
    fold: Fold | None,
    ways: Sequence[str],
) -> dict[str, str | None]:
    """Split of each item (all with frame numbers): every sequence cut into one block for each fraction, in order.

    With a fold, every sequence is cut into equal blocks, as many as it has parts. Its part is the test block and the
    next one, or else the first, the validation block; where no test split is wanted, the part is the validation
    block. The others train. The test block stays whole: the gap comes off validation, or off train.

    Args:
        items: Of one or several sequences (`Item.source`).
        fractions: Of the splits, in the order of the blocks.
        gap: Least number of frame numbers between different splits.
        fold: Or None.
        ways: Ways out to offer, without a fold, for a sequence that has too few frames.

    Raises:
        InputError: A sequence has too few frames.
    """
    split: dict[str, str | None] = {}
    for source, members in _sequences(items):
        frames = sorted(set(members.values()))
        blocks = _fold_blocks(frames, fold, "test" in fractions, gap) if fold else _cut(frames, fractions, gap)
        if {name for _, _, name in blocks} != set(fractions):
            raise _too_few(frames, list(fractions), gap, fold, source, ways)
        split |= {name: _split_of(frame, blocks) for name, frame in members.items()}
    return split


def _sequences(items: Sequence[Item]) -> Iterator[tuple[str, dict[str, int]]]:
    """Each source with the frame numbers of its items."""
    for source in sorted({item.source for item in items}):
        yield source, {item.name: item.frame for item in items if item.source == source and item.frame is not None}


def _split_of(frame: int, blocks: Sequence[Block]) -> str | None:
    return next((name for first, last, name in blocks if first <= frame <= last), None)


def _ranges(parts: Mapping[str, Part], gap: int) -> list[Block]:
    """The ranges in frame order, checked for overlaps and for the gap between different splits."""
    ranges = []
    for name, part in parts.items():
        for text in listed(part):
            match = RANGE.fullmatch(str(text))
            if not match or int(match[2] or match[1]) < int(match[1]):
                raise InputError(f"split.{name}: {text!r} is no range of frames. Write it as 0-139, small end first.")
            ranges.append((int(match[1]), int(match[2] or match[1]), name))
    ranges.sort()
    for (first, last, name), (next_first, next_last, next_name) in pairwise(ranges):
        blocks = f"split.{name} {first}-{last} and split.{next_name} {next_first}-{next_last}"
        if next_first <= last:
            raise InputError(f"{blocks} overlap. Each frame may be in one block.")
        if name != next_name and next_first - last - 1 < gap:
            raise InputError(
                f"Between {blocks} lie {next_first - last - 1} frames, but split.gap is {gap}. "
                f"Start at {last + 1 + gap}, or lower the gap."
            )
    return ranges


def _cut(frames: Sequence[int], fractions: Mapping[str, float], gap: int) -> list[Block]:
    """Blocks that hold the fractions of the frames (sorted), in order, `gap` frame numbers apart; [] if impossible.

    As many frames as possible are divided by the fractions; only what must lie in a gap is left out.
    """
    for total in range(len(frames), len(fractions) - 1, -1):
        lengths = counts(total, fractions)
        rest = total - sum(lengths.values())
        starts, end = [], -1
        for length in lengths.values():
            starts.append(0 if end < 0 else bisect_right(frames, frames[end - 1] + gap))
            end = starts[-1] + length
            if end + rest > len(frames):
                break
        else:
            # Beside a hole in the numbers a block may grow without coming nearer to the next one.
            ends = [bisect_left(frames, frames[start] - gap) for start in starts[1:]]
            ends.append(end if rest else len(frames))
            return [
                (frames[start], frames[end - 1], name) for name, start, end in zip(lengths, starts, ends, strict=True)
            ]
    return []


def _fold_blocks(frames: Sequence[int], fold: Fold, tested: bool, gap: int) -> list[Block]:
    """The blocks of a fold without what must lie in a gap; one that has nothing left is not there."""
    if len(frames) < fold.num:
        return []
    edges = [len(frames) * place // fold.num for place in range(fold.num + 1)]
    special = {fold.part - 1: "test", fold.part % fold.num: "validation"} if tested else {fold.part - 1: "validation"}
    kept: list[Block] = []
    for place in [*special, *(place for place in range(fold.num) if place not in special)]:
        name = special.get(place, "train")
        left = [
            frame
            for frame in frames[edges[place] : edges[place + 1]]
            if all(name == other or not first - gap <= frame <= last + gap for first, last, other in kept)
        ]
        if left:
            kept.append((left[0], left[-1], name))
    return kept


def _fold_ranges(items: Sequence[Item], ranges: Sequence[Block], fold: Fold, gap: int) -> dict[str, str | None]:
    """Split of each item: the test ranges as they are, and of all other ranges the fold's block validates.

    The blocks are cut in every sequence. The gap comes off validation beside the test, and off train beside both.
    """
    split: dict[str, str | None] = {}
    for source, members in _sequences(items):
        of = {frame: _split_of(frame, ranges) for frame in set(members.values())}
        tested = [frame for frame, name in of.items() if name == "test"]
        pool = sorted(frame for frame, name in of.items() if name not in ("test", None))
        first, end = (len(pool) * place // fold.num for place in (fold.part - 1, fold.part))
        validation = _apart(pool[first:end], tested, gap)
        train = _apart(pool[:first] + pool[end:], [*tested, *validation], gap)
        if pool and (len(pool) < fold.num or not validation or not train):
            raise _too_few(pool, ["train", "validation"], gap, fold, source, ())
        named = dict.fromkeys(tested, "test") | dict.fromkeys(validation, "validation") | dict.fromkeys(train, "train")
        split |= {name: named.get(frame) for name, frame in members.items()}
    return split


def _apart(frames: Sequence[int], others: Sequence[int], gap: int) -> list[int]:
    """The frames that have `gap` frame numbers between them and each of the others."""
    return [frame for frame in frames if all(abs(frame - other) > gap for other in others)]


def _too_few(
    frames: Sequence[int], names: Sequence[str], gap: int, fold: Fold | None, source: str, ways: Sequence[str]
) -> InputError:
    if fold is None:
        what, offer = f"{len(names)} blocks", list(ways)
    elif fold.num < len(names):
        what, offer = f"{fold.num} blocks", [f"at least {len(names)} parts, as in 1/{len(names)}"]
    else:
        what, offer = f"{fold.num} blocks", (["a smaller split.gap"] if gap else []) + ["fewer parts", "no split.fold"]
    of_sequence = f" of sequence '{source}'" if source else ""
    return InputError(
        f"{'The' if fold is None else f'split.fold is {fold}, but the'} {len(frames)} frames{of_sequence} "
        f"({frames[0]} to {frames[-1]}) cannot be cut into {what} ({', '.join(names)}) with {gap} frames between them. "
        f"Use {', or '.join(offer)}."
    )
