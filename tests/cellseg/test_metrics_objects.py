import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from cellseg.metrics import objects
from pipelines.errors import InputError
from tests import cells, oracles

LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 4))
PROPERTY = settings(max_examples=50, derandomize=True, deadline=None)
# Those of the gland contest have rules of their own (test_metrics_glas).
OBJECT = [*objects.METRICS, "seg"]


def take(name, labels_true, labels_pred, ignore=None):
    return metrics.score(labels_true, labels_pred, name, ignore)[name]


@pytest.mark.parametrize(
    ("scene", "name", "expected"),
    [
        ("missed_cell", "average_precision", 1 / (1 + 0 + 1)),
        ("missed_cell", "panoptic_quality", 1 / (1 + 1 / 2)),
        ("missed_cell", "count_error", 1 / 2),
        ("extra_cell", "average_precision", 1 / (1 + 1 + 0)),
        ("extra_cell", "count_error", 1 / 1),
        # IoU exactly 1/2 is a match for average precision, none for panoptic quality.
        ("merged_pair", "average_precision", 1 / (1 + 0 + 1)),
        ("merged_pair", "panoptic_quality", 0),
        ("split_cell", "average_precision", 1 / (1 + 1 + 0)),
        ("split_cell", "panoptic_quality", 0),
        ("split_cell", "count_error", 1),
        # IoU 0.6: a match at 0.5, 0.55 and 0.6 of the ten thresholds.
        ("shifted_cell", "average_precision", 1),
        ("shifted_cell", "average_precision_75", 0),
        ("shifted_cell", "average_precision_90", 0),
        ("shifted_cell", "average_precision_mean", 3 / 10),
        ("shifted_cell", "panoptic_quality", 0.6),
        ("shifted_cell", "count_error", 0),
        # Shared 12, union 12, and 12 pixels of the missed cell.
        ("missed_cell", "aji", 12 / 24),
        ("missed_cell", "aji_plus", 12 / 24),
        ("extra_cell", "aji", 12 / 24),
        # Both true cells take the merged one: (12 + 12) / (24 + 24); one to one: 12 / (24 + 12).
        ("merged_pair", "aji", 24 / 48),
        ("merged_pair", "aji_plus", 12 / 36),
        ("split_cell", "aji", 12 / 36),
        ("split_cell", "aji_plus", 12 / 36),
        ("shifted_cell", "aji", 0.6),
        # True 1 takes predicted 2 (4/9), true 2 takes it too (3/7), predicted 1 (2 pixels) is left: 7 / (9 + 7 + 2).
        ("greedy_trap", "aji", 7 / 18),
        # 2/6 + 3/7 is more than 4/9: shared 2 + 3 of 9 + 9 - 5.
        ("greedy_trap", "aji_plus", 5 / 13),
    ],
)
def test_by_hand(scene, name, expected):
    assert take(name, *cells.PAIRS[scene]()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in metrics.IMAGE_METRICS if hasattr(metrics, name)])
def test_plain_function_equals_the_table(name):
    for pair in (cells.missed_cell(), cells.shifted_cell(), cells.merged_pair()):
        ignore = ignored_from(6)
        assert getattr(metrics, name)(*pair) == pytest.approx(take(name, *pair), abs=1e-12)
        assert getattr(metrics, name)(*pair, ignore) == pytest.approx(take(name, *pair, ignore), abs=1e-12)


@pytest.mark.parametrize("name", OBJECT)
def test_empty_images(name):
    cell, empty = cells.one_cell(), cells.empty()
    assert math.isnan(take(name, empty, empty))
    assert take(name, cell, empty) == (1 if name == "count_error" else 0)
    truth_empty = take(name, empty, cell)
    # Measures over reference objects have none to speak about; the others see a false positive.
    assert math.isnan(truth_empty) if name in ("count_error", "seg") else truth_empty == 0


def test_nested_cell_is_its_own_object():
    labels = cells.nested()
    assert take("average_precision", labels, labels) == 1
    # The ring alone: one of two found.
    assert take("average_precision", labels, np.where(labels == 1, 1, 0)) == 1 / 2


def test_ratios_by_hand():
    # TP 3, FP 1, FN 2, IoU sum 2.4: 3/4, 3/5, 3/6, 6/9, 4.8/9.
    scores = objects.match_scores(np.array([3, 1, 2, 2.4]))
    assert scores["precision"] == 3 / 4
    assert scores["recall"] == 3 / 5
    assert scores["accuracy"] == 3 / 6
    assert scores["f1"] == pytest.approx(6 / 9, abs=1e-12)
    assert scores["segmentation_quality"] == pytest.approx(2.4 / 3, abs=1e-12)
    assert scores["panoptic_quality"] == pytest.approx(4.8 / 9, abs=1e-12)


def test_ratios_without_denominator():
    nothing_predicted = np.array([0, 0, 2, 0.0])
    assert math.isnan(objects.match_scores(nothing_predicted)["precision"])
    assert objects.match_scores(nothing_predicted, undefined=0.0)["precision"] == 0
    assert objects.match_scores(nothing_predicted)["recall"] == 0


