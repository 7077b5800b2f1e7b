"""Manifest: what a folder of shards holds, from which configuration, with checksums and statistics.

The shard files themselves are written and read in `pipelines.shards.npz` and `pipelines.shards.tfrecord`.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import InputError
from pipelines.files import sha256, whole_file
from pipelines.shards import FORMATS
from pipelines.shards.journal import Journal

VERSION = 2
NAME = "manifest.json"
SPLITS = ("train", "validation", "test")


@dataclass
class Manifest:
    """Contents of `manifest.json`.

    Args:
        config: The data and split sections that the shards were made from.
        format: Name in `FORMATS`.
        shards: One dict a file: file, sha256, samples (their number), split.
        samples: One dict a sample, see `pipelines.shards.record.entry_of`.
        statistics: `Statistics.result()` by split.
        advice: Sentences of `pipelines.advice.advise`.
        classes: Names of the classes, class 1 first; [] without classes.
        files: The raw files that were read, see `pipelines.provenance.fingerprint`.
        starter: SHA-256 of the starter experiment as written; another one on disk has been edited.
    """

    config: dict
    format: str
    shards: list[dict] = field(default_factory=list)
    samples: list[dict] = field(default_factory=list)
    statistics: dict = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    files: dict[str, dict] = field(default_factory=dict)
    starter: str = ""

    @property
    def splits(self) -> dict[str, list[str]]:
        """Names of the samples of each split, in order."""
        return {split: [s["name"] for s in self.samples if s["split"] == split] for split in SPLITS}

    def of_split(self, split: str) -> list[dict]:
        """The sample entries of a split."""
        if split not in SPLITS:
            raise InputError(f"There is no split '{split}'. Known: {', '.join(SPLITS)}.")
        return [sample for sample in self.samples if sample["split"] == split]

    @property
    def channels(self) -> int:
        """Number of channels of every image."""
        return self.samples[0]["shape"][2]

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read `manifest.json`; the shards are not opened (`verify` does that).

        Raises:
            InputError: no manifest there, not JSON, another version, or a shard name that leaves the folder.
        """
        path = Path(folder) / NAME
        if not path.is_file():
            raise InputError(f"{folder} holds no {NAME}: it is not a folder of shards. Run cellseg-prepare first.")
        try:
            content = json.loads(path.read_text())
            version = content["version"]
            if version != VERSION:
                raise InputError(
                    f"{path} is of version {version}; this cellseg reads version {VERSION}. Prepare the data again "
                    "with --overwrite."
                )
            manifest = cls(**{name: content[name] for name in cls.__dataclass_fields__})
            known = content["config_hash"] == config_hash(manifest.config) and manifest.format in FORMATS
            files = [shard["file"] for shard in manifest.shards]
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is damaged ({error}). Prepare the data again with --overwrite.") from error
        if not known or not manifest.samples:
            raise InputError(f"{path} is damaged (its content was changed). Prepare the data again with --overwrite.")
        for name in files:
            if Path(name).name != name:
                raise InputError(f"{path} names the shard '{name}', which lies outside its folder.")
        return manifest

    def check_config(self, config: dict, folder: Path) -> None:
        """Raise InputError if the shards were made from another configuration; the message names the keys."""
        if config_hash(config) == config_hash(self.config):
            return
        before, now = _flat(self.config), _flat(config)
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        changes = "; ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in keys)
        raise InputError(
            f"The shards in {folder} were made from another configuration ({changes}). Pass --overwrite to prepare "
            "them again, or set data.shards to another folder."
        )

    def verify(self, folder: Path) -> None:
        """Compare every shard with its checksum.

        Raises:
            InputError: a shard that is missing or whose bytes have changed; the message names it.
        """
        for shard in self.shards:
            path = Path(folder) / shard["file"]
            if not path.is_file():
                raise InputError(f"The shard {path} is missing. Prepare the data again with --overwrite.")
            if sha256(path) != shard["sha256"]:
                raise InputError(
                    f"The shard {path} is damaged: its checksum is not the one in {NAME}. Nothing was trained. "
                    "Prepare the data again with --overwrite."
                )


def write(
    folder: Path,
    journal: Journal,
    *,
    config: dict,
    format: str,
    statistics: dict,
    advice: Sequence[str],
    classes: Sequence[str],
    starter: str,
    others: Iterable[tuple[str, dict]] = (),
) -> None:
    """Write `manifest.json` whole, from a journal: in memory are the names alone, however many samples there are.

    Args:
        folder: Where the shards and the journal are.
        journal: Of all shards.
        config, format, statistics, advice, classes, starter: As in `Manifest`.
        others: Fingerprints of raw files that are in no shard.
    """
    head: dict[str, Any] = {
        "version": VERSION,
        "config_hash": config_hash(config),
        "format": format,
        "statistics": statistics,
        "advice": list(advice),
        "classes": list(classes),
        "config": config,
        "starter": starter,
        "splits": {split: [] for split in SPLITS},
        "shards": [],
    }
    for line in journal.lines():
        head["shards"].append(line["shard"])
        head["splits"][line["shard"]["split"]] += [sample["name"] for sample in line["samples"]]
    samples = (sample for line in journal.lines() for sample in line["samples"])
    files = itertools.chain((pair for line in journal.lines() for pair in line["files"].items()), others)
    with whole_file(folder / NAME) as path, open(path, "w", encoding="utf-8") as out:
        out.write(json.dumps(head, indent=1)[:-2])  # without its last brace
        out.write(',\n "samples": [')
        for number, sample in enumerate(samples):
            out.write(("," if number else "") + "\n  " + json.dumps(sample))
        out.write('\n ],\n "files": {')
        seen: set[str] = set()
        for name, fingerprint in files:
            if name not in seen:
                out.write(("," if seen else "") + f"\n  {json.dumps(name)}: {json.dumps(fingerprint)}")
                seen.add(name)
        out.write("\n }\n}\n")


def config_hash(config: dict) -> str:
    """Short hash of a configuration, independent of the order of its keys."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pixels_hash(image: np.ndarray) -> str:
    """Content hash of an image's pixels, whatever file format they came in."""
    head = f"{image.shape} {image.dtype.name} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).hexdigest()


def _flat(config: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
