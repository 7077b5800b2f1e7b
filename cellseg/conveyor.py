"""Conveyor: files through reading, the network and writing, of which reading and writing overlap the network.

What the stages do to a file lives in `cellseg.stages`; the same on the workers of a cluster in `cellseg.cluster`.
"""

import collections
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import InputError

AHEAD, BEHIND = 1, 2  # files read before the network is free, and files that are being labelled and written
IN_FLIGHT = AHEAD + 1 + BEHIND
OWN = (InputError, OSError, MemoryError)  # errors of one file, after which the next may do


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Args:
        file: The image.
        said: What the user should hear about it, in order.
        dtype: Of its pixels; "" where they were not read.
        error: Why it has no results; None where it has.
    """

    file: Path
    said: tuple[str, ...] = ()
    dtype: str = ""
    error: Exception | None = None


def conveyed(
    files: Iterable[Path],
    *,
    read: Callable[[Path], Any],
    look: Callable[[Any], Any],
    write: Callable[[Any], Outcome],
) -> Generator[Outcome, None, None]:
    """Each file through three stages; the answers are those of `write(look(read(file)))` one after the other.

    One thread reads and one writes, the network looks in the caller's own thread. At most `IN_FLIGHT` files are in
    memory. What has been given to the writer is written even if a file before it fails, so that nothing is half done.

    Args:
        files: Taken one by one, as there is room.
        read: In a thread, ahead of the network.
        look: In the caller's thread.
        write: In a thread, while the network looks at the next file.

    Yields:
        The outcome of each file, in order. An error of `OWN` of any stage is the file's own; before the
        network goes on, everything ahead of such a file is yielded, so that a caller who stops there has no more.
    """
    files = iter(files)
    reading: collections.deque[tuple[Path, Future]] = collections.deque()
    writing: collections.deque[tuple[Path, Future]] = collections.deque()
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:

        def read_ahead() -> None:
            while len(reading) < AHEAD and (file := next(files, None)) is not None:
                reading.append((file, reader.submit(read, file)))

        try:
            read_ahead()
            while reading:
                file, coming = reading.popleft()
                try:
                    picture = coming.result()
                    read_ahead()
                    seen = look(picture)
                except OWN as error:
                    while writing:
                        yield _written(*writing.popleft())
                    yield Outcome(file, error=error)
                    read_ahead()
                    continue
                writing.append((file, writer.submit(write, seen)))
                del picture, seen, coming
                while len(writing) > BEHIND:
                    yield _written(*writing.popleft())
            while writing:
                yield _written(*writing.popleft())
        finally:
            reader.shutdown(cancel_futures=True)


def _written(file: Path, future: Future) -> Outcome:
    try:
        return future.result()
    except OWN as error:
        return Outcome(file, error=error)
