import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cellseg import runs
from experiments import make_results
from pipelines.errors import InputError
from tests.runs import bright_pixels_run, experiment

PART = {"images": 2, "measures": {"dice": 0.123456789}, "intervals": {"dice": [0.1, 0.2]}, "per_image": [{"name": "a"}]}


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A scored run of `known`, whose file lies in a folder of experiments."""
    run = bright_pixels_run(tmp_path)
    data = runs.read_json(run, runs.DATA) | {"training_minutes": 12.3, "peak_memory_mb": 1500, "splits": {"test": 2}}
    runs.write_json(run, runs.DATA, data)
    runs.write_json(run, runs.SCORES, {"test": PART, "validation": PART, "baseline": {}, "baseline_foreground": {}})
    facts = "date: 2026-11-22 02:00 +0000\ncommand: cellseg-train /home/me/known.yaml\ncellseg: 0.1.0, git abc-dirty\n"
    runs.write_text(run, runs.ENVIRONMENT, facts + "processor: fast, 2 cores\nCELLSEG_DATA: /home/me/data\n")
    runs.write_text(run, runs.HISTORY, "epoch,loss,val_dice\n0,1,0.5\n1,0.5,0.75\n")
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "known.yaml").write_text(experiment(inference={"tile": 32, "overlap": 8}).to_yaml())
    monkeypatch.setattr(make_results, "HERE", folder)
    return run


DEFINED = [{"name": "known", "columns": ["dice"]}]


def test_what_is_stored(finished, tmp_path):
    file = make_results.store(finished, "known", folder=tmp_path / "results", defined=DEFINED)
    assert file == tmp_path / "results" / "known.json"
    one = json.loads(file.read_text())
    assert one["scores"]["test"] == {key: PART[key] for key in ("images", "intervals")} | {
        "measures": {"dice": 0.123457}
    }
    assert (one["epochs"], one["training_minutes"], one["peak_memory_mb"]) == (2, 12.3, 1500)
    assert (one["date"], one["git"], one["hardware"]) == ("2026-11-22", "abc-dirty", "fast, 2 cores")
    assert (one["command"], one["changed"], one["parameters"]) == ("make results NAME=known", [], 2)
    assert "/home/me" not in file.read_text() and str(tmp_path) not in file.read_text()
    assert (tmp_path / "results" / "known-curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_later_tuning_is_stored_without_its_folders(finished, tmp_path):
    again = {"date": "2026-11-23 10:00 +0000", "git": "def", "command": "cellseg-evaluate /my/runs/known --tune dice"}
    threshold = runs.read_json(finished, runs.THRESHOLD)
    assert make_results.collect(finished, "known")["tuned_again"] is None
    runs.write_json(finished, runs.THRESHOLD, {**threshold, "tuned_again": again})
    assert make_results.collect(finished, "known")["tuned_again"] == {"date": again["date"], "git": "def"}


def test_another_seed_has_a_file_of_its_own(finished, tmp_path):
    resolved = yaml.safe_load((finished / runs.EXPERIMENT).read_text()) | {"seed": 3}
    runs.write_text(finished, runs.EXPERIMENT, yaml.safe_dump(resolved))
    file = make_results.store(finished, "known", folder=tmp_path / "results", defined=DEFINED)
    assert file.name == "known-seed3.json" and not (tmp_path / "results" / "known-curves.png").exists()
    assert json.loads(file.read_text())["changed"] == []


def test_keys_that_were_changed_are_stored(finished, tmp_path):
    resolved = yaml.safe_load((finished / runs.EXPERIMENT).read_text())
    resolved["train"]["batch_size"] = 7
    resolved["data"]["source"] = "/home/me/cells"
    resolved["loss"] |= {"beta": 0.66}  # computed from the data
    runs.write_text(finished, runs.EXPERIMENT, yaml.safe_dump(resolved))
    found = make_results.collect(finished, "known")
    assert found["changed"] == ["train.batch_size: 4 -> 7"]


def test_class_weights_from_the_data_are_no_change(tmp_path, monkeypatch):
    written = experiment(
        loss={"name": "categorical_ce", "class_weights": "frequency"}, target={"name": "foreground", "softmax": True}
    )
    (tmp_path / "known.yaml").write_text(written.to_yaml())
    monkeypatch.setattr(make_results, "HERE", tmp_path)
    loss = {"name": "categorical_ce", "class_weights": [2.16, 0.65]}
    assert make_results.changes("known", written.model_copy(update={"loss": loss})) == []


def test_tuned_options_are_no_change(finished):
    chosen = runs.read_json(finished, runs.THRESHOLD) | {"instances": {"min_size": 50}}
    runs.write_json(finished, runs.THRESHOLD, chosen)
    found = make_results.collect(finished, "known")
    assert found["changed"] == [] and found["instances"] == {"min_size": 50}


def test_raw_frames_are_tracked_where_the_table_says_so(finished, tmp_path, monkeypatch):
    asked = []

    def run(command, check, stdout):
        asked.append(command[1:-1])
        with open(command[-1], "w") as file:
            json.dump({"rows": [{"tracker": "ours", "tra": 0.9, "division_f1": float("nan")}]}, file)

    monkeypatch.setattr(subprocess, "run", run)
    tracking = {"sequence": "CELLS", "frames": "3-7", "outlines": "01_ST"}
    defined = [DEFINED[0] | {"tracking": tracking}]
    file = make_results.store(finished, "known", folder=tmp_path / "results", defined=defined)
    row = {"tracker": "ours", "tra": 0.9, "division_f1": None}  # frames without divisions
    assert json.loads(file.read_text())["tracking"] == {"frames": "3-7", "rows": [row]}
    (command,) = asked
    assert command[0].endswith("benchmarks/raw_frames.py") and command[1] == str(finished)
    assert " ".join(command[2:]) == "--sequence CELLS --frames 3-7 --outlines 01_ST --json"


def test_the_reports_own_protocol_has_a_file_of_its_own(finished, tmp_path, monkeypatch):
    file = make_results.store(finished, "known", folder=tmp_path / "results", defined=DEFINED, protocol=True)
    assert file.name == "known-report.json" and not (tmp_path / "results" / "known-curves.png").exists()
    assert json.loads(file.read_text())["command"] == "make results NAME=known PROTOCOL=report"
    assert make_results.protocol_of("isbi2012-unet2")[0] == "split.train=0-21"
    with pytest.raises(InputError, match=r"has no protocol of pancreatic's report\. It has those of: em-stacks"):
        make_results.protocol_of("pancreatic")


def test_the_contest_is_asked_for_where_the_table_says_so(finished, tmp_path):
    asked = []
    ranked = {"columns": [], "rows": [], "notes": []}

    def contest(run, table):
        asked.append((run, table))
        return ranked

    defined = [DEFINED[0] | {"contest": "glas2015"}]
    file = make_results.store(finished, "known", folder=tmp_path / "results", defined=defined, ranked=contest)
    assert asked == [(finished, "glas2015")] and json.loads(file.read_text())["contest"] == ranked


def test_runs_that_cannot_be_stored(finished, tmp_path):
    with pytest.raises(InputError, match=r"tables.yaml has no table for other\. Known: known\. Add one there"):
        make_results.store(finished, "other", folder=tmp_path, defined=DEFINED)
    with pytest.raises(InputError, match=r"is a run of known, not of other\. Give a run of other"):
        make_results.collect(finished, "other")
    (finished / runs.SCORES).unlink()
    with pytest.raises(InputError, match="has no scores.json: its training has not finished"):
        make_results.collect(finished, "known")


def test_training_begins_goes_on_or_is_over(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command[3:]))
    known, run = tmp_path / "known.yaml", tmp_path / "known-seed1"
    assert make_results.train(known, run, ["seed=1", "train.epochs=1"]) == run
    assert commands == [[str(known), "seed=1", "train.epochs=1", "--out", str(run)]]
    (run / runs.BACKUP).mkdir(parents=True)  # killed before its first checkpoint
    make_results.train(known, run)
    assert commands[1] == ["--resume", str(run)]
    (run / runs.BACKUP / runs.CHECKPOINT).write_bytes(b"")
    (run / runs.MODEL).write_bytes(b"")
    (run / runs.SCORES).write_text("{}")  # killed while the report was written
    make_results.train(known, run)
    assert commands[2] == commands[1]
    (run / runs.BACKUP / runs.CHECKPOINT).unlink()  # killed while it was tidied
    assert make_results.train(known, run) == run and len(commands) == 3


HEADER = """# Cells.
#
# Command:   make results NAME=known
# Time:      not measured yet; about
#            3 h
# Score:     not measured yet
# Source:    a report

