import json

import numpy as np
import pytest
from scipy import stats

from cellseg.error_analysis import CELL, PAIR, ErrorAnalysis, image_facts, recall_bins, wilson
from cellseg.metrics.objects import match_counts
from pipelines.errors import InputError
from tests import oracles
from tests.cells import PAIRS, empty, merged_pair, missed_cell, one_cell, shifted_cell, sparse_ids, split_cell


def facts(labels_true, labels_pred, ignore=None, image=None):
    """The three answers of `image_facts`."""
    image = np.zeros((*labels_true.shape, 1), np.float32) if image is None else image
    return image_facts(image, labels_true, labels_pred, ignore)


def analysed(*scenes):
    analysis = ErrorAnalysis()
    for labels_true, labels_pred in scenes:
        analysis.add(np.zeros((*labels_true.shape, 1), np.float32), labels_true, labels_pred)
    return analysis.result()


def large_cell():
    """A square of 20x20 pixels in 24x24. Its core is 14x14: the outline and two more pixels on each side are not."""
    labels = np.zeros((24, 24), np.int32)
    labels[2:22, 2:22] = 1
    return labels


def crowd(seed=0, size=64, number=14):
    """Discs that overlap, later ones on top; predicted with some joined, some missing and holes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[:size, :size]
    true = np.zeros((size, size), np.int32)
    for label in range(1, number + 1):
        row, column = rng.integers(0, size, 2)
        true[(rows - row) ** 2 + (columns - column) ** 2 <= rng.integers(3, 9) ** 2] = label
    new = np.arange(number + 1, dtype=np.int32)
    new[[3, 7]], new[5] = [4, 8], 0
    pred = new[true]
    pred[rng.random(true.shape) < 0.1] = 0
    return true, pred


def gapped(gap):
    """Two cells of 4x3 pixels with `gap` columns of background between them."""
    labels = np.zeros((6, 8 + gap), np.int32)
    labels[1:5, 1:4], labels[1:5, 4 + gap : 7 + gap] = 1, 2
    return labels


def test_facts_of_one_cell_by_hand():
    labels = one_cell()  # rows 1 to 4 of 6, columns 1 to 4 of 8: one pixel from the upper, lower and left border
    image = np.zeros((*labels.shape, 2), np.float32)
    image[labels > 0] = (0.25, 0.5)
    image[2, 2] = (1.25, 0.5)  # one of 16 pixels is 0.5 brighter in the mean of its channels
    cells, pairs, left_out = facts(labels, labels, image=image)
    assert (cells["border_distance"], cells["area"]) == (1, 16)
    assert cells["brightness"] == pytest.approx(0.375 + 0.5 / 16)
    assert cells["found"] and cells["drawn"] and cells["pieces"] == 1
    assert (len(pairs), left_out) == (0, 0)


@pytest.mark.parametrize(("place", "distance"), [((0, 5), 0), ((9, 5), 0), ((5, 9), 0), ((4, 5), 4), ((5, 7), 2)])
def test_distance_to_the_nearest_border(place, distance):
    labels = np.zeros((10, 10), np.int32)
    labels[place] = 1
    assert facts(labels, labels)[0]["border_distance"] == distance


@pytest.mark.parametrize(
    ("scene", "found"), [(missed_cell, [1, 0]), (shifted_cell, [1]), (split_cell, [1]), (merged_pair, [1, 0])]
)
def test_found_is_an_iou_of_a_half_or_more(scene, found):
    assert sorted(facts(*scene())[0]["found"], reverse=True) == found


@pytest.mark.parametrize("scene", [*PAIRS.values(), crowd], ids=[*PAIRS, "crowd"])
def test_found_are_the_true_positives_of_average_precision(scene):
    labels_true, labels_pred = scene()
    result = analysed((labels_true, labels_pred))
    assert result["found"] == match_counts(labels_true, labels_pred)[0]
    for bins in result["by_fact"].values():
        assert sum(one["cells"] for one in bins) == result["cells"]
        assert sum(one["found"] for one in bins) == result["found"]


def test_five_bins_of_equally_many_cells():
    values = np.array([7, 3, 1, 9, 5, 2, 8, 0, 4, 6], float)
    bins = recall_bins(values, values < 5)
    assert [(one["low"], one["high"]) for one in bins] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert [one["cells"] for one in bins] == [2] * 5
    assert [one["recall"] for one in bins] == [1, 1, 0.5, 0, 0]
    assert bins[2]["interval"] == list(wilson(1, 2))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([4.0], [(4, 4, 1)]),
        ([1.0, 2.0, 3.0], [(1, 1, 1), (2, 2, 1), (3, 3, 1)]),
        ([5.0] * 20, [(5, 5, 20)]),
        # Bins begin at places 0, 1, 2, 4, 5 of 7: at 1, 5, 5, 5, 6.
        ([1.0, 5.0, 5.0, 5.0, 5.0, 6.0, 9.0], [(1, 1, 1), (5, 5, 4), (6, 9, 2)]),
    ],
)
def test_bins_of_few_and_of_equal_values(values, expected):
    bins = recall_bins(np.array(values), np.ones(len(values), bool))
    assert [(one["low"], one["high"], one["cells"]) for one in bins] == expected


def test_cells_at_the_border_have_a_bin_of_their_own():
    labels = np.zeros((40, 40), np.int32)
    for label, column in enumerate(range(1, 38, 4), start=1):
        labels[label : label + 2, column] = label
    labels[0, 0], labels[39, 39] = 11, 12
    bins = analysed((labels, labels))["by_fact"]["border_distance"]
    assert (bins[0]["low"], bins[0]["high"], bins[0]["cells"]) == (0, 0, 2)
    assert bins[1]["low"] == 1 and sum(one["cells"] for one in bins[1:]) == 10


def test_size_bins_tell_the_diameter():
    labels = large_cell()
    (only,) = analysed((labels, labels))["by_fact"]["area"]
    assert only["low"] == only["high"] == 400
    assert only["diameter_low"] == only["diameter_high"] == pytest.approx(22.5676, abs=1e-4)  # 2 sqrt(400 / pi)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 9), (450, 1000)])
def test_wilson_as_scipy_has_it(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_without_trials_is_undefined():
    assert wilson(0, 0) is None


@pytest.mark.parametrize(("gap", "place"), [(0, 0), (1, 1), (2, 2), (4, 3), (5, 4), (9, 4), (10, 5), (20, 5)])
def test_gap_is_the_width_of_what_lies_between(gap, place):
    labels = gapped(gap)
    assert facts(labels, labels)[1]["gap"].tolist() == [gap]
    bins = analysed((labels, labels))["merges"]["bins"]
    assert [one["pairs"] for one in bins] == [int(k == place) for k in range(6)]


def test_cells_far_apart_are_no_neighbours():
    labels = gapped(21)
    assert len(facts(labels, labels)[1]) == 0


def test_corner_to_corner_is_touching():
    labels = np.array([[1, 2], [3, 4]], np.int32)
    gaps = facts(labels, labels)[1]["gap"]
    assert sorted(gaps) == pytest.approx([0, 0, 0, 0, 2**0.5 - 1, 2**0.5 - 1])
    assert analysed((labels, labels))["merges"]["bins"][0]["pairs"] == 6


def test_a_cell_between_two_others_parts_them():
    labels = np.repeat([[0, 1, 1, 0, 2, 2, 0, 0, 3, 0]], 8, axis=0).astype(np.int32)
    assert sorted(facts(labels, labels)[1]["gap"]) == [1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_gaps_as_pixel_by_pixel(seed):
    labels, prediction = crowd(seed)
    pixels = list(oracles.objects(labels).values())
    nearest = [min((oracles.gap(one, other) for other in pixels if other is not one), default=np.inf) for one in pixels]
    every = {round(oracles.gap(one, other), 9) for one in pixels for other in pixels if one is not other}
    gaps = np.round(facts(labels, prediction)[1]["gap"], 9)
    assert set(gaps) <= every
    assert {round(gap, 9) for gap in nearest if gap <= 20} <= set(gaps)  # a cell and its nearest are always a pair


def test_merged_needs_more_than_half_of_both():
    true = gapped(2)
    for columns, merged in ((slice(1, 9), True), (slice(2, 8), True), (slice(3, 9), False), (slice(1, 4), False)):
        pred = np.zeros_like(true)
        pred[1:5, columns] = 5
        assert facts(true, pred)[1]["merged"].tolist() == [merged]
    half = np.zeros_like(true)
    half[1:3, 1:9] = 5  # 6 of 12 pixels of both
    assert facts(true, half)[1]["merged"].tolist() == [False]


def test_shares_of_merged_pairs_by_gap():
    result = analysed(merged_pair(), (gapped(0), gapped(0)), (gapped(4), gapped(4)))["merges"]
    assert (result["pairs"], result["merged"], result["share"]) == (3, 1, 1 / 3)
    touching, third = result["bins"][0], result["bins"][3]
    assert (touching["pairs"], touching["merged"], touching["share"]) == (2, 1, 0.5)
    assert touching["interval"] == list(wilson(1, 2))
    assert (third["low"], third["high"], third["share"]) == (3, 5, 0)
    assert result["bins"][1] == {"low": 1, "high": 2, "pairs": 0, "merged": 0, "share": None, "interval": None}


@pytest.mark.parametrize("scene", [large_cell, sparse_ids, lambda: crowd(1)[0]], ids=["square", "small", "crowd"])
def test_core_as_pixel_by_pixel(scene):
    labels = scene()
    expected = [len(core) for _, core in sorted(oracles.core(labels, 2).items())]
    assert facts(labels, labels)[0]["core"].tolist() == expected


def test_a_false_membrane_cuts_a_cell():
    true = large_cell()
    pred = true.copy()
    pred[11:13], pred[13:] = 0, 2 * true[13:]  # two rows of background; 9 rows of 20 pixels remain on either side
    result = analysed((true, pred))["false_membranes"]
    assert (result["core_pixels"], result["background_pixels"]) == (196, 28)  # 14x14, 2x14
    assert result["share"] == pytest.approx(1 / 7)
    assert (result["cells"], result["cut"], result["not_drawn"]) == (1, 1, 0)
    assert [one["cells"] for one in result["bins"]] == [0, 0, 0, 1, 0]  # 0.05 < 1/7 <= 0.2


def test_cells_by_their_share_of_background():
    true = large_cell()
    scenes = []
    for pixels in (0, 1, 2, 9, 10, 39, 40):  # of 196: 0.5 %, 1.02 %, 4.6 %, 5.1 %, 19.9 %, 20.4 %
        pred = true.copy()
        core = pred[5:19, 5:19].ravel()
        core[:pixels] = 0
        pred[5:19, 5:19] = core.reshape(14, 14)
        scenes.append((true, pred))
    bins = analysed(*scenes)["false_membranes"]["bins"]
    assert [one["cells"] for one in bins] == [1, 1, 2, 2, 1]
    assert [(one["low"], one["high"]) for one in bins] == [(0, 0), (0, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 1)]


def test_a_ring_round_a_nucleus_pierces_and_does_not_cut():
    true = large_cell()
    pred = true.copy()
    pred[8:15, 8:15] = 0
    pred[9:14, 9:14] = 2  # 25 of 400 pixels: 6 %
    (cell,) = facts(true, pred)[0]
    assert (cell["background"], cell["pieces"]) == (49 - 25, 1)
    pred[8:16, 8:16] = 2  # 64 pixels: 16 %
    assert facts(true, pred)[0]["pieces"] == 2


def test_a_tenth_is_no_piece():
    true = large_cell()
    pred = np.where(np.arange(24)[:, None] < 4, 2, 1) * true  # 2 rows of 20
    assert facts(true, pred)[0]["pieces"] == 1
    pred[4, 4] = 2
    assert facts(true, pred)[0]["pieces"] == 2


def test_an_outline_two_pixels_too_small_is_no_membrane():
    true = large_cell()
    pred = np.zeros_like(true)
    pred[5:19, 5:19] = 1
    assert facts(true, pred)[0]["background"] == 0
    pred[5] = 0
    assert facts(true, pred)[0]["background"] == 14


def test_a_missed_cell_is_no_false_membrane():
    true = large_cell()
    pred = true.copy()
    pred[:12] = 0  # half of it is left
    result = analysed((true, pred))["false_membranes"]
    assert (result["not_drawn"], result["cells"], result["share"], result["cut_share"]) == (1, 0, None, None)
    assert sum(one["cells"] for one in result["bins"]) == 0


def test_the_border_of_the_image_is_no_outline():
    true = np.ones((6, 7), np.int32)
    pred = true.copy()
    pred[0, 0] = 0
    (cell,) = facts(true, pred)[0]
    assert (cell["core"], cell["background"], cell["border_distance"]) == (42, 1, 0)


def test_small_cells_have_no_core_and_no_bin():
    result = analysed((one_cell(), one_cell()))["false_membranes"]
    assert (result["cells"], result["core_pixels"], result["share"]) == (1, 0, None)
    assert sum(one["cells"] for one in result["bins"]) == 0


@pytest.mark.parametrize(("columns", "kept"), [(0, 1), (2, 1), (3, 0), (4, 0)])
def test_mostly_unannotated_cells_are_left_out(columns, kept):
    labels = one_cell()
    ignore = np.zeros(labels.shape, bool)
    ignore[:, 1 : 1 + columns] = True
    cells, _, left_out = facts(labels, labels, ignore)
    assert (len(cells), left_out) == (kept, 1 - kept)


def test_unannotated_pixels_count_neither_way():
    true = large_cell()
    ignore = np.zeros(true.shape, bool)
    ignore[:9] = True  # 7 of 20 rows of the cell
    pred = np.where(ignore, 0, true)
    (cell,) = facts(true, pred, ignore)[0]
    assert cell["found"] and cell["drawn"]
    assert (cell["area"], cell["core"], cell["background"]) == (400, 14 * 10, 0)  # core rows 5 to 18, of which 9 to 18
    pred[9:18] = 0  # 4 of 13 annotated rows are left, and none of the core's but one
    (cell,) = facts(true, pred, ignore)[0]
    assert not cell["found"] and not cell["drawn"]
    assert cell["background"] == 14 * 9


def test_a_prediction_mostly_on_unannotated_pixels_finds_nothing():
    true, pred = np.array([[1, 1, 1, 0, 0, 0, 0, 0]], np.int32), np.array([[1, 1, 1, 1, 1, 1, 1, 0]], np.int32)
    ignore = np.array([[0, 0, 0, 1, 1, 1, 1, 1]], bool)
    assert not facts(true, pred, ignore)[0]["found"]
    assert match_counts(true, pred, ignore)[0] == 0
    pred[0, 6] = 0
    assert facts(true, pred, ignore)[0]["found"]  # 3 of its 6 pixels are annotated


def test_pairs_with_a_cell_left_out_do_not_count():
    labels = gapped(2)
    ignore = np.zeros(labels.shape, bool)
    ignore[:, :4] = True
    assert len(facts(labels, labels, ignore)[1]) == 0


@pytest.mark.parametrize("seed", range(3))
def test_ids_and_axes_do_not_matter(seed):
    true, pred = crowd(seed)
    rng = np.random.default_rng(seed)
    image = rng.random((*true.shape, 1))
    new_true, new_pred = (np.append(0, 3 * rng.permutation(20) + 5).astype(np.int32) for _ in range(2))
    first, second, third = ErrorAnalysis(), ErrorAnalysis(), ErrorAnalysis()
    first.add(image, true, pred)
    second.add(image, new_true[true], new_pred[pred])
    third.add(image[::-1].copy(), true[::-1].copy(), pred[::-1].copy())
    assert json.dumps(first.result()) == json.dumps(second.result())
    assert first.result()["false_membranes"] == third.result()["false_membranes"]
    assert first.result()["recall"] == third.result()["recall"]


def test_order_of_images_does_not_matter():
    scenes = [crowd(0), crowd(1), merged_pair(), missed_cell()]
    assert analysed(*scenes) == analysed(*scenes[::-1])


def test_images_add_up():
    scenes = [merged_pair(), split_cell(), *(crowd(seed) for seed in range(3))]
    together, apart = analysed(*scenes), [analysed(scene) for scene in scenes]
    for path in (("cells",), ("found",), ("merges", "pairs"), ("merges", "merged"), ("false_membranes", "cut")):
        values = []
        for one in (together, *apart):
            for key in path:
                one = one[key]
            values.append(one)
        assert values[0] == sum(values[1:]) > 0, path


def test_what_is_kept_is_small():
    assert (CELL.itemsize, PAIR.itemsize) == (50, 9)  # as the docstring says


@pytest.mark.parametrize(
    "scenes",
    [(), [(empty(), empty())], [(empty(), one_cell())], [(one_cell(), empty())], [(one_cell(), one_cell())]],
    ids=["no image", "both empty", "empty truth", "empty prediction", "one cell"],
)
def test_few_or_no_cells_are_defined(scenes):
    result = analysed(*scenes)
    cells = sum(int(true.any()) for true, _ in scenes)
    found = sum(int(true.any() and pred.any()) for true, pred in scenes)
    json.dumps(result, allow_nan=False)
    assert (result["images"], result["cells"], result["found"]) == (len(scenes), cells, found)
    assert result["recall"] == (found if cells else None)
    assert [len(bins) for bins in result["by_fact"].values()] == [cells] * 3
    assert result["merges"]["share"] is None and len(result["merges"]["bins"]) == 6
    assert result["false_membranes"]["not_drawn"] == cells - found


def test_sizes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"image has shape \(5, 8, 1\), its labels \(6, 8\)"):
        image_facts(np.zeros((5, 8, 1)), empty(), empty())
    with pytest.raises(InputError, match=r"labels_pred \(8, 6\)"):
        facts(empty(), empty().T)
    with pytest.raises(InputError, match="ignore must be a bool array"):
        facts(empty(), empty(), np.zeros(empty().shape, np.uint8))
