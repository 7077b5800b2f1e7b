"""Inference: an image of any size -> probability -> labels, with the normalisation that the run was trained with.

How large tiles are is the work of `cellseg.geometry`; they are cut and stitched in `pipelines.tiling`, and views of one
image averaged in `cellseg.averaging`. The run folder is read in `cellseg.runs`, the network in `cellseg.export`.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellseg import answers
from cellseg.averaging import averaged, mean
from cellseg.experiment import Experiment
from cellseg.export import network_of
from cellseg.geometry import Tiling, tiling
from cellseg.instances import INSTANCES, NEEDS_INNER
from cellseg.magnification import AS_IT_IS, Magnification, in_own_pixels
from cellseg.named import check_options
from cellseg.networks import answering, target_name
from cellseg.runs import Run
from pipelines.contrast import contrast_limits, stretch_contrast, to_channels
from pipelines.errors import InputError
from pipelines.sample import Sample
from pipelines.tiling import predict_resized, predict_tiled


class LowContrastWarning(UserWarning):
    """An image's contrast lies far below that of the training images; it was not stretched to full scale."""


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image.

    Args:
        labels: int32 (H, W), 0 = background, 1..n = one cell each.
        probability: float32 (H, W), foreground.
        classes: int32 (H, W), the class of the cell that each pixel lies in, 0 = background; None where the run knows
            no classes.
    """

    labels: np.ndarray
    probability: np.ndarray
    classes: np.ndarray | None = None


class Probable(Protocol):
    """What says the probability of an image: a `Predictor`, or several as one."""

    @property
    def members(self) -> list["Predictor"]:
        """The predictors whose probabilities are averaged."""

    def probability(self, image: np.ndarray, *, limits: tuple[float, float] | None = None) -> np.ndarray:
        """See `Predictor.probability`."""


class Predictor:
    """A network with its tiling and normalisation.

    Args:
        network: Keras model, or a `cellseg.export.Exported` one: (1, tile, tile, C) in [0, 1] ->
            (1, output, output, K) probabilities; auxiliary outputs are left out.
        tiling: Geometry.
        channels: Number of channels that the network takes.
        contrast: Percentiles of `stretch_contrast`.
        minimum_range: Least contrast range that is stretched to full scale, in grey values; by dtype name, since the
            same scene has 257 times the grey values in 16 bits.
        symmetries: Of the image, whose probabilities are averaged; see `cellseg.averaging.averaged`.
        zoom: Factors of the image's size, whose probabilities are averaged.
    """

    def __init__(
        self,
        network: Any,
        *,
        tiling: Tiling,
        channels: int,
        contrast: tuple[float, float],
        minimum_range: Mapping[str, float],
        symmetries: int = 1,
        zoom: Sequence[float] = (1.0,),
    ):
        self._network, self.tiling, self.channels = answering(network), tiling, channels
        self.symmetries, self.zoom = symmetries, tuple(zoom)
        self._contrast, self._minimum_range = contrast, minimum_range

    @property
    def members(self) -> list["Predictor"]:
        """Those whose probabilities are averaged: this one."""
        return [self]

    def probability(self, image: np.ndarray, *, limits: tuple[float, float] | None = None) -> np.ndarray:
        """Probability of an image.

        Args:
            image: (H, W, C) as in the file: uint8, uint16 or float32.
            limits: Contrast limits, where they are known already.

        Returns:
            float32 (H, W, K).

        Raises:
            InputError: a number of channels that the network was not trained on.
        """
        if image.shape[2] != self.channels:
            raise InputError(
                f"the image has {image.shape[2]} channels; this run was trained on {self.channels}. "
                "Convert the image, or train with data.channels."
            )
        stretched = self.stretched(image, limits=contrast_limits(image, *self._contrast) if limits is None else limits)
        return averaged(stretched, self._look, symmetries=self.symmetries, zoom=self.zoom)

    def stretched(self, image: np.ndarray, *, limits: tuple[float, float]) -> np.ndarray:
        """An image, or a window of it, as the network sees it: float32 (H, W, C) in [0, 1].

        Args:
            image: (H, W, C) as in the file.
            limits: Contrast limits of the whole image.
        """
        least = self._minimum_range.get(image.dtype.name, 0.0)
        if 0 < limits[1] - limits[0] < least:
            warnings.warn(
                f"contrast range {limits[1] - limits[0]:g} is far below that of the training images "
                f"(at least {least:g} expected); the image was not stretched to full scale.",
                LowContrastWarning,
                stacklevel=2,
            )
        return stretch_contrast(image, limits=limits, minimum_range=least)

    def answer(self, tiles: np.ndarray) -> np.ndarray:
        """Probability of tiles: float32 (n, tile, tile, C) in [0, 1] -> float32 (n, side, side, K), side >= output."""
        return np.asarray(self._network.predict_on_batch(tiles))

    def _look(self, image: np.ndarray) -> np.ndarray:
        """Probability of one view of an image that is stretched already."""
        look, sides = self.answer, self.tiling
        if sides.resize:
            return predict_resized(image, look, tile=sides.tile, output=sides.output)
        return predict_tiled(
            image,
            look,
            tile=sides.tile,
            output=sides.output,
            overlap=sides.overlap,
            stride=sides.stride,
            blend=sides.blend,
        )


class PredictorMean:
    """Several predictors as one: the mean of their probabilities.

    Args:
        predictors: At least one; they take the same channels and answer with the same ones. Contrast limits that a
            caller knows already are passed on to all.
    """

    def __init__(self, predictors: Sequence[Probable]):
        self._predictors = predictors

    @property
    def members(self) -> list[Predictor]:
        """Those whose probabilities are averaged."""
        return [member for predictor in self._predictors for member in predictor.members]

    def probability(self, image: np.ndarray, *, limits: tuple[float, float] | None = None) -> np.ndarray:
        """Mean probability, float32 (H, W, K); see `Predictor.probability`."""
        return mean(predictor.probability(image, limits=limits) for predictor in self._predictors)


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
        self.predictor: Probable = Predictor(
            network_of(run, tile=geometry.tile),
            tiling=geometry,
            channels=data["channels"],
            contrast=experiment.data.contrast,
            minimum_range=data["minimum_range"],
            symmetries=experiment.inference.symmetries,
            zoom=[factor * zoom for zoom in experiment.inference.zoom],
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

    def decide(self, probability: np.ndarray) -> Prediction:
        """Probability (H, W, K) -> cells, with the run's threshold and instance settings."""
        foreground = self.foreground(probability)
        labels = self._instances(foreground, self.inner(probability), threshold=self.threshold)
        kinds = answers.cell_classes(labels, answers.classes(probability)) if self.class_names else None
        return Prediction(labels, foreground, kinds)

    def foreground(self, probability: np.ndarray) -> np.ndarray:
        """Probability (H, W, K) -> that of foreground, (H, W), as `inference.decision` says."""
        experiment = self.run.experiment
        decision = experiment.inference.decision
        return answers.foreground(probability, target=target_name(experiment.target), decision=decision)

    def inner(self, probability: np.ndarray) -> np.ndarray | None:
        """Probability (H, W, K) -> how far inside of a cell each pixel lies, (H, W); None where no channel says it."""
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
        folder: A run folder, or a list of them.
        magnification: Images are zoomed by it before each run sees them; of a diameter, each run has its own factor.
            Labels are made on the image's own pixels, with instance options `magnification.in_own_pixels`.

    Raises:
        InputError: a folder that is no run, an empty list, a diameter where a run does not know its
            training's, or runs that do not answer the same question.
    """
    if isinstance(folder, Path | str):
        return LoadedRun(Run.read(folder), magnification)
    if not folder:
        raise InputError("an ensemble needs at least one run folder, got an empty list.")
    members = [LoadedRun(Run.read(one), magnification) for one in folder]
    return members[0] if len(members) == 1 else EnsembleRun(members)


def _check_alike(first: Run, other: Run) -> None:
    """Raise InputError where the probabilities of two runs do not mean the same thing."""
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


def instances_function(experiment: Experiment) -> Callable[..., np.ndarray]:
    """(foreground (H, W), inner (H, W) or None, threshold=) -> labels int32 (H, W), as the `instances` section says.

    `inner` is that of `cellseg.answers.inner`.

    Raises:
        InputError: an unknown name or option, or a method that the target's answers are not enough for.
    """
    options = check_options(INSTANCES, experiment.instances, key="instances", given=("threshold",))
    name, target = experiment.instances["name"], target_name(experiment.target)
    if name in NEEDS_INNER and target not in answers.INNER_CHANNEL:
        raise InputError(
            f"instances.name: '{name}' needs a network that says where the middle of each cell is, one of target "
            f"{', '.join(answers.INNER_CHANNEL)}; the target is {target}. Set target, or take instances.name watershed."
        )
    return functools.partial(INSTANCES[name], **options)


def try_instances(experiment: Experiment) -> None:
    """Call the instance function on a blank patch, which shows the options outside their range. Raises InputError."""
    blank = np.zeros((8, 8), np.float32)
    instances_function(experiment)(blank, blank, threshold=0.5)
