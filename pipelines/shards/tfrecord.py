"""Shards as TFRecord files of `tf.train.Example`, which every tool of the TensorFlow world reads.

Each array `NAME` of a record is three features: `NAME` (raw little-endian bytes), `NAME/shape` and `NAME/dtype`.
.npz shards live in `pipelines.shards.npz`; both carry the same records bit for bit.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from pipelines.errors import InputError
from pipelines.shards.arrays import Place, place

SUFFIX = ".tfrecord"
HEADER, FOOTER = 12, 4  # length and its checksum before the data, the data's checksum after


class Writer:
    """Writes records one by one; memory does not grow with their number. A context manager."""

    def __init__(self, path: Path):
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            raise InputError(
                "TFRecord shards are written by TensorFlow, which is not installed. Set data.format: npz (--format "
                "npz), which needs nothing, or install TensorFlow."
            ) from error

        self._path, self._train, self._failure = path, tf.train, tf.errors.OpError
        self._file = tf.io.TFRecordWriter(str(path))
        self._offset = 0

    def write(self, record: dict[str, np.ndarray]) -> dict[str, Place]:
        """Append a record; returns where its arrays lie, for `pipelines.shards.arrays.read`."""
        features, places = {}, {}
        raw = {name: array.astype(array.dtype.newbyteorder("<")).tobytes() for name, array in record.items()}
        for name, array in record.items():
            features[name] = self._bytes(raw[name])
            features[f"{name}/shape"] = self._train.Feature(int64_list=self._train.Int64List(value=array.shape))
            features[f"{name}/dtype"] = self._bytes(array.dtype.name.encode())
        example = self._train.Example(features=self._train.Features(feature=features))
        data = example.SerializeToString(deterministic=True)
        for name, array in record.items():
            # The first place that holds these bytes will do: equal bytes are an equal array.
            places[name] = place(self._offset + HEADER + data.index(raw[name]), array)
        self._call(self._file.write, data)
        self._offset += HEADER + len(data) + FOOTER
        return places

    def _call(self, function: Callable, *arguments: bytes) -> None:
        try:
            function(*arguments)
        except self._failure as error:  # a full disk is no fault of the program: say it as Python does
            reason = str(error.message).rpartition("; ")[2]
            raise OSError(errno.EIO, reason, str(self._path)) from error

    def _bytes(self, value: bytes):
        return self._train.Feature(bytes_list=self._train.BytesList(value=[value]))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._file.close)
