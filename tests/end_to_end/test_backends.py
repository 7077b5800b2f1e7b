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
model: {name: unet, filters: 4, depth: 2, padding: same, up: bilinear, batch_norm: true}
train: {patch: 32, batch_size: 2, epochs: 2, steps_per_epoch: 2}
"""


def run(command, *arguments, backend, cwd):
    environment = {**os.environ, "KERAS_BACKEND": backend, "CELLSEG_DATA": str(cwd)}
    program = PROGRAM.replace("{command}", command)
    arguments = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=environment)


def train_and_predict(folder, backend):
    (folder / "cells.yaml").write_text(EXPERIMENT.replace("FORMAT", "npz"))
    write_pairs(folder / "raw", 8)
    done = run("train.train", "cells.yaml", "--out", "run", backend=backend, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "run"
    assert f"backend: {backend}" in (folder / "run" / "environment.txt").read_text()
    assert {"train", "validation", "pictures"} == {path.name for path in (folder / "run" / "tensorboard").iterdir()}
    done = run("predict.predict", "run", "raw/images", "--out", "labels", backend=backend, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "labels").glob("*.tif"))) == 8


def test_jax_trains_from_npz_without_tensorflow(tmp_path):
    train_and_predict(tmp_path, "jax")


@pytest.mark.torch
def test_torch_trains_from_npz_without_tensorflow(tmp_path):
    pytest.importorskip("torch", reason="make test-torch installs PyTorch")
    train_and_predict(tmp_path, "torch")


def test_tfrecord_shards_cannot_be_written_without_tensorflow(tmp_path):
    (tmp_path / "cells.yaml").write_text(EXPERIMENT.replace("FORMAT", "tfrecord"))
    write_pairs(tmp_path / "raw", 8)
    done = run("train.train", "cells.yaml", "--out", "run", backend="jax", cwd=tmp_path)
    assert done.returncode == 2 and "data.format: npz" in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.yaml", "raw"]
