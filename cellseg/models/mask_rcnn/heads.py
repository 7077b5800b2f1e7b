"""Heads: what a region's features say of its class, its box and its mask.

Regions are cut in `cellseg.models.mask_rcnn.align`; the losses on the answers live in `losses`.
"""

import keras
from keras import Model, layers


def box_head(*, size: int, channels: int, features: int, classes: int) -> Model:
    """Region (size, size, channels) -> class logits (classes + 1), background first, and box codes (classes + 1, 4).

    Two dense layers of `features`, as torchvision; the background's codes are there and never used.
    """
    region = layers.Input((size, size, channels), name="region")
    x = layers.Flatten(name="flatten")(region)
    for layer in (6, 7):
        x = layers.Dense(features, activation="relu", kernel_initializer="he_uniform", name=f"fc{layer}")(x)
    start = {
        "class": keras.initializers.RandomNormal(stddev=0.01),
        "code": keras.initializers.RandomNormal(stddev=0.001),
    }
    logits = layers.Dense(classes + 1, kernel_initializer=start["class"], dtype="float32", name="class")(x)
    codes = layers.Dense(4 * (classes + 1), kernel_initializer=start["code"], dtype="float32", name="code")(x)
    codes = layers.Reshape((classes + 1, 4), dtype="float32", name="codes")(codes)
    return Model(region, [logits, codes], name="box_head")


def mask_head(*, size: int, channels: int, features: int, depth: int, classes: int) -> Model:
    """Region (size, size, channels) -> mask logits (2 size, 2 size, classes + 1), one mask a class, background first.

    `depth` 3x3 convolutions of `features`, a 2x2 up-convolution and a 1x1 convolution; the background's mask is there,
    as in torchvision, and never used.
    """
    region = layers.Input((size, size, channels), name="region")
    x = region
    for layer in range(1, depth + 1):
        x = layers.Conv2D(
            features, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"mask_fcn{layer}"
        )(x)
    x = layers.Conv2DTranspose(
        features, 2, strides=2, activation="relu", kernel_initializer="he_normal", name="conv5_mask"
    )(x)
    logits = layers.Conv2D(classes + 1, 1, kernel_initializer="he_normal", dtype="float32", name="mask_fcn_logits")(x)
    return Model(region, logits, name="mask_head")
