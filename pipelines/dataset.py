"""From shards to batches: the one per-sample function, and the tf.data column that runs it.

A batch is a pure function of (seed, step): its samples, crops and augmentation do not depend on how many threads work
on it or where training was resumed. Whole images for validation and test come from the same `ShardReader`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.augment import MAPS, Augmenter
from pipelines.errors import InputError
from pipelines.images import stretch_contrast
from pipelines.shards import FORMATS
from pipelines.shards.manifest import Manifest
from pipelines.targets import NUM_OUTPUTS, TARGETS
from pipelines.tiling import mirrored_window


class ShardReader:
    """Reads single records of a folder of shards.

    Args:
        folder: Folder with `manifest.json`.
        verify: Compare every shard with its checksum first.

    Raises:
        InputError: no manifest, or a shard that is missing or damaged (the message names it).
    """

    def __init__(self, folder: Path | str, *, verify: bool = True):
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        if verify:
            self.manifest.verify(self.folder)
        self._format = FORMATS[self.manifest.format]

    def read(self, sample: dict) -> dict[str, np.ndarray]:
        """The record of one entry of `manifest.samples`: `image` in the file's dtype, `labels`, `contrast`, ..."""
        path = self.folder / self.manifest.shards[sample["shard"]]["file"]
        return self._format.read(path, sample["position"])

    def split(self, split: str) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
        """(entry, record) of each sample of a split, one at a time."""
        for sample in self.manifest.of_split(split):
            yield sample, self.read(sample)


