"""Fitting: Keras' `fit`, phase by phase, from the start or from a checkpoint.

What is trained is put together in `cellseg.training`; checkpoints on the way are written by `cellseg.checkpointing`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cellseg import callbacks as watch
from cellseg import checkpoints, guards, termination
from cellseg.checkpointing import Checkpointer, Watchers
from cellseg.checkpoints import Checkpoint, Place
from cellseg.runs import HISTORY, MODEL
from cellseg.sections import Phase, Train
from cellseg.streams import stream
from cellseg.trainer import Trainer, set_l2
from pipelines.dataset import Batches
from pipelines.files import whole_file

RESTORES = 3  # returns to earlier weights in one training
SUSPECTS = "not-finite.npz"


@dataclass
class Fitting:
    """A training, ready to begin or to go on.

    Args:
        trainer: The network with its loss.
        network: What is regularised, and gets the best weights when a phase begins.
        train: The experiment's section.
        batches: The training data.
        watchers: Callbacks of all phases.
        optimizer_for: (phase, steps_per_epoch=) -> optimiser.
        callbacks_for: (phase, monitor) -> callbacks of a phase: before the judgement, and after it.
        folder: For checkpoint, history and the best weights. What made a loss NaN is saved in the folder above.
        stream: (batches, first_step=) -> what `fit` is given.
        rewind: Called with the epochs done and the seconds spent when training goes on from a checkpoint, for logs that
            cannot be cut.
    """

    trainer: keras.Model
    network: keras.Model
    train: Train
    batches: Batches
    watchers: Watchers
    optimizer_for: Callable[..., keras.optimizers.Optimizer]
    callbacks_for: Callable[[Phase, str], tuple[list, list]]
    folder: Path
    stream: Callable[..., Any] = stream
    rewind: Callable[[int, float], None] = lambda epoch, seconds: None

    def __post_init__(self) -> None:
        self._regularizers = [(one, one.regularizer) for one in self.network.trainable_variables]
        self._sitting_began = 0.0

    def run(self, checkpoint: Checkpoint | None = None, *, hours: float | None = None) -> None:
        """Train to the end; the best weights end in `folder / MODEL`.

        Args:
            checkpoint: To go on from.
            hours: For this sitting; None = what `train.max_hours` leaves.

        Raises:
            NotFiniteError: The loss, weights or answers are NaN or infinite, and `train.on_nan` does not help.
            InputError: The checkpoint does not fit, or the disk is nearly full.
        """
        while True:
            try:
                self._phases(checkpoint, hours)
                break
            except watch.NotFiniteError as error:
                checkpoint = self._step_back(error)
                hours = None if hours is None else max(0.0, hours - self._sitting / 3600)
        for callback in self.watchers.all():
            if isinstance(callback, guards.SmallValidation):
                callback.on_training_over()
        epochs = len((self.folder / HISTORY).read_text(encoding="utf-8").splitlines()) - 1  # but its header
        self.watchers.budget.on_training_over(self.watchers.warnings, epochs, self.train.total_epochs())
        best = self.folder / self.watchers.best.file
        if best.is_file():  # not if the end was interrupted just behind this
            best.replace(self.folder / MODEL)

    def _phases(self, checkpoint: Checkpoint | None, hours: float | None) -> None:
        place = Place() if checkpoint is None else checkpoint.place
        budget = self.watchers.budget
        if checkpoint is not None:
            self._go_on_from(checkpoint)
        self._sitting_began = budget.seconds
        if hours is not None:
            budget.limit = budget.seconds + 3600 * hours
        phases = self.train.all_phases()
        for number, phase in enumerate(phases):
            inside = checkpoint is not None and number == place.phase and not place.phase_over
            if place.over or number < place.phase or (number == place.phase and place.phase_over):
                continue
            if number and not inside:
                self.network.load_weights(self.folder / self.watchers.best.file)
            if not inside:
                place = Place(number, began=place.epoch, epoch=place.epoch)
            for variable, regularizer in self._regularizers:  # the phase before may have had an L2 of its own
                variable.regularizer = regularizer
            if phase.l2 is not None:
                set_l2(self.network, phase.l2)
            rate = 1.0 if checkpoint is None else checkpoint.rate
            slowed = phase.model_copy(update={"learning_rate": (phase.learning_rate or 0.0) * rate})
            optimizer = self.optimizer_for(slowed, steps_per_epoch=self.watchers.position.steps)
            self.trainer.compile(optimizer, jit_compile=self.train.jit_compile)
            if not self.trainer.optimizer.built:  # Mask R-CNN's own `compile` has; loss scaling has no second time
                self.trainer.optimizer.build(self.trainer.trainable_variables)
            if not inside and isinstance(self.trainer, Trainer):
                self.trainer.statistics.begin()
            self.watchers.divergence.begin_phase()
            before = checkpoint if inside else None
            last_phase = number == len(phases) - 1
            while not (place.phase_over or place.over):
                place = self._fit(phase, place, before, checkpoint, last_phase=last_phase)
                if not place.phase_over:  # the rest of an epoch is over; Keras' `fit` knows whole epochs alone
                    before = Checkpoint.read(self.folder / checkpoints.NAME)
                    before.set_model(self.trainer)

    def _fit(
        self, phase: Phase, place: Place, before: Checkpoint | None, begun: Checkpoint | None, *, last_phase: bool
    ) -> Place:
        """One call of `fit`: the phase, or the rest of an epoch that was interrupted. Returns where it ended."""
        position = self.watchers.position
        position.begin(place.epoch, place.step)
        early, late = self.callbacks_for(phase, self.watchers.monitor)
        end = place.began + phase.epochs
        checkpointer = Checkpointer(
            self.folder,
            self.watchers,
            [*early, *late],
            place,
            last_phase=last_phase,
            end=end,
            minutes=self.train.checkpoint_minutes,
            before=before,
            scheduled=phase.schedule is not None,
            rate=1.0 if begun is None else begun.rate,
            restores=0 if begun is None else begun.restores,
        )
        try:
            with termination.postponed():
                self.trainer.fit(
                    self.stream(self.batches, first_step=position.total),
                    initial_epoch=place.epoch,
                    epochs=place.epoch + 1 if place.step else end,
                    steps_per_epoch=position.steps - place.step,
                    verbose=0,
                    shuffle=False,
                    callbacks=[*early, *self.watchers.first, *late, *self.watchers.last, checkpointer],
                )
        except Exception as error:
            if self.batches.failure is not None:  # TensorFlow has wrapped it
                raise self.batches.failure from error
            raise
        termination.check()
        return checkpointer.place

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        checkpoint.set_model(self.trainer)
        checkpoint.remind(self.watchers.all())
        checkpoint.set_generators()
        warnings = self.watchers.warnings
        warnings.messages[:] = list(dict.fromkeys([*checkpoint.warnings, *warnings.messages]))
        with whole_file(self.folder / HISTORY) as path:
            path.write_text(checkpoint.history, encoding="utf-8")
        self.rewind(checkpoint.place.epoch, self.watchers.budget.seconds)

    @property
    def _sitting(self) -> float:
        """Seconds that were trained since a checkpoint was read."""
        return self.watchers.budget.seconds - self._sitting_began

    def _step_back(self, error: watch.NotFiniteError) -> Checkpoint:
        """The last checkpoint with half the learning rate, written down; or the error, with what to look at."""
        seconds = self.watchers.budget.seconds
        saved = self._save_suspects()
        told = f"{error} The batch of that step and the one before it are in {saved}."
        path = self.folder / checkpoints.NAME
        remedy = "Look there for NaN and extreme values; else begin anew with a lower train.learning_rate or "
        remedy += "train.clip_norm: 1."
        if self.train.on_nan == "stop" or not path.exists():
            again = " --resume with train.on_nan=restore goes on from the last checkpoint with half the learning rate."
            raise watch.NotFiniteError(f"{told} {remedy}{again if path.exists() else ''}") from error
        checkpoint = Checkpoint.read(path)
        if checkpoint.restores >= RESTORES:
            raise watch.NotFiniteError(
                f"{told} The training went back to good weights {RESTORES} times, each time with half the learning "
                f"rate, and it did not help. {remedy}"
            ) from error
        place = checkpoint.place
        self.watchers.warnings.say(
            f"{told} Training goes back to step {place.step} of epoch {place.epoch + 1} and on with half the learning "
            f"rate ({checkpoint.restores + 1} of {RESTORES} times)."
        )
        budget = type(self.watchers.budget).__name__
        kept = checkpoint.kept | {budget: checkpoint.kept.get(budget, {}) | {"seconds": seconds}}
        slower = replace(checkpoint.slower(), kept=kept, warnings=list(self.watchers.warnings.messages))
        slower.write(path)
        return slower

    def _save_suspects(self) -> Path:
        """Save the batch of the last step and the one before, whose gradient may be what made the weights NaN."""
        last = max(self.watchers.position.total - 1, 0)
        arrays: dict[str, Any] = {"step": np.array(last)}
        for name, step in (("", last), ("before_", last - 1)):
            if step >= 0:
                arrays |= {f"{name}{part}": array for part, array in _parts(self.batches.batch(step)).items()}
                arrays[f"{name}samples"] = np.array(self.batches.names(step))
        with whole_file(self.folder.parent / SUSPECTS) as path:
            np.savez_compressed(path, **arrays)
        return self.folder.parent / SUSPECTS


def _parts(batch: tuple) -> dict[str, np.ndarray]:
    """The arrays of a batch by name; see `Batches` and `ObjectBatches`."""
    if isinstance(batch[1], dict):
        return {"image": batch[0], **batch[1]}
    return dict(zip(("image", "target", "weight_map"), batch, strict=True))
