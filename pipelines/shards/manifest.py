"""Manifest: what a folder of shards holds, from which configuration, with checksums and statistics.

The shard files themselves are written and read in `pipelines.shards.npz` and `pipelines.shards.tfrecord`.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import InputError
from pipelines.files import sha256, whole_file
from pipelines.shards import FORMATS
from pipelines.shards.arrays import PER_PIXEL
from pipelines.shards.journal import Journal

VERSION = 2
NAME = "manifest.json"
SPLITS = ("train", "validation", "test")
# Of arrays in shards; none of them stands for an object of Python.
DTYPES = ("bool", "uint8", "uint16", "uint32", "uint64", "int32", "float32")


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
            InputError: no manifest there, not JSON, another version, an entry that cannot be, or a shard name that
                leaves the folder.
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
            _check_types(manifest)
            files = [shard["file"] for shard in manifest.shards]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is damaged ({error}). Prepare the data again with --overwrite.") from error
        if not known or not manifest.samples:
            raise InputError(f"{path} is damaged (its content was changed). Prepare the data again with --overwrite.")
        for name in files:
            if Path(name).name != name or name in ("", ".."):
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


def _check_types(manifest: Manifest) -> None:
    """Raise ValueError or TypeError unless everything that reading goes by is of its kind, whoever wrote the file."""
    kinds = {"config": dict, "shards": list, "samples": list, "statistics": dict, "advice": list, "classes": list}
    for name, kind in {**kinds, "files": dict, "starter": str}.items():
        if not isinstance(getattr(manifest, name), kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    for shard in manifest.shards:
        if not all(isinstance(shard[key], str) for key in ("file", "sha256")) or shard["split"] not in SPLITS:
            raise ValueError(f"a shard is {shard!r:.60}")
    for sample in manifest.samples:
        _check_sample(sample, len(manifest.shards))


def _check_sample(sample: dict, num_shards: int) -> None:
    shape, contrast = sample["shape"], sample["contrast"]
    right = (
        isinstance(sample["name"], str)
        and isinstance(sample["source"], str)
        and (sample["frame"] is None or _is_count(sample["frame"]))
        and sample["split"] in SPLITS
        and _is_count(sample["shard"])
        and sample["shard"] < num_shards
        and _is_shape(shape)
        and len(shape) == 3
        and 0 not in shape
        and len(contrast) == 2
        and all(isinstance(limit, int | float) and math.isfinite(limit) for limit in contrast)
        and {"image", "labels", "contrast", "centres"} <= sample["arrays"].keys()
    )
    for name, (offset, dtype, sides) in sample["arrays"].items() if right else ():
        right = right and _is_count(offset) and dtype in DTYPES and _is_shape(sides)
        right = right and (name not in PER_PIXEL or sides == shape[: 3 if name == "image" else 2])
    if not right:
        raise ValueError(f"the entry of the sample {sample['name']!r:.60} cannot be")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(_is_count(side) and side < 2**31 for side in value)


def _flat(config: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
