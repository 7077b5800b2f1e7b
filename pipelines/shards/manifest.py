"""Manifest: what a folder of shards holds, from which configuration, with checksums and statistics.

The shard files themselves are written and read in `pipelines.shards.npz` and `pipelines.shards.tfrecord`.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.errors import InputError
from pipelines.files import sha256, whole_file
from pipelines.shards import FORMATS

VERSION = 1
NAME = "manifest.json"
SPLITS = ("train", "validation", "test")


@dataclass
class Manifest:
    """Contents of `manifest.json`.

    Args:
        config: The data and split sections that the shards were made from.
        format: Name in `FORMATS`.
        shards: One dict a file: file, sha256, samples (their number), split.
        samples: One dict a sample: name, source, frame, split, shard (index in `shards`), position, shape, dtype,
            contrast (low, high), foreground_fraction, objects, sha256 (of the pixels); spacing_um, interval_s if known.
        statistics: `Statistics.result()` by split.
        advice: Sentences of `pipelines.advice.advise`.
        files: The raw files that were read, see `pipelines.provenance.fingerprints`.
        starter: SHA-256 of the starter experiment as written; another one on disk has been edited.
    """

    config: dict
    format: str
    shards: list[dict] = field(default_factory=list)
    samples: list[dict] = field(default_factory=list)
    statistics: dict = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
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

    def write(self, folder: Path) -> None:
        """Write `manifest.json` whole."""
        content = {
            "version": VERSION,
            "config_hash": config_hash(self.config),
            "format": self.format,
            "splits": self.splits,
            "shards": self.shards,
            "statistics": self.statistics,
            "advice": self.advice,
            "config": self.config,
            "starter": self.starter,
            "samples": self.samples,
            "files": self.files,
        }
        with whole_file(folder / NAME) as path:
            path.write_text(json.dumps(content, indent=1) + "\n")

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
