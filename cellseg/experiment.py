"""Experiment: `experiments/*.yaml` read, overridden and checked before anything runs.

Its sections live in `cellseg.sections`. What the named parts do lives in their rooms; `cellseg.named` looks a name up
in its room's table when that part is checked, so that preparing data never imports Keras.
"""

import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from cellseg import yaml_text
from cellseg.boxed import find_experiment, find_run
from cellseg.named import Named
from cellseg.sections import Data, Distribution, Evaluation, Inference, Search, Section, Seed, Split, Train, Tuning
from pipelines.errors import InputError, nearest
from pipelines.files import sha256
from pipelines.sample import Item
from pipelines.sources import SOURCES
from pipelines.sources.several import find_all

DATA_ROOT = "CELLSEG_DATA"


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
# By target, where `tversky_bce`, which is for one channel of yes and no, does not fit.
DEFAULT_LOSSES: dict[str, Named] = {
    "foreground_border": {"name": "sum", "terms": [{"name": "categorical_ce"}, {"name": "dice"}]},
    "distance": {"name": "bce"},
    "foreground_distance": {
        "name": "sum",
        "terms": [{"name": "bce", "channel": 0}, {"name": "dice", "channel": 0}, {"name": "bce", "channel": 1}],
    },
}
DEFAULT_INSTANCES: Named = {"name": "components"}
# Networks that find cells one by one have a loss of their own, and their answers are no map of probabilities.
DETECTORS = ("mask_rcnn",)
DETECTOR_INSTANCES: Named = {"name": "detections"}
DETECTOR_MEASURE = "average_precision"


class Experiment(Section):
    """One experiment file. `folder` is where it lies; data paths are looked for as `places` says."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Seed = 0
    data: Data
    split: Split = Split()
    target: str | Named = "foreground"
    augment: list[Named] = pydantic.Field(default_factory=list)
    weight_map: Named | None = None
    model: Named = DEFAULT_MODEL
    loss: Named = DEFAULT_LOSS
    train: Train = Train()
    distribution: Distribution | None = None
    inference: Inference = Inference()
    instances: Named = DEFAULT_INSTANCES
    tuning: Tuning = Tuning()
    evaluation: Evaluation = Evaluation()
    search: Search | None = None
    folder: Path = pydantic.Field(Path(), exclude=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _defaults_of_others(cls, values: Any) -> Any:
        """Defaults that depend on the model or the target."""
        if not isinstance(values, dict):
            return values
        values = {"loss": _default_loss(values), "instances": _default_instances(values)} | values
        if _detects(values) and isinstance(values.get("tuning", {}), dict):
            values = values | {"tuning": {"measure": DETECTOR_MEASURE} | values.get("tuning", {})}
        return values

    @property
    def detects(self) -> bool:
        """Whether the network finds cells one by one, and does not answer pixel by pixel."""
        return self.model.get("name") in DETECTORS

    def sources(self) -> list[Path]:
        """The folders of the raw data: see `places`.

        Raises:
            FileNotFoundError: one is in none of these places; the message lists them.
        """
        found = []
        for source in self.data.sources():
            tried = places(source, self.folder)
            there = next((place for place in tried if place.exists()), None)
            if there is None:
                raise FileNotFoundError(
                    f"data.source: '{source}' was not found. Looked for {', '.join(map(str, tried))}. "
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
        return next((place for place in tried if place.exists()), tried[:2][-1])

    def start_from(self) -> Path | None:
        """The run of `train.start_from`: from here, else beside the YAML file, else in the box; None without one."""
        if self.train.start_from is None:
            return None
        given = Path(self.train.start_from).expanduser()
        beside = self.folder / given
        return find_run(beside if not given.exists() and beside.exists() else given)

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
        train, start = self.train, self.start_from()
        if start is not None:
            train = train.model_copy(update={"start_from": str(start.resolve())})
        return self.model_copy(update={"data": self.data.model_copy(update=changes), "split": split, "train": train})

    def _beside(self, path: str) -> str:
        """Absolute if it is found by the YAML file alone, else as it is."""
        below, *beside = places(path, self.folder)
        there = None if below.exists() else next((place for place in beside if place.exists()), None)
        return path if there is None else str(there.resolve())

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
    """Where a data path is looked for: below $CELLSEG_DATA, beside the YAML file, in the folder `data` there."""
    path = Path(source).expanduser()
    if path.is_absolute():
        return [path]
    return [Path(os.environ.get(DATA_ROOT, "data")) / path, folder / path, folder / "data" / path]


def read(path: Path | str, overrides: Sequence[str] = (), *, space: Path | None = None) -> Experiment:
    """Read and check an experiment file.

    Args:
        path: The YAML file, or the name of one that comes with cellseg; see `cellseg.boxed.find_experiment`.
        overrides: `key=value` with dots between the levels, for example `train.epochs=1`; the value is YAML.
        space: Another file that holds the search section, alone or as its key `search`.

    Raises:
        FileNotFoundError: no such file.
        InputError: not YAML, an unknown key (the message names the nearest known one), or a value that does not fit.
    """
    path = find_experiment(path)
    content = _load(path, "no experiment: expected keys such as name, data and train.")
    if space is not None:
        section = _load(space, "no search section: expected space, and broad, narrow, measure or prune.")
        content["search"] = section.get("search", section)
    apply_overrides(content, overrides)
    return check({**content, "folder": path.resolve().parent}, where=str(path if space is None else space))


def _load(path: Path, otherwise: str) -> dict:
    """The keys of a YAML file, unchecked; `otherwise` says what a file without keys holds. Raises as `read`."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no experiment file {path}.")
    try:
        content = yaml_text.load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {otherwise}")
    return content


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


