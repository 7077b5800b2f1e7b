"""Dashboard: what TensorBoard shows of a training, written without TensorFlow, so that every Keras backend has it.

What steers training lives in `cellseg.callbacks`.
"""

import time
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from cellseg.callbacks import WholeImageValidation


class Dashboard(keras.callbacks.Callback):
    """Writes every epoch's figures and, every few epochs, validation images, their truth and the current answer.

    Args:
        validation: Its examples are drawn.
        folder: `tensorboard --logdir FOLDER` shows it.
        every: Epochs from one set of pictures to the next.
    """

    def __init__(self, validation: WholeImageValidation, folder: Path, *, every: int = 5):
        super().__init__()
        self._validation, self._folder, self._every = validation, folder, every
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, epoch, logs=None):
        """Write the figures; those of the validation images go to a run of their own, in the same charts."""
        from tensorboard.plugins.image import metadata as image
        from tensorboard.plugins.scalar import metadata as scalar

        for name, value in (logs or {}).items():
            run = "validation" if name.startswith("val_") else "train"
            tag = f"epoch_{name.removeprefix('val_')}"
            self._write(run, epoch, tag, np.float32(value), scalar.create_summary_metadata("", ""))
        if epoch % self._every == 0:
            about = image.create_summary_metadata("", "")
            for one, probability in self._validation.examples:
                picture = _triptych(one, probability)
                height, width = picture.shape
                png = cv2.imencode(".png", picture)[1].tobytes()
                parts = np.array([str(width).encode(), str(height).encode(), png], object)
                self._write("pictures", epoch, f"image, truth, probability/{one.name}", parts, about)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        """Close the logs."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, run: str, epoch: int, tag: str, value: np.generic | np.ndarray, about) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        from tensorboard.util.tensor_util import make_tensor_proto

        if run not in self._writers:
            self._writers[run] = EventFileWriter(str(self._folder / run))
        summary = Summary.Value(tag=tag, tensor=make_tensor_proto(value), metadata=about)
        self._writers[run].add_event(Event(wall_time=time.time(), step=epoch, summary=Summary(value=[summary])))


def _triptych(image, probability: np.ndarray) -> np.ndarray:
    """Image, truth and answer side by side, uint8 (H, 3 W)."""
    grey = image.image.astype(np.float32).mean(axis=-1)
    low, high = image.limits
    grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    panel = np.concatenate([grey, image.mask.astype(np.float32), probability], axis=1)
    return (255 * panel).astype(np.uint8)
