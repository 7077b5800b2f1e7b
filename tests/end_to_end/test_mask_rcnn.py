"""Mask R-CNN from files to scored, predicted and tracked cells: one tiny run, the commands in this process."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

import cellseg
from cellseg.cli import evaluate, predict, shell, train
from cellseg.networks import network_for
from cellseg.runs import Run
from cellseg.transfer import start_from
from tests.datasets import write_consep

# A network that learns bright discs in a few seconds; four cells an image, room for three in a patch.
EXPERIMENT = """
name: found
data: {source: raw, layout: consep, channels: rgb, contrast: [0, 100], shards: shards, format: npz}
split: {by: published, train: 0.75, validation: 0.25}
target: classes
augment: [{name: HorizontalFlip, p: 0.5}]
model:
  name: mask_rcnn
  backbone: resnet18
  width: 8
  fpn_channels: 16
  box_features: 32
  mask_channels: 16
  mask_layers: 1
  anchor_sizes: [12]
  training_proposals: [64, 32]
  proposals: [64, 32]
  anchor_samples: 32
  roi_samples: 32
  detections: 40
train:
  patch: 64
  batch_size: 4
  epochs: 2
  steps_per_epoch: 16
  learning_rate: 5e-3
  schedule: {name: cosine}
  max_objects: 3
  ema: 0.8
  clip_norm: 5.0
  l2: 1e-5
tuning: {instances: {mask_threshold: [0.4, 0.5]}}
"""
NAMES = ["miscellaneous", "inflammatory", "epithelial", "spindle-shaped"]


def raw_data(folder):
    """CoNSeP's layout, with an image that holds no cell at all and one that holds a cell of one pixel."""
    write_consep(folder, train=8, test=2)
    blank = folder / "Train"
    cv2.imwrite(str(blank / "Images" / "train_1.png"), np.full((64, 64, 3), 20, np.uint8))
    tifffile.imwrite(blank / "Inst" / "train_1.tif", np.zeros((64, 64), np.uint16))
    cv2.imwrite(str(blank / "Class" / "train_1.png"), np.zeros((64, 64), np.uint8))
    labels = tifffile.imread(blank / "Inst" / "train_2.tif")
    labels[0, 0] = 9
    tifffile.imwrite(blank / "Inst" / "train_2.tif", labels)
    cv2.imwrite(str(blank / "Class" / "train_2.png"), np.where(labels == 9, 1, labels).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("found")
    source = raw_data(folder / "raw")
    (folder / "found.yaml").write_text(EXPERIMENT)
    call = [str(folder / "found.yaml"), f"data.source={source}", "--out", str(folder / "run")]
    assert shell.run(train.train, call) == 0
    return folder


@pytest.fixture(scope="module")
def loaded(job):
    return cellseg.load_run(job / "run")


def frame(job, number=1):
    return cv2.imread(str(job / "raw" / "Test" / "Images" / f"test_{number}.png"))[..., ::-1]


def test_it_trains_and_is_judged_by_average_precision(job):
    history = pd.read_csv(job / "run" / "history.csv")
    assert len(history) == 2 and history["learning_rate"].iloc[-1] < 1e-3
    assert history["val_average_precision"].max() > 0.3 and history["val_dice"].max() > 0.3
    threshold = json.loads((job / "run" / "threshold.json").read_text())
    assert threshold["measure"] == "average_precision" and threshold["split"] == "validation"
    assert threshold["instances"]["mask_threshold"] in (0.4, 0.5)
    assert Run.read(job / "run").experiment.instances["mask_threshold"] == threshold["instances"]["mask_threshold"]


def test_another_training_can_begin_with_its_weights(job):
    checked = Run.read(job / "run").experiment
    network = network_for(checked.model_copy(update={"target": "foreground"}), channels=3)
    transfer = start_from(network, job / "run")
    assert "network/conv1" in transfer.loaded and "mask_head/mask_fcn1" in transfer.loaded and not transfer.new
    assert transfer.reshaped == ["box_head/code", "box_head/class", "mask_head/mask_fcn_logits"]


def test_crowded_patches_are_in_the_warnings(job):
    crowded, *others = json.loads((job / "run" / "warnings.json").read_text())
    assert "more than train.max_objects = 3 cells" in crowded
    # So small a network decides by rounding whether two images are too few to tell its epochs apart.
    assert all("(2 images, jackknife)" in other for other in others)


def test_held_out_images_are_scored_with_every_cell(job):
    scores = json.loads((job / "run" / "scores.json").read_text())["test"]
    assert scores["images"] == 2 and scores["measures"]["average_precision"] > 0.3
    # The patches had room for three cells; scoring counts all.
    kinds = scores["classification"]["classes"]
    assert list(kinds) == NAMES and [row["cells"] for row in kinds.values()] == [2, 2, 2, 2]


def test_the_report_shows_it(job):
    page = (job / "run" / "report.html").read_text()
    assert "Average precision, at the best of eleven least scores, is measured on whole validation images" in page
    assert "pixels whose score x mask is at least so much, before they become cells" in page
    assert "A cell counts from a score of" in page and "Classes of held-out images" in page
    assert list((job / "run" / "tensorboard").glob("*/events*"))


def test_python_gets_labels_probability_classes_and_scores(job, loaded):
    result = loaded.predict(frame(job))
    assert result.labels.shape == result.probability.shape == result.classes.shape == (64, 64)
    assert result.labels.dtype == np.int32 and result.labels.max() == len(result.scores) > 1
    assert (result.scores >= loaded.threshold).all() and (result.scores <= 1).all()
    np.testing.assert_array_equal(result.classes > 0, result.labels > 0)
    assert all(len(np.unique(result.classes[result.labels == one])) == 1 for one in range(1, len(result.scores) + 1))


def test_an_image_larger_than_a_tile_has_its_cells_once(job, loaded):
    wide = np.concatenate([frame(job), frame(job, 2)], axis=1)
    truth = [tifffile.imread(job / "raw" / "Test" / "Inst" / f"test_{number}.tif") for number in (1, 2)]
    found = loaded.predict(wide).labels
    assert found.shape == (64, 128)
    both = sum(loaded.predict(frame(job, number)).labels.max() for number in (1, 2))
    assert abs(found.max() - both) <= 1 and np.mean((found > 0)[np.concatenate(truth, axis=1) > 0]) > 0.5


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 1, 3), (5, 90, 3)])
def test_an_image_without_cells_has_none(loaded, shape):
    result = loaded.predict(np.full(shape, 20, np.uint8))
    assert result.labels.shape == shape[:2] and result.labels.max() == len(result.scores) == 0


