"""Callbacks: what watches a training, judges it on whole validation images, and says loudly when it goes wrong.

The training itself is set up in `cellseg.training`.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import keras
import numpy as np

from cellseg import answers
from cellseg.thresholds import ThresholdCurve
from pipelines.errors import InputError

MONITOR = "val_dice"
CLASS_MONITOR = "val_class_dice"


@dataclass
class ValidationImage:
    """One whole image to judge by: stretched or raw image as the predictor wants it, truth, unannotated pixels.

    `classes` is the class of each pixel in a cell, 0 = background or a cell of unknown class; None without classes.
    `labels` is the truth for networks that find cells one by one; None for others.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    limits: tuple[float, float]
    ignore: np.ndarray | None = None
    classes: np.ndarray | None = None
    labels: np.ndarray | None = None


class WholeImageValidation(keras.callbacks.Callback):
    """Predicts whole validation images after each epoch and adds to the logs:

    val_dice: pooled Dice at the best threshold of the epoch (the run's threshold is tuned the same way in the end);
    val_dice_half: pooled Dice at threshold 0.5; val_foreground_ratio: drawn / true foreground at 0.5.
    val_class_dice, with classes: mean over the classes present of the pooled Dice of the most probable class; a cell of
    unknown class has no vote.

    Must come before every callback that reads these. Crops would flatter: they have no borders and no empty frames.

    Args:
        images: Gives the validation images anew each time; they are not all kept in memory.
        probability: ValidationImage -> float32 (H, W, K), with the current weights.
        examples: How many answers to keep for pictures.
        foreground: Answer -> probability of foreground, float32 (H, W); None = `cellseg.answers.foreground`.
        num_classes: Number of classes without background; 0 = none.
    """

    def __init__(
        self,
        images: Callable[[], Iterable[ValidationImage]],
        probability: Callable[[ValidationImage], np.ndarray],
        *,
        examples: int = 3,
        foreground: Callable[[np.ndarray], np.ndarray] | None = None,
        num_classes: int = 0,
    ):
        super().__init__()
        self._images, self._probability, self._examples = images, probability, examples
        self._foreground, self._num_classes = foreground or answers.foreground, num_classes
        self.monitor = CLASS_MONITOR if num_classes else MONITOR
        self.curve = ThresholdCurve()
        self.examples: list[tuple[ValidationImage, np.ndarray]] = []

    def on_epoch_end(self, epoch, logs=None):
        """Judge the current weights."""
        self.curve, self.examples = ThresholdCurve(), []
        confusion = np.zeros((self._num_classes + 1, self._num_classes + 1))
        for image in self._images():
            answer = self._probability(image)
            if np.isnan(answer).any():
                raise InputError(
                    f"The network answers NaN after epoch {epoch + 1}: its weights have blown up. Lower "
                    "train.learning_rate, or look for images with extreme values."
                )
            probability = self._foreground(answer)
            self.curve.add(image.mask, probability, image.ignore)
            confusion += self._confusion(image, answer)
            if len(self.examples) < self._examples:
                self.examples.append((image, probability))
        half = int(np.argmin(np.abs(self.curve.thresholds - 0.5)))
        logs[MONITOR] = float(np.max(self.curve.dice))
        logs["val_dice_half"] = float(self.curve.dice[half])
        logs["val_foreground_ratio"] = float(self.curve.foreground_ratio[half])
        if self._num_classes:
            hits, total = confusion.diagonal()[1:], (confusion.sum(axis=0) + confusion.sum(axis=1))[1:]
            present = confusion.sum(axis=1)[1:] > 0
            logs[CLASS_MONITOR] = float(np.mean(2 * hits[present] / total[present])) if present.any() else 0.0

    def _confusion(self, image: ValidationImage, answer: np.ndarray) -> np.ndarray:
        """Pixels of true class i called class j."""
        size = self._num_classes + 1
        if image.classes is None or not self._num_classes:
            return np.zeros((size, size))
        known = ~(image.mask & (image.classes == 0))
        if image.ignore is not None:
            known &= ~image.ignore
        truth = np.where(image.mask, image.classes, 0)[known].astype(np.int64)
        return np.bincount(truth * size + answer.argmax(axis=2)[known], minlength=size**2).reshape(size, size)


@dataclass
class Warnings:
    """What went wrong, said on stderr at once and kept for the report."""

    messages: list[str] = field(default_factory=list)

    def say(self, message: str) -> None:
        """Print a message loudly, on a terminal or not, and keep it once."""
        if message not in self.messages:
            self.messages.append(message)
        print(f"\nWARNING: {message}\n", file=sys.stderr, flush=True)


