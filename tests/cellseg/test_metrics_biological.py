import math

import numpy as np
import pytest

from cellseg.metrics.biological import bc, cca, ct, division_counts, division_f1, tf, tf_ctc
from cellseg.metrics.tracking import compare_tracking
from pipelines.errors import InputError
from tests import oracles, sequences
from tests.sequences import sequence

ALL = {"ct": ct, "tf": tf, "tf_ctc": tf_ctc, "bc": bc, "cca": cca}


def compare(truth, prediction):
    return compare_tracking(truth[0], truth[1], prediction[0], prediction[1])


def cycles(*lengths):
    """A cell that divides again and again: one child of each division ends there, the other lives `length` frames."""
    table, begin, parent = [(1, 0, 0, 0)], 1, 1
    frames = ["10"]
    for length in lengths:
        first, second = parent + 1 + (parent > 1), parent + 2 + (parent > 1)
        table += [(first, begin, begin + length - 1, parent), (second, begin, begin, parent)]
        frames += [f"{first}{second}"] + [f"{first}0"] * (length - 1)
        begin, parent = begin + length, first
    last = max(row[0] for row in table)
    table += [(last + 1, begin, begin, parent), (last + 2, begin, begin, parent)]
    return sequence([*frames, f"{last + 1}{last + 2}"], table)


@pytest.mark.parametrize("scene", ["two_cells", "division", "late_division", "gap"])
def test_identity_is_perfect(scene):
    same = getattr(sequences, scene)()
    found = compare(same, same)
    assert (ct(found), tf(found), tf_ctc(found)) == (1, 1, 1)


def test_identity_of_divisions_and_cycles_is_perfect():
    same = cycles(2, 1)
    assert (bc(compare(same, same)), cca(compare(same, same))) == (1, 1)
    assert division_counts(compare(same, same)) == (3, 0, 0)


def test_complete_tracks():
    # 2 is broken: one of two true tracks is complete, of two true and three predicted ones.
    prediction = sequence(["1110222"] * 2 + ["1110333"], [(1, 0, 2, 0), (2, 0, 1, 0), (3, 2, 2, 2)])
    assert ct(compare(sequences.two_cells(), prediction)) == 2 * 1 / (2 + 3)


def test_a_track_that_begins_early_is_not_complete():
    truth = sequence(["0000", "1110"], [(1, 1, 1, 0)])
    prediction = sequence(["0001", "1110"], [(1, 0, 1, 0)])
    assert ct(compare(truth, prediction)) == 0
    assert tf(compare(truth, prediction)) == 1


def test_track_fractions():
    # 1 is followed in frames 0 and 2 alone, 1 frame of 3 at a stretch; 2 in frames 1 and 2; 3 never, and is left out.
    truth = sequence(["111222333"] * 3, [(1, 0, 2, 0), (2, 0, 2, 0), (3, 0, 2, 0)])
    prediction = sequence(
        ["111444000", "000222000", "555222000"],
        [(1, 0, 0, 0), (4, 0, 0, 0), (2, 1, 2, 0), (5, 2, 2, 0)],
    )
    assert tf(compare(truth, prediction)) == pytest.approx((1 / 3 + 2 / 3) / 2, abs=1e-12)


def test_a_merged_cell_follows_nobody():
    prediction = sequence(["1110222", "1111111", "1110333"], [(1, 0, 2, 0), (2, 0, 0, 0), (3, 2, 2, 0)])
    found = compare(sequences.two_cells(), prediction)
    assert ct(found) == 0
    assert tf(found) == pytest.approx(1 / 3, abs=1e-12)


