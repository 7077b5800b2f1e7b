"""Losses: what training minimises, as plain callables `loss(y_true, logits, weight_map)`.

Weight maps are made in `pipelines`; measures of finished labels live in `cellseg.metrics`.

Every loss takes
    y_true: float (N, h, w, 1), 1 = foreground.
    logits: float (N, h, w, 1), before the sigmoid; all arithmetic is in float32.
    weight_map: float (N, h, w, 1) or None = one everywhere; weight 0 = unannotated.
and returns a float32 scalar, the mean over the images of the batch. A pixel of weight 0 changes nothing. The weight
map multiplies the pixel-wise terms alone: a region term (Dice, Tversky) multiplied by it would only be scaled by the
map's mean (seen with Keras 3.15 `sample_weight`), so regions take the map as a mask of annotated pixels.
"""

from keras import ops

from pipelines.advice import balanced_weights
from pipelines.errors import InputError

EPSILON = 1e-7
PIXEL_AXES = (1, 2, 3)


class TverskyBCE:
    """Tversky loss + weighted binary cross-entropy: `region_weight` * (1 - TI) + `pixel_weight` * BCE.

    Args:
        alpha: Cost of a false positive in the Tversky index. None = 1 - beta.
        beta: Cost of a false negative. None = 0.7 - 0.4 f for a foreground fraction f: 0.7 for sparse cells, and below
            a half where the background is the minority.
        foreground_weight: How much a foreground pixel counts in the cross-entropy. None = from f.
        background_weight: How much a background pixel counts. None = from f.
        region_weight: Share of the Tversky term.
        pixel_weight: Share of the cross-entropy.

    Reference:
        Salehi, Erdogmus, Gholipour 2017, https://arxiv.org/abs/1706.05721; None = `pipelines.advice.balanced_weights`.
    """

    def __init__(
        self,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        foreground_weight: float | None = None,
        background_weight: float | None = None,
        region_weight: float = 1.0,
        pixel_weight: float = 1.0,
    ):
        _check_not_negative(
            alpha=alpha,
            beta=beta,
            foreground_weight=foreground_weight,
            background_weight=background_weight,
            region_weight=region_weight,
            pixel_weight=pixel_weight,
        )
        self.alpha, self.beta = alpha, beta
        self.foreground_weight, self.background_weight = foreground_weight, background_weight
        self.region_weight, self.pixel_weight = region_weight, pixel_weight

    def resolved(self, foreground_fraction: float) -> dict[str, float]:
        """The keywords with every None replaced by the value for this foreground fraction."""
        suggested = balanced_weights(foreground_fraction)
        values = {
            name: suggested[name] if value is None else value for name, value in vars(self).items() if name in suggested
        }
        if self.alpha is None and self.beta is not None:
            values["alpha"] = max(0.0, 1.0 - self.beta)
        if self.beta is None and self.alpha is not None:
            values["beta"] = max(0.0, 1.0 - self.alpha)
        return values | {"region_weight": self.region_weight, "pixel_weight": self.pixel_weight}

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        values = self.resolved(0.5)
        y_true, logits, weight_map = _float32(y_true, logits, weight_map)
        index = tversky_index(
            y_true, ops.sigmoid(logits), annotated(weight_map), alpha=values["alpha"], beta=values["beta"]
        )
        pixels = binary_cross_entropy(
            y_true,
            logits,
            weight_map,
            foreground_weight=values["foreground_weight"],
            background_weight=values["background_weight"],
        )
        return ops.mean(self.region_weight * (1.0 - index) + self.pixel_weight * pixels)


class Dice:
    """Dice loss, 1 - Dice coefficient of each image; empty truth and empty prediction together cost 0.

    Args:
        squared: False: Sorensen, 2 sum(pg) / (sum p + sum g). True: V-Net, 2 sum(pg) / (sum p^2 + sum g^2).

    Reference:
        Milletari, Navab, Ahmadi 2016 (V-Net), https://arxiv.org/abs/1606.04797
    """

    def __init__(self, *, squared: bool = False):
        self.squared = squared

    def resolved(self, foreground_fraction: float) -> dict[str, bool]:
        """The keywords; nothing here depends on the data."""
        return {"squared": self.squared}

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        y_true, logits, weight_map = _float32(y_true, logits, weight_map)
        coefficient = dice_coefficient(y_true, ops.sigmoid(logits), annotated(weight_map), squared=self.squared)
        return ops.mean(1.0 - coefficient)


