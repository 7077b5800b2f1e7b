"""cellseg-train on two machines, played by two processes that talk over the loopback interface."""

import signal

import numpy as np
import pandas as pd
import pytest

from cellseg import experiment, workflow
from cellseg.checkpoints import NAME, Checkpoint
from tests.datasets import write_pairs
from tests.worker_processes import EXPERIMENT, trained


def prepared(folder):
    write_pairs(folder / "raw", 10)
    (folder / "cells.yaml").write_text(EXPERIMENT)
    return folder


def one_process(folder, monkeypatch, *overrides):
    """The history of the same training on one device, with the whole batch."""
    monkeypatch.setenv("CELLSEG_DATA", str(folder))
    workflow.train(experiment.read(folder / "cells.yaml", overrides), folder / "alone", tested=False)
    return pd.read_csv(folder / "alone" / "history.csv")


def weights(folder, number):
    with np.load(folder / f"{number}.npz") as stored:
        return [stored[name] for name in stored.files]


def test_two_workers_train_as_one_process_with_the_whole_batch(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    trained(folder, {"out": "logs"})
    assert [(folder / "logs" / f"{number}.status").read_text() for number in (0, 1)] == ["0", "0"]
    history = pd.read_csv(folder / "run0" / "history.csv")
    expected = one_process(folder, monkeypatch)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    for one, other in zip(weights(folder / "logs", 0), weights(folder / "logs", 1), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "differ" not in (folder / "logs" / "0.log").read_text()
    assert (folder / "run0" / "model.keras").is_file() and not (folder / "run1").exists()


@pytest.mark.workers
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_training_and_a_restart_goes_on(tmp_path, monkeypatch, victim):
    folder = prepared(tmp_path)
    overrides = ["train.epochs=4"]
    trained(
        folder,
        {"out": "first", "dies": {victim: 5}, "overrides": overrides},
        {"out": "second", "resume": True},
    )
    survivor = 1 - victim
    assert (folder / "first" / f"{victim}.status").read_text() == "-9"
    assert (folder / "first" / f"{survivor}.status").read_text() == "2"
    said = (folder / "first" / f"{survivor}.log").read_text()
    assert f"orker {victim} (127.0.0.1:" in said and "has gone: it was killed" in said and "--resume" in said
    assert [(folder / "second" / f"{number}.status").read_text() for number in (0, 1)] == ["0", "0"]
    history = pd.read_csv(folder / "run0" / "history.csv")
    expected = one_process(folder, monkeypatch, *overrides)
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-4)


@pytest.mark.workers
def test_sigterm_ends_both_workers_with_a_checkpoint(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    overrides = ["train.epochs=3"]
    first = {"out": "first", "dies": {0: 2, 1: 2}, "by": signal.SIGTERM, "overrides": overrides}
    trained(folder, first)
    assert [(folder / "first" / f"{number}.status").read_text() for number in (0, 1)] == ["143", "143"]
    place = Checkpoint.read(folder / "run0" / "backup" / NAME).place
    assert (place.epoch, place.step) == (1, 1)  # behind the step in which it came, and not only behind an epoch
    trained(folder, {"out": "second", "resume": True})
    assert [(folder / "second" / f"{number}.status").read_text() for number in (0, 1)] == ["0", "0"]
    history = pd.read_csv(folder / "run0" / "history.csv")
    expected = one_process(folder, monkeypatch, *overrides)
    assert history["epoch"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-4)


@pytest.mark.workers
def test_moving_statistics_of_their_own_are_what_drifts_and_it_is_said(tmp_path):
    folder = prepared(tmp_path)
    trained(folder, {"out": "logs", "drift": True, "overrides": ["train.epochs=1"]})
    said = (folder / "logs" / "0.log").read_text()
    assert "variables of worker 1" in said and "moving_mean" in said
    pairs = list(zip(weights(folder / "logs", 0), weights(folder / "logs", 1), strict=True))
    differing = [n for n, (one, other) in enumerate(pairs) if not np.array_equal(one, other)]
    assert f"{len(differing)} of {len(pairs)} variables" in said
