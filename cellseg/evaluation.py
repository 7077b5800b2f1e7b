"""Scores of a data set: measures pooled, with intervals, and per image; baselines; two folders compared.

The measures live in `cellseg.metrics`, kinds of mistakes in `cellseg.mistakes`, files that belong together in
`cellseg.pairing`; the splits of a run are scored in `cellseg.scoring`.
"""

import fnmatch
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from cellseg.intervals import bootstrap_intervals
from cellseg.metrics import IMAGE_METRICS, SEQUENCE_METRICS, check_measures, count_image
from cellseg.metrics.aogm import Aogm
from cellseg.metrics.sequence import read_tracking
from cellseg.mistakes import KINDS, Mistakes, find_mistakes
from cellseg.pairing import Pair, pair_files
from cellseg.sections import Evaluation
from pipelines.errors import InputError

DEFAULT_MEASURES = (
    "pixel_accuracy",
    "iou",
    "dice",
    "average_precision",
    "average_precision_75",
    "average_precision_90",
    "seg",
    "count_error",
)
BASELINES = {"baseline": "all background", "baseline_foreground": "all foreground"}
# Measures that walk over rows and columns; all others take volumes as well.
FLAT = ("warping_error", "object_hausdorff", "boundary_iou", "hausdorff", "hausdorff95", "average_surface_distance")

# Called after each image: the pair of files, its name, truth, prediction, mistakes (None of a probability).
Watch = Callable[[Pair, str, np.ndarray, np.ndarray, Mistakes | None], None]


def usual_measures(section: Evaluation) -> list[str]:
    """What the splits of a run are scored by: DEFAULT_MEASURES, and what the evaluation section adds."""
    return list(dict.fromkeys([*DEFAULT_MEASURES, *section.measures]))


def check_section(section: Evaluation, names: Sequence[str] | None = None) -> None:
    """Check the evaluation section of an experiment.

    Args:
        section: Of the experiment.
        names: Of the test images; None leaves the parts unchecked.

    Raises:
        InputError: an unknown measure, one that takes no probability under `probability`, or a part without images.
    """
    for key, measures in (("measures", section.measures), ("probability", section.probability)):
        if measures:
            try:
                check_measures(measures)
            except InputError as error:
                raise InputError(f"evaluation.{key}: {error}") from error
    for measure in section.probability:
        if not IMAGE_METRICS[measure].takes_probability:
            takers = [name for name, one in IMAGE_METRICS.items() if one.takes_probability]
            raise InputError(
                f"evaluation.probability: {measure} is a measure of cells, not of probabilities. Write it under "
                f"evaluation.measures, or choose among {', '.join(takers)}."
            )
    if names is None:
        return
    called = f"They are called {', '.join(names[:3])}, ..." if names else "There is none."
    for part, pattern in section.parts.items():
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise InputError(f"evaluation.parts.{part}: no test image has a name like '{pattern}'. {called}")


