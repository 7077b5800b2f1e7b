"""Training: network, loss, optimiser and callbacks put together.

Fitting, phase by phase, is the work of `cellseg.fitting`; the order of the whole job (prepare, train, tune, evaluate,
report) that of `cellseg.workflow`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cellseg import callbacks as watch
from cellseg import detecting, guards, termination, tuning
from cellseg.checkpointing import Watchers
from cellseg.checkpoints import Checkpoint
from cellseg.dashboard import Dashboard
from cellseg.experiment import Experiment
from cellseg.fitting import Fitting
from cellseg.inference import Tiling, tiling, try_instances
from cellseg.losses import LOSSES
from cellseg.named import build
from cellseg.networks import answer_size, answering, network_for, outputs_of, target_name
from cellseg.optimizers import OPTIMIZERS, SCHEDULES
from cellseg.placement import Placement
from cellseg.preparation import check_sections
from cellseg.runs import HISTORY, Run
from cellseg.sections import Phase
from cellseg.trainer import save_network, set_l2
from cellseg.training_parts import batches_of, validation_of
from cellseg.transfer import Transfer, start_from
from pipelines.dataset import ShardReader
from pipelines.errors import InputError, InterruptionError, TerminationError


def prepare_devices() -> None:
    """Let a GPU's memory grow with need instead of taking all of it; nothing happens without TensorFlow or a GPU."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def seed(value: int) -> None:
    """Seed weights and dropout; batches have their own seeds (`pipelines.dataset`)."""
    keras.utils.set_random_seed(value)


def check(experiment: Experiment) -> None:
    """Check every named section and the patch before any work is done. Raises InputError."""
    check_sections(experiment)
    target = target_name(experiment.target)
    if experiment.detects:
        detecting.check(experiment)
    loss = None if experiment.detects else build(LOSSES, experiment.loss, key="loss")
    for phase in experiment.train.all_phases():
        optimizer_for(phase, steps_per_epoch=100)
    answer_size(experiment, experiment.train.patch)
    network_for(experiment, channels=1, num_classes=2)
    if loss is not None and target != "classes":  # how many classes there are is known when the data are
        _try_loss(loss, outputs_of(experiment.target, num_classes=0))
    start = experiment.start_from()
    if start is not None:
        Run.read(start)
    geometry = tiling(experiment, shapes=[(experiment.train.patch, experiment.train.patch)])
    if geometry.overlap >= geometry.output:
        raise InputError(
            f"inference.overlap must be below the tile's answer of {geometry.output} px, got {geometry.overlap}."
        )
    # What these do not accept shows on a blank patch, and not after an hour of training.
    try_instances(experiment)
    tuning.check(experiment)


def prior_of(experiment: Experiment, statistics: dict, *, num_classes: int) -> list[float]:
    """Share of each of the network's classes among the training pixels, background first; they add up to 1.

    Args:
        experiment: Its target is read.
        statistics: Of the training split, from the manifest.
        num_classes: Of the data, without background.
    """
    fraction = statistics["foreground_fraction"] or 0.0
    if target_name(experiment.target) != "classes":
        return [1 - fraction, fraction]
    shares = list(statistics["class_fractions"] or [1.0])
    return shares + [0.0] * (num_classes + 1 - len(shares))


def objective_for(experiment: Experiment, *, prior: Sequence[float]) -> tuple[Callable | None, dict[str, Any]]:
    """The experiment's loss and its section, with every weight resolved for the measured shares of the classes.

    A network that finds cells one by one has its loss inside: None stands for it.

    Raises:
        InputError: a loss that does not fit the number of the network's outputs.
    """
    if experiment.detects:
        return None, experiment.loss
    loss = build(LOSSES, experiment.loss, key="loss")
    options = loss.resolved(1 - prior[0], list(prior))
    objective = LOSSES[experiment.loss["name"]](**options)
    _try_loss(objective, outputs_of(experiment.target, num_classes=len(prior) - 1))
    return objective, {"name": experiment.loss["name"], **options}


def precision_of(experiment: Experiment) -> str:
    """The policy that the network computes in: `auto` is mixed_float16 on a GPU and float32 elsewhere."""
    precision = experiment.train.precision
    if precision != "auto":
        return precision
    return "mixed_float16" if keras.distribution.list_devices("gpu") else "float32"


