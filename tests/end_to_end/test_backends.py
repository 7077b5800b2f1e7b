"""cellseg-train on other backends where TensorFlow is not installed: nothing finds it.

One process for each backend: compiling and loading are most of the time.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.datasets import write_pairs

PROGRAM = """
import contextlib
import importlib.machinery
import io
import json
import sys

finder = importlib.machinery.PathFinder
find = finder.find_spec
hidden = lambda name: name.split(".")[0] == "tensorflow"
finder.find_spec = classmethod(lambda cls, name, *rest: None if hidden(name) else find(name, *rest))
from cellseg.cli import predict, shell, train
commands = {"train": train.train, "predict": predict.predict}
answers = []
for name, *arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = shell.run(commands[name], arguments)
    answers.append((status, out.getvalue(), err.getvalue()))
assert "tensorflow" not in sys.modules
print(json.dumps(answers))
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


def run(*commands, backend, cwd):
    """(status, stdout, stderr) of each command, which run one after the other in one process."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "CELLSEG_DATA": str(cwd)}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles in a third of the time
    program = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def write(folder, name, sections, format="npz"):
    text = EXPERIMENT
    for key, value in {**sections, "FORMAT": format}.items():
        text = text.replace(key, value)
    (folder / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.torch)])
def test_it_trains_from_npz_without_tensorflow(tmp_path, backend):
    if backend == "torch":
        pytest.importorskip("torch", reason="make test-torch installs PyTorch")
    write_pairs(tmp_path / "raw", 8)
    write(tmp_path, "tfrecord", UNET, "tfrecord")
    write(tmp_path, "pretrained", PRETRAINED)
    commands = [["train", f"{name}.yaml", "--out", "refused"] for name in ("tfrecord", "pretrained")]
    networks = {"unet": UNET, "dmcn": DMCN}
    for name, sections in networks.items():
        write(tmp_path, name, sections)
        commands.append(["train", f"{name}.yaml", "--out", name])
        commands.append(["predict", name, "raw/images", "--out", f"labels-{name}"])
    tfrecord, pretrained, *answers = run(*commands, backend=backend, cwd=tmp_path)

    # TFRecord shards cannot be written, and pretrained encoders cannot be made.
    assert tfrecord[0] == 2 and "data.format: npz" in tfrecord[2], tfrecord
    assert pretrained[0] == 2 and "'pretrained' needs" in pretrained[2] and "tensorflow" in pretrained[2], pretrained
    left = {"raw", "shards", *networks, *(f"labels-{name}" for name in networks)}
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".yaml"} == left

    for name, trained, predicted in zip(networks, answers[::2], answers[1::2], strict=True):
        folder = tmp_path / name
        assert trained[0] == 0, trained[2]
        assert trained[1].splitlines()[-1] == name
        assert f"backend: {backend}" in (folder / "environment.txt").read_text()
        logs = {path.name for path in (folder / "tensorboard").iterdir()}
        assert logs == {"train", "validation", "pictures", "experiment"}
        assert predicted[0] == 0, predicted[2]
        assert len(list((tmp_path / f"labels-{name}").glob("*.tif"))) == 8