class Scores:
    """Scores of a data set, one image at a time, in memory that does not grow with the images' size.

    Args:
        measures: Names from `cellseg.metrics.IMAGE_METRICS`.

    Raises:
        InputError: an unknown measure.
    """

    def __init__(self, measures: Sequence[str] = DEFAULT_MEASURES) -> None:
        self.measures = check_measures(measures)
        self._counts: dict[str, list[np.ndarray]] = {name: [] for name in self.measures}
        self._per_image: list[dict] = []
        self._mistakes: list[dict] = []

    def add(
        self, name: str, labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None
    ) -> dict:
        """Count one image, (H, W), and return its own scores: {"name": name, measure: value or None}."""
        row: dict = {"name": name}
        for measure, counts in count_image(self.measures, labels_true, labels_pred, ignore).items():
            self._counts[measure].append(counts)
            row[measure] = _or_none(IMAGE_METRICS[measure].value(counts))
        self._per_image.append(row)
        return row

    def add_mistakes(self, name: str, mistakes: Mistakes) -> None:
        """Count the kinds of one image's cells."""
        self._mistakes.append({"name": name, **mistakes.counts})

    def pooled(self, pattern: str = "*") -> dict:
        """{measure: value over all images whose names fit}; None where it is undefined, and without images."""
        fits = [fnmatch.fnmatchcase(row["name"], pattern) for row in self._per_image]
        pooled = {}
        for name, all_counts in self._counts.items():
            counts = [one for one, fit in zip(all_counts, fits, strict=True) if fit]
            pooled[name] = _or_none(IMAGE_METRICS[name].value(sum(counts[1:], counts[0]))) if counts else None
        return pooled

    def part(self, pattern: str) -> dict:
        """{"images": how many names fit the pattern, "measures": {measure: pooled value of these images}}."""
        fits = [row["name"] for row in self._per_image if fnmatch.fnmatchcase(row["name"], pattern)]
        return {"images": len(fits), "measures": self.pooled(pattern)}

    def result(self) -> dict:
        """What has been added so far, ready for JSON: an undefined value (NaN) is None.

        Returns:
            {"images": n, "measures": {measure: pooled value}, "intervals": {measure: [low, high] (95 %, see
            `cellseg.intervals`), None with fewer than two images that have a value}, "undefined": {measure: images in
            which it is undefined}, "per_image": [{"name": ..., measure: value}], "mistakes": {kind: cells} as
            `cellseg.mistakes` counts them, None if they were not counted, "mistakes_per_image": [{"name": ...,
            kind: cells}]}. Without images every measure is None.
        """
        intervals = bootstrap_intervals(self._counts, {name: IMAGE_METRICS[name].value for name in self.measures})
        return {
            "images": len(self._per_image),
            "measures": self.pooled(),
            "intervals": {name: None if ends is None else list(ends) for name, ends in intervals.items()},
            "undefined": {name: sum(row[name] is None for row in self._per_image) for name in self.measures},
            "per_image": list(self._per_image),
            "mistakes": {kind: sum(row[kind] for row in self._mistakes) for kind in KINDS} if self._mistakes else None,
            "mistakes_per_image": list(self._mistakes),
        }


class Baselines:
    """What two answers that need no network score: all background, and all foreground (one object).

    A score means something only beside these: with 8 % foreground, all background has a pixel accuracy of 0.92.

    Args:
        measures: Names from `cellseg.metrics.IMAGE_METRICS`.
    """

    def __init__(self, measures: Sequence[str] = DEFAULT_MEASURES) -> None:
        self._background, self._foreground = Scores(measures), Scores(measures)

    def add(self, labels_true: np.ndarray, ignore: np.ndarray | None = None, *, name: str = "") -> None:
        """Count one image's truth, (H, W)."""
        self._background.add(name, labels_true, np.zeros(labels_true.shape, np.int32), ignore)
        self._foreground.add(name, labels_true, np.ones(labels_true.shape, np.int32), ignore)

    def result(self, pattern: str = "*") -> dict:
        """{"baseline": {measure: pooled value of all background}, "baseline_foreground": {the same}}.

        Of the images whose names fit the pattern.
        """
        return {"baseline": self._background.pooled(pattern), "baseline_foreground": self._foreground.pooled(pattern)}


