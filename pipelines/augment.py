"""Augmentation: the steps of an experiment applied to image and labels together, seeded per sample.

What steps there are, and which are refused, stands in `pipelines.transforms`; cutting patches is the work of
`pipelines.dataset`.
"""

import collections
import contextlib
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from pipelines.elastic import folding
from pipelines.errors import InputError
from pipelines.transforms import Elastic, Step, build, without_margin

MAPS = ("labels", "classes", "weight_map", "ignore")


class Augmenter:
    """Applies the transforms of an experiment's `augment` section, reproducibly and from any number of threads.

    No new label id appears, except 0 where the image ends, ids keep their meaning, and image and maps move together.

    Args:
        steps: For each transform its `name` (`elastic_grid`, `elastic_simard` or an albumentations class) and its own
            keywords, in order.

    Attributes:
        resizes: Whether a step can change the height or width of a square image: it crops, pads or resizes.
        margin: Pixels of real surroundings that the first step can use on each side of an image, if it is elastic.

    Raises:
        InputError: an unknown name or keyword, a value out of range, or a transform that could break the label rule.
    """

    def __init__(self, steps: Sequence[Mapping[str, object]]):
        self._steps = [build(step, f"augment[{place}]") for place, step in enumerate(steps)]
        self._free: collections.deque[list[Step]] = collections.deque()
        self.resizes = any(step.resizes for step in self._steps)
        first = self._steps[0].transform if self._steps else None
        self.margin = first.margin if isinstance(first, Elastic) else 0

    def __call__(
        self, image: np.ndarray, maps: Mapping[str, np.ndarray], *, rng: np.random.Generator, margin: int = 0
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Transform an image and the maps that describe it.

        Args:
            image: float32 (h, w, C) in [0, 1].
            maps: Any of `MAPS`, (h, w); all move exactly as the image does, by nearest neighbour.
            rng: Where the randomness comes from; the same state gives the same answer in every thread.
            margin: Pixels on each side of the arrays that are surroundings: an elastic first step pulls real pixels in
                from there, and the answer is without them.

        Returns:
            New image and maps, same dtypes.

        Raises:
            InputError: a step cannot take such an image; the message names the step.
        """
        if not self._steps:
            return without_margin(image, maps, margin)
        narrow, widen = {}, {}
        for name, array in maps.items():
            narrow[name], widen[name] = _narrowed(array)
        # albumentations draws from both kinds of generators.
        state = rng, random.Random(int(rng.integers(2**63)))
        with self._own_steps() as steps:
            for step in steps:
                if isinstance(step.transform, Elastic):
                    image, narrow = step.transform.apply(image, narrow, rng=rng, margin=margin)
                else:
                    image, narrow = _applied(step, *without_margin(image, narrow, margin), state)
                margin = 0
        return np.ascontiguousarray(image), {
            name: np.ascontiguousarray(widen[name](array)) for name, array in narrow.items()
        }

    def check(self, channels: int) -> None:
        """Try every step, whatever its probability, on an image of this many channels. Raises InputError."""
        image, labels = np.full((64, 64, channels), 0.5, np.float32), np.zeros((64, 64), np.uint8)
        for step in self._steps:
            if isinstance(step.transform, Elastic) or step.resizes:
                continue
            trial = step.copy()
            trial.transform.p = 1.0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _applied(trial, image, {"labels": labels}, (np.random.default_rng(0), random.Random(0)))

    @contextlib.contextmanager
    def _own_steps(self) -> Iterator[list[Step]]:
        """Steps that no other thread uses meanwhile: an albumentations transform keeps its random state inside.

        Not `threading.local`: TensorFlow's threads are new ones to Python at every call, and a copy takes 1.5 ms.
        """
        try:
            steps = self._free.pop()
        except IndexError:
            steps = [step.copy() for step in self._steps]
        yield steps
        self._free.append(steps)


def folding_warnings(
    steps: Sequence[Mapping[str, object]], shape: tuple[int, int], *, trials: int = 64, seed: int = 0
) -> list[str]:
    """A sentence for each elastic step whose fields fold the picture, with the measured Jacobian.

    Looked at are `elastic_grid`, `elastic_simard` and albumentations' ElasticTransform. Its other distortions are not.

    Args:
        steps: The experiment's `augment` section.
        shape: Height and width of a patch.
        trials: Fields that are tried for each step.
        seed: Of the fields.

    Raises:
        InputError: as `Augmenter`.
    """
    warnings = []
    for place, options in enumerate(steps):
        step = build(options, f"augment[{place}]")
        draw = _fields(step, shape)
        if draw is None:
            continue
        share, smallest = folding(draw, trials=trials, seed=seed)
        if share:
            names = ("sigma", "points") if step.name == "elastic_grid" else ("alpha", "sigma")
            setting = ", ".join(f"{name}={getattr(step.transform, name):g}" for name in names)
            advice = "Lower sigma" if step.name == "elastic_grid" else "Lower alpha or raise sigma"
            warnings.append(
                f"{step.key}: {step.name} ({setting}) folds {share:.0%} of {trials} patches of {shape[0]}x{shape[1]} "
                f"(smallest determinant of the Jacobian {smallest:.2f}; at 0 and below the picture is turned over). "
                f"{advice}."
            )
    return warnings


def _fields(step: Step, shape: tuple[int, int]) -> Callable[[np.random.Generator], np.ndarray] | None:
    transform = step.transform
    if isinstance(transform, Elastic):
        return lambda rng: transform.field(rng, shape)
    if step.name != "ElasticTransform":
        return None

    def draw(rng: np.random.Generator) -> np.ndarray:
        transform.set_random_state(rng, random.Random(0))
        maps = transform.get_params_dependent_on_data({"shape": shape}, {})
        rows, columns = np.indices(shape, np.float32, sparse=True)
        return np.stack([maps["map_y"] - rows, maps["map_x"] - columns])

    return draw


def _applied(
    step: Step, image: np.ndarray, maps: Mapping[str, np.ndarray], state: tuple[np.random.Generator, random.Random]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One albumentations transform, on image and maps."""
    # Some transforms read the labels, under the name that albumentations gives them.
    keys = {name: "mask" if name == "labels" else name for name in maps}
    step.transform.set_random_state(*state)
    try:
        answer = step.transform(image=image, **{keys[name]: array for name, array in maps.items()})
    except Exception as error:  # whatever a library raises: a wrong kind of image, a crop larger than the image
        raise InputError(
            f"{step.key}: {step.name} does not work on an image of {'x'.join(map(str, image.shape))}: {error}. "
            "Change its options or leave it out."
        ) from error
    moved = answer["image"]
    return moved if moved.ndim == 3 else moved[..., None], {name: answer[keys[name]] for name in maps}


def _narrowed(array: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """A map as OpenCV takes it (integers of at most 16 bits, or floats), and the way back."""
    dtype = array.dtype
    if dtype.kind == "b":
        return array.astype(np.uint8), lambda moved: moved.astype(bool)
    if dtype.kind == "f" or dtype in (np.uint8, np.uint16):
        return array, lambda moved: moved.astype(dtype, copy=False)
    if array.size and (array.max() > 65_535 or array.min() < 0):
        ids, compact = np.unique(array, return_inverse=True)
        compact = compact.reshape(array.shape)
        if ids[0] != 0:  # 0 is what comes in from outside of the image
            ids, compact = np.concatenate([np.zeros(1, dtype), ids]), compact + 1
        if len(ids) > 65_536:
            raise InputError(f"An image holds {len(ids)} label ids; augmentation takes at most 65536.")
        return compact.astype(np.uint16), lambda moved: ids[moved]
    return array.astype(np.uint16), lambda moved: moved.astype(dtype)
