import math

import numpy as np
import pytest

from cellseg.metrics.sequence import SEQUENCE_METRICS, evaluate_sequence, read_tracking
from cellseg.metrics.tracking import compare_tracking
from pipelines.errors import InputError
from pipelines.images import write_labels
from tests import sequences
from tests.sequences import sequence

ALL = list(SEQUENCE_METRICS)


@pytest.fixture
def folders(tmp_path):
    """(01_GT, 01_RES) of two cells in three frames, all found."""
    return sequences.write_ctc(tmp_path, sequences.two_cells(), sequences.two_cells())


def test_knows_the_names_of_the_interface():
    names = {"seg", "det", "tra", "lnk", "op_csb", "op_ctb", "ct", "tf", "division_f1", "cca"}
    assert names <= set(SEQUENCE_METRICS)
    assert [name for name, entry in SEQUENCE_METRICS.items() if not entry.higher_is_better] == ["aogm"]


def test_files_score_as_arrays(tmp_path):
    for seed in range(5):
        truth, prediction = sequences.random_pair(seed)
        found = evaluate_sequence(*sequences.write_ctc(tmp_path / str(seed), truth, prediction), ALL)
        tracking = compare_tracking(truth[0], truth[1], prediction[0], prediction[1])
        assert found["images"] == 7
        assert found["operations"] == tracking.aogm.counts
        for name, entry in SEQUENCE_METRICS.items():
            value = math.nan if found["measures"][name] is None else found["measures"][name]
            assert value == pytest.approx(entry.value(tracking), abs=1e-12, nan_ok=True)


def test_identity(folders):
    found = evaluate_sequence(*folders, ALL)
    undefined = {"division_f1", "bc_0", "bc_2", "bc_3", "cca"}
    assert found["measures"] == {name: None if name in undefined else 0 if name == "aogm" else 1 for name in ALL}


def test_partial_outlines(tmp_path):
    labels, _ = sequences.two_cells()
    truth, result = sequences.write_ctc(
        tmp_path, sequences.two_cells(), sequences.two_cells(), outlines={2: np.where(labels[2] == 1, 9, 0)}
    )
    write_labels(truth / "SEG" / "man_seg002.tif", np.array([[9, 9, 9, 9, 0, 0, 0]], np.int32))
    assert evaluate_sequence(truth, result, ["seg", "det"])["measures"] == {"seg": 3 / 4, "det": 1}


def test_seg_needs_neither_markers_nor_every_frame(folders):
    truth, result = folders
    for path in (truth / "TRA").iterdir():
        path.unlink()
    (truth / "SEG" / "man_seg001.tif").unlink()
    assert evaluate_sequence(truth, result, ["seg"]) == {"images": 2, "measures": {"seg": 1}}


def test_outlines_from_another_folder(folders, tmp_path):
    truth, result = folders
    silver = tmp_path / "01_ST"
    silver.mkdir()
    (truth / "SEG").rename(silver / "SEG")
    assert evaluate_sequence(truth, result, ["op_csb"], outlines=silver)["measures"] == {"op_csb": 1}
    with pytest.raises(FileNotFoundError, match="There is no folder .*01_GT/SEG"):
        evaluate_sequence(truth, result, ["op_csb"])


def test_detection_without_a_table(folders):
    truth, result = folders
    (result / "res_track.txt").unlink()
    found = evaluate_sequence(truth, result, ["det", "op_csb", "seg"])
    assert found == {"images": 3, "measures": {"det": 1, "op_csb": 1, "seg": 1}}
    with pytest.raises(
        FileNotFoundError, match=r"There is no file .*res_track.txt.* seg, det and op_csb can be measured"
    ):
        evaluate_sequence(truth, result, ["tra"])


def test_an_empty_result(tmp_path):
    folders = sequences.write_ctc(tmp_path, sequences.two_cells(), sequences.empty())
    found = evaluate_sequence(*folders, ["seg", "det", "tra", "lnk", "ct", "tf"])["measures"]
    assert found == dict.fromkeys(("seg", "det", "tra", "lnk", "ct", "tf"), 0)


def test_an_empty_truth(tmp_path):
    folders = sequences.write_ctc(tmp_path, sequences.empty(), sequences.two_cells())
    found = evaluate_sequence(*folders, ["seg", "det", "tra", "lnk", "aogm"])["measures"]
    assert found == {"seg": None, "det": None, "tra": None, "lnk": None, "aogm": 6}


def test_shows_how_far_it_is(folders):
    seen = []
    evaluate_sequence(*folders, ["det"], progress=lambda frames: (seen.append(one) or one for one in frames))
    assert seen == [0, 1, 2]


def test_lists_the_operations(tmp_path):
    prediction = sequence(["1110222"] * 2 + ["3330222"], [(1, 0, 1, 0), (2, 0, 2, 0), (3, 2, 2, 1)])
    tracking = read_tracking(*sequences.write_ctc(tmp_path, sequences.two_cells(), prediction), ["tra"])
    (found,) = tracking.aogm.operations
    assert (found.kind, found.frame, found.labels_true, found.labels_pred) == ("EC", 2, (1, 1), (1, 3))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0000222", r"mask001.tif and .*res_track.txt disagree: the table lets 1 live in frame 1"),
        ("1115222", r"mask001.tif and .*res_track.txt disagree: the image holds 5, which the table does not let live"),
    ],
)
def test_a_mask_that_disagrees_with_its_table(folders, row, message):
    truth, result = folders
    write_labels(result / "mask001.tif", sequence([row], [])[0][0])
    with pytest.raises(InputError, match=message):
        evaluate_sequence(truth, result, ["det"])


def test_a_frame_without_a_mask(folders):
    truth, result = folders
    (result / "mask002.tif").unlink()
    (result / "res_track.txt").write_text("1 0 1 0\n2 0 1 0\n")
    with pytest.raises(InputError, match=r"frame 2 in .*TRA has no file in .*01_RES. A tracking result needs one"):
        evaluate_sequence(truth, result, ["tra"])
    with pytest.raises(
        InputError, match=r"1 of 3 files in .*SEG have no maskNNN.tif .*: man_seg002.tif. A result needs"
    ):
        evaluate_sequence(truth, result, ["seg"])


@pytest.mark.parametrize(("measure", "file"), [("det", "man_track001.tif"), ("seg", "man_seg001.tif")])
def test_masks_of_another_size(folders, measure, file):
    truth, result = folders
    write_labels(result / "mask001.tif", sequence(["111022"], [])[0][0])
    with pytest.raises(InputError, match=rf"{file} holds 1x7 pixels, but .*mask001.tif holds 1x6 pixels"):
        evaluate_sequence(truth, result, [measure])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["trra"], "There is no measure 'trra' of a sequence. Did you mean 'tra'"),
        ([], "No measure of a sequence was named"),
    ],
)
def test_unknown_measures(folders, names, message):
    with pytest.raises(InputError, match=message):
        evaluate_sequence(*folders, names)
