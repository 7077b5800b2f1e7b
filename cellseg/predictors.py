"""Predictors: an image of any size, stretched and tiled, brought to a network; what the network says of the whole.

How large tiles are is the work of `cellseg.geometry`; they are cut and stitched in `pipelines.tiling`, and views of one
image averaged in `cellseg.averaging`. What becomes of an answer lives in `cellseg.inference`.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cellseg.averaging import averaged, mean
from cellseg.detections import Detections, join
from cellseg.geometry import Tiling
from cellseg.networks import answering
from pipelines.contrast import contrast_limits, stretch_contrast
from pipelines.errors import InputError
from pipelines.tiling import predict_resized, predict_tiled, resized


class ImageWarning(UserWarning):
    """Something about one image that its user should hear."""


class ManyCellsWarning(ImageWarning):
    """A tile holds more cells than the network can name."""


class LowContrastWarning(ImageWarning):
    """An image's contrast lies far below that of the training images; it was not stretched to full scale."""


class Probable(Protocol):
    """What says the probability of an image: a `Predictor`, or several as one; or a `Detector`, which finds cells."""

    @property
    def members(self) -> list[Any]:
        """The predictors whose probabilities are averaged."""

    def probability(self, image: np.ndarray, *, limits: tuple[float, float] | None = None) -> Any:
        """See `Predictor.probability`, `Detector.probability`."""


class Normaliser:
    """What an image looks like to the network of a run.

    Args:
        channels: Number of channels that the network takes.
        contrast: Percentiles of `stretch_contrast`.
        minimum_range: Least contrast range that is stretched to full scale, in grey values; by dtype name, since the
            same scene has 257 times the grey values in 16 bits.
    """

    def __init__(self, *, channels: int, contrast: tuple[float, float], minimum_range: Mapping[str, float]):
        self.channels = channels
        self._contrast, self._minimum_range = contrast, minimum_range

    def normalised(self, image: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
        """A whole image as the network sees it; its contrast limits are measured where they are not known.

        Raises:
            InputError: a number of channels that the network was not trained on.
        """
        if image.shape[2] != self.channels:
            raise InputError(
                f"the image has {image.shape[2]} channels; this run was trained on {self.channels}. "
                "Convert the image, or train with data.channels."
            )
        return self.stretched(image, limits=contrast_limits(image, *self._contrast) if limits is None else limits)

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


class Predictor(Normaliser):
    """A network with its tiling and normalisation.

    Args:
        network: Keras model, or a `cellseg.export.Exported` one: (1, tile, tile, C) in [0, 1] ->
            (1, output, output, K) probabilities; auxiliary outputs are left out.
        tiling: Geometry.
        channels, contrast, minimum_range: See `Normaliser`.
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
        super().__init__(channels=channels, contrast=contrast, minimum_range=minimum_range)
        self._network, self.tiling = answering(network), tiling
        self.symmetries, self.zoom = symmetries, tuple(zoom)

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
        stretched = self.normalised(image, limits)
        return averaged(stretched, self._look, symmetries=self.symmetries, zoom=self.zoom)

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


class Detector(Normaliser):
    """A network that finds cells one by one, with its tiling and normalisation; a `Probable` whose answers are
    `Detections`.

    Args:
        network: A `cellseg.models.mask_rcnn.MaskRCNN`.
        tiling: Side and overlap of the tiles.
        channels, contrast, minimum_range: See `Normaliser`.
        zoom: One factor of the image's size.
    """

    def __init__(
        self,
        network: Any,
        *,
        tiling: Tiling,
        channels: int,
        contrast: tuple[float, float],
        minimum_range: Mapping[str, float],
        zoom: Sequence[float] = (1.0,),
    ):
        super().__init__(channels=channels, contrast=contrast, minimum_range=minimum_range)
        self._network, self.tiling = network, tiling
        self.symmetries, self.zoom = 1, tuple(zoom)

    @property
    def members(self) -> list["Detector"]:
        """This one alone: detections have no mean."""
        return [self]

    def probability(self, image: np.ndarray, *, limits: tuple[float, float] | None = None) -> Detections:
        """The cells of an image: whole where it fits into a tile, else in tiles that overlap, each cell once.

        Args:
            image: (H, W, C) as in the file: uint8, uint16 or float32.
            limits: Contrast limits, where they are known already.

        Raises:
            InputError: a number of channels that the network was not trained on.
        """
        shape, stretched = image.shape[:2], self.normalised(image, limits)
        if self.zoom != (1.0,):
            stretched = resized(stretched, tuple(max(1, round(side * self.zoom[0])) for side in shape))
        height, width = stretched.shape[:2]
        side, overlap = self.tiling.tile, self.tiling.overlap
        corners = [(row, column) for row in _starts(height, side, overlap) for column in _starts(width, side, overlap)]
        windows = [stretched[row : row + side, column : column + side] for row, column in corners]
        parts = [
            self._look(window).moved(*corner, (height, width)) for window, corner in zip(windows, corners, strict=True)
        ]
        tiles = [(row, column, min(row + side, height), min(column + side, width)) for row, column in corners]
        found = parts[0] if len(parts) == 1 else join(parts, tiles)
        return found if (height, width) == shape else found.resized(shape)

    def _look(self, window: np.ndarray) -> Detections:
        """The cells of one tile; what it lacks below and to the right is filled with its mean."""
        side = self.tiling.tile
        height, width, channels = window.shape
        tile = np.empty((1, side, side, channels), np.float32)
        tile[...] = window.mean(axis=(0, 1)) if window.size else 0
        tile[0, :height, :width] = window
        answer = {name: np.asarray(value)[0] for name, value in self._network.detect(tile).items()}
        middle = (answer["boxes"][:, :2] + answer["boxes"][:, 2:]) / 2
        there = (answer["classes"] > 0) & (middle < (height, width)).all(axis=1)
        most = len(answer["classes"])
        if answer["found"] > most:
            warnings.warn(
                f"{int(answer['found'])} cells were found in a tile of {side} px, and the {most} with the best scores "
                "are kept. Train with more model.detections, or set a smaller inference.tile.",
                ManyCellsWarning,
                stacklevel=2,
            )
        names = ("boxes", "scores", "classes", "masks")
        return Detections((height, width), *(answer[name][there] for name in names))


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin that cover an axis and overlap by at least so much, spread evenly."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(number * (length - tile) / (count - 1)) for number in range(count)]
