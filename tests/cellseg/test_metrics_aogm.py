import numpy as np
import pytest

from cellseg.metrics.aogm import WEIGHTS, Operation
from cellseg.metrics.ctc import aogm
from cellseg.metrics.tracking import compare_tracking
from tests import oracles, sequences
from tests.sequences import sequence

NOTHING = dict.fromkeys(WEIGHTS, 0)


def compare(truth, prediction):
    return compare_tracking(truth[0], truth[1], prediction[0], prediction[1])


def counted(truth, prediction):
    return aogm(compare(truth, prediction)).counts


@pytest.mark.parametrize("scene", ["two_cells", "division", "late_division", "gap", "empty"])
def test_identity_costs_nothing(scene):
    same = getattr(sequences, scene)()
    found = aogm(compare(same, same))
    assert (found.counts, found.operations, found.cost()) == (NOTHING, [], 0)


def test_a_missed_cell_costs_its_links_too():
    prediction = sequence(["1110222", "1110000", "1110333"], [(1, 0, 2, 0), (2, 0, 0, 0), (3, 2, 2, 0)])
    found = aogm(compare(sequences.two_cells(), prediction))
    assert found.counts == NOTHING | {"FN": 1, "EA": 2}
    assert found.operations == [
        Operation("EA", 1, (2, 2), (), from_frame=0),
        Operation("FN", 1, (2,), ()),
        Operation("EA", 2, (2, 2), (), from_frame=1),
    ]
    assert found.cost() == 10 + 2 * 1.5


def test_a_spurious_cell_costs_no_links():
    prediction = sequence(["1113222", "1113222", "1110222"], [(1, 0, 2, 0), (2, 0, 2, 0), (3, 0, 1, 0)])
    found = aogm(compare(sequences.two_cells(), prediction))
    assert found.counts == NOTHING | {"FP": 2}
    assert found.operations == [Operation("FP", 0, (), (3,)), Operation("FP", 1, (), (3,))]


def test_merged_cells_are_split_once_less_than_they_are():
    truth = sequence(["1122334"], [(label, 0, 0, 0) for label in (1, 2, 3, 4)])
    prediction = sequence(["5555550"], [(5, 0, 0, 0)])
    found = aogm(compare(truth, prediction))
    # traccuracy 0.4.3 counts the cell, one, whatever it covers.
    assert found.counts == NOTHING | {"NS": 2, "FN": 1}
    assert found.operations == [Operation("FN", 0, (4,), ()), Operation("NS", 0, (1, 2, 3), (5,), count=2)]


def test_links_of_a_merged_cell_are_all_missing():
    prediction = sequence(["1110222", "1111111", "1110333"], [(1, 0, 2, 0), (2, 0, 0, 0), (3, 2, 2, 0)])
    # Both true cells have two links at frame 1, and the merged cell's own links are not looked at.
    assert counted(sequences.two_cells(), prediction) == NOTHING | {"NS": 1, "EA": 4}


def test_swapped_tracks():
    prediction = sequence(["1110222", "1110222", "2220111"], [(1, 0, 2, 0), (2, 0, 2, 0)])
    found = aogm(compare(sequences.two_cells(), prediction))
    assert found.counts == NOTHING | {"ED": 2, "EA": 2}
    assert found.operations == [
        Operation("EA", 2, (1, 1), (), from_frame=1),
        Operation("EA", 2, (2, 2), (), from_frame=1),
        Operation("ED", 2, (), (1, 1), from_frame=1),
        Operation("ED", 2, (), (2, 2), from_frame=1),
    ]


@pytest.mark.parametrize(("parent", "expected"), [(0, {"EA": 1}), (1, {"EC": 1})])
def test_a_broken_track(parent, expected):
    # Its own child: the link is there, with another meaning. traccuracy 0.4.3 sees no error.
    prediction = sequence(["1110222"] * 2 + ["3330222"], [(1, 0, 1, 0), (2, 0, 2, 0), (3, 2, 2, parent)])
    found = aogm(compare(sequences.two_cells(), prediction))
    assert found.counts == NOTHING | expected
    labels_pred = (1, 3) if parent else ()
    assert found.operations == [Operation(*expected, 2, (1, 1), labels_pred, from_frame=1)]