def test_predicting_files_writes_labels_scores_and_a_table(job, monkeypatch, loaded):
    monkeypatch.setattr("cellseg.prediction.load_run", lambda *_, **__: loaded)
    images = job / "raw" / "Test" / "Images"
    out = job / "out"
    call = [str(job / "run"), str(images), "--out", str(out), "--overlay", "--probability", "uint8", "--measure"]
    assert shell.run(predict.predict, call) == 0
    labels = tifffile.imread(out / "test_1.tif")
    scores = pd.read_csv(out / "test_1_scores.csv")
    assert list(scores) == ["page", "label", "class", "score"]
    assert scores["label"].tolist() == list(range(1, labels.max() + 1))
    assert (out / "test_1_overlay.png").is_file() and tifffile.imread(out / "test_1_probability.tif").max() > 20
    cells = pd.read_csv(out / "cells.csv")
    own = cells[cells["image"] == "test_1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[["label", "class", "score"]], scores[list(scores)[1:]])
    kinds = tifffile.imread(out / "test_1_classes.tif")
    for _, row in own.iterrows():
        assert set(np.unique(kinds[labels == row["label"]])) == {1 + NAMES.index(row["class"])}


def test_cells_are_tracked(job, monkeypatch, loaded):
    monkeypatch.setattr("cellseg.series_prediction.load_run", lambda *_, **__: loaded)
    frames = job / "frames"
    frames.mkdir()
    for number in range(3):
        tifffile.imwrite(frames / f"t{number:03d}.tif", np.roll(frame(job), 2 * number, axis=1), photometric="rgb")
    call = [str(job / "run"), str(frames), "--out", str(job / "tracked"), "--track", "--no-report"]
    assert shell.run(predict.predict, call) == 0
    assert (job / "tracked" / "res_track.txt").is_file() and len(list((job / "tracked").glob("mask*.tif"))) == 3


def test_an_image_that_does_not_fit_into_memory_is_refused(job, monkeypatch, capsys, loaded):
    monkeypatch.setattr("cellseg.prediction.load_run", lambda *_, **__: loaded)
    path = job / "large.tif"
    tifffile.imwrite(path, np.zeros((512, 512, 3), np.uint8), photometric="rgb", tile=(64, 64))
    call = [str(job / "run"), str(path), "--out", str(job / "pieces"), "--memory", "1MB"]
    assert shell.run(predict.predict, call) == shell.BAD_INPUT
    assert "cannot be read in pieces: mask_rcnn finds cells one by one" in " ".join(capsys.readouterr().err.split())


def test_a_split_is_scored_again(job, monkeypatch, capsys, loaded):
    monkeypatch.setattr("cellseg.scoring.load_run", lambda folder: loaded)
    call = [str(job / "run"), "--split", "validation", "--measure", "average_precision", "--measure", "dice"]
    assert shell.run(evaluate.evaluate, call) == 0
    scores = json.loads((job / "run" / "scores.json").read_text())["validation"]["measures"]
    assert f"{scores['average_precision']:.4f}" in capsys.readouterr().out
