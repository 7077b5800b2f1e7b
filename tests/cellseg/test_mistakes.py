import numpy as np
import pytest

from cellseg.metrics import panoptic_quality
from cellseg.metrics.objects import match_counts
from cellseg.mistakes import KINDS, find_mistakes
from pipelines.errors import InputError
from tests import cells
from tests.oracles import kinds_of_cells


def row(text):
    """'1122' -> the labels 1, 1, 2, 2 of one row."""
    return np.array([[int(one) for one in text]], np.int32)


def kinds(true, pred):
    found = find_mistakes(row(true), row(pred))
    return found.true, found.pred


@pytest.mark.parametrize(
    ("scene", "true", "pred"),
    [
        (cells.missed_cell, {1: "found", 2: "missed"}, {1: "found"}),
        (cells.extra_cell, {1: "found"}, {1: "found", 2: "spurious"}),
        (cells.merged_pair, {1: "merged", 2: "merged"}, {1: "merged"}),
        (cells.split_cell, {1: "split"}, {1: "split", 2: "split"}),
        (cells.shifted_cell, {1: "found"}, {1: "found"}),
    ],
)
def test_scenes(scene, true, pred):
    found = find_mistakes(*scene())
    assert (found.true, found.pred) == (true, pred)


@pytest.mark.parametrize(
    ("true", "pred", "kinds_true", "kinds_pred"),
    [
        # IoU 4 / 8 is no match, 5 / 8 is one.
        ("11111111", "11110000", {1: "missed"}, {1: "spurious"}),
        ("11111111", "11111000", {1: "found"}, {1: "found"}),
        # A found cell stays found; the small one that its partner swallows is merged.
        ("1111111122", "1111111111", {1: "found", 2: "merged"}, {1: "found"}),
        # A found cell with a crumb broken off: the crumb is spurious.
        ("11111111", "11111122", {1: "found"}, {1: "found", 2: "spurious"}),
        # Two pieces that cover 3 of 8 pixels are no split cell, of 4 they are.
        ("11111111", "11000002", {1: "missed"}, {1: "spurious", 2: "spurious"}),
        ("11111111", "11000022", {1: "split"}, {1: "split", 2: "split"}),
        # In pieces, of which one (9 pixels, 5 of them in cell 1) holds the neighbour, too.
        ("111111110222", "444555555555", {1: "split", 2: "merged"}, {4: "split", 5: "split"}),
        # A prediction that holds one cell and lies over half of another: nothing is merged by exactly a half.
        ("11112222", "11111100", {1: "found", 2: "missed"}, {1: "found"}),
        # Holds the cell, but is far too large, and holds no other.
        ("00011000", "11111111", {1: "missed"}, {1: "spurious"}),
        ("00000000", "11110222", {}, {1: "spurious", 2: "spurious"}),
        ("00000000", "00000000", {}, {}),
    ],
)
def test_rules_by_hand(true, pred, kinds_true, kinds_pred):
    assert kinds(true, pred) == (kinds_true, kinds_pred)


def test_counts():
    found = find_mistakes(*map(row, ("11112222003333004444", "11111111550000006678")))
    # 3 is missed; 4 is in three pieces, one of two pixels; 5 and the half of 6 lie where nothing is.
    assert found.counts == {"found": 0, "missed": 1, "spurious": 1, "split": 1, "merged": 2}
    assert found.true == {1: "merged", 2: "merged", 3: "missed", 4: "split"}


def random_pair(seed):
    """Nine cells of 2x4 pixels, each kept, dropped, halved, joined with the one before, or shifted; and some noise."""
    rng = np.random.default_rng(seed)
    truth = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((2, 4), int)) * np.kron(
        rng.random((3, 3)) < 0.8, np.ones((2, 4), int)
    )
    prediction = truth.copy()
    for cell in range(1, 10):
        here = truth == cell
        kind = rng.integers(0, 5)
        if kind == 0:
            prediction[here] = 0
        elif kind == 1:
            prediction[here & (np.arange(12) % 4 < 2)] = 9 + cell
        elif kind == 2:
            prediction[here] = max(cell - 1, 1)
        elif kind == 3:
            prediction = np.where(np.roll(here, int(rng.integers(1, 4)), axis=1), cell, prediction)
    noise = rng.random(truth.shape) < 0.1
    return truth.astype(np.int32), np.where(noise, rng.integers(0, 19, truth.shape), prediction).astype(np.int32)


@pytest.mark.parametrize("seed", range(60))
def test_every_cell_has_the_kind_of_the_oracle(seed):
    truth, prediction = random_pair(seed)
    found = find_mistakes(truth, prediction)
    assert (dict(found.true), dict(found.pred)) == kinds_of_cells(truth, prediction)


def test_all_kinds_occur_in_the_random_scenes():
    counts = [find_mistakes(*random_pair(seed)).counts for seed in range(60)]
    assert all(sum(one[kind] for one in counts) > 5 for kind in KINDS)


@pytest.mark.parametrize("seed", range(10))
def test_found_cells_are_those_of_the_panoptic_quality(seed):
    truth, prediction = random_pair(seed)
    counts = find_mistakes(truth, prediction).counts
    assert counts["found"] == match_counts(truth, prediction, strict=True)[0]
    assert (counts["found"] == 0) == (panoptic_quality(truth, prediction) == 0)


@pytest.mark.parametrize("seed", range(10))
def test_ids_do_not_matter(seed):
    truth, prediction = random_pair(seed)
    names = np.concatenate([[0, 70_000], np.arange(40, 22, -1)]).astype(np.int32)
    found, renamed = find_mistakes(truth, prediction), find_mistakes(names[truth], names[prediction])
    assert {int(names[label]): kind for label, kind in found.true.items()} == renamed.true
    assert {int(names[label]): kind for label, kind in found.pred.items()} == renamed.pred


def test_unannotated_pixels_are_left_out():
    truth, prediction = cells.extra_cell()
    ignore = prediction == 2
    assert find_mistakes(truth, prediction, ignore).counts["spurious"] == 0


def test_different_shapes():
    with pytest.raises(InputError, match=r"\(6, 8\), labels_pred \(8, 6\)"):
        find_mistakes(cells.empty(), cells.empty().T)
