import configparser
import csv
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellseg
from cellseg import boxed, runs
from cellseg import experiment as experiments
from cellseg.cli import predict, shell
from cellseg.cli.evaluate import evaluate
from cellseg.runs import Run
from pipelines.errors import InputError
from tests.runs import bright_pixels_run

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
NUCLEI = boxed.BOX / "nuclei"
IMAGES, LABELS = EXPERIMENTS / "data" / "nuclei" / "images", EXPERIMENTS / "data" / "nuclei" / "labels"
HELD_OUT = ("00071198d059", "03398329ced0")  # the first two test images


def split_of(name):
    with open(EXPERIMENTS / "nuclei_split.csv") as file:
        return {row["name"]: row["split"] for row in csv.DictReader(file)}[name]


def test_the_split_is_by_sorted_id():
    ids = sorted(path.stem for path in IMAGES.iterdir())
    kinds = [split_of(name) for name in ids]
    assert kinds[::5] == ["test"] * 18 and kinds[1::5] == ["validation"] * 18
    assert kinds[2::5] + kinds[3::5] + kinds[4::5] == ["train"] * 54


def test_nuclei_are_found_right_after_install(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = [str(IMAGES / f"{name}.tif") for name in HELD_OUT]
    assert shell.run(predict.predict, ["nuclei", *files, "--out", "out"]) == 0
    scores = {row["name"]: row for row in runs.read_json(NUCLEI, runs.SCORES)["test"]["per_image"]}
    for name in HELD_OUT:
        assert split_of(name) == "test"
        true, found = (tifffile.imread(folder / f"{name}.tif") for folder in (LABELS, tmp_path / "out"))
        hits, drawn, all_true = (np.count_nonzero(mask) for mask in ((true > 0) & (found > 0), found, true))
        dice = 2 * hits / (drawn + all_true)
        assert dice > 0.85
        # What scores.json claims is what the run does; engines differ in the last digits.
        assert dice == pytest.approx(scores[name]["dice"], abs=0.002)
        assert found.max() == pytest.approx(len(np.unique(true)) - 1, rel=0.25)


def test_a_run_of_that_name_goes_first_and_a_folder_of_images_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert boxed.find_run("nuclei") == NUCLEI
    Path("nuclei").mkdir()
    tifffile.imwrite("nuclei/a.tif", np.zeros((4, 4), np.uint8))
    runs.write_text(Path("nuclei"), runs.EXPERIMENT, "name: shards have this file, too\n")
    assert boxed.find_run("nuclei") == NUCLEI
    assert Run.read("nuclei").experiment.name == "nuclei"
    bright_pixels_run(tmp_path).rename(tmp_path / "own")
    (tmp_path / "own").rename(tmp_path / "nuclei" / "run")
    assert boxed.find_run("nuclei/run") == Path("nuclei/run")
    (tmp_path / "nuclei" / runs.BACKUP).mkdir()
    assert boxed.find_run("nuclei") == Path("nuclei")
    with pytest.raises(InputError, match="nuclei lacks model.keras.*its training has not finished"):
        Run.read("nuclei")


def test_an_unknown_name_lists_the_box(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no run folder nuclie. Runs that come with cellseg: nuclei. Did you mean 'nu"):
        cellseg.load_run("nuclie")


def test_scoring_the_box_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert shell.run(evaluate, ["nuclei"]) == 2
    assert "nuclei does not exist. One argument must be a run folder" in capsys.readouterr().err


def test_training_can_begin_with_the_box(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"name": "own", "data": {"source": "x", "layout": "pairs"}, "train": {"start_from": "nuclei"}}
    assert experiments.check(content).start_from() == NUCLEI


def test_every_box_ships_whole_small_and_without_paths():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    globs = config["options.package_data"]["cellseg"].split()
    package = ROOT / "cellseg"
    shipped = {path for pattern in globs for path in package.glob(pattern)}
    assert boxed.names() == ["nuclei"]
    # A subfolder is the exported network, which predicting from a checkout leaves there.
    files = [path for path in NUCLEI.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {
        runs.EXPERIMENT, runs.MODEL, runs.DATA, runs.THRESHOLD, runs.SCORES, runs.ENVIRONMENT, "README.md",
    }  # fmt: skip
    assert set(files) <= shipped
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    texts = {path.name: path.read_text() for path in files if path.name != runs.MODEL}
    with zipfile.ZipFile(NUCLEI / runs.MODEL) as model:
        texts |= {name: model.read(name).decode() for name in model.namelist() if name.endswith(".json")}
        assert sum("optimizer" in name for name in model.namelist()) == 0
    for name, text in texts.items():
        assert not re.findall(r"(?:^|[\s\"'=,(])(?:/[\w.-]+)+|[A-Z]:\\", text), name


def test_the_box_is_its_recipe():
    recipe, box = experiments.read(EXPERIMENTS / "nuclei.yaml"), Run.read(NUCLEI).experiment
    for section in ("name", "seed", "data", "split", "target", "augment", "weight_map", "model", "train", "tuning"):
        assert getattr(box, section) == getattr(recipe, section), section
    # Instance options that were tuned stand in the threshold's file.
    assert runs.read_json(NUCLEI, runs.THRESHOLD)["split"] == "validation"
    assert box.instances["name"] == recipe.instances["name"]
