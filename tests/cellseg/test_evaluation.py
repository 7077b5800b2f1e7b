import json

import numpy as np
import pytest
import tifffile

from cellseg import metrics
from cellseg.evaluation import (
    DEFAULT_MEASURES,
    FLAT,
    Baselines,
    Scores,
    check_section,
    evaluate_folders,
    usual_measures,
)
from cellseg.metrics import IMAGE_METRICS
from cellseg.sections import Evaluation
from pipelines.errors import InputError
from pipelines.images import write_image, write_labels
from pipelines.sources import SOURCES
from tests import cells, sequences
from tests.datasets import discs, write_ctc


def write_folder(folder, **labels):
    for stem, array in labels.items():
        write_labels(folder / f"{stem}.tif", array)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two images: one shifted, one missed cell."""
    (true_a, pred_a), (true_b, pred_b) = cells.shifted_cell(), cells.missed_cell()
    return write_folder(tmp_path / "truth", a=true_a, b=true_b), write_folder(tmp_path / "result", a=pred_a, b=pred_b)


def test_scores_pool_and_list_images():
    scores = Scores(["dice", "seg"])
    assert scores.add("a", *cells.shifted_cell()) == {"name": "a", "dice": 24 / 32, "seg": 0.6}
    scores.add("b", *cells.missed_cell())
    result = scores.result()
    assert result["images"] == 2
    # Dice: 2 * (12 + 12) / (2 * 24 + 4 + 4 + 12); SEG: objects 0.6, 1, 0.
    assert result["measures"]["dice"] == pytest.approx(48 / 68, abs=1e-12)
    assert result["measures"]["seg"] == pytest.approx(1.6 / 3, abs=1e-12)
    assert [row["name"] for row in result["per_image"]] == ["a", "b"]
    assert result["per_image"][1] == {"name": "b", "dice": pytest.approx(24 / 36), "seg": 0.5}


def test_scores_equal_score_of_the_lists():
    pairs = [scene() for scene in cells.PAIRS.values()]
    scores = Scores(list(metrics.IMAGE_METRICS))
    for number, pair in enumerate(pairs):
        scores.add(str(number), *pair)
    assert scores.result()["measures"] == metrics.score(*zip(*pairs, strict=True), list(metrics.IMAGE_METRICS))


def test_undefined_is_null_and_counted():
    scores = Scores(["dice", "seg", "count_error"])
    scores.add("cells", *cells.missed_cell())
    scores.add("none", cells.empty(), cells.empty())
    result = scores.result()
    assert result["per_image"][1] == {"name": "none", "dice": 1.0, "seg": None, "count_error": None}
    assert result["undefined"] == {"dice": 0, "seg": 1, "count_error": 1}
    assert result["measures"]["seg"] == 0.5
    json.dumps(result, allow_nan=False)


def test_scores_without_images():
    assert Scores(["dice"]).result() == {
        "images": 0,
        "measures": {"dice": None},
        "intervals": {"dice": None},
        "undefined": {"dice": 0},
        "per_image": [],
        "mistakes": None,
        "mistakes_per_image": [],
    }


def test_ignore_reaches_the_measures():
    truth, prediction = cells.missed_cell()
    scores = Scores(["dice"])
    scores.add("a", truth, prediction, truth == 2)
    assert scores.result()["measures"]["dice"] == 1


def test_unknown_measure():
    with pytest.raises(InputError, match=r"no measure 'sge'\. Did you mean 'seg'"):
        Scores(["sge"])


def test_baselines_by_hand():
    baselines = Baselines(["pixel_accuracy", "dice", "count_error"])
    baselines.add(cells.one_cell())
    baselines.add(cells.two_touching())
    # Foreground 16 + 24 of 96 pixels; one object where 1 and 2 are true.
    assert baselines.result() == {
        "baseline": {"pixel_accuracy": pytest.approx(56 / 96), "dice": 0.0, "count_error": 1.0},
        "baseline_foreground": {
            "pixel_accuracy": pytest.approx(40 / 96),
            "dice": pytest.approx(80 / 136),
            "count_error": 0.25,
        },
    }


def test_a_part_is_pooled_for_itself():
    scores, baselines = Scores(["pixel_accuracy", "dice"]), Baselines(["pixel_accuracy"])
    blank = np.zeros((4, 4), np.int32)
    half = np.kron([[1, 0]], np.ones((4, 2), np.int32)).astype(np.int32)
    for name, truth, answer in (("a_1", half, half), ("a_2", half, blank), ("b_1", blank, half)):
        scores.add(name, truth, answer)
        baselines.add(truth, name=name)
    # a: 16 + 8 of 32 pixels are right, 8 of 16 foreground pixels found; b: 8 of 16 right, nothing there to find.
    assert scores.part("a_*") == {"images": 2, "measures": {"pixel_accuracy": 0.75, "dice": 2 * 8 / (16 + 8)}}
    assert scores.part("b_1") == {"images": 1, "measures": {"pixel_accuracy": 0.5, "dice": 0.0}}
    assert scores.part("c") == {"images": 0, "measures": {"pixel_accuracy": None, "dice": None}}
    assert baselines.result("a_*") == {
        "baseline": {"pixel_accuracy": 0.5},
        "baseline_foreground": {"pixel_accuracy": 0.5},
    }
    assert baselines.result("b_*")["baseline_foreground"] == {"pixel_accuracy": 0.0}
    assert baselines.result()["baseline"] == {"pixel_accuracy": pytest.approx(32 / 48)}


def test_an_evaluation_section_adds_to_the_usual_measures():
    assert usual_measures(Evaluation()) == list(DEFAULT_MEASURES)
    assert usual_measures(Evaluation(measures=["rand_error", "dice"])) == [*DEFAULT_MEASURES, "rand_error"]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            {"measures": ["rand_eror"]},
            r"evaluation\.measures: There is no measure 'rand_eror'\. Did you mean 'rand_error'",
        ),
        ({"measures": ["tra"]}, r"evaluation\.measures: 'tra' measures a tracked sequence"),
        ({"probability": ["v_rnd"]}, r"evaluation\.probability: There is no measure 'v_rnd'"),
        ({"probability": ["dice"]}, r"evaluation\.probability: dice is a measure of cells.*choose among .*v_rand"),
        ({"parts": {"A": "testC_*"}}, r"evaluation\.parts\.A: no test image has a name like 'testC_\*'\. .*testA_1"),
    ],
)
def test_an_evaluation_section_that_cannot_be_used(section, told):
    with pytest.raises(InputError, match=told):
        check_section(Evaluation(**section), ["testA_1", "testB_1"])


def test_a_part_of_no_test_images():
    with pytest.raises(InputError, match=r"evaluation\.parts\.A: no test image has a name like '\*'\. There is none\."):
        check_section(Evaluation(parts={"A": "*"}), [])


def test_parts_are_not_looked_for_before_the_images_are_known():
    check_section(Evaluation(measures=["rand_error"], probability=["v_rand"], parts={"A": "nothing"}))


def test_baselines_leave_out_ignored_pixels():
    baselines = Baselines(["pixel_accuracy"])
    truth = cells.one_cell()
    baselines.add(truth, truth > 0)
    assert baselines.result()["baseline"]["pixel_accuracy"] == 1


def test_folders_by_hand(folders):
    result = evaluate_folders(*folders)
    assert list(result["measures"]) == list(DEFAULT_MEASURES)
    assert result["images"] == 2
    assert result["measures"]["dice"] == pytest.approx(48 / 68, abs=1e-12)
    assert result["measures"]["average_precision"] == pytest.approx(2 / 3, abs=1e-12)
    assert [row["name"] for row in result["per_image"]] == ["a", "b"]


def test_png_against_tiff(tmp_path):
    write_image(write_folder(tmp_path / "truth") / "a.png", cells.one_cell().astype(np.uint8))
    assert (
        evaluate_folders(tmp_path / "truth" / "a.png", tmp_path / "truth" / "a.png", ["dice"])["measures"]["dice"] == 1
    )


def test_two_files(folders):
    truth, result = folders
    assert evaluate_folders(truth / "b.tif", result / "b.tif", ["seg"])["per_image"] == [{"name": "b", "seg": 0.5}]


def test_pages_of_a_stack_are_images(tmp_path):
    truths, predictions = zip(cells.shifted_cell(), cells.missed_cell(), strict=True)
    truth = write_folder(tmp_path / "truth", movie=np.stack(truths))
    result = evaluate_folders(truth, write_folder(tmp_path / "result", movie=np.stack(predictions)), ["dice"])
    assert result["images"] == 2
    assert [row["name"] for row in result["per_image"]] == ["movie/000", "movie/001"]
    assert result["per_image"][1]["dice"] == pytest.approx(24 / 36)


def test_mask_of_0_and_255_becomes_its_pieces(tmp_path):
    labels = cells.two_touching()
    labels[:, 4] = 0
    for folder in ("truth", "result"):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / "truth" / "mask001.png", ((labels > 0) * 255).astype(np.uint8))
    write_labels(tmp_path / "result" / "mask001.tif", labels)
    result = evaluate_folders(tmp_path / "truth", tmp_path / "result", ["average_precision", "count_error"])
    assert result["measures"] == {"average_precision": 1.0, "count_error": 0.0}


def test_mask_of_0_and_1_in_a_folder_called_masks(tmp_path):
    labels = cells.two_touching()
    labels[:, 4] = 0
    write_folder(tmp_path / "masks", a=(labels > 0).astype(np.int32))
    write_folder(tmp_path / "result", a=labels)
    assert evaluate_folders(tmp_path / "masks", tmp_path / "result", ["count_error"])["measures"]["count_error"] == 0


def ctc(tmp_path, truth, result):
    write_folder(tmp_path / "01_GT" / "SEG", **truth)
    write_folder(tmp_path / "01_RES", **result)
    return tmp_path / "01_GT", tmp_path / "01_RES"


def test_ctc_folders_match_by_number(tmp_path):
    true_a, pred_a = cells.shifted_cell()
    true_b, pred_b = cells.missed_cell()
    # Frame 1 is not annotated; man_seg0007 and mask007 are both frame 7.
    paths = ctc(
        tmp_path,
        {"man_seg000": true_a, "man_seg0007": true_b},
        {"mask000": pred_a, "mask001": pred_a, "mask007": pred_b},
    )
    (paths[1] / "res_track.txt").write_text("1 0 7 0\n")
    result = evaluate_folders(*paths, ["seg"])
    assert result["measures"]["seg"] == pytest.approx(1.6 / 3, abs=1e-12)
    assert [row["name"] for row in result["per_image"]] == ["000", "007"]


def test_ctc_cell_255_is_a_cell(tmp_path):
    labels = cells.empty()
    labels[0, 0] = labels[5, 7] = 255
    # One true cell in two pieces, predicted as two; as a mask the truth would be two cells as well.
    predicted = np.where(labels > 0, np.arange(48).reshape(6, 8) + 1, 0)
    paths = ctc(tmp_path, {"man_seg000": labels}, {"mask000": predicted})
    assert evaluate_folders(*paths, ["count_error"])["measures"]["count_error"] == 1


def test_ctc_frame_without_result(tmp_path):
    cell = cells.one_cell()
    paths = ctc(tmp_path, {"man_seg000": cell, "man_seg001": cell}, {"mask000": cell})
    with pytest.raises(InputError, match=r"1 of 2 files in .*SEG have no partner: man_seg001\.tif"):
        evaluate_folders(*paths)


def test_different_sizes_name_both_files(folders):
    truth, result = folders
    write_labels(result / "b.tif", cells.empty()[:5])
    with pytest.raises(InputError, match=r"truth.b\.tif holds 1 page of 6x8 pixels, but .*result.b\.tif holds .*5x8"):
        evaluate_folders(truth, result)


def test_stacks_of_different_length(folders):
    truth, result = folders
    write_labels(result / "b.tif", np.stack([cells.empty()] * 3))
    with pytest.raises(InputError, match=r"b\.tif holds 1 page of 6x8 pixels, but .* holds 3 pages of 6x8"):
        evaluate_folders(truth, result)


def test_a_prediction_on_a_cell_that_gold_truth_leaves_out_changes_no_score(tmp_path):
    # Four cells have markers, gold truth has two of them: the others are unannotated, not background.
    source = write_ctc(tmp_path, 1, truth="GT")
    all_cells = discs(0)
    path = source / "01_GT" / "SEG" / "man_seg000.tif"
    tifffile.imwrite(path, np.where(all_cells <= 2, all_cells, 0).astype(np.uint16))
    sample = SOURCES["ctc"](source)[0].load()
    answers = {}
    for name, prediction in {"found": all_cells, "left": np.where(all_cells <= 2, all_cells, 0)}.items():
        scores = Scores(list(IMAGE_METRICS))
        scores.add("t000", sample.labels, prediction, sample.ignore)
        answers[name] = scores.result()
    assert answers["found"] == answers["left"]
    assert answers["found"]["measures"]["average_precision"] == answers["found"]["measures"]["dice"] == 1
    strict = Scores(["average_precision"])
    strict.add("t000", sample.labels, all_cells)
    assert strict.result()["measures"]["average_precision"] == 0.5  # what it would cost without the discs


def test_kinds_of_mistakes_are_counted_pooled_and_per_image(folders):
    result = evaluate_folders(*folders, ["dice"])
    assert result["mistakes"] == {"found": 2, "missed": 1, "spurious": 0, "split": 0, "merged": 0}
    assert result["mistakes_per_image"] == [
        {"name": "a", "found": 1, "missed": 0, "spurious": 0, "split": 0, "merged": 0},
        {"name": "b", "found": 1, "missed": 1, "spurious": 0, "split": 0, "merged": 0},
    ]


def test_intervals_reach_over_the_images(folders):
    # Of two images half of the draws take one of them twice: the ends are their own scores.
    result = evaluate_folders(*folders, ["dice", "seg"])
    assert result["intervals"] == {"dice": [pytest.approx(24 / 36), 24 / 32], "seg": [0.5, 0.6]}


def test_one_image_has_no_interval(folders):
    truth, result = folders
    assert evaluate_folders(truth / "a.tif", result / "a.tif", ["dice"])["intervals"] == {"dice": None}


PROBABILITY = np.array([[0.9, 0.8, 0.2, 0.1], [0.7, 0.6, 0.3, 0.0]], np.float32)


@pytest.fixture
def probabilities(tmp_path):
    """Truth of the two left columns, the labels of another network, and its probability: perfect from 0.3 to 0.5."""
    truth = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], np.int32)
    write_folder(tmp_path / "truth", a=truth)
    write_folder(tmp_path / "result", a=np.zeros_like(truth))
    write_image(tmp_path / "result" / "a_probability.tif", PROBABILITY)
    return tmp_path / "truth", tmp_path / "result"


def test_probabilities_are_taken_where_every_measure_takes_them(probabilities):
    # Of the labels, all background, the pixel error is 4 / 8.
    names = ["pixel_error", "v_rand", "v_info", "warping_error"]
    result = evaluate_folders(*probabilities, names)
    assert result["measures"] == {"pixel_error": 0.0, "v_rand": 1.0, "v_info": 1.0, "warping_error": 0.0}
    assert result["mistakes"] is None
    assert evaluate_folders(*probabilities, ["pixel_error", "dice"])["measures"] == {"pixel_error": 0.5, "dice": 0.0}


def test_probabilities_without_labels_and_as_plain_names(probabilities, tmp_path):
    truth, result = probabilities
    (result / "a.tif").unlink()
    assert evaluate_folders(truth, result, ["pixel_error"])["measures"] == {"pixel_error": 0.0}
    assert evaluate_folders(truth / "a.tif", result / "a_probability.tif", ["v_rand"])["measures"] == {"v_rand": 1.0}
    write_image(tmp_path / "other" / "a.tif", PROBABILITY)
    assert evaluate_folders(truth, tmp_path / "other", ["pixel_error"])["measures"] == {"pixel_error": 0.0}


def test_a_measure_of_labels_refuses_a_probability(probabilities):
    truth, result = probabilities
    (result / "a.tif").unlink()
    message = (
        r"a_probability\.tif holds fractions, a probability, but dice, seg need labels .*"
        r"--measure pixel_error v_rand v_info warping_error\.$"
    )
    with pytest.raises(InputError, match=message):
        evaluate_folders(truth, result, ["dice", "v_rand", "seg"])


@pytest.fixture
def volumes(tmp_path):
    """One frame of two slices: a cell through both of them, of which the prediction has the lower part: 4 of 8."""
    truth = np.ones((2, 2, 2), np.int32)
    prediction = truth.copy()
    prediction[0] = 0
    return ctc(tmp_path, {"man_seg000": truth}, {"mask000": prediction})


def test_pages_under_ctc_names_are_one_volume(volumes):
    result = evaluate_folders(*volumes, ["seg", "dice"])
    # Half is not more than half: SEG finds nothing; as two images it would find one cell of two.
    assert result["images"] == 1 and result["measures"] == {"seg": 0.0, "dice": pytest.approx(2 / 3)}


def test_flat_measures_refuse_volumes(volumes):
    with pytest.raises(InputError, match=r"man_seg000\.tif is a volume of 2 slices; hausdorff measure 2-D images"):
        evaluate_folders(*volumes, ["seg", "hausdorff"])


def test_flat_measures_are_those_that_fail_on_volumes():
    volume = np.zeros((4, 6, 6), np.int32)
    volume[1:3, 2:4, 2:4] = 1
    for name, measure in IMAGE_METRICS.items():
        if name not in FLAT:
            assert np.isfinite(measure.value(measure.count(volume, volume))), name


@pytest.fixture
def tracked(tmp_path):
    """A division seen one frame late, with SEG truth of frame 0 alone."""
    truth = sequences.division()
    return sequences.write_ctc(tmp_path, truth, sequences.late_division(), outlines={0: truth[0][0]})


def test_measures_of_sequences_beside_those_of_images(tracked):
    result = evaluate_folders(*tracked, ["det", "seg", "tra", "dice"])
    assert list(result["measures"]) == ["det", "seg", "tra", "dice"]
    assert result["per_image"] == [{"name": "000", "seg": 1.0, "dice": 1.0}]
    expected = metrics.evaluate_sequence(*tracked, ["det", "seg", "tra"])
    assert {name: result["measures"][name] for name in ("det", "seg", "tra")} == expected["measures"]
    assert result["operations"] == expected["operations"]
    assert result["intervals"] == {"det": None, "seg": None, "tra": None, "dice": None}


def test_operations_of_a_late_division_by_hand(tracked):
    # Frame 2: the child 3 is missed (FN), and 1 should be 2. The true link 1 -> 2 into frame 2 is there with another
    # meaning (EC), so is 2 -> 2 into frame 3 (as 1 -> 2). 1 -> 3 and 3 -> 3 are missing (EA), 1 -> 3 into frame 3 is
    # not there in the truth: there it leads from 2 (ED).
    seen = []
    result = evaluate_folders(*tracked, ["tra"], watch_operations=seen.append)
    assert result["operations"] == {"NS": 0, "FN": 1, "FP": 0, "ED": 1, "EA": 2, "EC": 2}
    assert sum(one.count for one in seen[0].operations) == 6
    assert result["per_image"] == [] and result["images"] == 4
    # AOGM = 10 + 1 + 2 * 1.5 + 2 = 16 of 6 * 10 + 5 * 1.5 = 67.5.
    assert result["measures"] == {"tra": pytest.approx(1 - 16 / 67.5)}


def test_a_folder_without_tables_has_no_operations(tracked):
    (tracked[1] / "res_track.txt").unlink()
    result = evaluate_folders(*tracked, ["det"])
    assert "operations" not in result and result["measures"]["det"] < 1


def test_watch_sees_every_image(folders):
    seen = []
    evaluate_folders(*folders, ["dice"], watch=lambda pair, name, *rest: seen.append((pair.name, name, len(rest))))
    assert seen == [("a", "a", 3), ("b", "b", 3)]
