"""SEQUENCE_METRICS: every measure of a sequence by name, and the score of a CTC result folder against its truth.

The measures themselves live in `ctc` and `biological`, the comparison of frames in `tracking`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cellseg.metrics.biological import bc, cca, ct, division_f1, tf, tf_ctc
from cellseg.metrics.ctc import aogm_cost, det, lnk, op_csb, op_ctb, sequence_seg, tra
from cellseg.metrics.tracking import Frame, Tracking, track_frames
from cellseg.tracks import TrackedFolder, check_same_frames, outline_files, read_result, read_truth, read_volume
from pipelines.errors import InputError, nearest


@dataclass(frozen=True)
class SequenceMeasure:
    """A number that compares a tracked sequence with its truth.

    Args:
        value: Compared sequence -> the score; NaN where it is undefined.
        higher_is_better: Whether a perfect result has the highest score.
        kind: "object" (cells in frames), "link" (cells and how they go on) or "biology" (whole tracks, divisions).
        needs_markers: Whether it is made of tracking truth (TRA).
        needs_outlines: Whether it is made of segmentation truth (SEG).
        needs_tables: Whether both tables of tracks must be there.
    """

    value: Callable[[Tracking], float]
    higher_is_better: bool
    kind: str
    needs_markers: bool = True
    needs_outlines: bool = False
    needs_tables: bool = True


def check_sequence_measures(names: Iterable[str]) -> list[str]:
    """The names as a list without repeats; InputError names the nearest known one."""
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in SEQUENCE_METRICS:
            raise InputError(
                f"There is no measure '{name}' of a sequence.{nearest(name, SEQUENCE_METRICS)} "
                f"Known: {', '.join(SEQUENCE_METRICS)}."
            )
    if not names:
        raise InputError(f"No measure of a sequence was named. Known: {', '.join(SEQUENCE_METRICS)}.")
    return names


def read_tracking(
    truth: Path | str,
    result: Path | str,
    measures: Sequence[str],
    *,
    outlines: Path | str | None = None,
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> Tracking:
    """Compare a CTC result folder with its truth, one frame in memory at a time.

    Only the files that the measures need are looked for and read.

    Args:
        truth: Folder such as `01_GT`, with `TRA/man_trackNNN.tif`, `TRA/man_track.txt` and `SEG/man_segNNN.tif`.
        result: Folder such as `01_RES`, with `maskNNN.tif` and `res_track.txt`.
        measures: Names from SEQUENCE_METRICS.
        outlines: Folder whose `SEG` is taken instead of that of `truth`, for example `01_ST`.
        progress: Wraps the list of frames, to show how far it is.

    Raises:
        FileNotFoundError: a folder or table is missing.
        InputError: an unknown measure, frames of one side only, sizes that differ, labels that disagree with the table,
            a table that contradicts itself.
    """
    entries = [SEQUENCE_METRICS[name] for name in check_sequence_measures(measures)]
    markers = read_truth(truth) if any(entry.needs_markers for entry in entries) else None
    outlined = outline_files(truth if outlines is None else outlines) if any(e.needs_outlines for e in entries) else {}
    predicted = read_result(result)
    if markers is not None:
        check_same_frames(markers, predicted)
    missing = [path for frame, path in outlined.items() if frame not in predicted.files]
    if missing:
        names = ", ".join(path.name for path in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise InputError(
            f"{len(missing)} of {len(outlined)} files in {missing[0].parent} have no maskNNN.tif of their number in "
            f"{Path(result)}: {names}. A result needs one for each annotated frame."
        )
    if any(entry.needs_tables for entry in entries):
        for side in (markers, predicted):
            if side is not None and side.tracks is None:
                raise FileNotFoundError(
                    f"There is no file {side.table}. A table of tracks (label begin end parent) was expected; without "
                    "it seg, det and op_csb can be measured."
                )
    frames = _frames(markers, outlined, predicted, progress)
    return track_frames(frames, markers.tracks if markers else None, predicted.tracks if markers else None)


def evaluate_sequence(
    truth: Path | str,
    result: Path | str,
    measures: Sequence[str],
    *,
    outlines: Path | str | None = None,
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> dict:
    """Score a CTC result folder against its truth; arguments and errors as `read_tracking`.

    Returns:
        {"images": number of frames compared, "measures": {measure: value, None where it is undefined}, "operations":
        {"NS": n, ...}}, the last only if both tables of tracks were read.
    """
    names = check_sequence_measures(measures)
    tracking = read_tracking(truth, result, names, outlines=outlines, progress=progress)
    values = {name: SEQUENCE_METRICS[name].value(tracking) for name in names}
    scores: dict = {
        "images": tracking.num_frames,
        "measures": {name: None if math.isnan(value) else float(value) for name, value in values.items()},
    }
    if tracking.tracks_true is not None and tracking.tracks_pred is not None:
        scores["operations"] = dict(tracking.aogm.counts)
    return scores


def _frames(
    markers: TrackedFolder | None,
    outlined: dict[int, Path],
    predicted: TrackedFolder,
    progress: Callable[[list[int]], Iterable[int]],
) -> Iterator[Frame]:
    for number in progress(list(outlined if markers is None else markers.files)):
        labels_pred = predicted.read(number)
        outlines = read_volume(outlined[number]) if number in outlined else None
        labels_true = None if markers is None else markers.read(number)
        if markers is not None:
            _check_size(labels_true, markers.files[number], labels_pred, predicted.files[number])
        if outlines is not None:
            _check_size(outlines, outlined[number], labels_pred, predicted.files[number])
        where_true = "" if markers is None else markers.where(number)
        yield Frame(number, labels_pred, labels_true, outlines, where_true, predicted.where(number))


def _check_size(labels_true: np.ndarray | None, true: Path, labels_pred: np.ndarray, pred: Path) -> None:
    if labels_true is not None and labels_true.shape != labels_pred.shape:
        sizes = ("x".join(map(str, labels.shape)) for labels in (labels_true, labels_pred))
        raise InputError(
            f"{true} holds {next(sizes)} pixels, but {pred} holds {next(sizes)} pixels. "
            "Truth and prediction must be the same image, at the same size."
        )


def _higher(
    value: Callable[[Tracking], float], kind: str, *, outlines: bool = False, tables: bool = True
) -> SequenceMeasure:
    return SequenceMeasure(value, higher_is_better=True, kind=kind, needs_outlines=outlines, needs_tables=tables)


SEQUENCE_METRICS: dict[str, SequenceMeasure] = {
    "seg": SequenceMeasure(
        sequence_seg,
        higher_is_better=True,
        kind="object",
        needs_markers=False,
        needs_outlines=True,
        needs_tables=False,
    ),
    "det": _higher(det, "object", tables=False),
    "tra": _higher(tra, "link"),
    "lnk": _higher(lnk, "link"),
    "op_csb": _higher(op_csb, "object", outlines=True, tables=False),
    "op_ctb": _higher(op_ctb, "link", outlines=True),
    "aogm": SequenceMeasure(aogm_cost, higher_is_better=False, kind="link"),
    "ct": _higher(ct, "biology"),
    "tf": _higher(tf, "biology"),
    "tf_ctc": _higher(tf_ctc, "biology"),
    "division_f1": _higher(division_f1, "biology"),
    "bc_0": _higher(partial(bc, tolerance=0), "biology"),
    "bc_2": _higher(partial(bc, tolerance=2), "biology"),
    "bc_3": _higher(partial(bc, tolerance=3), "biology"),
    "cca": _higher(cca, "biology"),
}
