"""Geometry of inference: how large the tiles of an experiment's network are, and how their answers meet.

Tiles are cut and stitched in `pipelines.tiling`; the network itself answers in `cellseg.inference`.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cellseg.experiment import Experiment
from cellseg.named import check_options
from cellseg.networks import GIVEN, answer_size, has_fixed_size, size_function
from pipelines.errors import InputError
from pipelines.tiling import Blend

# Time a pixel is the same from 256 to 1088 px (docs/performance.md); what larger tiles save is overlap.
LARGEST_TILE = 1088
TILE_BYTES, BYTES_PER_FILTER = 2**30, 24  # features of a U-Net take 24 bytes a pixel and filter of its first level
OVERLAP = 64
RIM = 2  # strides of the network


@dataclass(frozen=True)
class Tiling:
    """Geometry of inference, in pixels; see `pipelines.tiling.predict_tiled`.

    Args:
        tile: Side of a tile.
        output: Side of what is kept of its answer.
        overlap: Of neighbouring answers.
        stride: Tiles start at multiples of it.
        blend: How answers are weighted where they overlap.
        resize: Take the whole image as one tile instead (`predict_resized`).
    """

    tile: int
    output: int
    overlap: int
    stride: int = 1
    blend: Blend = "linear"
    resize: bool = False


def tiling(experiment: Experiment, *, shapes: Sequence[tuple[int, int]]) -> Tiling:
    """Geometry of inference for an experiment.

    The YAML's `inference.tile`, `overlap`, `rim` and `blend` win. Otherwise a `valid` network keeps its training patch
    and needs no overlap, and any other gets the tile with the fewest pixels to compute on images of these shapes. Of a
    network that finds cells one by one, tiles overlap and nothing else: what is cut off in one is whole in another.

    A `same` network pads with zeros, which it has seen at the border of its training patches alone: a rim of RIM
    strides, mirrored at the image's border, is computed and cut off, and answers are blended by a bell. On ISBI's
    validation slices this raised average precision from 0.35 to 0.42 and brought tiles within 0.0004 of the whole image
    (docs/trials.md); a tile that would lose more than a quarter of its side to the rim has a narrower one.

    With `blend: halo` a tile loses the rim that its border can reach, `receptive_radius` rounded up to the network's
    stride; it needs no overlap, and its grid is that of `method: exact`.

    Args:
        experiment: Its model, train and inference sections are read.
        shapes: (H, W) of the images.

    Raises:
        InputError: a tile that the network cannot take, or a rim or halo that it has no use for or no room.
    """
    asked, patch, output_size = experiment.inference, experiment.train.patch, size_function(experiment)
    if experiment.detects:
        return _detecting(experiment, shapes)
    tile, overlap = asked.tile, asked.overlap
    loses_rim = not has_fixed_size(experiment) and answer_size(experiment, patch) < patch
    padded = asked.method == "exact" and not loses_rim  # with zeros, at the border of every tile
    rim, told = asked.rim or 0, "inference.rim"
    if asked.blend == "halo":
        rim, overlap, told = _halo(experiment, loses_rim=loses_rim), overlap or 0, "inference.blend: halo"
    elif rim and loses_rim:
        raise InputError(
            f"inference.rim is {rim}, but this network loses its rim by itself (padding valid). Leave it out."
        )
    elif asked.rim is None and padded:
        rim = _mirrored_rim(experiment, tile or (patch if has_fixed_size(experiment) else None))
    if has_fixed_size(experiment):
        if tile not in (None, patch):
            raise InputError(
                f"inference.tile is {tile}, but this network is built for tiles of train.patch, {patch} px. Leave "
                "inference.tile out."
            )
        tile = patch
    elif loses_rim:
        tile, overlap = tile or patch, overlap or 0
    elif tile is None:
        overlap = OVERLAP if overlap is None else overlap
        legal = [side for side in range(1, largest_tile(experiment) + 1) if output_size(side) == side]
        tile = cheapest_tile(shapes, overlap=overlap, legal=legal, rim=rim, told=told)
    output = answer_size(experiment, tile) - 2 * rim
    if output <= 0:
        raise InputError(f"inference.tile is {tile}, but {told} takes {rim} px off every side. Use more.")
    overlap = min(OVERLAP, output // 4) if overlap is None else overlap
    return Tiling(
        tile,
        output,
        overlap,
        stride=network_stride(experiment) if asked.method == "exact" or asked.blend == "halo" else 1,
        blend="gaussian" if asked.blend == "gaussian" or (asked.blend is None and padded) else "linear",
        resize=asked.method == "resize",
    )


def _detecting(experiment: Experiment, shapes: Sequence[tuple[int, int]]) -> Tiling:
    """Of a network that finds cells one by one: tiles that overlap, with nothing to blend."""
    tile, overlap, output_size = experiment.inference.tile, experiment.inference.overlap, size_function(experiment)
    if tile is None:
        zoom = experiment.inference.zoom[0]
        shapes = [(round(height * zoom), round(width * zoom)) for height, width in shapes]
        legal = [side for side in range(1, LARGEST_TILE + 1) if output_size(side) == side]
        usual = min(OVERLAP, max(map(max, shapes)) // 4) if overlap is None else overlap
        tile = cheapest_tile(shapes, overlap=usual, legal=legal)
    return Tiling(tile, answer_size(experiment, tile), min(OVERLAP, tile // 4) if overlap is None else overlap)


def _mirrored_rim(experiment: Experiment, tile: int | None) -> int:
    """RIM strides, or as many as an eighth of a given tile has room for."""
    stride = network_stride(experiment)
    return stride * (RIM if tile is None else min(RIM, tile // 8 // stride))


def largest_tile(experiment: Experiment) -> int:
    """Side of the largest tile that is chosen by itself: its features take about a gigabyte at most."""
    from cellseg.models import MODELS

    known = inspect.signature(MODELS[experiment.model["name"]]).parameters.get("filters")
    filters = experiment.model.get("filters", known.default if known else 64)
    return min(LARGEST_TILE, math.isqrt(TILE_BYTES // (BYTES_PER_FILTER * filters)))


def network_stride(experiment: Experiment) -> int:
    """Pixels by which an image can be shifted so that the network's answer only shifts: the step of its legal sides."""
    from cellseg.models.sizes import nearest_sizes

    output_size = size_function(experiment)
    _, first = nearest_sizes(0, output_size)
    return nearest_sizes(first, output_size)[1] - first


