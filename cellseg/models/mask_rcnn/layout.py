"""Layout: shapes of images and how arrays over levels, rows and classes are laid out.

The arrays themselves are made in the other rooms of `cellseg.models.mask_rcnn`.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from pipelines.errors import InputError

SIDE_FACTOR = 32  # the sides of an image must be multiples of it
BOX_BINS, MASK_BINS = 7, 14  # of a region, for the heads; masks are twice as fine


def check_sides(shape: Sequence[int | None]) -> tuple[int, int]:
    """Height and width of a batch of images.

    Raises:
        InputError: something of the shape is unknown, or a side is no multiple of 32.
    """
    if None in tuple(shape):
        raise InputError(
            f"Mask R-CNN needs batches of one known shape, got {tuple(shape)}: images of one size, and the last, "
            "smaller batch dropped (drop_remainder=True)."
        )
    height, width = (int(side) for side in shape[1:3] if side is not None)
    for side in (height, width):
        if side % SIDE_FACTOR or side == 0:
            below = side // SIDE_FACTOR * SIDE_FACTOR
            near = f"{below} and {below + SIDE_FACTOR}" if below else f"{SIDE_FACTOR} (the smallest)"
            raise InputError(
                f"Mask R-CNN cannot take a {height}x{width} image: its sides must be multiples of {SIDE_FACTOR}. "
                f"Nearest to {side} that fit: {near}."
            )
    return height, width


def flat(levels: Sequence[Any], width: int) -> list[Any]:
    """Answers of each level (B, h, w, A * width) as rows of its anchors: (B, h * w * A), or (B, h * w * A, width)."""
    rows = [ops.reshape(x, (x.shape[0], -1, width)) for x in levels]
    return [x[..., 0] for x in rows] if width == 1 else rows


def of_class(values, classes):
    """(B, R, K + 1, ...) at classes int (B, R) -> (B, R, ...)."""
    number = values.shape[2]
    chosen = ops.cast(classes[..., None] == ops.arange(number, dtype=classes.dtype), values.dtype)
    return ops.sum(values * ops.reshape(chosen, (*chosen.shape, *[1] * (len(values.shape) - 3))), axis=2)
