"""Search space: which YAML keys a search changes, and from what each new value is drawn.

The trials themselves are ordered in `cellseg.search`; the section's keys are declared in `cellseg.sections`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cellseg import experiment as experiments
from cellseg.experiment import Experiment
from cellseg.named import build
from pipelines.errors import InputError, nearest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MARGIN = 1 / 8  # of the broad range, on either side of the best values, in the narrow one
DIGITS = 4  # significant ones of a drawn number: what is written in the YAML is what was tried
# What decides which images validate, or what their truth is: scores of other images cannot be compared.
FIXED = ("name", "seed", "split", "search")
FREE_DATA = ("data.contrast", "data.channels", "data.expand")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log`: evenly by their logarithm; `step`: whole numbers apart."""

    low: float
    high: float
    log: bool = False
    step: int | None = None

    def distribution(self) -> "BaseDistribution":
        """The same for optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.step is None:
            return FloatDistribution(self.low, self.high, log=self.log)
        return IntDistribution(int(self.low), int(self.high), log=self.log, step=self.step)

    def value(self, drawn: Any) -> Any:
        """What goes into the YAML: a number of few digits, within the range."""
        if self.step is not None:
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)

    def tried(self) -> list[Any]:
        """Values that must all be possible."""
        return [int(end) if self.step is not None else end for end in (self.low, self.high)]

    def narrowed(self, drawn: Sequence[Any]) -> "Range":
        """The range around values that did well: from the least to the greatest, and MARGIN more on either side."""
        scale, back = (math.log, math.exp) if self.log else (float, float)
        margin = MARGIN * (scale(self.high) - scale(self.low))
        low = max(back(scale(min(drawn)) - margin), self.low)
        high = min(back(scale(max(drawn)) + margin), self.high)
        if self.step is not None:  # on the same grid
            low = self.low + self.step * math.floor((low - self.low) / self.step + 1e-9)
            high = self.low + self.step * math.ceil((high - self.low) / self.step - 1e-9)
        return replace(self, low=low, high=min(high, self.high))


@dataclass(frozen=True)
class Choice:
    """One of some values, which may be whole sections; optuna knows them by their JSON text."""

    values: tuple[Any, ...]

    def distribution(self) -> "BaseDistribution":
        """The same for optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([json.dumps(value) for value in self.values])

    def value(self, drawn: Any) -> Any:
        """What goes into the YAML."""
        return json.loads(drawn)

    def tried(self) -> list[Any]:
        """Values that must all be possible."""
        return list(self.values)

    def narrowed(self, drawn: Sequence[Any]) -> "Choice":
        """Those of the values that did well."""
        return Choice(tuple(value for value in self.values if json.dumps(value) in drawn))


Space = dict[str, Range | Choice]


def uniform(*, low: float, high: float) -> Range:
    """Any number from `low` to `high`."""
    return _ordered(Range(low, high))


def log_uniform(*, low: float, high: float) -> Range:
    """Any number from `low` to `high`, each power of ten as often as another."""
    return _ordered(Range(low, high, log=True))


def whole(*, low: int, high: int, step: int = 1, log: bool = False) -> Range:
    """A whole number: `low`, `low + step`, ... up to `high`; `log`: small ones as often as large ones."""
    if step < 1 or (log and step != 1):
        raise InputError(f"step is {step}; a whole number of at least 1 was expected, and none beside log: true.")
    if (high - low) % step:
        raise InputError(f"high is {high}, which is no multiple of step {step} above low {low}.")
    return _ordered(Range(low, high, log=log, step=step))


def choice(*, values: list[Any]) -> Choice:
    """One of `values`."""
    texts = [json.dumps(value) for value in values]
    if len(values) < 2 or len(set(texts)) < len(texts):
        raise InputError(f"values are {values}; a list of two or more different ones was expected.")
    return Choice(tuple(values))


def read_space(section: Mapping[str, Mapping[str, Any]]) -> Space:
    """`search.space` of an experiment: YAML key -> what its values are drawn from. Raises InputError."""
    space: Space = {}
    for key, named in section.items():
        where = f"search.space.{key}"
        fixed = [one for one in FIXED if key == one or key.startswith(f"{one}.")]
        if fixed or (key.split(".")[0] == "data" and not key.startswith(FREE_DATA)):
            raise InputError(
                f"{where} cannot be searched: with another {fixed[0] if fixed else key} the trials would be judged by "
                "other images, or other truth, and their scores could not be compared. Remove it."
            )
        try:
            space[key] = build(DISTRIBUTIONS, dict(named), key=where)
        except InputError as error:
            raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
    return space


def with_values(experiment: Experiment, values: Mapping[str, Any], *, where: str) -> Experiment:
    """The experiment with other values of some YAML keys, and without its search; `where` names them in messages.

    Raises:
        InputError: a key that does not exist (the message names the nearest), or a value that does not fit.
    """
    content = experiment.model_dump(mode="json") | {"search": None}
    for key, value in values.items():
        experiments.set_key(content, key, value, where=f"{where}: {key}")
    return experiments.check({**content, "folder": experiment.folder}, where=where)


def check(experiment: Experiment, space: Space, overrides: Sequence[Mapping[str, Any]] = ()) -> None:
    """Try every key at the ends of its range, or with each of its choices, the other keys as in the file.

    Args:
        experiment: Whose keys they are.
        space: What is drawn.
        overrides: Of the stages; they are tried, too.

    Raises:
        InputError: a key that does not exist, or a value that cannot be trained with.
    """
    from cellseg import training

    for keys in overrides:
        where = "search.overrides" if keys else "the experiment as it stands"
        try:
            training.check(with_values(experiment, keys, where=where))
        except InputError as error:
            raise InputError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from error
    for key, drawn in space.items():
        where = f"search.space.{key}"
        for value in drawn.tried():
            try:
                training.check(with_values(experiment, {key: value}, where=where))
            except InputError as error:
                hint = "" if "Did you mean" in str(error) else nearest_key(key, experiment)
                raise InputError(
                    f"{where} = {json.dumps(value)}: {str(error).removeprefix(f'{where}: ')}{hint}"
                ) from error


def nearest_key(key: str, experiment: Experiment) -> str:
    """' Did you mean ...?' for the key of the whole experiment that is nearest to an unknown one, or nothing."""
    known = list(_leaves(experiment.model_dump(mode="json", exclude={"search"})))
    if key in known:
        return ""
    last = key.split(".")[-1]
    same = [one for one in known if one.split(".")[-1] == last]
    return nearest(key, same or known) or (f" Did you mean '{same[0]}'?" if same else "")


def _leaves(content: Any, above: str = "") -> list[str]:
    """The dotted keys of all values."""
    if isinstance(content, Mapping):
        pairs: list[tuple[Any, Any]] = list(content.items())
    elif isinstance(content, list):
        pairs = list(enumerate(content))
    else:
        pairs = []
    return [above] if not pairs else [leaf for key, one in pairs for leaf in _leaves(one, f"{above}.{key}".strip("."))]


def _ordered(drawn: Range) -> Range:
    if not (drawn.low < drawn.high and math.isfinite(drawn.low) and math.isfinite(drawn.high)):
        raise InputError(f"low is {drawn.low:g} and high is {drawn.high:g}; low must be below high.")
    if drawn.log and drawn.low <= 0:
        raise InputError(f"low is {drawn.low:g}; a range by its logarithm begins above 0.")
    return drawn


DISTRIBUTIONS: dict[str, Callable[..., Range | Choice]] = {
    "uniform": uniform,
    "log_uniform": log_uniform,
    "int": whole,
    "choice": choice,
}
