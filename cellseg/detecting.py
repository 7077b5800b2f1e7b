"""Detecting: what an experiment needs whose network finds cells one by one, in place of pixels' losses and maps.

The networks live in `cellseg.models`; what they find becomes labels in `cellseg.detections`. The training itself is set
up in `cellseg.training`.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

from cellseg import detections
from cellseg.callbacks import MONITOR, NotFiniteError, ValidationImage, Warnings, WholeImageValidation
from cellseg.detections import Detections
from cellseg.experiment import Experiment
from cellseg.metrics import IMAGE_METRICS
from cellseg.networks import SPELLED, target_name
from cellseg.predictors import ManyCellsWarning
from cellseg.thresholds import ThresholdCurve
from pipelines.errors import InputError
from pipelines.objects import ObjectBatches

DETECTION_MONITOR = "val_average_precision"
MEASURE = "average_precision"
TARGETS = ("foreground", "classes")
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # least scores that validation tries


def check(experiment: Experiment) -> None:
    """Raise InputError where a section of the file means nothing to a network that finds cells one by one."""
    name, asked, start = experiment.model["name"], experiment.inference, experiment.train.start_from
    spelled = SPELLED.get(name, name)
    if target_name(experiment.target) not in TARGETS or not isinstance(experiment.target, str):
        raise InputError(
            f"target: {spelled} learns box, class and mask of each cell; its target is foreground (all cells are of "
            f"one class) or classes, without options, and not {experiment.target!r}."
        )
    if experiment.loss != {"name": name}:
        raise InputError(f"loss: {spelled} has a loss of its own. Leave the loss section out, got {experiment.loss!r}.")
    if experiment.weight_map is not None:
        raise InputError(f"weight_map: {spelled} weighs no pixels: it cuts cells apart by itself. Leave it out.")
    for key, given, usual, why in (
        ("inference.method", asked.method, "exact", "its tiles overlap, and each cell is kept once"),
        ("inference.blend", asked.blend, None, "its tiles have no probabilities to blend"),
        ("inference.rim", asked.rim, None, "its tiles overlap (inference.overlap)"),
        ("inference.symmetries", asked.symmetries, 1, "cells have no mean"),
        ("inference.decision", asked.decision, "threshold", "the threshold is the least score of a cell"),
        ("train.auxiliary_decay", experiment.train.auxiliary_decay, None, "it has no auxiliary classifiers"),
    ):
        if given != usual:
            raise InputError(f"{key} is {given!r}, but {spelled} takes no other than {usual!r}: {why}. Leave it out.")
    if experiment.model.get("batch_norm") == "frozen" and not (experiment.model.get("pretrained") or start):
        raise InputError(
            f"model.batch_norm is frozen, but the weights of this {spelled} are random: its statistics would stay "
            "those of no data, and nothing would be normalised. Name weights (model.pretrained, train.start_from), or "
            "leave batch_norm out."
        )
    if experiment.distribution is not None:
        raise InputError(
            f"distribution: {spelled} trains on one device, for its regions are drawn anew in each step by one "
            "generator. Leave the section out."
        )
    if len(asked.zoom) != 1:
        raise InputError(
            f"inference.zoom: {spelled} looks at one size, got {asked.zoom}: cells have no mean. Name one."
        )
    if asked.engine == "openvino":
        raise InputError(f"inference.engine: {spelled} is computed by Keras. Set it to auto or keras, or leave it out.")


@contextlib.contextmanager
def crowds_told(told: Warnings) -> Iterator[None]:
    """Tiles with more cells than the network can name, while images are scored: counted, and said once in the end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ManyCellsWarning)
        yield
    crowds = [one for one in caught if issubclass(one.category, ManyCellsWarning)]
    for other in caught:
        if other not in crowds:
            warnings.showwarning(other.message, other.category, other.filename, other.lineno)
    if crowds:
        told.say(
            f"While images were scored, {len(crowds)} tiles held more cells than the network can name; those beyond "
            f"count as missed. The first: {crowds[0].message}"
        )


