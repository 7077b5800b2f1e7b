import math

import numpy as np
import pytest

from cellseg.models.mask_rcnn.anchors import cell_anchors, level_sizes, pyramid_anchors, strides
from cellseg.models.mask_rcnn.boxes import BOX_WEIGHTS, area, clip, decode, encode, iou
from cellseg.models.mask_rcnn.suppression import sort_by_score, suppress, take_rows
from tests import oracles_boxes as oracles


def crowd(rng, number, *, side=40):
    """Boxes with edges at quarter pixels that overlap much."""
    first = np.round(4 * rng.uniform(0, side, (number, 2))) / 4
    return np.concatenate([first, first + np.round(4 * rng.uniform(4, 20, (number, 2))) / 4], axis=1).astype(np.float32)


def test_iou_by_hand():
    first = np.asarray([[0, 0, 2, 2], [0, 0, 1, 4], [5, 5, 5, 5]], np.float32)
    second = np.asarray([[1, 1, 3, 3], [0, 0, 2, 2], [9, 9, 10, 10], [5, 5, 5, 5]], np.float32)
    wanted = [[1 / 7, 1, 0, 0], [0, 2 / 6, 0, 0], [0, 0, 0, 0]]  # 1 of 4 + 4 - 1; 2 of 4 + 4 - 2
    np.testing.assert_allclose(iou(first, second), wanted, rtol=1e-6)
    np.testing.assert_allclose(iou(first[None], second[None]), [wanted], rtol=1e-6)


def test_iou_is_that_of_counted_cells():
    rng = np.random.default_rng(0)
    first, second = crowd(rng, 6), crowd(rng, 5)
    wanted = [[oracles.iou(one, other) for other in second] for one in first]
    np.testing.assert_allclose(iou(first, second), wanted, atol=1e-6)


def test_area_is_never_negative():
    assert np.asarray(area(np.asarray([[0, 0, 2, 3], [2, 0, 0, 3], [3, 3, 1, 1]], np.float32))).tolist() == [6, 0, 0]


def test_codes_by_hand():
    # Anchor: centre (10, 20), 4 high, 8 wide. Box: centre (12, 18), 8 high, 4 wide.
    anchor, box = np.asarray([[8, 16, 12, 24]], np.float32), np.asarray([[8, 16, 16, 20]], np.float32)
    plain = [2 / 4, -2 / 8, math.log(2), -math.log(2)]
    np.testing.assert_allclose(encode(box, anchor), [plain], rtol=1e-6)
    weighted = [10 * plain[0], 10 * plain[1], 5 * plain[2], 5 * plain[3]]
    np.testing.assert_allclose(encode(box, anchor, weights=BOX_WEIGHTS), [weighted], rtol=1e-6)
    np.testing.assert_allclose(decode(np.asarray([plain], np.float32), anchor), box, rtol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), BOX_WEIGHTS])
def test_decoding_undoes_encoding(weights):
    rng = np.random.default_rng(1)
    boxes, anchors = crowd(rng, 50), crowd(rng, 50)
    back = decode(encode(boxes, anchors, weights=weights), anchors, weights=weights)
    np.testing.assert_allclose(back, boxes, atol=1e-4)


def test_a_side_grows_to_62_times_at_most():
    box = decode(np.asarray([0.0, 0, 1000, 1000], np.float32), np.asarray([0, 0, 16, 32], np.float32))
    height, width = np.asarray(box)[2:] - np.asarray(box)[:2]
    assert height == pytest.approx(1000, rel=1e-5) and width == pytest.approx(2000, rel=1e-5)


def test_clip():
    boxes = np.asarray([[-3, -4, 5, 6], [10, 10, 99, 99]], np.float32)
    assert np.asarray(clip(boxes, height=30, width=20)).tolist() == [[0, 0, 5, 6], [10, 10, 30, 20]]


