"""Classification scores: how well a data set's cells are found and called by the right name.

The measures live in `cellseg.metrics.classes`; scores that know no classes in `cellseg.evaluation`.
"""

import math
from collections.abc import Sequence

import numpy as np

from cellseg.answers import cell_classes
from cellseg.metrics.classes import (
    class_f1,
    class_match_counts,
    class_pair_counts,
    class_scores,
    confusion_matrix,
    detection_f1,
    dice_per_class,
    iou_per_class,
    multiclass_pixel_accuracy,
)


class ClassScores:
    """Scores of each class over a data set, one image at a time.

    The trivial baseline calls every cell that was found by the name that is most frequent among the true cells of the
    data set itself, which is the best that one name can do.

    Args:
        names: Of the classes; class 1 first.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        size = len(self.names) + 1
        self._pixels = np.zeros((size, size))
        self._matches, self._pairs = np.zeros((size, 4)), np.zeros((size, 5))
        self._constant = np.zeros((size, size, 5))  # pairs if every cell were of class 1, 2, ...
        self._cells = np.zeros(size)

    def add(
        self,
        labels_true: np.ndarray,
        classes_true: np.ndarray,
        labels_pred: np.ndarray,
        classes_pred: np.ndarray,
        ignore: np.ndarray | None = None,
    ) -> None:
        """Count one image: integer (H, W) each, 0 = background or no class; bool (H, W) unannotated pixels."""
        size = len(self.names) + 1
        truth = np.where(labels_true > 0, classes_true, 0).astype(np.int64)
        unknown = (labels_true > 0) & (truth == 0)
        if ignore is not None:
            unknown |= ignore
        self._pixels += confusion_matrix(
            np.where(unknown, size, truth), classes_pred.astype(np.int64), num_classes=size, ignore_class=size
        )
        images = (labels_true, truth, labels_pred)
        self._matches += class_match_counts(*images, classes_pred, ignore, num_classes=size)
        self._pairs += class_pair_counts(*images, classes_pred, ignore, num_classes=size)
        for kind in range(1, size):
            constant = np.where(labels_pred > 0, kind, 0)
            self._constant[kind] += class_pair_counts(*images, constant, ignore, num_classes=size)
        named = cell_classes(labels_true, truth)
        ids, first = np.unique(labels_true, return_index=True)
        self._cells += np.bincount(named.ravel()[first[ids > 0]], minlength=size)

    def result(self) -> dict:
        """Ready for JSON; an undefined score (a class in neither truth nor prediction) is None.

        Returns:
            {"classes": {name: {"cells": number of true cells, "dice", "iou" (pixels), "f1", "panoptic_quality" (IoU
            over 0.5, cells of the class among themselves), "class_f1" (HoVer-Net's F_c, centres within 12 px)}},
            "mean": the same, over the classes that have a value, "pixel_accuracy", "detection_f1", "baseline":
            {"name": the most frequent class, "mean_class_f1": F_c averaged if every cell were of it}}.
        """
        found = class_scores(self._matches)
        columns = {
            "dice": dice_per_class(self._pixels)[1:],
            "iou": iou_per_class(self._pixels)[1:],
            "f1": found["f1"],
            "panoptic_quality": found["panoptic_quality"],
            "class_f1": class_f1(self._pairs),
        }
        frequent = int(self._cells[1:].argmax()) + 1
        return {
            "classes": {
                name: {"cells": int(self._cells[place + 1])}
                | {measure: _or_none(values[place]) for measure, values in columns.items()}
                for place, name in enumerate(self.names)
            },
            "mean": {measure: _mean(values) for measure, values in columns.items()},
            "pixel_accuracy": _or_none(multiclass_pixel_accuracy(self._pixels)),
            "detection_f1": _or_none(detection_f1(self._pairs)),
            "baseline": {
                "name": self.names[frequent - 1],
                "mean_class_f1": _mean(class_f1(self._constant[frequent])),
            },
        }


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
