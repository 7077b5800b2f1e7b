"""Files and folders that appear whole or not at all."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from pipelines.errors import InputError
from pipelines.files import (
    check_free,
    check_name,
    locked_folder,
    readable,
    remove_leftovers,
    sha256,
    temporary_name,
    whole_file,
    whole_folder,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("name", "shown"), [(b"a\xff.tif", r"a\xff.tif"), (b"\xe4/b", r"\xe4/b")])
def test_names_that_are_no_text(name, shown):
    path = os.fsdecode(name)
    assert readable(path) == shown
    for check in (check_name, lambda one: check_free(one, marker="a")):
        with pytest.raises(InputError) as caught:
            check(path)
        assert f"The name '{shown}' is no UTF-8 text" in str(caught.value)


@pytest.mark.parametrize("name", ["zelle-ä.tif", "細胞 1.tif", "a\\xff.tif"])
def test_names_of_any_language_are_text(name):
    check_name(name)
    assert readable(name) == name


def test_whole_file_appears_under_its_name_in_a_new_folder(tmp_path):
    with whole_file(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt"
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"
    assert names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("letter", ["x", "ä", "细"])
def test_a_name_as_long_as_they_may_be_is_written(tmp_path, letter):
    """255 bytes are a file name's end; the temporary name needs some of its own."""
    stem = letter * ((255 - len(".tif") - 1) // len(letter.encode()))
    names_of_two = [f"{stem}{number}.tif" for number in (1, 2)]
    with whole_file(tmp_path / names_of_two[0]) as one, whole_file(tmp_path / names_of_two[1]) as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
        assert all(len(path.name.encode()) <= 255 and path.suffix == ".tif" for path in (one, other))
    assert names(tmp_path) == sorted(names_of_two)
    assert (tmp_path / names_of_two[1]).read_text() == "2"


def test_a_leftover_of_a_long_name_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = temporary_name(tmp_path / ("x" * 250 + ".tif"), ended.pid)
    left.write_text("half")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


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
    (left,) = names(tmp_path)
    assert left.startswith(".a.b.partial-")
    left = [left, left.replace(".a.b", ".no suffix").removesuffix(".tif")]
    (tmp_path / left[1]).write_text("half")
    for name in ("a.tif", ".hidden", ".partial", ".c.partial-1.tif", ".work.partial"):
        (tmp_path / name).write_text("somebody's")
    monkeypatch.setattr("socket.gethostname", lambda: "another machine")
    remove_leftovers(tmp_path)
    assert set(left) < set(names(tmp_path))
    monkeypatch.undo()
    with whole_file(tmp_path / "d.tif") as alive:  # removes them: nobody had written here before
        alive.write_text("half")
        assert not set(left) & set(names(tmp_path))
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


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_when_what_it_leads_to_is_replaced(tmp_path, there):
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "out"
    if there:
        target.mkdir()
        (target / "manifest.json").write_text("old")
    (tmp_path / "out").symlink_to(target)
    with whole_folder(tmp_path / "out", marker="manifest.json", overwrite=True) as temporary:
        (temporary / "manifest.json").write_text("new")
    assert (tmp_path / "out").is_symlink() and (target / "manifest.json").read_text() == "new"
    assert (names(tmp_path), names(tmp_path / "disk")) == (["disk", "out"], ["out"])


KILLED_BEFORE = """
import os, signal, sys
from pipelines.files import whole_folder
events = []
def hook(event, arguments):
    events.append(event)
    if event == sys.argv[2] and events.count(event) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
with whole_folder(sys.argv[1], marker="manifest.json", overwrite=True) as temporary:
    (temporary / "manifest.json").write_text("new")
    sys.addaudithook(hook)
"""


@pytest.mark.parametrize(
    ("event", "number", "there"), [("os.rename", 1, "old"), ("os.rename", 2, None), ("shutil.rmtree", 1, "new")]
)
def test_a_kill_while_the_new_folder_takes_the_place_of_the_old_one(tmp_path, event, number, there):
    out = tmp_path / "out[1]"
    out.mkdir()
    (out / "manifest.json").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE, out, event, str(number)], check=False)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) > 1
    assert ((out / "manifest.json").read_text() if out.exists() else None) == there
    with whole_folder(out, marker="manifest.json", overwrite=True) as temporary:
        assert not names(temporary)
        (temporary / "manifest.json").write_text("newer")
    assert names(tmp_path) == ["out[1]"] and (out / "manifest.json").read_text() == "newer"


def test_an_interruption_between_the_two_moves_leaves_the_old_folder(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("old")
    real, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        whole_folder(tmp_path / "out", marker="manifest.json", overwrite=True) as temporary,
    ):
        (temporary / "manifest.json").write_text("new")
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "manifest.json").read_text() == "old"


def test_a_leftover_that_cannot_be_removed_stops_nobody(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stuck = temporary_name(tmp_path / "a.tif", ended.pid)
    stuck.mkdir()  # no file, so that removing it as one fails, as it does where it is somebody else's
    with whole_file(tmp_path / "b.tif") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == sorted([stuck.name, "b.tif"])


def test_an_old_folder_that_a_kill_has_left_aside_comes_back(tmp_path):
    aside = tmp_path / ".out.replaced-1"
    aside.mkdir()
    (aside / "manifest.json").write_text("old")
    with pytest.raises(InputError, match="out exists already"), whole_folder(tmp_path / "out", marker="manifest.json"):
        pass
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "manifest.json").read_text() == "old"


def test_a_lock_that_a_kill_has_left_behind_the_last_move_is_removed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("whole")
    (tmp_path / ".out.partial.lock").touch()
    with pytest.raises(InputError, match="out exists already"):
        check_free(tmp_path / "out", marker="manifest.json")
    assert names(tmp_path) == ["out"]


def test_unfinished_work_and_what_lies_between_two_moves_is_removed_where_nobody_is_at_it(tmp_path):
    for name in (".a.tif.work.partial", ".b.tif.work.partial", ".c.zarr.replaced-1", ".d.zarr.replaced-1", "d.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").touch()
    (tmp_path / ".e.partial.lock").touch()
    (tmp_path / ".f.partial").mkdir()  # somebody may go on with it
    with locked_folder(tmp_path / ".b.tif.work.partial"):
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [".b.tif.work.partial", ".f.partial", "c.zarr", "d.zarr"]
    assert (tmp_path / "c.zarr" / "content").exists()
    with whole_folder(tmp_path / "g", marker="content") as temporary:
        (temporary / "content").touch()
        remove_leftovers(tmp_path)
        assert (tmp_path / ".g.partial.lock").exists()
    assert names(tmp_path) == [".f.partial", "c.zarr", "d.zarr", "g"]


def test_a_second_writer_of_a_folder_is_refused(tmp_path):
    with whole_folder(tmp_path / "out", marker="manifest.json") as temporary:
        (temporary / "manifest.json").write_text("first")
        with (
            pytest.raises(InputError, match="Another process is writing .*out"),
            whole_folder(tmp_path / "out", marker="manifest.json"),
        ):
            pass
        assert (temporary / "manifest.json").read_text() == "first"
    assert names(tmp_path) == ["out"]


def test_a_lock_that_its_holder_has_removed_meanwhile_is_not_taken_for_one(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def slow(file, flags):
        real(file, flags)
        calls.append(file)
        if len(calls) == 1:  # the process before us ends between our opening and locking its file
            (tmp_path / ".out.partial.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", slow)
    with whole_folder(tmp_path / "out", marker="manifest.json") as temporary:
        (temporary / "manifest.json").write_text("first")
        assert (tmp_path / ".out.partial.lock").exists() and len(calls) == 2
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
