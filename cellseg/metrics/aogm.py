"""AOGM: what it takes to turn a predicted graph of cells into the true one, operation by operation.

A vertex is a cell in a frame, an edge links it to where it is next. The graphs are made from labels and tables in
`cellseg.metrics.tracking`; DET, TRA and LNK, which normalise the cost, live in `cellseg.metrics.ctc`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Matula 2015, table 1: the effort of correcting each kind of error by hand.
WEIGHTS = {"NS": 5.0, "FN": 10.0, "FP": 1.0, "ED": 1.0, "EA": 1.5, "EC": 1.0}
DETECTION, LINKING = ("NS", "FN", "FP"), ("ED", "EA", "EC")


@dataclass(frozen=True, eq=False)
class Graph:
    """Cells through time.

    Args:
        frames: int64 (n,), frame of each vertex.
        labels: int64 (n,), its label.
        sources: int64 (e,), vertex at which each edge begins; none (e = 0) where links are not known.
        targets: int64 (e,), vertex at which it ends, in a later frame.
        is_parent: bool (e,), whether it leads from a parent to its child (the table says so), or goes on in one track.
    """

    frames: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    is_parent: np.ndarray


@dataclass(frozen=True, slots=True)
class Operation:
    """One correction of the prediction.

    Args:
        kind: NS split a predicted cell that covers several true ones; FN add a missed cell; FP delete a spurious one;
            ED delete a link; EA add a link; EC turn a link within a track into one from parent to child, or back.
        frame: Frame of the cell; of a link, that in which it ends.
        labels_true: Ids of the true cells that it is about; of a link, both ends.
        labels_pred: The same for the prediction.
        from_frame: Frame in which a link begins; None for a cell.
        count: How often it counts: splitting one cell into k is k - 1 operations, everything else 1.
    """

    kind: str
    frame: int
    labels_true: tuple[int, ...]
    labels_pred: tuple[int, ...]
    from_frame: int | None = None
    count: int = 1


@dataclass(frozen=True, eq=False)
class Aogm:
    """The cheapest list of operations that turns the predicted graph into the true one, counted and listed.

    Args:
        counts: Number of operations of each kind, the keys of WEIGHTS.
        num_vertices: Cells in all true frames.
        num_edges: Links of the true graph.
        graph_true, graph_pred, cover: As `correct` takes them.
        redundant: int64, predicted edges to delete.
        missing: int64, true edges to add.
        wrong: int64 (k, 2), true and predicted edge whose meaning differs.
    """

    counts: dict[str, int]
    num_vertices: int
    num_edges: int
    graph_true: Graph
    graph_pred: Graph
    cover: np.ndarray
    redundant: np.ndarray
    missing: np.ndarray
    wrong: np.ndarray

    def cost(self, kinds: tuple[str, ...] = DETECTION + LINKING, weights: Mapping[str, float] = WEIGHTS) -> float:
        """AOGM: weighted sum of the operations, of all kinds or some (AOGM-D, AOGM-A)."""
        return float(sum(weights[kind] * self.counts[kind] for kind in kinds))

    @property
    def cost_of_vertices(self) -> float:
        """Cost of making all true cells from nothing."""
        return WEIGHTS["FN"] * self.num_vertices

    @property
    def cost_of_edges(self) -> float:
        """Cost of making all true links from nothing."""
        return WEIGHTS["EA"] * self.num_edges

    @cached_property
    def operations(self) -> list[Operation]:
        """Every operation, by frame; `sum(one.count for one in operations if one.kind == kind) == counts[kind]`."""
        return sorted([*self._vertex_operations(), *self._edge_operations()], key=lambda one: (one.frame, one.kind))

    def _vertex_operations(self) -> Iterator[Operation]:
        true, pred = self.graph_true, self.graph_pred
        covered: dict[int, list[int]] = {}
        for vertex, by in enumerate(self.cover):
            if by < 0:
                yield Operation("FN", int(true.frames[vertex]), (int(true.labels[vertex]),), ())
            else:
                covered.setdefault(int(by), []).append(int(true.labels[vertex]))
        for vertex, (frame, label) in enumerate(zip(pred.frames.tolist(), pred.labels.tolist(), strict=True)):
            held = covered.get(vertex, [])
            if not held:
                yield Operation("FP", frame, (), (label,))
            elif len(held) > 1:
                yield Operation("NS", frame, tuple(sorted(held)), (label,), count=len(held) - 1)

    def _edge_operations(self) -> Iterator[Operation]:
        for edge in self.redundant.tolist():
            begin, end, labels = _ends(self.graph_pred, edge)
            yield Operation("ED", end, (), labels, begin)
        for edge in self.missing.tolist():
            begin, end, labels = _ends(self.graph_true, edge)
            yield Operation("EA", end, labels, (), begin)
        for edge_true, edge_pred in self.wrong.tolist():
            begin, end, labels = _ends(self.graph_true, edge_true)
            yield Operation("EC", end, labels, _ends(self.graph_pred, edge_pred)[2], begin)


def unique_partners(cover: np.ndarray, num_pred: int) -> np.ndarray:
    """Predicted vertex of each true one where it covers no other true one, else -1; int64 (n,).

    Args:
        cover: int64 (n,), predicted vertex that covers each true one, -1 = none.
        num_pred: Number of predicted vertices.
    """
    held = np.bincount(cover[cover >= 0], minlength=num_pred)
    partners = cover.copy()
    partners[cover >= 0] = np.where(held[cover[cover >= 0]] == 1, cover[cover >= 0], -1)
    return partners


def correct(graph_true: Graph, graph_pred: Graph, cover: np.ndarray) -> Aogm:
    """Count the operations.

    NS: a predicted cell that covers k > 1 true cells is split k - 1 times. FN: a true cell that none covers is added.
    FP: a predicted cell that covers none is deleted. The links are compared among predicted cells that cover exactly
    one true cell: ED deletes those that the true graph does not have, EC changes those that it has with another
    meaning, EA adds those of the true graph that are still missing.

    A link is one from parent to child if the table of tracks gives a parent, also where it has one child only: so do
    the challenge's own program and py-ctcmetrics. traccuracy looks at the number of children instead, so a track that
    is broken and goes on as a child of itself costs it nothing, and here one EC.

    Args:
        graph_true: The true graph.
        graph_pred: The predicted graph.
        cover: int64 (n,), predicted vertex that holds more than half of each true vertex's pixels, -1 = none.

    Reference:
        Matula et al. 2015, https://doi.org/10.1371/journal.pone.0144959
    """
    num_true, num_pred = len(graph_true.frames), len(graph_pred.frames)
    held = np.bincount(cover[cover >= 0], minlength=num_pred)
    partners = unique_partners(cover, num_pred)
    true_of = np.full(num_pred, -1)
    true_of[partners[partners >= 0]] = np.flatnonzero(partners >= 0)
    comparable = np.flatnonzero((true_of[graph_pred.sources] >= 0) & (true_of[graph_pred.targets] >= 0))
    codes_true = graph_true.sources * num_true + graph_true.targets
    codes_pred = true_of[graph_pred.sources[comparable]] * num_true + true_of[graph_pred.targets[comparable]]
    _, kept_true, kept_pred = np.intersect1d(codes_true, codes_pred, assume_unique=True, return_indices=True)
    differs = graph_true.is_parent[kept_true] != graph_pred.is_parent[comparable[kept_pred]]
    redundant = np.delete(comparable, kept_pred)
    missing = np.delete(np.arange(len(codes_true)), kept_true)
    wrong = np.stack([kept_true[differs], comparable[kept_pred[differs]]], axis=1)
    counts = {
        "NS": int(np.maximum(held - 1, 0).sum()),
        "FN": int(np.count_nonzero(cover < 0)),
        "FP": int(np.count_nonzero(held == 0)),
        "ED": len(redundant),
        "EA": len(missing),
        "EC": len(wrong),
    }
    return Aogm(counts, num_true, len(codes_true), graph_true, graph_pred, cover, redundant, missing, wrong)


def _ends(graph: Graph, edge: int) -> tuple[int, int, tuple[int, int]]:
    """Frame in which an edge begins, that in which it ends, and the labels there."""
    source, target = graph.sources[edge], graph.targets[edge]
    labels = int(graph.labels[source]), int(graph.labels[target])
    return int(graph.frames[source]), int(graph.frames[target]), labels
