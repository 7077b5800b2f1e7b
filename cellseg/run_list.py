"""Run list: the runs below a folder, what state they are in, what two of them have different, and removing them.

Runs are ranked against each other, and against published methods, in `cellseg.comparison`.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cellseg import environment, reproduction, runs, yaml_text
from cellseg.score_tables import is_number
from pipelines.errors import InputError

FINISHED, UNFINISHED, DAMAGED, PRUNED = "finished", "unfinished", "damaged", "pruned at epoch {}"
SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Listed:
    """A run as far as its small files tell; nothing is loaded, and a damaged one is listed, too.

    Args:
        folder: The run folder.
        state: FINISHED, UNFINISHED (its training was interrupted or goes on), DAMAGED, or PRUNED with the epoch, of a
            trial that its search has stopped.
        date: When its training began, "2026-11-21 22:10", or "".
        minutes: Of training; None while it is not known.
        epochs: That are in its history.
        scores: Split -> measure -> pooled score.
        experiment: Content of its `experiment.yaml`.
        damage: Names of the files that a DAMAGED run lacks, or that hold something else than a training writes.
    """

    folder: Path
    state: str
    date: str
    minutes: float | None
    epochs: int
    scores: Mapping[str, Mapping[str, float | None]]
    experiment: Mapping[str, Any]
    damage: tuple[str, ...] = ()

    def score(self, measure: str, split: str = "test") -> float | None:
        """A pooled score; None without one."""
        return self.scores.get(split, {}).get(measure)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run, finished or not: folders of shards and of searches have no `environment.txt`."""
    return (folder / runs.ENVIRONMENT).is_file() and (folder / runs.EXPERIMENT).is_file()


def find(folders: Iterable[Path]) -> list[Path]:
    """The run folders among and below some folders, in their order; below a run none is looked for.

    Raises:
        FileNotFoundError: no such folder.
        InputError: no run is there.
    """
    found: list[Path] = []
    asked = list(folders)
    for folder in asked:
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}. Give a folder that holds runs, or run folders.")
        for place, inside, _ in os.walk(folder):
            path = Path(place)
            if is_run(path):
                found.append(path)
                inside.clear()
            inside[:] = sorted(name for name in inside if not name.startswith("."))
    if not found:
        listed = ", ".join(map(str, asked))
        raise InputError(
            f"There are no runs in {listed}: no folder there holds {runs.EXPERIMENT} and {runs.ENVIRONMENT}. Train one "
            "with cellseg-train, or give the folder that --out named."
        )
    return list(dict.fromkeys(found))


def look_at(folder: Path) -> Listed:
    """What there is to say of a run.

    Raises:
        InputError: it is no run folder.
    """
    if not is_run(folder):
        raise InputError(
            f"{folder} is no run folder: {runs.EXPERIMENT} and {runs.ENVIRONMENT} were looked for in it. Give a folder "
            "that cellseg-train wrote."
        )
    names = (runs.EXPERIMENT, runs.DATA, runs.SCORES)
    experiment, data, scores = (_mapping(folder / name) for name in names)
    damage = [name for name, content in zip(names, (experiment, data, scores), strict=True) if content is None]
    experiment, data, scores = experiment or {}, data or {}, scores or {}
    pooled = {}
    for split in SPLITS:
        measures = scores[split].get("measures", {}) if isinstance(scores.get(split), dict) else {}
        if isinstance(measures, dict) and all(one is None or is_number(one) for one in measures.values()):
            pooled[split] = measures
        else:
            damage.append(runs.SCORES)
    minutes, epochs = data.get("training_minutes"), _epochs(folder)
    if not (minutes is None or is_number(minutes)) or not isinstance(data.get("checksums", {}), dict):
        damage.append(runs.DATA)
        minutes = None
    if epochs is None:
        damage.append(runs.HISTORY)
    state = _state(folder, damaged=bool(damage))
    if state in (FINISHED, DAMAGED):
        lacking = [name for name in (runs.MODEL, runs.THRESHOLD, runs.SCORES) if not (folder / name).is_file()]
        damage += lacking or ([] if any(pooled.values()) else [runs.SCORES])
        state = DAMAGED if damage else FINISHED
    return Listed(
        folder,
        state,
        reproduction.facts(folder).get("date", "")[:16],
        minutes,
        epochs or 0,
        {split: measures for split, measures in pooled.items() if measures},
        experiment,
        tuple(dict.fromkeys(damage)),
    )


