"""Augmentation: albumentations by name from the YAML, image and labels together, seeded per sample.

Elastic deformation on a coarse grid will live in `pipelines.elastic`; cutting patches is the work of
`pipelines.dataset`.
"""

import inspect
import os
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.errors import InputError, nearest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version at import

MAPS = ("labels", "classes", "weight_map", "ignore")


class Augmenter:
    """Applies the transforms of an experiment's `augment` section, reproducibly and from any number of threads.

    Args:
        steps: For each transform its albumentations class `name` and its own keywords, in order.

    Raises:
        InputError: a name that albumentations does not have, or a keyword that the transform does not take.
    """

    def __init__(self, steps: Sequence[Mapping[str, object]]):
        self._steps = [dict(step) for step in steps]
        self._local = threading.local()
        self._compose()

    def __call__(
        self, image: np.ndarray, maps: Mapping[str, np.ndarray], *, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Transform an image and the maps that describe it.

        Args:
            image: float32 (h, w, C) in [0, 1].
            maps: Any of `MAPS`, (h, w); all move exactly as the image does, by nearest neighbour.
            rng: Where the randomness comes from.

        Returns:
            New image and maps, same dtypes.
        """
        if not self._steps:
            return image, dict(maps)
        # A Compose keeps its random state inside, so threads must not share one.
        compose = self._compose()
        compose.set_random_seed(int(rng.integers(2**31)))
        cast = {name: array.astype(np.uint8) if array.dtype == bool else array for name, array in maps.items()}
        answer = compose(image=image, **cast)
        return (
            np.ascontiguousarray(answer["image"]),
            {name: np.ascontiguousarray(answer[name].astype(array.dtype, copy=False)) for name, array in maps.items()},
        )

    def _compose(self):
        if not hasattr(self._local, "compose"):
            import albumentations

            self._local.compose = albumentations.Compose(
                [_transform(step, place) for place, step in enumerate(self._steps)],
                additional_targets=dict.fromkeys(MAPS, "mask"),
            )
        return self._local.compose


def _transform(step: Mapping[str, object], place: int):
    import albumentations

    key = f"augment[{place}]"
    options = dict(step)
    name = options.pop("name", None)
    known = {
        attribute: value
        for attribute, value in vars(albumentations).items()
        if inspect.isclass(value) and issubclass(value, albumentations.BasicTransform)
    }
    if name not in known:
        raise InputError(f"{key}: albumentations has no transform '{name}'.{nearest(str(name), known)}")
    allowed = inspect.signature(known[name].__init__).parameters.keys() - {"self"}
    for option in options:
        if option not in allowed:
            raise InputError(
                f"{key}: {name} takes no '{option}'.{nearest(option, allowed)} It takes: {', '.join(sorted(allowed))}."
            )
    try:
        return known[name](**options)
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: {name} does not accept {options}: {error}") from error
