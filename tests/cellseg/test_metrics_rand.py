import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from cellseg.metrics import rand, thinning
from pipelines.errors import InputError
from tests import cells, oracles

LABELS = arrays(np.int32, (4, 5), elements=st.integers(0, 3))
MASK = arrays(bool, (4, 5))
PROPERTY = settings(max_examples=50, derandomize=True, deadline=None)
PARTITION = [name for name in rand.METRICS if name != "pixel_rand_error"]
GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"

# Truth: regions of 4 and 2 pixels, and a background pixel. Prediction: 3 and 1 of the first, 1 of each with them.
TRUTH = np.array([[1, 1, 1, 1, 2, 2, 0]])
PREDICTION = np.array([[1, 1, 1, 2, 2, 0, 0]])


def test_rand_error_by_hand():
    # Pairs together in the truth 6 + 1, in the prediction 3 + 1 + 1, in both 3, of 21: they differ on 4 + 2.
    assert metrics.rand_error(TRUTH, PREDICTION) == pytest.approx(6 / 21, abs=1e-12)
    assert rand.rand_index(TRUTH, PREDICTION) == pytest.approx(15 / 21, abs=1e-12)


def test_adapted_rand_error_by_hand():
    # In the true regions: pairs of the truth 6 + 1, of the prediction 3 + 1 (the 0 is a region of one pixel), both 3.
    assert metrics.adapted_rand_error(TRUTH, PREDICTION) == pytest.approx(1 - 2 * 3 / (7 + 4), abs=1e-12)


def test_variation_of_information_by_hand():
    # Region 1 (4 of 6) is split 3 : 1, region 2 (2 of 6) 1 : 1; predicted 2 (2 of 6) holds 1 : 1.
    quarter = 3 / 4 * math.log2(4 / 3) + 1 / 4 * math.log2(4)
    assert metrics.vi_split(TRUTH, PREDICTION) == pytest.approx(4 / 6 * quarter + 2 / 6 * 1, abs=1e-12)
    assert metrics.vi_merge(TRUTH, PREDICTION) == pytest.approx(2 / 6 * 1, abs=1e-12)


def test_v_rand_by_hand():
    # p: 3, 1, 1 and 1 pixel of background; a: 4, 2; b: 3, 2 and that pixel.
    joint, true, pred = 9 + 1 + 1 + 1, 16 + 4, 9 + 4 + 1
    assert rand.v_rand_merge(TRUTH, PREDICTION) == pytest.approx(joint / pred, abs=1e-12)
    assert rand.v_rand_split(TRUTH, PREDICTION) == pytest.approx(joint / true, abs=1e-12)
    assert metrics.v_rand(TRUTH, PREDICTION) == pytest.approx(2 * joint / (true + pred), abs=1e-12)


def test_pixel_rand_error_is_that_of_two_classes_of_pixels():
    # 1 of 7 pixels is wrong.
    assert metrics.pixel_rand_error(TRUTH, PREDICTION) == pytest.approx(2 * 1 / 7 * 6 / 7, abs=1e-12)
    assert metrics.pixel_rand_error(*cells.merged_pair()) == 0


