import math
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg import metrics
from cellseg.metrics.ctc import aogm, aogm_cost, det, lnk, op_csb, op_ctb, sequence_seg, tra
from cellseg.metrics.tracking import Frame, compare_tracking, track_frames
from pipelines.errors import InputError
from tests import cells, oracles, sequences
from tests.sequences import sequence

LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 3))


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        ("missed_cell", (1 + 0) / 2),
        # The merged cell holds all of each: 12 shared of 24, twice.
        ("merged_pair", (12 / 24 + 12 / 24) / 2),
        # Each half holds 12 of 24 pixels, which is not more than half.
        ("split_cell", 0),
        ("shifted_cell", 12 / 20),
        # False positives cost nothing.
        ("extra_cell", 1),
    ],
)
def test_seg_by_hand(scene, expected):
    assert metrics.seg(*cells.PAIRS[scene]()) == pytest.approx(expected, abs=1e-12)


def test_one_pixel_more_than_half_is_enough():
    truth, prediction = cells.split_cell()
    prediction[4, 4] = 1
    # 13 of 24 pixels, all of them truth.
    assert metrics.seg(truth, prediction) == pytest.approx(13 / 24, abs=1e-12)


def test_pools_objects_not_images():
    truths, predictions = zip(cells.shifted_cell(), cells.missed_cell(), strict=True)
    # Objects 0.6, 1 and 0; images would give (0.6 + 0.5) / 2.
    assert metrics.score(truths, predictions, "seg")["seg"] == pytest.approx(1.6 / 3, abs=1e-12)


def test_truth_empty_is_undefined():
    assert math.isnan(metrics.seg(cells.empty(), cells.one_cell()))
    assert math.isnan(metrics.seg(cells.empty(), cells.empty()))


def test_prediction_empty_is_zero():
    assert metrics.seg(cells.one_cell(), cells.empty()) == 0


@settings(max_examples=60, derandomize=True, deadline=None)
@given(LABELS, LABELS)
def test_seg_equals_sets(labels_true, labels_pred):
    values = oracles.seg(labels_true, labels_pred)
    expected = float(sum(values)) / len(values) if values else math.nan
    assert metrics.seg(labels_true, labels_pred) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def compare(truth, prediction, **options):
    return compare_tracking(truth[0], truth[1], prediction[0], prediction[1], **options)


def test_a_missed_cell():
    # Two cells in three frames, one of them missed once: 6 vertices, 4 links, of which 2 are gone.
    prediction = sequence(["1110222", "1110000", "1110333"], [(1, 0, 2, 0), (2, 0, 0, 0), (3, 2, 2, 0)])
    found = compare(sequences.two_cells(), prediction)
    assert det(found) == pytest.approx(1 - 10 / 60, abs=1e-12)
    assert tra(found) == pytest.approx(1 - (10 + 2 * 1.5) / (60 + 4 * 1.5), abs=1e-12)
    assert lnk(found) == pytest.approx(1 - 3 / 6, abs=1e-12)
    assert sequence_seg(found) == pytest.approx(5 / 6, abs=1e-12)
    assert op_csb(found) == pytest.approx((5 / 6 + 1 - 10 / 60) / 2, abs=1e-12)
    assert op_ctb(found) == pytest.approx((5 / 6 + 1 - 13 / 66) / 2, abs=1e-12)
    assert aogm_cost(found) == 13


@pytest.mark.parametrize("scene", ["two_cells", "division", "late_division", "gap"])
def test_identity_is_perfect(scene):
    same = getattr(sequences, scene)()
    found = compare(same, same)
    assert [measure(found) for measure in (det, tra, lnk, op_csb, op_ctb, aogm_cost)] == [1, 1, 1, 1, 1, 0]


def test_no_worse_than_nothing():
    # One true cell, 20 spurious: AOGM-D is 10 + 20, and making the truth from nothing costs 10.
    truth = sequence(["100000000000000000000"], [(1, 0, 0, 0)])
    labels = [np.arange(21, dtype=np.int32)[None]]
    found = compare(truth, (labels, {label: sequences.Track(label, 0, 0, 0) for label in range(1, 21)}))
    assert (det(found), tra(found)) == (0, 0)
    assert aogm_cost(found) == 30


def test_empty_truth_is_undefined_whatever_the_prediction():
    for prediction in (sequences.two_cells(), sequences.empty()):
        found = compare(sequences.empty(), prediction)
        assert all(math.isnan(measure(found)) for measure in (det, tra, lnk, op_csb, op_ctb))
    assert aogm_cost(found) == 0
    assert aogm_cost(compare(sequences.empty(), sequences.two_cells())) == 6


