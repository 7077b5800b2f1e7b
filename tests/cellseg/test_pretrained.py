import os
import shutil
import sys
import urllib.error
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.utils import file_utils

from cellseg.models import pretrained as room
from cellseg.models.pretrained import fixed_shape, output_size, pretrained
from pipelines.errors import InputError
from tests.backends import on_backends


def random(shape=(None, None, 3), **options):
    return pretrained(shape, **{"backbone": "mobilenetv2", "architecture": "linknet", "weights": "random", **options})


def smallest(**options):
    """PSPNet leaves out the deeper half of its encoder: the smallest graph, hence the quickest to compile."""
    return random((48, 48, 1), **{"architecture": "pspnet", **options})


def images(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def copy_weights(source, target, *, renamed):
    """By layer name: the two networks may list their layers in different orders."""
    for layer in source.layers:
        if layer.weights:
            target.get_layer(renamed.get(layer.name, layer.name)).set_weights(layer.get_weights())


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [("unet", "resnet18"), ("unet", "efficientnetb0"), ("fpn", "mobilenetv2"), ("pspnet", "vgg16")],
)
def test_it_answers_as_the_library_does(architecture, backbone):
    library = room._library()
    build = {"unet": library.Unet, "fpn": library.FPN, "pspnet": library.PSPNet}[architecture]
    theirs = build(backbone, input_shape=(96, 96, 3), classes=2, activation="softmax", encoder_weights=None)
    ours = pretrained((96, 96, 3), outputs=2, architecture=architecture, backbone=backbone, weights="random")
    last = "small_logits" if architecture == "pspnet" else "logits"
    copy_weights(theirs, ours, renamed={"final_conv": last, "head_conv": last})
    assert sum(layer.count_params() for layer in theirs.layers) == ours.count_params()
    x = images(2, 96, 96, 3)
    expected = theirs(library.get_preprocessing(backbone)(255 * x))
    np.testing.assert_allclose(ours(x), expected, atol=2e-5)


