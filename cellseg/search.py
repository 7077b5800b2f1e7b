"""Search: trials of an experiment with other values, first drawn broadly, then near the best; several at a time.

What a trial is and how it is judged lives in `cellseg.study`; it runs in `cellseg.search_trial`, a process of its own.
The table and the dashboard are made in `cellseg.search_results`.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from cellseg import runs, search_results, search_space, study
from cellseg.experiment import Experiment
from cellseg.preparation import ensure_shards
from cellseg.sections import Search, Stage
from cellseg.study import BROAD, NARROW, Plan
from cellseg.workers import check_alone
from pipelines.errors import InputError
from pipelines.prepare import Progress

LOCK = ".lock"
POLL = 0.2  # seconds between looks at the running trials
BROAD_SHARE = 2 / 3  # of the hours, after which no broad trial begins
REFUSED = 3  # failed trials in a row, without any that finished, after which the search gives up


class Process(Protocol):
    """A trial that is running."""

    def poll(self) -> int | None:
        """None while it runs."""

    def kill(self) -> None:
        """End it."""

    def wait(self) -> int:
        """Wait for its end."""


def begin(
    experiment: Experiment, folder: Path, *, progress: Progress = lambda items, total: items
) -> tuple[Experiment, search_space.Space]:
    """Check an experiment with a search section and make the folder of its search.

    Args:
        experiment: Its `search` names the space.
        folder: Must not exist, or be empty.
        progress: Wraps images while they are prepared.

    Raises:
        InputError: no or a wrong search section, a key that does not exist, or the folder is there.
    """
    check_alone(experiment, "cellseg-search")
    section, space = section_of(experiment)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"The folder {folder} exists already and nothing was changed in it. Choose another folder with --out, or "
            f"go on with the search in it: cellseg-search --resume {folder}."
        )
    search_space.check(experiment, space, [stage.overrides for stage in _stages(section)])
    prepared = ensure_shards(experiment, progress=progress)
    experiment = prepared.experiment.placed(prepared.folder)
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_text(folder, study.EXPERIMENT, experiment.to_yaml())
    return experiment, space


def section_of(experiment: Experiment) -> tuple[Search, search_space.Space]:
    """The search section of an experiment, checked by itself, and its space. Raises InputError."""
    section = experiment.search
    if section is None:
        raise InputError(
            "The experiment has no search section, which says what to try. Add search: {space: {train.learning_rate: "
            "{name: log_uniform, low: 1e-5, high: 1e-2}}}, or pass a file that holds it with --space."
        )
    study.check(section)
    space = search_space.read_space(section.space)
    for stage in _stages(section):
        both = sorted(set(stage.overrides) & set(space))
        if both:
            raise InputError(
                f"search: {both[0]} stands in the space and in the overrides of a stage. Keep one of them."
            )
    return section, space


def _stages(section: Search) -> list[Stage]:
    return [section.broad] if section.narrow is None else [section.broad, section.narrow]


def go_on(
    experiment: Experiment,
    folder: Path,
    *,
    jobs: int = 1,
    hours: float | None = None,
    launch: Callable[[Path, int, Mapping[str, str]], Process] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> optuna.Study:
    """Run what trials there still are, begun ones first; table and dashboard are written after each.

    The experiment as it stands is the first trial of a stage whose overrides differ from the stage's before. The
    second stage begins when the first is over, so that what is drawn does not depend on `jobs`.

    Args:
        experiment: As `begin` stored it.
        folder: Of the search.
        jobs: Trials at a time, each in a process of its own.
        hours: Trials that still run then are ended, and begin anew when the search is resumed; after two thirds no
            trial of the first stage begins. None = until all are done.
        launch: Instead of `start`.
        say: Told what begins and how it ended.

    Raises:
        InputError: another process runs this search, or the trials fail one after the other.
    """
    section, space = section_of(experiment)
    with _alone(folder):
        shared = study.open_study(folder, section, create=True)
        trials = _Trials(experiment, section, space, shared, folder)
        clock = _Clock(hours)
        running: dict[int, Process] = {}
        environment = _threads(jobs)
        try:
            while True:
                for number in [number for number, process in running.items() if process.poll() is not None]:
                    say(trials.ended(number, running.pop(number).wait()))
                    search_results.write(shared, section, space, experiment, folder)
                while len(running) < jobs and not clock.over:
                    chosen = trials.next(running, broad=not clock.broad_over)
                    if chosen is None:
                        break
                    say(f"{study.name_of(chosen)} begins")
                    running[chosen] = (launch or start)(folder, chosen, environment)
                if not running or clock.over:
                    return shared
                time.sleep(0 if any(process.poll() is not None for process in running.values()) else POLL)
        finally:
            for process in running.values():
                process.kill()
                process.wait()
            search_results.write(shared, section, space, experiment, folder)


def start(folder: Path, number: int, environment: Mapping[str, str]) -> Process:
    """Start a trial's process; what it says goes to its log."""
    log = folder / study.TRIALS / f"{study.name_of(number)}.log"
    with open(log, "ab") as file:
        return _Child(
            [sys.executable, "-m", "cellseg.search_trial", str(folder), str(number)],
            # Its end is how the trial learns that the search has ended.
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is for the search, which ends its trials
        )


