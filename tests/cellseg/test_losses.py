import functools

import numpy as np
import pytest
from keras import ops

from cellseg.losses import (
    BCE,
    CategoricalCE,
    Dice,
    FocalTversky,
    Sum,
    TverskyBCE,
    binary_cross_entropy,
    categorical_cross_entropy,
    dice_coefficient,
    tversky_index,
)
from cellseg.losses import LOSSES as ALL
from pipelines.errors import InputError

# What takes one channel and needs no keyword; with a sum of the usual two terms.
LOSSES = {name: loss for name, loss in ALL.items() if name not in ("sum", "categorical_ce")}
LOSSES["sum"] = functools.partial(Sum, terms=[{"name": "dice"}, {"name": "bce", "weight": 0.5}])


def column(*values):
    """A batch of one image of n x 1 pixels."""
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def logits_of(probability):
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(probability / (1 - probability)).astype(np.float32)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((3, 8, 8, 1)) > 0.7).astype(np.float32), rng.normal(0, 2, (3, 8, 8, 1)).astype(np.float32)


def test_tversky_index_by_hand():
    truth, probability = column(1, 1, 0, 0), column(0.8, 0.5, 0.4, 0)
    # TP = 1.3, FP = 0.4, FN = 0.7: 1.3 / (1.3 + 0.3 * 0.4 + 0.7 * 0.7) = 1.3 / 1.91
    assert float(tversky_index(truth, probability, alpha=0.3, beta=0.7)[0]) == pytest.approx(1.3 / 1.91, rel=1e-5)


def test_tversky_with_halves_is_dice():
    truth, logits = batch()
    probability = np.asarray(ops.sigmoid(logits))
    np.testing.assert_allclose(
        tversky_index(truth, probability, alpha=0.5, beta=0.5), dice_coefficient(truth, probability), rtol=1e-5
    )


def test_dice_by_hand():
    truth, probability = column(1, 1, 0, 0), column(0.8, 0.5, 0.4, 0)
    # overlap 1.3; sum g + sum p = 2 + 1.7 = 3.7; squares: 2 + 0.64 + 0.25 + 0.16 = 3.05
    assert float(dice_coefficient(truth, probability)[0]) == pytest.approx(2.6 / 3.7, rel=1e-5)
    assert float(dice_coefficient(truth, probability, squared=True)[0]) == pytest.approx(2.6 / 3.05, rel=1e-5)


def test_cross_entropy_by_hand():
    truth, probability = column(1, 0), column(0.8, 0.4)
    # foreground 3 * -ln 0.8 = 0.6694, background 0.5 * -ln 0.6 = 0.2554; mean of two pixels
    value = binary_cross_entropy(truth, logits_of(probability), foreground_weight=3.0, background_weight=0.5)
    assert float(value[0]) == pytest.approx((0.6694 + 0.2554) / 2, abs=1e-4)


def test_losses_are_taken_per_image_and_averaged():
    truth, logits = batch()
    for name, loss in LOSSES.items():
        singles = [float(loss()(truth[n : n + 1], logits[n : n + 1])) for n in range(3)]
        assert float(loss()(truth, logits)) == pytest.approx(np.mean(singles), rel=1e-5), name


@pytest.mark.parametrize("name", LOSSES)
def test_better_answers_cost_less(name):
    truth, _ = batch()
    good, bad = (truth * 8 - 4).astype(np.float32), (truth * 2 - 1).astype(np.float32)
    assert float(LOSSES[name]()(truth, good)) < float(LOSSES[name]()(truth, bad)) < float(LOSSES[name]()(truth, -good))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_no_nan_for_empty_or_full_truth_and_saturated_answers(name, truth, logit):
    import tensorflow as tf

    y_true = np.full((2, 4, 4, 1), truth, np.float32)
    logits = tf.Variable(np.full((2, 4, 4, 1), logit, np.float32))
    with tf.GradientTape() as tape:
        loss = LOSSES[name]()(y_true, logits)
    assert np.isfinite(float(loss)) and np.isfinite(tape.gradient(loss, logits).numpy()).all()


@pytest.mark.parametrize("name", LOSSES)
def test_empty_truth_and_empty_answer_cost_nothing(name):
    assert float(LOSSES[name]()(column(0, 0, 0), column(-50, -50, -50))) == pytest.approx(0, abs=1e-4)


