import keras
import numpy as np
import pytest
from keras import ops

from cellseg.models import MODELS
from cellseg.models.blocks import BilinearUpsampling
from cellseg.models.sizes import nearest_sizes
from cellseg.models.unet import output_size, receptive_radius, skip_crops, unet
from pipelines.errors import InputError

PANCREATIC = {"filters": 16, "padding": "same", "up": "bilinear", "batch_norm": True, "dropout": 0.1}


def small(**options):
    return unet((None, None, 1), **{**PANCREATIC, "filters": 4, "depth": 2, "dropout_at": "every", **options})


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 31_030_593),  # the network of 2015
        ({"outputs": 2}, 31_030_658),
        ({"filters": 32, "padding": "same", "up": "transposed3"}, 8_629_921),  # the 8.6 M network of a report
        ({"filters": 16}, 1_940_817),
    ],
)
def test_parameter_counts(options, count):
    assert unet((None, None, 1), **options).count_params() == count


def test_the_paper_maps_572_to_388():
    assert unet((572, 572, 1), filters=2).output_shape == (None, 388, 388, 1)
    assert output_size(572) == 388 and output_size(700) == 516 and output_size(188) == 4


def valid_size_by_hand(size, depth):
    """Walk through the network, one operation a line, with exact halves."""
    from fractions import Fraction

    sizes = Fraction(size)
    for _ in range(depth):
        sizes = (sizes - 2 - 2) / 2
        if sizes.denominator != 1 or sizes <= 0:
            return None
    sizes = sizes - 2 - 2
    if sizes <= 0:
        return None
    for _ in range(depth):
        sizes = sizes * 2 - 2 - 2
    return int(sizes) if sizes > 0 else None


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_output_size_of_every_side(depth):
    for size in range(1, 400):
        assert output_size(size, depth=depth) == valid_size_by_hand(size, depth)


@pytest.mark.parametrize(("depth", "size"), [(1, 24), (2, 60), (3, 116)])
def test_output_size_is_what_the_network_gives(depth, size):
    network = unet((None, None, 1), filters=1, depth=depth)
    answer = network(np.zeros((1, size, size, 1), np.float32))
    assert answer.shape[1] == output_size(size, depth=depth)


def test_skip_crops_of_the_paper():
    assert skip_crops(4) == [88, 40, 16, 4]  # figure 1: 568 -> 392, 280 -> 200, 136 -> 104, 64 -> 56


def test_512_is_not_legal_and_the_message_names_the_nearest():
    with pytest.raises(InputError, match="cannot take a 512x512 tile.*Nearest sizes that fit: 508 and 524"):
        unet((512, 512, 1))
    with pytest.raises(InputError, match="cannot take a 100x100 tile.*188 .the smallest."):
        unet((100, 100, 1))
    with pytest.raises(InputError, match="padding='same'.*cannot take a 250x250 tile.*240 and 256"):
        unet((250, 250, 1), **PANCREATIC)
    assert nearest_sizes(188, output_size) == (None, 204)


@pytest.mark.parametrize(("key", "value"), [("padding", "full"), ("up", "nearest"), ("dropout_at", "start")])
def test_unknown_choices_are_named(key, value):
    with pytest.raises(InputError, match=f"model.{key}: '{value}' is not known. Known: "):
        small(**{key: value})


def test_bilinear_upsampling_equals_the_keras_layer():
    x = np.random.default_rng(0).random((2, 5, 7, 3)).astype(np.float32)
    expected = keras.layers.UpSampling2D(interpolation="bilinear")(x)
    np.testing.assert_allclose(BilinearUpsampling()(x), expected, atol=1e-6)


def test_bilinear_upsampling_by_hand():
    # One row 0, 4: the new pixels lie at -1/4, 1/4, 3/4, 5/4 of the old grid; outside, the edge repeats.
    row = np.array([0.0, 4.0], np.float32).reshape(1, 1, 2, 1)
    assert np.asarray(BilinearUpsampling()(row))[0, 0, :, 0].tolist() == [0, 1, 3, 4]


def test_one_network_takes_several_sizes_in_a_graph():
    network = small()
    for size in (16, 24, 16):
        assert network.predict_on_batch(np.zeros((1, size, size, 1), np.float32)).shape == (1, size, size, 1)