def test_a_child_that_goes_on_under_its_parents_name():
    prediction = sequence(["1111110"] * 2 + ["1110333"] * 2, [(1, 0, 3, 0), (3, 2, 3, 0)])
    # 1 -> 2 is a link within a track (EC), 1 -> 3 is missing (EA).
    assert counted(sequences.division(), prediction) == NOTHING | {"EC": 1, "EA": 1}


def test_a_wrong_parent():
    truth = sequence(["1110222", "1110333"], [(1, 0, 1, 0), (2, 0, 0, 0), (3, 1, 1, 2)])
    prediction = sequence(["2220111", "4440333"], [(1, 0, 0, 0), (2, 0, 0, 0), (3, 1, 1, 2), (4, 1, 1, 2)])
    # True 1 -> 1 is predicted as 2 -> 4, a parent (EC); 2 -> 3 is missing; predicted 2 -> 3 joins true 1 and 3 (ED).
    assert counted(truth, prediction) == NOTHING | {"EC": 1, "EA": 1, "ED": 1}


def test_a_link_over_a_gap():
    truth = sequences.gap()
    prediction = sequence(["1110", "0000", "2220"], [(1, 0, 0, 0), (2, 2, 2, 0)])
    assert counted(truth, prediction) == NOTHING | {"EA": 1}


def test_exactly_half_is_not_found():
    truth = sequence(["1111"], [(1, 0, 0, 0)])
    halves = sequence(["1122"], [(1, 0, 0, 0), (2, 0, 0, 0)])
    assert counted(truth, halves) == NOTHING | {"FN": 1, "FP": 2}
    assert counted(truth, sequence(["1112"], [(1, 0, 0, 0), (2, 0, 0, 0)])) == NOTHING | {"FP": 1}


def test_exactly_half_of_the_upper_label_is_not_found_either():
    truth = sequence(["1111222"], [(1, 0, 0, 0), (2, 0, 0, 0)])
    prediction = sequence(["0011222"], [(1, 0, 0, 0), (2, 0, 0, 0)])
    assert counted(truth, prediction) == NOTHING | {"FN": 1, "FP": 1}


def test_the_costs_of_some_kinds_and_other_weights():
    found = aogm(compare(*sequences.random_pair(3)))
    counts = found.counts
    assert found.cost(("NS", "FN", "FP")) == 5 * counts["NS"] + 10 * counts["FN"] + counts["FP"]
    assert found.cost(("ED", "EA", "EC")) == counts["ED"] + 1.5 * counts["EA"] + counts["EC"]
    assert found.cost(weights=dict.fromkeys(WEIGHTS, 1)) == sum(counts.values())


def test_counts_equal_cell_by_cell():
    total = NOTHING
    for seed in range(60):
        (labels_true, table_true), (labels_pred, table_pred) = sequences.random_pair(seed)
        found = counted((labels_true, table_true), (labels_pred, table_pred))
        assert found == oracles.aogm(labels_true, table_true, labels_pred, table_pred), seed
        total = {kind: total[kind] + found[kind] for kind in total}
    assert min(total.values()) > 5  # every kind has been there


def test_operations_add_up_to_the_counts():
    for seed in range(20):
        found = aogm(compare(*sequences.random_pair(seed)))
        listed = {kind: sum(one.count for one in found.operations if one.kind == kind) for kind in WEIGHTS}
        assert listed == found.counts
        assert [one.frame for one in found.operations] == sorted(one.frame for one in found.operations)


def test_ids_do_not_matter():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, prediction = sequences.random_pair(seed)
        renamed = [
            sequences.renamed(labels, table, dict(zip(table, rng.permutation(5000)[: len(table)] + 1, strict=True)))
            for labels, table in (truth, prediction)
        ]
        assert counted(*renamed) == counted(truth, prediction)
