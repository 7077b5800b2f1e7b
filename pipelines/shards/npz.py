"""Shards as .npz archives: `numpy.load` opens them, no TensorFlow needed.

TFRecord shards live in `pipelines.shards.tfrecord`; both carry the same records bit for bit.
"""

import zipfile
from pathlib import Path
from types import TracebackType

import numpy as np

from pipelines.shards.arrays import Place, place

SUFFIX = ".npz"


class Writer:
    """Writes records one by one; memory does not grow with their number. A context manager."""

    def __init__(self, path: Path):
        # Stored, not deflated: a crop is then read at its place (benchmarks/shards.py has the figures).
        self._archive = zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED)
        self._count = 0

    def write(self, record: dict[str, np.ndarray]) -> dict[str, Place]:
        """Append a record; returns where its arrays lie, for `pipelines.shards.arrays.read`."""
        places = {}
        for name, array in record.items():
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            # A fixed date makes equal records equal bytes, so that checksums can be compared.
            member = zipfile.ZipInfo(f"{self._count:06d}/{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with self._archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                stream = self._archive.fp
                assert stream is not None
                places[name] = place(stream.tell(), array)
                file.write(array.tobytes())
        self._count += 1
        return places

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()
