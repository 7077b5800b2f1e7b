"""Run folder: what a training leaves behind, and reading it back.

    experiment.yaml  resolved        model.keras     best weights     threshold.json  chosen on validation
    data.json        what it saw     history.csv     every epoch      scores.json     test, validation, baselines
    environment.txt  where it ran    warnings.json   what to know     pictures.json   and pictures/
    report.html      tensorboard/    backup/         while training (pruned.json: its search has stopped it)
    transfer.json    what train.start_from gave      errors.json      of the test split: what goes wrong where
    reproduce.txt    how to train it again           changes.diff     what git had not committed then
    export/          the network for OpenVINO, made by `cellseg.export` when it is first needed

Making these files is the work of `cellseg.workflow`; predicting with them lives in `cellseg.inference`.
"""

import contextlib
import fcntl
import glob
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg import boxed
from cellseg import experiment as experiments
from cellseg.named import check_options
from pipelines.errors import InputError
from pipelines.files import check_free, followed, whole_file, whole_folder

EXPERIMENT, MODEL, THRESHOLD, SCORES = "experiment.yaml", "model.keras", "threshold.json", "scores.json"
DATA, WARNINGS, PICTURES, HISTORY = "data.json", "warnings.json", "pictures.json", "history.csv"
ENVIRONMENT, BACKUP, TRANSFER, ERRORS = "environment.txt", "backup", "transfer.json", "errors.json"
CHECKPOINT, LOCK = "checkpoint.npz", "lock"  # in backup/
OVER = ".backup.over"  # the name of backup/ while it is removed
PRUNED = "pruned.json"  # a trial that its search has stopped: {"epoch": the last one}
FOLDS = "folds.json"  # of a folder of runs that answer together, see cellseg.folds
SHOWN = 500  # letters of what Keras says of a damaged model
LONGEST_SIDE = 2**20  # pixels of an image that a run was trained on
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Run:
    """A finished run, read back; the model itself is loaded by `cellseg.inference`.

    Args:
        folder: The run folder.
        experiment: Its resolved experiment; tuned options of the instance method stand in its `instances`.
        data: Content of `data.json`: channels, dtypes, minimum_range, splits, statistics, shards.
        threshold: Content of `threshold.json`.
    """

    folder: Path
    experiment: experiments.Experiment
    data: dict
    threshold: dict

    @classmethod
    def read(cls, folder: Path | str, *, tuned: bool = True) -> "Run":
        """Read a run folder, or the run in the box of that name; see `cellseg.boxed.find_run`.

        Args:
            folder: The run folder, or a name such as "nuclei".
            tuned: False takes a run whose threshold is still to be chosen, as 0.5.

        Raises:
            InputError: it is no run folder, not finished, or one of its files is damaged.
        """
        folder = boxed.find_run(folder)
        if not folder.is_dir():
            raise InputError(f"There is no run folder {folder}. {boxed.known(folder)}")
        needed = (EXPERIMENT, MODEL, DATA, THRESHOLD) if tuned else (EXPERIMENT, MODEL, DATA)
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            state = "its training has not finished" if (folder / BACKUP).is_dir() else "it is no run folder"
            raise InputError(f"{folder} lacks {', '.join(missing)}: {state}. Train with cellseg-train first.")
        experiment = experiments.read(folder / EXPERIMENT)
        data = _read_data(folder)
        if not tuned:
            return cls(folder, experiment, data, {"threshold": 0.5})
        threshold = _read_threshold(folder, experiment)
        section = {**experiment.instances, **threshold.get("instances", {})}
        experiment = experiment.model_copy(update={"instances": section})
        return cls(folder, experiment, data, threshold)


def is_finished(folder: Path) -> bool:
    """Whether a folder holds all that a training makes; a kill may have left some of its backup beside it.

    The model comes when the training is over, the checkpoint goes when everything is there.
    """
    return (folder / MODEL).is_file() and not (folder / BACKUP / CHECKPOINT).is_file()