class _Child(subprocess.Popen):
    """A trial's process, whose standard input is closed behind it."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        status = super().wait(timeout)
        if self.stdin is not None:
            self.stdin.close()
        return status


class _Trials:
    """Which trial comes next."""

    def __init__(
        self,
        experiment: Experiment,
        section: Search,
        space: search_space.Space,
        shared: optuna.Study,
        folder: Path,
    ):
        self._experiment, self._section, self._space = experiment, section, space
        self._study, self._folder = shared, folder
        (folder / study.TRIALS).mkdir(exist_ok=True)
        self._begun = [trial.number for trial in shared.trials if trial.state == TrialState.RUNNING]

    def next(self, running: Mapping[int, Process], *, broad: bool) -> int | None:
        """Number of the next trial, ready to run; None if there is none, or none before a running one has ended."""
        while self._begun:
            number = self._begun.pop(0)
            if study.plan_of(self._study.trials[number]) is None:  # killed between two lines of the journal
                self._study.tell(number, state=TrialState.FAIL)
                continue
            return self._ready(number)
        stage = self._stage(broad)
        if stage is None or (stage == NARROW and running and not study.of_stage(self._study, NARROW)):
            return None
        baseline = self._wants_baseline(stage)
        drawn_from = self._space
        if stage == NARROW and not baseline:
            narrow = self._section.narrow
            if narrow is None or not study.finished(study.of_stage(self._study, BROAD)):
                return None
            drawn_from = study.narrowed(self._space, self._study, narrow.around)
        self._study.sampler = study.Draws(drawn_from, self._experiment.seed)
        distributions = {key: drawn.distribution() for key, drawn in self._space.items()}
        trial = self._study.ask({} if baseline else distributions)
        trial.set_user_attr(study.PLAN, list(Plan(stage, baseline)))
        return self._ready(trial.number)

    def ended(self, number: int, status: int) -> str:
        """Note a trial whose process has ended, and tell how.

        Raises:
            InputError: the experiment as it stands has failed, or several trials in a row and none has finished.
        """
        trial = self._study.trials[number]
        if trial.state == TrialState.RUNNING:  # it could not say so itself
            log = self._folder / study.TRIALS / f"{study.name_of(number)}.log"
            reason = f"its process ended with status {status}; {log} may say why"
            optuna.Trial(self._study, trial._trial_id).set_user_attr(study.ERROR, reason)
            self._study.tell(number, state=TrialState.FAIL)
            trial = self._study.trials[number]
        if trial.state == TrialState.FAIL:
            self._give_up(trial)
        return search_results.told(trial)

    def _give_up(self, trial: optuna.trial.FrozenTrial) -> None:
        error = trial.user_attrs.get(study.ERROR, "it was interrupted before it began")
        plan = study.plan_of(trial)
        if plan is not None and plan.baseline:
            raise InputError(f"{study.name_of(trial.number)}, the experiment as it stands, failed: {error}")
        last = [one.state for one in self._study.trials if one.state.is_finished()][-REFUSED:]
        if last == [TrialState.FAIL] * REFUSED and not study.finished(self._study.trials):
            raise InputError(f"The last {REFUSED} trials failed, and none has finished. The last one: {error}")

    def _stage(self, broad: bool) -> str | None:
        narrow = self._section.narrow
        later = [] if narrow is None else study.of_stage(self._study, NARROW)
        if not later and broad and len(study.of_stage(self._study, BROAD)) < self._section.broad.trials:
            return BROAD
        return NARROW if narrow is not None and len(later) < narrow.trials else None

    def _wants_baseline(self, stage: str) -> bool:
        if study.of_stage(self._study, stage, baseline=True):
            return False
        return stage == BROAD or study.stage_of(self._section, NARROW).overrides != self._section.broad.overrides

    def _ready(self, number: int) -> int:
        """Write the trial's experiment file and see to its shards."""
        trial = self._study.trials[number]
        plan = study.plan_of(trial)
        assert plan is not None
        name = study.name_of(number)
        values: dict[str, Any] = {
            **study.stage_of(self._section, plan.stage).overrides,
            **study.values_of(trial, self._space),
            "name": f"{self._experiment.name}-{name}",
        }
        experiment = search_space.with_values(self._experiment, values, where=name)
        if experiment.data_config() != self._experiment.data_config():
            shards = self._folder / "shards" / name
            experiment = ensure_shards(experiment.placed(shards)).experiment
        runs.write_text(self._folder / study.TRIALS, f"{name}.yaml", experiment.to_yaml())
        return number


class _Clock:
    """How much of the hours is spent; without hours, nothing."""

    def __init__(self, hours: float | None):
        self._begin, self._seconds = time.monotonic(), None if hours is None else hours * 3600

    @property
    def over(self) -> bool:
        """Whether all of them are."""
        return self._spent(1.0)

    @property
    def broad_over(self) -> bool:
        """Whether what the first stage may take is."""
        return self._spent(BROAD_SHARE)

    def _spent(self, share: float) -> bool:
        return self._seconds is not None and time.monotonic() - self._begin >= share * self._seconds


def _threads(jobs: int) -> dict[str, str]:
    """Environment of a trial's process: trials at the same time share the cores, where the user has not said how."""
    each = str(max((os.cpu_count() or 1) // jobs, 1))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {name: each for name in names if jobs > 1 and name not in os.environ}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second process; the lock ends with this one, however that ends."""
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"Another process is running the search in {folder} at this moment.") from None
        yield
