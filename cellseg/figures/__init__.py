"""Figures: arrays and tables to PNG bytes, for the report and for whoever wants one alone.

Pictures of images live in `pictures`, those of single cells' mistakes in `mistakes`, curves in `plots`, bars of the
error analysis in `errors`. The report that holds them is `cellseg.report`.
"""

from collections.abc import Callable

from cellseg.figures.errors import merges_and_membranes, recall_by_fact
from cellseg.figures.mistakes import mistake_outlines
from cellseg.figures.pictures import class_outlines, outlines, overlay
from cellseg.figures.plots import per_image_scores, threshold_curve, training_curves

FIGURES: dict[str, Callable[..., bytes]] = {
    "outlines": outlines,
    "class_outlines": class_outlines,
    "overlay": overlay,
    "mistake_outlines": mistake_outlines,
    "training_curves": training_curves,
    "threshold_curve": threshold_curve,
    "per_image_scores": per_image_scores,
    "recall_by_fact": recall_by_fact,
    "merges_and_membranes": merges_and_membranes,
}

__all__ = [
    "FIGURES",
    "class_outlines",
    "merges_and_membranes",
    "mistake_outlines",
    "outlines",
    "overlay",
    "per_image_scores",
    "recall_by_fact",
    "threshold_curve",
    "training_curves",
]