def test_probability_is_the_sigmoid_of_the_logits_and_starts_at_the_prevalence():
    network = small(output_bias=float(np.log(0.04 / 0.96)))
    assert network.get_layer("logits").bias.numpy()[0] == pytest.approx(np.log(0.04 / 0.96))
    x = np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32)
    logits = keras.Model(network.input, network.get_layer("logits").output)(x)
    np.testing.assert_allclose(network(x), ops.sigmoid(logits), rtol=1e-6)


def test_several_outputs_are_a_softmax():
    answer = small(outputs=3)(np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32))
    np.testing.assert_allclose(ops.sum(answer, axis=-1), 1, rtol=1e-5)


def test_initialisation():
    network = unet((None, None, 8), filters=64, depth=1)
    relu = network.get_layer("down0b_conv").kernel.numpy()
    assert relu.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.03)  # He normal
    assert isinstance(network.get_layer("logits").kernel_initializer, keras.initializers.GlorotUniform)


def test_gradient_reaches_every_weight():
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    network = small(dropout=0.0)
    with tf.GradientTape() as tape:
        loss = ops.sum(network(np.random.default_rng(0).random((2, 16, 16, 1)).astype(np.float32), training=True) ** 2)
    for weight, gradient in zip(network.trainable_weights, tape.gradient(loss, network.trainable_weights), strict=True):
        assert gradient is not None, weight.path
        # Batch normalisation takes a constant away again, so the convolution's bias before it has no effect.
        if not (weight.path.endswith("bias") and "conv" in weight.path):
            assert np.abs(np.asarray(gradient)).max() > 0, weight.path


@pytest.mark.parametrize("options", [{}, {"padding": "valid", "up": "transposed2", "batch_norm": False}])
def test_a_saved_network_answers_the_same(tmp_path, options):
    network = small(**options)
    network.save(tmp_path / "model.keras")
    back = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = np.random.default_rng(0).random((1, 60, 60, 1)).astype(np.float32)
    np.testing.assert_array_equal(network.predict_on_batch(x), back.predict_on_batch(x))


def test_dropout_places():
    def dropouts(network):
        return sum(isinstance(layer, keras.layers.Dropout) for layer in network.layers)

    assert dropouts(small(dropout=0.0)) == 0
    assert dropouts(small(dropout=0.5, dropout_at="contracting_end")) == 2
    assert dropouts(small(dropout=0.1)) == 10  # two a block, five blocks


def test_dropout_by_level():
    network = small(dropout=[0.0, 0.2, 0.5])
    rates = {
        layer.name: pytest.approx(layer.rate) for layer in network.layers if isinstance(layer, keras.layers.Dropout)
    }
    assert rates == {
        "down1a_dropout": 0.2, "down1b_dropout": 0.2, "down2a_dropout": 0.5, "down2b_dropout": 0.5,
        "up1a_dropout": 0.2, "up1b_dropout": 0.2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": [0.1, 0.2]}, r"model.dropout lists 2 shares, but depth 2 has 3 levels \(0 to 2\)"),
        ({"dropout": [0.1, 0.2, 1.0]}, r"model.dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": [0, 0, 0.5], "dropout_at": "contracting_end"}, "that needs model.dropout_at: every"),
        ({"l2": -1.0}, "model.l2 must be >= 0, got -1.0"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


@pytest.mark.parametrize("up", ["bilinear", "transposed2", "transposed3"])
def test_l2_counts_every_kernel_and_no_bias(up):
    network = small(l2=0.5, up=up)
    kernels = [weight for weight in network.trainable_weights if weight.name == "kernel"]
    squares = sum(float(ops.sum(ops.square(kernel))) for kernel in kernels)
    assert len(kernels) == (10 + 1 if up == "bilinear" else 10 + 1 + 2)
    assert sum(float(penalty) for penalty in network.losses) == pytest.approx(0.5 * squares, rel=1e-5)
    assert not small(up=up).losses


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels(channels):
    x = np.random.default_rng(0).random((1, 16, 16, channels)).astype(np.float32)
    network = unet((None, None, channels), outputs=4, padding="same", filters=2, depth=2)
    assert network.predict_on_batch(x).shape == (1, 16, 16, 4)


def test_nothing_beyond_the_receptive_radius_matters():
    radius = receptive_radius(depth=2)
    network = small(dropout=0.0)
    x = np.zeros((1, 160, 160, 1), np.float32)
    far = x.copy()
    far[:, :, : 80 - radius] = 1
    np.testing.assert_array_equal(network(x)[0, 80, 80], network(far)[0, 80, 80])


def test_the_table_holds_the_builder():
    assert MODELS["unet"] is unet
