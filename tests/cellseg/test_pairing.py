import os

import numpy as np
import pytest
import tifffile

from cellseg.interchange import write_rois
from cellseg.pairing import Pair, pair_files
from pipelines.errors import InputError
from pipelines.images import read_labels, write_image, write_labels
from tests import cells
from tests.pipelines.test_outline_files import polygon, save


def write_folder(folder, **labels):
    for stem, array in labels.items():
        write_labels(folder / f"{stem}.tif", array)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two images: one shifted, one missed cell."""
    (true_a, pred_a), (true_b, pred_b) = cells.shifted_cell(), cells.missed_cell()
    return write_folder(tmp_path / "truth", a=true_a, b=true_b), write_folder(tmp_path / "result", a=pred_a, b=pred_b)


def test_suffixes_do_not_count(tmp_path):
    truth, prediction = cells.shifted_cell()
    write_folder(tmp_path / "truth", a_mask=truth, b_labels=truth)
    write_folder(tmp_path / "result", a=prediction, b_label=prediction)
    (tmp_path / "result" / "notes.txt").write_text("not an image")
    pairs = pair_files(tmp_path / "truth", tmp_path / "result")
    assert [(pair.name, pair.truth.name, pair.prediction.name) for pair in pairs] == [
        ("a", "a_mask.tif", "a.tif"),
        ("b", "b_labels.tif", "b_label.tif"),
    ]


def test_what_predict_writes_beside_the_labels_is_left_out(folders):
    truth, result = folders
    write_image(result / "a_overlay.png", np.zeros((6, 8, 3), np.uint8))
    write_image(result / "a_probability.tif", np.zeros((6, 8), np.float32))
    assert [pair.prediction.name for pair in pair_files(truth, result)] == ["a.tif", "b.tif"]


def test_floats_of_0_and_1_are_a_probability_only_by_their_name(folders):
    """Of an empty image, other programs' float labels and a probability by cellseg-predict are the same file."""
    truth, result = folders
    for blank in (np.zeros((6, 8), np.float32), np.eye(6, 8, dtype=np.float32)):
        for name, dtype in (("a.tif", np.int32), ("a_probability.tif", np.float32)):
            write_image(result / name, blank)
            ((_, _, prediction),) = Pair("a", truth / "a.tif", result / name).read()
            assert prediction.dtype == dtype and np.array_equal(prediction, blank)


def test_files_without_a_partner_are_listed_on_both_sides(folders):
    truth, result = folders
    for number in range(7):
        write_labels(truth / f"c{number}.tif", cells.empty())
    write_labels(result / "d.tif", cells.empty())
    message = (
        r"7 of 9 files in .*truth have no partner: c0\.tif, c1\.tif, c2\.tif, c3\.tif, c4\.tif and 2 more\. "
        r"1 of 3 files in .*result have no partner: d\.tif\."
    )
    with pytest.raises(InputError, match=message):
        pair_files(truth, result)


def test_two_files_of_one_name(folders):
    truth, result = folders
    write_labels(truth / "a_mask.tif", cells.empty())
    with pytest.raises(InputError, match=r"stand for one image, a: .*a\.tif, .*a_mask\.tif"):
        pair_files(truth, result)


@pytest.mark.parametrize("side", ["truth", "prediction"])
def test_a_name_that_is_no_text(tmp_path, side):
    for name in ("truth", "prediction"):
        (tmp_path / name).mkdir()
        write_labels(os.fsdecode(os.fsencode(tmp_path / name) + b"/a\xff.tif"), np.zeros((2, 2), np.uint8))
    other = "prediction" if side == "truth" else "truth"
    write_labels(tmp_path / "b.tif", np.zeros((2, 2), np.uint8))
    bad = next((tmp_path / side).iterdir())
    given = {side: bad, other: tmp_path / "b.tif"}
    for one in ({"truth": tmp_path / "truth", "prediction": tmp_path / "prediction"}, given):
        with pytest.raises(InputError, match=r"a\\xff.tif' is no UTF-8"):
            pair_files(one["truth"], one["prediction"])


