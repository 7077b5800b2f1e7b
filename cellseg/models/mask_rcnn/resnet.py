"""ResNet backbones: an image to the features of its four stages, at strides 4, 8, 16 and 32.

The pyramid over them lives in `cellseg.models.mask_rcnn.pyramid`. Layers are named as torchvision names them, so that
its weights can be brought over.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers

from cellseg.models.blocks import BATCH_NORM_MOMENTUM
from cellseg.models.fast import BatchNormalization

EPSILON = 1e-5
# Mean and deviation of ImageNet's channels in [0, 1]; images of another number of channels take those of grey.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226


def resnet(image, *, depth: int, width: int, batch_norm: str) -> list[Any]:
    """Features of the four stages of a ResNet, [C2, C3, C4, C5], of an image (N, H, W, C) in [0, 1].

    Strided convolutions pad both sides alike, and in a bottleneck it is the 3x3 one that strides, as in torchvision.

    Args:
        image: Keras tensor.
        depth: 18 or 50.
        width: Channels of the first stage; 64 is the published network.
        batch_norm: `trainable`, or `frozen`: scale, shift and moving statistics stay as they are.

    Reference:
        He, Zhang, Ren, Sun 2016, https://arxiv.org/abs/1512.03385
    """
    unit, counts = BACKBONES[depth]
    frozen = batch_norm == "frozen"
    x = _standardise(image)
    x = _normalise(_convolve(x, width, 7, strides=2, name="conv1"), frozen=frozen, name="bn1")
    x = layers.ReLU(name="relu")(x)
    # Zeros do for padding: after a ReLU nothing is less.
    x = layers.MaxPooling2D(3, 2, name="maxpool")(layers.ZeroPadding2D(1, name="maxpool_pad")(x))
    stages = []
    for stage, count in enumerate(counts):
        for block in range(count):
            strides = 2 if stage > 0 and block == 0 else 1
            x = unit(x, width * 2**stage, strides=strides, frozen=frozen, name=f"layer{stage + 1}_{block}")
        stages.append(x)
    return stages


def _standardise(image):
    channels = image.shape[-1]
    mean, deviation = (MEAN, DEVIATION) if channels == 3 else ([GREY_MEAN] * channels, [GREY_DEVIATION] * channels)
    scale = 1 / np.asarray(deviation)
    return layers.Rescaling(scale.tolist(), (-np.asarray(mean) * scale).tolist(), name="standardise")(image)


def _basic(x, filters: int, *, strides: int, frozen: bool, name: str):
    y = _normalise(_convolve(x, filters, 3, strides=strides, name=f"{name}_conv1"), frozen=frozen, name=f"{name}_bn1")
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = _normalise(_convolve(y, filters, 3, name=f"{name}_conv2"), frozen=frozen, name=f"{name}_bn2")
    return _join(x, y, strides=strides, frozen=frozen, name=name)


def _bottleneck(x, filters: int, *, strides: int, frozen: bool, name: str):
    y = x
    for part, (channels, size, step) in enumerate(((filters, 1, 1), (filters, 3, strides), (4 * filters, 1, 1)), 1):
        y = _convolve(y, channels, size, strides=step, name=f"{name}_conv{part}")
        y = _normalise(y, frozen=frozen, name=f"{name}_bn{part}")
        if part < 3:
            y = layers.ReLU(name=f"{name}_relu{part}")(y)
    return _join(x, y, strides=strides, frozen=frozen, name=name)


def _join(x, y, *, strides: int, frozen: bool, name: str):
    """Sum of a block's input, brought to the size of its answer, and its answer."""
    if strides > 1 or x.shape[-1] != y.shape[-1]:
        x = _convolve(x, y.shape[-1], 1, strides=strides, name=f"{name}_downsample_0")
        x = _normalise(x, frozen=frozen, name=f"{name}_downsample_1")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def _convolve(x, filters: int, size: int, *, name: str, strides: int = 1):
    if size > 1 and strides > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _normalise(x, *, frozen: bool, name: str):
    norm = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=EPSILON, trainable=not frozen, name=name)
    return norm(x)


BACKBONES: dict[int, tuple[Callable, tuple[int, ...]]] = {18: (_basic, (2, 2, 2, 2)), 50: (_bottleneck, (3, 4, 6, 3))}
