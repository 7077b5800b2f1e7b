import json

import numpy as np
import pytest
import tifffile

from cellseg import metrics
from cellseg.evaluation import DEFAULT_MEASURES, Baselines, Scores, evaluate_folders, pair_files
from cellseg.metrics import IMAGE_METRICS
from pipelines.errors import InputError
from pipelines.images import write_image, write_labels
from pipelines.sources import SOURCES
from tests import cells
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
        "undefined": {"dice": 0},
        "per_image": [],
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
