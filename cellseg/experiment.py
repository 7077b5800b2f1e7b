"""Experiment: the schema of `experiments/*.yaml`, read, overridden and checked before anything runs.

What the named parts do lives in their rooms; a name is looked up in its room's table when that part is checked, so
that preparing data never imports Keras.
"""

import inspect
import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from pipelines.errors import InputError, nearest

DATA_ROOT = "CELLSEG_DATA"
Named = dict[str, Any]
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

    source: str
    layout: Literal["pairs", "ctc", "dsb2018"]
    images: str | None = None
    labels: str | None = None
    truth: Literal["gold", "silver", "markers"] = "gold"
    sequence: str | None = None
    kind: Literal["all", "fluorescence", "stained"] = "all"
    channels: Literal["grey", "rgb"] | list[int] | None = None
    spacing_um: tuple[pydantic.PositiveFloat, pydantic.PositiveFloat] | None = None
    interval_s: pydantic.PositiveFloat | None = None
    contrast: tuple[float, float] = (2.0, 98.0)
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
            "pairs": {"images": self.images and Path(self.images), "labels": self.labels and Path(self.labels)},
            "ctc": {"truth": self.truth, "sequence": self.sequence},
            "dsb2018": {"kind": self.kind},
        }
        return choices[self.layout]


class Split(Section):
    """Which images train, which steer training and thresholds, and which only measure the result."""

    by: Literal["image", "sequence", "block"] | None = None  # None: block where there are frames, else image
    train: float | str | list[str | int] = 0.7
    validation: float | str | list[str | int] = 0.15
    test: float | str | list[str | int] = 0.15
    gap: pydantic.NonNegativeInt = 0
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
    target: str = "foreground"
    augment: list[Named] = []
    weight_map: Named | None = None
    model: Named = DEFAULT_MODEL
    loss: Named = DEFAULT_LOSS
    train: Train = Train()
    inference: Inference = Inference()
    instances: Named = DEFAULT_INSTANCES
    folder: Path = pydantic.Field(Path(), exclude=True)

    def source(self) -> Path:
        """The folder of the raw data: as given if absolute, else below $CELLSEG_DATA, else beside the YAML file.

        Raises:
            FileNotFoundError: in none of these places; the message lists them.
        """
        tried = places(self.data.source, self.folder)
        for place in tried:
            if place.exists():
                return place
        raise FileNotFoundError(
            f"data.source: '{self.data.source}' was not found. Looked for {' and '.join(map(str, tried))}. "
            f"Set {DATA_ROOT} to the folder that holds it, or give an absolute path."
        )

    def shards(self) -> Path:
        """The folder of the shards: `data.shards` (relative to the YAML file), or `shards/NAME`."""
        if self.data.shards is None:
            return Path("shards") / self.name
        path = Path(self.data.shards)
        return path if path.is_absolute() else self.folder / path

    def placed(self, shards: Path) -> "Experiment":
        """The same experiment with paths that hold from any folder, for the run folder's copy."""
        changes = {"shards": str(shards.resolve())}
        beside = self.folder / self.data.source
        if not places(self.data.source, self.folder)[0].exists() and beside.exists():
            changes["source"] = str(beside.resolve())
        return self.model_copy(update={"data": self.data.model_copy(update=changes)})

    def data_config(self) -> dict:
        """What the shards depend on, for their hash."""
        data = self.data.model_dump(mode="json", exclude={"shards"})
        there = [place for place in places(self.data.source, self.folder) if place.exists()]
        # The same data may lie elsewhere on another machine; `pipelines.provenance` compares the files themselves.
        data["source"] = there[0].resolve().name if there else Path(self.data.source).name
        split = self.split.model_dump(mode="json")
        split["seed"] = self.seed if self.split.seed is None else self.split.seed
        if self.split.by == "block":
            split["seed"] = 0  # nothing is drawn
        return {"data": data, "split": split}

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


def build(table: Mapping[str, Callable], named: Named, *, key: str, given: Mapping[str, Any] | None = None) -> Any:
    """Call the entry of a room's table that a YAML section names: `{name: dice, squared: true}`.

    Args:
        table: Name to class or function; its keyword-only arguments are the schema.
        named: The section.
        key: The section's YAML key, for messages.
        given: Arguments that the program adds by name; the YAML may not set them.

    Raises:
        InputError: unknown name or key (the message names the nearest known one), or a value of the wrong type.
    """
    given = dict(given or {})
    return table[_name(table, named, key)](**given, **check_options(table, named, key=key, given=tuple(given)))


def check_options(
    table: Mapping[str, Callable], named: Named, *, key: str, given: Sequence[str] = ()
) -> dict[str, Any]:
    """The checked keywords of a section that names an entry of a room's table; see `build`."""
    name = _name(table, named, key)
    function = table[name]
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    allowed = [n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY and n not in given]
    checked: dict[str, Any] = {}
    for option, value in named.items():
        if option == "name":
            continue
        if option not in allowed:
            raise InputError(
                f"{key}.{option}: '{name}' takes no such key.{nearest(option, allowed)} "
                f"It takes: {', '.join(allowed) or 'none'}."
            )
        try:
            checked[option] = pydantic.TypeAdapter(hints.get(option, Any)).validate_python(value)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            close = nearest(str(value), re.findall(r"'([^']+)'", problem["msg"]))
            raise InputError(f"{key}.{option}: {problem['msg']}, got {value!r}.{close}") from error
    return checked


def _name(table: Mapping[str, Callable], named: Named, key: str) -> str:
    name = named.get("name")
    if name not in table:
        raise InputError(f"{key}.name: '{name}' is not known.{nearest(str(name), table)} Known: {', '.join(table)}.")
    return str(name)


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