def test_the_challenges_track_fractions_depend_on_ids():
    # Predicted 1 follows true 1 in its one frame, and then true 2 in one frame of two.
    prediction = sequence(["1100", "0011", "0022"], [(1, 0, 1, 0), (2, 2, 2, 0)])
    for names, expected in (((1, 2), (1 + 1 / 2) / 2), ((2, 1), (1 + 1 / 2) / 2)):
        table = [(names[0], 0, 0, 0), (names[1], 1, 2, 0)]
        truth = sequence([f"{names[0] * 11}00", f"00{names[1] * 11}", f"00{names[1] * 11}"], table)
        assert tf(compare(truth, prediction)) == tf_ctc(compare(truth, prediction)) == expected
    # Without predicted 2, the fraction 1/2 of the higher id is passed over.
    prediction = sequence(["1100", "0011", "0000"], [(1, 0, 1, 0)])
    for names, expected in (((1, 2), 1), ((2, 1), (1 + 1 / 2) / 2)):
        table = [(names[0], 0, 0, 0), (names[1], 1, 2, 0)]
        truth = sequence([f"{names[0] * 11}00", f"00{names[1] * 11}", f"00{names[1] * 11}"], table)
        assert tf(compare(truth, prediction)) == (1 + 1 / 2) / 2
        assert tf_ctc(compare(truth, prediction)) == expected


@pytest.mark.parametrize(("tolerance", "expected"), [(0, (0, 1, 1)), (1, (1, 0, 0)), (3, (1, 0, 0))])
def test_a_late_division_within_the_tolerance(tolerance, expected):
    found = compare(sequences.division(), sequences.late_division())
    assert division_counts(found, tolerance=tolerance) == expected
    assert bc(found, tolerance=tolerance) == expected[0]


def test_division_f1_is_bc_1():
    found = compare(sequences.division(), sequences.late_division())
    assert division_f1(found) == bc(found, tolerance=1) == 1


def test_division_f1_by_hand():
    # Two true divisions, the left one found; a third of the predicted ones is where a track goes on.
    truth = sequence(
        ["111444777", "220550777"],
        [(1, 0, 0, 0), (4, 0, 0, 0), (7, 0, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1), (5, 1, 1, 4), (6, 1, 1, 4)],
    )
    truth[0][1][0, 2], truth[0][1][0, 5] = 3, 6
    prediction = sequence(
        ["111444777", "223555890"],
        [
            (1, 0, 0, 0),
            (4, 0, 0, 0),
            (7, 0, 0, 0),
            (2, 1, 1, 1),
            (3, 1, 1, 1),
            (5, 1, 1, 4),
            (8, 1, 1, 7),
            (9, 1, 1, 7),
        ],
    )
    found = compare(truth, prediction)
    assert division_counts(found) == (1, 1, 1)
    assert division_f1(found) == 2 / (2 + 1 + 1)


def test_a_division_into_three_is_not_one_into_two():
    truth = sequence(["111111", "223344"], [(1, 0, 0, 0), *[(label, 1, 1, 1) for label in (2, 3, 4)]])
    prediction = sequence(["111111", "223300"], [(1, 0, 0, 0), (2, 1, 1, 1), (3, 1, 1, 1)])
    assert division_counts(compare(truth, truth)) == (1, 0, 0)
    assert division_counts(compare(truth, prediction)) == (0, 1, 1)


def test_children_of_another_parent_do_not_match():
    prediction = sequence(
        ["0000001"] * 2 + ["2220333"] * 2,
        [(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)],
    )
    assert division_counts(compare(sequences.division(), prediction)) == (0, 1, 1)


def test_an_early_division():
    prediction = sequence(["1111110"] + ["2220333"] * 3, [(1, 0, 0, 0), (2, 1, 3, 1), (3, 1, 3, 1)])
    found = compare(sequences.division(), prediction)
    assert division_counts(found, tolerance=0) == (0, 1, 1)
    assert division_counts(found, tolerance=1) == (1, 0, 0)


def test_a_division_is_found_once():
    # Predicted 1 follows the true parent in frame 0, its children those of the truth in frame 2; predicted 4 and its
    # children in frames 1 and 3. py-ctcmetrics 1.3.3 counts 2 found of 1, and an F1 above 1.
    prediction = sequence(
        ["1111110", "4444440", "2220333", "5550666"],
        [(1, 0, 0, 0), (4, 1, 1, 0), (2, 2, 2, 1), (3, 2, 2, 1), (5, 3, 3, 4), (6, 3, 3, 4)],
    )
    found = compare(sequences.division(), prediction)
    assert division_counts(found, tolerance=1) == (1, 1, 0)
    assert bc(found, tolerance=1) == pytest.approx(2 / 3, abs=1e-12)


