import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg.overlap import check_pair, contingency, iou_matrix, match
from pipelines.errors import InputError
from tests import cells, oracles

LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 4))
PROPERTY = settings(max_examples=60, derandomize=True, deadline=None)


def test_contingency_by_hand():
    overlap = contingency(*cells.missed_cell())
    assert overlap.ids_true.tolist() == [0, 1, 2]
    assert overlap.ids_pred.tolist() == [0, 1]
    # 48 pixels: 24 background on both sides, cell 1 (12) found, cell 2 (12) on predicted background.
    triplets = zip(overlap.rows.tolist(), overlap.columns.tolist(), overlap.pixels.tolist(), strict=True)
    assert sorted(triplets) == [(0, 0, 24), (1, 1, 12), (2, 0, 12)]
    assert overlap.areas_true.tolist() == [24, 12, 12]
    assert overlap.areas_pred.tolist() == [36, 12]


def test_background_has_index_0_even_without_a_pixel():
    overlap = contingency(np.full((2, 2), 9), np.full((2, 2), 4))
    assert overlap.ids_true.tolist() == [0, 9]
    assert overlap.areas_true.tolist() == [0, 4]
    assert overlap.rows.tolist() == [1]


@pytest.mark.parametrize("top", [1, 2**31 - 1])
def test_sparse_ids_are_kept(top):
    labels = np.array([[0, 3], [top, top]], np.int32)
    overlap = contingency(labels, labels)
    assert overlap.ids_true.tolist() == sorted({0, 3, top})
    assert overlap.areas_pred[list(overlap.ids_pred).index(top)] == 2


def test_many_labels_against_many_labels():
    # 3000 x 3000 codes for 3000 pixels: the table must not be made dense.
    labels = np.arange(3000).reshape(50, 60)
    assert match(contingency(labels, labels), threshold=1.0).true_positives == 2999


def test_ignored_pixels_are_not_counted():
    truth, prediction = cells.missed_cell()
    overlap = contingency(truth, prediction, truth == 2)
    assert overlap.ids_true.tolist() == [0, 1]
    assert overlap.pixels.sum() == 36


def test_no_objects():
    overlap = contingency(cells.empty(), cells.empty())
    assert (overlap.num_true, overlap.num_pred) == (0, 0)
    assert iou_matrix(overlap).shape == (0, 0)
    assert match(overlap).true_positives == 0


def test_no_pixels():
    overlap = contingency(np.zeros((0, 4), int), np.zeros((0, 4), int))
    assert overlap.areas_true.tolist() == [0]


def test_iou_by_hand():
    # Merged: 12 shared of 24 with each.
    assert iou_matrix(contingency(*cells.merged_pair())).tolist() == [[0.5], [0.5]]
    # Shifted: 12 shared, 16 + 16 - 12 = 20 in all.
    assert iou_matrix(contingency(*cells.shifted_cell())).tolist() == [[0.6]]


@pytest.mark.parametrize(
    ("scene", "threshold", "strict", "tp", "fp", "fn"),
    [
        ("merged_pair", 0.5, False, 1, 0, 1),
        ("merged_pair", 0.5, True, 0, 1, 2),
        ("split_cell", 0.5, False, 1, 1, 0),
        ("split_cell", 0.5, True, 0, 2, 1),
        ("shifted_cell", 0.6, False, 1, 0, 0),
        ("shifted_cell", 0.6, True, 0, 1, 1),
        ("shifted_cell", 0.65, False, 0, 1, 1),
        ("greedy_trap", 0.3, False, 2, 0, 0),
        ("greedy_trap", 0.44, False, 1, 1, 1),
        ("sum_trap", 0.1, False, 2, 0, 0),
        ("sum_trap", 0.2, False, 1, 1, 1),
        ("two_candidates", 0.3, False, 1, 1, 0),
    ],
)
def test_match_by_hand(scene, threshold, strict, tp, fp, fn):
    pairs = match(contingency(*cells.PAIRS[scene]()), threshold=threshold, strict=strict)
    assert (pairs.true_positives, pairs.false_positives, pairs.false_negatives) == (tp, fp, fn)


