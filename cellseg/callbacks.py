"""Callbacks: what judges a training on whole validation images, keeps its best weights and shows how it goes.

What says loudly that it goes wrong lives in `cellseg.guards`; the training itself is set up in `cellseg.training`.
"""

import csv
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from cellseg import answers
from cellseg.thresholds import ThresholdCurve
from cellseg.trainer import Trainer
from pipelines.errors import InputError

MONITOR = "val_dice"
CLASS_MONITOR = "val_class_dice"


class NotFiniteError(InputError):
    """The loss, the weights or the answers of a network are NaN or infinite."""


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
        self.curves: list[ThresholdCurve] = []  # of the single images
        self.examples: list[tuple[ValidationImage, np.ndarray]] = []

    def on_epoch_end(self, epoch, logs=None):
        """Judge the current weights."""
        self.curve, self.curves, self.examples = ThresholdCurve(), [], []
        confusion = np.zeros((self._num_classes + 1, self._num_classes + 1))
        for image in self._images():
            answer = self._probability(image)
            if np.isnan(answer).any():
                raise NotFiniteError(
                    f"The network answers NaN after epoch {epoch + 1}: its weights have blown up. Lower "
                    "train.learning_rate, or look for images with extreme values."
                )
            probability = self._foreground(answer)
            one = ThresholdCurve()
            one.add(image.mask, probability, image.ignore)
            self.curve.join(one)
            self.curves.append(one)
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


class Position(keras.callbacks.Callback):
    """Where the training stands; comes first of all.

    Args:
        steps: Steps of an epoch.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.steps, self.epoch, self.step = steps, 0, 0

    @property
    def total(self) -> int:
        """Steps done since the start of the whole training."""
        return self.epoch * self.steps + self.step

    def begin(self, epoch: int, step: int) -> None:
        """Say where `fit` will begin."""
        self.epoch, self.step = epoch, step

    def on_epoch_begin(self, epoch, logs=None):
        """An epoch after the first of a `fit` begins with its first step."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        """Count the step."""
        self.step += 1


class BestWeights(keras.callbacks.Callback):
    """Saves the network after the first epoch and after each that is better than all before.

    Every one has a file of its own, so that a checkpoint's best weights are there whatever has come after it.

    Args:
        folder: For `best-EPOCH.keras`.
        monitors: Names in the logs; higher is better. Where the first one's figure is the same, the next decides.
        save: Given the path; None = the model's own `save`.

    Attributes:
        file: Name of the best one's file, "" before there is one.
    """

    kept = ("best", "file")

    def __init__(self, folder: Path, *monitors: str, save: Callable[[Path], None] | None = None):
        super().__init__()
        self._folder, self._monitors, self._save = folder, monitors, save
        self.best, self.file = [-math.inf] * len(monitors), ""

    def on_epoch_end(self, epoch, logs=None):
        """Save if better."""
        values = [float(logs[name]) for name in self._monitors]
        values = [-math.inf if math.isnan(value) else value for value in values]
        if values > self.best or not self.file:
            self.best, self.file = values, f"best-{epoch + 1}.keras"
            (self._save or self.model.save)(self._folder / self.file)

    def tidy(self) -> None:
        """Remove the files of earlier epochs."""
        for path in self._folder.glob("best-*.keras"):
            if path.name != self.file:
                path.unlink()


class History(keras.callbacks.Callback):
    """Appends every epoch's figures to a CSV file, which is closed again at once."""

    def __init__(self, path: Path):
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch, logs=None):
        """Write a row; the first one gets a header."""
        row = {"epoch": epoch, **dict(sorted((logs or {}).items()))}
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)


class AverageWeights(keras.callbacks.SwapEMAWeights):
    """Puts the moving average of the weights into the network between one epoch and the next.

    The trainer's moving statistics come with it; Mask R-CNN has none of its own.
    """

    _ema_weights_in_model: bool

    def __init__(self):
        super().__init__(swap_on_epoch=True)

    def on_epoch_end(self, epoch, logs=None):
        """Keras' own would give the weights up for their average in the last epoch of every `fit`."""
        if not self._ema_weights_in_model:
            self._swap_variables()
            self._ema_weights_in_model = True

    def _swap_variables(self):
        super()._swap_variables()
        if isinstance(self.model, Trainer):
            self.model.statistics.swap()


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

    def __init__(self, epochs: int, position: Position, *, monitor: str = MONITOR):
        super().__init__()
        self._epochs, self._position, self._monitor = epochs, position, monitor

    def on_epoch_begin(self, epoch, logs=None):
        """Open the bar."""
        from tqdm import tqdm

        self._bar = tqdm(
            total=self._position.steps,
            initial=self._position.step,
            desc=f"epoch {epoch + 1}/{self._epochs}",
            disable=None,
            leave=True,
        )

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        self._bar.set_postfix(loss=f"{(logs or {}).get('loss', math.nan):.4f}", refresh=False)
        self._bar.update(1)

    def on_epoch_end(self, epoch, logs=None):
        """Close the bar with the epoch's figures."""
        logs = logs or {}
        self._bar.set_postfix({name: f"{logs[name]:.4f}" for name in ("loss", self._monitor) if name in logs})
        self._bar.close()
