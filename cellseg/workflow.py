"""The main job in order: prepare if needed, train, tune the threshold, score the held-out images, report.

Each step's own work lives below: `pipelines.prepare`, `cellseg.training`, `cellseg.tuning`, `cellseg.scoring`,
`cellseg.report`.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellseg import environment, evaluation, reproduction, runs, scoring, tuning
from cellseg.experiment import Experiment
from cellseg.inference import LoadedRun, tiling
from cellseg.networks import answer_size, network_for
from cellseg.preparation import ensure_shards, source_there
from cellseg.report import write_report
from pipelines.augment import Augmenter, folding_warnings
from pipelines.dataset import ShardReader, check_patch, minimum_ranges
from pipelines.errors import InputError
from pipelines.prepare import Progress

if TYPE_CHECKING:
    from cellseg.callbacks import Warnings
    from cellseg.placement import Placement
    from cellseg.resuming import Interrupted


def train(
    experiment: Experiment,
    run: Path,
    *,
    overwrite: bool = False,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
    listen: Callable[[str], Any] | None = None,
    tested: bool = True,
    placement: "Placement | None" = None,
    interrupted: "Interrupted | None" = None,
    hours: float | None = None,
) -> Path | None:
    """From raw images to a scored run.

    Args:
        experiment: What to do.
        run: The run folder to make.
        overwrite: Replace an old run, and shards of another configuration.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user which step is going on.
        listen: As in `cellseg.training.fit`; what it raises ends the training.
        tested: False leaves the test images alone: validation scores, and neither pictures nor a report.
        placement: Where to train; None = as the experiment's distribution section says.
        interrupted: What the run folder holds already, to go on from; None = a new run.
        hours: Of training, in this sitting; None = what `train.max_hours` leaves.

    Returns:
        The run folder; None for a worker that is not the chief, who alone makes it.

    Raises:
        InputError: bad input; an old run is still there then.
    """
    from cellseg import callbacks, detecting, distribution, guards, resuming, training

    if placement is None:
        training.prepare_devices()
        with distribution.placed(experiment) as place:  # before TensorFlow computes anything
            options: dict[str, Any] = {"overwrite": overwrite, "listen": listen, "tested": tested, "hours": hours}
            options["interrupted"] = interrupted
            return train(experiment, run, progress=progress, say=say, placement=place, **options)
    given, checkpoint = experiment, interrupted.checkpoint if interrupted is not None else None
    if placement.chief and interrupted is None:
        runs.check(run, overwrite=overwrite, keep=(experiment.folder, experiment.shards(), *_raw(experiment)))
    training.check(experiment)  # before any work: a typo in the last section must not cost a preparation
    evaluation.check_section(experiment.evaluation)
    say("preparing the data")
    with placement.after_chief():
        try:
            prepared = ensure_shards(experiment, overwrite=overwrite and placement.chief, progress=progress)
        except InputError as error:
            if checkpoint is None:
                raise
            raise InputError(
                f"{run} cannot go on: {error} That is for a new run; this one goes on when its data are as they were."
            ) from error
    experiment = prepared.experiment
    reader = ShardReader(prepared.folder, verify=False)  # that was done a moment ago
    evaluation.check_section(experiment.evaluation, reader.manifest.splits["test"])
    training.seed(experiment.seed)
    data = _data(experiment, reader)
    _check_foreground(data["statistics"])
    if interrupted is not None:
        interrupted.check_data(data)
    classes = data["classes"]
    prior = training.prior_of(experiment, data["statistics"]["train"], num_classes=len(classes))
    precision = training.precision_of(experiment)
    about: dict[str, Any] = {"channels": data["channels"], "prior": prior, "num_classes": len(classes)}
    with placement.scope():
        network = network_for(experiment, **about, precision=precision)
    saved = None if precision == "float32" else network_for(experiment, **about)
    transfer = training.begin_from(experiment, network) if checkpoint is None else None
    objective, loss = training.objective_for(experiment, prior=prior)
    experiment = experiment.placed(reader.folder).model_copy(update={"loss": loss})
    patch_output = answer_size(experiment, experiment.train.patch)
    if not Augmenter(experiment.augmentation()).resizes:
        check_patch(reader.manifest.of_split("train"), patch_output)
    geometry = tiling(experiment, shapes=[tuple(shape) for shape in data["shapes"]])
    sizes: dict[str, Any] = {"patch_output": patch_output, "minimum_range": data["minimum_range"]}
    if objective is not None and not placement.chief:  # a network with a loss of its own trains on one device
        training.follow(experiment, reader, network, objective, **sizes, placement=placement)
        return None

    guards.check_disk(run, network)
    warnings = callbacks.Warnings()
    if interrupted is None:
        into = runs.replacing(run, overwrite=overwrite, begun=resuming.begun(given, experiment))
    else:
        into = resuming.continuing(run)
    with into, runs.locked(run):
        if interrupted is not None:
            runs.write_text(run, runs.EXPERIMENT, experiment.to_yaml())
            resuming.note_again(run)
        runs.write_json(run, runs.DATA, data)
        if not (run / reproduction.RECIPE).is_file():
            reproduction.write_recipe(run)
        if checkpoint is None:
            _warn(experiment, reader, warnings)
        if transfer is not None:
            runs.write_json(run, runs.TRANSFER, transfer.as_dict())
            say(transfer.told())
        say(f"training; tensorboard --logdir {run / 'tensorboard'} shows it")
        seconds = training.fit(
            experiment,
            reader,
            network,
            objective,
            geometry=geometry,
            **sizes,
            work=run / runs.BACKUP,
            tensorboard=run / "tensorboard",
            warnings=warnings,
            saved=saved,
            listen=listen,
            placement=placement,
            checkpoint=checkpoint,
            hours=hours,
        )
        data |= {"training_minutes": round(seconds / 60, 2), "peak_memory_mb": environment.peak_memory_mb()}
        runs.write_json(run, runs.DATA, data)
        runs.write_json(run, runs.WARNINGS, warnings.messages)
        for name in (runs.HISTORY, runs.MODEL):
            if (run / runs.BACKUP / name).is_file():  # else it was moved before an interruption
                os.replace(run / runs.BACKUP / name, run / name)
        with detecting.crowds_told(warnings) if experiment.detects else contextlib.nullcontext():
            say("tuning the threshold on the validation images")
            loaded = tune(run, reader, progress=progress, say=say)
            if tested:
                say("scoring the held-out images")
                scoring.score_held_out(loaded, reader, progress=progress).write(run)
            else:
                runs.write_json(run, runs.SCORES, scoring.score_validation(loaded, reader, progress=progress))
        runs.write_json(run, runs.WARNINGS, warnings.messages)
        if tested:
            write_report(run)
        runs.end(run)
    return run


def resume(
    run: Path,
    given: Experiment | None = None,
    overrides: tuple[str, ...] = (),
    *,
    hours: float | None = None,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> Path | None:
    """Go on with a run that was interrupted, as if it had not been.

    Args:
        run: The run folder.
        given: The experiment that it was begun with, to be sure; None = the run's own.
        overrides: For the run's own experiment: keys that may be changed.
        hours, progress, say: As in `train`.

    Returns:
        As `train`.

    Raises:
        InputError: it is no run folder, is finished, or is of another configuration or other data; nothing was changed.
    """
    from cellseg import resuming

    interrupted = resuming.read(run, given, overrides)
    return train(interrupted.experiment, run, interrupted=interrupted, hours=hours, progress=progress, say=say)


def _warn(experiment: Experiment, reader: ShardReader, warnings: "Warnings") -> None:
    """Say what can be known to go wrong before a training begins."""
    from cellseg import guards

    for message in folding_warnings(experiment.augment, (experiment.train.patch, experiment.train.patch)):
        warnings.say(message)
    guards.check_held_out("validation", reader.manifest.statistics["validation"], warnings)
    if experiment.split.fold is None:  # the test images of all folds are scored together
        guards.check_held_out("test", reader.manifest.statistics["test"], warnings)
    guards.check_alignment(reader, warnings)


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

    `threshold.json`, the scores of validation and test images and the report are written again, when all is scored;
    `threshold.json` notes when it was, and with which revision.

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
    runs.write_json(path, runs.THRESHOLD, tuned.as_dict() | {"tuned_again": environment.now()})
    runs.write_text(path, reproduction.RECIPE, reproduction.recipe(path))
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
