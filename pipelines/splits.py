"""Leak-free splits: which image is for training, which for validation, which for the test.

Neighbouring frames of a sequence are nearly one picture, so sequences are split whole or in blocks with a gap. What
the images are is known by `pipelines.sources`. Each way to split has a room of its own: `pipelines.units` (by image),
`pipelines.blocks`, `pipelines.published`, `pipelines.split_table` (by a CSV).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pipelines.blocks import by_block
from pipelines.drawing import Fold, allot, read_fold
from pipelines.errors import InputError, nearest
from pipelines.parts import Part, fractions, named
from pipelines.published import by_published
from pipelines.sample import Item
from pipelines.split_table import by_table
from pipelines.split_table import read_table as read_table
from pipelines.units import by_image

BY = ("image", "sequence", "block", "published", "csv")


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
    fold: str | None = None,
    stratify: bool = True,
    table: Mapping[str, str] | None = None,
) -> dict[str, str | None]:
    """Split of each item.

    Args:
        items: What a source found. Their names differ.
        by: "image" draws single images; "sequence" keeps the items of one source together; "block" cuts every
            sequence in the order of its frame numbers; "published" keeps to `Item.published` and takes validation
            from the training part: by image, or from the end of every sequence or stack; "csv" looks names up in
            `table`.
        train, validation, test: Fractions above 0 that add up to at most 1 (the rest is left out); or, by sequence,
            names of sources ("01" and 1 are the same); or, by block, ranges of frames with both ends ("0-139").
            `test` may be None, which makes no test split.
            As published, `validation` is a fraction of the published training items, and train takes what it leaves;
            `train` and `test` may name the sources to take, the others are then left out. As fractions (or None)
            they count for nothing: all are taken. By csv, all three count for nothing, but that with a `test` of
            None the table need not have one.
        gap: By block and as published, least number of frame numbers between neighbouring blocks, whether there are
            images of that number or not. With fractions, frames that lie there are left out, and the fractions count
            the frames that remain; ranges must leave the gap.
        seed: Draws the images or sequences of the fractions, or of the parts of a fold.
        groups: By image and as published, item name -> hash of its content: items of one hash go to one split, as do
            items of one `Item.group`. The fractions count such units, or images where any item has a group. By
            image, the items of a source with several frames must be in one unit.
        fold: "2/5" divides the items into 5 equal parts, by image, sequence or block, and part 2 is the test split.
            Validation is its share of train + validation of the other parts; by block, the next part. Where no test
            split is wanted, and as published (where the parts are those of the training items), part 2 is the
            validation split; so it is by block with ranges, where the parts are those of the frames of train and
            validation together, and the test range stays. Nothing but a gap is left out.
        stratify: By image and as published: draw in proportion from each `Item.stratum`; see `pipelines.drawing`.
        table: By csv, item name -> "train", "validation", "test", or "" or "none" (left out), as `read_table` gives.

    Returns:
        Item name -> "train", "validation", "test" or None (left out), in the order of `items`. The same for every
        order of `items`. No split is empty.

    Raises:
        InputError: An unknown `by`, wrong fractions, names or ranges, overlapping blocks, a gap that is too small,
            a sequence with too few frames for its blocks or torn by image, a fold of more parts than there are
            images, a table that does not fit to the items, two items of one name, or a split without images.
    """
    _check_door(items, by, gap, fold, table)
    parts = {"train": train, "validation": validation} | ({} if test is None else {"test": test})
    part = None if fold is None else read_fold(fold)
    groups = groups or {}
    split: Mapping[str, str | None]
    if by == "csv":
        split = by_table(items, parts, table)
    elif by == "published":
        split = by_published(items, parts, gap=gap, seed=seed, groups=groups, fold=part, stratify=stratify)
    else:
        shares = fractions(parts, by)
        if part is not None and shares is None and by != "block":
            raise InputError(
                f"split.fold is {part}, but split.train is {train!r}: a fold divides the data itself, so train and "
                "validation must be fractions such as 0.7 and 0.15. Remove the names, or split.fold."
            )
        if by == "image" and shares is not None:
            split = by_image(items, shares, seed=seed, groups=groups, fold=part, stratify=stratify)
        elif by == "sequence":
            split = _by_sequence(items, parts, shares, seed, part)
        else:
            split = by_block(items, parts, shares, gap=gap, fold=part)
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


def _check_door(items: Sequence[Item], by: str, gap: int, fold: str | None, table: Mapping[str, str] | None) -> None:
    """Raise InputError for options that do not go together, and for items that cannot be told apart."""
    if by not in BY:
        raise InputError(f"split.by is '{by}'.{nearest(str(by), BY)} Known: {', '.join(BY)}.")
    if not items:
        raise InputError("There are no images to split.")
    if gap and by not in ("block", "published"):
        raise InputError(
            f"split.gap is {gap}, but only split.by: block, or published, leaves a gap. Remove it, or split by block."
        )
    if gap < 0:
        raise InputError(f"split.gap is {gap}; a number of frames, 0 or more, was expected.")
    if by == "csv" and fold is not None:
        raise InputError(f"split.fold is {fold!r}, but with split.by: csv the table alone decides. Remove one of them.")
    if by != "csv" and table is not None:
        raise InputError(f"split.file is set, but split.by is {by}. Set split.by: csv, or remove split.file.")
    seen: dict[str, Item] = {}
    for item in items:
        if item.name in seen:
            files = [str(one.files[0]) for one in (seen[item.name], item) if one.files]
            raise InputError(
                f"Two images are called '{item.name}'{': ' if files else ''}{' and '.join(files)}. Rename one of them."
            )
        seen[item.name] = item


def _by_sequence(
    items: Sequence[Item],
    parts: Mapping[str, Part],
    shares: Mapping[str, float] | None,
    seed: int,
    fold: Fold | None,
) -> dict[str, str | None]:
    alone = [item.name for item in items if not item.source]
    if alone:
        raise InputError(
            f"split.by is sequence, but {len(alone)} of {len(items)} images belong to no sequence, for example "
            f"{alone[0]}. Use split.by: image."
        )
    sources = sorted({item.source for item in items})
    if shares is not None:
        framed = all(item.frame is not None for item in items)
        units = {source: {"": 1} for source in sources}
        split = allot(units, shares, seed=seed, fold=fold, what="sequences", framed=framed)
    else:
        split = {}
        for name, part in parts.items():
            for source in named(part, sources, name):
                if split.setdefault(source, name) != name:
                    raise InputError(f"Sequence {source} is in split.{split[source]} and in split.{name}. Keep one.")
    return {item.name: split.get(item.source) for item in items}
