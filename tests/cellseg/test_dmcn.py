import json

import cv2
import keras
import numpy as np
import pytest
from keras import ops

from cellseg.models.dmcn import AUXILIARY, dmcn, output_size
from pipelines.errors import InputError
from tests.backends import on_backends


def small(**options):
    return dmcn((None, None, 1), **{"filters": 4, "branch_filters": 4, **options})


def spots(side=32):
    """Noise smoothed to blobs, in [0, 1], and where it is bright."""
    image = cv2.GaussianBlur(np.random.default_rng(0).random((side, side)), (0, 0), 3)
    image = ((image - image.min()) / np.ptp(image)).astype(np.float32)[None, ..., None]
    return image, (image > 0.5).astype(np.float32)


def supervised_loss(answers, y):
    """Cross-entropy of the answer and of the three auxiliary ones."""
    probability, *auxiliary = answers
    loss = ops.mean(ops.binary_crossentropy(y, probability))
    return loss + sum(ops.mean(ops.binary_crossentropy(y, logits, from_logits=True)) for logits in auxiliary)


def test_parameters_by_hand():
    def convolution(size, before, after):
        return size * size * before * after + after

    encoder = (
        convolution(3, 1, 64) + convolution(3, 64, 64)
        + convolution(3, 64, 128) + convolution(3, 128, 128)
        + convolution(3, 128, 256) + 2 * convolution(3, 256, 256)
        + convolution(3, 256, 512) + 2 * convolution(3, 512, 512)
    )  # fmt: skip
    assert encoder == 7_634_112  # as the reports' ten layers
    up = convolution(2, 128, 2) + convolution(4, 256, 2) + convolution(8, 512, 2)
    refine = 6 * convolution(3, 2, 2)
    auxiliary = 3 * convolution(1, 2, 1)
    final = convolution(1, 6, 1)
    assert (up, refine, auxiliary, final) == (74_758, 228, 9, 7)
    assert dmcn((None, None, 1)).count_params() == encoder + up + refine + auxiliary + final == 7_709_114


def test_it_has_the_layers_of_the_paper():
    kinds = [type(layer).__name__ for layer in dmcn((None, None, 1)).layers]
    assert kinds.count("Conv2D") - 4 == 16  # less the final and three auxiliary classifiers
    assert kinds.count("Conv2DTranspose") == kinds.count("MaxPooling2D") == 3
    assert kinds.count("ReLU") == 19


def test_answers_have_the_size_of_the_image():
    network = small(outputs=3)
    for height, width in ((16, 24), (40, 16), (16, 24)):  # one network, several sizes in a graph
        answers = network.predict_on_batch(np.zeros((2, height, width, 1), np.float32))
        assert [answer.shape for answer in answers] == [(2, height, width, 3)] * 4
    layers = [network.get_layer(name) for name in ("probability", *AUXILIARY)]
    assert [output.name for output in network.outputs] == [layer.output.name for layer in layers]


def test_sizes():
    assert [side for side in range(-8, 33) if output_size(side)] == [8, 16, 24, 32]
    assert output_size(24) == 24 and output_size(0) is None
    with pytest.raises(InputError, match="DMCN cannot take a 100x100 tile.*fit: 96 and 104"):
        dmcn((100, 100, 1))
    with pytest.raises(InputError, match="DMCN cannot take a 7x7 tile.*8 .the smallest."):
        dmcn((7, 16, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "model.filters and model.branch_filters must be >= 1, got 0 and 4"),
        ({"branch_filters": 0}, "got 4 and 0"),
        ({"l2": -1.0}, "model.l2 must be >= 0, got -1.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


def test_a_gradient_reaches_every_weight():
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    network = small()
    x, y = spots(16)
    with tf.GradientTape() as tape:
        loss = supervised_loss(network(x, training=True), y)
    for weight, gradient in zip(network.trainable_weights, tape.gradient(loss, network.trainable_weights), strict=True):
        assert gradient is not None and np.abs(np.asarray(gradient)).max() > 0, weight.path


def test_the_auxiliary_classifiers_do_not_move_the_probability():
    network = small()
    x, _ = spots(16)
    before = network.predict_on_batch(x)
    for name in AUXILIARY:
        layer = network.get_layer(name)
        layer.set_weights([weight + 1 for weight in layer.get_weights()])
    after = network.predict_on_batch(x)
    np.testing.assert_array_equal(before[0], after[0])
    for old, new in zip(before[1:], after[1:], strict=True):
        assert np.abs(old - new).min() > 0.9  # the bias alone moves them by 1


def test_probability_is_the_sigmoid_of_logits_over_all_three_levels():
    network = small(outputs=1)
    x, _ = spots(16)
    logits = keras.Model(network.input, network.get_layer("logits").output)(x)
    np.testing.assert_allclose(network(x)[0], ops.sigmoid(logits), rtol=1e-6)
    before = network.predict_on_batch(x)[0]
    for level in (1, 2, 3):
        layer = network.get_layer(f"branch{level}b_conv")
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, bias + 1])
        assert np.abs(network.predict_on_batch(x)[0] - before).max() > 1e-3, level
        layer.set_weights([kernel, bias])


