"""From shards to batches: the one per-sample function, and the tf.data column that runs it.

A batch is a pure function of (seed, step): its samples, crops and augmentation do not depend on how many threads work
on it or where training was resumed. Whole images for validation and test come from the same `ShardReader`.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.allocator import aligned, keep_freed_memory
from pipelines.augment import MAPS, Augmenter
from pipelines.contrast import stretch_contrast
from pipelines.errors import InputError, nearest
from pipelines.shards.reader import ShardReader
from pipelines.targets import TARGETS, num_outputs


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array of a batch."""

    shape: tuple[int, ...]
    dtype: str


class Batches:
    """Training batches by step number.

    Args:
        reader: Where the samples come from; the train split is used.
        patch: Side of the input patch, in pixels.
        output: Side of the target; smaller than `patch` for a `valid` network, whose rim is mirrored at the border of
            the image. None = patch.
        batch_size: Patches a batch.
        target: Name in `TARGETS`, and keywords of its function.
        augment: Steps of an `Augmenter`. Where one of them crops, pads or resizes, the steps get whole images and must
            make patches of them; else they get patches that were cut at random.
        oversample: Share of the patches that are cut around a cell, in [0, 1]; the others lie anywhere.
        weight_map: labels int32 (h, w) -> float32 (h, w), made from the labels of the finished patch, so that it
            describes them whatever was done to them; None = one everywhere.
        minimum_range: Least contrast range by dtype, see `minimum_ranges`.
        seed: Same seed, same batches.

    Attributes:
        failure: What was wrong with the images or steps, if making a batch has failed.

    Raises:
        InputError: no training sample, an image smaller than the patch, an unknown target, a step that does not work
            on these images.
    """

    def __init__(
        self,
        reader: ShardReader,
        *,
        patch: int,
        output: int | None = None,
        batch_size: int,
        target: str | Mapping = "foreground",
        augment: Sequence[Mapping] = (),
        oversample: float = 0.0,
        weight_map: Callable[[np.ndarray], np.ndarray] | None = None,
        minimum_range: Mapping[str, float] | None = None,
        seed: int = 0,
    ):
        self._reader = reader
        self._samples = reader.manifest.of_split("train")
        self._patch, self._output = patch, patch if output is None else output
        self._batch_size, self._seed = batch_size, seed
        self._augment = Augmenter(augment)
        self._oversample = oversample
        self._weight_map = weight_map
        self._minimum_range = minimum_range or {}
        options = {"name": target} if isinstance(target, str) else dict(target)
        name = options.pop("name", None)
        if name not in TARGETS:
            raise InputError(
                f"target: '{name}' is not known.{nearest(str(name), TARGETS)} Known: {', '.join(TARGETS)}."
            )
        if name == "classes" and not reader.manifest.classes:
            raise InputError("target: classes, but the images of this data set have no classes. Use foreground.")
        if name == "classes":
            options["num_classes"] = len(reader.manifest.classes)
        self._target: Callable = functools.partial(TARGETS[name], **options)
        self._order = functools.lru_cache(maxsize=4)(self._order_of)
        self.failure: InputError | None = None
        self._check()
        inner = (batch_size, self._output, self._output)
        self.shapes = (
            (batch_size, patch, patch, reader.manifest.channels),
            (*inner, num_outputs(name, **options)),
            (*inner, 1),
        )

    def steps_per_epoch(self) -> int:
        """Steps in which about as many pixels are seen as the training images have; images, where they are resized."""
        pixels = sum(sample["shape"][0] * sample["shape"][1] for sample in self._samples)
        patches = len(self._samples) if self._augment.resizes else pixels / self._output**2
        return max(1, math.ceil(patches / self._batch_size))

    def batch(self, step: int, *, first: int = 0, every: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The batch of a step counted from the start of training, or its rows first, first + every, ... alone.

        Returns:
            float32 image (batch, patch, patch, C) in [0, 1], target (batch, output, output, K), and weight_map
            (batch, output, output, 1), 0 = unannotated.
        """
        rows = range(first, self._batch_size, every)
        image, target, weight_map = (aligned((len(rows), *shape[1:])) for shape in self.shapes)
        for place, patch in self._patches(step, rows):
            image[place], target[place], weight_map[place] = patch["image"], patch["target"], patch["weight_map"]
        return image, target, weight_map

    @property
    def specs(self) -> Sequence:
        """Shape and dtype of every array of a batch, nested as the batch is."""
        return tuple(ArraySpec(shape, "float32") for shape in self.shapes)

    def _patches(self, step: int, rows: Iterable[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The patches in those rows of a batch, each with its place among them."""
        for place, row in enumerate(rows):
            try:
                yield place, self.patch(*self._drawn(step * self._batch_size + row))
            except InputError as error:
                self.failure = error  # TensorFlow would report it as an error of its own
                raise

    def names(self, step: int) -> list[str]:
        """The names of the samples in the batch of a step."""
        return [self._drawn(step * self._batch_size + place)[0]["name"] for place in range(self._batch_size)]

    def example(self, place: int) -> tuple[dict, dict[str, np.ndarray]]:
        """The patch at a place of the stream, to be looked at.

        Returns:
            The entry of its sample, and its arrays: image (patch, patch, C), labels int32 (output, output), target
            (output, output, K), weight_map (output, output, 1).
        """
        sample, rng = self._drawn(place)
        return sample, self.patch(sample, rng)

    def _drawn(self, place: int) -> tuple[dict, np.random.Generator]:
        """The sample at a place in the endless sequence of shuffled passes over the samples, and its randomness."""
        turn, rank = divmod(place, len(self._samples))
        index = int(self._order(turn)[rank])
        return self._samples[index], np.random.default_rng([self._seed, turn, index])

    def _order_of(self, turn: int) -> np.ndarray:
        # Every pass sees every sample exactly once, in an order of its own.
        return np.random.default_rng([self._seed, turn]).permutation(len(self._samples))

    def patch(self, sample: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One random, augmented patch of a sample, as `example` describes it."""
        margin = (self._patch - self._output) // 2
        image, maps = self._augmented(sample, rng)
        labels, classes = maps["labels"], maps.get("classes")
        inner = slice(margin, margin + self._output)
        weight_map = np.ones((self._output, self._output), np.float32)
        if "weight_map" in maps:
            weight_map = maps["weight_map"][inner, inner]
        if self._weight_map is not None:
            weight_map = weight_map * self._weight_map(labels)[inner, inner]
        if "ignore" in maps:
            weight_map = np.where(maps["ignore"][inner, inner], np.float32(0), weight_map)
        return {
            "image": image,
            "labels": labels[inner, inner],
            "target": self._target(labels, classes)[inner, inner],
            "weight_map": weight_map[..., None],
        }

    def _augmented(self, sample: dict, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A random crop of a sample, stretched and augmented, and its maps. The one per-sample function."""
        margin, extra = (self._patch - self._output) // 2, 0
        if self._augment.resizes:
            record = self._reader.read(sample)
        else:
            extra = self._augment.margin
            row, column = self._corner(sample, rng)
            around = margin + extra
            record = self._reader.window(sample, row - around, column - around, self._patch + 2 * extra)
        # The limits come from the whole image: a patch without cells must not be stretched to full scale.
        least = self._minimum_range.get(sample["dtype"], 0.0)
        image = stretch_contrast(record["image"], limits=tuple(sample["contrast"]), minimum_range=least)
        maps = {name: record[name] for name in MAPS if name in record}
        image, maps = self._augment(image, maps, rng=rng, margin=extra)
        self._check_answer(sample, image)
        for name in maps.keys() & {"labels", "classes"}:
            maps[name] = maps[name].astype(np.int32, copy=False)
        return image, maps

    def _corner(self, sample: dict, rng: np.random.Generator) -> tuple[int, int]:
        """Where the target of a patch begins: anywhere, or so that a cell lies in the patch's middle half."""
        height, width = sample["shape"][:2]
        free = np.array([height - self._output, width - self._output])
        if self._oversample and rng.random() < self._oversample:
            centre = self._centre(sample, rng)
            if centre is not None:
                quarter = self._output // 4
                jitter = rng.integers(quarter, self._output - quarter + 1, 2)
                row, column = np.clip(centre - jitter, 0, free)
                return int(row), int(column)
        return int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))

    def _centre(self, sample: dict, rng: np.random.Generator) -> np.ndarray | None:
        """A pixel of a random cell, of a random class where there are classes, so that rare ones are seen as often."""
        centres = self._reader.centres(sample)
        if not len(centres):
            return None
        kinds = np.unique(centres[:, 2])
        centres = centres[centres[:, 2] == kinds[rng.integers(len(kinds))]]
        return centres[rng.integers(len(centres)), :2]

    def _check(self) -> None:
        if not self._samples:
            raise InputError("The training split holds no image.")
        if not (0 < self._output <= self._patch and (self._patch - self._output) % 2 == 0 and self._batch_size > 0):
            raise InputError(
                f"A patch of {self._patch} px, a target of {self._output} px and {self._batch_size} patches a batch do "
                "not go together: the target lies in the middle of the patch, and a batch holds at least one."
            )
        self._augment.check(self._reader.manifest.channels)
        if not self._augment.resizes:
            check_patch(self._samples, self._output)
            return
        if self._oversample:
            raise InputError(
                "train.oversample cuts patches around cells, but a step of augment crops, pads or resizes whole "
                "images. Keep one of them."
            )
        for sample in (min(self._samples, key=_area), max(self._samples, key=_area)):
            blank = np.zeros(sample["shape"], np.float32)
            labels = np.zeros(sample["shape"][:2], np.int32)
            for seed in range(16):  # a step that is applied at times only must not change what comes out
                image, _ = self._augment(blank, {"labels": labels}, rng=np.random.default_rng(seed))
                self._check_answer(sample, image)

    def _check_answer(self, sample: dict, image: np.ndarray) -> None:
        if image.shape[:2] != (self._patch, self._patch):
            raise InputError(
                f"augment: the steps make {image.shape[0]}x{image.shape[1]} pixels of {sample['name']}, but "
                f"train.patch is {self._patch}. End them with a crop or resize to {self._patch}x{self._patch}, or set "
                "train.patch."
            )


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