@PROPERTY
@given(LABELS, LABELS, st.sampled_from([0.5, 0.75, 0.9]), st.booleans())
def test_counts_equal_trying_everything(labels_true, labels_pred, threshold, strict):
    tp, fp, fn, total = objects.match_counts(labels_true, labels_pred, threshold=threshold, strict=strict)
    pairs, iou_sum = oracles.best_matching(labels_true, labels_pred, threshold, strict)
    assert tp == pairs
    assert tp + fp == len(oracles.objects(labels_pred))
    assert tp + fn == len(oracles.objects(labels_true))
    assert total == pytest.approx(float(iou_sum), abs=1e-12)


@PROPERTY
@given(LABELS, LABELS)
def test_aji_equals_loops_over_cells(labels_true, labels_pred):
    for name in ("aji", "aji_plus"):
        expected = getattr(oracles, name)(labels_true, labels_pred)
        found = take(name, labels_true, labels_pred)
        assert found == pytest.approx(math.nan if expected is None else float(expected), abs=1e-12, nan_ok=True)


def test_aji_of_equal_iou_takes_the_larger_pair():
    # A true cell of 4 pixels: 1 of 4 with predicted 1, and 2 of 8 with predicted 2; the larger pair leaves 1 pixel.
    truth, prediction = np.array([[3, 3, 3, 3, 0, 0, 0, 0]]), np.array([[1, 0, 2, 2, 2, 2, 2, 2]])
    for ties in ("place", "id"):
        assert objects.aji(truth, prediction, ties=ties) == pytest.approx(2 / (8 + 1), abs=1e-12)


def test_aji_of_two_equal_partners():
    # Both predicted cells share 2 of 5 with true 1; the first one also holds true 2 (1 of 3).
    truth = np.array([[2, 1, 1, 1, 1, 0]])
    prediction = np.array([[9, 9, 9, 4, 4, 4]])
    # Place takes the left one, 9, for both, and leaves 4: (2 + 1) / (5 + 3 + 3). The lower id is 4: (2 + 1) / (5 + 3).
    assert objects.aji(truth, prediction) == pytest.approx(3 / 11, abs=1e-12)
    assert objects.aji(truth, prediction, ties="id") == pytest.approx(3 / 8, abs=1e-12)


@PROPERTY
@given(LABELS, LABELS)
def test_mean_is_the_mean_of_ten(labels_true, labels_pred):
    each = [
        objects.average_precision(labels_true, labels_pred, threshold=threshold)
        for threshold in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    ]
    found = metrics.average_precision_mean(labels_true, labels_pred)
    assert found == pytest.approx(np.mean(each), abs=1e-12, nan_ok=True)


@PROPERTY
@given(LABELS, LABELS, st.permutations([3, 11, 500, 70_000]), st.permutations([1, 2, 9, 2**31 - 1]))
def test_ids_do_not_matter(labels_true, labels_pred, ids_true, ids_pred):
    renamed = np.array([0, *ids_true])[labels_true], np.array([0, *ids_pred])[labels_pred]
    before, after = metrics.score(labels_true, labels_pred, OBJECT), metrics.score(*renamed, OBJECT)
    assert before == pytest.approx(after, abs=1e-12, nan_ok=True)


@PROPERTY
@given(LABELS)
def test_identity_is_perfect(labels):
    found = metrics.score(labels, labels, OBJECT)
    perfect = {name: 1.0 if metrics.IMAGE_METRICS[name].higher_is_better else 0.0 for name in OBJECT}
    assert found == (perfect if labels.any() else pytest.approx(dict.fromkeys(OBJECT, math.nan), nan_ok=True))


@PROPERTY
@given(LABELS, LABELS)
def test_symmetric_but_for_those_relative_to_the_truth(labels_true, labels_pred):
    names = [name for name in OBJECT if name not in ("seg", "count_error", "aji")]
    there, back = metrics.score(labels_true, labels_pred, names), metrics.score(labels_pred, labels_true, names)
    assert there == pytest.approx(back, abs=1e-12, nan_ok=True)


def test_pooled_counts_are_added_before_the_ratio():
    one, other = cells.shifted_cell(), cells.missed_cell()
    truths, predictions = zip(one, other, strict=True)
    # TP 1 + 1, FP 0, FN 0 + 1: 2/3, where the mean of the images' 1 and 1/2 would be 3/4.
    assert take("average_precision", truths, predictions) == pytest.approx(2 / 3, abs=1e-12)
    # (0.6 + 1) / (2 + 1/2).
    assert take("panoptic_quality", truths, predictions) == pytest.approx(1.6 / 2.5, abs=1e-12)


def test_count_error_is_a_mean_over_images_with_cells():
    truths = [cells.two_touching(), cells.one_cell(), cells.empty()]
    predictions = [cells.one_cell(), cells.one_cell(), cells.one_cell()]
    # |1 - 2| / 2 and 0; the image without cells is left out.
    assert take("count_error", truths, predictions) == 1 / 4


def ignored_from(column):
    ignore = np.zeros(cells.SHAPE, bool)
    ignore[:, column:] = True
    return ignore


