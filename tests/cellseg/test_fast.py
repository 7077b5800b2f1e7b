import keras
import numpy as np
import pytest
from keras import layers

from cellseg.models import fast
from cellseg.models.unet import unet
from tests.backends import on_backends

tf = pytest.importorskip("tensorflow", reason="the kernels are TensorFlow's")
TOLERANCE = {"float32": 2e-6, "float64": 1e-12, "bfloat16": 0.04, "float16": 5e-3}


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(2.0, 3.0, shape).astype(np.float32)


def answer_and_gradients(layer, x, upstream, *, jit_compile=False, training=True):
    """Layer's answer, then the gradients of sum(answer * upstream) with respect to x and to each weight."""

    # Sizes unknown, as while training on patches and predicting whole images with one network.
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, x.shape[-1]), x.dtype)], jit_compile=jit_compile)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            answer = layer(x, training=training) if isinstance(layer, layers.BatchNormalization) else layer(x)
            loss = tf.reduce_sum(tf.cast(answer, upstream.dtype) * upstream)
        return answer, *tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])

    return [np.asarray(tf.cast(value, tf.float64)) for value in step(tf.constant(x))]


def assert_same(ours, theirs, *, tolerance):
    assert len(ours) == len(theirs)
    for mine, plain in zip(ours, theirs, strict=True):
        assert np.abs(plain).max() > 0
        np.testing.assert_allclose(mine, plain, atol=tolerance * np.abs(plain).max())


def twins(dtype="float32", **options):
    """Our batch normalisation and Keras', with the same weights, none of them trivial."""
    pair = [kind(momentum=0.9, dtype=dtype, **options) for kind in (fast.BatchNormalization, layers.BatchNormalization)]
    for layer in pair:
        layer.build((None, None, None, 5))
        layer.set_weights([features(5, seed=n) ** 2 + 0.1 for n, _ in enumerate(layer.weights)])
    return pair


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [True, False])
def test_batch_normalisation_equals_keras(dtype, training):
    policy = keras.DTypePolicy(dtype)
    x, upstream = features(3, 6, 4, 5).astype(policy.compute_dtype), features(3, 6, 4, 5, seed=1)
    pair = twins(policy)
    ours, plain = (answer_and_gradients(layer, x, upstream, training=training) for layer in pair)
    assert_same(ours, plain, tolerance=TOLERANCE[policy.compute_dtype])
    for mine, keras_own in zip(*(layer.non_trainable_weights for layer in pair), strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-5)


def test_batch_normalisation_equals_keras_under_xla():
    x, upstream = features(3, 6, 4, 5), features(3, 6, 4, 5, seed=1)
    pair = twins()
    ours, plain = (answer_and_gradients(layer, x, upstream, jit_compile=True) for layer in pair)
    assert_same(ours, plain, tolerance=1e-5)
    np.testing.assert_allclose(pair[0].moving_variance, pair[1].moving_variance, rtol=1e-5)


def test_batch_normalisation_by_hand():
    layer = fast.BatchNormalization(momentum=0.9, epsilon=0.01)
    # Two pixels, 1 and 5: mean 3, variance (not n / (n - 1) of it) 4; 2 / sqrt(4.01) = 0.998752.
    answer = layer(np.array([1, 5], np.float32).reshape(1, 1, 2, 1), training=True)
    np.testing.assert_allclose(np.ravel(answer), [-0.998752, 0.998752], rtol=1e-5)
    assert float(layer.moving_mean[0]) == pytest.approx(0.3)
    assert float(layer.moving_variance[0]) == pytest.approx(0.9 + 0.4)


def test_batch_normalisation_frozen_keeps_its_statistics():
    layer, _ = twins()
    layer.trainable = False
    before = layer.get_weights()
    layer(features(2, 4, 4, 5), training=True)
    for weight, old in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_batch_normalisation_of_other_arguments_is_that_of_keras():
    x = features(2, 4, 4, 5)
    for options in ({"center": False, "scale": False}, {"axis": 1}, {"renorm": True}):
        pair = [kind(**options) for kind in (fast.BatchNormalization, layers.BatchNormalization)]
        ours, plain = (layer(x, training=True) for layer in pair)
        np.testing.assert_allclose(ours, plain, atol=1e-5)
    rows = features(7, 5)
    ours, plain = (kind()(rows, training=True) for kind in (fast.BatchNormalization, layers.BatchNormalization))
    np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_upsampling_equals_shifted_sums(dtype):
    x, upstream = features(2, 5, 7, 3).astype(dtype), features(2, 10, 14, 3, seed=1)
    ours = answer_and_gradients(fast.BilinearUpsampling(dtype=dtype), x, upstream)
    plain = answer_and_gradients(
        lambda_layer(lambda x: fast._double(fast._double(x, axis=1), axis=2)), x.astype(np.float32), upstream
    )
    assert_same(ours, plain, tolerance={**TOLERANCE, "float64": 2e-6}[dtype])


