"""Resuming: whether an interrupted run may go on, and with what; it must be the same experiment on the same data.

The state that it goes on from lives in `cellseg.checkpoints`, the work itself is ordered in `cellseg.workflow`.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg import checkpoints, environment, runs
from cellseg import experiment as experiments
from cellseg.checkpoints import Checkpoint
from cellseg.experiment import Experiment
from pipelines.errors import InputError
from pipelines.files import PARTIAL

GIVEN = "given.yaml"
# What may be other than at the start: it changes when a training ends or is saved, and not what it learns.
FREE = ("train.max_hours", "train.checkpoint_minutes", "train.on_nan", "train.dashboard", "distribution", "search")
SHOWN = 8


@dataclass(frozen=True)
class Interrupted:
    """A run that was not finished.

    Args:
        run: Its folder.
        experiment: As it was resolved, with what may be changed and was.
        checkpoint: None = training had not begun.
    """

    run: Path
    experiment: Experiment
    checkpoint: Checkpoint | None

    def check_data(self, data: Mapping[str, Any]) -> None:
        """Raise InputError unless `data`, as in `data.json`, is of the same shards as at the start."""
        if self.checkpoint is None or not (self.run / runs.DATA).is_file():
            return
        before, now = runs.read_json(self.run, runs.DATA)["checksums"], data["checksums"]
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if names:
            raise InputError(
                f"{self.run} cannot go on: the shards in {data['shards']} are not those that it began with (other "
                f"checksums: {_few(names)}). Put the data back, or begin a new run."
            )


def read(run: Path, given: Experiment | None = None, overrides: tuple[str, ...] = ()) -> Interrupted:
    """Read an interrupted run.

    Args:
        run: Its folder.
        given: What the user wants to go on with; None = the run's own experiment.
        overrides: `key=value` for the run's own experiment, where `given` is None.

    Raises:
        InputError: it is no run folder, or finished; its checkpoint is damaged; or the experiment differs in a key that
            matters (the message names the keys).
    """
    if not run.is_dir():
        raise InputError(f"There is no run folder {run}: nothing to resume.")
    if (run / runs.FOLDS).is_file() or (run / "fold1").is_dir():
        raise InputError(
            f"{run} holds several folds. Give the same cellseg-train --folds command with --out {run} again: finished "
            "folds are kept."
        )
    if runs.is_finished(run):
        for name in (runs.BACKUP, runs.OVER):
            shutil.rmtree(run / name, ignore_errors=True)  # what a kill has left of it
        raise InputError(
            f"{run} is finished: there is nothing to resume. To train its network further, begin a new run with "
            f"train.start_from={run}."
        )
    if not (run / runs.EXPERIMENT).is_file() or not (run / runs.ENVIRONMENT).is_file():
        raise InputError(
            f"{run} is no interrupted run: it lacks {runs.EXPERIMENT} or {runs.ENVIRONMENT}. If its training ended "
            "before it had these, delete the folder and begin anew."
        )
    own = experiments.read(run / runs.EXPERIMENT)
    wanted = experiments.read(run / runs.EXPERIMENT, overrides) if given is None else given
    first = experiments.read(run / runs.BACKUP / GIVEN) if (run / runs.BACKUP / GIVEN).is_file() else own
    different = min((differences(one, wanted) for one in (first, own)), key=len)
    if different:
        listed = "; ".join(f"{key} is {_text(before)} in the run, {_text(now)} here" for key, before, now in different)
        raise InputError(
            f"{run} cannot go on with another configuration: {listed}. Resume it without changes, or begin a new run. "
            f"May be changed: {', '.join(FREE[:3])}."
        )
    changed = {name: getattr(wanted.train, name) for name in ("max_hours", "checkpoint_minutes", "on_nan", "dashboard")}
    update = {"train": own.train.model_copy(update=changed), "distribution": wanted.distribution}
    path = run / runs.BACKUP / checkpoints.NAME
    checkpoint = Checkpoint.read(path) if path.is_file() else None
    return Interrupted(run, own.model_copy(update=update), checkpoint)


def left_over(run: Path, experiment: Experiment) -> Interrupted | None:
    """What an interrupted training of this experiment left at `run`; None = begin. What is of no use is removed.

    Raises:
        InputError: it is of no use, and another process is training it.
    """
    if not (run / runs.BACKUP).is_dir():
        return None
    try:
        return read(run, experiment)
    except InputError:
        with runs.locked(run):
            shutil.rmtree(run)
        return None


def differences(before: Experiment, now: Experiment) -> list[tuple[str, Any, Any]]:
    """(key, value before, value now) of every key that differs and matters; keys as an override names them."""
    one, other = (_flat(each.model_dump(mode="json"), "") for each in (before, now))
    keys = [key for key in one | other if not any(key == free or key.startswith(f"{free}.") for free in FREE)]
    return [(key, one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)]


@contextlib.contextmanager
def continuing(run: Path) -> Iterator[None]:
    """Remove what a killed process left half-written; in the end, also the old run that --overwrite put aside."""
    (run / runs.BACKUP).mkdir(exist_ok=True)
    with runs.locked(run):
        for folder in (run, run / runs.BACKUP):
            for path in folder.glob(f".*{PARTIAL}-*"):
                path.unlink()
    yield
    runs.remove_asides(run)


def begun(given: Experiment, experiment: Experiment) -> dict[str, str]:
    """What a run folder begins with: the experiment, that as the user gave it, and where it is trained."""
    return {
        runs.EXPERIMENT: experiment.to_yaml(),
        runs.ENVIRONMENT: environment.described(),
        f"{runs.BACKUP}/{GIVEN}": given.to_yaml(),
    }


def note_again(run: Path) -> None:
    """Write down where and when a run went on, behind where it began."""
    before = (run / runs.ENVIRONMENT).read_text(encoding="utf-8")
    runs.write_text(run, runs.ENVIRONMENT, f"{before}\nresumed\n{environment.described()}")


def _flat(value: Any, key: str) -> dict[str, Any]:
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if entries is None or not value:
        return {key: value}
    flat: dict[str, Any] = {}
    for name, inside in entries:
        flat |= _flat(inside, f"{key}.{name}" if key else str(name))
    return flat


def _text(value: Any) -> str:
    return "not set" if value is None else str(value)


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
