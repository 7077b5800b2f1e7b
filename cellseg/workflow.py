"""The main job in order: prepare if needed, train, tune the threshold, score the held-out images, report.

Each step's own work lives below: `pipelines.prepare`, `cellseg.training`, `cellseg.thresholds`,
`cellseg.evaluation`, `cellseg.report`.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cellseg import runs
from cellseg.classification import ClassScores
from cellseg.error_analysis import ErrorAnalysis
from cellseg.evaluation import DEFAULT_MEASURES, Baselines, Scores
from cellseg.experiment import Experiment
from cellseg.inference import LoadedRun, load_run, tiling
from cellseg.metrics import check_measures
from cellseg.mistakes import find_mistakes
from cellseg.networks import answer_size, network_for
from cellseg.preparation import ensure_shards, source_there
from cellseg.report import write_report
from cellseg.thresholds import ThresholdCurve
from pipelines.augment import Augmenter, folding_warnings
from pipelines.dataset import ShardReader, check_patch, minimum_ranges
from pipelines.errors import InputError
from pipelines.images import stretch_contrast
from pipelines.prepare import Progress

SCORED = ("validation", "test")
PICTURED = ("best", "typical", "worst")

Watch = Callable[..., None]  # see `evaluate_run`


def train(
    experiment: Experiment,
    run: Path,
    *,
    overwrite: bool = False,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """From raw images to a scored run.

    Args:
        experiment: What to do.
        run: The run folder to make.
        overwrite: Replace an old run, and shards of another configuration.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user which step is going on.

    Returns:
        The run folder.

    Raises:
        InputError: bad input; an old run is still there then.
    """
    from cellseg import callbacks, training

    runs.check(run, overwrite=overwrite, keep=(experiment.folder, experiment.shards(), *_raw(experiment)))
    training.prepare_devices()
    training.check(experiment)  # before any work: a typo in the last section must not cost a preparation
    say("preparing the data")
    prepared = ensure_shards(experiment, overwrite=overwrite, progress=progress)
    experiment = prepared.experiment
    reader = ShardReader(prepared.folder, verify=False)  # that was done a moment ago
    training.seed(experiment.seed)
    data = _data(experiment, reader)
    _check_foreground(data["statistics"])
    classes = data["classes"]
    prior = training.prior_of(experiment, data["statistics"]["train"], num_classes=len(classes))
    precision = training.precision_of(experiment)
    about: dict[str, Any] = {"channels": data["channels"], "prior": prior, "num_classes": len(classes)}
    network = network_for(experiment, **about, precision=precision)
    saved = None if precision == "float32" else network_for(experiment, **about)
    transfer = training.begin_from(experiment, network)
    objective, loss = training.objective_for(experiment, prior=prior)
    experiment = experiment.placed(reader.folder).model_copy(update={"loss": loss})
    patch_output = answer_size(experiment, experiment.train.patch)
    if not Augmenter(experiment.augmentation()).resizes:
        check_patch(reader.manifest.of_split("train"), patch_output)
    geometry = tiling(experiment, shapes=[tuple(shape) for shape in data["shapes"]])

    with runs.replacing(run, overwrite=overwrite):
        runs.write_text(run, runs.EXPERIMENT, experiment.to_yaml())
        runs.write_text(run, runs.ENVIRONMENT, runs.environment())
        runs.write_json(run, runs.DATA, data)
        warnings = callbacks.Warnings()
        for message in folding_warnings(experiment.augment, (experiment.train.patch, experiment.train.patch)):
            warnings.say(message)
        if transfer is not None:
            runs.write_json(run, runs.TRANSFER, transfer.as_dict())
            say(transfer.told())
        say(f"training; tensorboard --logdir {run / 'tensorboard'} shows it")
        begin = time.monotonic()
        training.fit(
            experiment,
            reader,
            network,
            objective,
            geometry=geometry,
            patch_output=patch_output,
            minimum_range=data["minimum_range"],
            work=run / runs.BACKUP,
            tensorboard=run / "tensorboard",
            warnings=warnings,
            saved=saved,
        )
        data["training_minutes"] = round((time.monotonic() - begin) / 60, 2)
        runs.write_json(run, runs.DATA, data)
        runs.write_json(run, runs.WARNINGS, warnings.messages)
        for name in (runs.HISTORY, runs.MODEL):
            os.replace(run / runs.BACKUP / name, run / name)
        say("tuning the threshold on the validation images")
        tune(run, reader)
        say("scoring the held-out images")
        evaluate(run, reader, progress=progress)
        shutil.rmtree(run / runs.BACKUP, ignore_errors=True)
        write_report(run)
    return run


def _raw(experiment: Experiment) -> list[Path]:
    return experiment.sources() if source_there(experiment) else []


def tune(run: Path, reader: ShardReader) -> None:
    """Choose the threshold of the highest Dice on the validation images and store it with its curve.

    With `inference.decision: argmax` nothing is chosen: 0.5 is where the most probable class stops being background.
    """
    loaded = LoadedRun(runs.Run.read(run, tuned=False))
    curve = ThresholdCurve()
    for _, record, probability in _probabilities(loaded, reader, "validation"):
        curve.add(record["labels"] > 0, loaded.foreground(probability), _ignore(record))
    fixed = loaded.run.experiment.inference.decision == "argmax"
    chosen = curve.at(0.5) if fixed else curve.best()
    runs.write_json(run, runs.THRESHOLD, {**asdict(chosen), "curve": curve.as_dict()})


def evaluate(run: Path, reader: ShardReader, *, progress: Progress = lambda items, total: items) -> dict:
    """Score validation and test images at the tuned threshold; write `scores.json`, `errors.json` and the pictures."""
    loaded = load_run(run)
    scores: dict = {}
    errors = ErrorAnalysis()
    for split in SCORED:
        looked_at = errors if split == "test" else None
        scores[split], baselines = _score_split(loaded, reader, split, progress, errors=looked_at)
    scores |= baselines
    runs.write_json(run, runs.SCORES, scores)
    runs.write_json(run, runs.ERRORS, errors.result())
    _draw(run, loaded, reader, scores)
    return scores


def evaluate_run(
    path: Path,
    split: str = "test",
    *,
    measures: Sequence[str] | None = None,
    progress: Progress = lambda items, total: items,
    watch: Watch | None = None,
) -> dict:
    """Score one split of a finished run again, from its shards.

    Without `measures` the usual ones are taken, and for validation and test the run's `scores.json` and report are
    written again: that split's part, with test also the baselines and `errors.json`; everything else in it stays.

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
    chosen = DEFAULT_MEASURES if measures is None else check_measures(measures)
    loaded = load_run(path)
    folder = Path(loaded.run.data["shards"])
    reader = ShardReader(folder)
    reader.manifest.check_config(loaded.run.experiment.data_config(), folder)
    errors = ErrorAnalysis() if measures is None and split == "test" else None
    result, baselines = _score_split(loaded, reader, split, progress, chosen, watch, errors)
    if measures is None and split in SCORED:
        scores = runs.read_json(path, runs.SCORES) if (path / runs.SCORES).is_file() else {}
        runs.write_json(path, runs.SCORES, scores | {split: result} | (baselines if split == "test" else {}))
        if errors is not None:
            runs.write_json(path, runs.ERRORS, errors.result())
        write_report(path)
    return result | baselines


