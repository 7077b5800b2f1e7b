"""Transforms: the steps of an experiment's `augment` section, built from their YAML and tried on a small scene.

Elastic deformation is ours, all else comes from albumentations by its class name. A step that could break the label
rule (no new id appears, ids keep their meaning, image and labels move together) is refused here, before any work.
Applying the steps to samples is the work of `pipelines.augment`; the arithmetic of the fields, of `pipelines.elastic`.
"""

import abc
import copy
import functools
import inspect
import math
import os
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pydantic

from pipelines.elastic import grid_displacement, grid_field, positions, read_at, simard_field
from pipelines.errors import InputError, nearest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version at import

ABSTRACT = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}
# Options that change labels by value -> what they may be.
LABEL_OPTIONS: dict[str, tuple] = {
    "mask_interpolation": (0,),
    "fill_mask": (0, None),
    "mask_drop_value": (0, None),
    "area_for_downscale": (None, "image"),
}
# Pixels: a field that moves them farther makes no picture, and OpenCV takes minutes to mirror it back.
FARTHEST = 500.0
# Two sides, so that a resize to one of them is seen; scene ids on both sides of 8 bits.
SIDES = (96, 61)
IDS = np.array([0, 1, 255, 300, 7000], np.uint16)
RENAMED = np.array([0, 7000, 300, 255, 1], np.uint16)


class Elastic(pydantic.BaseModel, abc.ABC):
    """An elastic deformation of image and maps.

    Args:
        order: Interpolation of the image: 0 nearest, 1 bilinear, 3 bicubic.
        p: Probability that the step is applied.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    order: Literal[0, 1, 3] = 1
    p: float = pydantic.Field(1.0, ge=0, le=1)

    @property
    @abc.abstractmethod
    def margin(self) -> int:
        """Pixels around a window that the field pulls in, but for about one in 370: three standard deviations."""

    @abc.abstractmethod
    def field(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """A random displacement field float32 (2, height, width)."""

    def apply(
        self, image: np.ndarray, maps: Mapping[str, np.ndarray], *, rng: np.random.Generator, margin: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Deform arrays that carry `margin` more pixels on each side than the answer."""
        if rng.random() >= self.p:
            return without_margin(image, maps, margin)
        height, width = (side - 2 * margin for side in image.shape[:2])
        field = self.field(rng, (height, width))
        places = positions(field, origin=(margin, margin), out=field)
        deformed = read_at(image, places, order=self.order)
        if self.order == 3:  # bicubic overshoots
            np.clip(deformed, image.min(), image.max(), out=deformed)
        return deformed, {name: read_at(array, places, order=0) for name, array in maps.items()}