name: known
"""


def test_an_experiment_file_says_what_its_run_scored():
    measures = {"dice": 0.91234, "pixel_error": 0.05}
    test = {"measures": measures, "probability": {"v_rand": 0.8}}
    one = {"scores": {"test": test}, "training_minutes": 41.6, "epochs": 50, "date": "2026-11-22"}
    definition = {"columns": ["dice", "pixel_error", "probability/v_rand"]}
    text = make_results.stamped(HEADER, definition, one)
    assert text.splitlines()[2:7] == [
        "# Command:   make results NAME=known",
        "# Time:      42 min of training, 50 epochs (2026-11-22)",
        "# Score:     test: dice 0.9123; pixel_error ↓ 0.0500; v_rand, probability 0.800 (2026-11-22; docs/results.md)",
        "# Source:    a report",
        "",
    ]
    assert make_results.stamped(text, definition, one) == text


def test_only_the_recipe_itself_is_stamped(tmp_path, monkeypatch):
    monkeypatch.setattr(make_results, "definitions", lambda: DEFINED)
    scores = {"test": {"measures": {"dice": 0.5}}}
    one = {"scores": scores, "training_minutes": 1, "epochs": 2, "date": "today", "changed": [], "seed": 0}
    path = tmp_path / "known.yaml"
    path.write_text(HEADER)
    make_results.stamp("known", one | {"changed": ["train.epochs: 50 -> 2"]}, folder=tmp_path)
    make_results.stamp("known", one | {"seed": 1}, folder=tmp_path)
    assert path.read_text() == HEADER
    make_results.stamp("known", one, folder=tmp_path)
    assert "# Score:     test: dice 0.5000 (today; docs/results.md)" in path.read_text()


def test_the_command(finished, tmp_path, monkeypatch, capsys):
    page = tmp_path / "results.md"
    page.write_text("<!-- begin known -->\n<!-- end known -->\n")
    monkeypatch.setattr(make_results, "definitions", lambda: DEFINED)
    monkeypatch.setattr(make_results, "PAGE", page)
    monkeypatch.setattr(make_results, "tables", lambda: {"known": "a table"})
    monkeypatch.setattr(make_results.store, "__kwdefaults__", {**make_results.store.__kwdefaults__, "folder": tmp_path})
    asked = []
    monkeypatch.setattr(make_results, "train", lambda *arguments: asked.append(arguments) or finished)
    make_results.main(["known", "train.epochs=1"])
    path = make_results.HERE / "known.yaml"
    assert asked == [(path, Path("runs") / "known", ["seed=0", "train.epochs=1"])] and capsys.readouterr().out
    make_results.main(["known", "--seed", "3", "train.epochs=1"])  # as the Makefile does
    assert asked[-1][2] == ["seed=3", "train.epochs=1"] and capsys.readouterr().out
    make_results.main(["known", "--run", str(finished)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "known.json") and "a table" in page.read_text()
    with pytest.raises(SystemExit):
        make_results.main(["known", "--run", str(tmp_path)])
    assert "has no scores.json" in capsys.readouterr().err