def test_upsampling_equals_the_keras_layer_and_its_gradient():
    x, upstream = features(2, 1, 6, 3), features(2, 2, 12, 3, seed=1)
    ours = answer_and_gradients(fast.BilinearUpsampling(), x, upstream)
    plain = answer_and_gradients(lambda_layer(lambda x: tf.image.resize(x, 2 * tf.shape(x)[1:3])), x, upstream)
    assert_same(ours, plain, tolerance=2e-6)


def lambda_layer(function):
    layer = layers.Lambda(function, dtype="float32")
    layer.build(())
    return layer


def test_upsampling_keeps_what_is_known_of_the_shape():
    inputs = keras.Input((None, 8, 3), batch_size=2)
    assert fast.BilinearUpsampling()(inputs).shape == (2, None, 16, 3)


def test_its_gradient_is_the_same_bits_each_time():
    x, upstream = features(4, 64, 64, 16), features(4, 128, 128, 16, seed=1)
    first, second = (answer_and_gradients(fast.BilinearUpsampling(), x, upstream)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_dropout_drops_its_share_and_scales_the_rest(rate, dtype):
    x = np.ones((4, 64, 64, 16), np.float32)
    answer = np.asarray(tf.cast(fast.Dropout(rate, seed=3, dtype=dtype)(x, training=True), tf.float32))
    np.testing.assert_allclose(np.unique(answer), [0, 1 / (1 - rate)], rtol=4e-3 if "b" in dtype else 1e-6)
    share = np.mean(answer == 0)
    assert share == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / x.size))  # five standard errors
    for axis in range(4):  # no axis is dropped as a whole
        others = tuple(n for n in range(4) if n != axis)
        assert np.ptp(np.mean(answer == 0, axis=others)) < 0.1


def test_dropout_differs_between_steps_and_not_between_equal_seeds():
    x = np.ones((1, 8, 8, 4), np.float32)
    layer, again = fast.Dropout(0.5, seed=3), fast.Dropout(0.5, seed=3)
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(again(x, training=True), first)


def test_dropout_passes_the_gradient_through_what_it_kept():
    x = tf.constant(features(1, 8, 8, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        answer = fast.Dropout(0.25, seed=3)(x, training=True)
    np.testing.assert_allclose(tape.gradient(answer, x), np.where(np.asarray(answer) == 0, 0, 1 / 0.75), rtol=1e-6)


def test_dropout_rests_without_training():
    x = features(1, 8, 8, 4)
    np.testing.assert_array_equal(fast.Dropout(0.5)(x), x)
    np.testing.assert_array_equal(fast.Dropout(0.0)(x, training=True), x)


def plain_twin(network):
    """The same network of Keras' own layers."""
    plain = {fast.BatchNormalization: layers.BatchNormalization, fast.Dropout: layers.Dropout}

    def clone(layer):
        if type(layer) is fast.BilinearUpsampling:
            return lambda_layer(lambda x: fast._double(fast._double(x, axis=1), axis=2))
        return plain.get(type(layer), type(layer)).from_config(layer.get_config())

    twin = keras.models.clone_model(network, clone_function=clone)
    twin.set_weights(network.get_weights())
    return twin


def test_a_network_equals_its_plain_twin():
    keras.utils.set_random_seed(0)
    options = {"filters": 4, "depth": 2, "padding": "same", "up": "bilinear", "batch_norm": True, "dropout": 0.0}
    network = unet((None, None, 1), **options, dropout_at="every")
    twin = plain_twin(network)
    x = tf.constant(features(2, 16, 24, 1))
    answers = []
    for model in (network, twin):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        answers.append([model(x), *tape.gradient(loss, [weight.value for weight in model.trainable_weights])])
    for ours, plain, name in zip(*answers, ["answer", *(w.path for w in network.trainable_weights)], strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-4, rtol=1e-4, err_msg=name)
    for ours, plain in zip(network.non_trainable_weights, twin.non_trainable_weights, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)


@on_backends
def test_on_other_backends_they_are_the_keras_layers(answer_of, backend):
    assert answer_of(backend, "layers_of_ours") == backend
