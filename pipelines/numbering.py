"""Numbering: the number of a frame or section in a file's name, and the numbers that a series leaves out.

Which files are a series is known by `pipelines.sources` and `cellseg.label_series`.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import InputError
from pipelines.tracks import HIGHEST


def frame_number(digits: str, path: Path | str) -> int:
    """The number that `digits` in the name of `path` are.

    Raises:
        InputError: It is beyond `HIGHEST`, which no table of tracks can hold: a time stamp rather than a number.
    """
    number = int(digits)
    if number > HIGHEST:
        raise InputError(
            f"{path}: {digits} in its name is no number of a frame, which is at most {HIGHEST}; is it the time? Number "
            "the files in their order, one after the other, for example mask000.tif, mask001.tif."
        )
    return number


def gaps(numbers: Iterable[int]) -> list[range]:
    """The numbers left out between neighbours, ascending; never as a list, for two names may lie 2**31 apart.

    Args:
        numbers: In any order, each once. Without any there is no gap.
    """
    return [range(one + 1, other) for one, other in itertools.pairwise(sorted(numbers)) if other > one + 1]
