"""What the wheel holds, and what the commands say where TensorFlow is missing; the wheel itself: `make test-wheel`."""

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cellseg import boxed
from cellseg import experiment as experiments
from tests.reliability import oldest

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "experiments" / "data" / "nuclei"
# Reads lists of words of commands, runs them here, and prints [exit status, what was said] of each.
WITHOUT_TENSORFLOW = """
import contextlib, importlib, io, json, sys
from importlib.machinery import PathFinder
hidden, find = ("tensorflow", "jax", "torch"), PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *rest: None if name in hidden else find(name, *rest))
from cellseg.cli import shell
answers = []
for command, *arguments in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        module = importlib.import_module("cellseg.cli." + command)
        answers.append([shell.run(module.main.command, arguments), said.getvalue()])
print(json.dumps(answers))
"""


def settings():
    read = configparser.ConfigParser(comment_prefixes=("#",))
    read.read(ROOT / "setup.cfg")
    return read


def test_every_folder_with_modules_is_a_package():
    for top in ("cellseg", "pipelines"):
        folders = {path.parent for path in (ROOT / top).glob("**/*.py") if boxed.EXPERIMENTS not in path.parents}
        assert all((folder / "__init__.py").is_file() for folder in folders)


def test_what_is_no_module_is_package_data():
    for top in ("cellseg", "pipelines"):
        package, globs = ROOT / top, settings()["options.package_data"][top].split()
        shipped = {path for pattern in globs for path in package.glob(pattern)}
        experiments_too = [*boxed.EXPERIMENTS.glob("*.*"), *boxed.EXPERIMENTS.glob("data/nuclei/*/*.tif")]
        needed = [*package.glob("**/*.*"), *(experiments_too if top == "cellseg" else [])]
        kept = [path for path in needed if path.is_file() and not {"__pycache__", "export"} & set(path.parts)]
        assert {path for path in kept if path.suffix not in (".py", ".pyc")} <= shipped


def test_an_experiment_in_the_box_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELLSEG_DATA", raising=False)
    for name in ("demo", "demo.yaml"):
        demo = experiments.read(name)
        assert demo.sources() == [SAMPLE] and len(demo.items()) == 90
    assert demo.placed(tmp_path / "shards").data.source == str(SAMPLE)
    assert experiments.read("nuclei").split_table() == ROOT / "experiments" / "nuclei_split.csv"
    (tmp_path / "demo.yaml").write_text("name: mine\ndata: {source: cells, layout: pairs}\n")
    assert experiments.read("demo.yaml").name == "mine"
    for name in ("nothing.yaml", "data", "", "sub/demo.yaml"):
        assert boxed.find_experiment(name) == Path(name)


def test_without_tensorflow_one_message_says_what_is_missing(tmp_path):
    image, labels = (next((SAMPLE / sub).glob("00071198d059.tif")) for sub in ("images", "labels"))
    (tmp_path / "labels").mkdir()
    for frame in range(2):
        os.symlink(labels, tmp_path / "labels" / f"t{frame:03d}.tif")
    missing = "needs tensorflow, which is not installed"
    commands = {
        (
            "prepare",
            "demo.yaml",
            "data.format=tfrecord",
            "--out",
            "shards",
        ): "TFRecord shards are written by TensorFlow",
        ("train", "demo.yaml", "data.shards=shards", "data.format=npz", "--out", "run"): missing,
        ("predict", "nuclei", str(image), "--out", "found"): missing,
        ("track", "labels", "--out", "tracks", "--no-report"): None,
        ("evaluate", str(labels), str(labels), "--measure", "dice"): None,
        ("runs", "."): "There are no runs in .",
    }
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("KERAS_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW],
        input=json.dumps(list(commands)),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for (command, told), (status, said) in zip(commands.items(), json.loads(done.stdout), strict=True):
        assert status == (0 if told is None else 2), (command, said)
        assert told is None or (told in said and len(said.strip().splitlines()) == 1), (command, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "tracks"]


def test_lower_bounds_are_below_the_exact_versions():
    exact = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    exact = {name.lower().replace("_", "-"): version for name, version in exact.items()}
    lowest = dict(line.split("==") for line in oldest.bounds())
    assert len(lowest) > 20

    def numbers(version):
        return [int(number) for number in re.findall(r"\d+", version)]

    for name, version in lowest.items():
        assert numbers(version) <= numbers(exact[name]), name


@pytest.mark.parametrize("path", oldest.LEFT_OUT)
def test_what_the_oldest_environment_leaves_out_is_there(path):
    assert (ROOT / path).is_file()
