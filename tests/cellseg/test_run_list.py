import hashlib
import json

import pytest
import yaml

from cellseg import environment, reproduction, run_list, runs
from cellseg.cli import runs as command
from cellseg.cli import shell
from pipelines.errors import InputError

ENVIRONMENT = """date: {date} +0000
command: cellseg-train discs.yaml --out {name}
cellseg: 0.1.0, git {git}
python: 3.11.2 on Linux
processor: Some CPU, 2 cores
CELLSEG_DATA: not set
backend: tensorflow
keras {keras}
numpy 2.4.6
"""


def write(
    folder, *, date="2026-11-21 22:10", dice=0.9, validation=0.8, state="finished", git="abc123", keras="3.15.1", **keys
):
    """A run folder as far as its small files go."""
    folder.mkdir(parents=True)
    content = {"name": folder.name, "seed": 0, "data": {"source": "cells", "layout": "pairs"}, **keys}
    runs.write_text(folder, runs.EXPERIMENT, yaml.safe_dump(content))
    runs.write_text(folder, runs.ENVIRONMENT, ENVIRONMENT.format(date=date, name=folder.name, git=git, keras=keras))
    if state == "unfinished":
        (folder / runs.BACKUP).mkdir()
        runs.write_text(folder / runs.BACKUP, runs.HISTORY, "epoch,loss\n0,1\n1,0.5\n")
        return folder
    shards = folder.parent / "shards" / folder.name
    shards.mkdir(parents=True)
    (shards / "train-000").write_bytes(b"pixels")
    (shards / "manifest.json").write_text("{}")
    data = {"training_minutes": 12.5, "shards": str(shards), "checksums": {"train-000": "of other bytes"}}
    runs.write_json(folder, runs.DATA, data)
    runs.write_json(folder, runs.THRESHOLD, {"threshold": 0.5})
    (folder / runs.MODEL).write_bytes(b"weights")
    scores = {"validation": {"measures": {"dice": validation}}}
    if dice is not None:
        scores["test"] = {"measures": {"dice": dice, "count_error": 1 - dice}}
    runs.write_json(folder, runs.SCORES, scores)
    runs.write_text(folder, runs.HISTORY, "epoch,loss\n0,1\n1,0.5\n2,0.4\n")
    return folder


@pytest.fixture
def several(tmp_path):
    """Runs at two depths, and folders that are none."""
    write(tmp_path / "runs" / "new", date="2026-11-21 23:00", dice=0.95, train={"epochs": 9, "phases": [{"epochs": 1}]})
    write(tmp_path / "runs" / "old", date="2026-11-20 09:00", train={"epochs": 5})
    write(tmp_path / "runs" / "search" / "trials" / "trial-001", dice=None)
    write(tmp_path / "runs" / "stopped", state="unfinished")
    write(tmp_path / "runs" / ".old.removed-1")
    write(tmp_path / "runs" / "old" / "tensorboard" / "copy")  # what lies in a run is its own
    runs.write_text(tmp_path / "runs" / "search", runs.EXPERIMENT, "name: search")
    return tmp_path / "runs"


def listed(capsys, *arguments):
    assert shell.run(command.runs, list(map(str, arguments))) == shell.OK
    return capsys.readouterr().out.splitlines()


def refused(capsys, *arguments):
    assert shell.run(command.runs, list(map(str, arguments))) == shell.BAD_INPUT
    return capsys.readouterr().err


def test_runs_are_found_at_any_depth_and_only_runs(several):
    found = run_list.find([several])
    assert [str(path.relative_to(several)) for path in found] == ["new", "old", "search/trials/trial-001", "stopped"]
    assert run_list.find([several / "old", several]) == [several / "old", *(one for one in found if one.name != "old")]


def test_the_list_says_date_state_and_scores(several, capsys, monkeypatch):
    monkeypatch.chdir(several.parent)
    lines = [line.split() for line in listed(capsys)]
    assert lines[0] == ["run", "date", "minutes", "epochs", "state", "dice", "average_precision", "seg"]
    assert lines[1] == ["runs/old", "2026-11-20", "09:00", "12.5", "3", "finished", "0.9000", "-", "-"]  # oldest first
    assert [line[0] for line in lines[1:]] == ["runs/old", "runs/search/trials/trial-001", "runs/stopped", "runs/new"]
    assert lines[2][5:8] == ["finished", "0.8000", "(v)"] and lines[3][3:6] == ["-", "2", "unfinished"]