def evaluate_folders(
    truth: Path | str,
    prediction: Path | str,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    progress: Callable[[list], Iterable] = iter,
    watch: Watch | None = None,
    watch_operations: Callable[[Aogm], None] | None = None,
) -> dict:
    """Score the label files of one folder against those of another, or one file against one.

    Files match as `cellseg.pairing.pair_files` says and hold what `Pair.read` says. If all measures take
    probabilities (`Measure.takes_probability`), a prediction may be a float TIFF in [0, 1], and the files
    STEM_probability.tif that cellseg-predict writes are taken before its labels.

    Args:
        truth: Folder of label TIFFs or PNGs, a CTC folder (`01_GT`), or a file.
        prediction: The same for the prediction (`01_RES`).
        measures: Names from `cellseg.metrics.METRICS`; those of sequences need CTC folders with tables of tracks.
        progress: Wraps the list of pairs, or of frames, to show how far it is.
        watch: Sees every image; see `Watch`.
        watch_operations: Sees the corrections that TRA counts, if the tables of tracks were read.

    Returns:
        As `Scores.result`, with "operations": {"NS": n, ...} if the tables of tracks were read. Measures of sequences
        have no interval and no row an image; with such measures alone mistakes are not counted (None).

    Raises:
        FileNotFoundError: a folder or file does not exist.
        InputError: no label files, a file without a partner, sizes or numbers of pages that differ, a float prediction
            where a measure takes labels alone, labels that disagree with their table of tracks.
    """
    over_time = [name for name in measures if name in SEQUENCE_METRICS and name not in IMAGE_METRICS]
    single = [name for name in measures if name not in over_time]
    chosen = check_measures(single) if single or not over_time else []
    found = _evaluate_tracking(truth, prediction, over_time, progress, watch_operations) if over_time else {}
    if not chosen:
        return found
    result = _evaluate_images(truth, prediction, chosen, progress, watch)
    for key in ("measures", "intervals"):
        both = result[key] | found.get(key, {})
        result[key] = {name: both[name] for name in dict.fromkeys(measures)}
    return result | ({"operations": found["operations"]} if "operations" in found else {})


def _evaluate_images(
    truth: Path | str,
    prediction: Path | str,
    measures: list[str],
    progress: Callable[[list], Iterable],
    watch: Watch | None,
) -> dict:
    labels_only = [name for name in measures if not IMAGE_METRICS[name].takes_probability]
    scores = Scores(measures)
    for pair in progress(pair_files(truth, prediction, probability=not labels_only)):
        for name, labels_true, labels_pred in pair.read():
            is_float = labels_pred.dtype.kind == "f"
            if is_float and labels_only:
                raise InputError(_no_probability(pair.prediction, labels_only))
            flat = [measure for measure in measures if measure in FLAT]
            if labels_true.ndim == 3 and flat:
                raise InputError(
                    f"{pair.truth} is a volume of {len(labels_true)} slices; {', '.join(flat)} measure 2-D images "
                    "alone. Choose other measures with --measure."
                )
            scores.add(name, labels_true, labels_pred)
            mistakes = None if is_float else find_mistakes(labels_true, labels_pred)
            if mistakes is not None:
                scores.add_mistakes(name, mistakes)
            if watch is not None:
                watch(pair, name, labels_true, labels_pred, mistakes)
    return scores.result()


def _no_probability(file: Path, labels_only: list[str]) -> str:
    takers = [name for name, measure in IMAGE_METRICS.items() if measure.takes_probability]
    verb = "needs" if len(labels_only) == 1 else "need"
    return (
        f"{file} holds fractions, a probability, but {', '.join(labels_only)} {verb} labels (whole numbers, one id a "
        f"cell). Give label files, or choose among the measures that take probabilities: --measure {' '.join(takers)}."
    )


def _evaluate_tracking(
    truth: Path | str,
    prediction: Path | str,
    measures: list[str],
    progress: Callable[[list], Iterable],
    watch_operations: Callable[[Aogm], None] | None,
) -> dict:
    tracking = read_tracking(truth, prediction, measures, progress=progress)
    values = {name: _or_none(SEQUENCE_METRICS[name].value(tracking)) for name in measures}
    result = {
        "images": tracking.num_frames,
        "measures": values,
        "intervals": dict.fromkeys(values),
        "undefined": {},
        "per_image": [],
        "mistakes": None,
        "mistakes_per_image": [],
    }
    if tracking.tracks_true is None or tracking.tracks_pred is None:
        return result
    if watch_operations is not None:
        watch_operations(tracking.aogm)
    return result | {"operations": dict(tracking.aogm.counts)}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
