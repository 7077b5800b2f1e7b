"""Averaging: probabilities of one image seen turned, mirrored and zoomed, or by several runs, made one by their mean.

The probability of a single view is the work of `cellseg.inference`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pipelines.tiling import resized

Look = Callable[[np.ndarray], np.ndarray]  # image (H, W, C) -> probability float32 (H, W, K)


def averaged(image: np.ndarray, look: Look, *, symmetries: int = 1, zoom: Sequence[float] = (1.0,)) -> np.ndarray:
    """Mean probability over all pairs of a zoom and a symmetry; labels are made from it, and are never resized.

    Args:
        image: float32 (H, W, C).
        look: What the network says of one view; called with images of other sizes, and sides exchanged.
        symmetries: 1 = as it is. 4 = also mirrored up-down, left-right and both. 8 = those four also transposed: all
            turns by 90 degrees and reflections of a square.
        zoom: The image is resized by each factor (area mean or linear), its probability resized back.

    Returns:
        float32 (H, W, K).
    """
    return mean(_views(image, look, symmetries=symmetries, zoom=zoom))


def mean(probabilities: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of one or more float32 arrays of one shape, taken one by one so that only two are held."""
    total, count = None, 0
    for one in probabilities:
        total = one if total is None else total + one
        count += 1
    if total is None:
        raise ValueError("the mean of no probabilities is not defined; give at least one.")
    return total if count == 1 else total / np.float32(count)


def symmetric(image: np.ndarray, number: int) -> np.ndarray:
    """Symmetry `number` of the square, 0..7, of an image (H, W, C): bits flip rows, flip columns, and transpose."""
    image = image[::-1] if number & 1 else image
    image = image[:, ::-1] if number & 2 else image
    return image.swapaxes(0, 1) if number & 4 else image


def symmetric_back(image: np.ndarray, number: int) -> np.ndarray:
    """Undo `symmetric`: the same steps, last one first."""
    image = image.swapaxes(0, 1) if number & 4 else image
    return symmetric(image, number & 3)


def _views(image: np.ndarray, look: Look, *, symmetries: int, zoom: Sequence[float]) -> Iterator[np.ndarray]:
    height, width = image.shape[:2]
    for factor in zoom:
        view = resized(image, (max(1, round(factor * height)), max(1, round(factor * width))))
        seen = (
            symmetric_back(look(np.ascontiguousarray(symmetric(view, number))), number) for number in range(symmetries)
        )
        yield from (resized(probability, (height, width)) for probability in seen)
