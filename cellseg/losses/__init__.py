"""Losses: what training minimises, as plain callables `loss(y_true, logits, weight_map)`.

Cross-entropies live in `pixels`, Dice and Tversky in `regions`, sums of them in `compound`. Weight maps are made in
`pipelines`; measures of finished labels live in `cellseg.metrics`.

Every loss takes
    y_true: float (N, h, w, K); K = 1: 1 = foreground; K > 1: one-hot, channel 0 = background.
    logits: float (N, h, w, K), before sigmoid (K = 1) or softmax; all arithmetic is in float32.
    weight_map: float (N, h, w, 1) or None = one everywhere; weight 0 = unannotated.
and returns a float32 scalar, the mean over the images of the batch. A pixel of weight 0 changes nothing. The weight
map multiplies the pixel-wise terms alone: a region term (Dice, Tversky) multiplied by it would only be scaled by the
map's mean (seen with Keras 3.15 `sample_weight`), so regions take the map as a mask of annotated pixels.

Each class also has `resolved(foreground_fraction, class_fractions)`: its keywords with every None replaced by the value
for the measured data, which a run stores.
"""

from cellseg.losses.compound import LOSSES, DeepSupervision, Sum, TverskyBCE
from cellseg.losses.pixels import BCE, CategoricalCE, binary_cross_entropy, categorical_cross_entropy
from cellseg.losses.regions import Dice, FocalTversky, Tversky, dice_coefficient, tversky_index

__all__ = [
    "BCE",
    "LOSSES",
    "CategoricalCE",
    "DeepSupervision",
    "Dice",
    "FocalTversky",
    "Sum",
    "Tversky",
    "TverskyBCE",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "dice_coefficient",
    "tversky_index",
]
