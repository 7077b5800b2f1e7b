"""Scoring: the splits of a run's shards predicted and scored; its scores, error analysis and pictures.

The scores themselves are collected in `cellseg.evaluation`; two folders are compared there, too. Choosing the threshold
first is the work of `cellseg.tuning`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg import run_pictures, runs
from cellseg.classification import ClassScores
from cellseg.error_analysis import ErrorAnalysis
from cellseg.evaluation import Baselines, Scores, usual_measures
from cellseg.held_out import HeldOut, held_out
from cellseg.inference import LoadedRun, load_run
from cellseg.metrics import check_measures
from cellseg.mistakes import find_mistakes
from cellseg.report import write_report
from cellseg.sections import Evaluation
from pipelines.contrast import stretch_contrast
from pipelines.dataset import ShardReader
from pipelines.prepare import Progress

SCORED = ("validation", "test")

Watch = Callable[..., None]  # see `score_run`


@dataclass(frozen=True)
class Scored:
    """What scoring the held-out images gives.

    Args:
        scores: {"validation": as `Scores.result`, with its own `Baselines.result`, "test": as `Scores.result`}.
        baselines: As `Baselines.result`, of the test images.
        errors: As `ErrorAnalysis.result`, of the test images.
        pictures: PNG by file name in the run folder.
        captions: Content of `pictures.json`; None without pictures.
    """

    scores: dict
    baselines: dict
    errors: dict
    pictures: dict[str, bytes]
    captions: list[dict] | None

    def write(self, run: Path) -> None:
        """Write `scores.json`, `errors.json` and the pictures."""
        runs.write_json(run, runs.SCORES, self.scores | self.baselines)
        runs.write_json(run, runs.ERRORS, self.errors)
        for file, png in self.pictures.items():
            runs.write_bytes(run, file, png)
        if self.captions is not None:
            runs.write_json(run, runs.PICTURES, self.captions)


def score_held_out(
    loaded: LoadedRun, reader: ShardReader, *, progress: Progress = lambda items, total: items
) -> Scored:
    """Score validation and test images, with the threshold and the instance options that are in use."""
    errors = ErrorAnalysis()
    validation = _placed("validation", *_score_split(loaded, reader, "validation", progress))
    test, baselines = _score_split(loaded, reader, "test", progress, errors=errors)
    pictures, captions = run_pictures.draw(loaded, reader, test["per_image"])
    return Scored(validation | {"test": test}, baselines, errors.result(), pictures, captions)


def score_validation(
    loaded: LoadedRun, reader: ShardReader, *, progress: Progress = lambda items, total: items
) -> dict:
    """{"validation": as `Scores.result`}, for runs that are to be chosen from: the test images are not looked at."""
    return {"validation": _score_split(loaded, reader, "validation", progress)[0]}


def score_run(
    path: Path,
    split: str = "test",
    *,
    measures: Sequence[str] | None = None,
    progress: Progress = lambda items, total: items,
    watch: Watch | None = None,
) -> dict:
    """Score one split of a finished run again, from its shards.

    Without `measures` the usual ones and those of the experiment's evaluation section are taken, and for validation
    and test the run's `scores.json` and report are written again: that split's part, with test also the baselines and
    `errors.json`; everything else in it stays.

    Args:
        path: The run folder.
        split: "train", "validation" or "test".
        measures: Names from `cellseg.metrics.IMAGE_METRICS`; nothing is written then.
        progress: Wraps an iterable of known length, to draw a bar.
        watch: Called after each image with its name, truth, prediction, mistakes, the image and its contrast limits.

    Returns:
        As `Scores.result`, with the pooled values of `Baselines.result`.

    Raises:
        InputError: no finished run there, an unknown split, or shards that are gone or of another configuration.
    """
    chosen = None if measures is None else check_measures(measures)
    loaded = load_run(path)
    reader = shards_of(loaded.run)
    errors = ErrorAnalysis() if measures is None and split == "test" else None
    result, baselines = _score_split(loaded, reader, split, progress, chosen, watch, errors)
    if measures is None and split in SCORED:
        scores = runs.read_json(path, runs.SCORES) if (path / runs.SCORES).is_file() else {}
        runs.write_json(path, runs.SCORES, scores | _placed(split, result, baselines))
        if errors is not None:
            runs.write_json(path, runs.ERRORS, errors.result())
        write_report(path)
    return result | baselines


def _placed(split: str, result: dict, baselines: dict) -> dict:
    """A split's part of `scores.json`: those of the test images stand beside it, those of others in it."""
    return {split: result} | baselines if split == "test" else {split: result | baselines}


def shards_of(run: runs.Run) -> ShardReader:
    """The shards that a run was trained on. Raises InputError: they are gone, or of another configuration."""
    folder = Path(run.data["shards"])
    reader = ShardReader(folder)
    reader.manifest.check_config(run.experiment.data_config(), folder)
    return reader


def _score_split(
    loaded: LoadedRun,
    reader: ShardReader,
    split: str,
    progress: Progress,
    measures: Sequence[str] | None = None,
    watch: Watch | None = None,
    errors: ErrorAnalysis | None = None,
) -> tuple[dict, dict]:
    """Scores and baselines of a split; without `measures` as the experiment's evaluation section says."""
    asked = loaded.run.experiment.evaluation if measures is None else Evaluation()
    names = usual_measures(asked) if measures is None else measures
    scores, baselines, of_probability = Scores(names), Baselines(names), Scores(asked.probability or names)
    by_class = ClassScores(loaded.class_names) if loaded.class_names else None
    count = len(reader.manifest.of_split(split))
    for one in progress(held_out(loaded, reader, split), count):
        decided = loaded.decide(one.probability)
        scores.add(one.name, one.labels, decided.labels, one.ignore)
        if asked.probability:
            of_probability.add(one.name, one.labels, decided.probability, one.ignore)
        mistakes = find_mistakes(one.labels, decided.labels, one.ignore)
        scores.add_mistakes(one.name, mistakes)
        baselines.add(one.labels, one.ignore, name=one.name)
        if errors is not None:
            errors.add(_stretched(loaded, one), one.labels, decided.labels, one.ignore)
        if by_class is not None and decided.classes is not None and one.classes is not None:
            by_class.add(one.labels, one.classes, decided.labels, decided.classes, one.ignore)
        if watch is not None:
            watch(one.name, one.labels, decided.labels, mistakes, one.image, one.limits)
    result = scores.result()
    if asked.probability:
        result["probability"] = of_probability.pooled()
    if asked.parts:
        of_parts = {part: scores.part(pattern) | baselines.result(pattern) for part, pattern in asked.parts.items()}
        result["parts"] = {part: found for part, found in of_parts.items() if found["images"]}
    if by_class is not None:
        result["classification"] = by_class.result()
    return result, baselines.result()


def _stretched(loaded: LoadedRun, one: HeldOut) -> np.ndarray:
    """The image as the network sees it."""
    least = loaded.run.data["minimum_range"].get(one.image.dtype.name, 0.0)
    return stretch_contrast(one.image, limits=one.limits, minimum_range=least)
