"""Guards: what watches a training and its data, says loudly when something goes wrong, and ends what cannot go well.

Judging the network is the work of `cellseg.callbacks`; the check of truth against images that of `pipelines.alignment`.
"""

import math
import shutil
import time
from pathlib import Path

import keras
import numpy as np

from cellseg.callbacks import NotFiniteError, Position, Warnings, WholeImageValidation
from cellseg.checkpoints import fetch_state
from cellseg.thresholds import ThresholdCurve
from pipelines.alignment import IMAGES, shift_of
from pipelines.dataset import ShardReader
from pipelines.errors import InputError

FEWEST_IMAGES, FEWEST_CELLS = 2, 5  # of a split that is held out
TOO_SMALL = {
    "validation": "the best epoch, the learning rate and the threshold are chosen by them. Give the split more "
    "(split.validation), or train several folds.",
    "test": "other images may score otherwise. cellseg-train --folds 5 tests every image once; or give the split more "
    "(split.test).",
}
LARGEST_ERROR = 0.05  # of the validation Dice
FREE_BYTES = 100 * 2**20  # beside what a checkpoint and the best weights take


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

    kept = ("_epochs", "_told")

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
    """The clock of a training, over all its sittings; ends it cleanly when its hours are spent.

    After an epoch it ends if another one like the longest would not fit; within an epoch as soon as what follows an
    epoch's last step (validation, checkpoint) would no longer fit: that epoch is then shorter than the others. Comes
    behind what takes time.

    Attributes:
        seconds: Spent in all sittings.
        limit: In seconds; None = no end.
        spent: The training was ended.
    """

    kept = ("seconds", "spent", "_longest", "_longest_end")

    def __init__(self, hours: float | None):
        super().__init__()
        self.limit = None if hours is None else hours * 3600
        self.seconds = self._longest = self._longest_end = 0.0
        self._tick = self._epoch_begin = self._steps_end = 0.0
        self.spent = False

    def on_train_begin(self, logs=None):
        """Start the clock again."""
        self._tick = time.monotonic()
        self._epoch_begin = self._steps_end = self.seconds

    def on_train_batch_end(self, batch, logs=None):
        """Stop if there is no time left but for the epoch's end."""
        self._steps_end = self._count()
        self._stop_unless_fits(self._longest_end)

    def on_epoch_end(self, epoch, logs=None):
        """Stop if another epoch would not fit."""
        now = self._count()
        self._longest = max(self._longest, now - self._epoch_begin)
        self._longest_end = max(self._longest_end, now - self._steps_end)
        self._epoch_begin = now
        self._stop_unless_fits(self._longest)

    def on_training_over(self, warnings: Warnings, epochs: int, of: int) -> None:
        """Say that the time was too short, if it was."""
        if self.spent and epochs < of:
            warnings.say(
                f"The training was ended in epoch {epochs} of {of}: its time was spent after "
                f"{self.seconds / 60:.1f} minutes (--hours, train.max_hours). The best network so far is kept. Give it "
                "more hours, or fewer train.epochs: a schedule of the learning rate is laid out over all epochs."
            )

    def _count(self) -> float:
        now = time.monotonic()
        self.seconds += now - self._tick
        self._tick = now
        return self.seconds

    def _stop_unless_fits(self, needed: float) -> None:
        if self.limit is not None and self.seconds + needed > self.limit:
            self.spent = self.model.stop_training = True


class FiniteLoss(keras.callbacks.Callback):
    """Ends a training whose loss is NaN or infinite at once, before such weights are kept."""

    def __init__(self, position: Position):
        super().__init__()
        self._position = position

    def on_train_batch_end(self, batch, logs=None):
        """Look at the mean loss of the epoch so far: a single NaN stays in it."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            fetch_state(self.model)
            raise NotFiniteError(
                f"The loss is {'NaN' if math.isnan(loss) else 'infinite'} in step {self._position.step} of epoch "
                f"{self._position.epoch + 1}."
            )


class Divergence(keras.callbacks.Callback):
    """Says loudly when the training loss rises instead of falling, for several epochs.

    An epoch counts whose mean loss is above 1.2 times the lowest of the phase so far and has lost more than half of
    what was gained since the phase's first epoch.

    Args:
        warnings: Where to say it.
        patience: Epochs in a row.
    """

    kept = ("_first", "_lowest", "_epochs", "_told")

    def __init__(self, warnings: Warnings, *, patience: int = 3):
        super().__init__()
        self._warnings, self._patience = warnings, patience
        self.begin_phase()

    def begin_phase(self) -> None:
        """Forget the phase before: its loss may have had another L2."""
        self._first, self._lowest, self._epochs, self._told = math.nan, math.inf, 0, False

    def on_epoch_end(self, epoch, logs=None):
        """Count the epochs of divergence."""
        loss = logs["loss"]
        if math.isnan(self._first):
            self._first = loss
        worst = max(1.2 * self._lowest, (self._first + self._lowest) / 2)
        self._epochs = self._epochs + 1 if loss > worst else 0
        self._lowest = min(self._lowest, loss)
        if self._epochs >= self._patience and not self._told:
            self._told = True
            self._warnings.say(
                f"Divergence: up to epoch {epoch + 1} the training loss has been high for {self._epochs} epochs, now "
                f"{loss:.4g}; its lowest was {self._lowest:.4g}, and the first epoch's {self._first:.4g}. The best "
                "weights so far are kept. Lower train.learning_rate, or set train.clip_norm: 1."
            )


class SmallValidation(keras.callbacks.Callback):
    """Says when the validation images are so few, or so different, that their Dice is known only roughly.

    The jackknife standard error of the pooled Dice at its best threshold over the images, in the best epoch of at least
    five (or of all, if there are fewer), must not exceed 0.05.
    """

    kept = ("_best", "_error", "_images", "_told")

    def __init__(self, validation: WholeImageValidation, warnings: Warnings):
        super().__init__()
        self._validation, self._warnings = validation, warnings
        self._best, self._error, self._images, self._told = -math.inf, 0.0, 0, False

    def on_epoch_end(self, epoch, logs=None):
        """Remember the best epoch's error, and say it from the fifth epoch on."""
        dice = float(np.max(self._validation.curve.dice))
        if dice > self._best:
            self._best, self._error = dice, jackknife_error(self._validation.curves)
            self._images = len(self._validation.curves)
        if epoch >= 4:
            self._say()

    def on_training_over(self) -> None:
        """Say it after a short training; Keras' `on_train_end` comes after the rest of an epoch, too."""
        self._say()

    def _say(self) -> None:
        if self._error > LARGEST_ERROR and not self._told:
            self._told = True
            self._warnings.say(
                f"The validation Dice of {self._best:.3f} has a standard error of {self._error:.3f} "
                f"({self._images} images, jackknife): epochs and thresholds are told apart by chance. "
                "Give the validation split more images (split.validation), or train several folds."
            )


