import numpy as np
import pytest
from keras import ops

from cellseg.losses import BCE, LOSSES, Dice, TverskyBCE, binary_cross_entropy, dice_coefficient, tversky_index
from pipelines.errors import InputError


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
