"""Pixel-wise losses: cross-entropies, weighted by class and by the weight map.

Losses of whole regions live in `cellseg.losses.regions`.
"""

from collections.abc import Sequence
from typing import Literal

from keras import ops

from pipelines.advice import balanced_weights
from pipelines.errors import InputError


class BCE:
    """Binary cross-entropy, weighted by class and by the weight map.

    Args:
        foreground_weight: How much a foreground pixel counts. None = from the foreground fraction.
        background_weight: How much a background pixel counts. None = from the foreground fraction.
    """

    def __init__(self, *, foreground_weight: float | None = 1.0, background_weight: float | None = 1.0):
        check_not_negative(foreground_weight=foreground_weight, background_weight=background_weight)
        self.foreground_weight, self.background_weight = foreground_weight, background_weight

    def resolved(self, foreground_fraction: float, class_fractions: Sequence[float] | None = None) -> dict[str, float]:
        """The keywords with every None replaced by the value for this foreground fraction."""
        suggested = balanced_weights(foreground_fraction)
        return {name: suggested[name] if value is None else value for name, value in vars(self).items()}

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        y_true, logits, weight_map = float32(y_true, logits, weight_map)
        return ops.mean(binary_cross_entropy(y_true, logits, weight_map, **self.resolved(0.5)))


class CategoricalCE:
    """Cross-entropy of a softmax over K classes, weighted by class and by the weight map.

    Args:
        class_weights: How much a pixel of each class counts, background first; "frequency": the reciprocal of each
            class's share of the training pixels, scaled so that the mean pixel counts 1; None = 1 each.
    """

    def __init__(self, *, class_weights: list[float] | Literal["frequency"] | None = None):
        if isinstance(class_weights, list):
            check_not_negative(**{f"class_weights[{n}]": weight for n, weight in enumerate(class_weights)})
        self.class_weights = class_weights

    def resolved(
        self, foreground_fraction: float, class_fractions: Sequence[float] | None = None
    ) -> dict[str, list[float] | None]:
        """The keywords with "frequency" replaced by the weights for these shares of the classes."""
        if self.class_weights != "frequency":
            return {"class_weights": self.class_weights}
        shares = class_fractions or (1 - foreground_fraction, foreground_fraction)
        present = [share for share in shares if share > 0]
        # Each class then counts as much as another: a share s with weight 1 / (n s) adds up to 1 / n.
        return {"class_weights": [round(1 / (len(present) * share), 4) if share > 0 else 0.0 for share in shares]}

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        y_true, logits, weight_map = float32(y_true, logits, weight_map)
        weights = self.class_weights if isinstance(self.class_weights, list) else None
        return ops.mean(categorical_cross_entropy(y_true, logits, weight_map, class_weights=weights))


def binary_cross_entropy(y_true, logits, weight_map=None, *, foreground_weight=1.0, background_weight=1.0):
    """Weighted mean over the pixels of each image of -[g log p + (1 - g) log(1 - p)], (N,), from logits.

    Stable for any logit: max(z, 0) - z g + log(1 + exp(-|z|)). The sum is divided by the number of annotated pixels,
    so the weights set the scale; an image without annotated pixels gives 0.
    """
    if logits.shape[-1] != 1:
        raise InputError(
            f"A binary cross-entropy takes one output channel, got {logits.shape[-1]}. Use loss categorical_ce "
            "(loss.name, or a sum of it and dice); the default, tversky_bce, is for one channel."
        )
    entropy = ops.maximum(logits, 0.0) - logits * y_true + ops.log1p(ops.exp(-ops.abs(logits)))
    weights = foreground_weight * y_true + background_weight * (1.0 - y_true)
    return _mean_over_pixels(weights * entropy, weight_map)


def categorical_cross_entropy(y_true, logits, weight_map=None, *, class_weights: Sequence[float] | None = None):
    """Weighted mean over the pixels of each image of -sum_k w_k g_k log p_k, (N,), p = softmax of the logits.

    Divided by the number of annotated pixels, as `binary_cross_entropy`.
    """
    num_classes = logits.shape[-1]
    if num_classes < 2:
        raise InputError("A categorical cross-entropy takes two output channels or more, got 1. Use loss bce.")
    if class_weights is not None:
        if len(class_weights) != num_classes:
            raise InputError(
                f"loss.class_weights has {len(class_weights)} entries, but the network has {num_classes} channels "
                "(background first). Give one for each."
            )
        y_true = y_true * ops.convert_to_tensor(list(class_weights), "float32")
    entropy = -ops.sum(y_true * ops.log_softmax(logits, axis=-1), axis=-1, keepdims=True)
    return _mean_over_pixels(entropy, weight_map)


def annotated(weight_map):
    """1 where a pixel is annotated (weight > 0), 0 elsewhere; None stays None."""
    return None if weight_map is None else ops.cast(weight_map > 0, "float32")


def float32(*arrays):
    """Each array as float32; None stays None."""
    return [None if array is None else ops.cast(array, "float32") for array in arrays]


def check_not_negative(**values: float | None) -> None:
    """Raise InputError for a keyword of a loss that is below 0."""
    for name, value in values.items():
        if value is not None and not value >= 0:
            raise InputError(f"loss.{name} must be >= 0, got {value}.")


def _mean_over_pixels(entropy, weight_map):
    axes = (1, 2, 3)
    if weight_map is None:
        return ops.mean(entropy, axis=axes)
    num_pixels = ops.sum(annotated(weight_map), axis=axes)
    return ops.sum(weight_map * entropy, axis=axes) / ops.maximum(num_pixels, 1.0)