@PROPERTY
@given(LABELS, LABELS, MASK)
def test_pairs_equal_a_loop_over_pairs(labels_true, labels_pred, ignore):
    both, true, pred, pairs = oracles.pixel_pairs(labels_true, labels_pred, ignore)
    expected = (true + pred - 2 * both) / pairs if pairs else math.nan
    assert metrics.rand_error(labels_true, labels_pred, ignore) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    both, true, pred, _ = oracles.pixel_pairs(labels_true, labels_pred, ignore | (labels_true == 0))
    expected = 1 - 2 * both / (true + pred) if true + pred else math.nan
    found = metrics.adapted_rand_error(labels_true, labels_pred, ignore)
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@PROPERTY
@given(LABELS, LABELS, MASK)
def test_scores_of_isbi_equal_counting(labels_true, labels_pred, ignore):
    counted = (labels_true > 0) & ~ignore
    num = np.count_nonzero(counted)
    # A predicted background pixel is a region of its own: it gets a number that nobody has.
    alone = np.where(labels_pred > 0, labels_pred, 10 + np.arange(labels_pred.size).reshape(labels_pred.shape))
    if not num:
        assert math.isnan(metrics.v_rand(labels_true, labels_pred, ignore))
        assert math.isnan(metrics.v_info(labels_true, labels_pred, ignore))
        return
    both, true, pred, _ = oracles.pixel_pairs(labels_true, alone, ~counted)
    # Pairs of a pixel with itself count too.
    expected = 2 * (2 * both + num) / (2 * true + num + 2 * pred + num)
    assert metrics.v_rand(labels_true, labels_pred, ignore) == pytest.approx(expected, abs=1e-12)
    true, pred, both = oracles.entropy_terms(labels_true[counted].tolist(), alone[counted].tolist())
    expected = 2 * (true + pred - both) / (true + pred) if true + pred else 1
    assert metrics.v_info(labels_true, labels_pred, ignore) == pytest.approx(expected, abs=1e-9)
    true, pred, both = oracles.entropy_terms(labels_true[counted].tolist(), labels_pred[counted].tolist())
    bits = math.log(2)
    assert metrics.vi_split(labels_true, labels_pred, ignore) == pytest.approx((both - true) / bits, abs=1e-9)
    assert metrics.vi_merge(labels_true, labels_pred, ignore) == pytest.approx((both - pred) / bits, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "both_empty", "truth_empty", "prediction_empty"),
    [
        # The cell has 16 of 48 pixels: 16 * 32 pairs of 48 * 47 / 2.
        ("rand_error", 0, 512 / 1128, 512 / 1128),
        # One predicted region: what one region should be, one region is.
        ("adapted_rand_error", math.nan, math.nan, 0),
        ("vi_split", math.nan, math.nan, 0),
        ("vi_merge", math.nan, math.nan, 0),
        # 16 regions of one pixel: 2 * 16 / (16 ** 2 + 16).
        ("v_rand", math.nan, math.nan, 2 / 17),
        ("v_info", math.nan, math.nan, 0),
    ],
)
def test_empty_images(name, both_empty, truth_empty, prediction_empty):
    cell, empty = cells.one_cell(), cells.empty()
    found = [getattr(metrics, name)(*pair) for pair in ((empty, empty), (empty, cell), (cell, empty))]
    assert found == pytest.approx([both_empty, truth_empty, prediction_empty], abs=1e-12, nan_ok=True)


def test_fijis_rule_for_the_undefined():
    cell, empty = cells.one_cell(), cells.empty()
    assert metrics.v_rand(empty, cell, undefined=0.0) == metrics.v_info(empty, cell, undefined=0.0) == 0
    # One region on both sides: no information to share.
    assert metrics.v_info(cell, cell) == 1
    assert metrics.v_info(cell, cell, undefined=0.0) == 0
    # One of the two has some: there is nothing undefined.
    assert metrics.v_info(cells.two_touching(), cells.two_touching() > 0) == 0


@pytest.mark.parametrize("name", PARTITION)
def test_all_ignored_is_undefined(name):
    cell = cells.one_cell()
    assert math.isnan(getattr(metrics, name)(cell, cell, np.ones(cell.shape, bool)))


@PROPERTY
@given(LABELS)
def test_identity_is_perfect(labels):
    found = metrics.score(labels, labels, PARTITION)
    for name in PARTITION:
        perfect = 1.0 if metrics.METRICS[name].higher_is_better else 0.0
        assert found[name] == pytest.approx(perfect, abs=1e-12) or math.isnan(found[name])
    assert not math.isnan(found["v_rand"]) or not labels.any()


@PROPERTY
@given(LABELS, LABELS, st.permutations([3, 11, 500]), st.permutations([1, 9, 2**31 - 1]))
def test_ids_do_not_matter(labels_true, labels_pred, ids_true, ids_pred):
    renamed = np.array([0, *ids_true])[labels_true], np.array([0, *ids_pred])[labels_pred]
    before, after = metrics.score(labels_true, labels_pred, PARTITION), metrics.score(*renamed, PARTITION)
    assert before == pytest.approx(after, abs=1e-12, nan_ok=True)


@PROPERTY
@given(LABELS, LABELS)
def test_symmetric_where_the_background_is_a_region(labels_true, labels_pred):
    there, back = metrics.rand_error(labels_true, labels_pred), metrics.rand_error(labels_pred, labels_true)
    assert there == back
    # Without background the roles of splits and merges are swapped.
    true, pred = labels_true + 1, labels_pred + 1
    for one, other in (("vi_split", "vi_merge"), ("v_rand", "v_rand"), ("v_info", "v_info")):
        there, back = getattr(metrics, one)(true, pred), getattr(metrics, other)(pred, true)
        assert there == pytest.approx(back, abs=1e-12)


