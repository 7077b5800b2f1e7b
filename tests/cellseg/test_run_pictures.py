import json

import cv2
import keras
import numpy as np
import pytest

from cellseg import run_pictures, runs, scoring
from cellseg.inference import load_run
from cellseg.networks import network_for
from cellseg.report import PICTURES
from cellseg.run_pictures import METHODS, draw
from pipelines.dataset import ShardReader
from tests.datasets import write_shards
from tests.runs import experiment

MODELS = {
    "valid": {"name": "unet", "padding": "valid", "depth": 1, "filters": 2},
    "same": {"name": "unet", "padding": "same", "depth": 1, "filters": 2},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), 5)


def untrained(folder, shards, padding):
    """A run of a network that has learned nothing, with what reading it asks for; its scores of the test image."""
    train = {"patch": 44 if padding == "valid" else 32}
    one = experiment(model=MODELS[padding], train=train, weight_map={"name": "border"})
    folder.mkdir()
    keras.utils.set_random_seed(0)
    network_for(one, channels=1, num_classes=2, prior=[0.9, 0.1]).save(folder / runs.MODEL)
    runs.write_text(folder, runs.EXPERIMENT, one.to_yaml())
    data = {"channels": 1, "shapes": [[64, 64]], "minimum_range": {}, "shards": str(shards)}
    runs.write_json(folder, runs.DATA, data)
    runs.write_json(folder, runs.THRESHOLD, {"threshold": 0.1, "measure": "dice", "value": 1, "split": "validation"})
    return load_run(folder), ShardReader(shards)


def decoded(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(("padding", "methods"), [("valid", True), ("same", False)])
def test_what_the_report_shows(tmp_path, shards, padding, methods):
    loaded, reader = untrained(tmp_path / "run", shards, padding)
    (name,) = reader.manifest.splits["test"]
    pictures, captions = draw(loaded, reader, [{"name": name, "dice": 0.25}])
    files = ["test_only", *["methods"] * methods, "augmented"]
    assert list(pictures) == [f"pictures/{file}.png" for file in files] == [one["file"] for one in captions]
    told = {one["file"]: one["caption"] for one in captions}
    assert told["pictures/test_only.png"] == f"the only test image, Dice (0.250): {name}"
    rows, columns = decoded(pictures["pictures/augmented.png"]).shape[:2]
    assert rows > columns * 0.9  # four patches, each with labels, target and weight map
    if methods:
        assert told["pictures/methods.png"].endswith(f"overlap-tile, average, resize; {name}")
        rows, columns = decoded(pictures["pictures/methods.png"]).shape[:2]
        assert columns > 3.5 * rows  # the image and three answers side by side
    assert {one["section"] for one in captions} <= set(PICTURES)


def test_the_three_methods_differ(tmp_path, shards, monkeypatch):
    shown = {}
    monkeypatch.setattr(run_pictures.figures, "answers", lambda image, labels, maps, limits: shown.update(maps) or b"")
    loaded, reader = untrained(tmp_path / "run", shards, "valid")
    (name,) = reader.manifest.splits["test"]
    draw(loaded, reader, [{"name": name, "dice": 0.25}])
    maps = {caption.partition(":")[0]: one for caption, one in shown.items()}
    assert list(maps) == list(METHODS.values())
    assert {one.shape for one in maps.values()} == {(64, 64)}
    # The evenly spread tiles lie on the network's grid of 2 px by luck and agree; a resized answer cannot.
    assert np.array_equal(maps["overlap-tile"], maps["average"])
    assert np.abs(maps["overlap-tile"] - maps["resize"]).max() > 0.01
    assert loaded.run.experiment.inference.method == "exact"  # untouched


@pytest.mark.parametrize(
    ("count", "kinds"),
    [
        (2, {"best": 1, "worst": 0}),
        (3, {"best": 2, "typical": 1, "worst": 0}),
        (6, {"best": 5, "typical": 3, "worst": 0}),
    ],
)
def test_no_image_is_shown_twice(count, kinds):
    ranked = [{"name": str(number)} for number in range(count)]
    assert {kind: int(row["name"]) for kind, row in run_pictures._chosen(ranked).items()} == kinds


def test_without_a_dice_there_are_no_pictures(tmp_path, shards):
    assert draw(None, None, [{"name": "a", "dice": None}]) == ({}, None)


def test_scoring_asks_for_what_the_evaluation_section_names(tmp_path, shards):
    loaded, reader = untrained(tmp_path / "run", shards, "same")
    (name,) = reader.manifest.splits["test"]
    section = loaded.run.experiment.evaluation.model_copy(
        update={"measures": ["rand_error"], "probability": ["v_rand"], "parts": {"A": name, "B": "nothing"}}
    )
    object.__setattr__(loaded.run.experiment, "evaluation", section)
    held_out = scoring.score_held_out(loaded, reader)
    scored = json.loads(json.dumps(held_out.scores))
    test = scored["test"]
    assert test["measures"]["rand_error"] > 0 and set(test["probability"]) == {"v_rand"}
    assert list(test["parts"]) == ["A"]
    assert test["parts"]["A"]["measures"] == test["measures"]
    assert test["parts"]["A"]["baseline"]["dice"] == 0 and "parts" in scored["validation"]
    assert scored["validation"]["baseline"]["dice"] == held_out.baselines["baseline"]["dice"] == 0
