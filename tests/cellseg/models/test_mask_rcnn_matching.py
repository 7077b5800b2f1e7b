import numpy as np
import pytest

from cellseg.models.mask_rcnn import losses
from cellseg.models.mask_rcnn.matching import ignored_share, match_anchors, match_regions, sample


def row(*boxes):
    """Boxes one pixel high, from column to column."""
    return np.asarray([[0, left, 1, right] for left, right in boxes], np.float32)


def lists(*arrays):
    return [np.asarray(array).tolist() for array in arrays]


def test_anchors_by_hand():
    anchors = row((0, 10), (2, 12), (5, 15), (30, 40), (100, 110), (101, 111))
    truth = row((1, 11), (107, 117), (0, 10))[None]  # the third row is empty, and would match the first anchor exactly
    present = np.asarray([[True, True, False]])
    foreground, background, objects = match_anchors(anchors, truth, present, np.zeros((1, 6), np.float32))
    # IoU with the first object: 9/11, 9/11, 6/14, 0; with the second: 3/17 and 4/16.
    # The fifth is background (0.18 < 0.3); the sixth (0.25) is the second object's best, and so foreground.
    assert lists(foreground, background) == [
        [[True, True, False, False, False, True]],
        [[False, False, False, True, True, False]],
    ]
    assert np.asarray(objects)[0][[0, 1, 5]].tolist() == [0, 0, 1]


def test_an_objects_best_anchor_keeps_the_object_that_suits_it_best():
    anchors = row((0, 10))
    truth = row((0, 8), (6, 20))[None]  # IoU 0.8 and 4/20
    _, background, objects = match_anchors(anchors, truth, np.ones((1, 2), bool), np.zeros((1, 1), np.float32))
    assert lists(background, objects) == [[[False]], [[0]]]


def test_without_objects_all_anchors_are_background():
    anchors = row((0, 10), (2, 12))
    nothing = np.zeros((1, 3, 4), np.float32)
    found = match_anchors(anchors, nothing, np.zeros((1, 3), bool), np.zeros((1, 2), np.float32))
    assert lists(*found[:2]) == [[[False, False]], [[True, True]]]


def test_what_lies_mostly_on_ignored_pixels_is_no_background():
    anchors = row((0, 10), (20, 30), (40, 50))
    truth, present = row((0, 10))[None], np.ones((1, 1), bool)
    ignored = np.asarray([[1.0, 0.5, 0.6]], np.float32)
    foreground, background, _ = match_anchors(anchors, truth, present, ignored)
    assert lists(foreground, background) == [[[True, False, False]], [[False, True, False]]]
    foreground, background, _ = match_regions(anchors[None], np.ones((1, 3), bool), truth, present, ignored)
    assert lists(foreground, background) == [[[True, False, False]], [[False, True, False]]]


def test_regions_by_hand():
    regions = row((0, 10), (3, 13), (4, 14), (0, 10))[None]
    valid = np.asarray([[True, True, True, False]])
    truth = row((0, 10), (50, 60))[None]
    found = match_regions(regions, valid, truth, np.ones((1, 2), bool), np.zeros((1, 4), np.float32))
    # IoU 1, 7/13 = 0.54, 6/14 = 0.43; the last is no region.
    assert lists(*found[:2]) == [[[True, True, False, False]], [[False, False, True, False]]]


def test_ignored_share_is_that_of_the_pixels():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (2, 9, 7)).astype(np.int32)
    boxes = np.asarray([[[0, 0, 9, 7], [2, 3, 5, 4], [-5, -5, 2, 2], [20, 20, 30, 30]]] * 2, np.float32)
    share = np.asarray(ignored_share(labels, boxes))
    for image in range(2):
        parts = (labels[image], labels[image, 2:5, 3:4], labels[image, :2, :2])
        np.testing.assert_allclose(share[image], [*((part < 0).mean() for part in parts), 0], atol=1e-6)


