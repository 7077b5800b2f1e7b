"""The whole main job as a user runs it, on a small data set of discs.

Each command runs once as a process of its own, as does what Ctrl-C meets; what else is asked of them, in this process:
loading TensorFlow is most of the time of a short command.
"""

import importlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from cellseg.cli import shell
from tests.datasets import write_pairs

SHORT = ["train.epochs=3", "train.steps_per_epoch=8", "train.batch_size=2", "train.patch=32", "model.depth=2",
         "model.filters=8", "model.dropout=0.0"]  # fmt: skip


def command(name, *arguments, **options):
    script = Path(sys.executable).with_name(f"cellseg-{name}")
    return subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, **options)


def succeed(name, *arguments, **options):
    done = command(name, *arguments, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "progress is quiet where stderr is no terminal"
    return done.stdout


def here(name, *arguments):
    """Run a command in this process; its exit status."""
    main = importlib.import_module(f"cellseg.cli.{name}").main
    return shell.run(main.command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Raw images prepared from the command line and trained from the starter experiment, untouched but for its size."""
    folder = tmp_path_factory.mktemp("job")
    write_pairs(folder / "raw", 12, dtype="uint16")
    printed = succeed("prepare", folder / "raw", "--layout", "pairs", "--out", folder / "shards", cwd=folder)
    assert "12 images (8 train, 2 validation, 2 test)" in printed and "all background scores" in printed
    printed = succeed("train", folder / "shards" / "experiment.yaml", *SHORT, "--out", folder / "run", cwd=folder)
    assert printed.splitlines()[-1] == str(folder / "run")
    return folder


def test_the_run_folder_is_complete(job):
    names = {path.name for path in (job / "run").iterdir()}
    assert names >= {
        "experiment.yaml", "model.keras", "threshold.json", "history.csv", "scores.json", "report.html",
        "tensorboard", "environment.txt", "data.json", "errors.json", "warnings.json", "pictures",
    }  # fmt: skip
    assert "backup" not in names and not [name for name in names if "partial" in name]
    resolved = yaml.safe_load((job / "run" / "experiment.yaml").read_text())
    assert resolved["train"]["epochs"] == 3 and resolved["loss"]["foreground_weight"] > 1
    history = pd.read_csv(job / "run" / "history.csv")
    assert len(history) == 3 and {"loss", "val_dice", "learning_rate"} <= set(history)
    threshold = json.loads((job / "run" / "threshold.json").read_text())
    assert 0 < threshold["threshold"] < 1 and threshold["split"] == "validation"
    shown = {picture["section"] for picture in json.loads((job / "run" / "pictures.json").read_text())}
    assert shown == {"test", "samples"} and (job / "run" / "pictures" / "augmented.png").exists()
    assert json.loads((job / "run" / "data.json").read_text())["peak_memory_mb"] > 100


def test_it_has_learned_something_and_the_baseline_stands_beside(job):
    scores = json.loads((job / "run" / "scores.json").read_text())
    assert scores["test"]["images"] == 2 and len(scores["test"]["per_image"]) == 2
    assert scores["test"]["measures"]["dice"] > 0.8
    assert scores["baseline"]["dice"] == 0 and 0.5 < scores["baseline"]["pixel_accuracy"] < 1


def test_tensorboard_has_scalars_and_pictures(job):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = {}
    for folder in ("train", "validation", "pictures", "experiment"):
        events = EventAccumulator(str(job / "run" / "tensorboard" / folder))
        events.Reload()
        tags[folder] = set(events.Tags()["tensors"])
    assert {"epoch/loss", "epoch/learning_rate", "epoch/seconds"} <= tags["train"]
    assert "epoch/dice" in tags["validation"]
    assert any(tag.startswith("image, truth, probability/") for tag in tags["pictures"])


def test_predicting_and_evaluating_the_raw_images(job):
    succeed("predict", job / "run", job / "raw" / "images", "--out", job / "labels", "--overlay")
    labels = tifffile.imread(job / "labels" / "cell00.tif")
    assert labels.dtype == np.uint16 and labels.shape == (64, 64)
    succeed("evaluate", job / "raw" / "labels", job / "labels", "--json", job / "scores.json")
    scores = json.loads((job / "scores.json").read_text())
    assert scores["images"] == 12 and scores["measures"]["dice"] > 0.8


def test_a_run_scored_again_gives_the_same_scores(job, capsys):
    succeed("evaluate", job / "run", "--split", "test", "--json", job / "again.json")
    again = json.loads((job / "again.json").read_text())
    assert here("evaluate", job / "run", "--split", "validation", "--measure", "dice", "seg") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 images") and "\nseg " in printed and "\niou " not in printed
    assert again["measures"] == json.loads((job / "run" / "scores.json").read_text())["test"]["measures"]


def test_the_runs_own_experiment_trains_again(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert here("train", job / "run" / "experiment.yaml", "train.epochs=1", "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "report.html").exists()


def test_the_report_is_written_again(job):
    before = (job / "run" / "report.html").read_bytes()
    (job / "run" / "report.html").unlink()
    assert "report.html" in succeed("report", job / "run")
    assert len((job / "run" / "report.html").read_bytes()) == pytest.approx(len(before), rel=0.01)


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """cellseg-train exits 2 with one message, which is returned, and no run folder is left."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        assert here("train", *arguments, "--out", tmp_path / "refused") == 2
        told = capfd.readouterr().err
        assert "Traceback" not in told, told
        assert not (tmp_path / "refused").exists()
        return told

    return run


def test_bad_configurations_are_refused_before_any_work(job, refused):
    starter = job / "shards" / "experiment.yaml"
    assert "unknown key 'train.epoch'. Did you mean 'epochs'?" in refused(starter, "train.epoch=3")
    assert "loss.name: 'dise' is not known. Did you mean 'dice'?" in refused(starter, "loss={name: dise}")
    assert "smaller than a patch of 128x128" in refused(starter, "train.patch=128")
    assert "another configuration (split.seed was 0, is 7)" in refused(starter, "split.seed=7")
    assert "There is no experiment file" in refused(job / "nothing.yaml")


@pytest.mark.parametrize(("labelled", "split"), [(0, "train"), (1, "validation")])
def test_images_without_cells_are_refused(tmp_path, refused, labelled, split):
    source = write_pairs(tmp_path / "raw", 10)
    for path in sorted((source / "labels").iterdir())[labelled:]:
        tifffile.imwrite(path, np.zeros((64, 64), np.uint16))
    # Seed 3 puts the first image, the only one with cells, into the training split.
    options = ["--layout", "pairs", "--format", "npz", "--seed", 3]
    assert here("prepare", source, *options, "--out", tmp_path / "shards") == 0
    told = refused(tmp_path / "shards" / "experiment.yaml", *SHORT)
    assert f"images of the {split} split hold no cell" in told


def test_an_existing_run_is_kept(job, capsys):
    assert here("train", job / "shards" / "experiment.yaml", "--out", job / "run") == 2
    assert "exists already" in capsys.readouterr().err
    assert (job / "run" / "model.keras").exists()


def test_a_flipped_byte_stops_training_before_it_starts(job, tmp_path, refused):
    shards = shutil.copytree(job / "shards", tmp_path / "shards")
    path = next(shards.glob("train-*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    assert f"{path.name} is damaged" in refused(shards / "experiment.yaml", *SHORT)


def test_ctrl_c_leaves_nothing_that_looks_finished(job, tmp_path, capsys):
    script = Path(sys.executable).with_name("cellseg-train")
    short = [*SHORT, "train.epochs=1000", "train.early_stopping=1000"]
    process = subprocess.Popen(
        [script, job / "shards" / "experiment.yaml", *short, "--out", tmp_path / "run"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that: a test run would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    history = tmp_path / "run" / "backup" / "history.csv"
    for _ in range(600):
        if history.exists() and len(history.read_text().splitlines()) > 1:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not left & {"model.keras", "scores.json", "threshold.json", "report.html", "history.csv"}
    assert here("predict", tmp_path / "run", job / "raw" / "images", "--out", tmp_path / "labels") == 2
    assert "its training has not finished" in capsys.readouterr().err
