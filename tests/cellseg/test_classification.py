import numpy as np
import pytest

from cellseg.classification import ClassScores


def four_cells():
    """Four 3x3 cells in a row of 12 columns, of class 1, 1, 2 and unknown, 20 px apart."""
    labels, classes = np.zeros((3, 80), np.int32), np.zeros((3, 80), np.int32)
    for number, kind in enumerate([1, 1, 2, 0]):
        labels[:, 20 * number : 20 * number + 3] = number + 1
        classes[:, 20 * number : 20 * number + 3] = kind
    return labels, classes


def scored(classes_pred, labels_pred=None, ignore=None, names=("round", "long", "rare")):
    labels, classes = four_cells()
    scores = ClassScores(names)
    scores.add(labels, classes, labels if labels_pred is None else labels_pred, classes_pred, ignore)
    return scores.result()


def test_the_truth_is_perfect():
    labels, classes = four_cells()
    result = scored(np.where(labels == 4, 1, classes))  # the cell of unknown class may be called anything
    assert [result["classes"][name]["cells"] for name in ("round", "long", "rare")] == [2, 1, 0]
    assert result["classes"]["round"]["dice"] == result["classes"]["long"]["dice"] == 1.0
    assert result["classes"]["long"] == {"cells": 1} | dict.fromkeys(
        ("dice", "iou", "f1", "panoptic_quality", "class_f1"), 1.0
    )
    assert result["detection_f1"] == result["pixel_accuracy"] == 1.0
    assert set(result["classes"]["rare"].values()) == {0, None}


def test_a_wrong_name_by_hand():
    labels, classes = four_cells()
    swapped = np.where(labels == 2, 2, classes)  # one of the two round cells is called long
    result = scored(np.where(labels == 4, 2, swapped))
    # pixels, cell 4 left out: round 9 of 18 found, none false; long 9 found, 9 false
    assert result["classes"]["round"]["dice"] == pytest.approx(2 * 9 / (9 + 18))
    assert result["classes"]["long"]["iou"] == pytest.approx(9 / 18)
    # F_c of round: one pair right, one called something else: 2 / (2 + 2)
    assert result["classes"]["round"]["class_f1"] == pytest.approx(0.5)
    assert result["detection_f1"] == 1.0
    assert result["mean"]["iou"] == pytest.approx((0.5 + 0.5) / 2)


def test_the_baseline_calls_every_cell_by_the_most_frequent_name():
    _, classes = four_cells()
    result = scored(classes)
    assert result["baseline"]["name"] == "round"
    # round: 2 pairs right; the long and the unknown cell are called round, too: 2 * 2 / (2 * 2 + 2 * 2); long: 0
    assert result["baseline"]["mean_class_f1"] == pytest.approx((0.5 + 0) / 2)


def test_unannotated_pixels_do_not_count():
    labels, classes = four_cells()
    wrong = np.where(labels == 3, 1, classes)
    hidden = labels == 3
    assert scored(wrong)["pixel_accuracy"] < scored(wrong, ignore=hidden)["pixel_accuracy"] == 1.0


def test_images_add_up():
    labels, classes = four_cells()
    scores = ClassScores(("round", "long"))
    for _ in range(3):
        scores.add(labels, classes, labels, classes)
    assert scores.result()["classes"]["round"]["cells"] == 6


def test_nothing_found_and_nothing_there():
    nothing = np.zeros((4, 4), np.int32)
    scores = ClassScores(("round",))
    scores.add(nothing, nothing, nothing, nothing)
    result = scores.result()
    assert result["detection_f1"] is None and result["mean"]["dice"] is None and result["pixel_accuracy"] == 1.0
