import numpy as np
import pytest

from cellseg.evaluation import Scores
from cellseg.metrics.aogm import Operation
from cellseg.mistakes import find_mistakes
from cellseg.pairing import Pair
from cellseg.score_files import MistakePictures, operations_table, scores_table, write_table
from pipelines.errors import InputError
from pipelines.images import write_image
from tests import cells


def test_rows_of_one_image_and_undefined_values():
    scores = Scores(["dice", "seg"])
    scores.add("none", cells.empty(), cells.empty())
    table = scores_table(scores.result())
    assert table["row"].tolist() == ["image", "pooled", "interval low", "interval high"]
    assert table["dice"].tolist()[:2] == [1.0, 1.0] and table["dice"][2:].isna().all()
    # Nobody counted the cells: no columns for them, rather than zeros.
    assert list(table.columns) == ["row", "name", "dice", "seg"] and table["seg"].isna().all()


def test_baselines_have_a_row_each():
    result = {
        "measures": {"dice": 0.5},
        "per_image": [],
        "baseline": {"dice": 0.0},
        "baseline_foreground": {"dice": 0.2},
    }
    table = scores_table(result)
    assert dict(zip(table["row"], table["dice"], strict=True))["all foreground"] == 0.2


def test_operations_by_hand(tmp_path):
    listed = [Operation("NS", 3, (4, 7), (2,)), Operation("EA", 5, (1, 2), (), from_frame=4)]
    write_table(tmp_path / "operations.csv", operations_table(listed))
    assert (tmp_path / "operations.csv").read_text().splitlines() == [
        "kind,frame,from_frame,labels_true,labels_pred,count",
        "NS,3,,4 7,2,1",
        "EA,5,4,1 2,,1",
    ]


def test_no_operations_are_a_header():
    assert list(operations_table([]).columns)[:2] == ["kind", "frame"] and operations_table([]).empty


def test_volumes_are_not_drawn(tmp_path):
    pair = Pair("000", tmp_path / "man_seg000.tif", tmp_path / "mask000.tif")
    volume = np.zeros((2, 6, 8), np.int32)
    with pytest.raises(InputError, match=r"mask000\.tif is a volume; --overlay draws the cells of 2-D labels"):
        MistakePictures(tmp_path).watch(pair, "000", volume, volume, find_mistakes(volume, volume))


def test_a_stack_of_images_that_is_too_short(tmp_path):
    write_image(tmp_path / "images" / "movie.tif", np.zeros((1, 6, 8, 1), np.uint8))
    pictures = MistakePictures(tmp_path / "out", tmp_path / "images")
    labels = cells.one_cell()
    pair = Pair("movie", tmp_path / "movie.tif", tmp_path / "movie.tif")
    with pytest.raises(InputError, match=r"holds 1 page\(s\) of 6x8 pixels, but .*movie\.tif needs page 2 of 6x8"):
        pictures.watch(pair, "movie/001", labels, labels, find_mistakes(labels, labels))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_images_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*images"):
        MistakePictures(tmp_path, tmp_path / "images")
