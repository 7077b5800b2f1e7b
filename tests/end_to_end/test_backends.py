"""cellseg-train on the JAX backend where TensorFlow is not installed: nothing finds it."""

import os
import subprocess
import sys

import pytest

from tests.datasets import write_pairs

PROGRAM = """
import importlib.machinery
import sys

finder = importlib.machinery.PathFinder
find = finder.find_spec
hidden = lambda name: name.split(".")[0] == "tensorflow"
finder.find_spec = classmethod(lambda cls, name, *rest: None if hidden(name) else find(name, *rest))
from cellseg.cli import predict, shell, train
status = shell.run({command}, sys.argv[1:])
assert "tensorflow" not in sys.modules
sys.exit(status)
"""
EXPERIMENT = """
name: cells
data: {source: raw, layout: pairs, format: FORMAT, shards: shards}
augment: [{name: elastic_grid, sigma: 2}, {name: HorizontalFlip}]
weight_map: {name: border}
model: MODEL
train: {patch: 32, batch_size: 2, steps_per_epoch: 2, TRAIN}
"""
UNET = {
    "MODEL": "{name: unet, filters: 4, depth: 2, padding: same, up: bilinear, batch_norm: true}",
    "TRAIN": "epochs: 2",
}
DMCN = {
    "MODEL": "{name: dmcn, filters: 4}",
    "TRAIN": "phases: [{epochs: 2, optimizer: {name: sgd}, clip_norm: 1, l2: 1e-4}, "
    "{epochs: 1, ema: 0.9, schedule: {name: cosine}}]",
}
PRETRAINED = {"MODEL": "{name: pretrained, backbone: mobilenetv2, weights: random}", "TRAIN": "epochs: 1"}


def run(command, *arguments, backend, cwd):
    environment = {**os.environ, "KERAS_BACKEND": backend, "CELLSEG_DATA": str(cwd)}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles in a third of the time
    program = PROGRAM.replace("{command}", command)
    arguments = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=environment)


def write(folder, sections, format="npz"):
    text = EXPERIMENT
    for key, value in {**sections, "FORMAT": format}.items():
        text = text.replace(key, value)
    (folder / "cells.yaml").write_text(text)


def train_and_predict(folder, backend, sections):
    write(folder, sections)
    write_pairs(folder / "raw", 8)
    done = run("train.train", "cells.yaml", "--out", "run", backend=backend, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "run"
    assert f"backend: {backend}" in (folder / "run" / "environment.txt").read_text()
    assert {"train", "validation", "pictures"} == {path.name for path in (folder / "run" / "tensorboard").iterdir()}
    done = run("predict.predict", "run", "raw/images", "--out", "labels", backend=backend, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "labels").glob("*.tif"))) == 8


@pytest.mark.parametrize("sections", [UNET, DMCN], ids=["unet", "dmcn"])
def test_jax_trains_from_npz_without_tensorflow(tmp_path, sections):
    train_and_predict(tmp_path, "jax", sections)


@pytest.mark.torch
@pytest.mark.parametrize("sections", [UNET, DMCN], ids=["unet", "dmcn"])
def test_torch_trains_from_npz_without_tensorflow(tmp_path, sections):
    pytest.importorskip("torch", reason="make test-torch installs PyTorch")
    train_and_predict(tmp_path, "torch", sections)


def test_pretrained_encoders_say_that_they_need_tensorflow(tmp_path):
    write(tmp_path, PRETRAINED)
    write_pairs(tmp_path / "raw", 8)
    done = run("train.train", "cells.yaml", "--out", "run", backend="jax", cwd=tmp_path)
    assert done.returncode == 2 and "'pretrained' needs" in done.stderr and "tensorflow" in done.stderr, done.stderr


def test_tfrecord_shards_cannot_be_written_without_tensorflow(tmp_path):
    write(tmp_path, UNET, "tfrecord")
    write_pairs(tmp_path / "raw", 8)
    done = run("train.train", "cells.yaml", "--out", "run", backend="jax", cwd=tmp_path)
    assert done.returncode == 2 and "data.format: npz" in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.yaml", "raw"]
