"""Writing shards: samples to files of bounded size, each whole shard entered into the journal.

The file formats are `pipelines.shards.npz` and `.tfrecord`; reading is `pipelines.dataset`'s.
"""

import collections
from pathlib import Path
from typing import Any

from pipelines.files import sha256
from pipelines.shards import FORMATS
from pipelines.shards.journal import Journal
from pipelines.shards.record import Loaded, entry_of, record_of

SHARD_BYTES = 64 * 2**20


class ShardWriter:
    """Writes samples to shards of about SHARD_BYTES, one split a shard. A context manager.

    Args:
        folder: Where the files go.
        format: Name in `FORMATS`.
        journal: Gets every shard as it is finished; the shards that it holds already are not touched.
    """

    def __init__(self, folder: Path, format: str, journal: Journal):
        self._folder, self._format, self._journal = folder, FORMATS[format], journal
        self._writer: Any = None
        self._bytes = 0
        self._shard: dict = {}
        self._samples: list[dict] = []
        self._files: dict[str, dict] = {}
        self._numbers: collections.Counter[str] = collections.Counter()
        for line in journal.lines():
            self._numbers[line["shard"]["split"]] += 1

    def write(self, loaded: Loaded, split: str) -> None:
        """Append a sample. The samples of a split come together."""
        if self._writer is None or self._shard["split"] != split or self._bytes >= SHARD_BYTES:
            self._finish()
            self._begin(split)
        record = record_of(loaded)
        arrays = self._writer.write(record)
        self._bytes += sum(array.nbytes for array in record.values())
        number = sum(self._numbers.values()) - 1
        self._samples.append(entry_of(loaded, split=split, shard=number, arrays=arrays))
        self._files |= loaded.files

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._finish()
        elif self._writer is not None:
            self._writer.__exit__(None, None, None)

    def _begin(self, split: str) -> None:
        file = f"{split}-{self._numbers[split]:05d}{self._format.SUFFIX}"
        self._numbers[split] += 1
        self._writer, self._bytes = self._format.Writer(self._folder / file), 0
        self._shard, self._samples, self._files = {"file": file, "split": split}, [], {}

    def _finish(self) -> None:
        if self._writer is None:
            return
        self._writer.__exit__(None, None, None)
        self._writer = None
        file = self._shard["file"]
        shard = {"file": file, "sha256": sha256(self._folder / file), "samples": len(self._samples)}
        self._journal.add({**shard, "split": self._shard["split"]}, self._samples, self._files)
