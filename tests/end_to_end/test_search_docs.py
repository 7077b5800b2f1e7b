"""docs/search.md: its commands are run in order, with answers in place of the trainings."""

from pathlib import Path

import yaml

from cellseg import run_pictures, scoring, search, search_trial, workflow
from tests.commands import blocks, run
from tests.datasets import write_pairs
from tests.runs import instead_of_training

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "search.md").read_text()
CONTENT = {
    "name": "discs",
    "data": {"source": "raw", "layout": "pairs", "format": "npz", "contrast": [0, 100]},
    "model": {"name": "unet", "padding": "same", "filters": 8, "depth": 1},
    "augment": [{"name": "HorizontalFlip"}],
    "train": {"patch": 32},
    "inference": {"tile": 64, "overlap": 8, "engine": "keras"},
}


class Done:
    """The process of a trial that has ended."""

    def poll(self):
        return 0

    def wait(self):
        return 0


def train(experiment, folder, *, listen=None, **options):
    if listen is not None:
        listen("val_dice").on_epoch_end(0, {"val_dice": 0.5 + experiment.train.learning_rate})
    return instead_of_training(experiment, folder, **{"tested": True} | options)


def start(folder, number, environment):
    search_trial.run(folder, number, train=train)
    return Done()


def test_the_commands_of_the_page(tmp_path, monkeypatch, capsys):
    write_pairs(tmp_path / "raw", 6)
    (section,) = blocks(TEXT, "yaml")
    few = section.replace("trials: 16", "trials: 2").replace("trials: 8", "trials: 1")
    (tmp_path / "discs.yaml").write_text(yaml.safe_dump(CONTENT) + few)
    monkeypatch.setattr(search, "start", start)
    monkeypatch.setattr(workflow, "train", train)
    monkeypatch.setattr(scoring, "write_report", lambda folder: None)
    monkeypatch.setattr(run_pictures, "draw", lambda *arguments: ({}, None))
    searching, chosen, folding, listing = blocks(TEXT, "sh")
    run(searching, tmp_path)
    assert (tmp_path / "runs/search/trials/trial-004/model.keras").is_file()  # 2 + 1 and two as they stand
    run(chosen, tmp_path)
    run(folding, tmp_path)
    assert len(list((tmp_path / "labels").glob("*.tif"))) == 6
    capsys.readouterr()
    run(listing, tmp_path)
    printed = capsys.readouterr().out
    assert "runs/search/trials/trial-004" in printed and "split.fold" in printed and "git checkout abc123" in printed
    assert printed.rstrip().endswith("1 removed") and not (tmp_path / "runs/best").exists()
