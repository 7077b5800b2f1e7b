"""Inference: an image of any size -> probability -> labels, with the normalisation that the run was trained with.

An image is brought to a network in `cellseg.predictors`. The run folder is read in `cellseg.runs`, the network in
`cellseg.export`.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cellseg import answers, detections
from cellseg.detections import Detections
from cellseg.experiment import Experiment
from cellseg.export import network_of
from cellseg.geometry import Tiling, tiling
from cellseg.instances import DETECTIONS, INSTANCES, NEEDS_INNER
from cellseg.magnification import AS_IT_IS, Magnification, in_own_pixels
from cellseg.named import check_options
from cellseg.networks import target_name
from cellseg.predictors import Detector, ImageWarning, LowContrastWarning, Predictor, PredictorMean, Probable
from cellseg.runs import DATA, MODEL, Run, members_of
from pipelines.contrast import to_channels
from pipelines.errors import InputError
from pipelines.sample import Sample

__all__ = [
    "EnsembleRun",
    "ImageWarning",
    "LoadedRun",
    "LowContrastWarning",
    "Prediction",
    "Predictor",
    "PredictorMean",
    "Tiling",
    "instances_function",
    "load_run",
    "tiling",
    "try_instances",
]


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image.

    Args:
        labels: int32 (H, W), 0 = background, 1..n = one cell each.
        probability: float32 (H, W), foreground.
        classes: int32 (H, W), the class of the cell that each pixel lies in, 0 = background; None where the run knows
            no classes.
        scores: float32 (n,), how sure the network is of each cell 1..n, in [0, 1]; None of a network that answers pixel
            by pixel.
    """

    labels: np.ndarray
    probability: np.ndarray
    classes: np.ndarray | None = None
    scores: np.ndarray | None = None


class LoadedRun:
    """A run that is ready to predict; made by `load_run`."""

    def __init__(self, run: Run, magnification: Magnification = AS_IT_IS):
        factor = magnification.factor(run)
        if factor != 1:
            section = in_own_pixels(run.experiment.instances, factor)
            run = replace(run, experiment=run.experiment.model_copy(update={"instances": section}))
        self.run, self.magnification = run, magnification
        experiment, data = run.experiment, run.data
        geometry = tiling(experiment, shapes=[tuple(shape) for shape in data["shapes"]])
        views = {} if experiment.detects else {"symmetries": experiment.inference.symmetries}
        look = Detector if experiment.detects else Predictor
        network = network_of(run, tile=geometry.tile)
        _check_classes(run, network)
        self.predictor: Probable = look(
            network,
            tiling=geometry,
            channels=data["channels"],
            contrast=experiment.data.contrast,
            minimum_range=data["minimum_range"],
            zoom=[factor * zoom for zoom in experiment.inference.zoom],
            **views,
        )
        self.threshold = float(run.threshold["threshold"])
        self.class_names = tuple(data.get("classes", ()))
        self._instances = instances_function(experiment)

    @property
    def runs(self) -> list[Run]:
        """Those that answer: this one."""
        return [self.run]

    def use(self, threshold: float, instances: Mapping[str, Any]) -> None:
        """Another threshold, and other options of the instance method than the run's."""
        section = {**self.run.experiment.instances, **instances}
        self.run = replace(self.run, experiment=self.run.experiment.model_copy(update={"instances": section}))
        self.threshold, self._instances = threshold, instances_function(self.run.experiment)

    def predict(self, image: np.ndarray) -> Prediction:
        """Cells of one image.

        Args:
            image: (H, W) or (H, W, C), any size; uint8, uint16 or float. As in the file: do not rescale it.

        Returns:
            `.labels` and `.probability`, both of the image's size.

        Raises:
            InputError: wrong number of dimensions or channels, or NaN.
        """
        image = np.asarray(image)
        if image.ndim not in (2, 3):
            raise InputError(f"an image must be (H, W) or (H, W, C), got shape {image.shape}.")
        if image.dtype.kind == "f":
            image = image.astype(np.float32)
        image = image[..., None] if image.ndim == 2 else image
        image = self.to_channels(Sample(image=image, labels=None, name="the image").image)
        return self.decide(self.predictor.probability(image))

    def decide(self, probability: np.ndarray | Detections) -> Prediction:
        """The predictor's answer, a probability (H, W, K) or detections -> cells, with the run's threshold and instance
        settings.
        """
        if isinstance(probability, Detections):
            return self._decide_detections(probability)
        foreground = self.foreground(probability)
        labels = self._instances(foreground, self.inner(probability), threshold=self.threshold)
        kinds = answers.cell_classes(labels, answers.classes(probability)) if self.class_names else None
        return Prediction(labels, foreground, kinds)

    def _decide_detections(self, found: Detections) -> Prediction:
        labels, chosen = detections.drawn(found, threshold=self.threshold, **self._instances.keywords)
        kinds = np.append(0, found.classes[chosen]).astype(np.int32)[labels] if self.class_names else None
        return Prediction(labels, detections.probability(found), kinds, found.scores[chosen])

    def evidence(self, probability: np.ndarray | Detections) -> np.ndarray | Detections:
        """What the instance function is called with: the foreground's probability, or detections as they are."""
        return probability if isinstance(probability, Detections) else self.foreground(probability)

    def foreground(self, probability: np.ndarray | Detections) -> np.ndarray:
        """Probability (H, W, K) -> that of foreground, (H, W), as `inference.decision` says."""
        if isinstance(probability, Detections):
            return detections.probability(probability)
        experiment = self.run.experiment
        decision = experiment.inference.decision
        return answers.foreground(probability, target=target_name(experiment.target), decision=decision)

    def inner(self, probability: np.ndarray | Detections) -> np.ndarray | None:
        """Probability (H, W, K) -> how far inside of a cell each pixel lies, (H, W); None where no channel says it."""
        if isinstance(probability, Detections):
            return None
        return answers.inner(probability, target=target_name(self.run.experiment.target))

    def to_channels(self, image: np.ndarray) -> np.ndarray:
        """The channels that the run was trained on: as `data.channels` says, and one for three equal ones."""
        image = to_channels(image, self.run.experiment.data.channels)
        grey = self.run.data["channels"] == 1 and image.shape[2] > 1 and (image == image[..., :1]).all()
        return image[..., :1] if grey else image