def test_cell_anchors_by_hand():
    # Area 32**2 each; a ratio of 4 (height / width) is 64 high and 16 wide.
    wanted = [[-8, -32, 8, 32], [-16, -16, 16, 16], [-32, -8, 32, 8]]
    np.testing.assert_allclose(cell_anchors([32], [0.25, 1, 4]), wanted)
    assert cell_anchors([8, 16], [0.5, 1, 2]).shape == (6, 4)


def test_anchors_stand_at_the_middle_of_each_cell_row_by_row():
    levels = pyramid_anchors(8, 12, sizes=[[4], [8]], ratios=[1])
    assert [level.shape for level in levels] == [(6, 4), (2, 4)]
    # Stride 4: 2 rows of 3 cells, centres (2, 2), (2, 6), (2, 10), (6, 2) ...
    assert levels[0].tolist()[:4] == [[0, 0, 4, 4], [0, 4, 4, 8], [0, 8, 4, 12], [4, 0, 8, 4]]
    # Stride 8: one row of two cells, the second reaches over the edge.
    assert levels[1].tolist() == [[0, 0, 8, 8], [0, 8, 8, 16]]


def test_the_anchors_of_a_cell_lie_side_by_side():
    (level,) = pyramid_anchors(4, 8, sizes=[[4]], ratios=[0.25, 1])
    assert level.tolist() == [[1, -2, 3, 6], [0, 0, 4, 4], [1, 2, 3, 10], [0, 4, 4, 8]]


def test_levels():
    assert strides(5) == [4, 8, 16, 32, 64]
    assert level_sizes(96, 32, 5) == [(24, 8), (12, 4), (6, 2), (3, 1), (2, 1)]


def test_suppression_by_hand():
    # Each overlaps the next by 3 of 5 (IoU 0.6), the next but one by 2 of 6: the first drops the second, which would
    # have dropped the third.
    row = np.asarray([[0, left, 1, left + 4] for left in range(4)], np.float32)
    assert np.asarray(suppress(row, np.ones(4, bool), threshold=0.5)).tolist() == [True, False, True, False]
    assert np.asarray(suppress(row, np.ones(4, bool), threshold=0.6)).tolist() == [True] * 4  # not more than 0.6
    first_missing = np.asarray([False, True, True, True])
    assert np.asarray(suppress(row, first_missing, threshold=0.5)).tolist() == [False, True, False, True]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_suppression_is_that_of_a_greedy_loop_image_by_image(threshold):
    rng = np.random.default_rng(2)
    boxes = np.stack([crowd(rng, 30), crowd(rng, 30, side=10)])
    valid = rng.random((2, 30)) < 0.8
    wanted = [oracles.greedy(*of, threshold) for of in zip(boxes, valid, strict=True)]
    assert np.asarray(suppress(boxes, valid, threshold=threshold)).tolist() == wanted


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_suppression_is_that_of_onnx_runtime(threshold):
    rng = np.random.default_rng(3)
    boxes, scores = crowd(rng, 500, side=30), rng.random(500).astype(np.float32)
    scores_sorted, places = sort_by_score(scores[None], np.arange(500)[None], number=500)
    sorted_boxes = take_rows(boxes[None], places)
    kept = np.asarray(suppress(sorted_boxes, np.ones((1, 500), bool), threshold=threshold))[0]
    wanted = oracles.onnx_suppression(boxes, scores, threshold=threshold)
    assert np.asarray(places)[0][kept].tolist() == wanted.tolist()
    assert 20 < kept.sum() < 450
    np.testing.assert_array_equal(np.asarray(scores_sorted)[0], np.sort(scores)[::-1])


def test_suppression_ends_for_the_longest_chain():
    row = np.asarray([[0, left, 1, left + 4] for left in range(100)], np.float32)
    kept = np.asarray(suppress(row, np.ones(100, bool), threshold=0.5))
    assert kept.tolist() == [True, False] * 50


def test_rows_are_taken_image_by_image():
    array = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    taken = take_rows(array, np.asarray([[2, 0], [1, 1]], np.int32))
    assert np.asarray(taken).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
