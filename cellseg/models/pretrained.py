"""Pretrained encoders: U-Net, FPN, LinkNet and PSPNet of `segmentation-models` over 32 encoders trained on ImageNet.

The library is written for Keras 2; what it needs to run on Keras 3 is mended here. Other networks are the neighbours.
"""

import contextlib
import functools
import importlib
import io
import os
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import h5py
import keras
import numpy as np
from keras import Model, layers

from cellseg.models import sizes
from cellseg.models.blocks import BATCH_NORM_MOMENTUM, activation_of, decay
from cellseg.models.fast import BilinearUpsampling
from pipelines.errors import InputError, nearest

ARCHITECTURES = {"unet": "Unet", "fpn": "FPN", "linknet": "Linknet", "pspnet": "PSPNet"}  # as the library calls them
WEIGHTS = ("imagenet", "random")
FACTORS = {"unet": 32, "fpn": 32, "linknet": 32, "pspnet": 48}  # sides are multiples of these


def pretrained(
    input_shape: tuple[int | None, int | None, int],
    *,
    outputs: int = 1,
    architecture: Literal["unet", "fpn", "linknet", "pspnet"] = "unet",
    backbone: str = "resnet34",
    weights: Literal["imagenet", "random"] = "imagenet",
    freeze_encoder: bool = False,
    l2: float = 0.0,
    activation: str | None = None,
    output_bias: float | Sequence[float] | None = None,
) -> Model:
    """A segmentation network over an encoder that was trained on ImageNet.

    Shape: (N, H, W, 1 or 3) in [0, 1] to (N, H, W, outputs) probabilities, H and W multiples of 32; PSPNet takes one
    fixed shape, multiples of 48 (`fixed_shape`). Grey images are repeated three times; the normalisation that the
    encoder was trained with is part of the network. U-Net over ResNet-34: 24,456,154 weights.

    Departures from the library: momentum 0.9 in batch normalisation, doubling by bilinear interpolation as
    `cellseg.models.fast` computes it, and the last convolution and activation in float32. As in the library,
    convolutions start He uniform and the last one Glorot uniform. It runs on every Keras backend, but the library
    imports TensorFlow, which must be installed.

    Args:
        input_shape: (H, W, C) of a tile, C 1 or 3; H and W may be None: any legal size, save PSPNet.
        outputs: Number of channels: 1 = foreground; n > 1 = classes, background first, unless `activation` says else.
        activation: sigmoid = channels that do not exclude each other; None = sigmoid for one output, softmax for more.
        architecture: `unet`, `fpn` (feature pyramid), `linknet` or `pspnet` (pyramid pooling at an eighth of the size).
        backbone: The encoder, as the library names it: resnet18, resnet34, mobilenetv2, efficientnetb0, ...
        weights: `imagenet` (downloaded once to the Keras folder) or `random`, which needs no network.
        freeze_encoder: Leave the encoder's weights as they are, but for its batch normalisation, which goes on
            learning (as in the library).
        l2: The loss grows by l2 * (sum of the squared convolution kernels); biases are left alone.
        output_bias: First bias of the output, one for all channels or one each; None = 0.

    Raises:
        InputError: an unknown backbone, a side or a number of channels that the network cannot take, or weights that
            could not be downloaded.

    Reference:
        Yakubovskiy 2019, https://github.com/qubvel/segmentation_models
    """
    for key, value, allowed in (("architecture", architecture, ARCHITECTURES), ("weights", weights, WEIGHTS)):
        if value not in allowed:
            raise InputError(f"model.{key}: '{value}' is not known. Known: {', '.join(allowed)}.")
    _check_shape(input_shape, architecture=architecture)
    if l2 < 0:
        raise InputError(f"model.l2 must be >= 0, got {l2}.")
    library = _library()
    known = library.get_available_backbone_names()
    if backbone not in known:
        raise InputError(
            f"model.backbone: '{backbone}' is not known.{nearest(backbone, known)} Known: {', '.join(known)}."
        )
    built: list[Model] = []  # first the encoder, then the whole
    modules = _mended_modules(backbone, built, l2=l2)
    builder = importlib.import_module(f"segmentation_models.models.{architecture}")
    build = getattr(builder, ARCHITECTURES[architecture])
    with warnings.catch_warnings():
        # The mobile nets' convolutions were trained on 224x224; they take any other size as well.
        warnings.filterwarnings("ignore", message=".*Weights for input shape")
        try:
            network = build(
                backbone,
                input_shape=(*input_shape[:2], 3),
                classes=outputs,
                activation="linear",
                encoder_weights="imagenet" if weights == "imagenet" else None,
                **modules,
            )
        except InputError:
            raise
        except ValueError as error:  # inceptionv3 wants at least 75x75 pixels
            raise InputError(f"model.backbone: '{backbone}' cannot be built as a {architecture}: {error}") from error
    if freeze_encoder:
        for layer in built[0].layers:
            if not isinstance(layer, layers.BatchNormalization):
                layer.trainable = False
    image = layers.Input(input_shape, name="image")
    features, enlarge = _before_head(network)
    # `call`, not `__call__`: the layers join this network one by one, not as a single nested one.
    x = Model(network.inputs[0], features).call(_normalise(image, library.get_preprocessing(backbone)))
    return Model(image, _head(x, outputs, activation, enlarge=enlarge, bias=output_bias, l2=l2), name="pretrained")