def _score_split(
    loaded: LoadedRun,
    reader: ShardReader,
    split: str,
    progress: Progress,
    measures: Sequence[str] = DEFAULT_MEASURES,
    watch: Watch | None = None,
    errors: ErrorAnalysis | None = None,
) -> tuple[dict, dict]:
    scores, baselines = Scores(measures), Baselines(measures)
    by_class = ClassScores(loaded.class_names) if loaded.class_names else None
    count = len(reader.manifest.of_split(split))
    for sample, record, probability in progress(_probabilities(loaded, reader, split), count):
        labels = record["labels"].astype(np.int32)
        decided = loaded.decide(probability)
        scores.add(sample["name"], labels, decided.labels, _ignore(record))
        mistakes = find_mistakes(labels, decided.labels, _ignore(record))
        scores.add_mistakes(sample["name"], mistakes)
        baselines.add(labels, _ignore(record))
        if errors is not None:
            errors.add(_stretched(loaded, sample, record), labels, decided.labels, _ignore(record))
        if by_class is not None and decided.classes is not None:
            by_class.add(labels, record["classes"], decided.labels, decided.classes, _ignore(record))
        if watch is not None:
            watch(sample["name"], labels, decided.labels, mistakes, record["image"], tuple(sample["contrast"]))
    result = scores.result()
    if by_class is not None:
        result["classification"] = by_class.result()
    return result, baselines.result()


