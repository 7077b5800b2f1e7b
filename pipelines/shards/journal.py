"""Journal: which shards of an unfinished preparation are whole, so that the next one continues behind them.

The manifest of the finished folder is the business of `pipelines.shards.manifest`, which reads this one's lines.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pipelines.files import sha256

NAME = "journal.jsonl"


class Journal:
    """A file of JSON lines: what is being prepared, then a line for every whole shard.

    Args:
        folder: The unfinished folder. A journal of another plan, or of shards that are not whole, is cut off there,
            and every file that it does not vouch for is removed.
        plan: What is being prepared, in a form that JSON keeps: a journal continues only the same plan.
        unchanged: Whether a raw file is still as in a fingerprint: (name, fingerprint) -> bool.
    """

    def __init__(self, folder: Path, plan: dict, unchanged: Callable[[str, dict], bool]):
        self._folder, self._path = folder, folder / NAME
        head = json.dumps({"plan": plan}, sort_keys=True)
        kept = list(self._whole(head, unchanged)) if self._path.is_file() else []
        self.num_samples = sum(len(line["samples"]) for line in kept)
        files = {line["shard"]["file"] for line in kept}
        for path in folder.iterdir():
            if path.name not in files:
                path.unlink()
        # The file comes with the first whole shard: without one there is nothing worth continuing.
        self._head = head
        for line in kept:
            self._append(json.dumps(line))

    def add(self, shard: dict, samples: Sequence[dict], files: dict[str, dict]) -> None:
        """Enter a shard that is whole: its entry, those of its samples, and the fingerprints of their raw files."""
        self._append(json.dumps({"shard": shard, "samples": list(samples), "files": files}))

    def lines(self) -> Iterator[dict]:
        """The entries that `add` made, one in memory at a time."""
        if not self._path.is_file():
            return
        with open(self._path, encoding="utf-8") as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def remove(self) -> None:
        """Delete the file: the folder is finished."""
        self._path.unlink()

    def _append(self, line: str) -> None:
        text = line if self._path.is_file() else f"{self._head}\n{line}"
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _whole(self, head: str, unchanged: Callable[[str, dict], bool]) -> Iterator[dict]:
        text = self._path.read_text(encoding="utf-8", errors="replace")
        first, *rest = text.splitlines()[: text.count("\n")]  # a line without its end was being written
        if first != head:
            return
        for text in rest:
            try:
                line = json.loads(text)
                shard, digest_, files = self._folder / line["shard"]["file"], line["shard"]["sha256"], line["files"]
                len(line["samples"])
            except (ValueError, KeyError, TypeError):  # what a power failure leaves
                return
            if not shard.is_file() or sha256(shard) != digest_:
                return
            if not all(unchanged(name, before) for name, before in files.items()):
                return
            yield line


def digest(values: Iterable) -> str:
    """Hash of a list that may be long, for a plan."""
    total = hashlib.sha256()
    for value in values:
        total.update(json.dumps(value).encode() + b"\n")
    return total.hexdigest()
