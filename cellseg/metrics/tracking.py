"""Tracking: a tracked sequence compared with its truth, frame by frame; every measure of time is made of it.

The measures live in `cellseg.metrics.ctc` and `cellseg.metrics.biological`, the counted corrections in
`cellseg.metrics.aogm`; folders are read in `cellseg.tracks`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import numpy as np

from cellseg.metrics.aogm import Aogm, Graph, correct, unique_partners
from cellseg.overlap import Overlap, check_pair, contingency, iou_pairs
from cellseg.tracks import check_span
from pipelines.errors import InputError
from pipelines.tracks import Track, check_frame

Tracks = Mapping[int, Track]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of truth and prediction.

    Args:
        number: Its number, as in the tables of tracks.
        labels_pred: integer array (H, W) or (Z, H, W), predicted cells.
        markers: The same shape, true cells as markers or outlines (CTC: TRA); None where only outlines are known.
        outlines: The same shape, true cells as outlines (CTC: SEG), whose ids need not be those of the markers; None
            where the frame is not annotated.
        where_true, where_pred: Name labels and table of each side, for messages.
    """

    number: int
    labels_pred: np.ndarray
    markers: np.ndarray | None
    outlines: np.ndarray | None = None
    where_true: str = "labels_true and tracks_true"
    where_pred: str = "labels_pred and tracks_pred"


@dataclass(frozen=True, eq=False)
class Tracking:
    """A tracked sequence against its truth. A few numbers a cell and frame are kept, no pixels.

    Args:
        frames: Numbers of the frames with markers, ascending.
        graph_true, graph_pred: Cells and links; without a table of tracks, there are no links.
        cover: int64 (n,), predicted vertex that holds more than half of each true vertex's pixels, -1 = none.
        tracks_true, tracks_pred: The tables; None where there is none.
        seg_counts: float64 (2,), sum of Jaccard indices and number of true outlines, as `cellseg.metrics.ctc.seg`.
        num_frames: Frames compared, with markers or outlines.
    """

    frames: tuple[int, ...]
    graph_true: Graph
    graph_pred: Graph
    cover: np.ndarray
    tracks_true: Tracks | None
    tracks_pred: Tracks | None
    seg_counts: np.ndarray
    num_frames: int

    @cached_property
    def aogm(self) -> Aogm:
        """The corrections; those of links mean something only with both tables."""
        return correct(self.graph_true, self.graph_pred, self.cover)

    @cached_property
    def _answers(self) -> dict[tuple[int, int], int]:
        partners = unique_partners(self.cover, len(self.graph_pred.frames))
        # -1 picks the appended 0: no cell.
        labels = np.append(self.graph_pred.labels, 0)[partners]
        keys = zip(self.graph_true.frames.tolist(), self.graph_true.labels.tolist(), strict=True)
        return dict(zip(keys, labels.tolist(), strict=True))

    def answer(self, label: int, frame: int) -> int:
        """Predicted label that covers this true cell in this frame and no other one; 0 if there is none."""
        return self._answers.get((frame, label), 0)

    def answers(self, track: Track) -> list[int]:
        """`answer` for every frame of a true track."""
        return [self.answer(track.label, frame) for frame in range(track.begin, track.end + 1)]

    def tables(self) -> tuple[Tracks, Tracks]:
        """(tracks_true, tracks_pred); InputError if one is missing."""
        if self.tracks_true is None or self.tracks_pred is None:
            side, file = ("truth", "man_track.txt") if self.tracks_true is None else ("prediction", "res_track.txt")
            raise InputError(
                f"The {side} has no table of tracks ({file}, one line 'label begin end parent' a track), so that its "
                "links are not known. Add the table, or measure detection alone (det, seg, op_csb)."
            )
        return self.tracks_true, self.tracks_pred


def compare_tracking(
    labels_true: Iterable[np.ndarray],
    tracks_true: Tracks | None,
    labels_pred: Iterable[np.ndarray],
    tracks_pred: Tracks | None,
    *,
    outlines: Iterable[np.ndarray | None] | None = None,
) -> Tracking:
    """Compare two sequences of labels; frames count from 0, and two at a time are in memory.

    Args:
        labels_true: integer arrays (H, W) or (Z, H, W), 0 = background, one label a track.
        tracks_true: The table, by label (`pipelines.tracks.read_tracks`); None = only detection is measured.
        labels_pred: As many, of the same shapes.
        tracks_pred: Their table.
        outlines: For SEG, as many arrays, None where a frame is not annotated; left out, `labels_true`.

    Raises:
        InputError: different lengths or shapes, no integers, labels that disagree with their table.
    """
    missing = object()
    outlined = outlines is not None

    def frames() -> Iterable[Frame]:
        sequences = (labels_true, labels_pred) if outlines is None else (labels_true, labels_pred, outlines)
        for number, (one_true, one_pred, *rest) in enumerate(zip_longest(*sequences, fillvalue=missing)):
            for name, one in zip(("labels_true", "labels_pred", "outlines"), (one_true, one_pred, *rest), strict=False):
                if one is missing:
                    raise InputError(
                        f"{name} has {number} frames, and another sequence has more. Truth and prediction must have "
                        "the same frames; an empty one is an array of zeros."
                    )
            yield Frame(number, one_pred, one_true, rest[0] if outlined else one_true)

    return track_frames(frames(), tracks_true, tracks_pred)