def test_missing_folder(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        pair_files(folders[0], tmp_path / "nowhere")


def test_folder_without_labels_names_its_folders(folders, tmp_path):
    (tmp_path / "empty" / "labels").mkdir(parents=True)
    with pytest.raises(InputError, match=r"empty holds no label file \(.tif.*It holds the folders labels"):
        pair_files(tmp_path / "empty", folders[1])


def test_file_against_folder(folders):
    with pytest.raises(InputError, match=r"a\.tif is a file, but .*result is a folder"):
        pair_files(folders[0] / "a.tif", folders[1])


def test_pictures_of_mistakes_in_the_result_folder_are_left_out(folders):
    truth, result = folders
    write_image(result / "a_errors.png", np.zeros((6, 8, 3), np.uint8))
    assert [pair.prediction.name for pair in pair_files(truth, result)] == ["a.tif", "b.tif"]


def test_probabilities_are_taken_on_request_or_where_they_stand_alone(folders):
    truth, result = folders
    for name in "ab":
        write_image(result / f"{name}_probability.tif", np.zeros((6, 8), np.float32))
    (result / "b.tif").unlink()
    for probability, first in ((False, "a.tif"), (True, "a_probability.tif")):
        pairs = pair_files(truth, result, probability=probability)
        assert [pair.prediction.name for pair in pairs] == [first, "b_probability.tif"]


def test_ctc_probabilities_match_by_number(tmp_path):
    write_folder(tmp_path / "01_GT" / "SEG", man_seg003=cells.one_cell())
    write_image(tmp_path / "01_RES" / "mask003_probability.tif", np.zeros((6, 8), np.float32))
    pairs = pair_files(tmp_path / "01_GT", tmp_path / "01_RES", probability=True)
    assert [(pair.name, pair.is_ctc) for pair in pairs] == [("003", True)]


def read_one(truth, prediction):
    return list(Pair("a", truth, prediction).read())


def test_float_truth_is_refused(tmp_path):
    write_image(tmp_path / "a.tif", np.full((6, 8), 0.5, np.float32))
    with pytest.raises(InputError, match=r"a\.tif: labels must be whole numbers, the file holds float32"):
        read_one(tmp_path / "a.tif", tmp_path / "a.tif")


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_float_prediction_outside_0_to_1_is_refused(folders, tmp_path, value):
    image = np.full((6, 8), 0.5, np.float32)
    image[2, 3] = value
    write_image(tmp_path / "p.tif", image)
    with pytest.raises(
        InputError, match=r"p\.tif holds fractions from .* Expected labels \(whole numbers\), or a prob"
    ):
        read_one(folders[0] / "a.tif", tmp_path / "p.tif")


def test_float_prediction_is_read_as_it_is(folders, tmp_path):
    image = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    write_image(tmp_path / "p.tif", image)
    [(name, _, prediction)] = read_one(folders[0] / "a.tif", tmp_path / "p.tif")
    assert name == "a" and prediction.dtype == np.float32 and np.array_equal(prediction, image)


def test_a_damaged_prediction_is_named(folders, tmp_path):
    (tmp_path / "p.tif").write_bytes(b"II*\x00")
    with pytest.raises(InputError, match=r"p\.tif"):
        read_one(folders[0] / "a.tif", tmp_path / "p.tif")


def test_outlines_are_a_truth(folders):
    truth, result = folders
    labels = read_labels(truth / "a.tif", page=0)
    (truth / "a.tif").unlink()
    write_rois(truth / "a_rois.zip", labels)
    write_rois(truth / "b_rois.zip", cells.empty())  # b.tif is there and goes first
    write_rois(result / "a_rois.zip", cells.empty())  # of a prediction the labels count
    pairs = pair_files(truth, result)
    assert [(pair.name, pair.truth.name, pair.prediction.name) for pair in pairs] == [
        ("a", "a_rois.zip", "a.tif"),
        ("b", "b.tif", "b.tif"),
    ]
    ((_, one_true, one_pred),) = pairs[0].read()
    np.testing.assert_array_equal(one_true, np.searchsorted(np.unique(labels), labels))
    np.testing.assert_array_equal(one_pred, read_labels(result / "a.tif", page=0))


def test_outlines_of_a_stack_are_a_truth(tmp_path):
    stack = np.stack([cells.shifted_cell()[0]] * 2)
    stack[0] = 0
    write_rois(tmp_path / "truth.zip", stack)
    write_labels(tmp_path / "found.tif", stack)
    read = list(Pair("s", tmp_path / "truth.zip", tmp_path / "found.tif").read())
    assert [name for name, _, _ in read] == ["s/000", "s/001"]
    for _, one_true, one_pred in read:
        np.testing.assert_array_equal(one_true > 0, one_pred > 0)
    write_labels(tmp_path / "found.tif", stack[0])
    write_rois(tmp_path / "truth.zip", np.stack([stack[1]] * 2))
    with pytest.raises(InputError, match="truth.zip holds outlines at 2 positions of a stack, but .*found.tif is one"):
        next(iter(Pair("s", tmp_path / "truth.zip", tmp_path / "found.tif").read()))


def test_truth_of_a_hyperstack_is_placed_by_the_axes_of_the_prediction(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3, 20, 30), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    save(tmp_path / "a.zip", [polygon(t, z, 9, 9, t_position=t, z_position=z) for t, z in ((2, 1), (1, 3))])
    read = list(Pair("a", tmp_path / "a.zip", tmp_path / "a.tif").read())
    assert [bool(true.any()) for _, true, _ in read] == [False, False, True, True, False, False]
    write_labels(tmp_path / "b.tif", np.zeros((6, 20, 30), np.int32))  # six frames
    with pytest.raises(InputError, match=r"b\.tif has 6 pages, and its axes do not say which of them are frames and"):
        next(iter(Pair("b", tmp_path / "a.zip", tmp_path / "b.tif").read()))
