"""Parts of a training: the batches that an experiment learns from, and the validation that it is judged by.

The training itself is set up in `cellseg.training`; batches are made in `pipelines`.
"""

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from cellseg import answers
from cellseg import callbacks as watch
from cellseg.detecting import DetectionValidation
from cellseg.experiment import Experiment
from cellseg.inference import Predictor, Tiling, instances_function
from cellseg.named import weight_map_function
from cellseg.networks import target_name
from cellseg.predictors import Detector
from pipelines.dataset import Batches, ShardReader
from pipelines.objects import ObjectBatches


def batches_of(experiment: Experiment, reader: ShardReader, *, output: int, minimum_range: dict[str, float]) -> Batches:
    """The training batches of an experiment; `output` is the side of the network's answer to a training patch."""
    train = experiment.train
    options: dict[str, Any] = {
        "patch": train.patch,
        "batch_size": train.batch_size,
        "augment": experiment.augmentation(),
        "oversample": train.oversample,
        "minimum_range": minimum_range,
        "seed": experiment.seed,
    }
    if experiment.detects:
        with_classes = target_name(experiment.target) == "classes"
        return ObjectBatches(reader, max_objects=train.max_objects, with_classes=with_classes, **options)
    weight_map = weight_map_function(experiment.weight_map)
    return Batches(reader, output=output, target=experiment.target, weight_map=weight_map, **options)


def validation_of(
    experiment: Experiment,
    reader: ShardReader,
    network: keras.Model,
    *,
    geometry: Tiling,
    minimum_range: dict[str, float],
) -> watch.WholeImageValidation:
    """The callback that judges the network on the whole validation images."""
    look = Detector if experiment.detects else Predictor
    predictor = look(
        network,
        tiling=geometry,
        channels=reader.manifest.channels,
        contrast=experiment.data.contrast,
        minimum_range=minimum_range,
        # A network that learns from enlarged cells is judged by enlarged images; averaging over sizes is for later.
        zoom=experiment.inference.zoom if len(experiment.inference.zoom) == 1 else (1.0,),
    )
    with_classes, examples = target_name(experiment.target) == "classes", experiment.train.dashboard.pictures

    def images() -> Iterator[watch.ValidationImage]:
        for pair in reader.split("validation"):
            yield _validation_image(*pair, with_classes=with_classes, with_labels=experiment.detects)

    def answer(image: watch.ValidationImage) -> Any:
        return predictor.probability(image.image, limits=image.limits)

    if experiment.detects:
        return DetectionValidation(images, answer, draw=instances_function(experiment), examples=examples)
    return watch.WholeImageValidation(
        images,
        answer,
        foreground=functools.partial(
            answers.foreground, target=target_name(experiment.target), decision=experiment.inference.decision
        ),
        num_classes=len(reader.manifest.classes) if with_classes else 0,
        examples=examples,
    )


def _validation_image(
    sample: dict, record: dict[str, np.ndarray], *, with_classes: bool, with_labels: bool = False
) -> watch.ValidationImage:
    low, high = sample["contrast"]
    ignore = record.get("ignore")
    return watch.ValidationImage(
        name=sample["name"],
        image=record["image"],
        mask=record["labels"] > 0,
        limits=(low, high),
        ignore=None if ignore is None else ignore.astype(bool),
        classes=record["classes"] if with_classes else None,
        labels=record["labels"].astype(np.int32) if with_labels else None,
    )