def track_frames(frames: Iterable[Frame], tracks_true: Tracks | None, tracks_pred: Tracks | None) -> Tracking:
    """Compare a sequence frame by frame; each is dropped before the next is taken.

    Args:
        frames: In the order of their numbers.
        tracks_true: The table of the markers.
        tracks_pred: The table of the predicted labels.

    Raises:
        InputError: shapes that differ, no integers, labels that disagree with their table.
    """
    numbers: list[int] = []
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    seg_counts, num_pred, num_frames = np.zeros(2), 0, 0
    for frame in frames:
        num_frames += 1
        overlap = None
        if frame.markers is not None:
            overlap = _foreground_overlap(frame.markers, frame.labels_pred)
            for ids, tracks, where in (
                (overlap.ids_true, tracks_true, frame.where_true),
                (overlap.ids_pred, tracks_pred, frame.where_pred),
            ):
                if tracks is not None:
                    check_frame(tracks, ids.tolist(), frame.number, where)
            cover = covering(overlap)
            numbers.append(frame.number)
            new = overlap.ids_true[1:], overlap.ids_pred[1:], np.where(cover < 0, -1, cover + num_pred)
            for part, values in zip(parts, new, strict=True):
                part.append(values)
            num_pred += overlap.num_pred
        if frame.outlines is not None:
            if overlap is None or frame.outlines is not frame.markers:
                overlap = _foreground_overlap(frame.outlines, frame.labels_pred)
            seg_counts += count_seg(overlap)
    for name, tracks in (("tracks_true", tracks_true), ("tracks_pred", tracks_pred)):
        check_span(tracks or {}, numbers, name)
    ids_true, ids_pred, covers = parts
    return Tracking(
        tuple(numbers),
        make_graph(numbers, ids_true, tracks_true),
        make_graph(numbers, ids_pred, tracks_pred),
        _joined(covers),
        tracks_true,
        tracks_pred,
        seg_counts,
        num_frames,
    )


def covering(overlap: Overlap) -> np.ndarray:
    """Position (from 0) of the predicted object that holds more than half of each true object's pixels, -1 = none.

    Strictly more than half, so that there is at most one; exactly half is not enough. int64 (num_true,).
    """
    cover = np.full(overlap.num_true + 1, -1)
    covers = (overlap.columns > 0) & (2 * overlap.pixels > overlap.areas_true[overlap.rows])
    cover[overlap.rows[covers]] = overlap.columns[covers] - 1
    return cover[1:]


def count_seg(overlap: Overlap) -> np.ndarray:
    """(sum over true objects of the Jaccard index with the predicted one that covers them, true objects)."""
    objects = (overlap.rows > 0) & (overlap.columns > 0)
    covers = 2 * overlap.pixels[objects] > overlap.areas_true[overlap.rows[objects]]
    _, _, jaccard = iou_pairs(overlap)
    return np.array([jaccard[covers].sum(), overlap.num_true])


def make_graph(numbers: list[int], ids: list[np.ndarray], tracks: Tracks | None) -> Graph:
    """Vertices of all frames, and the links that the table gives them.

    Args:
        numbers: Frames.
        ids: Labels in each of them, ascending.
        tracks: The table, checked against the labels; None = no links.
    """
    frames = np.repeat(np.array(numbers, np.int64), [len(one) for one in ids])
    labels = _joined(ids)
    if tracks is None:
        nothing = np.zeros(0, np.int64)
        return Graph(frames, labels, nothing, nothing, nothing.astype(bool))
    order = np.lexsort((frames, labels))
    goes_on = np.flatnonzero(np.diff(labels[order]) == 0)
    # Where each track is first and last seen; a label's vertices lie side by side in `order`.
    first = dict(zip(labels[order][::-1].tolist(), order[::-1].tolist(), strict=True))
    last = dict(zip(labels[order].tolist(), order.tolist(), strict=True))
    children = [track for track in tracks.values() if track.parent]
    for track in children:
        if track.parent not in tracks:
            raise InputError(f"The parent of track {track.label} is {track.parent}, but the table has no such track.")
    sources = np.array([last[track.parent] for track in children], np.int64)
    targets = np.array([first[track.label] for track in children], np.int64)
    return Graph(
        frames,
        labels,
        np.concatenate([order[goes_on], sources]),
        np.concatenate([order[goes_on + 1], targets]),
        np.arange(len(goes_on) + len(children)) >= len(goes_on),
    )


def _foreground_overlap(labels_true: np.ndarray, labels_pred: np.ndarray) -> Overlap:
    """Contingency table without the pixels that are background on both sides: they take most of the time."""
    check_pair(labels_true, labels_pred)
    foreground = (labels_true != 0) | (labels_pred != 0)
    return contingency(labels_true[foreground], labels_pred[foreground])


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays])
