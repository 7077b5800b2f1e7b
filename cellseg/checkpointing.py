"""Checkpointing: when a training's checkpoint is written, and how one `fit` begins from it.

What a checkpoint holds lives in `cellseg.checkpoints`; which `fit` follows which is the work of `cellseg.fitting`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from cellseg import callbacks as watch
from cellseg import checkpoints, guards, termination
from cellseg.checkpoints import Checkpoint, Place
from cellseg.runs import HISTORY


@dataclass
class Watchers:
    """Callbacks that all phases share.

    Args:
        first: Before those of a phase; what judges the network is among them.
        last: Behind those of a phase.
        position, best, budget, disk, divergence: Some of them, that fitting asks.
        warnings: Where guards speak.
        monitor: Name in the logs of what steers training.
        over: Called when the whole training is over, and its last checkpoint written.
    """

    first: list[keras.callbacks.Callback]
    last: list[keras.callbacks.Callback]
    position: watch.Position
    best: watch.BestWeights
    budget: guards.TimeBudget
    disk: guards.DiskSpace
    divergence: guards.Divergence
    warnings: watch.Warnings
    monitor: str
    over: Callable[[], None] = lambda: None

    def all(self) -> list[keras.callbacks.Callback]:
        """Of both lists."""
        return [*self.first, *self.last]


class Checkpointer(keras.callbacks.Callback):
    """Writes a checkpoint after every epoch and every few minutes, and lets a `fit` begin from one; comes last of all.

    Args:
        folder: For the checkpoint; the history is there, too.
        watchers: What the phases share.
        own: The phase's callbacks.
        place: Where this `fit` begins.
        last_phase: No phase follows.
        end: The epoch that the phase ends before.
        minutes: Between two checkpoints within an epoch; None = only after epochs.
        before: The checkpoint that this `fit` goes on from; None = a phase begins.
        scheduled: A schedule sets the learning rate.
        rate, restores: As in `Checkpoint`.
    """

    def __init__(
        self,
        folder: Path,
        watchers: Watchers,
        own: list[keras.callbacks.Callback],
        place: Place,
        *,
        last_phase: bool,
        end: int,
        minutes: float | None,
        before: Checkpoint | None,
        scheduled: bool,
        rate: float,
        restores: int,
    ):
        super().__init__()
        self.place = place
        self._folder, self._watchers, self._own = folder, watchers, own
        self._last_phase, self._end, self._minutes = last_phase, end, minutes
        self._before, self._scheduled, self._rate, self._restores = before, scheduled, rate, restores
        self._written = 0.0
        self._stepped = False

    def on_train_begin(self, logs=None):
        """Go on from the checkpoint; a training that has none gets its first."""
        self._written = time.monotonic()
        if self._before is not None:
            self._before.set_optimizer(self.model, scheduled=self._scheduled)
            self._before.remind([*self._watchers.all(), *self._own])
        elif not (self._folder / checkpoints.NAME).exists():
            self._write()

    def on_epoch_begin(self, epoch, logs=None):
        """Keras has just forgotten the mean loss of the epoch under way."""
        if self._before is not None and self.place.step and epoch == self.place.epoch:
            self._before.set_metrics(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        """Before the first step of all: what begins a `fit` may have drawn numbers, as PyTorch's loader does."""
        if self._before is not None and not self._stepped:
            self._before.set_generators()
        self._stepped = True

    def on_train_batch_end(self, batch, logs=None):
        """Write if it is time, or SIGTERM has come, which then ends the training; an epoch's end writes anyway."""
        position = self._watchers.position
        if position.step >= position.steps or not (termination.asked() or self._is_time()):
            return
        self.place = replace(self.place, epoch=position.epoch, step=position.step)
        self._watchers.disk.check()
        self._write()
        termination.check()

    def on_epoch_end(self, epoch, logs=None):
        """Write."""
        over = self.model.stop_training or epoch + 1 >= self._end
        done = self._watchers.budget.spent or (over and self._last_phase)
        self.place = replace(self.place, epoch=epoch + 1, step=0, phase_over=over, over=done)
        self._write()
        self._watchers.best.tidy()
        if done:
            self._watchers.over()
        else:
            termination.check()

    def _is_time(self) -> bool:
        return self._minutes is not None and time.monotonic() - self._written >= 60 * self._minutes

    def _write(self) -> None:
        values = checkpoints.values_of(self.model)
        if not checkpoints.finite(values):
            epoch = self._watchers.position.epoch + 1
            raise watch.NotFiniteError(f"Weights, or the optimiser's moments, are NaN or infinite in epoch {epoch}.")
        history = self._folder / HISTORY
        Checkpoint(
            place=self.place,
            values=values,
            kept=checkpoints.remembered([*self._watchers.all(), *self._own]),
            history=history.read_text(encoding="utf-8") if history.exists() else "",
            warnings=self._watchers.warnings.messages,
            rate=self._rate,
            restores=self._restores,
            generators=checkpoints.generators(),
        ).write(self._folder / checkpoints.NAME)
        self._written = time.monotonic()
