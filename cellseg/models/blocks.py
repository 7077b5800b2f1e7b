"""Building blocks of the networks: convolution units, dropout, up- and downsampling, crop and concatenate.

Their layers, where Keras' own are slow, live in `cellseg.models.fast`; how blocks make a network is the work of
`cellseg.models.unet` and its neighbours.
"""

import keras
from keras import layers

from cellseg.models.fast import BatchNormalization, BilinearUpsampling, Dropout

UPSAMPLING = ("bilinear", "transposed2", "transposed3")
BATCH_NORM_MOMENTUM = 0.9  # as PyTorch; at Keras' 0.99 validation lags hundreds of steps behind the weights


def convolution_unit(x, filters: int, *, padding: str, batch_norm: bool, dropout: float, name: str, l2: float = 0.0):
    """3x3 convolution (He normal), then batch normalisation if asked, ReLU, and dropout if > 0."""
    x = layers.Conv2D(
        filters, 3, padding=padding, kernel_initializer="he_normal", kernel_regularizer=decay(l2), name=f"{name}_conv"
    )(x)
    if batch_norm:
        x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    if dropout > 0:
        x = Dropout(dropout, name=f"{name}_dropout")(x)
    return x


def upsample(x, filters: int, *, how: str, name: str, l2: float = 0.0):
    """Twice the height and width: `bilinear` keeps the channels, `transposed2` and `transposed3` learn `filters`."""
    if how == "bilinear":
        return BilinearUpsampling(name=name)(x)
    size = int(how.removeprefix("transposed"))
    return layers.Conv2DTranspose(
        filters,
        size,
        strides=2,
        padding="same",
        kernel_initializer="he_normal",
        kernel_regularizer=decay(l2),
        name=name,
    )(x)


def crop_and_concatenate(skip, x, *, crop: int, name: str):
    """Join the contracting path's features, `crop` pixels less on each side, to the expanding path's."""
    if crop:
        skip = layers.Cropping2D(crop, name=f"{name}_crop")(skip)
    return layers.Concatenate(name=name)([skip, x])


def head(x, outputs: int, *, activation: str | None = None, bias=None, l2: float = 0.0):
    """1x1 convolution to `logits`, then `probability`, in float32.

    Args:
        x: Features (N, h, w, C).
        outputs: Number of output channels.
        activation: See `activation_of`.
        bias: First bias, one for all outputs or one each; None = 0. The prior's logit makes the first loss that of a
            constant guess.
        l2: See `decay`.
    """
    start = "zeros" if bias is None else keras.initializers.Constant(bias)
    logits = layers.Conv2D(
        outputs,
        1,
        kernel_initializer="glorot_uniform",
        bias_initializer=start,
        kernel_regularizer=decay(l2),
        dtype="float32",
        name="logits",
    )(x)
    return layers.Activation(activation_of(activation, outputs), dtype="float32", name="probability")(logits)


def activation_of(activation: str | None, outputs: int) -> str:
    """What makes logits probabilities: as asked for, or sigmoid for one output and softmax for more."""
    return activation or ("sigmoid" if outputs == 1 else "softmax")


def decay(l2: float) -> keras.regularizers.Regularizer | None:
    """The regulariser that adds l2 * (sum of squares) of a kernel to the loss; None for 0."""
    return keras.regularizers.L2(l2) if l2 > 0 else None