def test_the_list_is_sorted_by_a_measure(several, capsys):
    names = [line.split()[0].rsplit("/", 1)[-1] for line in listed(capsys, several, "--sort", "dice")[1:]]
    assert names == ["new", "old", "trial-001", "stopped"]  # 0.95, 0.9, 0.8 of validation, none
    names = [line.split()[0].rsplit("/", 1)[-1] for line in listed(capsys, several, "--sort", "count_error")[1:]]
    assert names[:2] == ["new", "old"]  # 0.05 and 0.1: lower is better
    assert "Did you mean 'dice'?" in refused(capsys, several, "--sort", "dise")


def test_a_run_that_lacks_files_is_damaged(several):
    (several / "old" / runs.MODEL).unlink()
    (several / "new" / runs.SCORES).write_text("{")
    assert [run_list.look_at(several / name).state for name in ("old", "new")] == ["damaged", "damaged"]
    assert [run_list.look_at(several / name).damage for name in ("old", "new")] == [("model.keras",), ("scores.json",)]


def test_two_runs_are_compared_key_by_key_and_score_by_score(several, capsys):
    write(several / "other", git="abc123-dirty", dice=0.85, train={"epochs": 5})
    lines = [line.split() for line in listed(capsys, several / "old", several / "new", "--compare")]
    assert ["train.epochs", "5", "9"] in lines and ["train.phases.0.epochs", "-", "1"] in lines
    assert not any(line[:1] == ["seed"] for line in lines)
    assert ["test", "dice", "0.9000", "0.9500", "(+0.0500)"] in lines
    assert ["validation", "dice", "0.8000", "0.8000", "(+0.0000)"] in lines
    text = "\n".join(listed(capsys, several / "old", several / "other", "--compare"))
    assert "abc123-dirty" in text and "epochs" not in text and "keras" not in text


def test_runs_with_other_shards_are_no_fair_comparison(several, capsys):
    assert "may be of other images" not in listed(capsys, several / "old", several / "new", "--compare")[-1]
    data = json.loads((several / "old" / runs.DATA).read_text())
    runs.write_json(several / "old", runs.DATA, data | {"checksums": {"train-000": "0" * 64}})
    assert "may be of other images" in listed(capsys, several / "old", several / "new", "--compare")[-1]


def test_runs_are_removed_after_asking(several, capsys, monkeypatch):
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: "n")
    assert shell.run(command.runs, [str(several / "old"), "--remove"]) == shell.INTERRUPTED
    assert (several / "old" / runs.MODEL).exists()
    assert "old: finished, of 2026-11-20 09:00, test Dice 0.9000" in capsys.readouterr().err
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: "y")
    assert listed(capsys, several / "old", "--remove") == ["1 removed"]
    assert listed(capsys, several / "stopped", several / "search/trials/trial-001", "--remove", "--yes") == [
        "2 removed"
    ]
    assert run_list.find([several]) == [several / "new"]
    assert not list(several.glob(".old.removed-[!1]*"))