def members_of(folder: Path | str) -> list[Path | str]:
    """The runs that answer together where a folder holds all folds of an experiment; else the folder alone."""
    if not (Path(folder) / FOLDS).is_file():
        return [folder]
    content = read_json(Path(folder), FOLDS)
    names = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise InputError(f"{Path(folder) / FOLDS} is damaged: it names no runs. Train the folds again.")
    for name in names:
        if Path(name).name != name or name in ("", ".."):
            raise InputError(f"{Path(folder) / FOLDS} names the run '{name}', which lies outside its folder.")
    return [Path(folder) / name for name in names]


def load_model(path: Path):
    """The Keras model of a run's file, without running any code that it might carry.

    Raises:
        InputError: damaged, or no model.
    """
    import keras

    import cellseg.models  # noqa: F401  registers the layers of our own before the model is read

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    # Of zipfile, h5py, json and Keras' own layers, as the damage will have it.
    except Exception as error:
        reason = " ".join(str(error).split())
        if "safe_mode" in reason or "Lambda" in reason:
            raise InputError(
                f"{path} carries Python code of whoever made it (a Lambda layer or the like), which cellseg does not "
                "run. Train the network again with layers of Keras or of cellseg."
            ) from error
        raise InputError(
            f"{path} cannot be loaded: {reason[:SHOWN].rstrip('.')}. Copy the run again from where it came, or train "
            "again."
        ) from error


def check(folder: Path, *, overwrite: bool, keep: Iterable[Path] = ()) -> None:
    """Raise InputError if a run cannot be made at `folder`: one is there or being trained, or `keep` lies in it."""
    if (folder / BACKUP / LOCK).is_file():
        with locked(folder):
            pass
    # environment.txt, and not experiment.yaml, which folders of shards and of people's own have, too.
    check_free(folder, marker=ENVIRONMENT, overwrite=overwrite)
    for path in (Path.cwd(), *keep):
        if folder.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"The run folder {folder} would replace {path}, which is needed. Choose another folder with --out."
            )


@contextlib.contextmanager
def replacing(folder: Path, *, overwrite: bool, begun: Mapping[str, str] = NOTHING) -> Iterator[None]:
    """Make a run folder for a training; an old run is put aside and comes back if the training fails.

    What a failed training left is then at `NAME.interrupted`.

    Args:
        folder: The run folder. It appears with an empty `backup/` and what it begins with at once, so that a kill
            leaves a run that can be resumed or overwritten.
        overwrite: Replace an old run.
        begun: Text by name of a file, which it begins with.

    Raises:
        InputError: an old run is there and may not be replaced, or is being trained.
    """
    folder = followed(folder)
    asides = _asides(folder)
    if asides and not folder.exists():  # a kill came between putting it aside and making the new one
        os.replace(asides.pop(), folder)
    check(folder, overwrite=overwrite)
    aside = _free_aside(folder)
    if folder.exists() and any(folder.iterdir()):
        os.replace(folder, aside)
    try:
        with whole_folder(folder, marker=ENVIRONMENT) as new:
            (new / BACKUP).mkdir()
            for name, text in begun.items():
                write_text(new, name, text)
        yield
    except BaseException:
        if aside.exists():
            interrupted = folder.with_name(f"{folder.name}.interrupted")
            shutil.rmtree(interrupted, ignore_errors=True)
            if folder.exists():
                os.replace(folder, interrupted)
            os.replace(aside, folder)
        raise
    remove_asides(folder)


def remove_asides(folder: Path) -> None:
    """Remove the old runs that --overwrite has put aside, of trainings that were killed, too."""
    for aside in _asides(folder):
        shutil.rmtree(aside, ignore_errors=True)


def _free_aside(folder: Path) -> Path:
    # Containers number their processes alike: one that was killed may have had our number.
    names = (f".{folder.name}.old-{number}" for number in itertools.count(os.getpid()))
    return next(path for path in map(folder.with_name, names) if not path.exists())


def _asides(folder: Path) -> list[Path]:
    found = folder.parent.glob(f".{glob.escape(folder.name)}.old-*")
    return sorted((one for one in found if (one / ENVIRONMENT).is_file()), key=lambda one: one.stat().st_mtime)


