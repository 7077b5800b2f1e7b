"""Conversion of published weights: PyTorch's file to the .npz that `model.pretrained` names. Needs PyTorch.

    python -m cellseg.models.mask_rcnn.convert maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth coco.npz

Sources (torchvision, BSD-3; each name ends with the first digits of the file's SHA-256):

    https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth    the whole network, from COCO
    https://download.pytorch.org/models/resnet50-0676ba61.pth                      a backbone, from ImageNet
    https://download.pytorch.org/models/resnet18-f37072fd.pth                      a backbone, from ImageNet

What becomes of the arrays lives in `cellseg.models.mask_rcnn.published`.
"""

import re
import sys
from pathlib import Path

import numpy as np

from pipelines.files import whole_file

# torchvision wraps each convolution of the heads in a block since 0.13; its file of COCO has the names of before.
OLDER = (
    (re.compile(r"(inner_blocks|layer_blocks)\.(\d)\.0\."), lambda found: f"{found[1]}.{found[2]}."),
    (re.compile(r"rpn\.head\.conv\.0\.0\."), lambda found: "rpn.head.conv."),
    (re.compile(r"mask_head\.(\d)\.0\."), lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}."),
)


def convert(source: Path, target: Path) -> None:
    """PyTorch's file of weights as .npz, without ImageNet's classifier, under torchvision's older names."""
    import torch

    state = torch.load(source, map_location="cpu", weights_only=True)
    kept = {name: array.numpy() for name, array in state.items() if not name.startswith("fc.")}
    with whole_file(target) as path, path.open("wb") as file:
        np.savez(file, **{_older(name): array for name, array in kept.items()})


def _older(name: str) -> str:
    for pattern, rename in OLDER:
        name = pattern.sub(rename, name)
    return name


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"Two arguments are needed: PyTorch's file, and the .npz to write.\n\n{__doc__}")
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