def _override(content: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"'{override}' is no override. Write key=value, for example train.epochs=1.")
    try:
        value = yaml_text.load(text)
    except yaml.YAMLError as error:
        raise InputError(f"'{override}': the value is not valid YAML: {error}") from error
    set_key(content, key, value, where=f"'{override}'")


def set_key(content: dict, key: str, value: Any, *, where: str) -> None:
    """Set one key in the content of an experiment.

    Args:
        content: Is changed.
        key: With dots between the levels; an entry of a list is named by its number from 0 (`augment.0.p`).
        value: What YAML would have read.
        where: Begins the message.

    Raises:
        InputError: the way to the key leads through a value, or to an entry that the list has not.
    """
    defaults = {"model": DEFAULT_MODEL, "loss": _default_loss(content), "instances": _default_instances(content)}
    *parents, last = key.split(".")
    inside: Any = content
    for parent in parents:
        if isinstance(inside, dict):
            inside = inside.setdefault(parent, dict(defaults.get(parent, {})))
        else:
            inside = inside[_entry(inside, parent, where)]
        if not isinstance(inside, dict | list):
            raise InputError(f"{where}: {parent} is a value, not a section.")
    inside[last if isinstance(inside, dict) else _entry(inside, last, where)] = value


def _entry(entries: list, text: str, where: str) -> int:
    if not text.isdigit() or int(text) >= len(entries):
        raise InputError(
            f"{where}: a list stands before '{text}', so the number of one of its {len(entries)} entries was expected, "
            "from 0 on."
        )
    return int(text)


def _detects(content: Mapping[str, Any]) -> bool:
    model = content.get("model")
    return isinstance(model, dict) and model.get("name") in DETECTORS


def _default_instances(content: Mapping[str, Any]) -> Named:
    return DETECTOR_INSTANCES if _detects(content) else DEFAULT_INSTANCES


def _default_loss(content: Mapping[str, Any]) -> Named:
    if _detects(content):
        return {"name": content["model"]["name"]}
    target = content.get("target")
    name = target.get("name") if isinstance(target, dict) else target
    return DEFAULT_LOSSES.get(name, DEFAULT_LOSS) if isinstance(name, str) else DEFAULT_LOSS


def _explain(problem: Mapping[str, Any], where: str) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = [name for name in _section(problem["loc"][:-1]).model_fields if name != "folder"]
        return f"{where}: unknown key '{key}'.{nearest(location[-1], known)} Known here: {', '.join(known)}."
    if problem["type"] == "missing":
        return f"{where}: the key '{key}' is missing."
    text = problem["msg"].removeprefix("Value error, ")
    close = ""
    if problem["type"] == "literal_error":
        close = nearest(str(problem["input"]), re.findall(r"'([^']+)'", problem["msg"]))
    given = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
    return f"{where}: {key}: {text}{given}.{close}"


def _section(location: Sequence[str | int]) -> Any:
    """The section that a key lies in; a number stands for an entry of a list of sections."""
    section: Any = Experiment
    for part in location:
        section = typing.get_args(section)[0] if isinstance(part, int) else section.model_fields[part].annotation
        if types.NoneType in typing.get_args(section):  # a section that may be left out
            section = typing.get_args(section)[0]
    return section
