"""Units: images that stay together in a split by image, because of their content or their group.

Drawing the units is the work of `pipelines.drawing`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from pipelines.drawing import Fold, Units, allot
from pipelines.errors import InputError
from pipelines.sample import Item


def by_image(
    items: Sequence[Item],
    fractions: Mapping[str, float],
    *,
    seed: int,
    groups: Mapping[str, str],
    fold: Fold | None = None,
    stratify: bool = True,
) -> dict[str, str | None]:
    """Split of each item, drawn by image; the arguments are those of `pipelines.splits.assign`."""
    unit = joined(items, groups)
    _check_not_torn(items, unit)
    units = _counted(items, unit, stratify)
    if len(units) == len(items):
        what = "images"
    elif any(item.group for item in items):
        what = f"groups of images (of {len(items)} files)"
    else:
        what = f"different images (of {len(items)} files)"
    framed = all(item.frame is not None for item in items)
    split = allot(units, fractions, seed=seed, fold=fold, what=what, framed=framed)
    return {name: split.get(first) for name, first in unit.items()}


def joined(items: Sequence[Item], groups: Mapping[str, str]) -> dict[str, str]:
    """Unit of each item: images of one content (`groups`) or one `Item.group`, and whatever that joins, are one.

    Returns:
        Item name -> name of its unit, which is the first name in it: without duplicates, groups change no draw.
    """
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above[name] != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    first: dict[tuple[str, str], str] = {}
    for item in sorted(items, key=lambda item: item.name):
        above[item.name] = item.name
        ties = [("group", item.group)] if item.group else []
        ties += [("content", groups[item.name])] if item.name in groups else []
        for tie in ties:
            one, other = sorted((top(item.name), top(first.setdefault(tie, item.name))))
            above[other] = one
    return {name: top(name) for name in above}


def _counted(items: Sequence[Item], unit: Mapping[str, str], stratify: bool) -> Units:
    """What each unit counts for: its images where there are groups, else one; copies of a picture are one picture."""
    units: dict[str, Counter[str]] = {}
    every = any(item.group for item in items)
    for item in sorted(items, key=lambda item: item.name):
        if every or unit[item.name] == item.name:
            units.setdefault(unit[item.name], Counter())[item.stratum if stratify else ""] += 1
    return units


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