class BCE:
    """Binary cross-entropy, weighted by class and by the weight map.

    Args:
        foreground_weight: How much a foreground pixel counts. None = from the foreground fraction.
        background_weight: How much a background pixel counts. None = from the foreground fraction.
    """

    def __init__(self, *, foreground_weight: float | None = 1.0, background_weight: float | None = 1.0):
        _check_not_negative(foreground_weight=foreground_weight, background_weight=background_weight)
        self.foreground_weight, self.background_weight = foreground_weight, background_weight

    def resolved(self, foreground_fraction: float) -> dict[str, float]:
        """The keywords with every None replaced by the value for this foreground fraction."""
        suggested = balanced_weights(foreground_fraction)
        return {name: suggested[name] if value is None else value for name, value in vars(self).items()}

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        y_true, logits, weight_map = _float32(y_true, logits, weight_map)
        return ops.mean(binary_cross_entropy(y_true, logits, weight_map, **self.resolved(0.5)))


def tversky_index(y_true, probability, mask=None, *, alpha: float, beta: float):
    """TP / (TP + alpha FP + beta FN) of each image, (N,); empty truth and empty prediction give 1.

    alpha weighs false positives, beta false negatives (Keras' letters; the focal Tversky authors use them the other
    way round). `mask` is 1 on annotated pixels.
    """
    if mask is not None:
        y_true, probability = y_true * mask, probability * mask
    true_positive = ops.sum(y_true * probability, axis=PIXEL_AXES)
    false_positive = ops.sum((1.0 - y_true) * probability, axis=PIXEL_AXES)
    false_negative = ops.sum(y_true * (1.0 - probability), axis=PIXEL_AXES)
    if mask is not None:
        false_negative = ops.sum(y_true * (mask - probability), axis=PIXEL_AXES)
    return (true_positive + EPSILON) / (true_positive + alpha * false_positive + beta * false_negative + EPSILON)


def dice_coefficient(y_true, probability, mask=None, *, squared: bool = False):
    """2 sum(pg) / (sum p + sum g) of each image, (N,), or with squares in the denominator (V-Net); both empty: 1."""
    if mask is not None:
        y_true, probability = y_true * mask, probability * mask
    overlap = ops.sum(y_true * probability, axis=PIXEL_AXES)
    power = 2 if squared else 1
    total = ops.sum(y_true**power + probability**power, axis=PIXEL_AXES)
    return (2.0 * overlap + EPSILON) / (total + EPSILON)


def binary_cross_entropy(y_true, logits, weight_map=None, *, foreground_weight=1.0, background_weight=1.0):
    """Weighted mean over the pixels of each image of -[g log p + (1 - g) log(1 - p)], (N,), from logits.

    Stable for any logit: max(z, 0) - z g + log(1 + exp(-|z|)). The sum is divided by the number of annotated pixels,
    so the weights set the scale; an image without annotated pixels gives 0.
    """
    entropy = ops.maximum(logits, 0.0) - logits * y_true + ops.log1p(ops.exp(-ops.abs(logits)))
    weights = foreground_weight * y_true + background_weight * (1.0 - y_true)
    if weight_map is None:
        return ops.mean(weights * entropy, axis=PIXEL_AXES)
    num_pixels = ops.sum(annotated(weight_map), axis=PIXEL_AXES)
    return ops.sum(weight_map * weights * entropy, axis=PIXEL_AXES) / ops.maximum(num_pixels, 1.0)


def annotated(weight_map):
    """1 where a pixel is annotated (weight > 0), 0 elsewhere; None stays None."""
    return None if weight_map is None else ops.cast(weight_map > 0, "float32")


def _float32(*arrays):
    return [None if array is None else ops.cast(array, "float32") for array in arrays]


def _check_not_negative(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value >= 0:
            raise InputError(f"loss.{name} must be >= 0, got {value}.")


LOSSES = {"bce": BCE, "dice": Dice, "tversky_bce": TverskyBCE}
