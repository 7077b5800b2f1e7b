"""Published: the split that the data set itself came with; only the validation split is taken from its training part.

Who says what was published is the reader in `pipelines.sources` (`Item.published`).
"""

from collections.abc import Mapping, Sequence

from pipelines.blocks import cut_sequences
from pipelines.drawing import Fold
from pipelines.errors import InputError
from pipelines.parts import Part, fraction, is_number, named
from pipelines.sample import Item
from pipelines.units import by_image


def by_published(
    items: Sequence[Item],
    parts: Mapping[str, Part],
    *,
    gap: int,
    seed: int,
    groups: Mapping[str, str],
    fold: Fold | None,
    stratify: bool,
) -> dict[str, str | None]:
    """Split of each item, as published; the arguments are those of `pipelines.splits.assign`."""
    _check(items)
    if gap and all(item.frame is None for item in items):
        raise InputError(f"split.gap is {gap}, but no image has a frame number that could leave a gap. Remove it.")
    share = fraction("validation", parts["validation"], "published")
    if share == 1:
        raise InputError("split.validation is 1: of the published training images, none would be left to train on.")
    split: dict[str, str | None] = dict.fromkeys((item.name for item in items), None)
    split |= {item.name: "test" for item in _kept(items, "test", parts.get("test", 1.0))}
    training = _kept(items, "train", parts["train"])
    fractions = {"train": 1 - share, "validation": share}
    single = [item for item in training if item.frame is None]
    if single:
        split |= by_image(single, fractions, seed=seed, groups=groups, fold=fold, stratify=stratify)
    framed = [item for item in training if item.frame is not None]
    if framed:
        ways = (["a smaller split.gap"] if gap else []) + ["split.by: csv, with a table of your own"]
        split |= cut_sequences(framed, fractions, gap=gap, fold=fold, ways=ways)
    return split


def _check(items: Sequence[Item]) -> None:
    other = "Use split.by: image, or split.by: block for sequences and stacks."
    of = {one: [item.name for item in items if item.published == one] for one in ("train", "test")}
    if not of["train"] and not of["test"]:
        raise InputError(
            f"split.by is published, but the data set says of none of its {len(items)} images what it is for. {other}"
        )
    for one, names in of.items():
        if not names:
            raise InputError(
                f"split.by is published, but none of the {len(items)} images is published as {one}. {other}"
            )
    unclear = [item.name for item in items if item.published not in of]
    if unclear:
        raise InputError(
            f"split.by is published, but {len(unclear)} of {len(items)} images are published neither as train nor as "
            f"test, for example {unclear[0]}. Remove them, or use split.by: csv, with a table of your own."
        )


def _kept(items: Sequence[Item], published: str, part: Part) -> list[Item]:
    """The items published as this, or of them those whose sources the part names; a fraction changes nothing."""
    found = [item for item in items if item.published == published]
    if is_number(part):
        fraction(published, part, "published")
        return found
    if isinstance(part, bool):
        raise InputError(f"split.{published} is {part!r}; names of sources were expected, or no such key.")
    sources = sorted({item.source for item in found if item.source})
    if not sources:
        raise InputError(
            f"split.{published} names {part!r}, but the images published as {published} have no sources to choose "
            f"from. Remove split.{published}."
        )
    wanted = named(part, sources, published)
    if not wanted:
        raise InputError(f"split.{published} is an empty list. Name some of {', '.join(sources)}, or remove it.")
    return [item for item in found if item.source in wanted]
