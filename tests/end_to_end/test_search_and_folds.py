"""Searches, folds and runs made again, with real trainings of a tiny network."""

import numpy as np
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from cellseg import experiment as experiments
from cellseg import reproduction, run_list, run_pictures, runs, scoring, search, study, workflow
from cellseg.cli import evaluate, shell, train
from tests.datasets import write_pairs

CONTENT = {
    "name": "discs",
    "data": {"layout": "pairs", "format": "npz"},
    "split": {"by": "image"},
    "model": {"name": "unet", "padding": "same", "filters": 2, "depth": 1},
    "train": {
        "patch": 32,
        "epochs": 2,
        "steps_per_epoch": 2,
        "batch_size": 1,
        "learning_rate": 1e-2,
        "dashboard": {"pictures": 0, "histograms": False},
    },
    "inference": {"tile": 64, "overlap": 8, "engine": "keras"},
}


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """They have tests of their own, and would take most of the time here."""
    for place in (workflow, scoring):
        monkeypatch.setattr(place, "write_report", lambda run: None)
    monkeypatch.setattr(run_pictures, "draw", lambda *arguments: ({}, None))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An experiment file beside its images."""
    folder = tmp_path_factory.mktemp("discs")
    write_pairs(folder / "raw", 6)
    path = folder / "discs.yaml"
    data = {**CONTENT["data"], "source": "raw", "shards": "shards"}
    path.write_text(yaml.safe_dump({**CONTENT, "data": data}))
    return path


def test_two_trials_are_trained_in_processes_of_their_own(file, tmp_path):
    section = {
        "space": {"train.learning_rate": {"name": "log_uniform", "low": 1e-4, "high": 1e-1}},
        "broad": {"trials": 1},
        "narrow": None,
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(section))
    folder = tmp_path / "search"
    checked, _ = search.begin(experiments.read(file, space=tmp_path / "space.yaml"), folder)
    shared = search.go_on(checked, folder, jobs=2)
    logs = [path.read_text() for path in (folder / "trials").glob("*.log")]
    assert [trial.state for trial in shared.trials] == [TrialState.COMPLETE] * 2, logs
    for trial in shared.trials:
        run = folder / "trials" / study.name_of(trial.number)
        history = pd.read_csv(run / runs.HISTORY)
        assert trial.intermediate_values == pytest.approx(dict(zip((1, 2), history["val_dice"], strict=True)))
        assert trial.value == max(trial.intermediate_values.values())
        assert set(runs.read_json(run, runs.SCORES)) == {"validation"}, "the test images are not looked at"
        assert runs.Run.read(run).experiment.train.learning_rate == experiments.read(f"{run}.yaml").train.learning_rate
    first, second = shared.trials
    assert first.datetime_start < second.datetime_start < first.datetime_complete  # at the same time
    # Who has chosen may look.
    assert shell.run(evaluate.evaluate, [str(run)]) == shell.OK
    assert set(runs.read_json(run, runs.SCORES)) == {"validation", "test", "baseline", "baseline_foreground"}


def weights(run):
    network = runs.load_model(run / runs.MODEL)
    return np.concatenate([np.ravel(weight) for weight in network.get_weights()])


def test_folds_are_trained_and_each_can_be_trained_again(file, tmp_path, capsys):
    out = tmp_path / "folds"
    assert shell.run(train.train, [str(file), "--folds", "2", "--out", str(out)]) == shell.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["measure", "mean", "sd"] and lines[-1] == str(out)
    scores = [runs.read_json(out / name, runs.SCORES)["test"]["measures"]["dice"] for name in ("fold1", "fold2")]
    result = runs.read_json(out, runs.FOLDS)
    assert result["measures"]["dice"]["folds"] == scores and result["out_of_fold"]["images"] == 6
    assert [path.name for path in run_list.find([out])] == ["fold1", "fold2"]
    # Made again from its own file, after other trainings in this process: the same weights.
    again = tmp_path / "again"
    assert shell.run(train.train, [str(out / "fold1" / "experiment.yaml"), "--out", str(again)]) == shell.OK
    np.testing.assert_allclose(weights(again), weights(out / "fold1"), atol=1e-6)
    one, other = (run_list.look_at(path) for path in (out / "fold1", again))
    assert run_list.different_keys([one, other]) == {} and one.scores["test"] == pytest.approx(
        other.scores["test"], nan_ok=True
    )
    text = (again / reproduction.RECIPE).read_text()
    assert "Seed 0" in text and f"cellseg-train {again}/experiment.yaml --out NEW" in text
    assert [told for told in reproduction.changed(again) if "uncommitted" not in told] == []
