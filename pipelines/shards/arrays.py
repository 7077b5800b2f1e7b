"""Arrays in shards: where the raw bytes of an array lie in a file, and reading all or some rows of them.

Both formats store arrays uncompressed, so a crop costs its own rows and not the whole image, and needs neither a zip
nor a protobuf parser. What else is in the files is the business of `pipelines.shards.npz` and `.tfrecord`.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipelines.errors import InputError

# [offset in bytes, name of the dtype, shape]: a list, because it goes through JSON.
Place = list
# Arrays whose first two axes are those of the image.
PER_PIXEL = ("image", "labels", "classes", "weight_map", "ignore")


def place(offset: int, array: np.ndarray) -> Place:
    """Entry of an array whose little-endian bytes begin at `offset`."""
    return [offset, array.dtype.name, list(array.shape)]


def read(path: Path, places: Mapping[str, Place], *, rows: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """Arrays of one record. Safe to call from several threads and processes.

    Args:
        path: The shard.
        places: Where each array lies.
        rows: Of the arrays in PER_PIXEL, read only the rows from the first to below the second; None = all.

    Returns:
        Read-only arrays by name.

    Raises:
        InputError: the file ends before an array does.
    """
    record = {}
    with open(path, "rb", buffering=0) as file:
        for name, (offset, dtype, shape) in places.items():
            item = np.dtype(dtype).newbyteorder("<")
            count, skip = math.prod(shape), 0
            if rows is not None and name in PER_PIXEL:
                row = math.prod(shape[1:])
                skip, count, shape = rows[0] * row, (rows[1] - rows[0]) * row, [rows[1] - rows[0], *shape[1:]]
            wanted, begin = count * item.itemsize, offset + skip * item.itemsize
            # Asked first: reading would take the memory for what a manifest claims.
            held = begin + wanted <= os.fstat(file.fileno()).st_size
            data = _bytes(file.fileno(), wanted, begin) if held else b""
            if len(data) < wanted:
                raise InputError(f"{path}: '{name}' at byte {offset} is cut short. Prepare the data again.")
            record[name] = np.frombuffer(data, item).reshape(shape)
    return record


def _bytes(handle: int, wanted: int, begin: int) -> bytes:
    """`wanted` bytes, fewer at the end of the file: Linux reads no more than 2 GiB at once."""
    data = os.pread(handle, wanted, begin)
    while 0 < len(data) < wanted and (more := os.pread(handle, wanted - len(data), begin + len(data))):
        data += more
    return data