@pytest.mark.parametrize(
    ("foreground", "background", "wanted"),
    [
        (10, 90, (4, 12)),  # a quarter
        (2, 90, (2, 14)),  # missing foreground is made up
        (10, 5, (4, 5)),  # and nothing else is
        (0, 90, (0, 16)),
        (0, 0, (0, 0)),
    ],
)
def test_samples_are_counted(foreground, background, wanted):
    kind = np.zeros((1, 100), int)
    kind[0, :foreground], kind[0, foreground : foreground + background] = 1, 2
    kind = np.random.default_rng(0).permuted(kind, axis=1)
    objects = np.arange(100, dtype=np.int32)[None] + 1000
    chosen = sample(kind == 1, kind == 2, objects, number=16, most_foreground=4, seed=1)
    places, first, second = (np.asarray(chosen[place])[0] for place in range(3))
    assert places.shape == (16,) and len(set(places)) == 16
    assert (first.sum(), second.sum()) == wanted
    assert first[: wanted[0]].all()  # foreground comes first
    assert (kind[0, places[first]] == 1).all() and (kind[0, places[second]] == 2).all()
    assert (np.asarray(chosen.objects)[0] == places + 1000).all()


def test_samples_follow_the_seed():
    some = np.random.default_rng(0).random((2, 200)) < 0.5
    objects = np.zeros((2, 200), np.int32)

    def places(seed):
        return np.asarray(sample(some, ~some, objects, number=20, most_foreground=10, seed=seed).places)

    assert (places(1) == places(1)).all()
    assert (places(1) != places(2)).any() and (places(1)[0] != places(1)[1]).any()


def test_every_box_is_drawn_now_and_then():
    some = np.arange(30)[None] < 15
    objects = np.zeros((1, 30), np.int32)
    drawn = np.zeros(30)
    for seed in range(60):
        chosen = sample(some, ~some, objects, number=10, most_foreground=5, seed=seed)
        drawn[np.asarray(chosen.places)[0]] += 1
    assert drawn.sum() == 600 and drawn.min() > 5  # 20 on average


def test_smooth_l1_by_hand():
    # Below 1/9: 4.5 e**2; above: e - 1/18.
    error = np.asarray([[0.1, -0.1, 1, -2]], np.float32)
    wanted = 2 * 4.5 * 0.01 + (1 - 1 / 18) + (2 - 1 / 18)
    np.testing.assert_allclose(losses.smooth_l1(np.zeros((1, 4), np.float32), error), [wanted], rtol=1e-5)


def test_losses_by_hand():
    foreground, background = np.asarray([[True, False, False]]), np.asarray([[False, True, False]])
    scores = np.asarray([[2.0, -1.0, 50.0]], np.float32)
    wanted = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    np.testing.assert_allclose(losses.score_loss(foreground, background, scores), wanted, rtol=1e-5)

    codes = np.asarray([[[1, 0, 0, 0], [9, 9, 9, 9], [9, 9, 9, 9]]], np.float32)
    counted = foreground | background
    np.testing.assert_allclose(losses.box_loss(0 * codes, codes, foreground, counted), (1 - 1 / 18) / 2, rtol=1e-5)

    logits = np.zeros((1, 3, 4), np.float32)  # four classes alike
    classes = np.asarray([[3, 0, 0]], np.int32)
    np.testing.assert_allclose(losses.class_loss(classes, counted, logits), np.log(4), rtol=1e-5)

    masks = np.zeros((1, 3, 2, 2), np.float32)
    masks[0, 1:] = 40
    share = np.full((1, 3, 2, 2), 0.5, np.float32)
    np.testing.assert_allclose(losses.mask_loss(share, masks, foreground), np.log(2), rtol=1e-5)


def test_losses_without_rows_are_zero():
    nothing = np.zeros((1, 2), bool)
    codes, logits = np.full((1, 2, 4), np.inf, np.float32), np.ones((1, 2, 3), np.float32)
    assert float(losses.score_loss(nothing, nothing, logits[..., 0])) == 0
    assert float(losses.box_loss(codes, logits[..., :1], nothing, nothing)) == 0
    assert float(losses.class_loss(np.zeros((1, 2), np.int32), nothing, logits)) == 0
    assert float(losses.mask_loss(logits[..., None], logits[..., None], nothing)) == 0
