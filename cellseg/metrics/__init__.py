"""Measures: truth against prediction. METRICS holds every measure by name; `score` takes arrays.

IMAGE_METRICS are those of single images, SEQUENCE_METRICS those of tracked sequences (`evaluate_sequence`).

Files and per-image tables live in `cellseg.evaluation`; one labelling alone in `cellseg.measuring`.
"""

import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from cellseg.metrics import boundary, ctc, glas, objects, pixel, rand, warping
from cellseg.metrics.boundary import average_surface_distance, boundary_iou, hausdorff, hausdorff95
from cellseg.metrics.ctc import seg
from cellseg.metrics.glas import glas_f1, object_dice, object_hausdorff
from cellseg.metrics.measure import Measure
from cellseg.metrics.objects import (
    aji,
    aji_plus,
    average_precision,
    average_precision_mean,
    count_error,
    panoptic_quality,
)
from cellseg.metrics.pixel import dice, frequency_weighted_iou, iou, pixel_accuracy, pixel_error
from cellseg.metrics.rand import adapted_rand_error, pixel_rand_error, rand_error, v_info, v_rand, vi_merge, vi_split
from cellseg.metrics.sequence import SEQUENCE_METRICS, SequenceMeasure, evaluate_sequence
from cellseg.metrics.warping import warping_error
from pipelines.errors import InputError

IMAGE_METRICS: dict[str, Measure] = {
    **pixel.METRICS,
    **rand.METRICS,
    **warping.METRICS,
    **objects.METRICS,
    **boundary.METRICS,
    **glas.METRICS,
    **ctc.METRICS,
}
METRICS: dict[str, Measure | SequenceMeasure] = {**SEQUENCE_METRICS, **IMAGE_METRICS}

__all__ = [
    "IMAGE_METRICS",
    "METRICS",
    "SEQUENCE_METRICS",
    "Measure",
    "SequenceMeasure",
    "adapted_rand_error",
    "aji",
    "aji_plus",
    "average_precision",
    "average_precision_mean",
    "average_surface_distance",
    "boundary_iou",
    "check_measures",
    "count_error",
    "count_image",
    "dice",
    "evaluate_sequence",
    "frequency_weighted_iou",
    "glas_f1",
    "hausdorff",
    "hausdorff95",
    "iou",
    "object_dice",
    "object_hausdorff",
    "panoptic_quality",
    "pixel_accuracy",
    "pixel_error",
    "pixel_rand_error",
    "rand_error",
    "score",
    "seg",
    "v_info",
    "v_rand",
    "vi_merge",
    "vi_split",
    "warping_error",
]


def score(
    labels_true: np.ndarray | Sequence[np.ndarray],
    labels_pred: np.ndarray | Sequence[np.ndarray],
    measures: Sequence[str] | str,
    ignore: np.ndarray | Sequence[np.ndarray] | None = None,
) -> dict[str, float]:
    """Score predicted labels; several images are pooled as each measure's definition says.

    Args:
        labels_true: integer labels of one image (H, W), of a stack (N, H, W), or a list of images of any sizes.
        labels_pred: the same shape or shapes; float images in [0, 1] where all measures take them (see
            `Measure.takes_probability`).
        measures: Names from IMAGE_METRICS, or one name.
        ignore: bool, the same shape or shapes; True pixels are unannotated and left out.

    Returns:
        A float a measure; NaN where it is undefined (each measure's docstring says when).

    Raises:
        InputError: an unknown measure, labels that are not integers, shapes that differ.
    """
    names = check_measures(measures)
    truths, predictions = _images(labels_true, "labels_true"), _images(labels_pred, "labels_pred")
    ignores: Sequence = [None] * len(truths) if ignore is None else _images(ignore, "ignore")
    for name, images in (("labels_pred", predictions), ("ignore", ignores)):
        if len(images) != len(truths):
            raise InputError(
                f"labels_true holds {len(truths)} images of shape {truths[0].shape}, {name} {len(images)} of shape "
                f"{np.shape(images[0])}. They must be the same images, in the same order."
            )
    totals: dict[str, np.ndarray] = {}
    for one_true, one_pred, one_ignore in zip(truths, predictions, ignores, strict=True):
        for name, counts in count_image(names, one_true, one_pred, one_ignore).items():
            totals[name] = totals.get(name, 0) + counts
    return {name: IMAGE_METRICS[name].value(totals[name]) for name in names}


def count_image(
    names: Iterable[str], labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Counts of one image for several measures; what they share is computed once (see `Measure`)."""
    prepared: dict = {}
    counts = {}
    for name in names:
        measure = IMAGE_METRICS[name]
        if measure.prepare not in prepared:
            prepared[measure.prepare] = measure.prepare(labels_true, labels_pred, ignore)
        counts[name] = measure.count_prepared(prepared[measure.prepare])
    return counts


def check_measures(names: Sequence[str] | str) -> list[str]:
    """The names as a list without repeats.

    Raises:
        InputError: no name, one that is not known (the message names the nearest), or a measure of sequences.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    for name in names:
        if name in SEQUENCE_METRICS and name not in IMAGE_METRICS:
            raise InputError(
                f"{name!r} measures a tracked sequence, and single images have none. Score a result folder of the Cell "
                "Tracking Challenge: cellseg-evaluate 01_GT 01_RES (cellseg.metrics.evaluate_sequence)."
            )
        if name not in IMAGE_METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"There is no measure {name!r}.{guess} Known measures: {', '.join(METRICS)}.")
    if not names:
        raise InputError(f"No measure was named. Known measures: {', '.join(METRICS)}.")
    return names


def _images(labels: np.ndarray | Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    if isinstance(labels, np.ndarray):
        if labels.ndim not in (2, 3):
            raise InputError(f"{name} must be (H, W), (N, H, W) or a list of (H, W), got shape {labels.shape}.")
        labels = labels[None] if labels.ndim == 2 else labels
    images = [np.asarray(one) for one in labels]
    for one in images:
        if one.ndim != 2:
            raise InputError(f"{name} must be (H, W), (N, H, W) or a list of (H, W), got one of shape {one.shape}.")
    if not images:
        raise InputError(f"{name} holds no image.")
    return images
