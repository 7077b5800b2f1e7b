"""Classes of tracked cells: one a cell and frame in cells.csv, that of most frames in tracks.csv."""

import keras
import numpy as np
import pandas as pd
import pytest

from cellseg import runs
from cellseg.class_columns import ClassColumns
from cellseg.cli import predict, shell
from pipelines.images import write_image
from tests.cellseg.test_tracking import moving
from tests.runs import bright_pixels_run

NAMES = ["round", "long"]


def maps(*rows):
    """'.12' -> class map of one row."""
    return [np.array([[int(one) for one in row.replace(".", "0")]], np.int32) for row in rows]


def columns(labels, classes):
    known = ClassColumns(NAMES, maps(*classes).__getitem__)
    frames = maps(*labels)
    for frame, tracked in enumerate(frames):
        known.note(frame, tracked)
    rows = [(frame, cell) for frame, one in enumerate(frames) for cell in np.unique(one[one > 0]).tolist()]
    cells = pd.DataFrame([{"frame": frame, "label": cell, "track": cell, "area": 1} for frame, cell in rows])
    tracks = pd.DataFrame({"track": sorted({cell for _, cell in rows}), "parent": 0, "start": 0})
    cells = known.cells(cells)
    return cells, known.tracks(tracks, cells)


def test_most_frames_decide_and_the_first_class_among_equals():
    cells, tracks = columns(["1.2.3", "1.2.3", "1.2.3"], ["1.2.2", "2.1.1", "2.0.0"])
    assert list(cells) == ["frame", "label", "track", "class", "area"]
    assert cells["class"].tolist() == ["round", "long", "long", "long", "round", "round", "long", "", ""]
    assert list(tracks) == ["track", "parent", "class", "start"]
    # Track 3 is long and round once each; round is the run's class 1.
    assert tracks["class"].tolist() == ["long", "round", "round"]


def test_a_track_without_class_and_no_track_at_all():
    cells, tracks = columns(["1.2"], ["1.0"])
    assert tracks["class"].tolist() == ["round", ""]
    known = ClassColumns(NAMES, maps("...").__getitem__)
    known.note(0, maps("...")[0])
    empty = pd.DataFrame({"frame": [], "label": [], "track": [], "area": []})
    cells = known.cells(empty)
    assert list(cells) == ["frame", "label", "track", "class", "area"] and not len(cells)
    assert known.tracks(pd.DataFrame({"track": [], "parent": []}), cells)["class"].tolist() == []


@pytest.fixture
def run(tmp_path):
    """Bright pixels are cells, above 210 of class `long`, else `round`."""
    run = bright_pixels_run(tmp_path)
    inputs = keras.layers.Input((None, None, 1))
    layer = keras.layers.Conv2D(3, 1, activation="softmax", name="probability")
    network = keras.Model(inputs, layer(inputs))
    # Of x = grey value / 230: background below 0.5, round to 0.91, long above.
    layer.set_weights([np.array([0, 40, 80], np.float32).reshape(1, 1, 1, 3), np.array([20, 0, -36.4], np.float32)])
    network.save(run / runs.MODEL)
    runs.write_json(run, runs.DATA, {**runs.read_json(run, runs.DATA), "classes": NAMES})
    return run


def call(*arguments):
    return shell.run(predict.predict, [str(word) for word in arguments])


def test_the_command_writes_them(tmp_path, run, capsys):
    for frame, labels in enumerate(moving()):
        grey = np.array([0, 190, 230])
        if frame == 1:
            grey[1] = 230  # the first cell is taken for a long one, once
        if frame == 3:
            grey[2] = 0  # the second is not found there
        image = grey[labels].astype(np.uint8)
        image[0, 0] = 230
        write_image(tmp_path / "seq" / f"t{frame:03d}.tif", image)
    experiment = run / runs.EXPERIMENT
    experiment.write_text(experiment.read_text().replace("name: components", "name: components\n  min_size: 5"))
    out = tmp_path / "out"
    assert call(run, tmp_path / "seq", "--track", "--measure", "--out", out) == 0
    cells, tracks = (pd.read_csv(out / f"{name}.csv", keep_default_na=False) for name in ("cells", "tracks"))
    assert cells[cells["track"] == 1]["class"].tolist() == ["round", "long", "round", "round", "round"]
    drawn = cells[cells["track"] == 2].set_index("frame")
    assert drawn["class"].to_dict() == {0: "long", 1: "long", 2: "long", 3: "", 4: "long"}
    assert str(drawn["filled"][3]) == "True"
    assert tracks["class"].tolist() == ["round", "long"]
    assert {path.name for path in out.glob("mask*")} == {f"mask00{frame}.tif" for frame in range(5)}
    assert (out / "report.html").exists()
    assert call(run, tmp_path / "seq", "--volume", "--no-report", "--out", tmp_path / "volume") == 0
    assert "The classes that the run knows are not kept" in capsys.readouterr().err


def test_images_that_are_not_tracked_have_them_too(tmp_path, run):
    first, second = (np.array([0, *grey])[moving()[0]].astype(np.uint8) for grey in ((190, 230), (230, 190)))
    write_image(tmp_path / "in" / "a.tif", first)
    write_image(tmp_path / "in" / "s.tif", np.stack([first, second])[..., None])
    assert call(run, tmp_path / "in", "--measure", "--out", tmp_path / "out") == 0
    cells = pd.read_csv(tmp_path / "out" / "cells.csv")
    assert list(cells)[:5] == ["image", "frame", "label", "track", "class"]
    found = list(zip(cells["image"], cells["frame"], cells["class"], strict=True))
    assert found[:2] == [("a", 0, "round"), ("a", 0, "long")]
    assert found[2:] == [("s", 0, "round"), ("s", 0, "long"), ("s", 1, "long"), ("s", 1, "round")]
