"""U-Net: one builder for the network of 2015 and its relatives, and the arithmetic of its sizes.

Blocks live in `cellseg.models.blocks`; tiling an image into legal sizes lives in `pipelines.tiling`.
"""

import math
from typing import Any, Literal

from keras import Model, layers

from cellseg.models.blocks import UPSAMPLING, convolution_unit, crop_and_concatenate, head, upsample
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
    dropout: float = 0.5,
    dropout_at: Literal["every", "contracting_end"] = "contracting_end",
    output_bias: float | None = None,
) -> Model:
    """U-Net: a contracting and an expanding path of `depth` levels, joined level by level.

    Defaults are the network of 2015 (31,030,593 weights at one input channel). Shape: (N, H, W, C) in [0, 1] to
    (N, h, w, outputs) probabilities; h = H with padding `same` (H a multiple of 2**depth), `output_size(H)` with
    `valid`.

    Args:
        input_shape: (H, W, C) of a tile; H and W may be None: any legal size.
        outputs: 1 = sigmoid foreground; n > 1 = softmax over n classes, background first.
        filters: Channels of the first level; each level doubles them.
        depth: Number of 2x2 max poolings.
        padding: `valid` (the paper; the border is lost) or `same` (zeros outside).
        up: `transposed2` (the paper's 2x2 up-convolution), `transposed3` (3x3) or `bilinear`.
        batch_norm: Batch normalisation between convolution and ReLU.
        dropout: Share of features dropped; 0 = none.
        dropout_at: `contracting_end`: once after each of the last two levels of the contracting path (the paper);
            `every`: after every ReLU (the pancreatic U-Net).
        output_bias: First bias of the output; None = 0.

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
    if not 0 <= dropout < 1:
        raise InputError(f"model.dropout must be in [0, 1), got {dropout}.")
    for side in filter(None, input_shape[:2]):
        check_size(side, depth=depth, padding=padding)

    everywhere = dropout if dropout_at == "every" else 0.0
    unit: dict[str, Any] = {"padding": padding, "batch_norm": batch_norm, "dropout": everywhere}
    inputs = layers.Input(input_shape, name="image")
    x, skips = inputs, []
    for level in range(depth + 1):
        channels = filters * 2**level
        x = convolution_unit(x, channels, name=f"down{level}a", **unit)
        x = convolution_unit(x, channels, name=f"down{level}b", **unit)
        if dropout_at == "contracting_end" and dropout > 0 and level >= depth - 1:
            x = layers.Dropout(dropout, name=f"down{level}_dropout")(x)
        if level < depth:
            skips.append(x)
            x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    crops = [0] * depth if padding == "same" else skip_crops(depth)
    for level in reversed(range(depth)):
        channels = filters * 2**level
        x = upsample(x, channels, how=up, name=f"up{level}")
        x = crop_and_concatenate(skips[level], x, crop=crops[level], name=f"join{level}")
        x = convolution_unit(x, channels, name=f"up{level}a", **unit)
        x = convolution_unit(x, channels, name=f"up{level}b", **unit)
    return Model(inputs, head(x, outputs, bias=output_bias), name="unet")


def output_size(size: int, *, depth: int = 4, padding: str = "valid") -> int | None:
    """Output side of a U-Net for an input side, in pixels; None where a level would get an odd or empty side."""
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


def nearest_sizes(size: int, *, depth: int = 4, padding: str = "valid") -> tuple[int | None, int]:
    """The nearest legal input sides below (None if there is none) and above `size`."""
    smaller = next((n for n in range(size - 1, 0, -1) if output_size(n, depth=depth, padding=padding)), None)
    larger = size + 1
    while output_size(larger, depth=depth, padding=padding) is None:
        larger += 1
    return smaller, larger


def check_size(size: int, *, depth: int, padding: str) -> None:
    """Raise InputError if a U-Net cannot take a tile of this side; the message names the nearest that fit."""
    if output_size(size, depth=depth, padding=padding) is not None:
        return
    smaller, larger = nearest_sizes(size, depth=depth, padding=padding)
    fits = f"{smaller} and {larger}" if smaller else f"{larger} (the smallest)"
    raise InputError(
        f"U-Net with padding='{padding}' and depth={depth} cannot take a {size}x{size} tile: a level would have "
        f"an odd or empty side. Nearest sizes that fit: {fits} (train.patch or inference.tile)."
    )


def receptive_radius(*, depth: int = 4) -> int:
    """How far, in pixels, an input can influence an output: the least halo that hides a tile's border.

    Each 3x3 convolution of level l adds 2**l, a pooling up to 2**l, and an upsampling up to 2**(l + 1).
    """
    convolutions = sum(2 * 2**level for level in range(depth + 1)) + sum(2 * 2**level for level in range(depth))
    sampling = sum(2**level + 2 ** (level + 1) for level in range(depth))
    return convolutions + math.ceil(sampling)


def _check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{key}: '{value}' is not known. Known: {', '.join(known)}.")
