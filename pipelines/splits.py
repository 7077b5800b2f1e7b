"""Leak-free splits: which image is for training, which for validation, which for the test.

Neighbouring frames of a sequence are nearly one picture, so sequences are split whole or in blocks with a gap. What
the images are is known by `pipelines.sources`.
"""

import difflib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from pipelines.errors import InputError
from pipelines.sample import Item

SPLITS = ("train", "validation", "test")
BY = ("image", "sequence", "block")
RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")

# A fraction; or names of sequences, or ranges of frames, one or a list of them.
Part = float | int | str | Sequence[int | str]


def assign(
    items: Sequence[Item],
    *,
    by: str,
    train: Part,
    validation: Part,
    test: Part | None = None,
    gap: int = 0,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
) -> dict[str, str | None]:
    """Split of each item.

    Args:
        items: What a source found.
        by: "image" draws single images; "sequence" keeps the items of one source together; "block" cuts every
            sequence in the order of its frame numbers.
        train, validation, test: Fractions above 0 that add up to at most 1 (the rest is left out); or, by sequence,
            names of sources ("01" and 1 are the same); or, by block, ranges of frames with both ends ("0-139").
            `test` may be None, which makes no test split.
        gap: By block, least number of frame numbers between neighbouring blocks, whether there are images of that
            number or not. With fractions, frames that lie there are left out, and the fractions count the frames
            that remain; ranges must leave the gap.
        seed: Draws the images or sequences of the fractions.
        groups: By image, item name -> hash of its content: items of one hash go to one split. The fractions then
            count groups. By image, the items of a source with several frames must be in one group.

    Returns:
        Item name -> "train", "validation", "test" or None (left out), in the order of `items`. The same for every
        order of `items`. No split is empty.

    Raises:
        InputError: An unknown `by`, wrong fractions, names or ranges, overlapping blocks, a gap that is too small,
            a sequence with too few frames for its blocks or torn by image, or a split without images.
    """
    if by not in BY:
        near = difflib.get_close_matches(str(by), BY, 1, 0.0)[0]
        raise InputError(f"split.by is '{by}'. Did you mean '{near}'? Known: {', '.join(BY)}.")
    if not items:
        raise InputError("There are no images to split.")
    if gap and by != "block":
        raise InputError(f"split.gap is {gap}, but only split.by: block leaves a gap. Remove it, or split by block.")
    if gap < 0:
        raise InputError(f"split.gap is {gap}; a number of frames, 0 or more, was expected.")
    parts = {"train": train, "validation": validation} | ({} if test is None else {"test": test})
    fractions = _fractions(parts, by)
    if by == "image" and fractions is not None:
        split = _by_image(items, fractions, seed, groups or {})
    elif by == "sequence":
        split = _by_sequence(items, parts, fractions, seed)
    else:
        split = _by_block(items, parts, fractions, gap)
    result = {item.name: split[item.name] for item in items}
    for name in parts:
        if name not in result.values():
            raise InputError(
                f"The split '{name}' is empty: split.{name} = {parts[name]!r} takes none of the {len(items)} images "
                f"(by: {by}). Change split.{name}."
            )
    return result


def check_duplicates(splits: Mapping[str, str | None], hashes: Mapping[str, str]) -> None:
    """Raise InputError if one content lies in two splits: its score would be that of a picture learnt by heart.

    Args:
        splits: Item name -> split; None is left out and counts nowhere.
        hashes: Item name -> hash of the image's content.
    """
    first: dict[str, dict[str, str]] = {}
    for name, split in splits.items():
        if split is not None and name in hashes:
            first.setdefault(hashes[name], {}).setdefault(split, name)
    pairs = [
        f"{one} ({there}) = {other} ({here})"
        for places in first.values()
        for (there, one), (here, other) in pairwise(places.items())
    ]
    if pairs:
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        raise InputError(
            f"The same picture lies in two splits: {'; '.join(pairs[:5])}{more}. Remove the copies, or move them to "
            "one split."
        )