@pytest.mark.parametrize(
    "backbone", ["resnet18", "seresnext50", "densenet121", "vgg16", "inceptionv3", "mobilenet", "efficientnetb0"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_networks_own_normalisation_is_that_of_the_encoder(backbone, channels):
    preprocess = room._library().get_preprocessing(backbone)
    image = keras.Input((4, 5, channels))
    x = images(2, 4, 5, channels)
    colour = np.repeat(x, 3, axis=-1) if channels == 1 else x
    ours = keras.Model(image, room._normalise(image, preprocess))(x)
    np.testing.assert_allclose(ours, preprocess(255 * colour), rtol=1e-5, atol=1e-4)


def test_a_grey_image_is_one_with_three_equal_channels():
    grey, colour = random((None, None, 1)), random()
    colour.set_weights(grey.get_weights())
    x = images(1, 32, 32, 1)
    np.testing.assert_allclose(grey(x), colour(np.repeat(x, 3, axis=-1)), rtol=1e-6)


@pytest.mark.parametrize("architecture", ["unet", "fpn", "linknet"])
def test_one_network_takes_several_sizes_in_a_graph(architecture):
    network = random(architecture=architecture, outputs=2)
    for height, width in ((32, 64), (64, 32), (32, 64)):
        assert network.predict_on_batch(images(1, height, width, 3)).shape == (1, height, width, 2)


def test_densenet_builds_despite_its_layers_names():
    network = random((32, 32, 3), backbone="densenet121", architecture="unet")
    assert network.output_shape == (None, 32, 32, 1)
    assert network.get_layer("conv1_bn").momentum == 0.9
    assert not [layer.name for layer in network.layers if "/" in layer.name]


def test_sizes():
    assert [side for side in range(-32, 100) if output_size(side)] == [32, 64, 96]
    assert [side for side in range(100) if output_size(side, architecture="pspnet")] == [48, 96]
    assert output_size(64, architecture="fpn") == 64 and output_size(0) is None
    with pytest.raises(InputError, match="A pretrained unet cannot take a 100x100 tile.*fit: 96 and 128"):
        random((100, 64, 3), architecture="unet")
    with pytest.raises(InputError, match="A pretrained pspnet cannot take a 64x64 tile.*fit: 48 and 96"):
        random((64, 64, 3), architecture="pspnet")


def test_pspnet_wants_one_shape():
    assert fixed_shape({"architecture": "pspnet"})
    assert not fixed_shape({"architecture": "fpn"}) and not fixed_shape({})
    with pytest.raises(InputError, match="'pspnet' pools a fixed grid: build it for one height and width"):
        random(architecture="pspnet")
    assert random((48, 96, 1), architecture="pspnet", outputs=3).output_shape == (None, 48, 96, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet43"}, "model.backbone: 'resnet43' is not known. Did you mean 'resnet34'.*efficientnetb7"),
        ({"architecture": "segnet"}, "model.architecture: 'segnet' is not known. Known: unet, fpn, linknet, pspnet"),
        ({"weights": "coco"}, "model.weights: 'coco' is not known. Known: imagenet, random"),
        ({"l2": -0.1}, "model.l2 must be >= 0, got -0.1"),
    ],
)
def test_options_that_are_not_known(options, message):
    with pytest.raises(InputError, match=message):
        random(**options)


def test_what_the_library_refuses_is_the_users_to_change():
    message = "model.backbone: 'inceptionv3' cannot be built as a pspnet: Input size must be at least 75x75"
    with pytest.raises(InputError, match=message):
        smallest(backbone="inceptionv3")


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(InputError, match="grey images .1 channel. or colour images .3., not 2 channels. Set data"):
        random((32, 32, 2))


def offline(*_):
    raise urllib.error.URLError("Name or service not known")


def cut_short(_, path, *__):
    Path(path).write_bytes(b"half a file")


NO_NETWORK = (
    offline,
    "'{}' could not be downloaded .*Name or service not known.*copy .*[.]h5 to .*models; model.weights=",
)


@pytest.mark.parametrize(
    ("backbone", "fetch", "problem"),
    [
        ("resnet18", *NO_NETWORK),
        ("mobilenetv2", *NO_NETWORK),
        ("efficientnetb0", *NO_NETWORK),
        ("resnet18", cut_short, "'{}' could not be downloaded .*corrupted"),
        ("mobilenetv2", cut_short, "models/mobilenet_v2.*_no_top.h5 .*'{}' is damaged .*Delete it"),
    ],
)
def test_without_a_download_one_message_says_what_to_do(tmp_path, monkeypatch, capsys, fetch, problem, backbone):
    monkeypatch.setattr(file_utils, "urlretrieve", fetch)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    with pytest.raises(InputError, match=problem.format(backbone)):
        pretrained((None, None, 1), backbone=backbone)
    assert capsys.readouterr().out == ""  # the progress goes to stderr


def test_imagenet_weights_reach_the_encoder(tmp_path, monkeypatch):
    library = room._library()
    modules = room._mended_modules("mobilenetv2", [], l2=0.0)
    encoder = library.Backbones.get_backbone(
        "mobilenetv2", input_shape=(None, None, 3), weights=None, include_top=False, **modules
    )
    encoder.save(tmp_path / "encoder.h5")
    asked = []

    def fetch(name, url, **_):
        asked.append((name, url))
        return str(shutil.copy(tmp_path / "encoder.h5", tmp_path / name))

    monkeypatch.setattr(keras.utils, "get_file", fetch)
    network = random(weights="imagenet")
    assert len(asked) == 1 and "no_top" in asked[0][0] and asked[0][1].startswith("https://")
    for layer in encoder.layers:
        if layer.weights and layer.name in {one.name for one in network.layers}:
            for weight, expected in zip(network.get_layer(layer.name).weights, layer.weights, strict=True):
                np.testing.assert_array_equal(weight, expected)
    assert not np.allclose(random().get_layer("Conv1").kernel, encoder.get_layer("Conv1").kernel)


def test_importing_the_library_leaves_nothing_behind(monkeypatch, capsys):
    monkeypatch.delenv("SM_FRAMEWORK", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("segmentation_models", "efficientnet")]:
        monkeypatch.delitem(sys.modules, name)
    before = dict(keras.saving.get_custom_objects())
    library = room._library.__wrapped__()
    assert library.framework() == "tf.keras" and "SM_FRAMEWORK" not in os.environ
    assert keras.saving.get_custom_objects() == before and "swish" not in before
    assert capsys.readouterr().out == ""


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models", None)
    with pytest.raises(InputError, match="needs the packages segmentation-models and tensorflow.*pip install"):
        room._library.__wrapped__()


@pytest.mark.parametrize("options", [{"backbone": "efficientnetb0"}, {"backbone": "seresnet18"}, {"backbone": "vgg16"}])
def test_a_saved_network_holds_nothing_of_the_library(tmp_path, options):
    network = smallest(**options)
    network.save(tmp_path / "model.keras")
    room_only = {"cellseg>BilinearUpsampling", "cellseg>ChannelSlice", "cellseg>ScaledSum"}
    for layer in network.layers:
        name = keras.saving.get_registered_name(type(layer))
        assert name in room_only or type(layer).__module__.startswith("keras."), name
        assert not isinstance(layer, keras.layers.Lambda)
    back = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = images(1, 48, 48, 1)
    np.testing.assert_array_equal(network.predict_on_batch(x), back.predict_on_batch(x))


def test_resnext_groups_and_inception_residuals_are_layers_of_ours():
    x = images(2, 3, 4, 6)
    lambdas = room._MendedLayers(0.0).Lambda
    slicing = lambdas(named("slice_tensor"), arguments={"start": 2, "stop": 5, "axis": 3})
    np.testing.assert_array_equal(slicing(x), x[..., 2:5])
    widened = lambdas(named("expand_dims"), arguments={"channels_axis": 3})
    np.testing.assert_array_equal(widened(x[:, 0, 0]), x[:, :1, :1])
    residual = lambdas(lambda inputs, scale: None, arguments={"scale": 0.25}, output_shape=(3, 4, 6), name="block")
    np.testing.assert_allclose(residual([x, 2 * x]), 1.5 * x, rtol=1e-6)
    for layer in (slicing, residual):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def named(name):
    def function(x):
        return x

    function.__name__ = name
    return function


def test_a_frozen_encoder_keeps_its_convolutions():
    free, frozen = random(), random(freeze_encoder=True)
    kernels = {weight.path for weight in free.trainable_weights if weight.name == "kernel"}
    left = {weight.path for weight in frozen.trainable_weights if weight.name == "kernel"}
    assert left < kernels and all("decoder" in path or "logits" in path for path in left)
    assert frozen.get_layer("bn_Conv1").trainable and not frozen.get_layer("Conv1").trainable


def test_the_head():
    bias = [float(np.log(share)) for share in (0.9, 0.08, 0.02)]
    network = random(outputs=3, output_bias=bias)
    logits = network.get_layer("logits")
    np.testing.assert_allclose(logits.bias, bias, rtol=1e-6)
    assert isinstance(logits.kernel_initializer, keras.initializers.GlorotUniform)
    x = images(1, 32, 32, 3)
    before = keras.Model(network.input, logits.output)(x)
    np.testing.assert_allclose(network(x), ops.softmax(before), rtol=1e-5)
    assert random(output_bias=-2.0).get_layer("logits").bias.numpy().tolist() == [-2.0]


def test_weight_decay_counts_every_convolution():
    network = random(l2=0.01)
    kernels = [weight for weight in network.trainable_weights if weight.name == "kernel"]
    assert len(network.losses) == len(kernels) > 60
    expected = 0.01 * sum(float(np.sum(np.asarray(kernel) ** 2)) for kernel in kernels)
    assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-4)
    assert random().losses == []


@pytest.mark.parametrize("architecture", ["fpn", "pspnet"])
def test_logits_stay_in_float32_under_mixed_precision(architecture):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = random((96, 96, 1), architecture=architecture)
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.get_layer("Conv1").compute_dtype == "bfloat16"
    assert {network.get_layer(name).compute_dtype for name in ("normalise", "logits", "probability")} == {"float32"}
    assert network.get_layer("logits").output.dtype == "float32"


def test_it_learns_one_patch():
    keras.utils.set_random_seed(0)
    network = smallest(backbone="resnet18")
    x = images(2, 48, 48, 1)
    x[:, :24] /= 4
    y = np.zeros_like(x)
    y[:, 24:] = 1
    network.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    losses = [float(network.train_on_batch(x, y)) for _ in range(8)]
    assert losses[-1] < 0.3 * losses[0]
    assert network.get_layer("conv0").trainable and np.isfinite(network.predict_on_batch(x)).all()


@on_backends
def test_it_trains_on_other_backends_too(answer_of, backend):
    assert answer_of(backend, "step_of_pretrained") > 0
