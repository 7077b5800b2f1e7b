"""A training that is killed with SIGKILL, and goes on: real processes, at moments that the run folder shows.

The processes are forks of one that has TensorFlow imported but has not used it: importing is most of a short
training's time.
"""

import json
import os
import random
import select
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cellseg.checkpoints import NAME, Checkpoint
from tests.datasets import write_pairs

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
name: killed
data: {source: raw, layout: pairs, format: npz}
model: {name: unet, padding: same, filters: 2, depth: 1, up: bilinear, batch_norm: true, dropout: 0.1}
train: {epochs: 3, steps_per_epoch: 5, batch_size: 2, patch: 16, learning_rate: 0.05, checkpoint_minutes: 0}
inference: {engine: keras}
"""
# Reads the arguments of a cellseg-train from each line, runs it in a fork, and prints the fork's id and exit status.
PARENT = """
import json, os, sys
import tensorflow, keras, tensorboard, albumentations, skimage.measure, scipy.ndimage, pandas, matplotlib
from cellseg import evaluation, report, training, tuning, workflow
from cellseg.cli import shell, train
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        os._exit(shell.run(train.main.command, json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Trainings:
    """Starts trainings in `folder`, one after the other; what they print goes to `printed.txt`."""

    def __init__(self, folder):
        self.folder = folder
        self._printed = open(folder / "printed.txt", "wb")  # noqa: SIM115  closed in close
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            bufsize=0,
        )

    def start(self, *arguments):
        """Start one; its process id."""
        self._parent.stdin.write(json.dumps([str(argument) for argument in arguments]).encode() + b"\n")
        return int(self._parent.stdout.readline())

    def ended(self, within):
        """Whether it ends in so many seconds."""
        return bool(select.select([self._parent.stdout], [], [], within)[0])

    def status(self):
        """Exit status of the one under way, when it has ended."""
        return int(self._parent.stdout.readline())

    def close(self):
        """End them all."""
        self._parent.stdin.close()
        self._parent.wait()
        self._parent.stdout.close()
        self._printed.close()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    write_pairs(folder / "raw", 10)
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    family = Trainings(folder)
    yield family
    family.close()


@pytest.fixture(scope="module")
def whole(trainings):
    trainings.start("experiment.yaml", "--out", "whole")
    assert trainings.status() == 0, (trainings.folder / "printed.txt").read_text()
    return trainings.folder / "whole"


def kill(trainings, process, run, *, writes, torn=False, by=signal.SIGKILL):
    """Kill a training when its checkpoint was written so many times; `torn`: while the next one is being written.

    Returns:
        Its exit status.
    """
    backup, seen, last = run / "backup", 0, None
    while not trainings.ended(0.001):
        try:
            now = (backup / NAME).stat().st_ino
        except FileNotFoundError:
            continue
        seen, last = seen + (now != last), now
        if seen >= writes and (not torn or any(backup.glob(".checkpoint.partial-*"))):
            os.kill(process, by)
            return trainings.status()
    pytest.fail(f"it has ended before: {(trainings.folder / 'printed.txt').read_text()}")


def weights(run):
    """The best weights, as the file holds them."""
    with zipfile.ZipFile(run / "model.keras") as model:
        return model.read("model.weights.h5")


def refused(trainings, *arguments):
    before = (trainings.folder / "printed.txt").stat().st_size
    trainings.start(*arguments)
    assert trainings.status() == 2
    return (trainings.folder / "printed.txt").read_text()[before:]


def test_a_training_killed_three_times_ends_as_one_that_was_not(trainings, whole):
    run = trainings.folder / "run"
    moments = random.Random(9)
    places = []
    for number in range(3):
        arguments = ("--resume", "run") if number else ("experiment.yaml", "--out", "run")
        process = trainings.start(*arguments)
        writes = moments.randrange(2, 6)
        assert kill(trainings, process, run, writes=writes, torn=number == 1) == -signal.SIGKILL
        place = Checkpoint.read(run / "backup" / NAME).place  # whole, whenever it was killed
        places.append((place.epoch, place.step))
    assert places == sorted(places) and places[0] > (0, 0)
    assert kill(trainings, trainings.start("--resume", "run"), run, writes=2, by=signal.SIGTERM) == 143
    assert "ended by SIGTERM" in (trainings.folder / "printed.txt").read_text()
    assert "train.epochs is 3 in the run, 4 here" in refused(trainings, "--resume", "run", "train.epochs=4")
    trainings.start("experiment.yaml", "train.max_hours=5", "--resume", "run")
    assert trainings.status() == 0, (trainings.folder / "printed.txt").read_text()
    assert weights(run) == weights(whole)
    for name in ("history.csv", "threshold.json", "scores.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert not [path for path in run.iterdir() if path.name == "backup" or "partial" in path.name]
    assert (run / "environment.txt").read_text().count("\nresumed\n") == 4


def test_a_finished_run_is_not_resumed(trainings, whole):
    assert "whole is finished: there is nothing to resume" in refused(trainings, "--resume", "whole")


def test_a_run_whose_data_has_changed_is_not_resumed(trainings, whole):
    run = trainings.folder / "changed"
    kill(trainings, trainings.start("experiment.yaml", "--out", "changed"), run, writes=1)
    path = trainings.folder / "raw" / "labels" / "cell03.tif"
    before = path.read_bytes()
    path.write_bytes((trainings.folder / "raw" / "labels" / "cell04.tif").read_bytes())
    told = refused(trainings, "--resume", "changed")
    path.write_bytes(before)
    assert "changed cannot go on: The raw data" in told and "labels/cell03.tif" in told
    assert "this one goes on when its data are as they were" in told and "To go on with" not in told
