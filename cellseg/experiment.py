"""Experiment: the schema of `experiments/*.yaml`, read, overridden and checked before anything runs.

What the named parts do lives in their rooms; `cellseg.named` looks a name up in its room's table when that part is
checked, so that preparing data never imports Keras.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from cellseg.named import Named
from pipelines.errors import InputError, nearest
from pipelines.files import sha256
from pipelines.sample import Item
from pipelines.sources import SOURCES
from pipelines.sources.several import find_all

DATA_ROOT = "CELLSEG_DATA"
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]


# The pancreatic U-Net: trains on a laptop, and takes patches of any multiple of 16.
DEFAULT_MODEL: Named = {
    "name": "unet",
    "filters": 16,
    "padding": "same",
    "up": "bilinear",
    "batch_norm": True,
    "dropout": 0.1,
    "dropout_at": "every",
}

DEFAULT_LOSS: Named = {"name": "tversky_bce"}
DEFAULT_INSTANCES: Named = {"name": "components"}


class Section(pydantic.BaseModel):
    """A part of the file; keys that it does not know are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Where the images are and what they are."""

    source: str | Annotated[list[str], pydantic.Field(min_length=1)]
    layout: Literal["pairs", "ctc", "dsb2018", "isbi", "epfl", "glas", "consep"]
    images: str | None = None
    labels: str | None = None
    series: bool = False
    truth: Literal["gold", "silver", "markers"] = "gold"
    sequence: str | None = None
    kind: Literal["all", "fluorescence", "stained"] = "all"
    channels: Literal["grey", "rgb"] | list[int] | None = None
    spacing_um: tuple[pydantic.PositiveFloat, pydantic.PositiveFloat] | None = None
    interval_s: pydantic.PositiveFloat | None = None
    contrast: tuple[float, float] = (2.0, 98.0)
    expand: pydantic.PositiveInt | None = None
    shards: str | None = None
    format: Literal["tfrecord", "npz"] = "tfrecord"

    @pydantic.field_validator("contrast")
    @classmethod
    def _check_contrast(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            raise ValueError(f"must be two percentiles with 0 <= low < high <= 100, got {value}")
        return value

    @pydantic.field_validator("sequence", mode="before")
    @classmethod
    def _sequence_as_text(cls, value: object) -> object:
        return f"{value:02d}" if isinstance(value, int) else value  # YAML reads 01 as the number 1

    def options(self) -> dict[str, Any]:
        """The keywords of this layout's reader in `pipelines.sources`."""
        choices: dict[str, dict[str, Any]] = {
            "pairs": {
                "images": self.images and Path(self.images),
                "labels": self.labels and Path(self.labels),
                "series": self.series,
            },
            "ctc": {"truth": self.truth, "sequence": self.sequence},
            "dsb2018": {"kind": self.kind},
        }
        return choices.get(self.layout, {})

    def sources(self) -> list[str]:
        """The folders of the raw data as written, one or several."""
        return [self.source] if isinstance(self.source, str) else list(self.source)


class Split(Section):
    """Which images train, which steer training and thresholds, and which only measure the result."""

    # None: as published where the data set says so, block where there are frames, else image
    by: Literal["image", "sequence", "block", "published", "csv"] | None = None
    train: float | str | list[str | int] = 0.7
    validation: float | str | list[str | int] = 0.15
    test: float | str | list[str | int] = 0.15
    gap: pydantic.NonNegativeInt = 0
    fold: str | None = None  # "2/5": part 2 of 5
    stratify: bool = True
    file: str | None = None  # by csv: columns name and split
    seed: Seed | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _numbers_as_names(cls, values: Any) -> Any:
        """Sequence 01 and frame 12 are names, not fractions; YAML reads both as numbers."""
        if not isinstance(values, dict) or values.get("by") not in ("sequence", "block"):
            return values
        parts = {name: values[name] for name in ("train", "validation", "test") if type(values.get(name)) is int}
        return values | {name: f"{number:02d}" for name, number in parts.items()}


class Train(Section):
    """How training runs."""

    batch_size: pydantic.PositiveInt = 4
    patch: pydantic.PositiveInt = 256
    oversample: float = pydantic.Field(default=0.0, ge=0, le=1)
    epochs: pydantic.PositiveInt = 50
    steps_per_epoch: pydantic.PositiveInt | None = None
    learning_rate: pydantic.PositiveFloat = 1e-3
    early_stopping: pydantic.PositiveInt = 15
    plateau: pydantic.PositiveInt = 5
    plateau_factor: float = pydantic.Field(default=0.3, gt=0, lt=1)
    max_hours: pydantic.PositiveFloat | None = None
    jit_compile: bool = False


class Inference(Section):
    """How an image of any size is predicted."""

    tile: pydantic.PositiveInt | None = None
    overlap: pydantic.NonNegativeInt | None = None


