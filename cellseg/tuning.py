"""Tuning: threshold and instance options, chosen on validation images for a named measure.

Dice at every threshold is counted in `cellseg.thresholds`; cutting a probability into cells is the work of
`cellseg.instances`. What was chosen is stored by `cellseg.workflow`.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from cellseg.detections import Detections
from cellseg.experiment import Experiment
from cellseg.held_out import HeldOut, held_out
from cellseg.inference import EnsembleRun, LoadedRun, instances_function, try_instances
from cellseg.instances import INSTANCES
from cellseg.metrics import IMAGE_METRICS, SEQUENCE_METRICS
from cellseg.named import check_options
from cellseg.sections import Tuning
from cellseg.thresholds import NUM_BINS, TOLERANCE, Choice, ThresholdCurve
from pipelines.dataset import ShardReader
from pipelines.errors import InputError, nearest
from pipelines.prepare import Progress

SPLIT = "validation"
HALF = NUM_BINS // 2
COARSE = (4, 10, *range(20, 181, 20), 190, 196)  # of NUM_BINS: 0.02, 0.05, 0.1, 0.2, ..., 0.9, 0.95, 0.98
FINE = 19  # thresholds between the neighbours of a coarse one, at most
REFINED = 3  # combinations of options whose threshold is looked for more finely
LARGEST_GRID = 200  # combinations
LISTED = 10  # combinations that are kept with their values


class Point(NamedTuple):
    """What is tried: a combination of options by its number, and the threshold step / NUM_BINS."""

    combination: int
    step: int

    @property
    def threshold(self) -> float:
        """Of the probability."""
        return self.step / NUM_BINS


@dataclass(frozen=True)
class Tuned:
    """What was chosen, Dice at every threshold, and what else was tried; None where Dice alone decided.

    `search` is {"labellings": of one image, "combinations": n, "threshold": [...], "value": [...] (of the chosen
    combination), "best": [{"instances", "threshold", "value"}]}.
    """

    choice: Choice
    curve: ThresholdCurve
    search: dict | None = None

    def as_dict(self) -> dict:
        """Content of `threshold.json`."""
        found = {} if self.search is None else {"search": self.search}
        return {**asdict(self.choice), "curve": self.curve.as_dict(), **found}


def check(experiment: Experiment, tuning: Tuning | None = None) -> list[dict[str, Any]]:
    """Check a tuning section, that of the experiment unless another is given.

    Returns:
        Every combination of the instance options to try, in the order of the file; one empty one without options.

    Raises:
        InputError: a measure or an option that is not known, a value that the option does not take, a grid too large.
    """
    tuning = experiment.tuning if tuning is None else tuning
    check_measure(tuning.measure, key="tuning.measure")
    grid, method = tuning.instances, experiment.instances
    if "name" in grid:
        raise InputError(
            f"tuning.instances.name: one method is tuned, instances.name ({method.get('name')}). Train a run for "
            "each method, or tune it anew with cellseg-evaluate RUN --tune MEASURE, and compare."
        )
    count = math.prod(map(len, grid.values()))
    if count > LARGEST_GRID:
        product = " x ".join(f"{len(values)} {option}" for option, values in grid.items())
        raise InputError(
            f"tuning.instances: {product} are {count} combinations; at most {LARGEST_GRID} are tried. "
            "Give fewer values an option."
        )
    checked: dict[str, list[Any]] = {}
    for option, values in grid.items():
        key = "tuning.instances"
        name = method.get("name")
        checked[option] = [
            check_options(INSTANCES, {"name": name, option: value}, key=key, given=("threshold",))[option]
            for value in values
        ]
        for value in checked[option]:
            _try(experiment, {option: value})
    return [dict(zip(checked, values, strict=True)) for values in itertools.product(*checked.values())]


def check_measure(name: str, *, key: str) -> None:
    """Raise InputError unless images can be tuned for this measure; `key` names where it was written."""
    if name in IMAGE_METRICS:
        return
    known = f"Known: {', '.join(IMAGE_METRICS)}."
    if name in SEQUENCE_METRICS:
        raise InputError(f"{key}: '{name}' measures a tracked sequence, and validation images are single ones. {known}")
    raise InputError(f"{key}: '{name}' is no measure.{nearest(name, IMAGE_METRICS)} {known}")


def tune(
    loaded: LoadedRun,
    reader: ShardReader,
    tuning: Tuning | None = None,
    *,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Choose the threshold, and the instance options that the section names, on the validation images alone.

    For Dice without options, pixels decide: see `ThresholdCurve.best`. Otherwise the images are cut into cells by every
    combination of options at 13 thresholds, and by the best three combinations at finer steps around their best ones:
    at most 13 x combinations + 57 labellings an image, in two passes. The values are pooled over the images, as in
    `cellseg.evaluation`. The best value wins; among equal ones the combination that stands first, then the threshold
    whose drawn area is nearest to the true one, then the one nearest to 0.5. For Dice values within TOLERANCE are
    equal. With `inference.decision: argmax` the threshold is 0.5. Of a network that finds cells one by one the
    threshold is the least score of a cell, and cells decide for Dice, too.

    Args:
        loaded: The run; its probabilities are tuned on, its own threshold is not read.
        reader: Its shards.
        tuning: Instead of the experiment's section.
        progress: Wraps the images of a pass, to draw a bar.
        say: Told how many labellings that is.

    Raises:
        InputError: the section cannot be used; see `check`.
    """
    experiment = loaded.run.experiment
    tuning = experiment.tuning if tuning is None else tuning
    combinations = check(experiment, tuning)
    fixed = experiment.inference.decision == "argmax"
    curve = ThresholdCurve()
    count = len(reader.manifest.of_split(SPLIT))
    search = None
    points = [Point(number, step) for number in range(len(combinations)) for step in ((HALF,) if fixed else COARSE)]
    if tuning.instances or tuning.measure != "dice" or experiment.detects:
        search = Search(experiment, tuning.measure, combinations)
        most = len(points) + (0 if fixed else FINE * min(REFINED, len(combinations)))
        say(f"instance options in {len(combinations)} combinations; labellings of an image: at most {most}")
    for one in progress(held_out(loaded, reader, SPLIT), count):
        curve.add(one.labels > 0, loaded.foreground(one.probability), one.ignore)
        if search is not None:
            search.add(one, loaded.evidence(one.probability), loaded.inner(one.probability), points)
    if search is None:
        return Tuned(curve.at(0.5, split=SPLIT) if fixed else curve.best(split=SPLIT), curve)
    if not fixed:
        points = search.finer()
        for one in progress(held_out(loaded, reader, SPLIT), count):
            search.add(one, loaded.evidence(one.probability), loaded.inner(one.probability), points)
    return Tuned(search.best(), curve, search.result())


