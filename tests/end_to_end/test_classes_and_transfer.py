"""Segmentation with classes, phases, and a run that begins with another's weights: the commands in this process."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from cellseg.cli import predict, shell, train
from tests.datasets import write_consep

EXPERIMENT = """
name: kinds
data: {source: raw, layout: consep, channels: rgb, contrast: [0, 100], shards: shards, format: npz}
split: {by: published, train: 0.75, validation: 0.25}
target: TARGET
model: {name: unet, filters: 8, depth: 1, padding: same, up: bilinear, batch_norm: true, dropout: 0.0}
loss: {name: categorical_ce, class_weights: frequency}
train:
  patch: 32
  batch_size: 8
  oversample: 0.8
  steps_per_epoch: 20
  PHASES
instances: {name: components, min_size: 10}
"""
PHASES = "phases: [{epochs: 3, learning_rate: 0.01}, {epochs: 1, optimizer: {name: sgd}, learning_rate: 1e-3}]"
NAMES = ["miscellaneous", "inflammatory", "epithelial", "spindle-shaped"]


def coloured(folder):
    """CoNSeP's layout with nuclei whose green says their class."""
    write_consep(folder, train=8, test=2)
    for path in folder.glob("*/Images/*.png"):
        kinds = cv2.imread(str(path.parents[1] / "Class" / path.name), cv2.IMREAD_UNCHANGED)
        image = cv2.imread(str(path))
        image[..., 1] = np.choose(kinds, [0, 40, 100, 170, 255])
        cv2.imwrite(str(path), image)
    return folder


def write(folder, name, *, target, phases):
    path = folder / name
    path.write_text(EXPERIMENT.replace("TARGET", target).replace("PHASES", phases))
    return path


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    coloured(folder / "raw")
    path = write(folder, "kinds.yaml", target="classes", phases=PHASES)
    assert shell.run(train.train, [str(path), f"data.source={folder / 'raw'}", "--out", str(folder / "run")]) == 0
    return folder


def test_classes_are_learned_and_scored(job):
    history = pd.read_csv(job / "run" / "history.csv")
    assert len(history) == 4 and history["learning_rate"].iloc[-1] == pytest.approx(1e-3)
    assert history["val_class_dice"].max() > 0.6  # one class of four, as a constant, would have 0.1
    found = json.loads((job / "run" / "scores.json").read_text())["test"]["classification"]
    assert list(found["classes"]) == NAMES
    assert [row["cells"] for row in found["classes"].values()] == [2, 2, 2, 2]
    assert found["mean"]["class_f1"] > 2 * found["baseline"]["mean_class_f1"]


def test_the_report_shows_the_classes(job):
    page = (job / "run" / "report.html").read_text()
    assert all(name in page for name in NAMES) and "Classes of held-out images" in page
    assert (job / "run" / "pictures" / "classes_best.png").is_file()


def test_predicting_writes_the_class_of_every_cell(job):
    image = job / "raw" / "Test" / "Images" / "test_1.png"
    assert shell.run(predict.predict, [str(job / "run"), str(image), "--out", str(job / "out")]) == 0
    labels, classes = (tifffile.imread(job / "out" / f"test_1{end}.tif") for end in ("", "_classes"))
    np.testing.assert_array_equal(classes > 0, labels > 0)
    assert all(len(np.unique(classes[labels == one])) == 1 for one in np.unique(labels[labels > 0]))
    truth = cv2.imread(str(job / "raw" / "Test" / "Class" / "test_1.png"), cv2.IMREAD_UNCHANGED)
    both = (truth > 0) & (classes > 0)
    assert (truth[both] == classes[both]).mean() > 0.6


def test_a_run_begins_with_the_weights_of_another(job, capsys):
    path = write(job, "softmax.yaml", target="{name: foreground, softmax: true}", phases=f"start_from: {job / 'run'}")
    arguments = [str(path), f"data.source={job / 'raw'}", "train.epochs=1", "inference.decision=argmax"]
    assert shell.run(train.train, [*arguments, "--out", str(job / "second")]) == 0
    transfer = json.loads((job / "second" / "transfer.json").read_text())
    assert transfer["reshaped"] == ["logits"] and not transfer["new"] and len(transfer["loaded"]) == 12
    assert transfer["told"] in " ".join((job / "second" / "report.html").read_text().split())
    threshold = json.loads((job / "second" / "threshold.json").read_text())
    assert threshold["threshold"] == 0.5 and threshold["measure"] == "dice"
