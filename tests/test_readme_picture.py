import csv
from types import SimpleNamespace

import cv2
import numpy as np

import cellseg
from experiments import readme_picture
from experiments.result_tables import HERE


def test_the_images_shown_are_held_out():
    with (HERE / "nuclei_split.csv").open() as file:
        split = {row["name"]: row["split"] for row in csv.DictReader(file)}
    assert [split[name] for name in readme_picture.SHOWN] == ["test", "test"]


def test_a_row_an_image(tmp_path, monkeypatch):
    blank = SimpleNamespace(predict=lambda image: SimpleNamespace(labels=np.zeros(image.shape[:2], np.int32)))
    monkeypatch.setattr(cellseg, "load_run", lambda name: blank)
    readme_picture.main(tmp_path / "nuclei.png")
    picture = cv2.imread(str(tmp_path / "nuclei.png"))
    left, found, truth = np.split(picture[:, : picture.shape[1] // 3 * 3], 3, axis=1)
    coloured = [int((np.ptp(part.astype(int), axis=2) > 30).sum()) for part in (left, found, truth)]
    assert coloured[:2] == [0, 0] and coloured[2] > 1000  # an image, no cell, the cells drawn by hand
