"""Building blocks of the networks: convolution units, dropout, up- and downsampling, crop and concatenate.

How blocks make a network is the work of `cellseg.models.unet` and its neighbours.
"""

import keras
from keras import layers, ops

UPSAMPLING = ("bilinear", "transposed2", "transposed3")
BATCH_NORM_MOMENTUM = 0.9  # as PyTorch; at Keras' 0.99 validation lags hundreds of steps behind the weights


@keras.saving.register_keras_serializable(package="cellseg")
class BilinearUpsampling(layers.Layer):
    """Twice the height and width by bilinear interpolation, half-pixel centres, edges repeated.

    (N, H, W, C) -> (N, 2H, 2W, C), equal to `UpSampling2D(interpolation="bilinear")`. Along each axis every new pixel
    is 0.75 of the old pixel that it lies in + 0.25 of the nearer neighbour.
    """

    # Written as shifted sums: the gradient of the resize op took a quarter of the training step on a CPU, and
    # Keras 3.15's own layer fails in TensorFlow graphs for a second image size (keras/src/ops/image.py).

    def call(self, inputs):
        """Upsample a batch of feature maps."""
        return _double(_double(inputs, axis=1), axis=2)

    def compute_output_shape(self, input_shape):
        """(N, H, W, C) -> (N, 2H, 2W, C); unknown sides stay unknown."""
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, channels)


def convolution_unit(x, filters: int, *, padding: str, batch_norm: bool, dropout: float, name: str):
    """3x3 convolution (He normal), then batch normalisation if asked, ReLU, and dropout if > 0."""
    x = layers.Conv2D(filters, 3, padding=padding, kernel_initializer="he_normal", name=f"{name}_conv")(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    if dropout > 0:
        x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return x


def upsample(x, filters: int, *, how: str, name: str):
    """Twice the height and width: `bilinear` keeps the channels, `transposed2` and `transposed3` learn `filters`."""
    if how == "bilinear":
        return BilinearUpsampling(name=name)(x)
    size = int(how.removeprefix("transposed"))
    return layers.Conv2DTranspose(filters, size, strides=2, padding="same", kernel_initializer="he_normal", name=name)(
        x
    )


def crop_and_concatenate(skip, x, *, crop: int, name: str):
    """Join the contracting path's features, `crop` pixels less on each side, to the expanding path's."""
    if crop:
        skip = layers.Cropping2D(crop, name=f"{name}_crop")(skip)
    return layers.Concatenate(name=name)([skip, x])


def head(x, outputs: int, *, bias=None):
    """1x1 convolution to `logits`, then `probability` (sigmoid for one output, softmax for more), in float32.

    Args:
        x: Features (N, h, w, C).
        outputs: Number of output channels.
        bias: First bias of each output; None = 0. The prior's logit makes the first loss that of a constant guess.
    """
    start = "zeros" if bias is None else keras.initializers.Constant(bias)
    logits = layers.Conv2D(
        outputs, 1, kernel_initializer="glorot_uniform", bias_initializer=start, dtype="float32", name="logits"
    )(x)
    activation = "sigmoid" if outputs == 1 else "softmax"
    return layers.Activation(activation, dtype="float32", name="probability")(logits)


def _double(x, axis: int):
    length = ops.shape(x)[axis]
    first, last = _slice(x, axis, 0, 1), _slice(x, axis, length - 1, length)
    before = ops.concatenate([first, _slice(x, axis, 0, length - 1)], axis=axis)
    after = ops.concatenate([_slice(x, axis, 1, length), last], axis=axis)
    near = 0.75 * x
    pairs = ops.stack([near + 0.25 * before, near + 0.25 * after], axis=axis + 1)
    shape = list(ops.shape(x))
    shape[axis] = 2 * length
    return ops.reshape(pairs, shape)


def _slice(x, axis: int, start, stop):
    return x[:, start:stop] if axis == 1 else x[:, :, start:stop]