def output_size(side: int, *, architecture: str = "unet") -> int | None:
    """Output side for an input side, in pixels: the same; None where a level would get a broken side."""
    return side if side > 0 and side % FACTORS[architecture] == 0 else None


def fixed_shape(options: Mapping[str, Any]) -> bool:
    """Whether the network of these options must be built for one height and width: PSPNet pools a grid of them."""
    return options.get("architecture") == "pspnet"


@keras.saving.register_keras_serializable(package="cellseg")
class ChannelSlice(layers.Layer):
    """Channels `start` to `stop` of a batch of feature maps: (N, H, W, C) -> (N, H, W, stop - start)."""

    def __init__(self, start: int, stop: int, **kwargs):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, inputs):
        """Cut the channels."""
        return inputs[..., self.start : self.stop]

    def get_config(self):
        """The first channel, and the one after the last."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@keras.saving.register_keras_serializable(package="cellseg")
class ScaledSum(layers.Layer):
    """x + scale * y for two batches [x, y] of one shape."""

    def __init__(self, scale: float, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        """Add the second batch, scaled, to the first."""
        return inputs[0] + self.scale * inputs[1]

    def get_config(self):
        """The factor."""
        return {**super().get_config(), "scale": self.scale}


def _check_shape(input_shape: tuple[int | None, int | None, int], *, architecture: str) -> None:
    *sides, channels = input_shape
    if channels not in (1, 3):
        raise InputError(
            f"A pretrained encoder takes grey images (1 channel) or colour images (3), not {channels} channels. "
            "Set data.channels to grey or rgb, or to a list of 1 or 3 of the channels."
        )
    if None in sides and fixed_shape({"architecture": architecture}):
        raise InputError(
            "model.architecture: 'pspnet' pools a fixed grid: build it for one height and width (train.patch)."
        )
    of = functools.partial(output_size, architecture=architecture)
    for side in filter(None, sides):
        sizes.check_size(side, of, network=f"A pretrained {architecture}")


@functools.cache
def _library() -> types.ModuleType:
    """Import segmentation-models quietly, and take back the custom objects that it registers for everyone."""
    registered = keras.saving.get_custom_objects()
    before, setting = dict(registered), os.environ.get("SM_FRAMEWORK")
    os.environ["SM_FRAMEWORK"] = "tf.keras"  # its other choice, taken without TensorFlow, needs what only Keras 2 had
    try:
        importlib.import_module("tensorflow")
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("segmentation_models")
    except ImportError as error:
        raise InputError(
            f"model.name: 'pretrained' needs the packages segmentation-models and tensorflow ({error}). "
            "Install them with: pip install segmentation-models tensorflow"
        ) from error
    finally:
        registered.clear()
        registered.update(before)
        if setting is None:
            del os.environ["SM_FRAMEWORK"]
        else:
            os.environ["SM_FRAMEWORK"] = setting


def _mended_modules(backbone: str, built: list[Model], *, l2: float) -> dict[str, Any]:
    """The parts of Keras that the library's builders ask for, such that they work on Keras 3 and leave nothing of
    the library's own in a saved network. Layers are swapped one for one: it finds some of them by number."""

    def model(*args, **kwargs):
        built.append(Model(*args, **kwargs))
        return built[-1]

    backend = types.SimpleNamespace(
        backend=keras.backend.backend,
        image_data_format=keras.backend.image_data_format,
        int_shape=lambda x: tuple(x.shape),
        is_keras_tensor=keras.backend.is_keras_tensor,
    )
    return {
        "backend": backend,
        "layers": _MendedLayers(l2),
        "models": types.SimpleNamespace(Model=model),
        "utils": types.SimpleNamespace(get_file=functools.partial(_download, backbone=backbone)),
    }


