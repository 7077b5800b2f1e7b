import os

import pytest

from cellseg.cli import shell, train
from cellseg.cli.train import _what_now
from pipelines.errors import InputError, InterruptionError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'EXPERIMENT.yaml', or --resume RUN"),
        (["--resume", "run", "--out", "other"], "goes on in the run's own folder"),
        (["--resume", "run", "--overwrite"], "goes on in the run's own folder"),
        (["a.yaml", "--folds", "3", "--hours", "1"], "--folds goes with neither --resume nor --hours"),
        (["a.yaml", "--hours", "0"], "0.0 is not in the range x>0"),
        (["a.yaml", "--resume", "run"], "There is no experiment file a.yaml"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, said, capsys):
    assert shell.run(train.main.command, arguments) == shell.BAD_INPUT
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run", "run.interrupted"])
def test_how_to_go_on_is_said_where_there_is_a_checkpoint(tmp_path, capsys, name):
    with pytest.raises(KeyboardInterrupt), _what_now(tmp_path / "run"):
        raise KeyboardInterrupt
    assert not capsys.readouterr().err
    (tmp_path / name / "backup").mkdir(parents=True)
    (tmp_path / name / "backup" / "checkpoint.npz").touch()
    with pytest.raises(KeyboardInterrupt), _what_now(tmp_path / "run"):
        raise KeyboardInterrupt
    assert f"cellseg-train --resume {tmp_path / name}\n" in capsys.readouterr().err


def test_a_refusal_does_not_say_to_go_on_and_an_end_behind_a_new_checkpoint_does(tmp_path, capsys):
    path = tmp_path / "run" / "backup" / "checkpoint.npz"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(InputError), _what_now(tmp_path / "run"):
        raise InputError("other data")
    assert not capsys.readouterr().err
    for error, changed in ((InterruptionError("a worker has gone"), False), (InputError("the disk is full"), True)):
        with pytest.raises(InputError), _what_now(tmp_path / "run"):
            if changed:
                os.utime(path, (1, 1))
            raise error
        assert "To go on with what is there" in capsys.readouterr().err
