import fcntl

import numpy as np
import pytest

from cellseg import checkpoints, resuming, runs
from cellseg import experiment as experiments
from cellseg.checkpoints import NAME, Checkpoint, Place
from pipelines.errors import InputError
from tests.runs import bright_pixels_run, experiment


def given(**sections):
    augment = [{"name": "HorizontalFlip", "p": 0.5}]
    return experiment(**{"augment": augment, "train": {"epochs": 5}, **sections})


@pytest.fixture
def run(tmp_path):
    """A run that was killed in its third epoch."""
    folder = tmp_path / "run"
    (folder / runs.BACKUP).mkdir(parents=True)
    resolved = given().model_copy(update={"loss": {"name": "bce", "foreground_weight": 2.0}})
    runs.write_text(folder, runs.EXPERIMENT, resolved.to_yaml())
    runs.write_text(folder, runs.ENVIRONMENT, "cellseg: 1\n")
    runs.write_json(folder, runs.DATA, {"checksums": {"train-0": "aa", "test-0": "bb"}})
    runs.write_text(folder / runs.BACKUP, resuming.GIVEN, given().to_yaml())
    values = {"model": [np.zeros(3)], "optimizer": [], "metrics": []}
    Checkpoint(Place(epoch=2), values, {}).write(folder / runs.BACKUP / NAME)
    return folder


def test_it_goes_on_with_its_own_experiment(run):
    found = resuming.read(run)
    assert found.experiment.loss == {"name": "bce", "foreground_weight": 2.0}
    assert found.checkpoint.place.epoch == 2


@pytest.mark.parametrize("of", ["as given", "as resolved"])
def test_the_same_experiment_may_be_given(run, of):
    again = given() if of == "as given" else experiments.read(run / runs.EXPERIMENT)
    assert resuming.read(run, again).experiment.loss["foreground_weight"] == 2.0


def test_keys_that_differ_are_named(run):
    other = given(train={"epochs": 6, "ema": 0.9}, augment=[{"name": "HorizontalFlip", "p": 1.0}])
    with pytest.raises(InputError) as caught:
        resuming.read(run, other)
    told = str(caught.value)
    assert "train.epochs is 5 in the run, 6 here" in told and "train.ema is not set in the run, 0.9 here" in told
    assert "augment.0.p is 0.5 in the run, 1.0 here" in told and told.count(" in the run, ") == 3


def test_overrides_are_compared(run):
    with pytest.raises(InputError, match="train.batch_size is 4 in the run, 8 here; .*train.learning_rate is 0.001"):
        resuming.read(run, overrides=("train.batch_size=8", "train.learning_rate=0.1"))


def test_what_does_not_change_what_is_learned_may_be_changed(run):
    overrides = ("train.max_hours=2", "train.on_nan=restore", "train.checkpoint_minutes=1")
    train = resuming.read(run, overrides=overrides).experiment.train
    assert (train.max_hours, train.on_nan, train.checkpoint_minutes) == (2, "restore", 1)


def test_a_run_that_had_not_begun_to_train_has_no_checkpoint(run):
    (run / runs.BACKUP / NAME).unlink()
    assert resuming.read(run).checkpoint is None


def test_other_folders_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="There is no run folder .*nothing to resume"):
        resuming.read(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    finished = bright_pixels_run(tmp_path / "other")
    with pytest.raises(InputError, match=r"is finished: there is nothing to resume.*train.start_from="):
        resuming.read(finished)
    (run / runs.ENVIRONMENT).unlink()
    with pytest.raises(InputError, match="is no interrupted run: it lacks"):
        resuming.read(run)
    (run / runs.FOLDS).write_text("{}")
    with pytest.raises(InputError, match="holds several folds"):
        resuming.read(run)


def test_a_kill_behind_the_report_leaves_a_run_that_goes_on_and_another_while_it_is_tidied_a_finished_one(run):
    for name in (runs.MODEL, runs.SCORES, "report.html"):
        (run / name).write_text("")
    assert not runs.is_finished(run) and resuming.left_over(run, given()).checkpoint is not None
    (run / runs.BACKUP / NAME).unlink()
    assert runs.is_finished(run)
    with pytest.raises(InputError, match="is finished"):
        resuming.read(run)
    assert not (run / runs.BACKUP).exists() and (run / runs.MODEL).exists()


def test_a_report_of_an_unfinished_run_does_not_finish_it(run):
    (run / "report.html").write_text("as cellseg-report writes it at any time")
    assert resuming.read(run).checkpoint.place.epoch == 2


def test_a_run_that_was_killed_while_its_backup_was_removed_is_finished(run, monkeypatch):
    (run / runs.MODEL).write_text("")
    monkeypatch.setattr(runs.shutil, "rmtree", lambda path, ignore_errors: None)
    runs.end(run)
    assert (run / runs.OVER).is_dir() and not (run / runs.BACKUP).exists()
    monkeypatch.undo()
    with pytest.raises(InputError, match="is finished"):
        resuming.read(run)
    assert not (run / runs.OVER).exists()


def test_what_is_of_no_use_is_removed_unless_it_is_being_trained(run):
    with runs.locked(run), pytest.raises(InputError, match="Another process is training"):
        resuming.left_over(run, given(seed=77))
    assert (run / runs.BACKUP / NAME).is_file()
    assert resuming.left_over(run, given(seed=77)) is None and not run.exists()


def test_a_damaged_checkpoint_is_said(run):
    path = run / runs.BACKUP / NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint.npz is damaged \(.*Begin it anew"):
        resuming.read(run)
    path.write_bytes(bytes(content[: len(content) // 2]))
    with pytest.raises(InputError, match=r"checkpoint.npz is damaged"):
        resuming.read(run)


def test_too_little_memory_is_no_damage(run, monkeypatch):
    def full(*arguments, **options):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(checkpoints.np, "load", full)
    with pytest.raises(MemoryError, match="9 GiB"):  # "Begin it anew" would throw a training away
        resuming.read(run)


def test_other_data_is_refused_with_the_shards_names(run):
    found = resuming.read(run)
    found.check_data({"shards": "here", "checksums": {"train-0": "aa", "test-0": "bb"}})
    with pytest.raises(InputError, match=r"shards in here are not those .*\(other checksums: more-0, train-0\)"):
        found.check_data({"shards": "here", "checksums": {"train-0": "ab", "test-0": "bb", "more-0": "cc"}})


def test_two_processes_do_not_train_one_run(run):
    with open(run / runs.BACKUP / runs.LOCK, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="Another process is training"), runs.locked(run):
            pytest.fail("it must not be entered")
    with runs.locked(run):
        pass


def test_what_was_half_written_or_put_aside_is_removed(run):
    torn = run / runs.BACKUP / ".checkpoint.partial-99.npz"
    torn.write_bytes(b"half")
    aside, foreign = (run.with_name(f".run.old-{number}") for number in (1, 2))
    for folder in (aside, foreign):
        folder.mkdir()
    (aside / runs.ENVIRONMENT).write_text("")
    with resuming.continuing(run):
        assert not torn.exists() and aside.exists()
    assert not aside.exists() and foreign.exists()


def test_where_it_went_on_is_written_behind_where_it_began(run):
    resuming.note_again(run)
    text = (run / runs.ENVIRONMENT).read_text()
    assert text.startswith("cellseg: 1\n") and "\nresumed\ndate: " in text
