import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cellseg import experiment as experiments
from cellseg import folds, resuming, runs
from cellseg.cli import folds as command
from cellseg.inference import load_run
from cellseg.prediction import predict_files
from pipelines.dataset import ShardReader
from pipelines.errors import InputError
from tests.datasets import write_isbi, write_pairs
from tests.runs import instead_of_training


def write_run(experiment, run, *, threshold=0.3, say=None, **options):
    """Instead of a training: a run whose test score is a tenth of its fold's number."""
    instead_of_training(experiment, run)
    choice = {"threshold": threshold, "measure": "dice", "value": 1.0, "split": "validation"}
    runs.write_json(run, runs.THRESHOLD, choice)
    part = int(experiment.split.fold.split("/")[0])
    runs.write_json(
        run,
        runs.SCORES,
        {"test": {"measures": {"dice": part / 10, "seg": None}}, "baseline": {"dice": 0.01 + part / 100}},
    )


def pairs(tmp_path, num=7, **sections):
    source = write_pairs(tmp_path / "raw", num)
    content = {
        "name": "discs",
        "data": {"source": str(source), "layout": "pairs", "format": "npz", "contrast": [0, 100]},
        "inference": {"tile": 64, "overlap": 8, "engine": "keras"},
        "split": {"by": "image"},
        **sections,
    }
    return experiments.check(content)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An experiment, the folder of its three folds, and what came out."""
    folder = tmp_path_factory.mktemp("folds")
    checked = pairs(folder)
    return checked, folder / "out", folds.train_folds(checked, folder / "out", 3, train=write_run)


def never(experiment, run, **options):
    pytest.fail(f"trained {run}")


def test_every_image_is_scored_by_the_fold_that_has_not_seen_it(done):
    _, out, result = done
    assert result == json.loads((out / "folds.json").read_text())
    names = [row["name"] for row in result["out_of_fold"]["per_image"]]
    assert sorted(names) == [f"cell{number:02d}" for number in range(7)] and result["split"] == "test"
    for number in (1, 2, 3):
        reader = ShardReader(out / "shards" / f"fold{number}")
        own = reader.manifest.splits["test"]
        assert [name for name in names if name in own] == own  # in the order of the folds
        assert not set(own) & set(reader.manifest.splits["train"])
    assert result["out_of_fold"]["measures"]["dice"] > 0.95  # bright discs: the image is the answer
    assert result["baseline"]["dice"] == 0 and result["ensemble"] is None


def test_mean_and_spread_of_the_folds(done):
    _, out, result = done
    # 0.1, 0.2 and 0.3: mean 0.2, sample standard deviation sqrt((0.01 + 0 + 0.01) / 2) = 0.1
    assert result["measures"]["dice"] == {
        "folds": [0.1, 0.2, 0.3],
        "mean": pytest.approx(0.2),
        "sd": pytest.approx(0.1),
        "all_background": pytest.approx(0.03),
    }
    assert result["measures"]["seg"] == {"folds": [None] * 3, "mean": None, "sd": None, "all_background": None}
    table = pd.read_csv(out / "folds.csv", index_col="measure")
    assert table.loc["dice", ["mean", "sd", "fold1", "fold3"]].tolist() == pytest.approx([0.2, 0.1, 0.1, 0.3])
    text = command.printed(result)
    assert "dice                              0.2000          0.1000" in text
    assert "7 test images, each predicted by a fold" in text and "without a score here" in text


def test_a_fixed_test_is_scored_by_all_folds_together(tmp_path, monkeypatch):
    source = write_isbi(tmp_path / "raw", 8)
    split = {"by": "block", "train": "0-4", "validation": "5-5", "test": "6-7"}
    data = {"source": str(source), "layout": "isbi", "format": "npz", "contrast": [0, 100]}
    checked = pairs(tmp_path, data=data, split=split)

    def train(experiment, run, **options):
        part = int(experiment.split.fold[0])
        write_run(experiment, run, threshold=(0.1, 0.3, 0.8)[part - 1])

    result = folds.train_folds(checked, tmp_path / "out", 3, train=train)
    assert (
        result["split"] == "validation" and result["out_of_fold"]["images"] == 6 and result["ensemble"]["images"] == 2
    )
    together = load_run([tmp_path / "out" / f"fold{part}" for part in (1, 2, 3)])
    reader = ShardReader(tmp_path / "out" / "shards" / "fold2")
    rows = []
    for sample, record in reader.split("test"):
        low, high = sample["contrast"]
        image = np.clip((record["image"][..., 0].astype(np.float32) - low) / (high - low), 0, 1)
        drawn, true = image >= 0.4, record["labels"] > 0  # mean of the thresholds
        rows.append((2 * (drawn & true).sum(), drawn.sum() + true.sum()))
    dice = sum(hit for hit, _ in rows) / sum(both for _, both in rows)
    assert together.threshold == pytest.approx(0.4)
    assert result["ensemble"]["measures"]["dice"] == pytest.approx(dice, abs=1e-6)
    assert "all folds together, on the 2 test images" in command.printed(result)

    def finding_cells_one_by_one(folder):
        loaded = load_run(folder)
        detecting = loaded.run.experiment.model_copy(update={"model": {"name": "mask_rcnn"}})
        loaded.run = dataclasses.replace(loaded.run, experiment=detecting)
        return loaded

    monkeypatch.setattr(folds, "load_run", finding_cells_one_by_one)
    alone = folds.score_folds([tmp_path / "out" / f"fold{part}" for part in (1, 2, 3)])
    assert alone["ensemble"] is None and alone["out_of_fold"] == result["out_of_fold"]
    assert "without a score here, since cells found one by one have no mean" in command.printed(alone)


def test_finished_folds_are_not_trained_again(done):
    checked, out, before = done
    shutil.rmtree(out / "fold3")
    (out / "fold3" / runs.BACKUP).mkdir(parents=True)  # killed in the middle of the third
    (out / "folds.json").unlink()
    trained = []

    def train(experiment, run, **options):
        trained.append(experiment.split.fold)
        write_run(experiment, run)

    assert folds.train_folds(checked, out, 3, train=train) == before
    assert trained == ["3/3"] and (out / "folds.json").exists()


def test_a_folder_of_folds_is_not_resumed_as_a_run(done):
    with pytest.raises(InputError, match="holds several folds. Give the same cellseg-train --folds command"):
        resuming.read(done[1])


def test_the_folder_stands_for_all_folds_together(done, tmp_path):
    checked, out, _ = done
    together = load_run(out)
    assert [run.folder.name for run in together.runs] == ["fold1", "fold2", "fold3"]
    assert predict_files(out, [checked.sources()[0] / "images" / "cell00.tif"], tmp_path / "labels") == []
    assert (tmp_path / "labels" / "cell00.tif").exists()


def test_what_cannot_be_folded_is_refused(done, tmp_path):
    checked, _, _ = done
    with pytest.raises(InputError, match="split.fold is 2/5, and --folds 3 trains all folds"):
        split = checked.split.model_copy(update={"fold": "2/5"})
        folds.train_folds(checked.model_copy(update={"split": split}), tmp_path / "out", 3, train=never)
    with pytest.raises(InputError, match="there are 7 images: at least one for each of the 9 parts"):
        folds.train_folds(checked, tmp_path / "out", 9, train=never)
    assert not (tmp_path / "out").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.jpg").touch()
    with pytest.raises(InputError, match="holds no folds, but photo.jpg; nothing was changed"):
        folds.train_folds(checked, other, 3, train=never, overwrite=True)


def test_folds_of_another_experiment_are_kept(done):
    checked, out, result = done
    for other, num in ((checked, 4), (checked.model_copy(update={"seed": 1}), 3)):
        with pytest.raises(InputError, match="folds of another experiment, or another number of them"):
            folds.train_folds(other, out, num, train=never)
    with pytest.raises(InputError, match="at least one for each of the 9 parts"):
        folds.train_folds(checked, out, 9, train=never, overwrite=True)
    assert json.loads((out / "folds.json").read_text()) == result  # they have come back
