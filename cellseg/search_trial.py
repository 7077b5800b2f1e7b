"""Search trial: one trial of a search, trained in a process of its own: `python -m cellseg.search_trial FOLDER NUMBER`.

Which trials there are is decided in `cellseg.search`; a trial's process ends with the search's.
"""

import functools
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

import keras
import optuna
from optuna.trial import TrialState

from cellseg import experiment as experiments
from cellseg import resuming, runs, study
from pipelines.errors import InputError


class HopelessError(Exception):
    """The trial is not worth going on with after `epoch`."""

    def __init__(self, epoch: int):
        super().__init__(epoch)
        self.epoch = epoch


class Judge(keras.callbacks.Callback):
    """Tells the study the score of each epoch, and stops a trial that the study finds hopeless.

    Args:
        trial: To be told.
        monitor: Name of the score in the logs.
        spared: Never stopped.
        told: Epochs that the study knows already, from before an interruption.
    """

    def __init__(self, trial: optuna.Trial, monitor: str, *, spared: bool, told: Collection[int] = ()):
        super().__init__()
        self._trial, self._monitor, self._spared, self._told = trial, monitor, spared, set(told)

    def on_epoch_end(self, epoch, logs=None):
        """Tell it, and ask it."""
        done = epoch + 1
        if done not in self._told:
            self._trial.report(float(logs[self._monitor]), step=done)
            self._told.add(done)  # training may step back
        if not self._spared and self._trial.should_prune():
            raise HopelessError(done)


def run(folder: Path, number: int, *, train: Callable | None = None) -> None:
    """Train one trial and tell the study how it ended: with a score, hopeless, or with an error.

    Args:
        folder: Of the search.
        number: Of the trial, which is running in the study and has its experiment file.
        train: Instead of `cellseg.workflow.train`.
    """
    if train is None:
        from cellseg import workflow

        train = workflow.train
    begin = time.monotonic()
    section = experiments.read(folder / study.EXPERIMENT).search
    assert section is not None
    shared = study.open_study(folder, section)
    frozen = shared.trials[number]
    trial = optuna.Trial(shared, frozen._trial_id)
    plan = study.plan_of(frozen)
    spared = plan is None or plan.baseline
    place = folder / study.TRIALS / study.name_of(number)
    value = None
    try:
        experiment = experiments.read(place.with_suffix(".yaml"))
        (place / runs.PRUNED).unlink(missing_ok=True)
        if not runs.is_finished(place):  # else it was killed before it could say so
            train(
                experiment,
                place,
                interrupted=resuming.left_over(place, experiment),
                listen=functools.partial(Judge, trial, spared=spared, told=set(frozen.intermediate_values)),
                tested=False,
            )
        measures = runs.read_json(place, runs.SCORES)["validation"]["measures"]
        value = study.score_of(shared.trials[number].intermediate_values, measures, section.measure)
        state = TrialState.COMPLETE if value == value else TrialState.FAIL
        if state == TrialState.FAIL:
            trial.set_user_attr(study.ERROR, f"the validation images have no {section.measure or 'score'}")
    except HopelessError as error:
        runs.write_json(place, runs.PRUNED, {"epoch": error.epoch})
        state = TrialState.PRUNED
    except Exception as error:  # one trial that fails must not end the search; its log has the lines
        if not isinstance(error, InputError | OSError):
            traceback.print_exc()
        trial.set_user_attr(study.ERROR, f"{type(error).__name__}: {error}" if not str(error) else str(error))
        state = TrialState.FAIL
    trial.set_user_attr(study.MINUTES, round((time.monotonic() - begin) / 60, 2))
    shared.tell(number, value if state == TrialState.COMPLETE else None, state=state)
    if state == TrialState.PRUNED:  # not before: until the study knows, a kill lets the trial go on from its checkpoint
        tidy(place)


def tidy(run: Path) -> None:
    """Keep the history of a hopeless trial alone: weights and checkpoint are large, and of no use."""
    history = run / runs.BACKUP / runs.HISTORY
    if history.is_file():
        os.replace(history, run / runs.HISTORY)
    shutil.rmtree(run / runs.BACKUP, ignore_errors=True)


def end_with_parent() -> None:
    """End this process when its standard input ends, which is when the search's process does, however that ends."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    run(Path(sys.argv[1]), int(sys.argv[2]))