def test_empty_prediction_sequence_is_zero():
    found = compare(sequences.two_cells(), sequences.empty())
    assert [measure(found) for measure in (det, tra, lnk, op_csb, op_ctb)] == [0] * 5
    assert aogm_cost(found) == 60 + 6


def test_truth_without_links_has_no_linking():
    truth = sequence(["1110222"], [(1, 0, 0, 0), (2, 0, 0, 0)])
    found = compare(truth, truth)
    assert math.isnan(lnk(found))
    assert (det(found), tra(found)) == (1, 1)


def test_seg_of_a_sequence_looks_at_outlines_alone():
    truth = sequences.two_cells()
    outline = sequence(["1111000"], [])[0][0]
    found = compare(truth, truth, outlines=[None, outline, None])
    # One outline of 4 pixels, 3 of them predicted; its id need not be that of the marker.
    assert sequence_seg(found) == 3 / 4
    assert op_csb(found) == (3 / 4 + 1) / 2


def test_without_annotated_frame_seg_is_undefined():
    truth = sequences.two_cells()
    found = compare(truth, truth, outlines=[None] * 3)
    assert math.isnan(sequence_seg(found)) and math.isnan(op_ctb(found))


def test_detection_needs_no_table():
    labels, table = sequences.two_cells()
    found = compare((labels, table), (labels, None))
    assert (det(found), op_csb(found)) == (1, 1)
    for measure in (tra, lnk, op_ctb, aogm):
        with pytest.raises(InputError, match=r"prediction has no table of tracks \(res_track.txt"):
            measure(found)


def test_ids_of_a_sequence_do_not_matter():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pair = sequences.random_pair(seed)
        renamed = [
            sequences.renamed(labels, table, dict(zip(table, rng.permutation(5000)[: len(table)] + 1, strict=True)))
            for labels, table in pair
        ]
        for measure in (det, tra, lnk, op_csb, op_ctb):
            assert measure(compare(*renamed)) == pytest.approx(measure(compare(*pair)), abs=1e-12)


def test_volumes_are_compared_like_images():
    labels, table = sequences.two_cells()
    volumes = [np.stack([one, one]) for one in labels]
    found = compare((volumes, table), (volumes, table))
    assert (det(found), sequence_seg(found)) == (1, 1)


def test_frames_are_dropped_when_they_have_been_counted():
    labels, _ = sequences.two_cells()
    made, most = [], 0

    def watched():
        nonlocal most
        for one in labels * 10:
            held = one.copy()
            made.append(weakref.ref(held))
            most = max(most, sum(reference() is not None for reference in made))
            yield held

    assert det(compare_tracking(watched(), None, watched(), None)) == 1
    # Of 60 frames: two, and those of the last step until their names are given to the next.
    assert len(made) == 60 and most <= 6


@pytest.mark.parametrize(
    ("frames_true", "frames_pred", "outlines", "message"),
    [
        (3, 2, None, "labels_pred has 2 frames, and another sequence has more"),
        (1, 2, None, "labels_true has 1 frames"),
        (3, 3, 1, "outlines has 1 frames"),
    ],
)
def test_sequences_of_different_length(frames_true, frames_pred, outlines, message):
    labels, _ = sequences.two_cells()
    with pytest.raises(InputError, match=message):
        compare_tracking(
            labels[:frames_true], None, labels[:frames_pred], None, outlines=outlines and labels[:outlines]
        )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 0, 2, 0)], "labels_pred and tracks_pred disagree: the image holds 2, which .* in frame 0"),
        ([(1, 0, 2, 0), (2, 0, 2, 0), (3, 1, 1, 0)], "lets 3 live in frame 1, but the image does not hold them"),
        (
            [(1, 0, 2, 0), (2, 0, 5, 0)],
            "tracks_pred: track 2 lives from frame 0 to 5, but there is no image of frames 3",
        ),
        ([(1, 0, 2, 0), (2, 0, 2, 7)], "parent of track 2 is 7, but the table has no such track"),
    ],
)
def test_labels_that_disagree_with_their_table(rows, message):
    labels, table = sequences.two_cells()
    with pytest.raises(InputError, match=message):
        compare((labels, table), (labels, {row[0]: sequences.Track(*row) for row in rows}))


def test_frames_of_different_size():
    labels, table = sequences.two_cells()
    with pytest.raises(InputError, match=r"labels_true has shape \(1, 7\), labels_pred \(1, 6\)"):
        compare((labels, table), ([one[:, :6] for one in labels], table))


def test_a_frame_may_have_outlines_alone():
    labels, _ = sequences.two_cells()
    found = track_frames([Frame(0, labels[0], None, labels[0])], None, None)
    assert (sequence_seg(found), found.num_frames, found.frames) == (1, 1, ())
    assert math.isnan(det(found))
