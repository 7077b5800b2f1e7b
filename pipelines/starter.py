"""Starter: the commented experiment.yaml that cellseg-prepare leaves beside the shards, and its fate when it is edited.

Its text is `templates/experiment.yaml.j2`; what a key means is checked in `cellseg.experiment`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from pipelines.advice import MANY_TOUCH, suggest_depths, suggest_patch
from pipelines.errors import InputError
from pipelines.files import sha256
from pipelines.shards.manifest import NAME as MANIFEST
from pipelines.shards.manifest import Manifest

NAME = "experiment.yaml"
NEW = "experiment.new.yaml"  # where the user has edited the first


@dataclass(frozen=True)
class Facts:
    """What the starter says of the data: see `Manifest`; sides are the shortest and the longest of any image."""

    config: dict
    statistics: dict
    advice: Sequence[str]
    channels: int
    smallest: int
    largest: int


def text(facts: Facts, *, source: str | Sequence[str], table: str | None, name: str, seed: int) -> str:
    """Text of a commented experiment with values from the data, which cellseg-train runs untouched.

    Args:
        facts: Of the data set.
        source: Absolute path of the raw data, or several.
        table: Absolute path of the CSV that splits it, if one does.
        name: Of the experiment.
        seed: Of the experiment.
    """
    train = facts.statistics["train"]
    diameter = train["object_diameter"]["0.5"] if train["object_diameter"] else None
    touching = (train["touching_fraction"] or 0) >= MANY_TOUCH
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    # Flow style and JSON agree for what a configuration holds, and JSON quotes what YAML would misread.
    environment.filters["yaml"] = json.dumps
    return environment.get_template("experiment.yaml.j2").render(
        name=name,
        seed=seed,
        source=source,
        config={**facts.config, "split": {**facts.config["split"], "file": table}},
        statistics=facts.statistics,
        advice=facts.advice,
        channels=facts.channels,
        smallest=facts.smallest,
        largest=facts.largest,
        diameter=diameter,
        patch=suggest_patch(diameter, facts.smallest),
        depths=suggest_depths(diameter) if touching and diameter else None,
    )


def write(folder: Path, old: Path, content: str) -> str:
    """Write the starter; an experiment that the user has edited in the folder that is replaced stays, beside it.

    Args:
        folder: The new folder.
        old: The folder that it replaces, if there is one.
        content: From `text`.

    Returns:
        SHA-256 of what was written, for the manifest.
    """
    name, edited = NAME, old / NAME
    if edited.is_file() and (old / MANIFEST).is_file() and sha256(edited) != _hash_of(old):
        (folder / NAME).write_bytes(edited.read_bytes())
        name = NEW
    (folder / name).write_text(content, encoding="utf-8")
    return sha256(folder / name)


def _hash_of(old: Path) -> str:
    try:
        return Manifest.read(old).starter
    except InputError:  # a damaged manifest: nobody knows, so the file is kept
        return ""
