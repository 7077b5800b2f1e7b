"""Keras metrics that watch a network during `fit`: Dice, IoU and accuracy at a threshold, over all batches so far.

They give the numbers of `cellseg.metrics.pixel` for the same pixels, pooled over the epoch. This room imports Keras, so
`cellseg.metrics` does not import it.

Every metric takes what a loss takes (`cellseg.losses`):
    y_true: (N, h, w, 1), 1 = foreground; or one-hot (N, h, w, K), channel 0 = background.
    y_pred: the same shape: logits, or probabilities with from_logits=False. With K > 1, foreground is where the
        background's probability is below 1 - threshold (for logits, after softmax).
    sample_weight: (N, h, w, 1), the weight map, or None. Weight 0 = unannotated: left out. Other weights do not matter,
        because a measure counts every annotated pixel once.
"""

from typing import Any

import keras
from keras import ops

# float32 counts exactly up to 2**24 only: what is above 2**20 moves to a second counter, of 2**20 each.
CARRY = 2.0**20


class _Confusion(keras.metrics.Metric):
    """Counts of pixels (tp, fp, fn, tn); the result is made from them as in `cellseg.metrics.pixel`.

    Args:
        threshold: Foreground is where the probability is greater.
        from_logits: Whether `y_pred` is before the activation.
        name: In the logs of `fit`.
    """

    def __init__(self, *, threshold: float = 0.5, from_logits: bool = True, name: str | None = None) -> None:
        # Counts are kept in float32 under every precision policy.
        super().__init__(name=name, dtype="float32")
        self.threshold = float(threshold)
        self.from_logits = from_logits
        self._ones = self.add_weight(shape=(4,), initializer="zeros", name="ones")
        self._carried = self.add_weight(shape=(4,), initializer="zeros", name="carried")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch."""
        y_true, y_pred = (ops.cast(ops.convert_to_tensor(values), "float32") for values in (y_true, y_pred))
        if y_true.shape[-1] == 1:
            probability = ops.sigmoid(y_pred) if self.from_logits else y_pred
            predicted, true = probability > self.threshold, y_true > 0.5
        else:
            probability = ops.softmax(y_pred, axis=-1) if self.from_logits else y_pred
            predicted, true = probability[..., :1] < 1 - self.threshold, y_true[..., :1] < 0.5
        counted = ops.ones_like(true) if sample_weight is None else _annotated(sample_weight, true)
        kinds = (true & predicted, ~true & predicted, true & ~predicted, ~true & ~predicted)
        counts = self._ones + ops.stack([ops.sum(ops.cast(kind & counted, "float32")) for kind in kinds])
        carried = ops.floor(counts / CARRY)
        self._carried.assign(self._carried + carried)
        self._ones.assign(counts - CARRY * carried)

    def reset_state(self) -> None:
        """Forget all batches."""
        for counter in (self._ones, self._carried):
            counter.assign(ops.zeros((4,), "float32"))

    def get_config(self) -> dict:
        """Keywords that make the metric again."""
        return {"name": self.name, "threshold": self.threshold, "from_logits": self.from_logits}

    def _counts(self) -> list[Any]:
        counts = self._ones + CARRY * self._carried
        return [counts[kind] for kind in range(4)]


class StreamingDice(_Confusion):
    """`cellseg.metrics.dice` of all pixels so far: 2 TP / (2 TP + FP + FN); 1 where there is no foreground at all."""

    def result(self) -> Any:
        """Scalar float32; NaN without an annotated pixel."""
        tp, fp, fn, tn = self._counts()
        return _ratio(2 * tp, 2 * tp + fp + fn, tn)


class StreamingIoU(_Confusion):
    """`cellseg.metrics.iou` of all pixels so far: TP / (TP + FP + FN); 1 where there is no foreground at all."""

    def result(self) -> Any:
        """Scalar float32; NaN without an annotated pixel."""
        tp, fp, fn, tn = self._counts()
        return _ratio(tp, tp + fp + fn, tn)


class StreamingAccuracy(_Confusion):
    """`cellseg.metrics.pixel_accuracy` of all pixels so far: (TP + TN) / all."""

    def result(self) -> Any:
        """Scalar float32; NaN without an annotated pixel."""
        tp, fp, fn, tn = self._counts()
        return _ratio(tp + tn, tp + fp + fn + tn, 0 * tn)


def _annotated(sample_weight: Any, like: Any) -> Any:
    weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    if len(weight.shape) < len(like.shape):
        weight = weight[..., None]
    return ops.broadcast_to(weight > 0, ops.shape(like))


def _ratio(numerator: Any, denominator: Any, background: Any) -> Any:
    """numerator / denominator; without a denominator 1 if there is background, else NaN."""
    undefined = ops.where(background > 0, 1.0, float("nan"))
    return ops.where(denominator > 0, numerator / ops.maximum(denominator, 1.0), undefined)


STREAMING = {"dice": StreamingDice, "iou": StreamingIoU, "pixel_accuracy": StreamingAccuracy}
