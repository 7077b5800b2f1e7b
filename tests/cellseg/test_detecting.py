"""Experiments whose network finds cells one by one: what the file may say, and what watches their training."""

import json
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from cellseg import detecting, training
from cellseg import experiment as experiments
from cellseg.callbacks import BestWeights, ValidationImage, Warnings
from cellseg.checkpoints import Checkpoint, Place, remembered
from cellseg.detections import draw, nothing
from cellseg.inference import EnsembleRun, LoadedRun, instances_function
from cellseg.predictors import ManyCellsWarning
from pipelines.dataset import ShardReader
from pipelines.errors import InputError
from pipelines.objects import ObjectBatches
from tests.cellseg.test_detections import detections
from tests.datasets import discs, write_shards
from tests.runs import experiment

MODEL = {"name": "mask_rcnn", "backbone": "resnet18", "width": 8, "fpn_channels": 8, "anchor_sizes": [12]}


def test_an_experiment_needs_the_model_alone():
    checked = experiment(model=MODEL)
    assert checked.detects and checked.loss == {"name": "mask_rcnn"}
    assert checked.instances == {"name": "detections"} and checked.tuning.measure == "average_precision"
    assert not experiment().detects and experiment().tuning.measure == "dice"
    assert experiment(model=MODEL, tuning={"measure": "seg"}).tuning.measure == "seg"
    detecting.check(checked)
    frozen = {**MODEL, "batch_norm": "frozen"}
    detecting.check(experiment(model={**frozen, "pretrained": "coco.npz"}))
    detecting.check(experiment(model=frozen, train={"start_from": "runs/other"}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"target": "distance"}, "target: Mask R-CNN learns box, class and mask of each cell; .* not 'distance'"),
        ({"target": {"name": "foreground", "softmax": True}}, "target: Mask R-CNN learns .*'softmax': True"),
        ({"loss": {"name": "dice"}}, "loss: Mask R-CNN has a loss of its own. Leave the loss section out, got .*dice"),
        ({"weight_map": {"name": "border"}}, "weight_map: Mask R-CNN weighs no pixels"),
        (
            {"instances": {"name": "watershed"}},
            "instances.name: 'watershed' does not go with model.name mask_rcnn",
        ),
        ({"instances": {"name": "detections", "sigma": 1}}, "instances.sigma: 'detections' takes no such key"),
        ({"instances": {"name": "detections", "mask_threshold": 2}}, r"mask_threshold must be in \[0, 1\], got 2"),
        ({"inference": {"symmetries": 8}}, "inference.symmetries is 8, but Mask R-CNN takes no other than 1"),
        ({"inference": {"blend": "halo"}}, "inference.blend is 'halo', but Mask R-CNN takes no other than None"),
        (
            {"inference": {"method": "resize"}},
            "inference.method is 'resize', but Mask R-CNN takes no other than",
        ),
        ({"inference": {"zoom": [1, 2]}}, r"inference.zoom: Mask R-CNN looks at one size, got \[1.0, 2.0\]"),
        ({"inference": {"engine": "openvino"}}, "inference.engine: Mask R-CNN is computed by Keras"),
        ({"distribution": {"name": "mirrored"}}, "distribution: Mask R-CNN trains on one device"),
        (
            {"model": {**MODEL, "batch_norm": "frozen"}},
            "model.batch_norm is frozen, but the weights .* are random.*model.pre",
        ),
        ({"train": {"patch": 100}}, "Mask R-CNN cannot take a 100x100 tile.*96 and 128"),
        ({"model": {**MODEL, "widht": 3}}, "model.widht: 'mask_rcnn' takes no such key. Did you mean 'width'?"),
        ({"model": {**MODEL, "classes": 3}}, "model.classes: 'mask_rcnn' takes no such key"),
        ({"tuning": {"instances": {"depth": [1]}}}, "tuning.instances.depth: 'detections' takes no such key"),
    ],
)
def test_what_means_nothing_to_it_is_refused(sections, message):
    with pytest.raises(InputError, match=message):
        training.check(experiment(**{"model": MODEL} | sections))


@pytest.mark.parametrize("name", ["dsb2018", "glas", "consep"])
def test_the_experiments_that_come_with_the_project_are_accepted(name):
    checked = experiments.read(Path(__file__).parents[2] / "experiments" / f"{name}-mask-rcnn.yaml")
    training.check(checked)
    assert checked.name == f"{name}-mask-rcnn" and checked.train.max_hours <= 2


def test_detections_are_for_networks_that_detect():
    with pytest.raises(InputError, match="'detections' does not go with model.name unet, which answers pixel by pixel"):
        instances_function(experiment(instances={"name": "detections"}))


def judged(found, *, labels=None):
    """A validation of one image in which `found` is found, and its logs."""
    labels = discs(0) if labels is None else labels
    image = ValidationImage("a", np.zeros((64, 64, 1)), labels > 0, (0, 1), labels=labels)
    validation = detecting.DetectionValidation(lambda: [image], lambda image: found, draw=draw)
    logs = {}
    validation.on_epoch_end(0, logs)
    return validation, logs


def four_boxes(scores, *, labels=None):
    """A square of full height and width for each disc of 13 px."""
    labels = discs(0) if labels is None else labels
    places = [np.nonzero(labels == number) for number in range(1, 5)]
    boxes = [(r.min(), c.min(), r.max() + 1, c.max() + 1) for r, c in places]
    order = np.argsort(-np.array(scores))
    return detections(np.array(boxes)[order], np.array(scores)[order], shape=(64, 64))