class ElasticGrid(Elastic):
    """U-Net's deformation: a coarse grid of control points, each moved by N(0, sigma) pixels, bicubic in between."""

    sigma: float = pydantic.Field(10.0, gt=0, le=FARTHEST)  # Ronneberger 2015, sec. 3.1
    points: int = pydantic.Field(3, ge=2)

    @property
    def margin(self) -> int:
        """Three standard deviations of a control point."""
        return math.ceil(3 * self.sigma)

    def field(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """See `pipelines.elastic.grid_field`."""
        return grid_field(grid_displacement(rng, points=self.points, sigma=self.sigma), shape)


class ElasticSimard(Elastic):
    """Simard's deformation: noise at each pixel, smoothed with a Gaussian of width sigma, times alpha."""

    alpha: float = pydantic.Field(34.0, ge=0, le=10 * FARTHEST)  # Simard 2003, for digits of 29x29 pixels
    sigma: float = pydantic.Field(4.0, ge=0.5, le=FARTHEST)

    @property
    def margin(self) -> int:
        """Three standard deviations of a displacement."""
        return math.ceil(3 * self.alpha / (2 * math.sqrt(3 * math.pi) * self.sigma))

    def field(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """See `pipelines.elastic.simard_field`."""
        return simard_field(rng, shape, alpha=self.alpha, sigma=self.sigma)


@dataclass(frozen=True)
class Step:
    """One entry of `augment`: its key in the experiment, its name, and what it does.

    `transform` is an `Elastic` or an albumentations transform, which keeps state: a thread needs a copy of its own.
    `resizes` says whether it can change the height or width of a square image.
    """

    key: str
    name: str
    transform: Any
    resizes: bool = False

    def copy(self) -> "Step":
        """The same step for another thread."""
        if isinstance(self.transform, Elastic):
            return self
        return Step(self.key, self.name, copy.deepcopy(self.transform), self.resizes)


def build(options: Mapping[str, Any], key: str) -> Step:
    """The step that an entry of the experiment names, checked and tried.

    Args:
        options: Its `name` and its own keywords.
        key: Where it stands, for messages: "augment[0]".

    Raises:
        InputError: an unknown name or keyword, a value out of range, or a transform that could break the label rule or
            works on no image of ours.
    """
    options = dict(options)
    if "name" not in options:
        raise InputError(f"{key}: the step has no name. Give one of {', '.join(OWN)}, or a class of albumentations.")
    name = str(options.pop("name"))
    known = _albumentations()
    if name not in OWN and name not in known:
        raise InputError(
            f"{key}: albumentations has no transform '{name}', and neither have we "
            f"({', '.join(OWN)}).{nearest(name, [*OWN, *known])}"
        )
    make = OWN.get(name) or known[name]
    allowed = make.model_fields if name in OWN else inspect.signature(make.__init__).parameters.keys() - {"self"}
    for option in options:
        if option not in allowed:
            raise InputError(
                f"{key}: {name} takes no '{option}'.{nearest(option, allowed)} It takes: {', '.join(sorted(allowed))}."
            )
    if name not in OWN:
        _check_label_options(options, key, name)
    try:
        transform = make(**options)
    except (ValueError, TypeError) as error:
        # albumentations wraps pydantic's error into another one.
        for problem in (error, error.__cause__):
            if isinstance(problem, pydantic.ValidationError):
                raise InputError("\n".join(_explain(one, key, name) for one in problem.errors())) from error
        raise InputError(f"{key}: {name} does not accept {options}: {error}") from error
    if name in OWN:
        return Step(key, name, transform)
    _check_kind(transform, key, name)
    transform.add_targets(dict.fromkeys(("classes", "weight_map", "ignore"), "mask"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the grey scene is grey is no news to the user
        return Step(key, name, transform, resizes=_tried(transform, key, name))


def without_margin(
    image: np.ndarray, maps: Mapping[str, np.ndarray], margin: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Image and maps without `margin` pixels on each side."""
    if not margin:
        return image, dict(maps)
    inner = slice(margin, -margin)
    return image[inner, inner], {name: array[inner, inner] for name, array in maps.items()}


@functools.cache
def _albumentations() -> dict[str, Any]:
    import albumentations

    return {
        name: value
        for name, value in vars(albumentations).items()
        if inspect.isclass(value) and issubclass(value, albumentations.BasicTransform) and name not in ABSTRACT
    }


def _explain(problem: Mapping[str, Any], key: str, name: str) -> str:
    place = ".".join([key, *(str(part) for part in problem["loc"])])
    value = "" if problem["type"] == "missing" or not problem["loc"] else f", got {problem['input']!r}"
    return f"{place}: {problem['msg']}{value} ({name})."


def _check_label_options(options: Mapping[str, Any], key: str, name: str) -> None:
    for option, allowed in LABEL_OPTIONS.items():
        if option not in options:
            continue
        value = options[option]
        values = value if isinstance(value, (list, tuple)) else [value]
        if any(one not in allowed for one in values):
            raise InputError(
                f"{key}.{option}: {value} would make label ids that are no cells of the image. {name} takes "
                f"{' or '.join(str(one) for one in allowed if one is not None)} here; or leave it out."
            )


def _check_kind(transform: Any, key: str, name: str) -> None:
    import albumentations

    if isinstance(transform, albumentations.Transform3D) or not isinstance(
        transform, (albumentations.DualTransform, albumentations.ImageOnlyTransform)
    ):
        raise InputError(f"{key}: {name} is not for two-dimensional images and their labels. Leave it out.")
    needed = set(transform.targets_as_params) - {"image", "mask"}
    if needed:
        raise InputError(
            f"{key}: {name} needs {', '.join(sorted(needed))} beside image and labels, which an experiment does not "
            "have. Leave it out."
        )


def _tried(transform: Any, key: str, name: str) -> bool:
    """Apply a transform to grey and colour scenes; whether it changes their size. Raises InputError."""
    from albumentations.augmentations.crops.transforms import CropSizeError
    from albumentations.core.transforms_interface import DualTransform

    crops = type(transform).__module__.startswith("albumentations.augmentations.crops")
    trial = copy.deepcopy(transform)
    trial.p = 1.0
    resizes = False
    works = set()
    errors = []
    for channels in (1, 3):
        for seed in range(4):
            side = SIDES[seed % 2]
            image, places = _scene(side, channels)
            try:
                answer, renamed = (_once(trial, image, ids[places], seed) for ids in (IDS, RENAMED))
            except Exception as error:  # whatever a library raises
                if crops and isinstance(error, (CropSizeError, ValueError)):  # the scene is smaller than the crop
                    resizes = True
                    continue
                errors.append(error)
                break
            works.add(channels)
            _check_image(answer["image"], image, key, name)
            if isinstance(trial, DualTransform):
                _check_labels(answer["mask"], renamed["mask"], answer["image"], key, name)
            resizes |= answer["image"].shape[:2] != (side, side)
        if works == {1} and isinstance(trial, DualTransform):
            break  # what moves grey images moves colour ones too
    if errors and not works:
        raise InputError(f"{key}: {name} works on neither grey nor colour images of float32: {errors[0]}")
    return resizes


def _scene(side: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """An image float32 (side, side, channels) in [0, 1], and the place in `IDS` of each of its pixels."""
    blocks = np.random.default_rng(side).integers(0, len(IDS), (8, 8))
    spread = np.arange(side) * 8 // side
    places = blocks[np.ix_(spread, spread)]
    image = np.random.default_rng(0).random((side, side, channels), np.float32) * 0.2 + 0.2 * places[..., None]
    return image.astype(np.float32), places


def _once(trial: Any, image: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    trial.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return trial(image=image.copy(), mask=labels)


def _check_image(answer: Any, image: np.ndarray, key: str, name: str) -> None:
    if not isinstance(answer, np.ndarray) or answer.dtype != np.float32:
        kind = getattr(answer, "dtype", type(answer).__name__)
        raise InputError(f"{key}: {name} makes {kind} of a float32 image; training needs float32. Leave it out.")
    channels = answer.shape[2] if answer.ndim == 3 else 1
    if channels != image.shape[2]:
        raise InputError(
            f"{key}: {name} makes {channels} channels of {image.shape[2]}, and prediction would not. See data.channels."
        )
    if not (answer.min() >= -1e-3 and answer.max() <= 1.001):
        raise InputError(
            f"{key}: {name} makes values from {answer.min():.3g} to {answer.max():.3g}, but images are in [0, 1], in "
            "prediction too. Choose options within that range (fill, for example), or leave it out."
        )


def _check_labels(labels: np.ndarray, renamed: np.ndarray, image: np.ndarray, key: str, name: str) -> None:
    """Raise InputError if labels are not where the image is, have new ids, or are treated by the value of their id."""
    order = np.argsort(RENAMED)
    back = IDS[order][np.searchsorted(RENAMED[order], renamed).clip(0, len(IDS) - 1)]
    if labels.shape != image.shape[:2] or not np.isin(labels, IDS).all() or not np.array_equal(back, labels):
        raise InputError(f"{key}: {name} changes labels by their value: cells would be lost or made up. Leave it out.")


OWN: dict[str, Any] = {"elastic_grid": ElasticGrid, "elastic_simard": ElasticSimard}