def _fractions(parts: Mapping[str, Part], by: str) -> dict[str, float] | None:
    """The parts if they are fractions, None if they are names or ranges."""
    numbers = {name: not isinstance(part, bool) and isinstance(part, float) for name, part in parts.items()}
    if by == "image":
        # A whole number can mean nothing else here.
        numbers = {name: number or type(parts[name]) is int for name, number in numbers.items()}
    if not any(numbers.values()) and by != "image":
        return None
    if not all(numbers.values()):
        odd = next(name for name, number in numbers.items() if not number)
        other = {
            "image": "",
            "sequence": " (or all of them names of sequences)",
            "block": " (or all of them ranges such as 0-139)",
        }[by]
        raise InputError(
            f"split.{odd} is {parts[odd]!r}; with split.by: {by}, every part must be a fraction such as 0.2{other}."
        )
    fractions = {name: float(part) for name, part in parts.items() if isinstance(part, float | int)}
    for name, fraction in fractions.items():
        if not 0 < fraction <= 1:
            raise InputError(
                f"split.{name} is {fraction:g}: the split would be empty or more than everything. A fraction above 0 "
                "and at most 1 was expected."
            )
    if sum(fractions.values()) > 1 + 1e-9:
        raise InputError(
            f"{' + '.join(f'split.{name}' for name in parts)} = {sum(fractions.values()):.4g}; at most 1 was expected."
        )
    return fractions


