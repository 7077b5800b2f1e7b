"""docs/tutorial.md: its blocks are run in order, on embedded nuclei; what is done in Fiji is done here in numpy."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile

from cellseg import runs
from cellseg.cli import shell
from cellseg.cli.evaluate import evaluate as evaluate_command
from cellseg.experiment import read
from pipelines.sources.pairs import find
from tests.commands import blocks, run

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
NUCLEI = ROOT / "experiments" / "data" / "nuclei" / "images"
SHORT = "train.epochs=1 train.steps_per_epoch=1 train.batch_size=1 train.patch=32 tuning.measure=dice"
NAMES = {"a": "00071198d059", "b": "03398329ced0", "c": "0280fa8f60f6", "d": "02903040e19d"}
A, B, *REST = NAMES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which everything was done, with what was printed by its two programs."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "my-images").mkdir()
    (folder / "my-sequence").mkdir()
    for name, image in NAMES.items():
        shutil.copy(NUCLEI / f"{image}.tif", folder / "my-images" / f"{name}.tif")
    nuclei = tifffile.imread(NUCLEI / f"{NAMES[A]}.tif")[128:, :128]
    for frame in range(3):
        tifffile.imwrite(folder / "my-sequence" / f"t{frame:03d}.tif", np.roll(nuclei, 2 * frame, axis=1))
    predict, copy, train, track, again = blocks(TUTORIAL, "sh")
    (table,) = blocks(TUTORIAL, "python")
    (experiment,) = blocks(TUTORIAL, "yaml")
    (folder / "my-nuclei.yaml").write_text(experiment)
    run(predict, folder)
    run(copy, folder)
    correct(folder)
    run(train, folder, also=SHORT)
    run(track, folder)
    python(table, folder)
    wipe(folder / "my-tracks" / "mask002.tif")
    run(again, folder)
    return folder


def python(program, folder):
    with contextlib.chdir(folder):
        exec(program, {})


def correct(folder):
    """All but three outlines of an image are deleted, and one is added; another is corrected as a label image."""
    path = folder / "corrected" / "labels" / f"{A}.tif"
    path.with_name(f"{A}_rois.zip").unlink()
    labels = tifffile.imread(folder / "first" / path.name)
    labels[labels == labels.max()] = 0
    labels[:6, :7] = 600
    tifffile.imwrite(path, labels)
    rois = roifile.roiread(folder / "first" / f"{B}_rois.zip")[:3]
    rois.append(roifile.ImagejRoi.frompoints([[2, 3], [12, 3], [12, 9], [2, 9]], name="new"))
    roifile.roiwrite(folder / "corrected" / "labels" / f"{B}_rois.zip", rois, mode="w")


def wipe(path):
    """A cell of a frame is gone."""
    labels = tifffile.imread(path)
    labels[labels == labels.max()] = 0
    tifffile.imwrite(path, labels)


def test_the_first_answer_can_be_looked_at_and_corrected(folder):
    names = {path.name for path in (folder / "first").iterdir()}
    assert names == {f"{name}{end}" for name in NAMES for end in (".tif", "_overlay.png", "_rois.zip")}


def test_corrected_outlines_are_the_truth(folder):
    items = {item.name: item for item in find(folder / "corrected")}
    labels = items[B].load().labels
    assert len(np.unique(labels)) == 5
    assert (labels[3:9, 2:12] == 4).all()
    assert items[A].load().labels[:6, :7].min() == 600


def test_outlines_are_a_truth_to_score_by(folder, capsys):
    evaluate = (folder / "corrected" / "labels", folder / "first")
    assert shell.run(evaluate_command, [*map(str, evaluate), "--measure", "dice", "--csv", str(folder / "s.csv")]) == 0
    scores = pd.read_csv(folder / "s.csv").set_index("name")["dice"]
    assert scores[REST].tolist() == [1.0, 1.0]  # not corrected
    assert 0 < scores[B] < 0.9 and 0.9 < scores[A] < 1


def test_the_training_starts_from_the_run_in_the_box_and_sees_the_corrections(folder):
    transfer = json.loads((folder / "my-run" / runs.TRANSFER).read_text())
    assert transfer["weights"] == transfer["total"] and not transfer["unused"]
    assert read(folder / "my-run" / "experiment.yaml").train.start_from.endswith("nuclei")
    assert sum(json.loads((folder / "my-run" / runs.DATA).read_text())["splits"].values()) == len(NAMES)
    assert (folder / "my-run" / "report.html").exists()


def test_tracks_and_tables(folder):
    tracks = pd.read_csv(folder / "my-tracks" / "tracks.csv")
    through = tracks[tracks["num_frames"] == 3]
    assert len(through) >= 5
    # Two pixels of 0.65 um in 300 s; what the roll tears apart at the border goes otherwise.
    assert through["mean_speed_um_per_s"].median() == pytest.approx(2 * 0.65 / 300, rel=0.1)
    assert (folder / "my-tracks" / "report.html").exists()


def test_corrected_labels_are_tracked_again(folder):
    cells = [pd.read_csv(folder / name / "cells.csv") for name in ("my-tracks", "my-tracks-2")]
    filled = cells[1]["filled"].sum()
    assert (cells[0]["frame"] == 2).sum() == (cells[1]["frame"] == 2).sum() + 1 - filled
    assert (folder / "my-tracks-2" / "report.html").exists()
