import keras
import numpy as np
import pytest
from keras import layers

from cellseg.losses import BCE
from cellseg.trainer import Trainer, set_l2


def with_auxiliaries():
    """A network of two auxiliary classifiers, all linear in the image."""
    inputs = layers.Input((None, None, 1))
    heads = [
        layers.Conv2D(1, 1, kernel_initializer=keras.initializers.Constant(start), name=name)(inputs)
        for name, start in (("logits", 1.0), ("auxiliary1_logits", 2.0), ("auxiliary2_logits", -1.0))
    ]
    probability = layers.Activation("sigmoid", name="probability")(heads[0])
    return keras.Model(inputs, [probability, *heads[1:]])


def batch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 8, 1)).astype(np.float32)
    return x, (x > 0.5).astype(np.float32), np.ones_like(x)


def bce(y, logits):
    return float(np.mean(np.log1p(np.exp(logits.astype(np.float64))) - y * logits))


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
def test_auxiliary_losses_join_with_their_weight(weight):
    x, y, ones = batch()
    trainer = Trainer(with_auxiliaries(), BCE())
    trainer.auxiliary_weight.assign(weight)
    expected = bce(y, x) + weight * (bce(y, 2 * x) + bce(y, -x))
    assert float(trainer.compute_loss(x, y, trainer(x), ones)) == pytest.approx(expected, rel=1e-5)


def test_a_compiled_step_sees_the_weight_change():
    x, y, ones = batch()
    trainer = Trainer(with_auxiliaries(), BCE())
    trainer.compile(keras.optimizers.SGD(0.0))
    losses = []
    for weight in (1.0, 0.0):
        trainer.auxiliary_weight.assign(weight)
        losses.append(float(trainer.train_on_batch(x, y, sample_weight=ones)))
    assert losses[1] == pytest.approx(bce(y, x), rel=1e-5)
    assert losses[0] == pytest.approx(bce(y, x) + bce(y, 2 * x) + bce(y, -x), rel=1e-5)


def test_saving_keeps_the_auxiliary_classifiers(tmp_path):
    network = with_auxiliaries()
    Trainer(network, BCE()).save(tmp_path / "model.keras")
    back = keras.saving.load_model(tmp_path / "model.keras")
    assert len(back.outputs) == 3
    for ours, theirs in zip(network.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_precision_is_what_is_saved(tmp_path):
    def network(dtype):
        inputs = layers.Input((None, None, 1))
        x = layers.Conv2D(2, 3, padding="same", dtype=dtype, name="a")(inputs)
        logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)
        return keras.Model(inputs, layers.Activation("sigmoid", name="probability")(logits))

    mixed, full = network("mixed_float16"), network("float32")
    trainer = Trainer(mixed, BCE(), saved=full)
    trainer.compile("sgd")
    trainer.save(tmp_path / "model.keras")
    back = keras.saving.load_model(tmp_path / "model.keras")
    assert back.get_layer("a").compute_dtype == "float32" and mixed.get_layer("a").compute_dtype == "float16"
    np.testing.assert_array_equal(back.get_layer("a").kernel, mixed.get_layer("a").kernel)


def test_l2_can_be_set_and_unset_after_building():
    inputs = layers.Input((None, None, 1))
    x = layers.Conv2D(2, 3, padding="same", bias_initializer="ones", name="a")(inputs)
    x = layers.BatchNormalization()(x)
    logits = layers.Conv2D(1, 1, kernel_regularizer=keras.regularizers.L2(5.0), name="logits")(x)
    network = keras.Model(inputs, layers.Activation("sigmoid", name="probability")(logits))
    trainer = Trainer(network, lambda *_: keras.ops.convert_to_tensor(0.0))
    image, y, ones = batch()
    set_l2(network, 0.5)
    squares = sum(float(np.square(network.get_layer(name).kernel).sum()) for name in ("a", "logits"))
    assert float(trainer.compute_loss(image, y, trainer(image), ones)) == pytest.approx(0.5 * squares, rel=1e-5)
    set_l2(network, 0.0)
    assert float(trainer.compute_loss(image, y, trainer(image), ones)) == 0.0


def test_float16_gradients_are_scaled():
    inputs = layers.Input((None, None, 1))
    x = layers.Conv2D(1, 1, dtype="mixed_float16", name="a")(inputs)
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)
    network = keras.Model(inputs, layers.Activation("sigmoid", name="probability")(logits))
    trainer = Trainer(network, lambda y, z, w: 1e-8 * BCE()(y, z, w))
    trainer.compile(keras.optimizers.SGD(1e6))
    x, y, ones = batch()
    before = network.get_layer("a").kernel.numpy().copy()
    trainer.train_on_batch(x, y, sample_weight=ones)  # a gradient of about 1e-9, below the least float16
    assert np.abs(network.get_layer("a").kernel.numpy() - before).max() > 0


def test_float32_needs_no_scaling():
    trainer = Trainer(with_auxiliaries(), BCE())
    trainer.compile(keras.optimizers.SGD(0.1))
    assert type(trainer.optimizer) is keras.optimizers.SGD
