"""U-Net: one builder for the network of 2015 and its relatives, and the arithmetic of its sizes.

Blocks live in `cellseg.models.blocks`; tiling an image into legal sizes lives in `pipelines.tiling`.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

from keras import Model, layers

from cellseg.models import sizes
from cellseg.models.blocks import UPSAMPLING, Dropout, convolution_unit, crop_and_concatenate, head, upsample
from pipelines.errors import InputError

PADDINGS = ("same", "valid")
DROPOUT_PLACES = ("every", "contracting_end")


def unet(
    input_shape: tuple[int | None, int | None, int],
    *,
    outputs: int = 1,
    filters: int = 64,
    depth: int = 4,
    padding: Literal["same", "valid"] = "valid",
    up: Literal["bilinear", "transposed2", "transposed3"] = "transposed2",
    batch_norm: bool = False,
    dropout: float | list[float] = 0.5,
    dropout_at: Literal["every", "contracting_end"] = "contracting_end",
    l2: float = 0.0,
    activation: str | None = None,
    output_bias: float | Sequence[float] | None = None,
) -> Model:
    """U-Net: a contracting and an expanding path of `depth` levels, joined level by level.

    Defaults are the network of 2015 (31,030,593 weights at one input channel). Shape: (N, H, W, C) in [0, 1] to
    (N, h, w, outputs) probabilities; h = H with padding `same` (H a multiple of 2**depth), `output_size(H)` with
    `valid`.

    Args:
        input_shape: (H, W, C) of a tile; H and W may be None: any legal size.
        outputs: Number of channels: 1 = foreground; n > 1 = classes, background first, unless `activation` says else.
        activation: sigmoid = channels that do not exclude each other; None = sigmoid for one output, softmax for more.
        filters: Channels of the first level; each level doubles them.
        depth: Number of 2x2 max poolings.
        padding: `valid` (the paper; the border is lost) or `same` (zeros outside).
        up: `transposed2` (the paper's 2x2 up-convolution), `transposed3` (3x3) or `bilinear`.
        batch_norm: Batch normalisation between convolution and ReLU.
        dropout: Share of features dropped; 0 = none. A list gives one for each level 0 to `depth`, on both paths, and
            needs `dropout_at: every`.
        dropout_at: `contracting_end`: once after each of the last two levels of the contracting path (the paper);
            `every`: after every ReLU (the pancreatic U-Net).
        l2: The loss grows by l2 * (sum of the squared convolution kernels); biases are left alone.
        output_bias: First bias of the output, one for all channels or one each; None = 0.

    Raises:
        InputError: a side that this network cannot take; the message names the nearest that fit.

    Reference:
        Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597
    """
    _check_choice("model.padding", padding, PADDINGS)
    _check_choice("model.up", up, UPSAMPLING)
    _check_choice("model.dropout_at", dropout_at, DROPOUT_PLACES)
    if filters < 1 or not 1 <= depth <= 8:
        raise InputError(f"model.filters must be at least 1 and model.depth 1 to 8, got {filters} and {depth}.")
    shares = _dropout_by_level(dropout, depth=depth, at=dropout_at)
    if l2 < 0:
        raise InputError(f"model.l2 must be >= 0, got {l2}.")
    for side in filter(None, input_shape[:2]):
        check_size(side, depth=depth, padding=padding)

    unit: dict[str, Any] = {"padding": padding, "batch_norm": batch_norm, "l2": l2}
    inputs = layers.Input(input_shape, name="image")
    x, skips = inputs, []
    for level in range(depth + 1):
        channels = filters * 2**level
        x = convolution_unit(x, channels, name=f"down{level}a", dropout=shares[level], **unit)
        x = convolution_unit(x, channels, name=f"down{level}b", dropout=shares[level], **unit)
        if dropout_at == "contracting_end" and dropout and level >= depth - 1:
            x = Dropout(dropout, name=f"down{level}_dropout")(x)
        if level < depth:
            skips.append(x)
            x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    crops = [0] * depth if padding == "same" else skip_crops(depth)
    for level in reversed(range(depth)):
        channels = filters * 2**level
        x = upsample(x, channels, how=up, l2=l2, name=f"up{level}")
        x = crop_and_concatenate(skips[level], x, crop=crops[level], name=f"join{level}")
        x = convolution_unit(x, channels, name=f"up{level}a", dropout=shares[level], **unit)
        x = convolution_unit(x, channels, name=f"up{level}b", dropout=shares[level], **unit)
    return Model(inputs, head(x, outputs, activation=activation, bias=output_bias, l2=l2), name="unet")


def output_size(side: int, *, depth: int = 4, padding: str = "valid") -> int | None:
    """Output side of a U-Net for an input side, in pixels; None where a level would get an odd or empty side."""
    size = side
    if padding == "same":
        return size if size > 0 and size % 2**depth == 0 else None
    for _ in range(depth):
        size -= 4
        if size <= 0 or size % 2:
            return None
        size //= 2
    size -= 4
    if size <= 0:
        return None
    for _ in range(depth):
        size = 2 * size - 4
    return size if size > 0 else None


def skip_crops(depth: int) -> list[int]:
    """Pixels cut from each side of a level's features before joining, padding `valid`; they depend on depth alone."""
    crops, lost = [], 0
    for _ in range(depth):  # from the deepest join up: two 3x3 convolutions lose 4 px, on either side of the doubling
        lost = 2 * lost + 8
        crops.append(lost // 2)
        lost += 4
    return crops[::-1]


def check_size(side: int, *, depth: int, padding: str) -> None:
    """Raise InputError if a U-Net cannot take a tile of this side; the message names the nearest that fit."""
    of = functools.partial(output_size, depth=depth, padding=padding)
    sizes.check_size(side, of, network=f"U-Net with padding='{padding}' and depth={depth}")


def receptive_radius(*, depth: int = 4) -> int:
    """How far, in pixels, an input can influence an output: the least halo that hides a tile's border.

    Each 3x3 convolution of level l adds 2**l, a pooling up to 2**l, and an upsampling up to 2**(l + 1).
    """
    convolutions = sum(2 * 2**level for level in range(depth + 1)) + sum(2 * 2**level for level in range(depth))
    sampling = sum(2**level + 2 ** (level + 1) for level in range(depth))
    return convolutions + math.ceil(sampling)


def _dropout_by_level(dropout: float | list[float], *, depth: int, at: str) -> list[float]:
    """Dropout after every ReLU of each level; zeros where it is applied at the end of the contracting path alone."""
    for share in dropout if isinstance(dropout, list) else [dropout]:
        if not 0 <= share < 1:
            raise InputError(f"model.dropout must be in [0, 1), got {share}.")
    if not isinstance(dropout, list):
        return [dropout if at == "every" else 0.0] * (depth + 1)
    if at != "every":
        raise InputError("model.dropout is a list, one share for each level; that needs model.dropout_at: every.")
    if len(dropout) != depth + 1:
        raise InputError(
            f"model.dropout lists {len(dropout)} shares, but depth {depth} has {depth + 1} levels (0 to {depth}). "
            "Give one for each, or one number for all."
        )
    return dropout


def _check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{key}: '{value}' is not known. Known: {', '.join(known)}.")
