"""Figures: arrays and tables to PNG bytes, for the report and for whoever wants one alone.

Pictures of images live in `pictures`, those of single cells' mistakes in `mistakes`, curves in `plots`, bars of the
error analysis in `errors`, tracks over the images in `tracks` and `movies`, their plots in `populations`, 3-D objects
in `volumes`. The report that holds them is `cellseg.report`.
"""

from collections.abc import Callable

from cellseg.figures.errors import merges_and_membranes, recall_by_fact
from cellseg.figures.mistakes import mistake_outlines
from cellseg.figures.pictures import answers, class_outlines, outlines, overlay
from cellseg.figures.plots import per_image_scores, threshold_curve, training_curves
from cellseg.figures.populations import displacement, lineage_tree, population
from cellseg.figures.volumes import rendered_objects

FIGURES: dict[str, Callable[..., bytes]] = {
    "outlines": outlines,
    "class_outlines": class_outlines,
    "overlay": overlay,
    "answers": answers,
    "mistake_outlines": mistake_outlines,
    "training_curves": training_curves,
    "threshold_curve": threshold_curve,
    "per_image_scores": per_image_scores,
    "recall_by_fact": recall_by_fact,
    "merges_and_membranes": merges_and_membranes,
    "lineage_tree": lineage_tree,
    "population": population,
    "displacement": displacement,
    "rendered_objects": rendered_objects,
}

__all__ = [
    "FIGURES",
    "answers",
    "class_outlines",
    "displacement",
    "lineage_tree",
    "merges_and_membranes",
    "mistake_outlines",
    "outlines",
    "overlay",
    "per_image_scores",
    "population",
    "recall_by_fact",
    "rendered_objects",
    "threshold_curve",
    "training_curves",
]