def membrane(left=0.0, right=0.0):
    """Two regions of 5x3 pixels with a membrane of the given probability of being cell, one column wide, between."""
    truth = np.zeros((5, 7), np.int32)
    truth[:, :3], truth[:, 4:] = 1, 2
    probability = np.where(truth > 0, 0.85, 0.0)
    probability[:3, 3], probability[3:, 3] = left, right
    return truth, probability


def test_best_threshold_counts():
    # Below 0.6 the halves of the membrane's lower part are cell, and the two regions one.
    truth, probability = membrane(0.0, 0.6)
    scores = {threshold: metrics.v_rand(truth, probability, thresholds=(threshold,)) for threshold in (0.1, 0.5, 0.7)}
    # One region of 30 true pixels: joint 15^2 + 15^2, truth the same, prediction 30^2.
    assert scores == pytest.approx({0.1: 2 * 450 / (450 + 900), 0.5: 2 * 450 / (450 + 900), 0.7: 1}, abs=1e-12)
    assert metrics.v_rand(truth, probability) == metrics.v_info(truth, probability) == 1
    assert metrics.v_rand(truth, probability, thresholds=(0.1, 0.5)) == scores[0.1]


def test_threshold_is_chosen_for_the_data_set():
    # The first image needs a threshold above 0.6, the second one below 0.2: no threshold serves both.
    first, second = membrane(0.0, 0.6), membrane()
    second[1][second[0] > 0] = 0.2
    second[1][:, 3] = 0.1
    pair = [first[0], second[0]], [first[1], second[1]]
    merged = 2 * 450 / (450 + 900)
    assert metrics.score(*pair, "v_rand")["v_rand"] == pytest.approx((1 + merged) / 2, abs=1e-12)
    assert [metrics.score(*one, "v_rand")["v_rand"] for one in (first, second)] == [1, 1]


def test_images_without_truth_are_left_out_of_the_mean():
    truth, probability = membrane()
    found = metrics.score([truth, truth * 0], [probability, probability], ["v_rand", "v_info"])
    assert found == {"v_rand": 1, "v_info": 1}


def test_map_as_truth_is_its_pieces():
    truth, probability = membrane()
    assert metrics.v_rand((truth > 0).astype(np.float32), probability) == 1
    assert metrics.v_rand(truth > 0, probability > 0.5) == 1
    # The same map as labels is one region.
    assert metrics.v_rand((truth > 0).astype(int), probability, thresholds=(0.5,)) < 1


def test_labels_are_not_thinned():
    truth, _ = membrane()
    narrow = truth.copy()
    narrow[:, 2] = 0
    # 5 of region 1's 15 pixels are regions of their own.
    expected = 2 * (100 + 225 + 5) / (450 + 100 + 225 + 5)
    assert metrics.v_rand(truth, narrow) == pytest.approx(expected, abs=1e-12)
    assert metrics.v_rand(truth, (narrow > 0).astype(float)) > expected


def test_shapes_differ():
    with pytest.raises(InputError, match=r"\(5, 7\), labels_pred \(4, 7\)"):
        metrics.v_rand(membrane()[0], membrane()[1][:4])


@pytest.mark.parametrize("case", ["pub_gap", "pub_extra"])
def test_thinning_equals_fiji(case):
    with np.load(GOLDEN / f"membrane_{case}.npz") as arrays:
        found = thinning.thin(thinning.regions(arrays["pred"] > 0.5))
    with np.load(GOLDEN / f"membrane_{case}_thinned.npz") as arrays:
        expected = arrays["thinned"]
    np.testing.assert_array_equal(found == 0, expected == 0)
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(expected))


@PROPERTY
@given(arrays(bool, (7, 8)))
def test_thinning_grows_every_region_and_merges_none(mask):
    assume(mask.any())
    before = oracles.components(mask, 4)
    after = thinning.thin(before)
    assert (after[mask] == before[mask]).all()
    for label, pixels in oracles.objects(after).items():
        assert oracles.components(after == label, 4).max() == 1
        for row, column in pixels:
            sides = after[max(row - 1, 0) : row + 2, column], after[row, max(column - 1, 0) : column + 2]
            # Only lines lie beside a region.
            assert all(set(side.tolist()) <= {0, label} for side in sides)


def test_thinning_without_regions_is_one_piece():
    assert (thinning.thin(np.zeros((3, 4), int)) == 1).all()