def test_match_names_the_labels():
    pairs = match(contingency(cells.sparse_ids(), cells.two_touching()))
    assert pairs.ids_true.tolist() == [7, 70_000]
    assert pairs.ids_pred.tolist() == [1, 2]
    assert pairs.iou.tolist() == [1.0, 1.0]


def test_match_takes_the_better_of_two():
    assert match(contingency(*cells.two_candidates()), threshold=0.3).iou.tolist() == [4 / 6]


@pytest.mark.parametrize("hundredths", range(50, 100, 5))
def test_exact_tie_at_every_decimal_threshold(hundredths):
    # IoU hundredths / 100 exactly: the truth is 100 pixels, the prediction a part of them.
    truth = np.ones((10, 10), np.int32)
    prediction = (np.arange(100) < hundredths).reshape(10, 10).astype(np.int32)
    overlap = contingency(truth, prediction)
    assert match(overlap, threshold=hundredths / 100).true_positives == 1
    assert match(overlap, threshold=hundredths / 100, strict=True).true_positives == 0


@PROPERTY
@given(st.integers(0, 2**16), st.sampled_from([0.1, 0.25, 0.5, 0.75]), st.booleans())
def test_match_equals_trying_everything(seed, threshold, strict):
    rng = np.random.default_rng(seed)
    labels_true = rng.integers(0, 5, (5, 6))
    # Half of the pixels agree: enough overlap for objects to compete.
    labels_pred = np.where(rng.random((5, 6)) < 0.5, labels_true, rng.integers(0, 5, (5, 6)))
    pairs = match(contingency(labels_true, labels_pred), threshold=threshold, strict=strict)
    count, total = oracles.best_matching(labels_true, labels_pred, threshold, strict)
    assert pairs.true_positives == count
    assert pairs.iou.sum() == pytest.approx(float(total), abs=1e-12)
    assert len(set(pairs.ids_true.tolist())) == len(set(pairs.ids_pred.tolist())) == count


@PROPERTY
@given(LABELS, LABELS)
def test_iou_equals_sets(labels_true, labels_pred):
    overlap = contingency(labels_true, labels_pred)
    matrix = iou_matrix(overlap)
    table = oracles.iou_table(labels_true, labels_pred)
    for row, one in enumerate(overlap.ids_true[1:].tolist()):
        for column, other in enumerate(overlap.ids_pred[1:].tolist()):
            assert matrix[row, column] == float(table.get((one, other), 0))


@PROPERTY
@given(LABELS, LABELS)
def test_contingency_is_symmetric(labels_true, labels_pred):
    there, back = contingency(labels_true, labels_pred), contingency(labels_pred, labels_true)
    np.testing.assert_array_equal(iou_matrix(there), iou_matrix(back).T)
    assert there.areas_true.tolist() == back.areas_pred.tolist()


def test_inputs_are_not_changed():
    truth, prediction = cells.split_cell()
    before = truth.copy(), prediction.copy()
    contingency(truth, prediction, truth > 0)
    np.testing.assert_array_equal((truth, prediction), before)


def test_float_labels_are_refused():
    with pytest.raises(InputError, match=r"labels_pred must hold integers.*float64"):
        contingency(cells.empty(), np.zeros(cells.SHAPE))


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(6, 8\), labels_pred \(6, 7\)"):
        contingency(cells.empty(), cells.empty()[:, :7])


def test_negative_labels_are_refused():
    with pytest.raises(InputError, match=r"labels_true must be >= 0 .*got -3"):
        contingency(cells.empty() - 3, cells.empty())


@pytest.mark.parametrize("ignore", [cells.empty(), np.zeros((2, 2), bool)])
def test_ignore_must_be_a_mask_of_the_image(ignore):
    with pytest.raises(InputError, match=r"ignore must be a bool array of shape \(6, 8\)"):
        check_pair(cells.empty(), cells.empty(), ignore)


@pytest.mark.parametrize("threshold", [0, 1.5, -0.1])
def test_threshold_out_of_range(threshold):
    with pytest.raises(InputError, match=rf"in \(0, 1\], got {threshold}"):
        match(contingency(*cells.split_cell()), threshold=threshold)
