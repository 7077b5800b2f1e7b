"""Files and folders that appear whole or not at all."""

import hashlib
import subprocess
import sys

import pytest

from pipelines.errors import InputError
from pipelines.files import check_free, remove_leftovers, sha256, whole_file, whole_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_appears_under_its_name_in_a_new_folder(tmp_path):
    with whole_file(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt"
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"
    assert names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_whole_file_keeps_the_old_one_when_writing_fails(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("ha")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_leftovers_of_killed_processes_alone_are_removed(tmp_path, monkeypatch):
    killed = (
        "import os, signal, sys\n"
        "from pipelines.files import whole_file\n"
        "with whole_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "a.b.tif")], check=False)
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "no suffix")], check=False)
    left = names(tmp_path)
    assert [name.partition("-")[0] for name in left] == [".a.b.partial", ".no suffix.partial"]
    for name in ("a.tif", ".hidden", ".partial", ".c.partial-1.tif", ".work.partial"):
        (tmp_path / name).write_text("somebody's")
    monkeypatch.setattr("socket.gethostname", lambda: "another machine")
    remove_leftovers(tmp_path)
    assert set(left) < set(names(tmp_path))
    monkeypatch.undo()
    with whole_file(tmp_path / "d.tif") as alive:
        alive.write_text("half")
        remove_leftovers(tmp_path)
        assert alive.exists()
    assert names(tmp_path) == sorted(["a.tif", ".hidden", ".partial", ".c.partial-1.tif", ".work.partial", "d.tif"])
    (tmp_path / f".e.partial-{left[0].split('-')[1]}-{2**70}.tif").write_text("no process")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "not there")


def test_whole_folder_appears_under_its_name(tmp_path):
    with whole_folder(tmp_path / "out", marker="manifest.json") as temporary:
        (temporary / "manifest.json").write_text("{}")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["manifest.json"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_whole_folder_leaves_nothing_when_interrupted(tmp_path, error):
    with pytest.raises(type(error)), whole_folder(tmp_path / "out", marker="manifest.json") as temporary:
        (temporary / "manifest.json").write_text("{}")
        raise error
    assert names(tmp_path) == []


def test_whole_folder_takes_an_empty_one(tmp_path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out", marker="manifest.json") as temporary:
        (temporary / "manifest.json").write_text("new")
    assert names(tmp_path / "out") == ["manifest.json"]


def test_existing_folder_needs_overwrite_and_is_replaced_whole(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("old")
    (out / "stale.npz").write_text("old")
    with (
        pytest.raises(InputError, match=r"out exists already .*--overwrite"),
        whole_folder(out, marker="manifest.json"),
    ):
        pass
    assert (out / "manifest.json").read_text() == "old"
    with whole_folder(out, marker="manifest.json", overwrite=True) as temporary:
        (temporary / "manifest.json").write_text("new")
        assert (out / "manifest.json").read_text() == "old"
    assert names(out) == ["manifest.json"]
    assert (out / "manifest.json").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_overwrite_spares_folders_of_another_kind(tmp_path):
    (tmp_path / "thesis.docx").write_text("three years")
    with pytest.raises(InputError, match=r"--overwrite will not replace .*holds no manifest\.json"):
        check_free(tmp_path, marker="manifest.json", overwrite=True)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out is a file"):
        check_free(tmp_path / "out", marker="manifest.json", overwrite=True)


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"cells")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"cells").hexdigest()