def test_only_runs_are_removed(several, capsys):
    assert "search is no run folder: experiment.yaml and environment.txt were looked for" in refused(
        capsys, several / "old", several / "search", "--remove", "--yes"
    )
    with pytest.raises(InputError, match="search is no run folder"):
        run_list.remove([several / "old", several / "search"])
    assert (several / "old" / runs.MODEL).exists() and (several / "search" / runs.EXPERIMENT).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "There are no runs in empty: no folder there holds experiment.yaml and environment.txt"),
        (["nowhere"], "There is no folder nowhere. Give a folder that holds runs"),
        ([], "There is no folder runs"),
        (["empty", "--compare", "--remove"], "--compare and --remove do not go together"),
        (["empty", "--yes"], "--yes means nothing without --remove"),
        (["--remove"], "--remove needs runs"),
    ],
)
def test_what_cannot_be_listed_is_refused(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert message in refused(capsys, *arguments)


def test_one_run_cannot_be_compared(several, capsys):
    assert "--compare needs two runs or more" in refused(capsys, several / "old", "--compare")


def test_a_run_says_how_to_make_it_again(tmp_path):
    run = write(tmp_path / "run", seed=7)
    text = reproduction.recipe(run)
    for part in ("git checkout abc123\n", "keras 3.15.1", "Seed 7", f"cellseg-train {run}/experiment.yaml --out NEW"):
        assert part in text
    assert "2026-11-21 22:10" in text and "cellseg-train discs.yaml --out run" in text and "uncommitted" not in text


def test_a_run_of_several_sittings_is_that_of_the_first(tmp_path):
    run = write(tmp_path / "run")
    later = ENVIRONMENT.format(date="2026-11-22 08:00", name="later", git="def456", keras="3.16.0")
    runs.write_text(run, runs.ENVIRONMENT, (run / runs.ENVIRONMENT).read_text() + "\nresumed\n" + later)
    text = reproduction.recipe(run)
    assert "git checkout abc123\n" in text and "was interrupted and resumed" in text and "def456" not in text
    assert run_list.look_at(run).date == "2026-11-21 22:10"


def test_uncommitted_changes_are_kept(tmp_path, monkeypatch):
    run = write(tmp_path / "run", git="abc123-dirty")
    monkeypatch.setattr(reproduction, "_git", lambda *arguments: "-old\n+new")
    reproduction.write_recipe(run)
    assert (run / "changes.diff").read_text() == "-old\n+new\n"
    text = (run / "reproduce.txt").read_text()
    assert "git checkout abc123\n" in text and f"git apply {run}/changes.diff" in text
    clean = write(tmp_path / "clean")
    reproduction.write_recipe(clean)
    assert not (clean / "changes.diff").exists() and (clean / "reproduce.txt").exists()


def test_what_has_changed_since_is_named(tmp_path, monkeypatch):
    run = write(tmp_path / "run")
    now = ENVIRONMENT.format(date="2027-01-01 00:00", name="run", git="def456", keras="3.16.0")
    monkeypatch.setattr(environment, "described", lambda: now)
    told = reproduction.changed(run)
    assert told[:2] == ["git was abc123, is def456", "keras was 3.15.1, is 3.16.0"]
    assert told[2:] == [f"the shard {tmp_path}/shards/run/train-000 has changed"]
    data = json.loads((run / runs.DATA).read_text())
    digest = hashlib.sha256(b"pixels").hexdigest()
    runs.write_json(run, runs.DATA, data | {"checksums": {"train-000": digest, "train-001": digest}})
    assert reproduction.changed(run)[2:] == [f"the shard {tmp_path}/shards/run/train-001 is not there any more"]
    (tmp_path / "shards" / "run" / "manifest.json").unlink()
    assert "cellseg-train prepares them from the raw data" in reproduction.changed(run)[-1]


def test_a_damaged_run_is_refused(tmp_path):
    run = write(tmp_path / "run")
    (run / runs.DATA).write_text("[]")
    with pytest.raises(InputError, match=r"data\.json is damaged: an object was expected"):
        reproduction.recipe(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (runs.SCORES, b'{"test": {"measures": [1]}}'),
        (runs.SCORES, b'{"test": {"measures": null}}'),
        (runs.SCORES, b'{"test": {"measures": {"dice": "x"}}}'),
        (runs.SCORES, b'{"test": {"measures": {"dice": 1' + b"0" * 400 + b"}}}"),
        (runs.SCORES, b'{"test": {"measures": {"dice": NaN}}}'),
        (runs.SCORES, b"[" * 100_000),
        (runs.DATA, b'{"training_minutes": "x"}'),
        (runs.DATA, b'{"checksums": [1], "training_minutes": 1}'),
        (runs.DATA, b"[]"),
        (runs.HISTORY, b"\xff\xfe"),
        (runs.EXPERIMENT, b"a: ["),
        (runs.EXPERIMENT, b"\xff\xfe"),
    ],
)
def test_a_run_with_a_broken_file_is_listed_among_the_others(several, capsys, name, content):
    (several / "new" / name).write_bytes(content)
    assert run_list.look_at(several / "new").state == "damaged"
    for options in ([], ["--sort", "dice"]):
        lines = {line.split("  ")[0]: line for line in listed(capsys, several, *options)[1:]}
        assert f"damaged ({name})" in lines[str(several / "new")]
        assert "finished" in lines[str(several / "old")] and len(lines) == 4
    text = "\n".join(listed(capsys, several / "old", several / "new", "--compare"))
    assert "damaged" in text
    assert listed(capsys, several / "new", "--remove", "--yes") == ["1 removed"]


def test_a_broken_note_of_a_search_is_no_fault(several, capsys):
    (several / "new" / runs.PRUNED).write_bytes(b"\xff")
    assert run_list.look_at(several / "new").state == "pruned at epoch ?"


@pytest.mark.parametrize("content", ['{"checksums": [1]}', '{"shards": 1}', '{"checksums": {"a": 1}}', "[" * 100_000])
def test_data_that_cannot_be_made_again_is_refused(tmp_path, content):
    run = write(tmp_path / "run")
    (run / runs.DATA).write_text(content)
    for told in (reproduction.recipe, reproduction.changed):
        with pytest.raises(InputError, match=r"data\.json is damaged"):
            told(run)
