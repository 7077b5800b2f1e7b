"""Provenance: which raw files a folder of shards was made from, and whether they have changed since.

What the shards hold stands in `pipelines.shards.manifest`; finding the files is the work of `pipelines.sources`.
"""

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.files import sha256
from pipelines.sample import Item

SHOWN = 3


def fingerprint(file: Path | str) -> dict:
    """Size, time of change and SHA-256 of a file. A stack that many items share is read once a process."""
    status = os.stat(file)
    return _fingerprint(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _fingerprint(file: Path | str, size: int, mtime_ns: int) -> dict:
    return {"size": size, "mtime_ns": mtime_ns, "sha256": sha256(file)}


def unchanged(file: Path | str, before: Mapping) -> bool:
    """Whether a file is there and still as in a fingerprint; it is read only if its time has changed."""
    try:
        return not _differs(file, before)
    except OSError:
        return False


def changes(before: Mapping[str, dict], items: Iterable[Item], source: Path) -> str:
    """What has changed in the raw files since `before` was taken, in words; "" if nothing has.

    A file with the same size and time of change is taken as unchanged; only others are read, so that a large data set
    is compared in no time, and a copy of the data with new times is still the same data.
    """
    now = {relative(file, source): file for item in items for file in item.files}
    changed = [name for name, file in now.items() if name in before and _differs(file, before[name])]
    parts = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(changed),
    }
    return "; ".join(f"{what}: {_few(names)}" for what, names in parts.items() if names)


def _differs(file: Path | str, before: Mapping) -> bool:
    status = os.stat(file)
    if status.st_size != before["size"]:
        return True
    return status.st_mtime_ns != before["mtime_ns"] and sha256(file) != before["sha256"]


def relative(file: Path | str, source: Path) -> str:
    """Path of a raw file as the manifest writes it: relative to the data set."""
    return Path(os.path.relpath(os.path.realpath(file), source.resolve())).as_posix()


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
