"""Leak-free splits: which image is for training, which for validation, which for the test.

Neighbouring frames of a sequence are nearly one picture, so sequences are split whole or in blocks with a gap. What
the images are is known by `pipelines.sources`.
"""

import difflib
import re
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
            sequence by frame number.
        train, validation, test: Fractions above 0 that add up to at most 1 (the rest is left out); or, by sequence,
            names of sources ("01" and 1 are the same); or, by block, ranges of frames with both ends ("0-139").
            `test` may be None, which makes no test split.
        gap: By block, frames left out between neighbouring blocks. With fractions they are taken out of the middle;
            ranges must leave them.
        seed: Draws the images or sequences of the fractions.
        groups: By image, item name -> hash of its content: items of one hash go to one split. The fractions then
            count groups.

    Returns:
        Item name -> "train", "validation", "test" or None (left out), in the order of `items`. The same for every
        order of `items`. No split is empty.

    Raises:
        InputError: An unknown `by`, wrong fractions, names or ranges, overlapping blocks, a gap that is too small, or
            a split without images.
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


def _counts(total: int, fractions: Mapping[str, float], what: str) -> dict[str, int]:
    """Largest remainder: whole numbers nearest to the fractions of `total`, each at least 1."""
    if total < len(fractions):
        raise InputError(
            f"{total} {what} cannot be divided among {', '.join(fractions)}: at least one for each is needed. "
            "Remove a part from split, or add data."
        )
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


def _drawn(units: Sequence[str], fractions: Mapping[str, float], seed: int, what: str) -> dict[str, str]:
    counts = _counts(len(units), fractions, what)
    order = np.random.default_rng(seed).permutation(len(units))
    names = [name for name, count in counts.items() for _ in range(count)]
    return {units[index]: name for index, name in zip(order, names, strict=False)}


def _by_image(
    items: Sequence[Item], fractions: Mapping[str, float], seed: int, groups: Mapping[str, str]
) -> dict[str, str | None]:
    # A group goes by its first name, so that without duplicates the hashes change nothing.
    leader: dict[str, str] = {}
    unit = {}
    for name in sorted(item.name for item in items):
        unit[name] = leader.setdefault(groups[name], name) if name in groups else name
    what = "images" if len(set(unit.values())) == len(items) else f"different images (of {len(items)} files)"
    split = _drawn(sorted(set(unit.values())), fractions, seed, what)
    return {name: split.get(first) for name, first in unit.items()}


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
        split = _drawn(sources, fractions, seed, "sequences")
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
    for source in sorted({item.source for item in items}):
        members = {item.name: item.frame for item in items if item.source == source and item.frame is not None}
        if fractions is not None:
            ranges = _cut(list(members.values()), fractions, gap, source)
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


def _cut(frames: Sequence[int], fractions: Mapping[str, float], gap: int, source: str) -> list[tuple[int, int, str]]:
    """Ranges that are the fractions of the time that the frames span, in order, `gap` frames apart."""
    position, end = min(frames), max(frames)
    span = end - position + 1 - gap * (len(fractions) - 1)
    what = f"frames ({min(frames)}-{end} of sequence '{source}', less the gaps of {gap})"
    ranges = []
    for name, count in _counts(max(span, 0), fractions, what).items():
        ranges.append((position, position + count - 1, name))
        position += count + gap
    return ranges