def _probabilities(
    loaded: LoadedRun, reader: ShardReader, split: str
) -> Iterator[tuple[dict, dict[str, np.ndarray], np.ndarray]]:
    for sample, record in reader.split(split):
        yield sample, record, loaded.predictor.probability(record["image"], limits=tuple(sample["contrast"]))


def _stretched(loaded: LoadedRun, sample: dict, record: dict[str, np.ndarray]) -> np.ndarray:
    """The image as the network sees it."""
    image = record["image"]
    least = loaded.run.data["minimum_range"].get(image.dtype.name, 0.0)
    return stretch_contrast(image, limits=tuple(sample["contrast"]), minimum_range=least)


def _draw(run: Path, loaded: LoadedRun, reader: ShardReader, scores: dict) -> None:
    from cellseg import figures

    ranked = sorted(
        (row for row in scores["test"]["per_image"] if row["dice"] is not None), key=lambda row: row["dice"]
    )
    if not ranked:
        return
    chosen = dict(zip(PICTURED, (ranked[-1], ranked[len(ranked) // 2], ranked[0]), strict=True))
    samples = {sample["name"]: sample for sample in reader.manifest.of_split("test")}
    pictures = []
    for kind, row in chosen.items():
        sample = samples[row["name"]]
        record = reader.read(sample)
        probability = loaded.predictor.probability(record["image"], limits=tuple(sample["contrast"]))
        decided = loaded.decide(probability)
        caption = f"{kind} by Dice ({row['dice']:.3f}): {row['name']}"
        png = figures.outlines(
            record["image"],
            record["labels"].astype(np.int32),
            decided.labels,
            limits=tuple(sample["contrast"]),
            probability=decided.probability,
        )
        file = f"pictures/test_{kind}.png"
        runs.write_bytes(run, file, png)
        pictures.append({"file": file, "section": "test", "caption": caption})
        if decided.classes is not None:
            png = figures.class_outlines(
                record["image"],
                record["classes"].astype(np.int32),
                record["labels"].astype(np.int32),
                decided.classes,
                decided.labels,
                names=loaded.class_names,
                limits=tuple(sample["contrast"]),
            )
            file = f"pictures/classes_{kind}.png"
            runs.write_bytes(run, file, png)
            pictures.append({"file": file, "section": "classes", "caption": f"classes, {caption}"})
    runs.write_json(run, runs.PICTURES, pictures)


def _check_foreground(statistics: dict) -> None:
    for split in ("train", "validation"):
        if not statistics[split]["foreground_fraction"]:
            purpose = "learn from" if split == "train" else "choose the best weights and the threshold by"
            raise InputError(
                f"The {statistics[split]['images']} images of the {split} split hold no cell: there is nothing to "
                f"{purpose}. Change the split section, or check the labels (preview.png shows them)."
            )


def _data(experiment: Experiment, reader: ShardReader) -> dict:
    """What the run saw, for `data.json`."""
    manifest = reader.manifest
    samples = manifest.of_split("train")
    return {
        "shards": str(reader.folder.resolve()),
        "checksums": {shard["file"]: shard["sha256"] for shard in manifest.shards},
        "splits": {split: len(names) for split, names in manifest.splits.items()},
        "channels": manifest.channels,
        "classes": list(manifest.classes) if _has_classes(experiment) else [],
        "shapes": sorted({tuple(sample["shape"][:2]) for sample in manifest.samples}),
        "minimum_range": minimum_ranges(samples),
        "statistics": manifest.statistics,
        "advice": manifest.advice,
    }


def _has_classes(experiment: Experiment) -> bool:
    target = experiment.target
    return (target if isinstance(target, str) else target["name"]) == "classes"


def _ignore(record: dict[str, np.ndarray]) -> np.ndarray | None:
    return record["ignore"].astype(bool) if "ignore" in record else None
