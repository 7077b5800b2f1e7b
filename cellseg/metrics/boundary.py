"""Boundary measures: how far the outline of the predicted foreground lies from the true one.

They see foreground against background only; the distances of single cells are the subject of `cellseg.metrics.glas`.

The surface of a mask is its pixels with a neighbour outside of it; what lies beyond the image is outside. `ignore`
(bool) marks unannotated pixels: they have no surface and make none, so a cell cut by them is not punished there.

Empty images, for the distances: both empty: 0, the right answer was given; one of the two: the image's diagonal, the
largest distance that it allows (infinite would spoil every mean, and leaving the image out would reward an empty
answer; MedPy raises an error). No annotated pixel: NaN, and left out. Pooled, all three are means over images.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage

from cellseg.metrics.measure import Measure, itself, quotient, ratio
from cellseg.overlap import check_pair

NAN = float("nan")
DILATION_RATIO = 0.02  # Cheng et al. 2021: 2 % of the image's diagonal


def hausdorff(
    labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None, *, connectivity: int = 1
) -> float:
    """Largest distance from a surface to the nearest pixel of the other one, in pixels; lower is better.

    Args:
        labels_true: integer or bool array (H, W), foreground > 0.
        labels_pred: the same shape.
        ignore: bool, the same shape.
        connectivity: Which neighbours make a surface: 1 = the four sides, as MedPy without arguments; 2 = corners too.

    Reference:
        Huttenlocher et al. 1993, https://doi.org/10.1109/34.232073; MedPy's `hd`
    """
    return quotient(_one(surface_distances(labels_true, labels_pred, ignore, connectivity=connectivity), np.max))


def hausdorff95(
    labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None, *, connectivity: int = 1
) -> float:
    """95th percentile of the distances of both surfaces together, in pixels; lower is better.

    Linear between ranks, as numpy and MedPy's `hd95`. Other programs take the larger of the two directions'
    percentiles. Arguments as `hausdorff`.
    """
    return quotient(_one(surface_distances(labels_true, labels_pred, ignore, connectivity=connectivity), _percentile95))


def average_surface_distance(
    labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None, *, connectivity: int = 1
) -> float:
    """Mean distance of the pixels of both surfaces together from the other one, in pixels; lower is better.

    MedPy's `assd`: every surface pixel weighs the same, so the longer surface weighs more. Arguments as `hausdorff`.
    """
    return quotient(_one(surface_distances(labels_true, labels_pred, ignore, connectivity=connectivity), np.mean))


def boundary_iou(
    labels_true: np.ndarray,
    labels_pred: np.ndarray,
    ignore: np.ndarray | None = None,
    *,
    dilation_ratio: float = DILATION_RATIO,
    undefined: float = 1.0,
) -> float:
    """IoU of the two bands along the inside of the outlines, in [0, 1], higher is better.

    A band is d = max(1, round(ratio * diagonal)) pixels wide, counted over sides and corners. Both empty: 1, one
    empty: 0, no annotated pixel: NaN. Pooled, intersections and unions are added over the images.

    Args:
        labels_true: integer or bool array (H, W), foreground > 0.
        labels_pred: the same shape.
        ignore: bool, the same shape.
        dilation_ratio: Width of the band as a share of the image's diagonal.
        undefined: Value where both are empty; the authors' program divides 0 by 0 there.

    Reference:
        Cheng et al. 2021, eq. 2, https://arxiv.org/abs/2103.16562; bowenc0221/boundary-iou-api
    """
    counts = _count_bands(labels_true, labels_pred, ignore, dilation_ratio=dilation_ratio)
    return _boundary_iou(counts, undefined=undefined)


def surface_distances(
    labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None, *, connectivity: int = 1
) -> np.ndarray | None:
    """Distance of each surface pixel, of both masks, to the nearest surface pixel of the other, float64 (k,), k > 0.

    [0.0] where neither has a surface, the image's diagonal alone where one has none; None without annotated pixels.

    Raises:
        InputError: not integers, or of different shapes.
    """
    check_pair(labels_true, labels_pred, ignore)
    masks = [np.asarray(labels) > 0 for labels in (labels_true, labels_pred)]
    if masks[0].size == 0 or (ignore is not None and ignore.all()):
        return None
    structure = ndimage.generate_binary_structure(2, connectivity)
    surfaces = [_surface(mask, ignore, structure) for mask in masks]
    some = [surface.any() for surface in surfaces]
    if not any(some):
        return np.zeros(1)
    if not all(some):
        return np.array([np.hypot(*(np.array(masks[0].shape) - 1))])
    window = ndimage.find_objects((surfaces[0] | surfaces[1]).astype(np.int8))[0]
    first, second = (surface[window] for surface in surfaces)
    return np.concatenate(
        [ndimage.distance_transform_edt(~second)[first], ndimage.distance_transform_edt(~first)[second]]
    )


def _surface(mask: np.ndarray, ignore: np.ndarray | None, structure: np.ndarray) -> np.ndarray:
    if ignore is None:
        return mask & ~ndimage.binary_erosion(mask, structure)
    return mask & ~ignore & ~ndimage.binary_erosion(mask | ignore, structure)


def _one(distances: np.ndarray | None, summary: Callable[[np.ndarray], float]) -> np.ndarray:
    """(the image's distance, 1 image), or zeros where it has none."""
    return np.zeros(2) if distances is None else np.array([summary(distances), 1.0])


def _percentile95(distances: np.ndarray) -> float:
    return float(np.percentile(distances, 95))


def _band(mask: np.ndarray, ignore: np.ndarray | None, width: int) -> np.ndarray:
    """Pixels of the mask at most `width` steps, corners allowed, from a pixel outside of it or of the image."""
    inside = mask if ignore is None else mask | ignore
    depth = ndimage.distance_transform_cdt(np.pad(inside, 1), metric="chessboard")[1:-1, 1:-1]
    return mask & (depth <= width)


def _count_bands(
    labels_true: np.ndarray,
    labels_pred: np.ndarray,
    ignore: np.ndarray | None = None,
    *,
    dilation_ratio: float = DILATION_RATIO,
) -> np.ndarray:
    """(pixels of both bands, of either, annotated pixels)."""
    check_pair(labels_true, labels_pred, ignore)
    width = max(1, round(dilation_ratio * float(np.hypot(*np.shape(labels_true)))))
    true, pred = (_band(np.asarray(labels) > 0, ignore, width) for labels in (labels_true, labels_pred))
    counted = np.ones(true.shape, bool) if ignore is None else ~ignore
    return np.array([np.count_nonzero(one & counted) for one in (true & pred, true | pred, counted)], dtype=float)


def _boundary_iou(counts: np.ndarray, *, undefined: float = 1.0) -> float:
    both, either, annotated = counts
    return ratio(both, either, undefined if annotated else NAN)


def _distance(summary: Callable[[np.ndarray], float]) -> Measure:
    count = partial(_one, summary=summary)
    return Measure(surface_distances, count, quotient, higher_is_better=False, kind="boundary")


METRICS = {
    "boundary_iou": Measure(_count_bands, itself, _boundary_iou, higher_is_better=True, kind="boundary"),
    "hausdorff": _distance(np.max),
    "hausdorff95": _distance(_percentile95),
    "average_surface_distance": _distance(np.mean),
}
