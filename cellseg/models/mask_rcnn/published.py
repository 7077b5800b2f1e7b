"""Published weights: torchvision's ResNets from ImageNet as the start of a backbone, its Mask R-CNN from COCO as that
of the whole network.

The file is made by `cellseg.models.mask_rcnn.convert`, which names the sources. The backbone itself lives in
`cellseg.models.mask_rcnn.resnet`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from cellseg.models.mask_rcnn.layout import BOX_BINS
from cellseg.models.mask_rcnn.resnet import EPSILON
from pipelines.errors import InputError

NAMES = {
    **{"kernel": "weight", "bias": "bias"},
    **{"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"},
}
CHANNELS = 3
FIRST, BODY = "conv1", "backbone.body."
BACKBONE = (FIRST, "bn1", "layer")
# Our layers and theirs; those of `LAST` have as many outputs as there are classes, or anchors of a cell.
HEADS = (
    (r"fpn_inner(\d)", r"backbone.fpn.inner_blocks.\1"),
    (r"fpn_layer(\d)", r"backbone.fpn.layer_blocks.\1"),
    (r"proposal_conv", r"rpn.head.conv"),
    (r"proposal_score", r"rpn.head.cls_logits"),
    (r"proposal_code", r"rpn.head.bbox_pred"),
    (r"(fc[67])", r"roi_heads.box_head.\1"),
    (r"class", r"roi_heads.box_predictor.cls_score"),
    (r"code", r"roi_heads.box_predictor.bbox_pred"),
    (r"(mask_fcn\d)", r"roi_heads.mask_head.\1"),
    (r"(conv5_mask|mask_fcn_logits)", r"roi_heads.mask_predictor.\1"),
)
LAST = ("proposal_score", "proposal_code", "class", "code", "mask_fcn_logits")
CODES = ("proposal_code", "code")
OURS = [1, 0, 3, 2]  # of their box codes (dx, dy, dw, dh)


def load_published(network: Any, path: Path) -> None:
    """Set a MaskRCNN's weights from an .npz file under torchvision's names.

    A file of a ResNet (`layer1.0.conv1.weight`) sets the backbone, one of a whole Mask R-CNN
    (`backbone.body.layer1.0.conv1.weight`) everything; of that, layers start anew that answer for another number of
    classes or anchors. Anchors and regions of torchvision stand half a cell farther up and left: until it is trained
    further, the network says boxes about a sixteenth of their side too far down and right.

    An image of another number of channels than three gets the sum of the first kernel over its colours, spread evenly:
    grey as three equal channels would give the same answer.

    Raises:
        InputError: the file does not hold this network.
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"model.pretrained: {path} is not there. `python -m cellseg.models.mask_rcnn.convert` makes such files, "
            "and says from what."
        )
    with np.load(path, allow_pickle=False) as opened:
        stored = dict(opened)
    if not any(name.startswith(BODY) for name in stored):
        return set_backbone(network.network, stored, where=str(path))
    body = {name.removeprefix(BODY): array for name, array in stored.items() if name.startswith(BODY)}
    set_backbone(network.network, _without_epsilon(body), where=str(path))
    for part in (network.network, network.box_head, network.mask_head):
        set_heads(part, stored, where=str(path))
    return None


def set_backbone(network: keras.Model, stored: Mapping[str, np.ndarray], *, where: str) -> None:
    """The weights of a ResNet's layers, from arrays in PyTorch's layout."""
    for layer in network.layers:
        if layer.name.startswith(BACKBONE) and layer.weights:
            for weight, name, array in _pairs(layer, layer.name.replace("_", "."), stored, where):
                _assign(weight, name, array, where)


def set_heads(network: keras.Model, stored: Mapping[str, np.ndarray], *, where: str) -> None:
    """The weights of the layers of the pyramid and the heads, from arrays in PyTorch's layout."""
    for layer in network.layers:
        theirs = next((re.sub(ours, name, layer.name) for ours, name in HEADS if re.fullmatch(ours, layer.name)), None)
        if theirs is None or not layer.weights:
            continue
        pairs = list(_pairs(layer, theirs, stored, where))
        if layer.name in LAST and any(array.shape != tuple(weight.shape) for weight, _, array in pairs):
            continue
        for weight, name, array in pairs:
            _assign(weight, name, array, where)


def _pairs(
    layer: keras.Layer, theirs: str, stored: Mapping[str, np.ndarray], where: str
) -> Iterator[tuple[Any, str, np.ndarray]]:
    """Each weight of a layer, and the name and the value of the array that it takes, in Keras' layout."""
    for weight in layer.weights:
        kind = weight.path.rsplit("/", 1)[-1]
        name = f"{theirs}.{NAMES[kind]}"
        if name not in stored:
            raise InputError(f"model.pretrained: {where} has no {name}; it does not hold this network.")
        array = stored[name]
        if layer.name in CODES:
            array = array.reshape(-1, 4, *array.shape[1:])[:, OURS].reshape(array.shape)
        yield weight, name, array if kind != "kernel" else _kernel(layer, array)


def _kernel(layer: keras.Layer, array: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, rows, columns), or (out, in), in Keras' order; of a transposed convolution in and out change
    places in both."""
    if isinstance(layer, layers.Dense):
        if layer.name == "fc6":  # of a flattened region, whose channels they count first
            regions = array.reshape(len(array), -1, BOX_BINS, BOX_BINS)
            array = regions.transpose(0, 2, 3, 1).reshape(array.shape)
        return array.T
    kernel = array.transpose(2, 3, 1, 0)
    channels = layer.kernel.shape[2]
    if layer.name == FIRST and channels != CHANNELS:
        kernel = np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)
    return kernel


def _assign(weight: Any, name: str, array: np.ndarray, where: str) -> None:
    if array.shape != tuple(weight.shape):
        raise InputError(
            f"model.pretrained: {name} of {where} is {array.shape}, and {tuple(weight.shape)} in this network. "
            "Published weights are those of width 64, and those of a ResNet-18 or a ResNet-50 alone; those of COCO "
            "besides of the defaults of fpn_channels, box_features, mask_channels and mask_layers."
        )
    weight.assign(array)


def _without_epsilon(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torchvision computes with the weights of COCO and an epsilon of 0; scales that mean the same with ours."""
    scales = {}
    for name, variance in stored.items():
        if name.endswith("running_var"):
            scale = name.removesuffix("running_var") + "weight"
            scales[scale] = stored[scale] * np.sqrt(1 + EPSILON / np.maximum(variance, 1e-30))
    return {**stored, **scales}