def _area(sample: dict) -> int:
    return sample["shape"][0] * sample["shape"][1]


def training_dataset(batches: Batches, *, first_step: int = 0, parallel_calls: int | None = None):
    """Endless `tf.data.Dataset` of batches, (image, target, weight_map) or as `batches` has them, with static shapes.

    Args:
        batches: What to stream.
        first_step: Where to start; the batches are those of an uninterrupted run.
        parallel_calls: Threads that make batches; None = tf.data decides. The answer does not depend on it.
    """
    import tensorflow as tf

    keep_freed_memory()

    specs = tf.nest.flatten(batches.specs)

    def load(step):
        dtypes = [spec.dtype for spec in specs]
        arrays = tf.numpy_function(lambda n: tf.nest.flatten(batches.batch(int(n))), [step], dtypes)
        # A known batch size matters: `fit` took 1.5 times as long without it.
        for array, spec in zip(arrays, specs, strict=True):
            array.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(batches.specs, arrays)

    # One call makes a whole batch: the cost of entering Python is paid once a batch, not once a sample.
    calls = tf.data.AUTOTUNE if parallel_calls is None else parallel_calls
    steps = tf.data.Dataset.range(first_step, 2**62)
    return steps.map(load, num_parallel_calls=calls, deterministic=True).prefetch(tf.data.AUTOTUNE)