def tune_together(
    loaded: LoadedRun,
    reader: ShardReader,
    tuning: Tuning | None = None,
    *,
    progress: Progress = lambda items, total: items,
) -> Choice:
    """Tune several runs that answer as one, which otherwise take the mean of their own thresholds.

    `loaded.use(choice.threshold, choice.instances)` puts the answer into effect.

    Args:
        loaded: An ensemble of `load_run`; the first run's sections hold.
        reader: Shards of any of them.
        tuning: Instead of the first run's section.
        progress: As in `tune`.

    Raises:
        InputError: the runs have not the same validation images, so that one has trained on another's.
    """
    if isinstance(loaded, EnsembleRun):
        first = loaded.runs[0]
        for other in loaded.runs[1:]:
            if _validation_of(first.data) != _validation_of(other.data):
                raise InputError(
                    f"{first.folder} and {other.folder} have other validation images: one may have trained on those "
                    "of the other, and a threshold tuned there would be wrong elsewhere. Take the mean of their "
                    "thresholds, which load_run gives."
                )
    return tune(loaded, reader, tuning, progress=progress).choice


class Search:
    """A measure at many points, collected image by image in memory that does not grow with the images.

    Args:
        experiment: Its instances section is tried with other options.
        measure: Name in `IMAGE_METRICS`.
        combinations: Options that replace those of the section.
    """

    def __init__(self, experiment: Experiment, measure: str, combinations: Sequence[Mapping[str, Any]]):
        self._name, self._measure, self._combinations = measure, IMAGE_METRICS[measure], combinations
        self._cut = [instances_function(_with(experiment, options)) for options in combinations]
        self._tallies: dict[Point, _Tally] = {}

    def add(
        self, one: HeldOut, evidence: np.ndarray | Detections, inner: np.ndarray | None, points: Sequence[Point]
    ) -> None:
        """Count one image at some points; `evidence` and `inner` are what the instance function is called with."""
        known = slice(None) if one.ignore is None else ~one.ignore
        true = int(np.count_nonzero(one.labels[known]))
        for point in points:
            labels = self._cut[point.combination](evidence, inner, threshold=point.threshold)
            counts = self._measure.count(one.labels, labels, one.ignore)
            tally = self._tallies.setdefault(point, _Tally())
            tally.counts = tally.counts + counts
            tally.true += true
            tally.drawn += int(np.count_nonzero(labels[known]))

    def finer(self) -> list[Point]:
        """Thresholds between the coarse neighbours of the best one, for each of the best combinations."""
        points = []
        for best in self._leaders()[:REFINED]:
            below = max((step for step in COARSE if step < best.step), default=0)
            above = min((step for step in COARSE if step > best.step), default=NUM_BINS)
            stride = 2 if above - below > 20 else 1
            steps = range(below + stride, above, stride)
            points += [Point(best.combination, step) for step in steps if step != best.step]
        return points

    def best(self) -> Choice:
        """The best point; without any value 0.5, the first combination and no value."""
        point = self._leaders()[0]
        value = self._value(point)
        options = dict(self._combinations[point.combination])
        return Choice(point.threshold, self._name, value, SPLIT, options)

    def result(self) -> dict:
        """What was tried; see `Tuned`."""
        leaders = self._leaders()
        own = sorted(point for point in self._tallies if point.combination == leaders[0].combination)
        return {
            "labellings": len(self._tallies),
            "combinations": len(self._combinations),
            "threshold": [point.threshold for point in own],
            "value": [self._value(point) for point in own],
            "best": [
                {
                    "instances": dict(self._combinations[point.combination]),
                    "threshold": point.threshold,
                    "value": self._value(point),
                }
                for point in leaders[:LISTED]
            ],
        }

    def _value(self, point: Point) -> float | None:
        value = self._measure.value(self._tallies[point].counts)
        return None if math.isnan(value) else float(value)

    def _loss(self, point: Point) -> float:
        """Lower is better; infinite without a value."""
        value = self._value(point)
        return math.inf if value is None else round(-value if self._measure.higher_is_better else value, 9)

    def _leaders(self) -> list[Point]:
        """The point of each combination, best combination first."""
        tolerance = TOLERANCE if self._name == "dice" else 0.0
        ranked = []
        for number in range(len(self._combinations)):
            own = [point for point in self._tallies if point.combination == number]
            loss = min(map(self._loss, own))
            good = [point for point in own if self._loss(point) <= loss + tolerance]
            leader = min(good, key=lambda point: (self._tallies[point].bias, abs(point.step - HALF)))
            ranked.append((loss, number, leader))
        return [leader for *_, leader in sorted(ranked)]


@dataclass
class _Tally:
    """Sums over the images at one point."""

    counts: Any = 0.0
    true: int = 0
    drawn: int = 0

    @property
    def bias(self) -> float:
        """How far drawn / true area is from 1; 0 without true cells."""
        return round(abs(self.drawn / self.true - 1), 9) if self.true else 0.0


def _with(experiment: Experiment, options: Mapping[str, Any]) -> Experiment:
    return experiment.model_copy(update={"instances": {**experiment.instances, **options}})


def _try(experiment: Experiment, options: Mapping[str, Any]) -> None:
    try:
        try_instances(_with(experiment, options))
    except InputError as error:
        raise InputError(f"tuning.instances: {error}") from error


def _validation_of(data: Mapping) -> Any:
    """What tells one validation split from another: its shards' checksums, or where no such are known, their folder."""
    sums = {name: value for name, value in data.get("checksums", {}).items() if name.startswith(SPLIT)}
    return sums or data["shards"]
