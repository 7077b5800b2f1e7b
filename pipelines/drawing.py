"""Drawing: units (images, groups, sequences) by lot to splits, or to the parts of a k-fold, evenly in every stratum.

What a unit is, is known by `pipelines.units` and `pipelines.splits`; frames in their order are cut in
`pipelines.blocks`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.balancing import balanced
from pipelines.errors import InputError

FOLD = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*")

# Name -> how many images of each stratum it counts for.
Units = Mapping[str, Mapping[str, int]]


class Fold(NamedTuple):
    """Part `part` (from 1) of `num` equal parts."""

    part: int
    num: int

    def __str__(self) -> str:
        return f"{self.part}/{self.num}"


def read_fold(text: str) -> Fold:
    """'2/5' as a fold. Raises InputError if it is none."""
    match = FOLD.fullmatch(str(text))
    if not match:
        raise InputError(f"split.fold is {text!r}; a part and the number of parts were expected, such as 2/5.")
    fold = Fold(int(match[1]), int(match[2]))
    if fold.num < 2:
        raise InputError(f"split.fold is {text!r}: there must be at least 2 parts, as in 1/2.")
    if not 1 <= fold.part <= fold.num:
        raise InputError(f"split.fold is {text!r}: the part must be from 1 to {fold.num}.")
    return fold


def allot(
    units: Units, fractions: Mapping[str, float], *, seed: int, fold: Fold | None, what: str, framed: bool
) -> dict[str, str]:
    """Split of each unit; units that no fraction takes are not in it.

    With a fold, its part is the test split, and validation is its share of the other parts; where no test split is
    wanted, the part is the validation split.

    Args:
        units: What is drawn.
        fractions: Of "train", "validation" and, if wanted, "test".
        seed: Alone decides, with the fold.
        fold: Or None, to draw all of the fractions.
        what: What the units are, for messages.
        framed: Whether a split by block would be possible, for messages.

    Raises:
        InputError: Fewer units than splits or parts.
    """
    block = "Use split.by: block, " if framed else ""
    if fold is None:
        if len(units) < len(fractions):
            raise InputError(
                f"{len(units)} {what} cannot be divided among {', '.join(fractions)}: at least one for each is needed. "
                f"{block + 'remove' if framed else 'Remove'} a part from split, or add data."
            )
        return draw(units, fractions, seed)
    if len(units) < fold.num:
        raise InputError(
            f"split.fold is {fold}, but there are {len(units)} {what}: at least one for each of the {fold.num} parts "
            f"is needed. {block + 'take' if framed else 'Take'} fewer parts, or add data."
        )
    parts = deal(units, fold.num, seed)
    if "test" not in fractions:
        return {name: "validation" if part == fold.part else "train" for name, part in parts.items()}
    others = {name: units[name] for name in units if parts[name] != fold.part}
    if len(others) < 2:
        raise InputError(
            f"split.fold is {fold}: beside the test part there is {len(others)} of {len(units)} {what}, too few for "
            "train and validation. Take more parts, or add data."
        )
    both = fractions["train"] + fractions["validation"]
    shares = {name: fractions[name] / both for name in ("train", "validation")}
    return dict.fromkeys(units, "test") | draw(others, shares, [seed, fold.part])


def draw(units: Units, fractions: Mapping[str, float], seed: int | Sequence[int]) -> dict[str, str]:
    """Units by lot to splits.

    Units that count alike: the whole numbers of `counts`, and of every stratum in every split its share rounded down
    or up by one. Else: see `pipelines.balancing`.

    Args:
        units: At least as many as fractions.
        fractions: Split -> fraction of the images; at most 1 together.
        seed: Of the order in which units are drawn.

    Returns:
        Unit -> split, without those that are left out. No split is empty.
    """
    order = _shuffled(units, seed)
    alike = _alike(units)
    total = len(units) if alike else sum(sum(one.values()) for one in units.values())
    wanted = counts(total, fractions)
    wanted[""] = total - sum(wanted.values())
    split = _dealt(order, units, wanted) if alike else balanced(order, units, wanted, needed=list(fractions))
    return {name: one for name, one in split.items() if one}


def deal(units: Units, num: int, seed: int) -> dict[str, int]:
    """Part 1..num of each unit.

    Units that count alike: dealt like cards, one stratum after the other, so that neither the parts nor a stratum in
    them differ by more than one unit. Else: see `pipelines.balancing`. With at least `num` units no part is empty.
    """
    order = _shuffled(units, seed)
    if _alike(units):
        order.sort(key=lambda name: _stratum(units[name]))
        return {name: place % num + 1 for place, name in enumerate(order)}
    parts = dict.fromkeys(range(1, num + 1), 1)
    return balanced(order, units, parts, needed=list(parts))


def counts(total: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Largest remainder: whole numbers nearest to the fractions of `total`, each at least 1."""
    quotas = {name: total * fraction for name, fraction in fractions.items()}
    rest = total - sum(quotas.values())
    if rest > 1e-6:
        quotas[""] = rest
    result = {name: int(quota + 1e-9) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: result[name] - quotas[name])
    for name in by_remainder[: total - sum(result.values())]:
        result[name] += 1
    for name in fractions:
        if result[name] == 0:
            # From whoever has most to spare: a split keeps one, what is left out need not.
            result[max(result, key=lambda other: result[other] - (other in fractions))] -= 1
            result[name] = 1
    return {name: result[name] for name in fractions}


def _shuffled(units: Units, seed: int | Sequence[int]) -> list[str]:
    names = sorted(units)
    return [names[index] for index in np.random.default_rng(seed).permutation(len(names))]


def _stratum(one: Mapping[str, int]) -> str:
    return next(iter(one))


def _alike(units: Units) -> bool:
    """Whether every unit lies in one stratum, and all count for the same number of images."""
    return all(len(one) == 1 for one in units.values()) and len({sum(one.values()) for one in units.values()}) <= 1


def _dealt(order: Sequence[str], units: Units, wanted: Mapping[str, int]) -> dict[str, str]:
    """Units in their order to splits, `wanted` in all and within one of its share in each stratum.

    A split with c of all n units has the share m * c / n of a stratum of m. Shares are rounded down first. What a
    stratum then has over goes, one each, to the splits that lack most: this greedy choice always comes out even if
    any does (Gale 1957, Ryser 1957), and since the shares themselves come out even, one does.
    """
    strata: dict[str, list[str]] = {}
    for name in order:
        strata.setdefault(_stratum(units[name]), []).append(name)
    num = len(order)
    given = {one: {split: len(strata[one]) * count // num for split, count in wanted.items()} for one in sorted(strata)}
    lack = {split: count - sum(row[split] for row in given.values()) for split, count in wanted.items()}
    result: dict[str, str] = {}
    for stratum, row in given.items():
        members = strata[stratum]
        nearest_up = sorted(wanted, key=lambda one: (-lack[one], -(len(members) * wanted[one] % num)))
        for split in nearest_up[: len(members) - sum(row.values())]:
            row[split] += 1
            lack[split] -= 1
        result |= zip(members, [split for split in wanted for _ in range(row[split])], strict=True)
    return result