def test_a_saturated_wrong_answer_still_has_a_gradient():
    import tensorflow as tf

    logits = tf.Variable(column(-40.0, -40.0))
    with tf.GradientTape() as tape:
        loss = TverskyBCE()(column(1, 1), logits)
    assert (tape.gradient(loss, logits).numpy() < -0.1).all()


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_of_weight_0_change_nothing(name):
    truth, logits = batch()
    weight_map = np.ones_like(truth)
    weight_map[:, :3] = 0
    other_truth, other_logits = truth.copy(), logits.copy()
    other_truth[:, :3], other_logits[:, :3] = 1 - truth[:, :3], -7 * logits[:, :3]
    loss = LOSSES[name]()
    assert float(loss(truth, logits, weight_map)) == pytest.approx(float(loss(other_truth, other_logits, weight_map)))
    assert float(loss(truth, logits, weight_map)) != pytest.approx(float(loss(truth, logits)), rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_map_of_ones_is_no_map(name):
    truth, logits = batch()
    assert float(LOSSES[name]()(truth, logits, np.ones_like(truth))) == pytest.approx(
        float(LOSSES[name]()(truth, logits)), rel=1e-5
    )


@pytest.mark.parametrize("name", ["bce", "tversky_bce"])
def test_moving_the_weights_moves_the_loss(name):
    truth, logits = batch()
    weight_map = np.ones_like(truth)
    weight_map[:, 0] = 9
    moved = np.roll(weight_map, 4, axis=1)
    loss = LOSSES[name]()
    assert float(loss(truth, logits, weight_map)) != pytest.approx(float(loss(truth, logits, moved)), rel=1e-3)


def test_the_weight_map_reaches_the_pixel_term_alone():
    truth, logits = batch()
    weight_map = np.random.default_rng(1).uniform(0.5, 9, truth.shape).astype(np.float32)
    region = TverskyBCE(pixel_weight=0.0)
    assert float(region(truth, logits, weight_map)) == pytest.approx(float(region(truth, logits)), rel=1e-6)
    assert float(Dice()(truth, logits, weight_map)) == pytest.approx(float(Dice()(truth, logits)), rel=1e-6)


def test_half_precision_logits_are_computed_in_float32():
    truth, logits = batch()
    for dtype in ("float16", "bfloat16"):
        value = TverskyBCE()(truth, ops.cast(logits, dtype))
        assert value.dtype == "float32" and float(value) == pytest.approx(float(TverskyBCE()(truth, logits)), rel=2e-2)


def test_weights_follow_the_measured_fraction_unless_set():
    assert TverskyBCE().resolved(0.04)["foreground_weight"] > 3
    assert TverskyBCE().resolved(0.78)["background_weight"] > TverskyBCE().resolved(0.78)["foreground_weight"]
    resolved = TverskyBCE(beta=0.9, foreground_weight=2.0).resolved(0.04)
    assert resolved["beta"] == 0.9 and resolved["alpha"] == pytest.approx(0.1) and resolved["foreground_weight"] == 2
    assert TverskyBCE(**resolved).resolved(0.5) == resolved
    assert BCE().resolved(0.04) == {"foreground_weight": 1.0, "background_weight": 1.0}


def test_negative_weights_are_refused():
    with pytest.raises(InputError, match=r"loss.beta must be >= 0, got -1"):
        TverskyBCE(beta=-1)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def classes_batch(seed=0, num=3):
    rng = np.random.default_rng(seed)
    return np.eye(num)[rng.integers(0, num, (2, 6, 5))], rng.normal(0, 2, (2, 6, 5, num))


def test_categorical_cross_entropy_by_hand():
    truth = np.array([[[[0, 1, 0]], [[1, 0, 0]]]], np.float32)  # class 1, then background
    logits = np.log(np.array([[[[0.2, 0.5, 0.3]], [[0.8, 0.1, 0.1]]]], np.float32))
    # (2 * -ln 0.5 + 1 * -ln 0.8) / 2 pixels
    value = categorical_cross_entropy(truth, logits, class_weights=[1.0, 2.0, 3.0])
    assert float(value[0]) == pytest.approx((2 * 0.6931 + 0.2231) / 2, abs=1e-4)


def test_two_channels_of_a_softmax_are_one_of_a_sigmoid():
    truth, logits = batch()
    two = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    one_hot = np.concatenate([1 - truth, truth], axis=-1)
    assert float(CategoricalCE()(one_hot, two)) == pytest.approx(float(BCE()(truth, logits)), rel=1e-5)


def test_frequency_weights_make_every_class_count_as_much():
    shares = [0.9, 0.08, 0.02]
    weights = CategoricalCE(class_weights="frequency").resolved(0.1, shares)["class_weights"]
    np.testing.assert_allclose(np.multiply(weights, shares), 1 / 3, rtol=1e-3)
    # ALGORITHMS: 96 % background, two channels; a class that is nowhere weighs nothing.
    assert CategoricalCE(class_weights="frequency").resolved(0.04)["class_weights"] == [0.5208, 12.5]
    assert CategoricalCE(class_weights="frequency").resolved(0.1, [0.5, 0.5, 0.0])["class_weights"] == [1.0, 1.0, 0.0]


def test_regions_of_several_classes_are_the_mean_of_the_classes():
    truth, logits = classes_batch()
    probability = softmax(logits)
    per_class = [
        2 * (truth[..., k] * probability[..., k]).sum((1, 2)) / (truth[..., k] + probability[..., k]).sum((1, 2))
        for k in range(3)
    ]
    assert float(Dice()(truth, logits)) == pytest.approx(1 - np.mean(per_class), rel=1e-5)


def test_pooled_counts_the_batch_as_one_image():
    truth = np.stack([column(1, 1, 0, 0)[0], column(0, 0, 0, 1)[0]])
    probability = np.stack([column(0.8, 0.5, 0.4, 0)[0], column(0.1, 0, 0, 0.9)[0]])
    # overlap 1.3 + 0.9 of 3 true and 2.7 predicted, against the mean of 2.6 / 3.7 and 1.8 / 2
    assert float(dice_coefficient(truth, probability, pooled=True)) == pytest.approx(4.4 / 5.7, rel=1e-5)
    np.testing.assert_allclose(dice_coefficient(truth, probability), [2.6 / 3.7, 0.9], rtol=1e-5)


def test_focal_tversky_by_hand():
    truth, probability = column(1, 1, 0, 0), column(0.8, 0.5, 0.4, 0.000001)
    expected = (1 - 1.3 / 1.91) ** 0.75
    assert float(FocalTversky()(truth, logits_of(probability))) == pytest.approx(expected, rel=1e-4)


def test_a_sum_is_the_weighted_sum_of_its_terms():
    truth, logits = batch()
    loss = Sum(terms=[{"name": "dice"}, {"name": "bce", "weight": 0.25, "foreground_weight": None}])
    stored = loss.resolved(0.1)
    assert stored["terms"][0] == {"name": "dice", "weight": 1.0, "squared": False, "pooled": False}
    assert stored["terms"][1]["foreground_weight"] > 1
    again = Sum(terms=stored["terms"])
    bce = BCE(**{k: v for k, v in stored["terms"][1].items() if k not in ("name", "weight")})
    expected = float(Dice()(truth, logits)) + 0.25 * float(bce(truth, logits))
    assert float(again(truth, logits)) == pytest.approx(expected, rel=1e-6)


def test_a_term_of_a_sum_looks_at_its_channel():
    generator = np.random.default_rng(3)
    truth, logits = generator.random((2, 4, 4, 2)).astype(np.float32), generator.normal(size=(2, 4, 4, 2))
    loss = Sum(terms=[{"name": "dice", "channel": 0}, {"name": "bce", "channel": 1, "weight": 0.5}])
    expected = Dice()(truth[..., :1], logits[..., :1]) + 0.5 * BCE()(truth[..., 1:], logits[..., 1:])
    assert float(loss(truth, logits)) == pytest.approx(float(expected), rel=1e-6)
    stored = loss.resolved(0.5)
    assert [term["channel"] for term in stored["terms"]] == [0, 1]
    assert float(Sum(**stored)(truth, logits)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        (-1, r"loss.terms\[0\].channel must be a whole number >= 0, got -1"),
        (True, "got True"),
        (2, "channel is 2, but the network has 1"),
    ],
)
def test_a_channel_that_is_none_is_an_error(channel, message):
    blank = np.zeros((1, 2, 2, 1), np.float32)
    with pytest.raises(InputError, match=message):
        Sum(terms=[{"name": "bce", "channel": channel}])(blank, blank)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "loss.terms is empty"),
        ([{"name": "dise"}], r"loss.terms\[0\].name: 'dise' is not known. Did you mean 'dice'"),
        ([{"name": "dice", "squard": True}], r"loss.terms\[0\].squard: 'dice' takes no such key"),
        ([{"name": "dice"}, {"name": "bce", "weight": -1}], r"loss.terms\[1\].weight must be a number >= 0, got -1"),
        ([{"name": "sum", "terms": []}], r"loss.terms\[0\].name: 'sum' is not known"),
    ],
)
def test_a_sum_that_cannot_be(terms, message):
    with pytest.raises(InputError, match=message):
        Sum(terms=terms)