def end(folder: Path) -> None:
    """Remove `backup/`: from one moment to the next the run is finished."""
    over = folder / OVER
    shutil.rmtree(over, ignore_errors=True)
    os.replace(folder / BACKUP, over)
    shutil.rmtree(over, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Refuse a second process that trains a run; the lock ends with the process, however that ends."""
    with open(folder / BACKUP / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another process is training {folder} at this moment. Wait until it has ended, or choose another "
                "folder."
            ) from None
        yield


def _read_threshold(folder: Path, experiment: experiments.Experiment) -> dict:
    """Content of `threshold.json`; what predicting needs of it is checked."""
    remedy = f"Choose it anew: cellseg-evaluate {folder} --tune dice."
    content = read_json(folder, THRESHOLD, remedy=remedy)
    damaged = f"{folder / THRESHOLD} is damaged:"
    if not isinstance(content, dict):
        raise InputError(f"{damaged} it holds {content!r:.40}, and an object was expected. {remedy}")
    value, options = content.get("threshold"), content.get("instances", {})
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        there = f"its threshold is {value!r:.40}" if "threshold" in content else "it has no key 'threshold'"
        raise InputError(f"{damaged} {there}, and a number from 0 to 1 was expected. {remedy}")
    if not isinstance(options, dict):
        raise InputError(f"{damaged} its instances are {options!r:.40}, and an object was expected. {remedy}")
    if options:
        from cellseg.instances import INSTANCES

        try:
            check_options(INSTANCES, {**experiment.instances, **options}, key="instances", given=("threshold",))
        except InputError as error:
            raise InputError(f"{damaged} {error} {remedy}") from error
    return content


def _read_data(folder: Path) -> dict:
    """Content of `data.json`; what predicting and tuning need of it is checked."""
    remedy = "Copy the run again from where it came, or train again."
    content = read_json(folder, DATA, remedy=remedy)
    damaged = f"{folder / DATA} is damaged:"
    if not isinstance(content, dict):
        raise InputError(f"{damaged} it holds {content!r:.40}, and an object was expected. {remedy}")
    for name, (is_right, expected) in DATA_KEYS.items():
        if name not in content and name in OPTIONAL:
            continue
        if name not in content:
            raise InputError(f"{damaged} it has no key '{name}', and {expected} expected. {remedy}")
        if not is_right(content[name]):
            verb = "is" if name == "minimum_range" else "are"
            raise InputError(f"{damaged} its {name} {verb} {content[name]!r:.40}, and {expected} expected. {remedy}")
    return content


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _are_shapes(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(shape, list) and len(shape) == 2 for shape in value)
        and all(_is_whole(side, LONGEST_SIDE) for shape in value for side in shape)
    )


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(type(one) in (int, float) for one in value.values())


def _are_objects(value: object) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(one, dict | None) for one in value.values()))


def read_json(folder: Path, name: str, *, remedy: str = "Train again.") -> Any:
    """Read one of the run's JSON files. Raises InputError if it is damaged; `remedy` says what to do then."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder / name} is damaged ({error}). {remedy}") from error


def write_text(folder: Path, name: str, text: str) -> None:
    """Write one of the run's text files whole."""
    with whole_file(folder / name) as path:
        path.write_text(text, encoding="utf-8")


def write_bytes(folder: Path, name: str, content: bytes) -> None:
    """Write one of the run's binary files whole."""
    with whole_file(folder / name) as path:
        path.write_bytes(content)


def write_json(folder: Path, name: str, content: dict | list) -> None:
    """Write one of the run's JSON files whole. NaN must already be None."""
    write_text(folder, name, json.dumps(content, indent=1, allow_nan=False) + "\n")


# What stands in data.json: how it is checked, and what was expected.
DATA_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "shapes": (_are_shapes, "[[height, width], ...] was"),
    "channels": (lambda value: _is_whole(value, LONGEST_SIDE), "a whole number above 0 was"),
    "minimum_range": (_are_numbers, "numbers by name of a dtype were"),
    "classes": (
        lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
        "a list of names was",
    ),
    "shards": (lambda value: isinstance(value, str), "the name of a folder was"),
    "statistics": (_are_objects, "objects by name of a split were"),
}
OPTIONAL = ("classes", "statistics")  # older runs have none
