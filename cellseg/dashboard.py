"""Dashboard: what TensorBoard shows of a training, and when it is written.

How it is written lives in `cellseg.dashboard_events`, the pictures in `cellseg.dashboard_pictures`, and the server that
shows it in `cellseg.tensorboard_server`. What steers training lives in `cellseg.callbacks`.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from cellseg import dashboard_pictures as pictures
from cellseg.callbacks import WholeImageValidation
from cellseg.dashboard_events import EventLog
from cellseg.experiment import Experiment

TRAIN, VALIDATION, PICTURES, SUMMARY = "train", "validation", "pictures", "experiment"
HISTOGRAMS = "histograms"
SHARE = 0.01  # of the training's time that histograms may take, and that pictures may take
LOOKED_AT = 4  # patches a picture of input that are made at most, to find some with cells
GROWTH = 1.1  # a set of pictures follows when so many times the epochs of the last one are over: 10 MB, not hundreds
# What the HParams tab compares; data and inference, and what changes no weight, would be columns that say little.
COMPARED = ("name", "seed", "target", "augment", "weight_map", "model", "loss", "train")
NOT_COMPARED = ("train.dashboard.", "train.checkpoint_minutes")
PR_TOLD = "Precision and recall of the pixels of all validation images together, at 101 thresholds of the probability."


class Dashboard(keras.callbacks.Callback):
    """Writes figures after every epoch; histograms and pictures as often as they cost no more than SHARE of the time.

    Steps are epochs that are over. It has no part in a step of training, so that none becomes slower.

    Args:
        validation: Its curve and its examples are drawn; comes before.
        folder: `tensorboard --logdir FOLDER` shows it. Runs below: train, validation, pictures, experiment.
        experiment: Resolved; its text, what HParams compares, and its train.dashboard section.
        example: Place in the stream -> a training patch, as `pipelines.dataset.Batches.example`; None draws none.
        clock: Seconds; for tests.
    """

    kept = ("best", "best_epoch", "epochs", "drawn")  # in a checkpoint

    def __init__(
        self,
        validation: WholeImageValidation,
        folder: Path,
        *,
        experiment: Experiment,
        example: Callable[[int], tuple[dict, dict]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self._validation, self._folder, self._experiment = validation, folder, experiment
        self._settings, self._example, self._clock = experiment.train.dashboard, example, clock
        self._log = EventLog(folder)
        self._begin: float | None = None
        self._spent = {PICTURES: 0.0, HISTOGRAMS: 0.0}
        self.best: float | None = None
        self.best_epoch = self.epochs = self.drawn = 0

    def rewind(self, epoch: int, seconds: float) -> None:
        """Training goes on from a point where so many epochs were over, and so many seconds spent."""
        self._begin = self._clock() - seconds
        self._log.rewind(epoch + 1 if epoch else 0)

    def on_train_begin(self, logs=None):
        """Start the clock, in the first of several phases alone."""
        if self._begin is None:
            self._begin = self._clock()

    def on_epoch_begin(self, epoch, logs=None):
        """Before the first step: the experiment, and the first patches that the network will get."""
        self._epoch_begin = self._clock()
        if epoch == 0:
            # Indented, it is a code block, whatever it holds.
            text = "\n".join(f"    {line}" for line in self._experiment.to_yaml().splitlines())
            self._log.text(SUMMARY, "experiment.yaml", text, 0)
            self._log.hparams(SUMMARY, parameters(self._experiment), trial_of(self._folder))
            for number, (sample, arrays) in enumerate(self._inputs(), 1):
                tag = f"input/{number} {sample['name']}"
                self._log.image(PICTURES, tag, pictures.patch(arrays), 0, pictures.INPUT_TOLD)
            self._log.flush()

    def on_epoch_end(self, epoch, logs=None):
        """Write the epoch; figures of the validation images go to a run of their own, in the same charts."""
        logs = logs or {}
        self.epochs = epoch + 1
        begin = self._clock()
        figures = {**logs, "seconds": begin - self._epoch_begin}
        if self._validation.monitor in logs:
            figures["val_threshold"] = self._validation.curve.best().threshold
        for name, value in figures.items():
            run = VALIDATION if name.startswith("val_") else TRAIN
            self._log.scalar(run, f"epoch/{name.removeprefix('val_')}", value, self.epochs)
        self._summarise(logs)
        self._log.pr_curve(VALIDATION, "pixels", self._validation.curve, self.epochs, PR_TOLD)
        if self._settings.histograms and self._may_spend(HISTOGRAMS):
            self._histograms()
        if is_due(self.epochs) and self._may_spend(PICTURES):
            self._pictures()
        self._log.flush()

    def on_train_end(self, logs=None):
        """Draw the last epoch, if it was not, and close the logs."""
        if self.epochs > self.drawn and self._validation.examples:
            self._pictures()
        self._log.close()

    def over(self) -> None:
        """The whole training is over: HParams calls it a success. One that was interrupted may go on."""
        self._log.succeeded(SUMMARY)

    def _summarise(self, logs: Mapping[str, float]) -> None:
        """The figures that HParams compares runs by: as good as they have been, as low as the loss is."""
        monitor = self._validation.monitor
        value = logs.get(monitor, math.nan)
        if not math.isnan(value) and (self.best is None or value > self.best):
            self.best, self.best_epoch = float(value), self.epochs
        if self.best is not None:
            self._log.scalar(SUMMARY, f"run/best_{monitor}", self.best, self.epochs)
            self._log.scalar(SUMMARY, "run/epoch_of_best", self.best_epoch, self.epochs)
        self._log.scalar(SUMMARY, "run/loss", logs.get("loss", math.nan), self.epochs)
        self._log.scalar(SUMMARY, "run/minutes", self._elapsed() / 60, self.epochs)

    def _inputs(self) -> list[tuple[dict, dict]]:
        """The first patches of the stream that hold a cell; others only where there are no more of them."""
        number = self._settings.pictures
        found: list[tuple[dict, dict]] = []
        empty: list[tuple[dict, dict]] = []
        for place in range(number * LOOKED_AT):
            if self._example is not None and len(found) < number:
                one = self._example(place)
                (found if (one[1]["labels"] > 0).any() else empty).append(one)
        return (found + empty)[:number]

    def _histograms(self) -> None:
        begin = self._clock()
        for variable in self.model.trainable_variables:
            values = keras.ops.convert_to_numpy(variable)
            self._log.histogram(TRAIN, f"weights {variable.path}", values, self.epochs)
        self._spent[HISTOGRAMS] += self._clock() - begin

    def _pictures(self) -> None:
        begin = self._clock()
        self.drawn = self.epochs
        curve = self._validation.curve
        chosen = curve.best().threshold
        if self._settings.pictures:
            plot = pictures.threshold_curve(curve, chosen)
            self._log.image(PICTURES, "threshold curve/validation", plot, self.epochs, pictures.CURVE_TOLD)
        for image, probability in self._validation.examples[: self._settings.pictures]:
            picture = pictures.answer(image, probability, chosen)
            tag = f"image, truth, probability/{image.name}"
            self._log.image(PICTURES, tag, picture, self.epochs, pictures.ANSWER_TOLD)
        self._spent[PICTURES] += self._clock() - begin

    def _may_spend(self, what: str) -> bool:
        return self._spent[what] <= SHARE * self._elapsed()

    def _elapsed(self) -> float:
        return self._clock() - (self._begin or 0.0)


def is_due(epochs: int) -> bool:
    """Whether pictures are due after so many epochs: after each of the first ten, then ever less often."""
    return math.floor(math.log(epochs, GROWTH)) > math.floor(math.log(max(epochs - 1, 0.5), GROWTH))


def parameters(experiment: Experiment) -> dict[str, bool | float | str]:
    """What HParams compares: keys as an override names them (`train.epochs`, `augment.0.p`), without those not set."""
    content = experiment.model_dump(mode="json")
    flat = dict(_leaves({name: content[name] for name in COMPARED}, ""))
    return {name: value for name, value in flat.items() if not name.startswith(NOT_COMPARED)}


def trial_of(folder: Path) -> str:
    """What HParams calls a training: the run folder, with the folder that it lies in."""
    run = folder.resolve().parent
    return f"{run.parent.name}/{run.name}"


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(key, plain value) of everything inside; a list of plain values is one text."""
    entries: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        entries = enumerate(value)
    else:
        if value is not None and value != []:
            yield key, value if isinstance(value, bool | int | float | str) else json.dumps(value)
        return
    for name, inside in entries:
        yield from _leaves(inside, f"{key}.{name}" if key else str(name))
