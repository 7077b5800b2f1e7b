"""Odd pages: TIFFs whose pages are not alike, colours that are neither grey nor RGB, and images in other files.

Every other odd image lives in `tests.odd_images`; what is broken, in `tests.corpus`, which has them all.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.odd_images import PAGES, REFUSED, SCENE, Case, expect, scene, tiff, write

STACK = np.stack([scene(), np.roll(scene(), 3, axis=1), np.roll(scene(), 5, axis=0)])
WITHOUT: dict[str, Any] = {"metadata": None, "photometric": "minisblack"}
# What may differ from page to page and change no pixel; the middle one of three pages gets the second.
ALIKE: dict[str, Sequence[dict[str, Any]]] = {
    "compression": [{"compression": "zlib"}, {}],
    "codec": [{"compression": "lzw"}, {"compression": "zstd"}],
    "strips": [{"rowsperstrip": 8}, {"rowsperstrip": 16}],
    "tiles": [{"tile": (16, 16)}, {}],
    "predictor": [{"compression": "zlib"}, {"compression": "zlib", "predictor": True}],
}
LINE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def pages() -> Iterator[Case]:
    """All of them."""
    for what, options in ALIKE.items():
        yield expect(f"mixed-{what}.tif", _written(STACK, [options[0], options[1], options[0]]), STACK, STACK)
    # Of eight pages and more tifffile compares three.
    many = np.concatenate([STACK] * 3)
    some = [{}] * 3 + [{"rowsperstrip": 16, "compression": "lzw"}] + [{}] * 5
    yield expect("mixed-one-of-nine.tif", _written(many, some), many, many)
    inverted = [STACK[0], 255 - STACK[1], STACK[2]]
    white = [{}, {"photometric": "miniswhite"}, {}]
    yield expect("mixed-zero-is-white.tif", _written(inverted, white), STACK, np.stack(inverted))
    dtypes = [page.astype(dtype) for page, dtype in zip(STACK, ("u1", "u2", "u1"), strict=True)]
    yield expect("mixed-dtypes.tif", _written(dtypes, [{}] * 3), REFUSED, REFUSED)
    colour = [SCENE, np.stack([SCENE] * 3, axis=-1), SCENE]
    yield expect("mixed-channels.tif", _written(colour, [{}, {"photometric": "rgb"}, {}]), REFUSED, REFUSED)
    yield from _palettes()
    mask = [{}, {"subfiletype": 4}]
    yield expect("mask-page.tif", _written([SCENE, SCENE > 0], mask))
    yield expect("mask-pages.tif", _written([STACK[0], SCENE > 0, STACK[1], SCENE > 0], mask * 2), STACK[:2], STACK[:2])
    yield from _colours()
    other = '<TiffData><UUID FileName="{}">urn:uuid:1</UUID></TiffData>'
    yield expect("ome-binary-only.tif", tiff(description=binary_only(), metadata=None), REFUSED, REFUSED)
    for name, file in {"above": "../../../etc/passwd", "absolute": "/dev/zero", "sibling": "plain.tif"}.items():
        described = tiff(description=ome(other.format(file)), metadata=None)
        yield expect(f"ome-file-{name}.tif", described, REFUSED, REFUSED)
    yield expect("subifds-300000.tif", write(many_subifds(300_000)), REFUSED, REFUSED)
    yield expect("subifd-is-the-page.tif", write(many_subifds(1)), REFUSED, REFUSED)
    whole = scene("float32")
    one = (whole == 50).astype("float32")
    yield expect("float32-no-cell.tif", tiff(array=whole * 0), whole[None] * 0, PAGES * 0)
    yield expect("float32-one-cell.tif", tiff(array=one), one[None], one[None])


def _palettes() -> Iterator[Case]:
    palettes = np.random.default_rng(7).integers(0, 256, (3, 3, 256)).astype(np.uint16) * 257
    for number in (3, 9):  # of eight pages and more tifffile makes one series
        stack = np.concatenate([STACK] * (number // 3))
        options = [{"photometric": "palette", "colormap": palettes[page % 3]} for page in range(number)]
        shown = np.stack([(palettes[page % 3] >> 8).astype(np.uint8).T[one] for page, one in enumerate(stack)])
        yield expect(f"palettes-{number}.tif", _written(stack, options), shown, stack)


def _colours() -> Iterator[Case]:
    whole = scene("float32")
    yield expect("float32-zero-is-white.tif", tiff(array=whole, photometric="miniswhite"), REFUSED, whole[None])
    signed = scene("int16", top=30000)
    yield expect("int16-zero-is-white.tif", tiff(array=signed, photometric="miniswhite"), REFUSED, signed[None])
    four = np.stack([SCENE, SCENE // 2, SCENE // 4, SCENE // 3, SCENE // 5], axis=-1)
    alpha = tiff(array=four, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    yield expect("alpha-in-between.tif", alpha, four[None][..., [0, 1, 2, 4]], REFUSED)
    three = np.ascontiguousarray(four[..., :3])
    for number, name in ((8, "cielab"), (9, "icclab"), (10, "itulab"), (32845, "logluv")):
        yield expect(f"{name}.tif", _recoloured(three, number), REFUSED, REFUSED)
    yield expect("ycbcr.tif", tiff(array=three, photometric="ycbcr", subsampling=(1, 1)), REFUSED, REFUSED)


def _written(stack: Sequence[np.ndarray] | np.ndarray, options: Sequence[dict[str, Any]]) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with tifffile.TiffWriter(path) as out:
            for page, more in zip(stack, options, strict=True):
                out.write(page, **{**WITHOUT, **more})

    return make


def _recoloured(array: np.ndarray, photometric: int) -> Callable[[Path], object]:
    """An RGB TIFF whose tag says that its colours are others."""

    def make(path: Path) -> None:
        tifffile.imwrite(path, array, photometric="rgb", metadata=None)
        with tifffile.TiffFile(path, mode="r+") as tif:
            tif.pages.first.tags[262].overwrite(photometric)

    return make


def ome(data: str, *, frames: int = 1, root: str = "", side: int = SCENE.shape[0]) -> str:
    """OME-XML of one image, (frames, side, side) uint8, whose planes lie where `data` says."""
    return (
        f'<?xml version="1.0"?><OME xmlns="{LINE}" {root}><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYCZT" Type="uint8" SizeX="{side}" SizeY="{side}" SizeC="1" SizeZ="1" SizeT="{frames}">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )


def binary_only() -> str:
    """OME-XML of a file whose description lies in another."""
    return f'<?xml version="1.0"?><OME xmlns="{LINE}"><BinaryOnly MetadataFile="all.ome" UUID="urn:uuid:1"/></OME>'


def many_subifds(number: int) -> bytes:
    """An OME-TIFF whose page names itself `number` times as its smaller copy."""
    text, pixels = ome("<TiffData/>").encode() + b"\0", SCENE.tobytes()
    place = 8 + 2 + 11 * 12 + 4
    tags = [(256, 4, 1, 48), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(270, 2, len(text), place), (273, 4, 1, place + len(text)), (277, 3, 1, 1), (278, 4, 1, 48)]
    tags += [(279, 4, 1, len(pixels)), (330, 4, number, place + len(text) + len(pixels) if number > 1 else 8)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + text + pixels + struct.pack(f"<{number}I", *[8] * number)
