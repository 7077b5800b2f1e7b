"""Event files: what TensorBoard reads, written by the tensorboard package alone, so that no backend needs TensorFlow.

What is written, and when, is decided in `cellseg.dashboard`; the pictures are drawn in `cellseg.dashboard_pictures`.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cellseg.thresholds import ThresholdCurve

BUCKETS = 30  # of a histogram, as TensorFlow's own
SAMPLE = 2**14  # values of a variable that are counted at most: its shape is the same, and an epoch costs no more
PR_THRESHOLDS = 101  # 0, 0.01, ..., 1
CLOSEST = 1e-12  # nothing is divided by less


class EventLog:
    """The event files below one folder; a run of TensorBoard is a folder in it, made when something is written to it.

    Steps are epochs that are over: 0 is before training.

    Args:
        folder: `tensorboard --logdir FOLDER` shows it.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._start: int | None = None
        self._told: set[str] = set()

    def scalar(self, run: str, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        from tensorboard.plugins.scalar import metadata

        self._write(run, tag, np.float32(value), step, metadata.create_summary_metadata("", ""))

    def image(self, run: str, tag: str, picture: np.ndarray, step: int, description: str) -> None:
        """uint8 RGB (H, W, 3); the description is Markdown."""
        from tensorboard.plugins.image import metadata

        content = cv2.imencode(".png", picture[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 6))[1].tobytes()
        height, width = picture.shape[:2]
        parts = np.array([str(width).encode(), str(height).encode(), content], object)
        self._write(run, tag, parts, step, metadata.create_summary_metadata("", description))

    def histogram(self, run: str, tag: str, values: np.ndarray, step: int) -> None:
        """How often which value occurs among at most SAMPLE of an array's; values that are not finite do not count."""
        from tensorboard.plugins.histogram import metadata

        self._write(run, tag, buckets(values), step, metadata.create_summary_metadata("", ""))

    def pr_curve(self, run: str, tag: str, curve: ThresholdCurve, step: int, description: str) -> None:
        """Precision and recall of the pixels at PR_THRESHOLDS thresholds."""
        from tensorboard.plugins.pr_curve import metadata

        about = metadata.create_summary_metadata("", description, PR_THRESHOLDS)
        self._write(run, tag, precision_and_recall(curve), step, about)

    def text(self, run: str, tag: str, markdown: str, step: int) -> None:
        """A text in Markdown."""
        from tensorboard.plugins.text import metadata

        self._write(run, tag, np.array([markdown.encode()], object), step, metadata.create_summary_metadata("", ""))

    def hparams(self, run: str, parameters: Mapping[str, bool | float | str], trial: str) -> None:
        """Begin a session of the HParams tab: its columns are these parameters and every scalar of the same run.

        Sessions of the same `trial` share a row.
        """
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        (value,) = hparams_pb(dict(parameters), trial_id=trial).value
        self._add(run, value, 0)

    def succeeded(self, run: str) -> None:
        """End the session of the HParams tab: its status is success then, and unknown before."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        self._add(run, Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR), 0)

    def flush(self) -> None:
        """Bring what was written to disk."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Close the files; what is written later goes to new ones beside them."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def rewind(self, step: int) -> None:
        """Let TensorBoard forget what was written from this step on: training goes on from an earlier point."""
        self.close()
        self._start, self._told = step, set()

    def _write(self, run: str, tag: str, value: np.generic | np.ndarray, step: int, about: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.util.tensor_util import make_tensor_proto

        self._add(run, Summary.Value(tag=tag, tensor=make_tensor_proto(value), metadata=about), step)

    def _add(self, run: str, value: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        if run not in self._writers:
            self._writers[run] = _new_file(self._folder / run)
            if self._start is not None and run not in self._told:
                self._told.add(run)  # a later phase opens new files, and forgets nothing
                session = SessionLog(status=SessionLog.START)
                self._writers[run].add_event(Event(wall_time=time.time(), step=self._start, session_log=session))
        self._writers[run].add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))


def _new_file(folder: Path) -> Any:
    """A writer of a further event file, which TensorBoard reads after those that are there.

    It sorts them by their names, `events.out.tfevents.SECOND.HOST.PROCESS.NUMBER`, and 10 before 9.
    """
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    while any(folder.glob(f"*.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.05)
    return EventFileWriter(str(folder))


def buckets(values: np.ndarray) -> np.ndarray:
    """float32 (30, 3): left edge, right edge and count of equal buckets from the least to the greatest value.

    Of more than SAMPLE values, evenly spaced ones are counted. Of equal values, all lie in the last bucket, as in
    TensorFlow's own histograms; without a finite value all is 0.
    """
    flat = np.asarray(values, np.float32).ravel()
    flat = flat[:: max(1, flat.size // SAMPLE)]
    flat = flat[np.isfinite(flat)].astype(np.float64)  # numpy finds no 30 float32 edges between neighbouring numbers
    if not flat.size:
        return np.zeros((BUCKETS, 3), np.float32)
    low, high = float(flat.min()), float(flat.max())
    counts = np.zeros(BUCKETS)
    edges = np.linspace(low, high, BUCKETS + 1)
    if high - low <= CLOSEST:
        counts[-1] = flat.size
    else:
        counts = np.histogram(flat, BUCKETS, (low, high))[0].astype(np.float64)
    return np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float32)


def precision_and_recall(curve: ThresholdCurve) -> np.ndarray:
    """float32 (6, 101): true positives, false positives, true and false negatives, precision and recall by threshold.

    At threshold 0 every pixel is foreground, at 1 none. What is undefined is 0, and TensorBoard leaves it out.
    """
    at = np.round(np.linspace(0, 1, PR_THRESHOLDS)[1:-1] * (len(curve.thresholds) + 1)).astype(int) - 1
    hits, drawn, true, total = curve.counts
    hits = np.concatenate([[true], hits[at], [0]])
    drawn = np.concatenate([[total], drawn[at], [0]])
    false = drawn - hits
    table = [hits, false, total - true - false, true - hits, hits / np.maximum(drawn, 1), hits / max(true, 1)]
    return np.array(table, np.float32)
