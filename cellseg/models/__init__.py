"""Networks by name. Each file holds one family; blocks that they share live in `cellseg.models.blocks`."""

from cellseg.models.unet import unet

MODELS = {"unet": unet}