class DiskSpace(keras.callbacks.Callback):
    """Ends a training cleanly before its disk is full: a checkpoint and the best weights must fit once more.

    Args:
        folder: Where the training writes.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def on_epoch_end(self, epoch, logs=None):
        """Look before anything is written."""
        self.check()

    def check(self) -> None:
        """Raise InputError if too little is free."""
        model = sum(_bytes(variable) for variable in self.model.variables)
        needed = 2 * model + sum(_bytes(variable) for variable in self.model.optimizer.variables) + FREE_BYTES
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise InputError(
                f"The disk of {self._folder} is nearly full: {free / 1e6:.0f} MB are free, and the next checkpoint may "
                f"take {needed / 1e6:.0f} MB. The training has stopped; its last checkpoint is whole. Make room, then "
                "go on with cellseg-train --resume."
            )


def check_disk(folder: Path, network: keras.Model) -> None:
    """Raise InputError if what a training writes would not fit on the disk of a folder.

    That is two checkpoints with the optimiser's moments and moving averages, twice the best weights, and 100 MB.
    """
    needed = 10 * sum(_bytes(variable) for variable in network.variables) + FREE_BYTES
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    if free < needed:
        raise InputError(
            f"The disk of {folder} has {free / 1e6:.0f} MB free, and a training of this network may need "
            f"{needed / 1e6:.0f} MB: two checkpoints with the optimiser's state, and its best weights. Make room, or "
            "choose another disk with --out."
        )


def check_held_out(split: str, statistics: dict, warnings: Warnings) -> None:
    """Say if a split that is held out is too small for its purpose: fewer than 2 images or 5 cells.

    Args:
        split: "validation" or "test".
        statistics: Of the split, from the manifest.
        warnings: Where to say it.
    """
    images, cells = statistics["images"], statistics["objects"]
    if images < FEWEST_IMAGES or cells < FEWEST_CELLS:
        warnings.say(
            f"The {split} split has {images} image{'s' * (images != 1)} with {cells} cell{'s' * (cells != 1)}; at "
            f"least {FEWEST_IMAGES} images and {FEWEST_CELLS} cells were expected: {TOO_SMALL[split]}"
        )


def check_alignment(reader: ShardReader, warnings: Warnings) -> None:
    """Say if the truth of the training images looks shifted against them; see `pipelines.alignment`."""
    samples = reader.manifest.of_split("train")
    places = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), IMAGES)).astype(int))
    records = (reader.read(samples[place]) for place in places)
    shift = shift_of((record["image"], record["labels"]) for record in records)
    if shift is not None and shift.suspicious:
        warnings.say(shift.told())


def jackknife_error(curves: list[ThresholdCurve]) -> float:
    """Standard error of the pooled Dice at its best threshold, from leaving out each image once; 0 for one image.

    sqrt((n - 1) / n * sum((d_i - mean(d)) ** 2)), where d_i is the Dice without image i.
    """
    total = ThresholdCurve()
    for curve in curves:
        total.join(curve)
    dice = np.array([np.max(total.without(curve).dice) for curve in curves])
    dice = dice[~np.isnan(dice)]
    if len(dice) < 2:
        return 0.0
    return float(np.sqrt((len(dice) - 1) / len(dice) * np.sum((dice - dice.mean()) ** 2)))


def _bytes(variable) -> int:
    return (
        int(np.prod(variable.shape, dtype=np.int64))
        * np.dtype(str(variable.dtype).replace("bfloat16", "uint16")).itemsize
    )
