"""Feature pyramid: the backbone's stages brought to equally many channels, each enriched from above.

Backbones live in `cellseg.models.mask_rcnn.resnet`; regions are cut from the pyramid in `align`.
"""

from typing import Any

from keras import layers


def pyramid(stages: list[Any], *, filters: int, levels: int) -> list[Any]:
    """The first `levels` of P2 to P6 (stride 4 to 64) of the stages [C2, C3, C4, C5].

    Each stage gets a 1x1 convolution, the level above is added by nearest-neighbour doubling, and a 3x3 convolution
    follows; P6 is every second cell of P5. Fewer levels are enriched from the stages above all the same.

    Reference:
        Lin et al. 2017, https://arxiv.org/abs/1612.03144
    """
    lateral = [_convolve(stage, filters, 1, name=f"fpn_inner{level}") for level, stage in enumerate(stages)]
    for level in reversed(range(len(stages) - 1)):
        above = layers.UpSampling2D(2, name=f"fpn_up{level}")(lateral[level + 1])
        lateral[level] = layers.Add(name=f"fpn_add{level}")([lateral[level], above])
    features = [_convolve(x, filters, 3, name=f"fpn_layer{level}") for level, x in enumerate(lateral[:levels])]
    if levels > len(stages):
        features.append(layers.MaxPooling2D(1, 2, name="fpn_pool")(features[-1]))
    return features


def _convolve(x, filters: int, size: int, *, name: str):
    return layers.Conv2D(filters, size, padding="same", kernel_initializer="he_uniform", name=name)(x)
