"""DMCN: the deep multilevel contextual network, an encoder whose three deeper levels answer alone and together.

Blocks live in `cellseg.models.blocks`; the loss of the auxiliary classifiers is added where the network is trained.
"""

from collections.abc import Sequence

import keras
from keras import Model, layers

from cellseg.models import sizes
from cellseg.models.blocks import convolution_unit, decay, head
from pipelines.errors import InputError

CONVOLUTIONS = (2, 2, 3, 3)  # of each level of the encoder
FACTOR = 2 ** (len(CONVOLUTIONS) - 1)
AUXILIARY = tuple(f"auxiliary{level}_logits" for level in range(1, len(CONVOLUTIONS)))


def dmcn(
    input_shape: tuple[int | None, int | None, int],
    *,
    outputs: int = 1,
    filters: int = 64,
    branch_filters: int = 2,
    l2: float = 0.0,
    activation: str | None = None,
    output_bias: float | Sequence[float] | None = None,
) -> Model:
    """Deep multilevel contextual network: four levels of an encoder, three of them brought to full size at once.

    16 convolutions of 3x3 and 3 deconvolutions, each with ReLU, and 3 max poolings; 7,709,114 weights with the
    defaults at one input channel. Shape: (N, H, W, C) in [0, 1] to a list of four tensors (N, H, W, outputs), H and W
    multiples of 8: `probability`, then `auxiliary1_logits`, `auxiliary2_logits` and `auxiliary3_logits`, the answers
    of levels 1 to 3 alone (128, 256 and 512 channels).

    Level l is enlarged by one deconvolution (kernel = stride = 2**l, no overlap) and refined by two 3x3 convolutions.
    The final classifier is a 1x1 convolution over the three levels' features side by side; the auxiliary ones are
    1x1 convolutions over one level's features, serve training alone, and nothing of them flows into `probability`.

    Departures from the paper: the levels are fused by concatenation (as the membranes report did), the paper sums their
    classifiers' answers; the paper does not print the branches' channels, and 2 is what makes its 7.7 M; weights
    start He normal, Glorot uniform in the classifiers; dropout is left out.

    Args:
        input_shape: (H, W, C) of a tile; H and W may be None: any multiple of 8.
        outputs: Number of channels: 1 = foreground; n > 1 = classes, background first, unless `activation` says else.
        activation: sigmoid = channels that do not exclude each other; None = sigmoid for one output, softmax for more.
        filters: Channels of the first level; each level doubles them.
        branch_filters: Channels of each level at full size.
        l2: The loss grows by l2 * (sum of the squared convolution kernels); biases are left alone.
        output_bias: First bias of the final and the auxiliary classifiers, one for all channels or one each; None = 0.

    Raises:
        InputError: a side that is no multiple of 8 (the message names the nearest), or an option out of range.

    Reference:
        Chen, Qi, Cheng, Heng 2016, https://doi.org/10.1609/aaai.v30i1.10140
    """
    if filters < 1 or branch_filters < 1:
        raise InputError(f"model.filters and model.branch_filters must be >= 1, got {filters} and {branch_filters}.")
    if l2 < 0:
        raise InputError(f"model.l2 must be >= 0, got {l2}.")
    for side in filter(None, input_shape[:2]):
        sizes.check_size(side, output_size, network="DMCN")

    inputs = layers.Input(input_shape, name="image")
    x, branches, auxiliary = inputs, [], []
    for level, count in enumerate(CONVOLUTIONS):
        for letter in "abc"[:count]:
            x = _unit(x, filters * 2**level, l2=l2, name=f"down{level}{letter}")
        if level > 0:
            branches.append(_branch(x, branch_filters, level=level, l2=l2))
            auxiliary.append(_auxiliary(branches[-1], outputs, level=level, bias=output_bias, l2=l2))
        if level < len(CONVOLUTIONS) - 1:
            x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    probability = head(
        layers.Concatenate(name="fusion")(branches), outputs, activation=activation, bias=output_bias, l2=l2
    )
    return Model(inputs, [probability, *auxiliary], name="dmcn")


def output_size(side: int) -> int | None:
    """Output side of a DMCN for an input side, in pixels: the same; None where a level would get an odd side."""
    return side if side > 0 and side % FACTOR == 0 else None


def _branch(x, filters: int, *, level: int, l2: float):
    """A level's features at full size."""
    x = layers.Conv2DTranspose(
        filters,
        2**level,
        strides=2**level,
        kernel_initializer="he_normal",
        kernel_regularizer=decay(l2),
        name=f"branch{level}_up",
    )(x)
    x = layers.ReLU(name=f"branch{level}_up_relu")(x)
    for letter in "ab":
        x = _unit(x, filters, l2=l2, name=f"branch{level}{letter}")
    return x


def _auxiliary(x, outputs: int, *, level: int, bias, l2: float):
    """A level's own answer, as logits in float32."""
    return layers.Conv2D(
        outputs,
        1,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros" if bias is None else keras.initializers.Constant(bias),
        kernel_regularizer=decay(l2),
        dtype="float32",
        name=f"auxiliary{level}_logits",
    )(x)


def _unit(x, filters: int, *, l2: float, name: str):
    return convolution_unit(x, filters, padding="same", batch_norm=False, dropout=0.0, l2=l2, name=name)
