"""Figures: arrays and tables to PNG bytes, for the report and for whoever wants one alone.

Pictures of images live in `pictures`, curves in `plots`. The report that holds them is `cellseg.report`.
"""

from collections.abc import Callable

from cellseg.figures.pictures import class_outlines, outlines, overlay
from cellseg.figures.plots import per_image_scores, threshold_curve, training_curves

FIGURES: dict[str, Callable[..., bytes]] = {
    "outlines": outlines,
    "class_outlines": class_outlines,
    "overlay": overlay,
    "training_curves": training_curves,
    "threshold_curve": threshold_curve,
    "per_image_scores": per_image_scores,
}

__all__ = ["FIGURES", "class_outlines", "outlines", "overlay", "per_image_scores", "threshold_curve", "training_curves"]
