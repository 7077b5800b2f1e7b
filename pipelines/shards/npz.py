"""Shards as .npz archives: `numpy.load` opens them, no TensorFlow needed.

TFRecord shards live in `pipelines.shards.tfrecord`; both carry the same records bit for bit.
"""

import functools
import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np

SUFFIX = ".npz"


class Writer:
    """Writes records one by one; memory does not grow with their number. A context manager."""

    def __init__(self, path: Path):
        # Stored, not deflated: reading a deflated 16-bit image took five times as long as a raw one.
        self._archive = zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED)
        self._count = 0

    def write(self, record: dict[str, np.ndarray]) -> int:
        """Append a record; returns its position for `read`."""
        for field, array in record.items():
            # A fixed date makes equal records equal bytes, so that checksums can be compared.
            member = zipfile.ZipInfo(f"{self._count:06d}/{field}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with self._archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        self._count += 1
        return self._count - 1

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


def read(path: Path, position: int) -> dict[str, np.ndarray]:
    """The record at a position. Safe to call from several threads."""
    archive, members = _open(path)
    return {field: archive[name] for field, name in members[position].items()}


@functools.lru_cache(maxsize=64)
def _open(path: Path):
    archive = np.load(path, allow_pickle=False)
    members: dict[int, dict[str, str]] = {}
    for name in archive.files:
        position, field = name.split("/")
        members.setdefault(int(position), {})[field] = name
    return archive, members