def sort_by_score(listed: Sequence[Listed], measure: str) -> list[Listed]:
    """Best first by the test score, or where there is none the validation score; runs without one come last.

    Raises:
        InputError: an unknown measure.
    """
    from cellseg.metrics import IMAGE_METRICS, check_measures

    check_measures([measure])
    sign = -1 if IMAGE_METRICS[measure].higher_is_better else 1

    def order(one: Listed) -> tuple:
        value = next((one.score(measure, split) for split in SPLITS if one.score(measure, split) is not None), None)
        return value is None, sign * (value or 0.0)

    return sorted(listed, key=order)


def different_keys(listed: Sequence[Listed]) -> dict[str, list[Any]]:
    """Key of the experiment -> its value in each run, for the keys that are not the same in all; None = not there."""
    return _different([_flat(one.experiment) for one in listed])


def different_surroundings(listed: Sequence[Listed]) -> dict[str, list[Any]]:
    """What else is not the same: code, packages, processor, checksum of the shards."""
    names = ("git", "cellseg", "python", "processor", "backend", *environment.PACKAGES)
    every = []
    for one in listed:
        known = reproduction.facts(one.folder)
        shards = reproduction.digest(_mapping(one.folder / runs.DATA) or {})
        every.append({name: known[name] for name in names if name in known} | {"shards (SHA-256)": shards})
    return _different(every)


def all_scores(listed: Sequence[Listed]) -> dict[str, list[float | None]]:
    """ "test dice" -> the score of each run; None where a run has none."""
    names = dict.fromkeys(
        (split, measure) for split in SPLITS for one in listed for measure in one.scores.get(split, {})
    )
    return {f"{split} {measure}": [one.score(measure, split) for one in listed] for split, measure in names}


def remove(folders: Sequence[Path]) -> None:
    """Delete run folders. Raises InputError, before any is deleted, if one is no run."""
    for folder in folders:
        look_at(folder)
    for folder in folders:
        # First out of sight: what a kill leaves half-deleted must not look like a run.
        aside = folder.with_name(f".{folder.name}.removed-{os.getpid()}")
        os.replace(folder, aside)
        shutil.rmtree(aside)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _state(folder: Path, *, damaged: bool) -> str:
    if (folder / runs.PRUNED).is_file():
        return PRUNED.format((_mapping(folder / runs.PRUNED) or {}).get("epoch", "?"))
    if damaged:
        return DAMAGED
    return UNFINISHED if (folder / runs.BACKUP).is_dir() and not runs.is_finished(folder) else FINISHED


def _different(every: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for one in every for name in one)
    rows = {name: [one.get(name) for one in every] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _flat(content: Any, above: str = "") -> dict[str, Any]:
    """Dotted key -> value; entries of a list by their number."""
    if isinstance(content, Mapping):
        pairs: list[tuple[Any, Any]] = list(content.items())
    elif isinstance(content, list) and any(isinstance(one, Mapping | list) for one in content):
        pairs = list(enumerate(content))
    else:
        return {above: content}
    return {key: value for name, one in pairs for key, value in _flat(one, f"{above}.{name}".lstrip(".")).items()}


def _mapping(path: Path) -> dict | None:
    """Content of a JSON or YAML file; {} where it is missing, None where it is damaged."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml_text.load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None


def _epochs(folder: Path) -> int | None:
    """How many epochs its history has, 0 without one; None where it is damaged."""
    history = next(
        (path for path in (folder / runs.HISTORY, folder / runs.BACKUP / runs.HISTORY) if path.is_file()), None
    )
    try:
        return 0 if history is None else max(len(history.read_text(encoding="utf-8").splitlines()) - 1, 0)
    except (OSError, ValueError):
        return None