class DetectionValidation(WholeImageValidation):
    """Finds the cells of whole validation images after each epoch and adds to the logs:

    val_average_precision: TP / (TP + FP + FN) at IoU 0.5, pooled, at the best of SCORES; val_dice: Dice of what is
    drawn there; val_score_threshold: the least score chosen; val_foreground_ratio: drawn / true foreground there;
    val_detections: cells found with a score of at least 0.5 / true cells.

    Must come before every callback that reads these.

    Args:
        images: Gives the validation images anew each time; their `labels` are the truth.
        found: ValidationImage -> what the current weights find in it.
        draw: (Detections, threshold=) -> labels.
        examples: How many answers to keep for pictures.
    """

    def __init__(
        self,
        images: Callable[[], Iterable[ValidationImage]],
        found: Callable[[ValidationImage], Detections],
        *,
        draw: Callable[..., np.ndarray],
        examples: int = 3,
    ):
        super().__init__(images, lambda image: detections.probability(found(image)), examples=examples)
        self._found, self._draw = found, draw
        self.monitor = DETECTION_MONITOR
        self.num_found = 0  # with any score, in the last epoch

    def on_epoch_end(self, epoch, logs=None):
        """Judge the current weights."""
        self.curve, self.curves, self.examples, self.num_found = ThresholdCurve(), [], [], 0
        count, value = IMAGE_METRICS[MEASURE].count, IMAGE_METRICS[MEASURE].value
        counts: list = [0.0] * len(SCORES)
        pixels = np.zeros((len(SCORES), 3))  # shared, drawn and true foreground
        sure = cells = 0
        if math.isnan((logs or {}).get("loss", 0.0)):
            raise NotFiniteError(_blown_up(epoch))
        for image in self._images():
            with warnings.catch_warnings():  # an untrained network finds cells everywhere
                warnings.simplefilter("ignore", ManyCellsWarning)
                answer = self._found(image)
            probability = detections.probability(answer)
            if np.isnan(probability).any():
                raise NotFiniteError(_blown_up(epoch))
            self.num_found += len(answer)
            sure += int(np.count_nonzero(answer.scores >= 0.5))
            truth = image.mask.astype(np.int32) if image.labels is None else image.labels
            cells += len(np.unique(truth[truth > 0]))
            known = np.ones(image.mask.shape, bool) if image.ignore is None else ~image.ignore
            for place, score in enumerate(SCORES):
                labels = self._draw(answer, threshold=score)
                counts[place] = counts[place] + count(truth, labels, image.ignore)
                inside = labels[known] > 0
                pixels[place] += [np.sum(inside & image.mask[known]), inside.sum(), image.mask[known].sum()]
            one = ThresholdCurve()
            one.add(image.mask, probability, image.ignore)
            self.curve.join(one)
            self.curves.append(one)
            if len(self.examples) < self._examples:
                self.examples.append((image, probability))
        values = [0.0 if math.isnan(one) else float(one) for one in map(value, counts)]
        best = int(np.argmax(values))
        shared, drawn, true = pixels[best]
        logs[DETECTION_MONITOR] = values[best]
        logs[MONITOR] = float(2 * shared / max(drawn + true, 1))
        logs["val_score_threshold"] = SCORES[best]
        logs["val_foreground_ratio"] = float(drawn / max(true, 1))
        logs["val_detections"] = sure / max(cells, 1)


def _blown_up(epoch: int) -> str:
    return (
        f"The network answers NaN after epoch {epoch + 1}: its weights have blown up. Lower train.learning_rate, or "
        "set train.clip_norm: 1."
    )


class DetectionGuard(keras.callbacks.Callback):
    """Says loudly when the network finds no cell, or none that is there, for several epochs.

    Args:
        validation: Holds what was found in this epoch.
        told: Where to say it.
        patience: Epochs in a row; the first ones of a training from random weights find nothing, as a rule.
    """

    kept = ("_epochs", "_told")

    def __init__(self, validation: DetectionValidation, told: Warnings, *, patience: int = 5):
        super().__init__()
        self._validation, self._warnings, self._patience = validation, told, patience
        self._epochs, self._told = 0, False

    def on_epoch_end(self, epoch, logs=None):
        """Count the epochs without a cell."""
        blind = not (logs or {}).get(DETECTION_MONITOR, 0.0)
        self._epochs = self._epochs + 1 if blind else 0
        if self._epochs >= self._patience and not self._told:
            self._told = True
            what = "no cell at all" if not self._validation.num_found else "no cell that is there"
            self._warnings.say(
                f"Collapse: up to epoch {epoch + 1} the network has found {what} in the validation images for "
                f"{self._epochs} epochs. Its scores mean nothing. Compare model.anchor_sizes with the cells' diameters "
                "(report, data), try a learning rate 10 times lower (train.learning_rate) or train.clip_norm: 1, and "
                "look at preview.png: labels that do not belong to the images teach exactly this."
            )
        elif not blind and self._told:
            self._warnings.say(f"The network has recovered from its collapse in epoch {epoch + 1}.")
            self._told = False


class CrowdWatch(keras.callbacks.Callback):
    """Says once when patches hold more cells than a batch has room for."""

    kept = ("_told", "counted")

    def __init__(self, batches: ObjectBatches, told: Warnings):
        super().__init__()
        self._batches, self._warnings, self._told = batches, told, False

    @property
    def counted(self) -> list[int]:
        """Crowded patches, and cells that were left out, of all sittings."""
        return [self._batches.crowded, self._batches.left_out]

    @counted.setter
    def counted(self, before: list[int]) -> None:
        self._batches.crowded, self._batches.left_out = before

    def on_epoch_end(self, epoch, logs=None):
        """Look at the count so far."""
        batches = self._batches
        if batches.crowded and not self._told:
            self._told = True
            self._warnings.say(
                f"Up to epoch {epoch + 1}, {batches.crowded} training patches held more than train.max_objects = "
                f"{batches.max_objects} cells; the smallest of them, {batches.left_out} in all, were passed over: they "
                "count neither as cells nor as background. Raise train.max_objects, or use a smaller train.patch. "
                "Validation and test count every cell."
            )
