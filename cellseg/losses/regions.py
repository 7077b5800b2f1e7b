"""Region losses: overlap of the predicted area with the true one.

Pixel-wise losses live in `cellseg.losses.pixels`.
"""

from collections.abc import Sequence

from keras import ops

from cellseg.losses.pixels import annotated, check_not_negative, float32

EPSILON = 1e-7


class Dice:
    """Dice loss, 1 - Dice coefficient of each image; empty truth and empty prediction together cost 0.

    Args:
        squared: False: Sorensen, 2 sum(pg) / (sum p + sum g). True: V-Net, 2 sum(pg) / (sum p^2 + sum g^2).
        pooled: Count the pixels of the whole batch together instead of those of each image.

    Reference:
        Milletari, Navab, Ahmadi 2016 (V-Net), https://arxiv.org/abs/1606.04797
    """

    def __init__(self, *, squared: bool = False, pooled: bool = False):
        self.squared, self.pooled = squared, pooled

    def resolved(self, foreground_fraction: float, class_fractions: Sequence[float] | None = None) -> dict[str, bool]:
        """The keywords; nothing here depends on the data."""
        return dict(vars(self))

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        y_true, logits, weight_map = float32(y_true, logits, weight_map)
        return ops.mean(1.0 - dice_coefficient(y_true, probability(logits), annotated(weight_map), **vars(self)))


class Tversky:
    """Tversky loss, 1 - TP / (TP + alpha FP + beta FN) of each image; both empty cost 0.

    Args:
        alpha: Cost of a false positive.
        beta: Cost of a false negative.
        pooled: Count the pixels of the whole batch together instead of those of each image.

    Reference:
        Salehi, Erdogmus, Gholipour 2017, https://arxiv.org/abs/1706.05721
    """

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, pooled: bool = False):
        check_not_negative(alpha=alpha, beta=beta)
        self.alpha, self.beta, self.pooled = alpha, beta, pooled

    def resolved(
        self, foreground_fraction: float, class_fractions: Sequence[float] | None = None
    ) -> dict[str, float | bool]:
        """The keywords; nothing here depends on the data."""
        return dict(vars(self))

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        return ops.mean(1.0 - self._index(y_true, logits, weight_map))

    def _index(self, y_true, logits, weight_map):
        y_true, logits, weight_map = float32(y_true, logits, weight_map)
        return tversky_index(
            y_true,
            probability(logits),
            annotated(weight_map),
            alpha=self.alpha,
            beta=self.beta,
            pooled=self.pooled,
        )


class FocalTversky(Tversky):
    """Focal Tversky loss, (1 - Tversky index) ** power of each image.

    Args:
        alpha: Cost of a false positive.
        beta: Cost of a false negative.
        power: Below 1, images that are nearly right keep a large gradient; the paper writes 1 / gamma.
        pooled: Count the pixels of the whole batch together instead of those of each image.

    Reference:
        Abraham, Khan 2019, https://arxiv.org/abs/1810.07842 (gamma = 4/3, so power = 0.75)
    """

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, power: float = 0.75, pooled: bool = False):
        super().__init__(alpha=alpha, beta=beta, pooled=pooled)
        check_not_negative(power=power)
        self.power = power

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        # At exactly 0 the gradient of a power below 1 is infinite.
        return ops.mean(ops.maximum(1.0 - self._index(y_true, logits, weight_map), EPSILON) ** self.power)


def tversky_index(y_true, probability, mask=None, *, alpha: float, beta: float, pooled: bool = False):
    """TP / (TP + alpha FP + beta FN) of each image, (N,); empty truth and empty prediction give 1.

    Of several classes the mean of their indices. alpha weighs false positives, beta false negatives (Keras' letters;
    the focal Tversky authors use them the other way round).

    Args:
        y_true: float (N, h, w, K).
        probability: float (N, h, w, K).
        mask: (N, h, w, 1), 1 on annotated pixels; None = everywhere.
        alpha, beta: The two costs.
        pooled: Count the whole batch as one image; the answer is a scalar.
    """
    if mask is None:
        mask = 1.0
    else:
        y_true, probability = y_true * mask, probability * mask
    true_positive = _total(y_true * probability, pooled)
    false_positive = _total((1.0 - y_true) * probability, pooled)
    false_negative = _total(y_true * (mask - probability), pooled)
    total = true_positive + alpha * false_positive + beta * false_negative
    return ops.mean((true_positive + EPSILON) / (total + EPSILON), axis=-1)


def dice_coefficient(y_true, probability, mask=None, *, squared: bool = False, pooled: bool = False):
    """2 sum(pg) / (sum p + sum g) of each image, (N,), or with squares in the denominator (V-Net); both empty: 1.

    Arguments as in `tversky_index`.
    """
    if mask is not None:
        y_true, probability = y_true * mask, probability * mask
    overlap = _total(y_true * probability, pooled)
    power = 2 if squared else 1
    total = _total(y_true**power + probability**power, pooled)
    return ops.mean((2.0 * overlap + EPSILON) / (total + EPSILON), axis=-1)


def probability(logits):
    """Sigmoid of one channel, softmax over several."""
    return ops.sigmoid(logits) if logits.shape[-1] == 1 else ops.softmax(logits, axis=-1)


def _total(values, pooled: bool):
    """Sums over the pixels of each image and class (N, K), or of the batch (K,)."""
    return ops.sum(values, axis=(0, 1, 2) if pooled else (1, 2))
