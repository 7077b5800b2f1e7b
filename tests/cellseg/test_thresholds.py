import numpy as np
import pytest

from cellseg.thresholds import ThresholdCurve


def dice_at(masks, probabilities, threshold):
    hits = sum(int((m & (p >= threshold)).sum()) for m, p in zip(masks, probabilities, strict=True))
    total = sum(int(m.sum() + (p >= threshold).sum()) for m, p in zip(masks, probabilities, strict=True))
    return 2 * hits / total


def scene():
    rng = np.random.default_rng(0)
    masks = [rng.random((20, 30)) > 0.8 for _ in range(3)]
    # Rounded to thousandths, so that some probabilities lie exactly on a threshold.
    probabilities = [np.round(np.clip(m * 0.3 + rng.random(m.shape) * 0.6, 0, 1), 3).astype(np.float32) for m in masks]
    return masks, probabilities


def test_the_curve_is_exact_at_every_threshold():
    masks, probabilities = scene()
    curve = ThresholdCurve()
    for mask, probability in zip(masks, probabilities, strict=True):
        curve.add(mask, probability)
    for threshold, dice, ratio in zip(curve.thresholds, curve.dice, curve.foreground_ratio, strict=True):
        exact = [p.astype(np.float64) for p in probabilities]
        assert dice == pytest.approx(dice_at(masks, exact, threshold))
        drawn = sum(int((p >= threshold).sum()) for p in exact)
        assert ratio == pytest.approx(drawn / sum(int(m.sum()) for m in masks))


def test_the_best_threshold():
    masks, probabilities = scene()
    curve = ThresholdCurve()
    for mask, probability in zip(masks, probabilities, strict=True):
        curve.add(mask, probability)
    best = curve.best()
    assert best.value >= max(curve.dice) - 0.005 and best.measure == "dice" and best.split == "validation"
    assert best.value >= dice_at(masks, probabilities, 0.5)


def test_among_equals_the_one_nearest_to_a_half():
    curve = ThresholdCurve()
    curve.add(np.array([[True, False]]), np.array([[0.9, 0.1]], np.float32))
    assert curve.best().threshold == 0.5 and curve.best().value == 1


def test_among_thresholds_of_about_equal_dice_the_area_decides():
    # 1000 cell pixels at 0.9 and 100 of the rim at 0.6, of which 50 are cell. Dice: with the rim 2 * 1050 / 2150 =
    # 0.97674 at a ratio of 1100 / 1050, without it 2 * 1000 / 2050 = 0.97561 at 1000 / 1050. Both are within 0.005.
    truth = np.zeros(2000, bool)
    truth[:1050] = True
    probability = np.zeros(2000, np.float32)
    probability[:1000], probability[1000:1100] = 0.9, 0.6
    curve = ThresholdCurve()
    curve.add(truth[None], probability[None])
    assert curve.best().threshold == 0.5  # 1.0476 is as far from 1 as 0.9524: the one nearer to a half
    extra = ThresholdCurve()
    probability[1100:1104] = 0.6
    extra.add(truth[None], probability[None])
    assert extra.best().threshold > 0.6  # now the rim would draw 1104 of 1050: too much by more than it misses


def test_ignored_pixels_change_nothing():
    masks, probabilities = scene()
    ignore = np.zeros(masks[0].shape, bool)
    ignore[:5] = True
    one, other = ThresholdCurve(), ThresholdCurve()
    one.add(masks[0], probabilities[0], ignore)
    changed = probabilities[0].copy()
    changed[:5] = 1
    other.add(masks[0], changed, ignore)
    np.testing.assert_array_equal(one.dice, other.dice)


def test_without_foreground_there_is_no_best():
    curve = ThresholdCurve()
    curve.add(np.zeros((4, 4), bool), np.full((4, 4), 0.2, np.float32))
    assert curve.best().threshold == 0.5 and curve.best().value is None
    assert np.isnan(curve.foreground_ratio).all()
    assert curve.as_dict()["foreground_ratio"][0] is None


def test_shares_of_the_picture():
    curve = ThresholdCurve()
    curve.add(np.array([[True, False, False, False]]), np.array([[0.9, 0.9, 0.1, 0.1]], np.float32))
    assert curve.foreground_fraction == 0.25
    assert curve.drawn_fraction[99] == 0.5  # threshold 0.5
