"""Training: network, loss, optimiser and callbacks put together, and fit.

The order of the whole job (prepare, train, tune, evaluate, report) is the business of `cellseg.workflow`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cellseg import callbacks as watch
from cellseg.dashboard import Dashboard
from cellseg.experiment import Experiment
from cellseg.inference import Predictor, Tiling, instances_function, tiling
from cellseg.losses import LOSSES
from cellseg.models import MODELS
from cellseg.models.unet import check_size, output_size
from cellseg.named import build, check_options, weight_map_function
from cellseg.preparation import check_sections
from cellseg.runs import HISTORY, MODEL
from cellseg.streams import stream
from pipelines.dataset import Batches, ShardReader
from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.targets import num_outputs

TRAINABLE = ("foreground",)
GIVEN = ("input_shape", "outputs", "output_bias")  # set by the program, not by the YAML


class Trainer(keras.Model):
    """A network with its loss on logits; saving it saves the network alone.

    The weight map arrives as Keras' `sample_weight` and goes to the loss itself, which sends it to its pixel-wise
    terms: Keras would multiply a region loss by the map's mean.

    Args:
        network: Model whose layer `logits` feeds its output `probability`.
        objective: (y_true, logits, weight_map) -> scalar.
    """

    def __init__(self, network: keras.Model, objective: Callable):
        super().__init__(name="trainer")
        self.network = network
        self.objective = objective
        self._logits = keras.Model(network.input, network.get_layer("logits").output)

    def call(self, inputs, training=None):
        """Logits of a batch."""
        return self._logits(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The objective, plus the layers' own losses (L2)."""
        loss = self.objective(y, y_pred, sample_weight)
        for penalty in self.losses:
            loss = loss + keras.ops.cast(penalty, loss.dtype)
        return loss

    def save(self, filepath, overwrite=True, **options):
        """Save the network, whole or not at all."""
        with whole_file(Path(filepath)) as path:
            self.network.save(path, **options)


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
    target = experiment.target if isinstance(experiment.target, str) else experiment.target["name"]
    if target not in TRAINABLE:
        raise InputError(
            f"target: '{target}' can be prepared and looked at (cellseg-prepare --show), but no network is "
            f"trained on it yet. Train on: {', '.join(TRAINABLE)}."
        )
    build(LOSSES, experiment.loss, key="loss")
    patch_output(experiment)
    network_for(experiment, channels=1, foreground_fraction=None)
    geometry = tiling(experiment, shapes=[(experiment.train.patch, experiment.train.patch)])
    if geometry.overlap >= geometry.output:
        raise InputError(
            f"inference.overlap must be below the tile's answer of {geometry.output} px, got {geometry.overlap}."
        )
    # The rest shows what it does not accept on a blank patch, and not after an hour of training.
    instances_function(experiment)(np.zeros((8, 8), np.float32), threshold=0.5)


def patch_output(experiment: Experiment) -> int:
    """Side of the network's answer to a training patch. Raises InputError for a patch that it cannot take."""
    options = check_options(MODELS, experiment.model, key="model", given=GIVEN)
    geometry = {name: options.get(name, default) for name, default in (("depth", 4), ("padding", "valid"))}
    check_size(experiment.train.patch, **geometry)
    output = output_size(experiment.train.patch, **geometry)
    assert output is not None
    return output


def network_for(experiment: Experiment, *, channels: int, foreground_fraction: float | None) -> keras.Model:
    """The experiment's network for images of any legal size; its output starts at the prevalence.

    Args:
        experiment: Its `model` section is read.
        channels: Of the images.
        foreground_fraction: Of the training split; None = unknown, the output starts at one half.
    """
    given: dict[str, Any] = {"input_shape": (None, None, channels), "outputs": num_outputs("foreground")}
    if foreground_fraction is not None:
        fraction = float(np.clip(foreground_fraction, 0.001, 0.999))
        given["output_bias"] = float(np.log(fraction / (1 - fraction)))
    return build(MODELS, experiment.model, key="model", given=given)


