"""Disk: arrays that stay in a file while they are worked on, and a folder for them that is gone afterwards.

What an image file holds is read by windows in `pipelines.rasters`; results are written in `pipelines.large_files`.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.errors import InputError
from pipelines.files import WORK, locked_folder


class DiskArray:
    """An array (H, W) or (H, W, C) in a plain file of its own, read and written by windows.

    Plain reads and writes, no memory map: mapped pages count as memory of the process. Picklable; every process opens
    the file for itself.

    Args:
        path: The file; made if it is not there, full of zeros that take no room.
        shape: (H, W) or (H, W, C).
        dtype: Of the values.
    """

    def __init__(self, path: Path | str, shape: Sequence[int], dtype: np.dtype | type | str):
        self.path, self.shape, self.dtype = Path(path), tuple(int(side) for side in shape), np.dtype(dtype)
        self._pixel = math.prod(self.shape[2:]) * self.dtype.itemsize
        self._file: int | None = None

    def read(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """The window at rows and columns, cut off at the array's borders, as a new array."""
        rows, columns = clipped(rows, self.shape[0]), clipped(columns, self.shape[1])
        height, width = rows.stop - rows.start, columns.stop - columns.start
        window = np.empty((height, width, *self.shape[2:]), self.dtype)
        if window.size:
            data = window.reshape(-1).view(np.uint8).data
            for place, length, offset in self._pieces(rows.start, columns.start, height, width):
                self._fill(data[place : place + length], offset)
        return window

    def write(self, row: int, column: int, window: np.ndarray) -> None:
        """Put a window at (row, column); all of it must lie inside."""
        height, width = window.shape[:2]
        if row < 0 or column < 0 or row + height > self.shape[0] or column + width > self.shape[1]:
            raise ValueError(f"A {height}x{width} window at ({row}, {column}) does not lie in {self.shape}.")
        if window.size == 0:
            return
        data = np.ascontiguousarray(window, self.dtype).reshape(-1).view(np.uint8).data
        for place, length, offset in self._pieces(row, column, height, width):
            done = 0
            while done < length:
                done += os.pwrite(self._open(), data[place + done : place + length], offset + done)

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None}

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            size = self.shape[0] * self.shape[1] * self._pixel
            if os.fstat(self._file).st_size < size:
                os.ftruncate(self._file, size)
        return self._file

    def _pieces(self, row: int, column: int, height: int, width: int) -> Iterator[tuple[int, int, int]]:
        """(place in the window, length, place in the file) of what lies in one piece, in bytes."""
        line = self.shape[1] * self._pixel
        if width == self.shape[1]:
            yield 0, height * line, row * line
            return
        for number in range(height):
            yield number * width * self._pixel, width * self._pixel, (row + number) * line + column * self._pixel

    def _fill(self, data: memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            read = os.preadv(self._open(), [data[done:]], offset + done)
            if read == 0:
                raise OSError(f"{self.path} was cut short while it was in use.")
            done += read


def clipped(window: slice, length: int) -> slice:
    """A slice without step as (start, stop) inside [0, length]; negative numbers do not count from the end."""
    start = 0 if window.start is None else min(max(window.start, 0), length)
    stop = length if window.stop is None else min(max(window.stop, start), length)
    return slice(start, stop)


@contextlib.contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A folder for unfinished work beside `target`, removed at the end, also after an error.

    A killed process leaves it behind; the next one that works on `target` removes it.

    Raises:
        InputError: another process works on `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}{WORK}")
    with contextlib.ExitStack() as held:
        while True:
            folder.mkdir(exist_ok=True)
            try:
                held.enter_context(locked_folder(folder))
                break
            except FileNotFoundError:  # another process has just removed it as a leftover
                continue
            except BlockingIOError:
                raise InputError(
                    f"Another process is writing {target} at this moment. Wait until it has ended, or choose another "
                    "--out."
                ) from None
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