def begin_from(experiment: Experiment, network: keras.Model) -> Transfer | None:
    """Give the network the weights of the run that `train.start_from` names, if it names one."""
    start = experiment.start_from()
    return None if start is None else start_from(network, start)


def optimizer_for(phase: Phase, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """A fresh optimiser with the learning rate or schedule of a phase. Raises InputError."""
    rate: Any = phase.learning_rate
    if phase.schedule is not None:
        given = {"learning_rate": rate, "epochs": phase.epochs, "steps_per_epoch": steps_per_epoch}
        rate = build(SCHEDULES, phase.schedule, key="train.schedule", given=given)
    shared: dict[str, Any] = {"global_clipnorm": phase.clip_norm, "clipvalue": phase.clip_value}
    if phase.ema is not None:
        shared |= {"use_ema": True, "ema_momentum": phase.ema}
    given = {"learning_rate": rate, "shared": shared}
    return build(OPTIMIZERS, phase.optimizer or {}, key="train.optimizer", given=given)


def fit(
    experiment: Experiment,
    reader: ShardReader,
    network: keras.Model,
    objective: Callable | None,
    *,
    geometry: Tiling,
    patch_output: int,
    minimum_range: dict[str, float],
    work: Path,
    tensorboard: Path,
    warnings: watch.Warnings,
    saved: keras.Model | None = None,
    listen: Callable[[str], keras.callbacks.Callback] | None = None,
    checkpoint: Checkpoint | None = None,
    hours: float | None = None,
    placement: Placement | None = None,
) -> float:
    """Train a network; its best weights, judged on whole validation images, end in `work / MODEL`.

    Every phase begins with a fresh optimiser and, from the second on, with the best weights so far.

    Args:
        experiment: Its train, target and augment sections are read.
        reader: The shards.
        network: From `cellseg.networks.network_for`.
        objective: From `objective_for`.
        geometry: For the validation images.
        patch_output: Side of the network's answer to a training patch.
        minimum_range: From `pipelines.dataset.minimum_ranges`.
        work: Folder for the history, the best weights so far and the checkpoint.
        tensorboard: Folder for the dashboard's logs.
        warnings: Where guards speak.
        saved: The same network in float32, to be written to disk where `network` computes in mixed precision.
        listen: Given the name in the logs of what steers training, a callback that comes last, in every phase.
        checkpoint: Where to go on; None = begin.
        hours: For this sitting; None = what `train.max_hours` leaves.
        placement: Where the network was made, and trains; None = on one device.

    Returns:
        Seconds of training, over all sittings.

    Raises:
        InputError: As `cellseg.fitting.Fitting.run`.
    """
    train, placement = experiment.train, placement or Placement()
    if train.jit_compile is None:  # uncompiled, JAX would compute operation by operation
        train = train.model_copy(update={"jit_compile": keras.backend.backend() == "jax"})
    batches = batches_of(experiment, reader, output=patch_output, minimum_range=minimum_range)
    steps = train.steps_per_epoch or batches.steps_per_epoch()
    if objective is None:
        trainer, judged = network, network
    else:
        trainer, judged = placement.trainer(network, objective, saved=saved), placement.judged(answering(network))
    validation = validation_of(experiment, reader, judged, geometry=geometry, minimum_range=minimum_range)
    dashboard = Dashboard(validation, tensorboard, experiment=experiment, example=batches.example)
    watchers = _watchers(experiment, validation, work, dashboard, warnings, steps)
    if isinstance(validation, detecting.DetectionValidation):
        keep = functools.partial(save_network, network, saved=saved)
        _detect(watchers, validation, batches, watch.BestWeights(work, validation.monitor, watch.MONITOR, save=keep))
    if listen is not None:
        watchers.last.append(listen(validation.monitor))
    with placement.running():
        Fitting(
            trainer,
            network,
            train,
            batches,
            watchers,
            optimizer_for=placement.optimizer_for(optimizer_for),
            callbacks_for=_phase_callbacks,
            folder=work,
            stream=placement.stream,
            rewind=dashboard.rewind,
        ).run(checkpoint, hours=hours)
    placement.over()
    return watchers.budget.seconds


def follow(
    experiment: Experiment,
    reader: ShardReader,
    network: keras.Model,
    objective: Callable,
    *,
    patch_output: int,
    minimum_range: dict[str, float],
    placement: Placement,
) -> None:
    """Train as a worker that is not the chief, until that says that the training is over; arguments as of `fit`.

    Raises:
        InterruptionError: The chief has gone, or stopped with an error.
    """
    batches = batches_of(experiment, reader, output=patch_output, minimum_range=minimum_range)
    trainer = placement.trainer(network, objective, saved=None)
    built = [(variable, variable.regularizer) for variable in network.trainable_variables]

    def compiled(phase: Phase, steps: int) -> None:
        for variable, regularizer in built:
            variable.regularizer = regularizer
        if phase.l2 is not None:
            set_l2(network, phase.l2)
        trainer.compile(placement.optimizer_for(optimizer_for)(phase, steps_per_epoch=steps))

    try:
        with termination.postponed():  # the chief is told as well, and ends when it has written a checkpoint
            placement.follow(trainer, compiled, lambda first: placement.stream(batches, first_step=first))
    except Exception as error:
        if isinstance(error, InterruptionError) and termination.asked():
            raise TerminationError from error
        if batches.failure is not None:  # TensorFlow has wrapped it
            raise batches.failure from error
        raise


def _watchers(
    experiment: Experiment,
    validation: watch.WholeImageValidation,
    work: Path,
    dashboard: Dashboard,
    warnings: watch.Warnings,
    steps: int,
) -> Watchers:
    train = experiment.train
    epochs = train.total_epochs()
    position = watch.Position(steps)
    best = watch.BestWeights(work, validation.monitor)
    budget = guards.TimeBudget(train.max_hours)
    disk = guards.DiskSpace(work)
    divergence = guards.Divergence(warnings)
    first = [
        position,
        guards.FiniteLoss(position),
        watch.AuxiliaryWeight(train.auxiliary_weight, train.auxiliary_decay, epochs),
        disk,
        validation,  # the others read what it adds to the logs
        guards.CollapseGuard(validation, warnings),
        guards.SmallValidation(validation, warnings),
        divergence,
        best,
    ]
    last = [
        watch.History(work / HISTORY),
        dashboard,
        watch.Progress(epochs, position, monitor=validation.monitor),
        budget,
    ]
    return Watchers(
        first, last, position, best, budget, disk, divergence, warnings, validation.monitor, over=dashboard.over
    )


def _detect(
    watchers: Watchers, validation: detecting.DetectionValidation, batches: Any, best: watch.BestWeights
) -> None:
    """Put in what differs for a network that finds cells one by one."""
    others: dict[type, list] = {
        watch.AuxiliaryWeight: [],
        guards.CollapseGuard: [
            detecting.DetectionGuard(validation, watchers.warnings),
            detecting.CrowdWatch(batches, watchers.warnings),
        ],
        watch.BestWeights: [best],
    }
    watchers.first = [one for callback in watchers.first for one in others.get(type(callback), [callback])]
    watchers.best = best


def _phase_callbacks(phase: Phase, monitor: str) -> tuple[list, list]:
    """What a phase adds: before the validation, and after it."""
    best: dict[str, Any] = {"monitor": monitor, "mode": "max", "min_delta": 1e-4}
    before = [] if phase.ema is None else [watch.AverageWeights()]
    rate: keras.callbacks.Callback = watch.LearningRateLog()
    if phase.schedule is None:
        rate = keras.callbacks.ReduceLROnPlateau(
            patience=phase.plateau, factor=phase.plateau_factor, min_lr=min(1e-6, phase.learning_rate or 1e-6), **best
        )
    return before, [rate, keras.callbacks.EarlyStopping(patience=phase.early_stopping, **best)]


def _try_loss(loss: Callable, outputs: int) -> None:
    """Call a loss once on blank arrays: it says what does not fit before any work is done."""
    blank = np.zeros((1, 2, 2, outputs), np.float32)
    loss(blank, blank, np.ones((1, 2, 2, 1), np.float32))
