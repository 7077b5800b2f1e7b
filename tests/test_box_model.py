import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

from cellseg import runs
from cellseg.runs import Run
from pipelines.errors import InputError
from tests.runs import bright_pixels_run

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("box_model", EXPERIMENTS / "box_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def finished(tmp_path):
    """A scored run as a training leaves it, full of this machine's folders; and its recipe and card."""
    run = bright_pixels_run(tmp_path)
    resolved = yaml.safe_load((run / runs.EXPERIMENT).read_text())
    resolved["data"] |= {"source": str(tmp_path / "cells"), "shards": str(tmp_path / "shards")}
    runs.write_text(run, runs.EXPERIMENT, yaml.safe_dump(resolved))
    data = runs.read_json(run, runs.DATA) | {"shards": str(tmp_path / "shards"), "training_minutes": 12.3}
    runs.write_json(run, runs.DATA, data)
    command = f"command: cellseg-train {tmp_path}/known.yaml"
    lines = ["date: today", command, f"CELLSEG_DATA: {tmp_path}", "python: 3.11 on Linux-6.1-x86_64", "keras 3"]
    runs.write_text(run, runs.ENVIRONMENT, "\n".join(lines))
    part = {"measures": {"dice": 0.875, "seg": None}, "intervals": {"dice": [0.8, 0.9], "seg": None}}
    scores = {"test": part, "validation": part, "baseline": {"dice": 0.0}, "baseline_foreground": {"dice": 0.25}}
    runs.write_json(run, runs.SCORES, scores)
    recipe, card = tmp_path / "known.yaml", tmp_path / "card.md"
    recipe.write_text("name: known\ndata: {source: cells, layout: pairs}\nmodel: {name: unet, depth: 2}\n")
    card.write_text("Threshold {threshold}, {minutes} minutes.\n\n{scores}\n")
    return run, recipe, card


def test_a_box_predicts_and_knows_no_folder_of_this_machine(tmp_path, finished, script, capsys):
    run, recipe, card = finished
    script.main([str(run), "--recipe", str(recipe), "--card", str(card), "--out", str(tmp_path / "box")])
    box = Run.read(tmp_path / "box")
    assert box.experiment.data.source == "cells" and box.experiment.data.shards is None
    assert box.data["shards"] == "shards/known" and box.data["channels"] == 1
    assert box.threshold["threshold"] == 0.5
    for file in box.folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    lines = (box.folder / runs.ENVIRONMENT).read_text().splitlines()
    assert lines == ["date: today", "command: cellseg-train experiments/known.yaml", "python: 3.11 on Linux", "keras 3"]
    text = (box.folder / "README.md").read_text()
    assert text.startswith("Threshold 0.5, 12 minutes.\n")
    assert "| Dice | 0.875 | 0.800 to 0.900 | 0.875 | 0.000 | 0.250 |" in text
    assert "| SEG | undefined |" in text
    assert "bytes in 7 files" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["see /home/me/cells", "run: /tmp/x", "'/data/a.tif'", "C:\\cells"])
def test_a_path_that_is_left_is_refused_and_nothing_is_left(tmp_path, finished, script, line):
    run, recipe, card = finished
    card.write_text(f"https://cellseg.org/a/b is fine, and so is and/or.\n{line}\n")
    with pytest.raises(InputError, match=r"README.md, line 2, holds a path of this machine"):
        script.pack(run, recipe, card, out=tmp_path / "box")
    assert not (tmp_path / "box").exists()


def test_a_box_has_scores_and_a_size(tmp_path, finished, script, monkeypatch):
    run, recipe, card = finished
    monkeypatch.setattr(script, "LARGEST", 1000)
    with pytest.raises(InputError, match=r"takes \d+ bytes; at most 1000 ship"):
        script.pack(run, recipe, card, out=tmp_path / "box")
    (run / runs.SCORES).unlink()
    with pytest.raises(InputError, match="has no scores.json: it ships with its scores"):
        script.pack(run, recipe, card, out=tmp_path / "box")


def test_an_old_box_is_replaced_on_demand(tmp_path, finished, script):
    run, recipe, card = finished
    script.pack(run, recipe, card, out=tmp_path / "box")
    with pytest.raises(InputError, match="exists already"):
        script.pack(run, recipe, card, out=tmp_path / "box")
    card.write_text("new")
    assert script.pack(run, recipe, card, out=tmp_path / "box", overwrite=True) == tmp_path / "box"
    assert (tmp_path / "box" / "README.md").read_text() == "new"
    shutil.rmtree(tmp_path / "box")