def test_validation_looks_for_the_best_score():
    # Three right ones above 0.6, and the fourth right one at 0.15 below a wrong one at 0.3.
    right = four_boxes([0.9, 0.8, 0.7, 0.15])
    wrong = detections([[0, 0, 3, 3]], [0.3], shape=(64, 64))
    both = type(right)(
        (64, 64),
        *(
            np.concatenate([getattr(right, name)[:3], getattr(wrong, name), getattr(right, name)[3:]])
            for name in ("boxes", "scores", "classes", "masks")
        ),
    )
    validation, logs = judged(both)
    assert logs["val_average_precision"] == pytest.approx(4 / 5)  # at 0.05 and 0.1; 3 of 4 above 0.3
    assert logs["val_score_threshold"] == 0.05 and logs["val_detections"] == 3 / 4
    area = np.count_nonzero(discs(0))
    assert logs["val_dice"] == pytest.approx(2 * area / (area + 4 * 121 + 9), abs=0.02)  # discs of radius 6 are 11 wide
    assert validation.num_found == 5 and len(validation.examples) == 1


def test_nothing_found_and_nothing_there():
    _, logs = judged(nothing((64, 64)))
    assert logs["val_average_precision"] == logs["val_dice"] == logs["val_detections"] == 0
    _, logs = judged(nothing((64, 64)), labels=np.zeros((64, 64), np.int32))
    assert logs["val_average_precision"] == 0  # undefined: no figure that could steer


def test_a_network_that_has_blown_up_is_said():
    found = four_boxes([0.9, 0.8, 0.7, 0.6])
    found.masks[:] = np.nan
    with pytest.raises(InputError, match="answers NaN after epoch 1"):
        judged(found)
    validation = detecting.DetectionValidation(list, lambda image: None, draw=draw)
    with pytest.raises(InputError, match="answers NaN after epoch 3"):
        validation.on_epoch_end(2, {"loss": float("nan")})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (nothing((64, 64)), "has found no cell at all"),
        (detections([[0, 0, 3, 3]], [0.9], shape=(64, 64)), "has found no cell that is there"),
    ],
)
def test_a_collapse_is_said_after_five_epochs_and_so_is_the_recovery(found, said):
    validation, logs = judged(found)
    told = Warnings()
    guard = detecting.DetectionGuard(validation, told)
    for epoch in range(4):
        guard.on_epoch_end(epoch, logs)
    assert not told.messages
    guard.on_epoch_end(4, logs)
    guard.on_epoch_end(5, logs)
    assert len(told.messages) == 1 and said in told.messages[0] and "model.anchor_sizes" in told.messages[0]
    guard.on_epoch_end(6, {"val_average_precision": 0.1})
    assert "recovered from its collapse in epoch 7" in told.messages[-1]


def test_patches_with_too_many_cells_are_said_once(tmp_path):
    batches = ObjectBatches(ShardReader(write_shards(tmp_path, 6)), max_objects=3, patch=64, batch_size=2)
    told = Warnings()
    watch = detecting.CrowdWatch(batches, told)
    watch.on_epoch_end(0)
    assert not told.messages
    batches.batch(0)
    watch.on_epoch_end(1)
    watch.on_epoch_end(2)
    assert len(told.messages) == 1
    assert "2 training patches held more than train.max_objects = 3 cells" in told.messages[0]


def test_crowded_patches_are_counted_over_an_interruption(tmp_path):
    reader = ShardReader(write_shards(tmp_path, 6))
    first, second = (ObjectBatches(reader, max_objects=3, patch=64, batch_size=2) for _ in range(2))
    first.batch(0)
    kept = json.loads(json.dumps(remembered([detecting.CrowdWatch(first, Warnings())])))
    told = Warnings()
    watch = detecting.CrowdWatch(second, told)
    Checkpoint(Place(), {}, kept).remind([watch])
    second.batch(1)
    watch.on_epoch_end(0)
    first.batch(1)  # as if nothing had come between
    assert (
        f"4 training patches held more than train.max_objects = 3 cells; the smallest of them, {first.left_out}"
        in (told.messages[0])
    )


def test_tiles_with_too_many_cells_are_counted_while_images_are_scored(capsys):
    told = Warnings()
    with detecting.crowds_told(told):
        pass
    assert told.messages == []
    with detecting.crowds_told(told):
        for found in (41, 52):
            warnings.warn(f"{found} cells were found in a tile of 64 px", ManyCellsWarning, stacklevel=1)
    assert told.messages == [
        "While images were scored, 2 tiles held more cells than the network can name; those beyond count as missed. "
        "The first: 41 cells were found in a tile of 64 px"
    ]
    assert told.messages[0] in capsys.readouterr().err


def test_where_average_precision_is_the_same_dice_decides(tmp_path):
    inputs = keras.layers.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    keeper = BestWeights(tmp_path, "val_average_precision", "val_dice")
    keeper.set_model(model)
    kept = []
    for value, (precision, dice) in enumerate([(0.5, 0.6), (0.5, 0.7), (0.4, 0.9), (0.5, 0.65)]):
        model.set_weights([np.full((1, 1), value)])
        keeper.on_epoch_end(value, {"val_average_precision": precision, "val_dice": dice})
        kept.append(float(keras.saving.load_model(tmp_path / keeper.file).get_weights()[0][0, 0]))
    assert kept == [0, 1, 1, 1]


def test_runs_that_detect_are_not_averaged():
    class Member:
        def __init__(self, model):
            self.run = type("Run", (), {"folder": "runs/a", "experiment": experiment(model=model)})()

    members: list[LoadedRun] = [Member({"name": "unet"}), Member(MODEL)]  # type: ignore[list-item]
    with pytest.raises(InputError, match="runs/a cannot be averaged with others: mask_rcnn finds cells one by one"):
        EnsembleRun(members)
