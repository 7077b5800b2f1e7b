"""Compound losses: weighted sums of pixel-wise and region terms.

The weight map reaches each term as that term takes it; the terms themselves live in `pixels` and `regions`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from cellseg.losses.pixels import BCE, CategoricalCE, annotated, binary_cross_entropy, check_not_negative, float32
from cellseg.losses.regions import Dice, FocalTversky, Tversky, tversky_index
from cellseg.named import build
from pipelines.advice import balanced_weights
from pipelines.errors import InputError


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
        check_not_negative(
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

    def resolved(self, foreground_fraction: float, class_fractions: Sequence[float] | None = None) -> dict[str, float]:
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
        y_true, logits, weight_map = float32(y_true, logits, weight_map)
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


class Sum:
    """Weighted sum of other losses: `{name: sum, terms: [{name: dice}, {name: bce, weight: 0.5}]}`.

    Args:
        terms: For each its `name`, its own keywords, its `weight` in the sum (1 if left out), and the `channel` that it
            looks at (all if left out): those of target foreground_distance are two questions, not two classes.

    Raises:
        InputError: no term, an unknown or nested one, a negative weight, or a channel that the network does not have;
            the message names the entry.
    """

    def __init__(self, *, terms: list[dict[str, Any]]):
        if not terms:
            raise InputError("loss.terms is empty; at least one loss, such as {name: dice}, was expected.")
        self._terms: list[tuple[dict[str, Any], Any]] = []
        for place, term in enumerate(terms):
            options = dict(term)
            key = f"loss.terms[{place}]"
            weight = options.pop("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
                raise InputError(f"{key}.weight must be a number >= 0, got {weight!r}.")
            about: dict[str, Any] = {"name": str(options.get("name")), "weight": float(weight)}
            if "channel" in options:
                about["channel"] = _checked_channel(options.pop("channel"), key=f"{key}.channel")
            self._terms.append((about, build(TERMS, options, key=key)))

    def resolved(self, foreground_fraction: float, class_fractions: Sequence[float] | None = None) -> dict[str, Any]:
        """The terms with every None in them replaced by the value for these fractions."""
        return {
            "terms": [{**about, **loss.resolved(foreground_fraction, class_fractions)} for about, loss in self._terms]
        }

    def __call__(self, y_true, logits, weight_map=None):
        """Scalar loss of a batch."""
        total = 0.0
        for place, (about, loss) in enumerate(self._terms):
            channel = about.get("channel")
            if channel is not None and channel >= logits.shape[-1]:
                raise InputError(
                    f"loss.terms[{place}].channel is {channel}, but the network has {logits.shape[-1]} output "
                    "channel(s), counted from 0."
                )
            part = slice(None) if channel is None else slice(channel, channel + 1)
            total = total + about["weight"] * loss(y_true[..., part], logits[..., part], weight_map)
        return total


class DeepSupervision:
    """A loss on a network's own answer and on those of its auxiliary classifiers: loss + weight * sum(auxiliary).

    Args:
        loss: (y_true, logits, weight_map) -> scalar, for every answer alike.

    Reference:
        Chen, Qi, Cheng, Heng 2016 (DMCN), eq. 1, who let the auxiliary weight decay while training goes on; Lee et al.
        2015, https://arxiv.org/abs/1409.5185
    """

    def __init__(self, loss: Callable[..., Any]):
        self._loss = loss

    def __call__(self, y_true, logits, weight_map=None, *, auxiliary_weight=1.0):
        """Scalar loss of a batch; `logits` is a list, the network's own answer first."""
        own, *auxiliary = logits
        total = self._loss(y_true, own, weight_map)
        for answer in auxiliary:
            total = total + auxiliary_weight * self._loss(y_true, answer, weight_map)
        return total


def _checked_channel(channel: object, *, key: str) -> int:
    if isinstance(channel, bool) or not isinstance(channel, int) or channel < 0:
        raise InputError(f"{key} must be a whole number >= 0, got {channel!r}.")
    return channel


TERMS: dict[str, Callable[..., Any]] = {
    "bce": BCE,
    "categorical_ce": CategoricalCE,
    "dice": Dice,
    "tversky": Tversky,
    "focal_tversky": FocalTversky,
    "tversky_bce": TverskyBCE,
}
LOSSES: dict[str, Callable[..., Any]] = {**TERMS, "sum": Sum}
