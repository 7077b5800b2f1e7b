import numpy as np
import pytest

from cellseg.detections import Detections, draw, drawn, join, nothing, paste, probability
from pipelines.errors import InputError


def detections(boxes, scores, *, shape=(20, 24), masks=None, classes=None, side=4):
    number = len(boxes)
    masks = np.ones((number, side, side)) if masks is None else np.asarray(masks)
    classes = np.ones(number) if classes is None else classes
    return Detections(
        shape,
        np.asarray(boxes, np.float32).reshape(number, 4),
        np.asarray(scores, np.float32),
        np.asarray(classes, np.int32),
        masks.astype(np.float32),
    )


def test_a_mask_is_pasted_into_its_box():
    (rows, columns), mask = paste(detections([[2, 3, 6, 11]], [1]), 0)
    assert (rows, columns) == (slice(2, 6), slice(3, 11)) and mask.shape == (4, 8) and (mask == 1).all()


def test_between_the_fields_of_a_mask_it_is_linear():
    # Two fields over four pixels: their middles lie at 1 and 3, the pixels' at 0.5, 1.5, 2.5, 3.5.
    found = detections([[0, 0, 1, 4]], [1], masks=[[[0, 1], [0, 1]]])
    np.testing.assert_allclose(paste(found, 0)[1], [[0, 0.25, 0.75, 1]])


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([0.6, 1.4, 3.4, 3.6], slice(1, 3), slice(1, 4)),  # pixels whose middle lies inside
        ([-3, -2, 2, 2], slice(0, 2), slice(0, 2)),
        ([17, 20, 25, 30], slice(17, 20), slice(20, 24)),
        ([4.6, 2, 5.3, 3], slice(4, 5), slice(2, 3)),  # the middle of no row lies inside
    ],
)
def test_boxes_are_rounded_to_pixels_inside_of_the_image(box, rows, columns):
    window, mask = paste(detections([box], [1]), 0)
    assert window == (rows, columns) and mask.shape == (rows.stop - rows.start, columns.stop - columns.start)


def test_the_better_score_takes_the_pixels_that_two_cells_want():
    found = detections([[0, 0, 4, 6], [0, 4, 4, 12]], [0.9, 0.6])
    labels, chosen = drawn(found)
    expected = np.zeros((20, 24), int)
    expected[0:4, 0:6], expected[0:4, 6:12] = 1, 2
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int32 and chosen.tolist() == [0, 1]


def test_numbers_follow_the_scan_and_tell_which_detection_it_was():
    found = detections([[10, 0, 14, 4], [2, 8, 6, 12], [5, 0, 8, 4]], [0.9, 0.8, 0.7])
    labels, chosen = drawn(found)
    assert [labels[3, 9], labels[6, 1], labels[11, 1]] == [1, 2, 3] and chosen.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("options", "areas"),
    [
        ({"threshold": 0.65}, [16]),
        ({"threshold": 0.5}, [16, 16, 12]),  # the third keeps 12 of its 24 px, just the half
        ({"threshold": 0.5, "min_visible": 0.51}, [16, 16]),
        ({"threshold": 0.5, "min_visible": 0, "min_size": 13}, [16, 16]),
        ({"threshold": 0.5, "border": "drop"}, [16]),
        ({"threshold": 0.5, "margin": 3}, [16, 16, 12]),
        ({"threshold": 0.5, "margin": 4}, [16]),
    ],
)
def test_which_cells_are_drawn(options, areas):
    found = detections([[0, 0, 4, 4], [8, 8, 12, 12], [2, 2, 6, 8]], [0.9, 0.6, 0.5])
    found.boxes[2] = [0, 1, 4, 7]  # covers three columns of the first
    labels = draw(found, **options)
    assert sorted(np.bincount(labels.ravel())[1:].tolist(), reverse=True) == areas


def test_the_mask_threshold_says_which_pixels():
    mask = [[0.2, 0.4], [0.6, 0.8]]
    found = detections([[0, 0, 2, 2]], [0.9], masks=[mask])
    counts = [np.count_nonzero(draw(found, mask_threshold=threshold)) for threshold in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert counts == [4, 3, 2, 1, 0]


def test_what_is_left_of_a_cell_is_its_largest_piece():
    # The best one lies across the other: 8 columns of it are left to the right, 2 to the left.
    found = detections([[0, 2, 6, 6], [1, 0, 4, 14]], [0.9, 0.8], side=2)
    labels = draw(found)
    assert (labels[1:4, 6:14] == 2).all() and not labels[1:4, 0:2].any()


def test_nothing_found_is_no_cell():
    labels, chosen = drawn(nothing((5, 7)))
    assert labels.shape == (5, 7) and not labels.any() and len(chosen) == 0
    assert probability(nothing((5, 7))).shape == (5, 7)


def test_cells_of_one_pixel():
    labels = draw(detections([[3, 4, 4, 5]], [0.9]))
    assert labels[3, 4] == 1 and np.count_nonzero(labels) == 1


def test_the_probability_is_the_largest_score_times_mask():
    found = detections([[0, 0, 4, 4], [0, 2, 4, 6]], [0.8, 0.6])
    row = probability(found)[0]
    np.testing.assert_allclose(row[:7], [0.8, 0.8, 0.8, 0.8, 0.6, 0.6, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_threshold": 1.5}, r"instances.mask_threshold must be in \[0, 1\], got 1.5"),
        ({"min_visible": -1}, r"instances.min_visible must be in \[0, 1\], got -1"),
        ({"min_size": -2}, "min_size must be >= 0 pixels, got -2"),
    ],
)
def test_options_outside_their_range(options, message):
    with pytest.raises(InputError, match=message):
        draw(nothing((4, 4)), **options)


LEFT, RIGHT = (0, 0, 20, 16), (0, 8, 20, 24)  # two tiles that share columns 8 to 16


def test_a_cell_that_two_tiles_see_is_one():
    first = detections([[2, 9, 8, 15]], [0.7])
    second = detections([[2, 9, 8, 14.5]], [0.8])
    found = join([first, second], [LEFT, RIGHT])
    assert len(found) == 1 and found.scores[0] == np.float32(0.8)


def test_the_whole_cell_wins_over_the_part_that_a_tile_cuts_off():
    first = detections([[2, 10, 8, 16]], [0.9])  # ends at the edge of its tile
    second = detections([[2, 10, 8, 20]], [0.6])
    found = join([first, second], [LEFT, RIGHT])
    np.testing.assert_array_equal(found.boxes, [[2, 10, 8, 20]])


def test_neighbours_and_cells_of_one_tile_stay_and_are_ranked():
    first = detections([[2, 2, 8, 8], [2, 3, 8, 9]], [0.9, 0.5])  # of one tile: its own affair
    second = detections([[2, 14, 8, 22], [12, 14, 18, 22]], [0.8, 0.95], classes=[2, 1])
    found = join([first, second], [LEFT, RIGHT])
    np.testing.assert_allclose(found.scores, [0.95, 0.9, 0.8, 0.5])
    assert found.classes.tolist() == [1, 1, 2, 1]


def test_moved_and_resized():
    found = detections([[2, 4, 6, 8]], [0.9], shape=(10, 20)).moved(3, 5, (40, 40))
    np.testing.assert_array_equal(found.boxes, [[5, 9, 9, 13]])
    np.testing.assert_array_equal(found.resized((20, 80)).boxes, [[2.5, 18, 4.5, 26]])
    assert found.shape == (40, 40)
