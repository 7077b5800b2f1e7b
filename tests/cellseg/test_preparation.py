import os
import shutil

import pytest
import tifffile

from cellseg import experiment as experiments
from cellseg import runs
from cellseg.preparation import ensure_shards
from pipelines.errors import InputError
from pipelines.shards.manifest import Manifest
from tests.datasets import discs, write_ctc, write_pairs


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """An experiment on a small data set whose shards lie beside it."""
    monkeypatch.setenv("CELLSEG_DATA", str(tmp_path))
    write_pairs(tmp_path / "cells", 8)
    data = {"source": "cells", "layout": "pairs", "format": "npz", "shards": str(tmp_path / "shards")}
    experiment = experiments.check({"name": "cells", "data": data})
    ensure_shards(experiment)
    return experiment


def test_shards_that_fit_are_used_again(cells, tmp_path):
    before = (tmp_path / "shards" / "manifest.json").stat().st_mtime_ns
    ensure_shards(cells)
    assert (tmp_path / "shards" / "manifest.json").stat().st_mtime_ns == before


def change_label(folder):
    tifffile.imwrite(folder / "labels" / "cell03.tif", discs(77).astype("uint16"))


def add_image(folder):
    for sub in ("images", "labels"):
        (folder / sub / "new.tif").write_bytes((folder / sub / "cell00.tif").read_bytes())


def remove_image(folder):
    for sub in ("images", "labels"):
        (folder / sub / "cell03.tif").unlink()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change_label, "changed: labels/cell03.tif"),
        (add_image, "added: images/new.tif, labels/new.tif"),
        (remove_image, "removed: images/cell03.tif, labels/cell03.tif"),
    ],
)
def test_raw_data_that_has_changed_is_named(cells, tmp_path, edit, message):
    edit(tmp_path / "cells")
    with pytest.raises(InputError, match=rf"is not what the shards in .* were made from \({message}\).*--overwrite"):
        ensure_shards(cells)
    ensure_shards(cells, overwrite=True)
    ensure_shards(cells)


def test_a_copy_of_the_data_with_new_times_is_the_same_data(cells, tmp_path):
    for path in (tmp_path / "cells").rglob("*.tif"):
        os.utime(path, (1, 1))
    ensure_shards(cells)


def test_shards_are_enough_where_the_raw_data_is_gone(cells, tmp_path):
    (tmp_path / "cells").rename(tmp_path / "elsewhere")
    ensure_shards(cells)


def test_frames_are_split_by_block_where_the_yaml_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSEG_DATA", str(tmp_path))
    write_ctc(tmp_path / "sequence", 20)
    data = {"source": "sequence", "layout": "ctc", "truth": "silver", "format": "npz", "shards": str(tmp_path / "out")}
    experiment, folder, _ = ensure_shards(experiments.check({"name": "x", "data": data}))
    assert experiment.split.by == "block" and experiment.split.gap == 2
    frames = {sample["split"]: [] for sample in Manifest.read(folder).samples}
    for sample in Manifest.read(folder).samples:
        frames[sample["split"]].append(sample["frame"])
    assert max(frames["train"]) + 2 < min(frames["validation"])
    assert max(frames["validation"]) + 2 < min(frames["test"])
    (tmp_path / "sequence").rename(tmp_path / "gone")
    again, *_ = ensure_shards(experiments.check({"name": "x", "data": data}))
    assert again.split == experiment.split


def old_run(folder):
    folder.mkdir()
    (folder / runs.ENVIRONMENT).write_text("date: long ago")
    (folder / "report.html").write_text("old")
    return folder


def test_an_old_run_comes_back_if_the_new_training_fails(tmp_path):
    folder = old_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), runs.replacing(folder, overwrite=True):
        assert not (folder / "report.html").exists()
        (folder / "half").write_text("done")
        raise KeyboardInterrupt
    assert (folder / "report.html").read_text() == "old"
    assert (tmp_path / "run.interrupted" / "half").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.interrupted"]


def test_an_old_run_goes_when_the_new_one_is_done(tmp_path):
    folder = old_run(tmp_path / "run")
    with runs.replacing(folder, overwrite=True):
        (folder / "new").write_text("done")
    assert (folder / "new").exists() and not (folder / "report.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_link_to_a_run_stays_when_the_run_is_replaced(tmp_path):
    target = old_run(tmp_path / "run")
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "run"
    link.symlink_to(target)
    with runs.replacing(link, overwrite=True):
        (link / "new").write_text("done")
    assert link.is_symlink() and (target / "new").exists() and not (target / "report.html").exists()
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["run"]


def test_a_killed_process_may_have_had_our_number(tmp_path):
    """In containers most have the same."""
    folder = old_run(tmp_path / "run")
    folder.rename(tmp_path / f".run.old-{os.getpid()}")
    old_run(folder)
    (folder / "report.html").write_text("newer")
    with pytest.raises(KeyboardInterrupt), runs.replacing(folder, overwrite=True):
        raise KeyboardInterrupt
    assert (folder / "report.html").read_text() == "newer"
    with runs.replacing(folder, overwrite=True):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.interrupted"]


def test_an_old_run_that_another_process_has_put_back_is_left_alone(tmp_path):
    folder = old_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), runs.replacing(folder, overwrite=True):
        shutil.rmtree(folder)
        (tmp_path / f".run.old-{os.getpid()}").rename(folder)
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and (folder / "report.html").read_text() == "old"


def test_an_empty_folder_becomes_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    with runs.replacing(tmp_path / "run", overwrite=False, begun={"backup/given.yaml": "name: a", "b.txt": "b"}):
        assert (tmp_path / "run" / "backup" / "given.yaml").read_text() == "name: a"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_is_being_trained_is_not_replaced(tmp_path):
    folder = old_run(tmp_path / "run")
    (folder / "backup").mkdir()
    with runs.locked(folder):
        with pytest.raises(InputError, match="Another process is training .*run at this moment"):
            runs.check(folder, overwrite=True)
        with (
            pytest.raises(InputError, match="Another process is training .*run at this moment"),
            runs.replacing(folder, overwrite=True),
        ):
            pytest.fail("it must not be entered")
    assert (folder / "report.html").read_text() == "old"
    runs.check(folder, overwrite=True)


def test_an_old_run_that_a_kill_has_left_aside_comes_back_or_goes(tmp_path):
    folder = old_run(tmp_path / "run")
    folder.rename(tmp_path / ".run.old-1")
    with pytest.raises(InputError, match="run exists already"), runs.replacing(folder, overwrite=False):
        pytest.fail("it must not be entered")
    assert (folder / "report.html").read_text() == "old"
    old_run(tmp_path / ".run.old-2")  # beside it, as when the training after that was killed
    with runs.replacing(folder, overwrite=True):
        assert len(list(tmp_path.iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_never_replaces_what_is_no_run_or_is_needed(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "experiment.yaml").write_text("name: mine")
    with pytest.raises(InputError, match=r"holds no environment.txt"):
        runs.check(tmp_path / "project", overwrite=True)
    folder = old_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"would replace .*shards, which is needed"):
        runs.check(folder, overwrite=True, keep=[folder / "shards"])
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"would replace .*run, which is needed"):
        runs.check(folder, overwrite=True)