def test_several_outputs_are_a_softmax_and_start_at_the_prevalence():
    bias = [float(np.log(share)) for share in (0.9, 0.08, 0.02)]
    network = small(outputs=3, output_bias=bias)
    np.testing.assert_allclose(ops.sum(network(spots(16)[0])[0], axis=-1), 1, rtol=1e-5)
    for name in ("logits", *AUXILIARY):
        np.testing.assert_allclose(network.get_layer(name).bias, bias, rtol=1e-6)


def test_initialisation_and_weight_decay():
    network = dmcn((None, None, 1), l2=0.01)
    kernels = [weight for weight in network.trainable_weights if weight.name == "kernel"]
    assert len(kernels) == 16 + 3 + 4
    expected = 0.01 * sum(float(np.sum(np.asarray(kernel) ** 2)) for kernel in kernels)
    assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-5)
    assert np.asarray(network.get_layer("down2b_conv").kernel).std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.03)
    assert isinstance(network.get_layer("auxiliary2_logits").kernel_initializer, keras.initializers.GlorotUniform)


def test_classifiers_stay_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = small()
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.get_layer("down0a_conv").compute_dtype == "bfloat16"
    assert {network.get_layer(name).compute_dtype for name in ("logits", "probability", *AUXILIARY)} == {"float32"}
    assert {output.dtype for output in network.outputs} == {"float32"}


def test_overfits_one_patch():
    keras.utils.set_random_seed(0)
    network = dmcn((32, 32, 1), filters=8, branch_filters=8)
    x, y = spots()
    on_logits = keras.losses.BinaryCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), [keras.losses.BinaryCrossentropy(), *[on_logits] * 3])
    for _ in range(80):
        network.train_on_batch(x, [y] * 4)
    probability, *auxiliary = network.predict_on_batch(x)
    assert np.mean((probability > 0.5) == y) > 0.98
    assert all(np.mean((logits > 0) == y) > 0.9 for logits in auxiliary)


def test_a_saved_network_answers_the_same_and_needs_keras_alone(tmp_path):
    network = small(outputs=2)
    x = np.random.default_rng(0).random((1, 16, 24, 1)).astype(np.float32)
    network.save(tmp_path / "model.keras")
    back = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for answer, expected in zip(back.predict_on_batch(x), network.predict_on_batch(x), strict=True):
        np.testing.assert_allclose(answer, expected, rtol=1e-6, atol=1e-7)
    # What is registered by this package cannot be loaded before it is imported (tests/cellseg/test_networks.py loads
    # every network in a fresh process, with the package).
    config = json.loads(network.to_json())
    assert not [name for name in registered(config) if name and ">" in name and not name.startswith("keras")]


def registered(config):
    """Every registered_name in a network's configuration, at any depth."""
    if isinstance(config, dict):
        yield config.get("registered_name")
        config = list(config.values())
    if isinstance(config, list):
        for one in config:
            yield from registered(one)


@on_backends
def test_a_gradient_reaches_every_weight_on_other_backends(answer_of, backend):
    largest = answer_of(backend, "gradients_of_dmcn")
    assert len(largest) == 2 * (16 + 3 + 4)  # a kernel and a bias each
    assert not [path for path, gradient in largest.items() if not gradient > 0]