def test_the_weight_map_of_a_sum_reaches_the_pixel_wise_term_alone():
    truth, logits = batch()
    weights = np.random.default_rng(1).uniform(0.5, 10, truth.shape).astype(np.float32)
    moved = weights[:, ::-1]
    dice = Sum(terms=[{"name": "dice"}])
    both = Sum(terms=[{"name": "dice"}, {"name": "bce"}])
    assert float(dice(truth, logits, weights)) == pytest.approx(float(dice(truth, logits)), rel=1e-6)
    difference = float(both(truth, logits, weights)) - float(both(truth, logits, moved))
    assert abs(difference) > 1e-3
    expected = float(BCE()(truth, logits, weights)) - float(BCE()(truth, logits, moved))
    assert difference == pytest.approx(expected, rel=1e-3)


def test_channels_that_do_not_fit_are_named():
    one, (truth, logits) = batch(), classes_batch()
    with pytest.raises(InputError, match="takes one output channel, got 3. Use loss categorical_ce"):
        BCE()(truth, logits)
    with pytest.raises(InputError, match="two output channels or more, got 1. Use loss bce"):
        CategoricalCE()(*one)
    with pytest.raises(InputError, match=r"loss.class_weights has 2 entries, but the network has 3 channels"):
        CategoricalCE(class_weights=[1.0, 2.0])(truth, logits)


