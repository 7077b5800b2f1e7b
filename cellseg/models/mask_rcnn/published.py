"""Published weights: torchvision's ResNets, trained on ImageNet, as the start of a backbone.

`python -m cellseg.models.mask_rcnn.published resnet50-0676ba61.pth resnet50.npz` (needs PyTorch) makes the file that
`model.pretrained` names. The backbone itself lives in `cellseg.models.mask_rcnn.resnet`.

Source: https://download.pytorch.org/models/resnet50-0676ba61.pth, https://download.pytorch.org/models/resnet18-f37072fd.pth
(torchvision, BSD-3).
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from pipelines.errors import InputError
from pipelines.files import whole_file

NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
CHANNELS = 3
FIRST = "conv1"


def load_backbone(network: keras.Model, path: Path) -> None:
    """Set the backbone's weights from an .npz file under torchvision's names (`layer1.0.conv1.weight`).

    An image of another number of channels than three gets the sum of the first kernel over its colours, spread evenly:
    grey as three equal channels would give the same answer.

    Raises:
        InputError: the file does not hold this backbone.
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"model.pretrained: {path} is not there. See cellseg.models.mask_rcnn.published.")
    with np.load(path, allow_pickle=False) as stored:
        set_backbone(network, dict(stored), where=str(path))


def set_backbone(network: keras.Model, stored: Mapping[str, np.ndarray], *, where: str) -> None:
    """As `load_backbone`, from arrays in PyTorch's layout."""
    for layer in network.layers:
        if not layer.name.startswith((FIRST, "bn1", "layer")) or not layer.weights:
            continue
        prefix = _their_name(layer.name)
        for weight in layer.weights:
            kind = weight.path.rsplit("/", 1)[-1]
            name = f"{prefix}.{NORM.get(kind, 'weight')}"
            if name not in stored:
                raise InputError(f"model.pretrained: {where} has no {name}; it does not hold this backbone.")
            array = stored[name]
            if kind == "kernel":
                array = _kernel(array, channels=weight.shape[2], first=layer.name == FIRST)
            if array.shape != tuple(weight.shape):
                raise InputError(
                    f"model.pretrained: {name} of {where} is {array.shape}, and {tuple(weight.shape)} in this "
                    "backbone. Published weights are those of width 64, and those of a ResNet-18 or a ResNet-50 alone."
                )
            weight.assign(array)


def convert(source: Path, target: Path) -> None:
    """PyTorch's file of weights as .npz, without the classifier."""
    import torch

    state = torch.load(source, map_location="cpu", weights_only=True)
    arrays = {name: array.numpy() for name, array in state.items() if not name.startswith("fc.")}
    with whole_file(target) as path, path.open("wb") as file:
        np.savez(file, **arrays)


def _their_name(name: str) -> str:
    """`layer1_0_downsample_1` -> `layer1.0.downsample.1`."""
    return name.replace("_", ".")


def _kernel(array: np.ndarray, *, channels: int, first: bool) -> np.ndarray:
    """PyTorch's (out, in, rows, columns) as (rows, columns, in, out)."""
    kernel = array.transpose(2, 3, 1, 0)
    if first and channels != CHANNELS:
        kernel = np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)
    return kernel


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
