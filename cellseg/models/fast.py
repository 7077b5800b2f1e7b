"""Fast layers: batch normalisation, dropout and bilinear upsampling by TensorFlow's own kernels where those win.

Each computes what the Keras layer of its kind computes, and is that layer on JAX and PyTorch. Networks are put
together in `cellseg.models.blocks` and its neighbours; the figures stand in `docs/performance.md`.
"""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="cellseg")
class BatchNormalization(layers.BatchNormalization):
    """`keras.layers.BatchNormalization`; on TensorFlow one kernel each way instead of a dozen passes over the features.

    Weights, moving statistics and arguments are those of the Keras layer.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise a batch of feature maps."""
        plain = mask is not None or self.renorm or self.synchronized or self.axis not in (-1, len(inputs.shape) - 1)
        if not (training and self.trainable) or plain or len(inputs.shape) != 4 or not _fused(inputs.dtype):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma if self.scale else tf.ones(channels),
            self.beta if self.center else tf.zeros(channels),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel gives the unbiased variance, n / (n - 1) times that of Keras.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="cellseg")
class Dropout(layers.Dropout):
    """`keras.layers.Dropout` without a `noise_shape`; on TensorFlow the mask is drawn as integers.

    Keras draws numbers in [0, 1) and rounds; that took five times as long as the ReLU before it.
    """

    def call(self, inputs, training=False):
        """Zero a share of the features and scale the others up."""
        if not training or not 0 < self.rate < 1 or self.noise_shape is not None or not _fused(inputs.dtype):
            return super().call(inputs, training=training)
        import tensorflow as tf

        seed = tf.cast(tf.convert_to_tensor(self.seed_generator.next()), tf.int32)
        bits = tf.random.stateless_uniform(tf.shape(inputs), seed, minval=None, maxval=None, dtype=tf.int32)
        first_kept = round(self.rate * 2**32) - 2**31  # bits are uniform over all int32
        kept = tf.cast(bits >= min(first_kept, 2**31 - 1), inputs.dtype)
        return inputs * (kept * tf.cast(1 / (1 - self.rate), inputs.dtype))


@keras.saving.register_keras_serializable(package="cellseg")
class BilinearUpsampling(layers.Layer):
    """Twice the height and width by bilinear interpolation, half-pixel centres, edges repeated.

    (N, H, W, C) -> (N, 2H, 2W, C), equal to `UpSampling2D(interpolation="bilinear")`. Along each axis every new pixel
    is 0.75 of the old pixel that it lies in + 0.25 of the nearer neighbour.
    """

    # Not Keras' layer: 3.15's fails in TensorFlow graphs for a second image size (keras/src/ops/image.py).

    def call(self, inputs):
        """Upsample a batch of feature maps."""
        if not _fused(inputs.dtype):
            return _double(_double(inputs, axis=1), axis=2)
        import tensorflow as tf

        doubled = tf.raw_ops.ResizeBilinear(images=inputs, size=2 * tf.shape(inputs)[1:3], half_pixel_centers=True)
        height, width, channels = inputs.shape[1:]
        doubled.set_shape((inputs.shape[0], height and 2 * height, width and 2 * width, channels))
        return tf.cast(doubled, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """(N, H, W, C) -> (N, 2H, 2W, C); unknown sides stay unknown."""
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, channels)


def _fused(dtype) -> bool:
    """Whether TensorFlow runs and its kernels keep this precision."""
    return keras.backend.backend() == "tensorflow" and keras.backend.standardize_dtype(dtype) != "float64"


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
