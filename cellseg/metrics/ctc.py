"""Measures of the Cell Tracking Challenge: SEG on single frames; DET, TRA, LNK, OP_CSB and OP_CTB on a sequence.

The sequence is compared in `cellseg.metrics.tracking`, the corrections are counted in `cellseg.metrics.aogm`, and the
measures of whole tracks and divisions live in `cellseg.metrics.biological`. Other object measures: `objects`.
"""

import numpy as np

from cellseg.metrics.aogm import DETECTION, LINKING, Aogm
from cellseg.metrics.measure import Measure, ratio
from cellseg.metrics.objects import object_overlap
from cellseg.metrics.tracking import Tracking, count_seg


def seg(labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Mean over the reference objects of the Jaccard index with the predicted object that covers them.

    A predicted object covers a reference object if it holds more than half of its pixels, strictly; a reference object
    that none covers counts 0. Predicted objects elsewhere cost nothing. Pooled, all reference objects of all images are
    averaged, not images.

    Args:
        labels_true: integer array (H, W), 0 = background; ids may have gaps.
        labels_pred: the same shape.
        ignore: bool, the same shape, unannotated pixels; see `cellseg.metrics.objects`.

    Returns:
        A float in [0, 1], higher is better. Truth empty (with or without prediction): NaN, where py-ctcmetrics says 0;
        prediction empty: 0.

    Reference:
        Maska et al. 2014, sec. 2.2; http://celltrackingchallenge.net/evaluation-methodology/
    """
    return _seg(count_seg(object_overlap(labels_true, labels_pred, ignore)))


def sequence_seg(tracking: Tracking) -> float:
    """`seg` over the annotated frames of a sequence: NaN if none of them has a cell, or none was given."""
    return _seg(tracking.seg_counts)


def aogm(tracking: Tracking) -> Aogm:
    """The corrections that turn the prediction into the truth: `.counts`, `.operations`, `.cost()`.

    AOGM = 5 NS + 10 FN + 1 FP + 1 ED + 1.5 EA + 1 EC; see `cellseg.metrics.aogm.correct` for what each counts. Its unit
    is effort; 0 is best, there is no upper limit. Truth and prediction both empty: 0.

    Raises:
        InputError: There is no table of tracks. `tracking.aogm` has the operations on cells without one.

    Reference:
        Matula et al. 2015, https://doi.org/10.1371/journal.pone.0144959
    """
    tracking.tables()
    return tracking.aogm


def aogm_cost(tracking: Tracking) -> float:
    """The weighted sum alone, `aogm(tracking).cost()`; lower is better."""
    return aogm(tracking).cost()


def det(tracking: Tracking) -> float:
    """Detection: DET = 1 - min(AOGM-D, AOGM-D0) / AOGM-D0, with AOGM-D = 5 NS + 10 FN + 1 FP.

    AOGM-D0 = 10 x true cells in all frames is what making them from nothing costs. No table of tracks is needed.

    Returns:
        A float in [0, 1], higher is better. Truth empty (with or without prediction): NaN, as traccuracy says
        (py-ctcmetrics fails there); prediction empty: 0.

    Reference:
        Matula et al. 2015; http://celltrackingchallenge.net/evaluation-methodology/
    """
    found = tracking.aogm
    return _saved(found.cost(DETECTION), found.cost_of_vertices)


def tra(tracking: Tracking) -> float:
    """Tracking: TRA = 1 - min(AOGM, AOGM0) / AOGM0, with AOGM = 5 NS + 10 FN + 1 FP + 1 ED + 1.5 EA + 1 EC.

    AOGM0 = 10 x true cells in all frames + 1.5 x true links is what making the graph from nothing costs.

    Returns:
        A float in [0, 1], higher is better. Truth empty (with or without prediction): NaN, as traccuracy says
        (py-ctcmetrics fails there); prediction empty: 0.

    Raises:
        InputError: There is no table of tracks.

    Reference:
        Matula et al. 2015; http://celltrackingchallenge.net/evaluation-methodology/
    """
    found = aogm(tracking)
    return _saved(found.cost(), found.cost_of_vertices + found.cost_of_edges)


def lnk(tracking: Tracking) -> float:
    """Linking: LNK = 1 - min(AOGM-A, AOGM-A0) / AOGM-A0, with AOGM-A = 1 ED + 1.5 EA + 1 EC.

    AOGM-A0 = 1.5 x true links. A link of a missed cell is missing (EA) too.

    Returns:
        A float in [0, 1], higher is better. Truth without links (empty, or each cell in one frame alone): NaN, as both
        tools say where they give a number; prediction empty, or without links: 0.

    Raises:
        InputError: There is no table of tracks.

    Reference:
        Maska et al. 2023, https://doi.org/10.1038/s41592-023-01879-y
    """
    found = aogm(tracking)
    return _saved(found.cost(LINKING), found.cost_of_edges)


def op_csb(tracking: Tracking) -> float:
    """Overall performance of the Cell Segmentation Benchmark: (SEG + DET) / 2; NaN where either is, higher is better.

    Reference:
        http://celltrackingchallenge.net/evaluation-methodology/
    """
    return (sequence_seg(tracking) + det(tracking)) / 2


def op_ctb(tracking: Tracking) -> float:
    """Overall performance of the Cell Tracking Benchmark: (SEG + TRA) / 2; NaN where either is, higher is better.

    Reference:
        http://celltrackingchallenge.net/evaluation-methodology/
    """
    return (sequence_seg(tracking) + tra(tracking)) / 2


def _seg(counts: np.ndarray) -> float:
    return ratio(*counts)


def _saved(cost: float, cost_of_all: float) -> float:
    return 1 - ratio(min(cost, cost_of_all), cost_of_all)


METRICS = {"seg": Measure(object_overlap, count_seg, _seg, higher_is_better=True, kind="object")}