# Each loss once more, in float64 and from its formula alone.
def oracle(name, truth, logits, weight_map):
    mask = weight_map > 0
    probability = 1 / (1 + np.exp(-logits)) if logits.shape[-1] == 1 else softmax(logits)
    values = []
    for g, p, w, m in zip(truth, probability, weight_map, mask, strict=True):
        entropy = -(g * np.log(p) + (1 - g) * np.log(1 - p)) if g.shape[-1] == 1 else -g * np.log(p)
        pixels = (w * entropy).sum() / m.sum()
        g, p = g * m, p * m
        tp, fp, fn = (g * p).sum((0, 1)), ((1 - g) * p).sum((0, 1)), (g * (m - p)).sum((0, 1))
        regions = {
            "dice": 1 - (2 * tp / (g + p).sum((0, 1))).mean(),
            "tversky": 1 - (tp / (tp + 0.3 * fp + 0.7 * fn)).mean(),
        }
        regions["focal_tversky"] = regions["tversky"] ** 0.75
        values.append(regions.get(name, pixels))
    return np.mean(values)


@pytest.mark.parametrize("name", ["bce", "categorical_ce", "dice", "tversky", "focal_tversky"])
def test_value_and_gradient_are_those_of_the_formula_in_float64(name):
    import tensorflow as tf

    truth, logits = classes_batch(3, 3) if name == "categorical_ce" else (x.astype(float)[:2, :5, :4] for x in batch(3))
    weight_map = np.random.default_rng(4).uniform(0.2, 3, (*truth.shape[:3], 1))
    weight_map[:, 1:3, 1] = 0
    variable = tf.Variable(logits.astype(np.float32))
    with tf.GradientTape() as tape:
        loss = ALL[name]()(truth.astype(np.float32), variable, weight_map.astype(np.float32))
    gradient = tape.gradient(loss, variable).numpy()
    assert float(loss) == pytest.approx(oracle(name, truth, logits, weight_map), rel=1e-5)
    numeric = np.zeros_like(logits)
    step = 1e-6
    for index in np.ndindex(logits.shape):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[index] += sign * step
            ends.append(oracle(name, truth, moved, weight_map))
        numeric[index] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, atol=2e-6)
    assert not gradient[np.broadcast_to(weight_map == 0, gradient.shape)].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["bce", "dice", "tversky", "focal_tversky", "tversky_bce"])
def test_half_precision_is_computed_in_float32(name, dtype):
    truth, _ = batch()
    logits = np.where(truth > 0, -60, 60).astype(np.float32)  # saturated and wrong
    half = LOSSES[name]()(ops.cast(truth, dtype), ops.cast(logits, dtype))
    assert half.dtype == "float32" and float(half) == pytest.approx(float(LOSSES[name]()(truth, logits)), rel=1e-6)