class Batches:
    """Training batches by step number.

    Args:
        reader: Where the samples come from; the train split is used.
        patch: Side of the input patch, in pixels.
        output: Side of the target; smaller than `patch` for a `valid` network, whose rim is mirrored at the border of
            the image. None = patch.
        batch_size: Patches a batch.
        target: Name in `TARGETS`.
        augment: Steps of an `Augmenter`.
        weight_map: labels int32 (h, w) -> float32 (h, w), made from the labels of the finished patch, so that it
            describes them whatever was done to them; None = one everywhere.
        minimum_range: Least contrast range by dtype, see `minimum_ranges`.
        seed: Same seed, same batches.

    Raises:
        InputError: no training sample, or an image smaller than the patch.
    """

    def __init__(
        self,
        reader: ShardReader,
        *,
        patch: int,
        output: int | None = None,
        batch_size: int,
        target: str = "foreground",
        augment: Sequence[dict] = (),
        weight_map: Callable[[np.ndarray], np.ndarray] | None = None,
        minimum_range: Mapping[str, float] | None = None,
        seed: int = 0,
    ):
        self._reader = reader
        self._samples = reader.manifest.of_split("train")
        self._patch, self._output = patch, patch if output is None else output
        self._batch_size, self._seed = batch_size, seed
        self._target = TARGETS[target]
        self._augment = Augmenter(augment)
        self._weight_map = weight_map
        self._minimum_range = minimum_range or {}
        check_patch(self._samples, self._output)
        inner = (batch_size, self._output, self._output)
        self.shapes = (
            (batch_size, patch, patch, reader.manifest.channels),
            (*inner, NUM_OUTPUTS[target]),
            (*inner, 1),
        )

    def steps_per_epoch(self) -> int:
        """Steps in which about as many pixels are seen as the training images have."""
        pixels = sum(sample["shape"][0] * sample["shape"][1] for sample in self._samples)
        return max(1, math.ceil(pixels / (self._output**2 * self._batch_size)))

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The batch of a step counted from the start of training.

        Returns:
            image float32 (batch, patch, patch, C) in [0, 1], target float32 (batch, output, output, K), and weight_map
            float32 (batch, output, output, 1), 0 = unannotated.
        """
        parts = [self._patch_at(step * self._batch_size + place) for place in range(self._batch_size)]
        images, targets, weight_maps = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        return images, targets, weight_maps

    def _patch_at(self, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The patch at a place in the endless sequence of shuffled passes over the training samples."""
        turn, rank = divmod(place, len(self._samples))
        # Every pass sees every sample exactly once, in an order of its own.
        index = np.random.default_rng([self._seed, turn]).permutation(len(self._samples))[rank]
        rng = np.random.default_rng([self._seed, turn, int(index)])
        return self.patch(self._samples[index], rng)

    def patch(self, sample: dict, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One random, augmented patch of a sample: (image, target, weight_map). The one per-sample function."""
        record = self._reader.read(sample)
        height, width = record["image"].shape[:2]
        row = int(rng.integers(height - self._output + 1))
        column = int(rng.integers(width - self._output + 1))
        margin = (self._patch - self._output) // 2
        image = mirrored_window(record["image"], row - margin, column - margin, self._patch)
        maps = {
            name: mirrored_window(record[name], row - margin, column - margin, self._patch)
            for name in MAPS
            if name in record
        }
        # The limits come from the whole image: a patch without cells must not be stretched to full scale.
        least = self._minimum_range.get(image.dtype.name, 0.0)
        image = stretch_contrast(image, limits=tuple(record["contrast"]), minimum_range=least)
        maps["labels"] = maps["labels"].astype(np.int32)
        image, maps = self._augment(image, maps, rng=rng)
        if self._weight_map is not None:
            weights = self._weight_map(maps["labels"])
            maps["weight_map"] = weights * maps["weight_map"] if "weight_map" in maps else weights
        inner = slice(margin, margin + self._output)
        maps = {name: array[inner, inner] for name, array in maps.items()}
        weight_map = maps.get("weight_map", np.ones(maps["labels"].shape, np.float32))
        if "ignore" in maps:
            weight_map = np.where(maps["ignore"].astype(bool), np.float32(0), weight_map)
        return image, self._target(maps["labels"]), weight_map[..., None]


def minimum_ranges(samples: Sequence[dict]) -> dict[str, float]:
    """Least contrast range that is stretched to full scale, in grey values, for each dtype of the training samples.

    A quarter of the 5 % quantile of their ranges: a nearly empty frame far below it is left dim, so that its noise
    does not look like cells.
    """
    ranges: dict[str, list[float]] = {}
    for sample in samples:
        low, high = sample["contrast"]
        ranges.setdefault(sample["dtype"], []).append(high - low)
    return {dtype: float(np.quantile(values, 0.05)) / 4 for dtype, values in ranges.items()}


def check_patch(samples: Sequence[dict], patch: int) -> None:
    """Raise InputError if a sample is smaller than the patch that is cut from it; the message names the smallest."""
    if not samples:
        raise InputError("The training split holds no image.")
    smallest = min(samples, key=lambda sample: min(sample["shape"][:2]))
    height, width = smallest["shape"][:2]
    if min(height, width) < patch:
        raise InputError(
            f"{smallest['name']} is {height}x{width} pixels, smaller than a patch of {patch}x{patch}. "
            "Set train.patch to a smaller side that the network can take, or leave small images out."
        )


def training_dataset(batches: Batches, *, first_step: int = 0, parallel_calls: int | None = None):
    """Endless `tf.data.Dataset` of (image, target, weight_map) batches with static shapes.

    Args:
        batches: What to stream.
        first_step: Where to start; the batches are those of an uninterrupted run.
        parallel_calls: Threads that make batches; None = tf.data decides. The answer does not depend on it.
    """
    import tensorflow as tf

    def load(step):
        arrays = tf.numpy_function(lambda n: batches.batch(int(n)), [step], [tf.float32] * 3)
        # A known batch size matters: `fit` took 1.5 times as long without it.
        for array, shape in zip(arrays, batches.shapes, strict=True):
            array.set_shape(shape)
        return tuple(arrays)

    # One call makes a whole batch: the cost of entering Python is paid once a batch, not once a sample.
    calls = tf.data.AUTOTUNE if parallel_calls is None else parallel_calls
    steps = tf.data.Dataset.range(first_step, 2**62)
    return steps.map(load, num_parallel_calls=calls, deterministic=True).prefetch(tf.data.AUTOTUNE)
