"""Inference: an image of any size -> probability -> labels, with the normalisation that the run was trained with.

Tiles are cut and stitched in `pipelines.tiling`; the run folder is read in `cellseg.runs`.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellseg import answers
from cellseg.experiment import Experiment
from cellseg.instances import INSTANCES
from cellseg.named import check_options
from cellseg.networks import answer_size, answering, has_fixed_size, size_function
from cellseg.runs import MODEL, Run, load_model
from pipelines.errors import InputError
from pipelines.images import contrast_limits, stretch_contrast, to_channels
from pipelines.sample import Sample
from pipelines.tiling import predict_tiled

LARGEST_TILE = 768
OVERLAP = 64


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


@dataclass(frozen=True)
class Tiling:
    """Geometry of inference, in pixels: side of a tile, of its answer, and overlap of neighbouring answers."""

    tile: int
    output: int
    overlap: int


class Predictor:
    """A network with its tiling and normalisation.

    Args:
        network: Keras model, (1, tile, tile, C) in [0, 1] -> (1, output, output, K) probabilities; auxiliary outputs
            are left out.
        tiling: Geometry.
        channels: Number of channels that the network takes.
        contrast: Percentiles of `stretch_contrast`.
        minimum_range: Least contrast range that is stretched to full scale, in grey values; by dtype name, since the
            same scene has 257 times the grey values in 16 bits.
    """

    def __init__(
        self,
        network: Any,
        *,
        tiling: Tiling,
        channels: int,
        contrast: tuple[float, float],
        minimum_range: Mapping[str, float],
    ):
        self._network, self._tiling = answering(network), tiling
        self._channels, self._contrast, self._minimum_range = channels, contrast, minimum_range

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
        if image.shape[2] != self._channels:
            raise InputError(
                f"the image has {image.shape[2]} channels; this run was trained on {self._channels}. "
                "Convert the image, or train with data.channels."
            )
        limits = contrast_limits(image, *self._contrast) if limits is None else limits
        least = self._minimum_range.get(image.dtype.name, 0.0)
        if 0 < limits[1] - limits[0] < least:
            warnings.warn(
                f"contrast range {limits[1] - limits[0]:g} is far below that of the training images "
                f"(at least {least:g} expected); the image was not stretched to full scale.",
                LowContrastWarning,
                stacklevel=2,
            )
        stretched = stretch_contrast(image, limits=limits, minimum_range=least)
        tiling = self._tiling
        return predict_tiled(
            stretched, self._network.predict_on_batch, tile=tiling.tile, output=tiling.output, overlap=tiling.overlap
        )


class LoadedRun:
    """A run that is ready to predict; made by `load_run`."""

    def __init__(self, run: Run):
        self.run = run
        experiment, data = run.experiment, run.data
        self.predictor = Predictor(
            load_model(run.folder / MODEL),
            tiling=tiling(experiment, shapes=[tuple(shape) for shape in data["shapes"]]),
            channels=data["channels"],
            contrast=experiment.data.contrast,
            minimum_range=data["minimum_range"],
        )
        self.threshold = float(run.threshold["threshold"])
        self.class_names = tuple(data.get("classes", ()))
        self._instances = instances_function(experiment)

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
        labels = self._instances(foreground, threshold=self.threshold)
        kinds = answers.cell_classes(labels, answers.classes(probability)) if self.class_names else None
        return Prediction(labels, foreground, kinds)

    def foreground(self, probability: np.ndarray) -> np.ndarray:
        """Probability (H, W, K) -> that of foreground, (H, W), as `inference.decision` says."""
        return answers.foreground(probability, decision=self.run.experiment.inference.decision)

    def to_channels(self, image: np.ndarray) -> np.ndarray:
        """The channels that the run was trained on: as `data.channels` says, and one for three equal ones."""
        image = to_channels(image, self.run.experiment.data.channels)
        grey = self.run.data["channels"] == 1 and image.shape[2] > 1 and (image == image[..., :1]).all()
        return image[..., :1] if grey else image


def load_run(folder: Path | str) -> LoadedRun:
    """Load a finished run. Raises InputError if the folder is none."""
    return LoadedRun(Run.read(folder))


def instances_function(experiment: Experiment):
    """(probability (H, W), threshold=) -> labels int32 (H, W), as the experiment's `instances` section says."""
    options = check_options(INSTANCES, experiment.instances, key="instances", given=("threshold",))
    return functools.partial(INSTANCES[experiment.instances["name"]], **options)


def tiling(experiment: Experiment, *, shapes: Sequence[tuple[int, int]]) -> Tiling:
    """Geometry of inference for an experiment.

    The YAML's `inference.tile` and `inference.overlap` win. Otherwise a `valid` network keeps its training patch and
    needs no overlap, and any other gets the tile with the fewest pixels to compute on images of these shapes.

    Args:
        experiment: Its model, train and inference sections are read.
        shapes: (H, W) of the images.

    Raises:
        InputError: a tile that the network cannot take.
    """
    tile, overlap = experiment.inference.tile, experiment.inference.overlap
    patch = experiment.train.patch
    if has_fixed_size(experiment):
        if tile not in (None, patch):
            raise InputError(
                f"inference.tile is {tile}, but this network is built for tiles of train.patch, {patch} px. Leave "
                "inference.tile out."
            )
        tile = patch
    elif answer_size(experiment, patch) < patch:  # a network that loses its rim
        tile, overlap = tile or patch, overlap or 0
    elif tile is None:
        overlap = OVERLAP if overlap is None else overlap
        output_size = size_function(experiment)
        legal = [side for side in range(1, LARGEST_TILE + 1) if output_size(side) == side]
        tile = cheapest_tile(shapes, overlap=overlap, legal=legal)
    overlap = min(OVERLAP, tile // 4) if overlap is None else overlap
    return Tiling(tile, answer_size(experiment, tile), overlap)


def cheapest_tile(shapes: Sequence[tuple[int, int]], *, overlap: int, legal: Sequence[int]) -> int:
    """The side among the legal ones with the fewest pixels to compute in all; at least twice the overlap."""

    def cost(tile: int) -> int:
        pieces = [[max(1, -(-(side - overlap) // (tile - overlap))) for side in shape] for shape in shapes]
        return sum(rows * columns for rows, columns in pieces) * tile * tile

    large = [side for side in legal if side >= max(2 * overlap, 1) and side > overlap]
    if not large:
        raise InputError(
            f"inference.overlap must be below half of {LARGEST_TILE} px, got {overlap}; or set inference.tile."
        )
    return min(large, key=lambda tile: (cost(tile), tile))