def test_prediction_mostly_ignored_is_neither_true_nor_false():
    truth, prediction = cells.extra_cell()
    # The false cell fills columns 4 to 6; 2 of 3 columns are ignored.
    assert take("average_precision", truth, prediction, ignored_from(5)) == 1
    assert take("count_error", truth, prediction, ignored_from(5)) == 0
    # 1 of 3 columns: it counts, as a false positive.
    assert take("average_precision", truth, prediction, ignored_from(6)) == 1 / 2


def test_prediction_half_ignored_counts():
    prediction = cells.empty()
    prediction[1:5, 3:7] = 1
    assert objects.match_counts(cells.empty(), prediction, ignored_from(5)).tolist() == [0, 1, 0, 0]


def test_ignored_pixels_do_not_lower_the_iou():
    truth, prediction = cells.shifted_cell()
    # Column 5, predicted alone, is ignored: 12 shared of 16.
    assert take("panoptic_quality", truth, prediction, ignored_from(5)) == pytest.approx(12 / 16, abs=1e-12)


def test_score_of_a_stack_equals_a_list():
    truths, predictions = zip(cells.shifted_cell(), cells.missed_cell(), strict=True)
    names = list(metrics.IMAGE_METRICS)
    assert metrics.score(np.stack(truths), np.stack(predictions), names) == metrics.score(truths, predictions, names)


def test_images_of_several_sizes():
    truths = [cells.one_cell(), cells.one_cell()[:5]]
    assert take("dice", truths, truths) == 1


def test_ignore_of_a_stack():
    truths, predictions = (np.stack([one, one]) for one in cells.extra_cell())
    ignore = np.stack([ignored_from(4), ignored_from(8)])
    assert take("pixel_accuracy", truths, predictions, ignore) == pytest.approx((24 + 36) / (24 + 48), abs=1e-12)


@pytest.mark.parametrize("name", list(metrics.IMAGE_METRICS))
def test_value_of_a_measure_is_the_pooled_score(name):
    pairs = [cells.shifted_cell(), cells.missed_cell(), cells.merged_pair()]
    measure = metrics.IMAGE_METRICS[name]
    total = sum(measure.count(*pair) for pair in pairs)
    assert total.dtype == np.float64
    assert measure.value(total) == take(name, *zip(*pairs, strict=True))


FLOATS = {"v_rand", "v_info", "warping_error", "pixel_error"}


@pytest.mark.parametrize("name", list(metrics.IMAGE_METRICS))
def test_a_probability_is_taken_where_it_is_right_and_refused_elsewhere(name):
    labels = cells.two_touching()
    probability = np.where(labels > 0, 0.75, 0.25).astype(np.float32)
    assert metrics.IMAGE_METRICS[name].takes_probability == (name in FLOATS)
    if name in FLOATS:
        assert not math.isnan(take(name, labels, probability))
        with pytest.raises(InputError, match=r"labels_pred is a float image.*in \[0, 1\], got 25 to 75"):
            take(name, labels, probability * 100)
        with pytest.raises(InputError, match="in .0, 1., got nan to nan"):
            take(name, labels, np.full(labels.shape, np.nan))
    else:
        with pytest.raises(InputError, match="labels_pred must hold integers.*suits the measures v_rand"):
            take(name, labels, probability)


@pytest.mark.parametrize("name", list(metrics.IMAGE_METRICS))
def test_ignored_pixels_change_nothing(name):
    truth, prediction = cells.shifted_cell()
    other = prediction.copy()
    other[:, 7] = 5
    ignore = ignored_from(7)
    assert take(name, truth, other, ignore) == take(name, truth, prediction, ignore)


def test_unknown_measure_names_the_nearest():
    with pytest.raises(InputError, match=r"no measure 'dicee'\. Did you mean 'dice'.*pixel_accuracy"):
        metrics.score(cells.empty(), cells.empty(), ["iou", "dicee"])


def test_no_measure():
    with pytest.raises(InputError, match="No measure was named"):
        metrics.score(cells.empty(), cells.empty(), [])


def test_stacks_of_different_length():
    with pytest.raises(InputError, match=r"labels_true holds 2 images of shape \(6, 8\), labels_pred 1 of shape"):
        metrics.score(np.zeros((2, 6, 8), int), cells.empty(), "dice")


def test_ignore_of_another_length():
    with pytest.raises(InputError, match="ignore 2 of shape"):
        metrics.score(cells.empty(), cells.empty(), "dice", np.zeros((2, 6, 8), bool))


def test_shapes_of_an_image_differ():
    with pytest.raises(InputError, match=r"\(6, 8\), labels_pred \(5, 8\)"):
        metrics.score([cells.empty()], [cells.empty()[:5]], "dice")


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 2, 2), int), [np.zeros(3, int)]])
def test_not_an_image(labels):
    with pytest.raises(InputError, match=r"labels_true must be \(H, W\), \(N, H, W\) or a list"):
        metrics.score(labels, labels, "dice")


def test_no_image():
    with pytest.raises(InputError, match="labels_true holds no image"):
        metrics.score([], [], "dice")
