"""Sizes: which sides a network takes, found from the function that says what it answers to each side.

That function (`output_size`) lives beside each network.
"""

from collections.abc import Callable

from pipelines.errors import InputError

LARGEST = 16384  # pixels; no network of ours lacks a legal side up to there

OutputSize = Callable[[int], int | None]  # side of a tile -> side of its answer, None where the network cannot take it


def nearest_sizes(side: int, of: OutputSize) -> tuple[int | None, int]:
    """The nearest legal input sides below (None if there is none) and above `side`."""
    smaller = next((n for n in range(side - 1, 0, -1) if of(n) is not None), None)
    larger = next(n for n in range(side + 1, side + LARGEST) if of(n) is not None)
    return smaller, larger


def check_size(side: int, of: OutputSize, *, network: str) -> int:
    """The side of the answer to a tile.

    Raises:
        InputError: the network cannot take a tile of this side; the message names the nearest that fit.
    """
    output = of(side)
    if output is not None:
        return output
    smaller, larger = nearest_sizes(side, of)
    fits = f"{smaller} and {larger}" if smaller else f"{larger} (the smallest)"
    raise InputError(
        f"{network} cannot take a {side}x{side} tile: a level would have an odd or empty side. "
        f"Nearest sizes that fit: {fits} (train.patch or inference.tile)."
    )