class EnsembleRun(LoadedRun):
    """Several runs as one: probabilities averaged, thresholds too; made by `load_run`.

    Everything else, from `inference.decision` to the `instances` section, is as the first run says.
    """

    def __init__(self, members: Sequence[LoadedRun]):
        first = members[0]
        for other in members[1:]:
            _check_alike(first.run, other.run)
        self.run, self.class_names, self._instances = first.run, first.class_names, first._instances
        self.magnification = first.magnification
        self.predictor = PredictorMean([member.predictor for member in members])
        self.threshold = float(np.mean([member.threshold for member in members]))
        self._runs = [member.run for member in members]

    @property
    def runs(self) -> list[Run]:
        """Those that answer together."""
        return list(self._runs)


def load_run(folder: Path | str | Sequence[Path | str], magnification: Magnification = AS_IT_IS) -> LoadedRun:
    """Load a finished run, or several that answer together: folds, or other networks for the same data.

    The threshold of one run is that of its `threshold.json`, and options of the instance method that were tuned with it
    replace those of its `instances` section. Several runs take the mean of their thresholds, and the first one's
    options; where all had the same validation images, `cellseg.tuning.tune_together` chooses anew.

    Args:
        folder: A run folder, or a list of them; a folder of folds (`cellseg.folds`) stands for its runs.
        magnification: Images are zoomed by it before each run sees them; of a diameter, each run has its own factor.
            Labels are made on the image's own pixels, with instance options `magnification.in_own_pixels`.

    Raises:
        InputError: a folder that is no run, an empty list, a diameter where a run does not know its
            training's, or runs that do not answer the same question.
    """
    folders = [folder] if isinstance(folder, Path | str) else list(folder)
    if not folders:
        raise InputError("an ensemble needs at least one run folder, got an empty list.")
    members = [LoadedRun(Run.read(one), magnification) for each in folders for one in members_of(each)]
    return members[0] if len(members) == 1 else EnsembleRun(members)


def _check_classes(run: Run, network: Any) -> None:
    """Raise InputError unless a network answers with the background and each class that its run names."""
    named = len(run.data.get("classes", ()))
    if not named or run.experiment.detects:
        return
    told = int(list(network.outputs[0].shape)[-1]) - 1
    if told != named:
        raise InputError(
            f"{run.folder / DATA} names {named} classes, but the network of {run.folder / MODEL} tells {told} apart. "
            "Copy the run again from where it came, or train again."
        )


def _check_alike(first: Run, other: Run) -> None:
    """Raise InputError where the probabilities of two runs do not mean the same thing."""
    for run in (first, other):
        if run.experiment.detects:
            raise InputError(
                f"{run.folder} cannot be averaged with others: {run.experiment.model['name']} finds cells one by one, "
                "and cells have no mean. Predict with one run at a time."
            )
    for key, of in (
        ("the number of channels", lambda run: run.data["channels"]),
        ("data.channels", lambda run: run.experiment.data.channels),
        ("data.contrast", lambda run: run.experiment.data.contrast),
        ("target", lambda run: run.experiment.target),
        ("the classes", lambda run: run.data.get("classes", [])),
        ("inference.decision", lambda run: run.experiment.inference.decision),
    ):
        if of(first) != of(other):
            raise InputError(
                f"{first.folder} and {other.folder} cannot be averaged: {key} is {of(first)!r} in the first and "
                f"{of(other)!r} in the second. Give runs of the same data and target."
            )


def instances_function(experiment: Experiment) -> functools.partial[np.ndarray]:
    """(foreground (H, W), inner (H, W) or None, threshold=) -> labels int32 (H, W), as the `instances` section says.

    `inner` is that of `cellseg.answers.inner`. Of an experiment that detects, `Detections` stand for the foreground.

    Raises:
        InputError: an unknown name or option, or a method that the target's answers are not enough for.
    """
    options = check_options(INSTANCES, experiment.instances, key="instances", given=("threshold",))
    name, target = experiment.instances["name"], target_name(experiment.target)
    if (name in DETECTIONS) != experiment.detects:
        model, known = experiment.model["name"], [one for one in INSTANCES if (one in DETECTIONS) == experiment.detects]
        raise InputError(
            f"instances.name: '{name}' does not go with model.name {model}, which "
            f"{'finds cells one by one' if experiment.detects else 'answers pixel by pixel'}. It takes: "
            f"{', '.join(known)}."
        )
    if name in NEEDS_INNER and target not in answers.INNER_CHANNEL:
        raise InputError(
            f"instances.name: '{name}' needs a network that says where the middle of each cell is, one of target "
            f"{', '.join(answers.INNER_CHANNEL)}; the target is {target}. Set target, or take instances.name watershed."
        )
    return functools.partial(INSTANCES[name], **options)


def try_instances(experiment: Experiment) -> None:
    """Call the instance function on a blank patch, which shows the options outside their range. Raises InputError."""
    blank = np.zeros((8, 8), np.float32)
    evidence = detections.nothing(blank.shape) if experiment.detects else blank
    instances_function(experiment)(evidence, blank, threshold=0.5)
