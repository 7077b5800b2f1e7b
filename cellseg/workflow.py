"""The main job in order: prepare if needed, train, tune the threshold, score the held-out images, report.

Each step's own work lives below: `pipelines.prepare`, `cellseg.training`, `cellseg.tuning`, `cellseg.scoring`,
`cellseg.report`.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellseg import runs, scoring, tuning
from cellseg.experiment import Experiment
from cellseg.inference import LoadedRun, tiling
from cellseg.networks import answer_size, network_for
from cellseg.preparation import ensure_shards, source_there
from cellseg.report import write_report
from pipelines.augment import Augmenter, folding_warnings
from pipelines.dataset import ShardReader, check_patch, minimum_ranges
from pipelines.errors import InputError
from pipelines.prepare import Progress


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
        loaded = tune(run, reader, progress=progress, say=say)
        say("scoring the held-out images")
        scoring.score_held_out(loaded, reader, progress=progress).write(run)
        shutil.rmtree(run / runs.BACKUP, ignore_errors=True)
        write_report(run)
    return run


def _raw(experiment: Experiment) -> list[Path]:
    return experiment.sources() if source_there(experiment) else []


def tune(
    run: Path,
    reader: ShardReader,
    *,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> LoadedRun:
    """Choose threshold and instance options on the validation images, as the experiment's tuning section says.

    They are stored in `threshold.json`.

    Returns:
        The run with what was chosen in use.
    """
    loaded = LoadedRun(runs.Run.read(run, tuned=False))
    tuned = tuning.tune(loaded, reader, progress=progress, say=say)
    runs.write_json(run, runs.THRESHOLD, tuned.as_dict())
    loaded.use(tuned.choice.threshold, tuned.choice.instances)
    return loaded


def tune_again(
    path: Path,
    measure: str,
    *,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Choose threshold and instance options of a finished run for another measure, without training.

    `threshold.json`, the scores of validation and test images and the report are written again, when all is scored.

    Args:
        path: The run folder; its threshold need not be there.
        measure: Name from `cellseg.metrics.IMAGE_METRICS`. The options are those of the experiment's tuning section.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user which step is going on.

    Returns:
        The scores of the test images, as `scoring.score_run`.

    Raises:
        InputError: no run there, an unknown measure, or shards that are gone or of another configuration.
    """
    tuning.check_measure(measure, key="--tune")
    read = runs.Run.read(path, tuned=False)
    section = read.experiment.tuning.model_copy(update={"measure": measure})
    tuning.check(read.experiment, section)
    reader = scoring.shards_of(read)
    loaded = LoadedRun(read)
    say("tuning on the validation images")
    tuned = tuning.tune(loaded, reader, section, progress=progress, say=say)
    loaded.use(tuned.choice.threshold, tuned.choice.instances)
    say("scoring validation and test images")
    scored = scoring.score_held_out(loaded, reader, progress=progress)
    runs.write_json(path, runs.THRESHOLD, tuned.as_dict())
    scored.write(path)
    write_report(path)
    return scored.scores["test"] | scored.baselines


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