def objective_for(experiment: Experiment, *, foreground_fraction: float | None) -> tuple[Callable, dict[str, Any]]:
    """The experiment's loss and its section with every weight resolved for the measured foreground fraction."""
    loss = build(LOSSES, experiment.loss, key="loss")
    options = loss.resolved(0.5 if foreground_fraction is None else foreground_fraction)
    return LOSSES[experiment.loss["name"]](**options), {"name": experiment.loss["name"], **options}


def fit(
    experiment: Experiment,
    reader: ShardReader,
    network: keras.Model,
    objective: Callable,
    *,
    geometry: Tiling,
    patch_output: int,
    minimum_range: dict[str, float],
    work: Path,
    tensorboard: Path,
    warnings: watch.Warnings,
) -> None:
    """Train a network; its best weights, judged by Dice on whole validation images, end in `work / MODEL`.

    Args:
        experiment: Its train, target and augment sections are read.
        reader: The shards.
        network: From `network_for`.
        objective: From `objective_for`.
        geometry: For the validation images.
        patch_output: Side of the network's answer to a training patch.
        minimum_range: From `pipelines.dataset.minimum_ranges`.
        work: Folder for the history and the best weights so far.
        tensorboard: Folder for the dashboard's logs.
        warnings: Where guards speak.
    """
    train = experiment.train
    batches = Batches(
        reader,
        patch=train.patch,
        output=patch_output,
        batch_size=train.batch_size,
        target=experiment.target,
        augment=experiment.augmentation(),
        oversample=train.oversample,
        weight_map=weight_map_function(experiment.weight_map),
        minimum_range=minimum_range,
        seed=experiment.seed,
    )
    steps = train.steps_per_epoch or batches.steps_per_epoch()
    trainer = Trainer(network, objective)
    trainer.compile(keras.optimizers.Adam(train.learning_rate), jit_compile=train.jit_compile)
    predictor = Predictor(
        network,
        tiling=geometry,
        channels=reader.manifest.channels,
        contrast=experiment.data.contrast,
        minimum_range=minimum_range,
    )
    validation = watch.WholeImageValidation(
        lambda: map(_validation_image, reader.split("validation")),
        lambda image: predictor.probability(image.image, limits=image.limits)[..., 0],
    )
    try:
        trainer.fit(
            stream(batches),
            epochs=train.epochs,
            steps_per_epoch=steps,
            verbose=0,
            shuffle=False,
            callbacks=_callbacks(experiment, validation, work, tensorboard, warnings, steps),
        )
    except Exception as error:
        if batches.failure is not None:  # TensorFlow has wrapped it
            raise batches.failure from error
        raise


def _callbacks(
    experiment: Experiment,
    validation: watch.WholeImageValidation,
    work: Path,
    tensorboard: Path,
    warnings: watch.Warnings,
    steps: int,
) -> list[keras.callbacks.Callback]:
    train = experiment.train
    best = {"monitor": watch.MONITOR, "mode": "max"}
    chosen: list[keras.callbacks.Callback] = [
        validation,  # first: the others read what it adds to the logs
        watch.CollapseGuard(validation, warnings),
        keras.callbacks.ModelCheckpoint(str(work / MODEL), save_best_only=True, **best),
        keras.callbacks.ReduceLROnPlateau(
            patience=train.plateau, factor=train.plateau_factor, min_delta=1e-4, min_lr=1e-6, **best
        ),
        keras.callbacks.EarlyStopping(patience=train.early_stopping, min_delta=1e-4, **best),
        keras.callbacks.CSVLogger(str(work / HISTORY)),
        Dashboard(validation, tensorboard),
        watch.Progress(train.epochs, steps),
    ]
    if train.max_hours is not None:
        chosen.append(watch.TimeBudget(train.max_hours))
    return chosen


def _validation_image(pair: tuple[dict, dict[str, np.ndarray]]) -> watch.ValidationImage:
    sample, record = pair
    low, high = sample["contrast"]
    ignore = record.get("ignore")
    return watch.ValidationImage(
        name=sample["name"],
        image=record["image"],
        mask=record["labels"] > 0,
        limits=(low, high),
        ignore=None if ignore is None else ignore.astype(bool),
    )