def _counts(total: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Largest remainder: whole numbers nearest to the fractions of `total`, each at least 1."""
    quotas = {name: total * fraction for name, fraction in fractions.items()}
    rest = total - sum(quotas.values())
    if rest > 1e-6:
        quotas[""] = rest
    counts = {name: int(quota + 1e-9) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    for name in fractions:
        if counts[name] == 0:
            # From whoever has most to spare: a split keeps one, what is left out need not.
            counts[max(counts, key=lambda other: counts[other] - (other in fractions))] -= 1
            counts[name] = 1
    return {name: counts[name] for name in fractions}


def _drawn(units: Sequence[str], fractions: Mapping[str, float], seed: int, what: str, framed: bool) -> dict[str, str]:
    if len(units) < len(fractions):
        raise InputError(
            f"{len(units)} {what} cannot be divided among {', '.join(fractions)}: at least one for each is needed. "
            f"{'Use split.by: block, remove' if framed else 'Remove'} a part from split, or add data."
        )
    counts = _counts(len(units), fractions)
    order = np.random.default_rng(seed).permutation(len(units))
    names = [name for name, count in counts.items() for _ in range(count)]
    return {units[index]: name for index, name in zip(order, names, strict=False)}


def _framed(items: Sequence[Item]) -> bool:
    return all(item.frame is not None for item in items)


def _by_image(
    items: Sequence[Item], fractions: Mapping[str, float], seed: int, groups: Mapping[str, str]
) -> dict[str, str | None]:
    # A group goes by its first name, so that without duplicates the hashes change nothing.
    leader: dict[str, str] = {}
    unit = {}
    for name in sorted(item.name for item in items):
        unit[name] = leader.setdefault(groups[name], name) if name in groups else name
    _check_not_torn(items, unit)
    what = "images" if len(set(unit.values())) == len(items) else f"different images (of {len(items)} files)"
    split = _drawn(sorted(set(unit.values())), fractions, seed, what, _framed(items))
    return {name: split.get(first) for name, first in unit.items()}


def _check_not_torn(items: Sequence[Item], unit: Mapping[str, str]) -> None:
    """Raise InputError if frames of one source are in different units, which are drawn one by one."""
    framed = [item for item in items if item.frame is not None]
    sources = {item.source for item in framed}
    if len({(item.source, unit[item.name]) for item in framed}) == len(sources):
        return
    single = [item.name for item in items if item.frame is None]
    what = f"{len(sources)} sequences or stacks" if len(sources) > 1 else "1 sequence or stack"
    use = "split.by: block" + (", or split.by: sequence" if len(sources) > 1 else "")
    if single:
        use = (
            f"Put the {len(single)} images without frame, for example {single[0]}, into a data set of their own, and "
            f"use {use}, for the others."
        )
    else:
        use = f"Use {use}."
    raise InputError(
        f"split.by is image, but {len(framed)} of {len(items)} images are frames or slices of {what}, for example "
        f"{framed[0].name}: neighbouring ones are nearly the same picture, and must not lie in two splits. {use}"
    )


def _by_sequence(
    items: Sequence[Item], parts: Mapping[str, Part], fractions: Mapping[str, float] | None, seed: int
) -> dict[str, str | None]:
    alone = [item.name for item in items if not item.source]
    if alone:
        raise InputError(
            f"split.by is sequence, but {len(alone)} of {len(items)} images belong to no sequence, for example "
            f"{alone[0]}. Use split.by: image."
        )
    sources = sorted({item.source for item in items})
    if fractions is not None:
        split = _drawn(sources, fractions, seed, "sequences", _framed(items))
    else:
        split = {}
        for name, part in parts.items():
            for wanted in _listed(part):
                source = _source(wanted, sources, name)
                if split.setdefault(source, name) != name:
                    raise InputError(f"Sequence {source} is in split.{split[source]} and in split.{name}. Keep one.")
    return {item.name: split.get(item.source) for item in items}


def _listed(part: Part) -> list[int | str | float]:
    return [part] if isinstance(part, str | int | float) else list(part)


def _source(wanted: object, sources: Sequence[str], part: str) -> str:
    # YAML reads an unquoted 01 as the number 1.
    text = str(wanted)
    for source in sources:
        if source == text or (source.isdigit() and text.isdigit() and int(source) == int(text)):
            return source
    raise InputError(f"split.{part} names the sequence {wanted!r}. There are: {', '.join(sources)}.")


def _by_block(
    items: Sequence[Item], parts: Mapping[str, Part], fractions: Mapping[str, float] | None, gap: int
) -> dict[str, str | None]:
    unordered = [item.name for item in items if item.frame is None]
    if unordered:
        raise InputError(
            f"split.by is block, but {len(unordered)} of {len(items)} images have no frame number, for example "
            f"{unordered[0]}. Use split.by: image."
        )
    ranges = [] if fractions is not None else _ranges(parts, gap)
    split: dict[str, str | None] = {}
    sources = sorted({item.source for item in items})
    for source in sources:
        members = {item.name: item.frame for item in items if item.source == source and item.frame is not None}
        if fractions is not None:
            frames = sorted(set(members.values()))
            ranges = _cut(frames, fractions, gap)
            if not ranges:
                raise _too_few(frames, list(fractions), gap, source, len(sources))
        for member, frame in members.items():
            split[member] = next((name for first, last, name in ranges if first <= frame <= last), None)
    return split


def _ranges(parts: Mapping[str, Part], gap: int) -> list[tuple[int, int, str]]:
    """(first, last, split) in frame order, checked for overlaps and for the gap between different splits."""
    ranges = []
    for name, part in parts.items():
        for text in _listed(part):
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


def _cut(frames: Sequence[int], fractions: Mapping[str, float], gap: int) -> list[tuple[int, int, str]]:
    """Ranges that hold the fractions of the frames (sorted), in order, `gap` frame numbers apart; [] if impossible.

    As many frames as possible are divided by the fractions; only what must lie in a gap is left out.
    """
    for total in range(len(frames), len(fractions) - 1, -1):
        counts = _counts(total, fractions)
        rest = total - sum(counts.values())
        starts, end = [], -1
        for count in counts.values():
            starts.append(0 if end < 0 else bisect_right(frames, frames[end - 1] + gap))
            end = starts[-1] + count
            if end + rest > len(frames):
                break
        else:
            # Beside a hole in the numbers a block may grow without coming nearer to the next one.
            ends = [bisect_left(frames, frames[start] - gap) for start in starts[1:]]
            ends.append(end if rest else len(frames))
            return [
                (frames[start], frames[end - 1], name) for name, start, end in zip(counts, starts, ends, strict=True)
            ]
    return []


def _too_few(frames: Sequence[int], names: Sequence[str], gap: int, source: str, num_sources: int) -> InputError:
    of_sequence = f" of sequence '{source}'" if source else ""
    ways = ["ranges of frames such as 0-139 (a sequence need not have frames in all of them)"]
    if len(names) > 2:
        ways.insert(0, f"no split.{names[-1]}")
    if gap:
        ways.insert(0, "a smaller split.gap")
    if num_sources >= len(names):
        ways.insert(0, f"split.by: sequence (each of the {num_sources} sequences goes to one split)")
    return InputError(
        f"The {len(frames)} frames{of_sequence} ({frames[0]} to {frames[-1]}) cannot be cut into {len(names)} blocks "
        f"({', '.join(names)}) with {gap} frames between them. Use {', or '.join(ways)}."
    )
