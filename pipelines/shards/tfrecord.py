"""Shards as TFRecord files of `tf.train.Example`, read at random by byte offset.

Each array `NAME` of a record is three features: `NAME` (raw little-endian bytes), `NAME/shape` and `NAME/dtype`.
.npz shards live in `pipelines.shards.npz`; both carry the same records bit for bit.
"""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np

from pipelines.errors import InputError

SUFFIX = ".tfrecord"
HEADER, FOOTER = 12, 4  # length and its checksum before the data, the data's checksum after


class Writer:
    """Writes records one by one; memory does not grow with their number. A context manager."""

    def __init__(self, path: Path):
        import tensorflow as tf

        self._path, self._train, self._failure = path, tf.train, tf.errors.OpError
        self._file = tf.io.TFRecordWriter(str(path))
        self._offset = 0

    def write(self, record: dict[str, np.ndarray]) -> int:
        """Append a record; returns its position (byte offset) for `read`."""
        data = self._example(record).SerializeToString(deterministic=True)
        self._call(self._file.write, data)
        position, self._offset = self._offset, self._offset + HEADER + len(data) + FOOTER
        return position

    def _call(self, function: Callable, *arguments: bytes) -> None:
        try:
            function(*arguments)
        except self._failure as error:  # a full disk is no fault of the program: say it as Python does
            reason = str(error.message).rpartition("; ")[2]
            raise OSError(errno.EIO, reason, str(self._path)) from error

    def _example(self, record: dict[str, np.ndarray]):
        features = {}
        for field, array in record.items():
            little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            features[field] = self._bytes(little.tobytes())
            features[f"{field}/shape"] = self._train.Feature(int64_list=self._train.Int64List(value=array.shape))
            features[f"{field}/dtype"] = self._bytes(array.dtype.name.encode())
        return self._train.Example(features=self._train.Features(feature=features))

    def _bytes(self, value: bytes):
        return self._train.Feature(bytes_list=self._train.BytesList(value=[value]))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._file.close)


def read(path: Path, position: int) -> dict[str, np.ndarray]:
    """The record at a byte offset. Safe to call from several threads."""
    from tensorflow.core.example.example_pb2 import Example

    with open(path, "rb") as file:
        head = os.pread(file.fileno(), HEADER, position)
        if len(head) < HEADER:
            raise InputError(f"{path}: no record at byte {position}; the shard is cut short. Prepare the data again.")
        (length,) = struct.unpack("<Q", head[:8])
        data = os.pread(file.fileno(), length, position + HEADER)
    if len(data) < length:
        raise InputError(f"{path}: the record at byte {position} is cut short. Prepare the data again.")
    features = Example.FromString(data).features.feature
    fields = [name for name in features if "/" not in name]
    return {field: _array(features, field) for field in sorted(fields)}


def _array(features, field: str) -> np.ndarray:
    dtype = np.dtype(features[f"{field}/dtype"].bytes_list.value[0].decode()).newbyteorder("<")
    shape = tuple(features[f"{field}/shape"].int64_list.value)
    return np.frombuffer(features[field].bytes_list.value[0], dtype).reshape(shape)