@pytest.mark.parametrize(("last", "expected"), [("0003222", (0, 1, 1)), ("3330222", (1, 0, 0))])
def test_each_child_needs_its_own(last, expected):
    truth = sequence(
        ["1111110"] * 2 + ["2220000", "2220333"],
        [(1, 0, 1, 0), (2, 2, 3, 1), (3, 3, 3, 1)],
    )
    # Predicted 2 is with true 2 where that begins, and with true 3 where that begins. Only where predicted 3 can have
    # true 2 are there two pairs; py-ctcmetrics 1.3.3 gives predicted 2 to both, and finds no division.
    prediction = sequence(["1111110"] * 2 + ["2220000", last], [(1, 0, 1, 0), (2, 2, 3, 1), (3, 3, 3, 1)])
    assert division_counts(compare(truth, prediction), tolerance=1) == expected


def test_cell_cycles():
    # Lengths end - begin: 1 and 0 against 1 and 3; up to 0: 1/2 against 0, up to 1: 1 against 1/2.
    assert cca(compare_tables(cycles(2, 1), cycles(2, 4))) == 1 - 1 / 2
    assert cca(compare_tables(cycles(3), cycles(1))) == 0


def compare_tables(truth, prediction):
    """CCA looks at the tables alone: a sequence without pixels in common is enough."""
    frames = max(len(truth[0]), len(prediction[0]))
    padded = [list(labels) + [np.zeros((1, 2), np.int32)] * (frames - len(labels)) for labels, _ in (truth, prediction)]
    return compare((padded[0], truth[1]), (padded[1], prediction[1]))


def test_empty_truth():
    found = compare(sequences.empty(), sequences.two_cells())
    assert ct(found) == 0
    assert all(math.isnan(measure(found)) for name, measure in ALL.items() if name != "ct")


def test_both_empty():
    found = compare(sequences.empty(), sequences.empty())
    assert all(math.isnan(measure(found)) for measure in ALL.values())


def test_empty_prediction():
    truth = cycles(2, 1)
    found = compare(truth, sequences.empty(len(truth[0]), 2))
    assert {name: measure(found) for name, measure in ALL.items()} == dict.fromkeys(ALL, 0)


def test_truth_without_division():
    found = compare(sequences.two_cells(), sequences.two_cells())
    assert math.isnan(bc(found)) and math.isnan(cca(found))


def test_equal_the_slow_ones():
    true_positives, cycle_scores = 0, set()
    for seed in range(80):
        (labels_true, table_true), (labels_pred, table_pred) = sequences.random_pair(seed, frames=9)
        found = compare_tracking(labels_true, table_true, labels_pred, table_pred)
        scene = labels_true, table_true, labels_pred, table_pred
        assert ct(found) == pytest.approx(float(oracles.complete_tracks(*scene)), abs=1e-12), seed
        assert tf(found) == pytest.approx(float(oracles.track_fractions(*scene)), abs=1e-12), seed
        for tolerance in range(4):
            counts = division_counts(found, tolerance=tolerance)
            assert counts == oracles.divisions(*scene, tolerance), (seed, tolerance)
            true_positives += counts[0]
        expected = oracles.cell_cycle_accuracy(table_true, table_pred)
        cycle_scores.add(expected)
        assert cca(found) == pytest.approx(math.nan if expected is None else float(expected), abs=1e-12, nan_ok=True)
    assert true_positives > 10 and len(cycle_scores) > 3


def test_ids_do_not_matter():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pair = sequences.random_pair(seed, frames=9)
        renamed = [
            sequences.renamed(labels, table, dict(zip(table, rng.permutation(5000)[: len(table)] + 1, strict=True)))
            for labels, table in pair
        ]
        for measure in (ct, tf, bc, cca):
            expected = measure(compare(*pair))
            assert measure(compare(*renamed)) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_without_a_table():
    labels, table = sequences.two_cells()
    for tables, message in (
        ((table, None), "prediction has no table of tracks"),
        ((None, table), "truth has no table"),
    ):
        found = compare_tracking(labels, tables[0], labels, tables[1])
        for measure in ALL.values():
            with pytest.raises(InputError, match=message):
                measure(found)