class CollapseGuard(keras.callbacks.Callback):
    """Says loudly when the network answers (almost) nothing, or everything, for several epochs.

    Nothing: at threshold 0.5 less than `share` of the true foreground is drawn. Everything: less than `share` of the
    true background is left. Constant: no threshold does better than calling every pixel foreground.

    Args:
        validation: Holds this epoch's curve.
        warnings: Where to say it.
        patience: Epochs in a row.
        share: See above.
    """

    def __init__(self, validation: WholeImageValidation, warnings: Warnings, *, patience: int = 3, share: float = 0.02):
        super().__init__()
        self._validation, self._warnings = validation, warnings
        self._patience, self._share = patience, share
        self._epochs = 0
        self._told = ""

    def on_epoch_end(self, epoch, logs=None):
        """Count the epochs of collapse."""
        kind = self._kind(self._validation.curve)
        self._epochs = self._epochs + 1 if kind else 0
        if kind and self._epochs >= self._patience and kind != self._told:
            self._told = kind
            self._warnings.say(
                f"Collapse: up to epoch {epoch + 1} the network has answered {kind} for {self._epochs} epochs. Its "
                "scores mean nothing. Try a learning rate 10 times lower (train.learning_rate), a loss that weighs "
                "the rarer class more (loss.foreground_weight, loss.beta), and look at preview.png: labels that do "
                "not belong to the images teach exactly this."
            )
        elif not kind and self._told:
            self._warnings.say(f"The network has recovered from its collapse in epoch {epoch + 1}.")
            self._told = ""

    def _kind(self, curve: ThresholdCurve) -> str:
        fraction = curve.foreground_fraction
        if math.isnan(fraction) or fraction in (0.0, 1.0):
            return ""
        drawn = curve.drawn_fraction[int(np.argmin(np.abs(curve.thresholds - 0.5)))]
        trivial = 2 * fraction / (1 + fraction)  # Dice of calling every pixel foreground
        if np.nanmax(curve.dice) <= trivial + 0.005:
            return "the same everywhere (no threshold beats calling every pixel foreground)"
        if drawn < self._share * fraction:
            return "almost nothing but background"
        if 1 - drawn < self._share * (1 - fraction):
            return "almost everything foreground"
        return ""


class TimeBudget(keras.callbacks.Callback):
    """Ends training cleanly when its hours are spent, judged after each epoch with the time of the longest one."""

    def __init__(self, hours: float):
        super().__init__()
        self._seconds = hours * 3600
        self._longest = 0.0
        self._begin: float | None = None
        self.spent = False

    def on_train_begin(self, logs=None):
        """Start the clock, in the first of several phases alone."""
        self._epoch_begin = time.monotonic()
        if self._begin is None:
            self._begin = self._epoch_begin

    def on_epoch_end(self, epoch, logs=None):
        """Stop if another epoch would not fit."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._epoch_begin)
        self._epoch_begin = now
        begin = now if self._begin is None else self._begin
        if now - begin + self._longest > self._seconds:
            self.spent = self.model.stop_training = True


class AuxiliaryWeight(keras.callbacks.Callback):
    """Lets the weight of the auxiliary classifiers' losses fall: weight * decay ** epoch; nothing without them.

    Args:
        weight: In the first epoch.
        decay: Factor from epoch to epoch; None = such that the last epoch has a hundredth of the first.
        epochs: Of the whole training.
    """

    def __init__(self, weight: float, decay: float | None, epochs: int):
        super().__init__()
        self._weight = weight
        self._decay = 0.01 ** (1 / max(epochs - 1, 1)) if decay is None else decay

    def on_epoch_begin(self, epoch, logs=None):
        """Set this epoch's weight."""
        if self.model.auxiliary_weight is not None:
            self.model.auxiliary_weight.assign(self._weight * self._decay**epoch)

    def on_epoch_end(self, epoch, logs=None):
        """Write it down."""
        if self.model.auxiliary_weight is not None:
            logs["auxiliary_weight"] = self._weight * self._decay**epoch


class LearningRateLog(keras.callbacks.Callback):
    """Adds the learning rate at an epoch's end to the logs, where a schedule sets it step by step."""

    def on_epoch_end(self, epoch, logs=None):
        """Write it down."""
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class Progress(keras.callbacks.Callback):
    """One bar an epoch on stderr; silent where stderr is no terminal."""

    def __init__(self, epochs: int, steps: int, *, monitor: str = MONITOR):
        super().__init__()
        self._epochs, self._steps, self._monitor = epochs, steps, monitor

    def on_epoch_begin(self, epoch, logs=None):
        """Open the bar."""
        from tqdm import tqdm

        self._bar = tqdm(total=self._steps, desc=f"epoch {epoch + 1}/{self._epochs}", disable=None, leave=True)

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        self._bar.set_postfix(loss=f"{(logs or {}).get('loss', math.nan):.4f}", refresh=False)
        self._bar.update(1)

    def on_epoch_end(self, epoch, logs=None):
        """Close the bar with the epoch's figures."""
        logs = logs or {}
        self._bar.set_postfix({name: f"{logs[name]:.4f}" for name in ("loss", self._monitor) if name in logs})
        self._bar.close()
