"""Networks by name. Each file holds one family; blocks that they share live in `cellseg.models.blocks`.

MODELS: name -> builder(input_shape, *, outputs, activation, output_bias, options). OUTPUT_SIZES: name -> (side, *,
options) -> side of the answer, None where the network cannot take a tile of this side. FIXED: name -> (options) ->
whether the network is built for one size alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cellseg.models import dmcn as _dmcn
from cellseg.models import pretrained as _pretrained
from cellseg.models import unet as _unet
from cellseg.models.mask_rcnn import SIDE_FACTOR as _SIDE_FACTOR
from cellseg.models.mask_rcnn import MaskRCNN as _MaskRCNN

MODELS: dict[str, Callable] = {
    "unet": _unet.unet,
    "dmcn": _dmcn.dmcn,
    "pretrained": _pretrained.pretrained,
    "mask_rcnn": _MaskRCNN,
}
OUTPUT_SIZES: dict[str, Callable[..., int | None]] = {
    "unet": _unet.output_size,
    "dmcn": _dmcn.output_size,
    "pretrained": _pretrained.output_size,
    "mask_rcnn": lambda side: side if side > 0 and side % _SIDE_FACTOR == 0 else None,
}
FIXED: dict[str, Callable[[Mapping[str, Any]], bool]] = {"pretrained": _pretrained.fixed_shape}
