"""Study: what a search knows of its trials, in a journal that its processes share, and how values are drawn and judged.

optuna keeps the journal, draws numbers and decides which trials are hopeless. What is run when is the business of
`cellseg.search`; one trial is run in `cellseg.search_trial`.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from cellseg.evaluation import DEFAULT_MEASURES
from cellseg.metrics import IMAGE_METRICS
from cellseg.named import Named, build
from cellseg.search_space import Space
from cellseg.sections import Search, Stage
from pipelines.errors import InputError, nearest

JOURNAL, TRIALS, RESULTS, BEST, EXPERIMENT = "trials.journal", "trials", "trials.csv", "best.yaml", "experiment.yaml"
BROAD, NARROW = "broad", "narrow"
PLAN, ERROR, MINUTES = "plan", "error", "minutes"  # what is noted of a trial beside its values and scores
NAME = "search"


class Plan(NamedTuple):
    """What a trial is for: its stage, and whether it is the experiment as it stands, which the others are held to."""

    stage: str
    baseline: bool


def median(*, warmup_epochs: int = 5, min_trials: int = 4) -> optuna.pruners.BasePruner:
    """Stops a trial whose best score so far is below the median of the other trials' best ones up to that epoch.

    Args:
        warmup_epochs: No trial is stopped before.
        min_trials: Trials that must have finished before any is stopped.
    """
    _at_least("warmup_epochs", warmup_epochs, 0)
    _at_least("min_trials", min_trials, 1)
    return optuna.pruners.MedianPruner(n_startup_trials=min_trials, n_warmup_steps=warmup_epochs)


def halving(*, min_epochs: int = 5, factor: int = 3) -> optuna.pruners.BasePruner:
    """Lets one of `factor` trials go on after min_epochs, min_epochs * factor, ... (asynchronous successive halving).

    Reference:
        Li et al. 2020, https://arxiv.org/abs/1810.05934
    """
    _at_least("min_epochs", min_epochs, 1)
    _at_least("factor", factor, 2)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=factor)


PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {"median": median, "halving": halving}


class Draws(BaseSampler):
    """Draws each value of a trial by itself, from a range that may be narrower than the study's.

    The numbers follow from the seed and the trial's number alone, so that they do not depend on interruptions.

    Args:
        space: Where to draw from.
        seed: Of the whole search.
    """

    def __init__(self, space: Space, seed: int):
        self._space, self._seed, self._random = space, seed, RandomSampler()

    def infer_relative_search_space(self, study, trial):
        """Nothing is drawn together."""
        return {}

    def sample_relative(self, study, trial, search_space):
        """Nothing is drawn together."""
        return {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begin the numbers of this trial."""
        (seed,) = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)
        self._random = RandomSampler(seed=int(seed))

    def sample_independent(self, study, trial, param_name, param_distribution):
        """One value."""
        return self._random.sample_independent(study, trial, param_name, self._space[param_name].distribution())


def open_study(folder: Path, search: Search, *, create: bool = False) -> optuna.Study:
    """The study of a search folder. Only processes that the search has started may open it besides."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if create:
        repair(folder / JOURNAL)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    pruner = optuna.pruners.NopPruner() if search.prune is None else pruner_of(search.prune)
    if create:
        return optuna.create_study(
            study_name=NAME, storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
        )
    return optuna.load_study(study_name=NAME, storage=storage, pruner=pruner)


def repair(journal: Path) -> None:
    """Undo what a kill left: half a line at the end, or a lock that nobody holds. Nobody else may be writing."""
    Path(f"{journal}.lock").unlink(missing_ok=True)
    if journal.is_file():
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)


def check(search: Search) -> None:
    """Check the sections prune and measure. Raises InputError."""
    if search.prune is not None:
        pruner_of(search.prune)
    better = [name for name in DEFAULT_MEASURES if IMAGE_METRICS[name].higher_is_better]
    if search.measure is not None and search.measure not in better:
        raise InputError(
            f"search.measure: '{search.measure}' cannot be searched for.{nearest(search.measure, better)} Known: "
            f"{', '.join(better)}; or leave it out, to take what steers training."
        )


def pruner_of(section: Named) -> optuna.pruners.BasePruner:
    """What `search.prune` names. Raises InputError."""
    return build(PRUNERS, section, key="search.prune")


def stage_of(search: Search, stage: str) -> Stage:
    """The section of a stage."""
    section = search.broad if stage == BROAD else search.narrow
    assert section is not None
    return section


def name_of(number: int) -> str:
    """Name of a trial's run folder, and of its experiment file."""
    return f"trial-{number:03d}"


def plan_of(trial: FrozenTrial) -> Plan | None:
    """What a trial is for; None if its search was killed before that was written down."""
    noted = trial.user_attrs.get(PLAN)
    return None if noted is None else Plan(*noted)


def of_stage(study: optuna.Study, stage: str, *, baseline: bool = False) -> list[FrozenTrial]:
    """The trials of a stage, in order: those that were drawn, or the experiment as it stands."""
    return [trial for trial in study.trials if plan_of(trial) == Plan(stage, baseline)]


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Those with a score, best first; of equal ones, the one that began first."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    return sorted(done, key=lambda trial: (-float(trial.value or 0.0), trial.number))


def narrowed(space: Space, study: optuna.Study, around: int) -> Space:
    """The space around the best trials of the broad stage, of which one must have finished."""
    best = finished(of_stage(study, BROAD))[:around]
    return {key: drawn.narrowed([trial.params[key] for trial in best]) for key, drawn in space.items()}


def values_of(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """YAML key -> value that was drawn; {} for the experiment as it stands."""
    return {key: drawn.value(trial.params[key]) for key, drawn in space.items() if key in trial.params}


def score_of(scores: Mapping[int, float], measures: Mapping[str, float | None], measure: str | None) -> float:
    """What a finished trial is judged by: its best epoch, or a measure of its validation images; NaN without one."""
    found = max(scores.values(), default=None) if measure is None else measures.get(measure)
    return math.nan if found is None else float(found)


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"search.prune.{key} must be at least {least}, got {value}.")