class Experiment(Section):
    """One experiment file. `folder` is where it lies; paths are looked for below CELLSEG_DATA first, then there."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Seed = 0
    data: Data
    split: Split = Split()
    target: str | Named = "foreground"
    augment: list[Named] = []
    weight_map: Named | None = None
    model: Named = DEFAULT_MODEL
    loss: Named = DEFAULT_LOSS
    train: Train = Train()
    inference: Inference = Inference()
    instances: Named = DEFAULT_INSTANCES
    folder: Path = pydantic.Field(Path(), exclude=True)

    def sources(self) -> list[Path]:
        """The folders of the raw data: as given if absolute, else below $CELLSEG_DATA, else beside the YAML file.

        Raises:
            FileNotFoundError: one is in none of these places; the message lists them.
        """
        found = []
        for source in self.data.sources():
            tried = places(source, self.folder)
            there = next((place for place in tried if place.exists()), None)
            if there is None:
                raise FileNotFoundError(
                    f"data.source: '{source}' was not found. Looked for {' and '.join(map(str, tried))}. "
                    f"Set {DATA_ROOT} to the folder that holds it, or give an absolute path."
                )
            found.append(there)
        return found

    def items(self) -> list[Item]:
        """What the layout's reader finds in the sources."""
        return find_all(SOURCES[self.data.layout], self.sources(), self.data.options())

    def split_table(self) -> Path | None:
        """The CSV of `split.file`, which lies where the data does or beside the YAML file; None without one."""
        if self.split.file is None:
            return None
        tried = places(self.split.file, self.folder)
        return next((place for place in tried if place.exists()), tried[-1])

    def augmentation(self) -> list[Named]:
        """Steps that training applies to its batches: none where the shards hold augmented copies already."""
        return [] if self.data.expand is not None else self.augment

    def shards(self) -> Path:
        """The folder of the shards: `data.shards` (relative to the YAML file), or `shards/NAME`."""
        if self.data.shards is None:
            return Path("shards") / self.name
        path = Path(self.data.shards)
        return path if path.is_absolute() else self.folder / path

    def placed(self, shards: Path) -> "Experiment":
        """The same experiment with paths that hold from any folder, for the run folder's copy."""
        given = self.data.sources()
        moved = [self._beside(source) for source in given]
        changes = {"shards": str(shards.resolve()), "source": moved if len(given) > 1 else moved[0]}
        split = self.split
        if split.file is not None:
            split = split.model_copy(update={"file": self._beside(split.file)})
        return self.model_copy(update={"data": self.data.model_copy(update=changes), "split": split})

    def _beside(self, path: str) -> str:
        """Absolute if it is found beside the YAML file alone, else as it is."""
        beside = self.folder / path
        return str(beside.resolve()) if not places(path, self.folder)[0].exists() and beside.exists() else path

    def data_config(self) -> dict:
        """What the shards depend on, for their hash."""
        data = self.data.model_dump(mode="json", exclude={"shards"})
        # The same data may lie elsewhere on another machine; `pipelines.provenance` compares the files themselves.
        names = [self._name_of(source) for source in self.data.sources()]
        data["source"] = names if len(names) > 1 else names[0]
        split = self.split.model_dump(mode="json")
        table = self.split_table()
        if table is not None:
            split["file"] = f"{table.name}, {sha256(table)[:16] if table.is_file() else 'not there'}"
        split["seed"] = self.seed if self.split.seed is None else self.split.seed
        if self.split.by == "block":
            split["seed"] = 0  # nothing is drawn
        if self.data.expand is None:
            return {"data": data, "split": split}
        return {"data": data, "split": split, "expansion": {"augment": self.augment, "seed": self.seed}}

    def _name_of(self, source: str) -> str:
        there = next((place for place in places(source, self.folder) if place.exists()), Path(source))
        return there.resolve().name if there.exists() else there.name

    def to_yaml(self) -> str:
        """The whole experiment, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def places(source: str, folder: Path) -> list[Path]:
    """Where a data path is looked for, in this order."""
    path = Path(source).expanduser()
    if path.is_absolute():
        return [path]
    return [Path(os.environ.get(DATA_ROOT, "data")) / path, folder / path]


def read(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check an experiment file.

    Args:
        path: The YAML file.
        overrides: `key=value` with dots between the levels, for example `train.epochs=1`; the value is YAML.

    Raises:
        FileNotFoundError: no such file.
        InputError: not YAML, an unknown key (the message names the nearest known one), or a value that does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no experiment file {path}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no experiment: expected keys such as name, data and train.")
    apply_overrides(content, overrides)
    return check({**content, "folder": path.resolve().parent}, where=str(path))


def apply_overrides(content: dict, overrides: Sequence[str]) -> None:
    """Set `key=value` pairs, with dots between the levels, in the content of an experiment. Raises InputError."""
    for override in overrides:
        _override(content, override)


def check(content: Mapping[str, Any], *, where: str = "experiment") -> Experiment:
    """Check the content of an experiment; `where` names it in messages. Raises InputError."""
    try:
        return Experiment(**content)
    except pydantic.ValidationError as error:
        raise InputError("\n".join(_explain(problem, where) for problem in error.errors())) from error


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number, as in YAML 1.2 and Python, and a repeated key is an error."""

    def construct_mapping(self, node, deep=False):
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no name of a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _override(content: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"'{override}' is no override. Write key=value, for example train.epochs=1.")
    *parents, last = key.split(".")
    defaults = {"model": DEFAULT_MODEL, "loss": DEFAULT_LOSS, "instances": DEFAULT_INSTANCES}
    for parent in parents:
        content = content.setdefault(parent, dict(defaults.get(parent, {})))
        if not isinstance(content, dict):
            raise InputError(f"'{override}': {parent} is a value, not a section.")
    try:
        content[last] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"'{override}': the value is not valid YAML: {error}") from error


def _explain(problem: Mapping[str, Any], where: str) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section: Any = Experiment
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        known = [name for name in section.model_fields if name != "folder"]
        return f"{where}: unknown key '{key}'.{nearest(location[-1], known)} Known here: {', '.join(known)}."
    if problem["type"] == "missing":
        return f"{where}: the key '{key}' is missing."
    text = problem["msg"].removeprefix("Value error, ")
    close = ""
    if problem["type"] == "literal_error":
        close = nearest(str(problem["input"]), re.findall(r"'([^']+)'", problem["msg"]))
    return f"{where}: {key}: {text}, got {problem['input']!r}.{close}"
