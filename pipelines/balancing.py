"""Balancing: units of several sizes or strata to places, so that each place comes near to its share of all strata.

Units that all count alike are dealt exactly in `pipelines.drawing`, which knows what units and places are.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import permutations
from typing import TypeVar

Place = TypeVar("Place", bound=Hashable)

# Images of each stratum, and of all, last: times the sum of all shares, to stay in whole numbers.
Vector = tuple[int, ...]


def balanced(
    order: Sequence[str],
    units: Mapping[str, Mapping[str, int]],
    shares: Mapping[Place, int],
    *,
    needed: Sequence[Place],
) -> dict[str, Place]:
    """Place of each unit.

    First greedily: biggest units first, each to the place most below its quota; with several strata, to the one where
    it lowers the squared distance from the quotas (of every stratum, and of all images) most. Then two units are
    swapped, or one is moved, as long as that lowers the distance further: the patients of GlaS, some of whom have
    both grades, need it.

    Args:
        order: The units; of two that are alike, the earlier is placed first.
        units: Unit -> number of its images of each stratum.
        shares: Place -> its share of all, as a whole number.
        needed: Places that may not stay empty; no more than units.
    """
    strata = sorted({stratum for one in units.values() for stratum in one})
    whole = sum(shares.values())
    vectors = {
        name: tuple(whole * num for num in (*(units[name].get(one, 0) for one in strata), sum(units[name].values())))
        for name in order
    }
    totals = [sum(column) // whole for column in zip(*vectors.values(), strict=True)]
    below = {place: [total * share for total in totals] for place, share in shares.items()}
    result = _greedy(order, vectors, below, needed)
    _exchange(order, result, vectors, below, needed)
    return result


def _greedy(
    order: Sequence[str], vectors: Mapping[str, Vector], below: Mapping[Place, list[int]], needed: Sequence[Place]
) -> dict[str, Place]:
    result: dict[str, Place] = {}
    empty = list(needed)
    by_size = sorted(order, key=lambda name: -vectors[name][-1])
    for left, name in zip(range(len(by_size), 0, -1), by_size, strict=True):
        gain = {
            place: sum(num * lack for num, lack in zip(vectors[name], below[place], strict=True))
            for place in (below if left > len(empty) else empty)
        }
        best = max(gain, key=lambda place: gain[place])
        result[name] = best
        below[best][:] = [lack - num for num, lack in zip(vectors[name], below[best], strict=True)]
        if best in empty:
            empty.remove(best)
    return result


def _exchange(
    order: Sequence[str],
    result: dict[str, Place],
    vectors: Mapping[str, Vector],
    below: Mapping[Place, list[int]],
    needed: Sequence[Place],
) -> None:
    """Swap and move, in `result`, while it helps. Units of one vector are alike: one of them is tried for all."""
    held: dict[Place, dict[Vector, list[str]]] = {place: {} for place in below}
    for name in order:
        held[result[name]].setdefault(vectors[name], []).append(name)
    nothing = (0,) * len(vectors[order[0]])
    better = True
    while better:
        better = False
        for here, there in permutations(below, 2):
            for one in list(held[here]):
                for other in [*held[there], nothing]:
                    last = here in needed and sum(map(len, held[here].values())) == 1
                    gone = not held[here][one] or (last if other == nothing else not held[there][other])
                    if gone or not _lowers(one, other, below[here], below[there]):
                        continue
                    better = True
                    for vector, source, target in ((one, here, there), (other, there, here)):
                        if vector != nothing:
                            name = held[source][vector].pop()
                            held[target].setdefault(vector, []).append(name)
                            result[name] = target
                    change = [num - back for num, back in zip(one, other, strict=True)]
                    below[here][:] = [lack + num for lack, num in zip(below[here], change, strict=True)]
                    below[there][:] = [lack - num for lack, num in zip(below[there], change, strict=True)]


def _lowers(one: Vector, other: Vector, here: Sequence[int], there: Sequence[int]) -> bool:
    """Whether `one` in exchange for `other` lowers |here|^2 + |there|^2: their change is 2 d (here - there + d)."""
    return (
        sum(
            (num - back) * (lack - least + num - back)
            for num, back, lack, least in zip(one, other, here, there, strict=True)
        )
        < 0
    )