def receptive_radius(experiment: Experiment) -> int | None:
    """How far an input pixel can reach in the network's answer, or more; None where it is not known."""
    from cellseg.models import MODELS, dmcn, unet

    options = check_options(MODELS, experiment.model, key="model", given=GIVEN)
    if experiment.model["name"] == "unet":
        return unet.receptive_radius(**{name: value for name, value in options.items() if name == "depth"})
    if experiment.model["name"] == "dmcn":
        levels = range(len(dmcn.CONVOLUTIONS))
        convolutions = sum(count * 2**level for count, level in zip(dmcn.CONVOLUTIONS, levels, strict=True))
        # A pooling of level l adds up to 2**l, the last level's deconvolution up to FACTOR - 1, its two convolutions 1.
        return convolutions + sum(2**level for level in levels[:-1]) + dmcn.FACTOR - 1 + 2
    return None


def _halo(experiment: Experiment, *, loses_rim: bool) -> int:
    """The rim that `blend: halo` cuts off a tile's answer: the least multiple of the stride that hides its border."""
    if loses_rim:
        raise InputError(
            "inference.blend is halo, but this network loses its rim by itself (padding valid). Leave inference.blend "
            "out; inference.method: exact makes tiles agree."
        )
    radius = receptive_radius(experiment)
    if radius is None:
        raise InputError(
            f"inference.blend is halo, but how far the network '{experiment.model['name']}' sees is not known. Use "
            "gaussian or linear."
        )
    stride = network_stride(experiment)
    return -(-radius // stride) * stride


def cheapest_tile(
    shapes: Sequence[tuple[int, int]], *, overlap: int, legal: Sequence[int], rim: int = 0, told: str = "inference.rim"
) -> int:
    """The side among the legal ones with the fewest pixels to compute in all.

    What is left of a tile without its rims is at least twice the overlap.
    """

    def cost(tile: int) -> int:
        step = tile - 2 * rim - overlap
        pieces = [[max(1, -(-(side - overlap) // step)) for side in shape] for shape in shapes]
        return sum(rows * columns for rows, columns in pieces) * tile * tile

    kept = {side: side - 2 * rim for side in legal}
    large = [side for side in legal if kept[side] >= max(2 * overlap, 1) and kept[side] > overlap]
    if not large and 2 * overlap <= max(legal):
        raise InputError(
            f"{told} takes {rim} px off every side of a tile, and tiles of {max(legal)} px leave too little of it for "
            f"inference.overlap {overlap}. Set inference.tile, or choose another blend or rim."
        )
    if not large:
        raise InputError(
            f"inference.overlap must be below half of {max(legal)} px, got {overlap}; or set inference.tile."
        )
    return min(large, key=lambda tile: (cost(tile), tile))