class _MendedLayers:
    """`keras.layers` for the library: each name is a class that makes the layer of Keras, mended."""

    MaxPooling2D = layers.MaxPooling2D  # the library asks whether a layer is one

    def __init__(self, l2: float):
        self.l2 = l2

    def __getattr__(self, name: str):
        original = getattr(layers, name)
        if not isinstance(original, type):
            return original  # Input, add, multiply
        l2 = self.l2

        class Mended:  # a class, because efficientnet derives its dropout from one
            def __new__(cls, *args, **kwargs):
                return _mended_layer(original, args, kwargs, l2=l2)

        return Mended


def _mended_layer(original: type, args: tuple, options: dict[str, Any], *, l2: float):
    if options.get("name"):
        options["name"] = options["name"].replace("/", "_")  # densenet; Keras 3 refuses the stroke
    if original is layers.Lambda:
        return _without_lambda(args[0].__name__, options.pop("arguments"), options)
    if original is layers.Activation and callable(args[0]):
        args = ("silu",)  # efficientnet's own swish
    if callable(options.get("activation")):
        options["activation"] = "silu"
    if original is layers.UpSampling2D and options.get("interpolation") == "bilinear" and _twice(args, options):
        return BilinearUpsampling(name=options.get("name"))
    if original is layers.BatchNormalization:
        options["momentum"] = BATCH_NORM_MOMENTUM
    if original in (layers.Conv2D, layers.Conv2DTranspose):
        options["kernel_regularizer"] = decay(l2)
    if original is layers.DepthwiseConv2D:
        options["depthwise_regularizer"] = decay(l2)
    return original(*args, **options)


def _twice(args: tuple, options: dict[str, Any]) -> bool:
    size = args[0] if args else options["size"]
    return size in (2, (2, 2), [2, 2])


def _without_lambda(function: str, arguments: dict[str, Any], options: dict[str, Any]):
    """A layer that can be saved for each of the library's three Lambdas, which cannot."""
    if function == "slice_tensor":
        return ChannelSlice(arguments["start"], arguments["stop"])
    if function == "expand_dims":
        return lambda x: layers.Reshape((1, 1, x.shape[-1]))(x)
    return ScaledSum(arguments["scale"], name=options.get("name"))  # the residuals of inceptionresnetv2


def _download(name: str, *args, backbone: str, **kwargs) -> str:
    """`keras.utils.get_file`, with one message where it fails."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the commands' own answers go to stdout
            path = keras.utils.get_file(name, *args, **kwargs)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        folder = os.path.join(os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras")), "models")
        raise InputError(
            f"model.weights: the ImageNet weights of '{backbone}' could not be downloaded ({error}). "
            f"Connect this machine, or copy {name} to {folder}; model.weights=random trains from scratch, offline."
        ) from error
    try:
        h5py.File(path, "r").close()
    except OSError as error:  # some of the files come without a checksum
        raise InputError(
            f"model.weights: {path} with the ImageNet weights of '{backbone}' is damaged ({error}). "
            "Delete it and try again."
        ) from error
    return path


def _normalise(image, preprocess):
    """Layers that make of images in [0, 1] what the encoder was trained on: `preprocess` of images of 0 to 255."""
    x = image if image.shape[-1] == 3 else layers.Concatenate(name="grey_to_rgb")([image] * 3)
    # Every one of the library's functions scales and shifts the channels, and some turn their order round.
    offset = preprocess(np.zeros((1, 1, 1, 3)))[0, 0, 0]
    scale = preprocess(np.full((1, 1, 1, 3), 255.0))[0, 0, 0] - offset
    red = preprocess(np.array([255.0, 0.0, 0.0]).reshape(1, 1, 1, 3))[0, 0, 0] - offset
    if red[0] == 0:
        x = layers.Concatenate(name="rgb_to_bgr")([ChannelSlice(c, c + 1, name=f"channel{c}")(x) for c in (2, 1, 0)])
    return layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="normalise")(x)


def _before_head(network: Model):
    """The features that the last convolution reads, and the factor by which its answer is then enlarged."""
    last = network.layers[-2]  # network.layers[-1] is the linear activation
    if isinstance(last, layers.UpSampling2D):
        return network.layers[-3].input, last.size[0]
    return last.input, 1


def _head(x, outputs: int, activation: str | None, *, enlarge: int, bias, l2: float):
    """The library's 3x3 convolution to `logits`, then `probability`, in float32."""
    logits = layers.Conv2D(
        outputs,
        3,
        padding="same",
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros" if bias is None else keras.initializers.Constant(bias),
        kernel_regularizer=decay(l2),
        dtype="float32",
        name="logits" if enlarge == 1 else "small_logits",
    )(x)
    if enlarge > 1:
        logits = layers.UpSampling2D(enlarge, interpolation="bilinear", dtype="float32", name="logits")(logits)
    return layers.Activation(activation_of(activation, outputs), dtype="float32", name="probability")(logits)
