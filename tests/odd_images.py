"""Odd images: what a file of the corpus is, and those that are odd and right: layouts, depths, colours, other programs.

Pages that are not alike live in `tests.odd_pages`; what is broken, or no image at all, in `tests.corpus`, which has
them all.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

from tests.datasets import discs

SIDE, CELLS = 48, 4
REFUSED, EITHER = "refused", "either"
SMALL = {"side": SIDE, "num": CELLS, "radius": 5}


@dataclass(frozen=True)
class Case:
    """One file.

    Args:
        name: Its name; unique.
        make: Writes it, given its path.
        image: The right pixels (N, H, W, C); REFUSED where only a message that names the file is right; EITHER where
            nobody can know what was meant (a flipped bit in raw pixels) and only a fault would be wrong.
        labels: The same for whoever reads labels, (N, H, W).
    """

    name: str
    make: Callable[[Path], object]
    image: np.ndarray | str
    labels: np.ndarray | str


def scene(dtype: str = "uint8", *, top: int = 200) -> np.ndarray:
    """Labels (SIDE, SIDE) whose ids 50, 100, 150, ... up to `top` are grey values, too."""
    return (discs(7, **SMALL) * (top // CELLS)).astype(dtype)


SCENE = scene()
PAGES = SCENE[np.newaxis]


def odd() -> Iterator[Case]:
    """All that are odd and right, and some that are neither but hang together with them."""
    for some in (_layouts, _depths, _colours, _pictures):
        yield from some()


def expect(name: str, make: Callable[[Path], object], image: Any = None, labels: Any = None) -> Case:
    """`image` or `labels` None: the scene."""
    given = [PAGES if one is None else one if isinstance(one, str) else np.asarray(one) for one in (image, labels)]
    pixels = given[0]
    if not isinstance(pixels, str):
        pixels = pixels[..., np.newaxis] if pixels.ndim == 3 else pixels
    return Case(name, make, pixels, given[1])


def tiff(**options: Any) -> Callable[[Path], object]:
    array = options.pop("array", SCENE)
    return lambda path: tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


def tiff_bytes(**options: Any) -> bytes:
    buffer = io.BytesIO()
    array = options.pop("array", SCENE)
    tifffile.imwrite(buffer, array, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def encoded(kind: str, array: np.ndarray, *, mode: str | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = (
        Image.fromarray(array)
        if mode is None
        else Image.merge(mode, [Image.fromarray(one) for one in np.moveaxis(array, -1, 0)])
    )
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _layouts() -> Iterator[Case]:
    """Every way of putting the same pixels into a TIFF."""
    yield expect("plain.tif", tiff())
    for codec in ("lzw", "zlib", "zstd", "packbits", "lzma", "deflate"):
        yield expect(f"{codec}.tif", tiff(compression=codec))
        yield expect(f"{codec}-tiled-big-endian.tif", tiff(compression=codec, tile=(16, 16), byteorder=">"))
    for codec in ("lzw", "zlib", "zstd"):
        deep = scene("uint16", top=40000)
        yield expect(
            f"{codec}-predictor.tif", tiff(array=deep, compression=codec, predictor=True), deep[None], deep[None]
        )
    for codec in ("jpeg2000", "png", "webp"):
        if codec == "webp":
            three = np.stack([SCENE] * 3, axis=-1)
            options = {"array": three, "photometric": "rgb", "compressionargs": {"lossless": True}}
            yield expect("webp.tif", tiff(compression="webp", **options), three[None])
        else:
            options = {"compressionargs": {"reversible": True}} if codec == "jpeg2000" else {}
            yield expect(f"{codec}.tif", tiff(compression=codec, **options))
    # What JPEG makes of the grey values is its own affair; as labels they would be other cells.
    yield expect("jpeg.tif", tiff(compression="jpeg"), EITHER, EITHER)
    yield expect("bigtiff.tif", tiff(bigtiff=True))
    yield expect("bigtiff-big-endian.tif", tiff(bigtiff=True, byteorder=">"))
    yield expect("bigtiff-tiled-zlib.tif", tiff(bigtiff=True, tile=(16, 32), compression="zlib"))
    yield expect("big-endian.tif", tiff(byteorder=">"))
    yield expect("one-row-strips.tif", tiff(rowsperstrip=1))
    yield expect("odd-strips.tif", tiff(rowsperstrip=7, compression="zlib"))
    yield expect("tiles-larger-than-image.tif", tiff(tile=(128, 128)))
    stack = np.stack([scene(), np.roll(scene(), 3, axis=1), np.zeros_like(SCENE)])
    for kind, options in {
        "stack": {},
        "bare-stack": {"metadata": None},
        "ome-stack": {"ome": True, "metadata": {"axes": "TYX"}},
        "imagej-stack": {"imagej": True, "metadata": {"axes": "TYX"}},
        "zlib-stack": {"compression": "zlib"},
        "tiled-stack": {"tile": (16, 16), "compression": "lzw"},
    }.items():
        yield expect(f"{kind}.tif", tiff(array=stack, **options), stack, stack)
    planar = np.stack([SCENE, SCENE // 2, SCENE // 4])
    for kind, options in {
        "planar": {},
        "planar-tiled": {"tile": (16, 16)},
        "planar-lzw": {"compression": "lzw"},
    }.items():
        yield expect(
            f"{kind}.tif",
            tiff(array=planar, photometric="rgb", planarconfig="separate", **options),
            np.moveaxis(planar, 0, -1)[None],
            REFUSED,
        )
    yield expect("pyramid.tif", _pyramid)
    yield expect("thumbnail-first.tif", _two_sizes, REFUSED, REFUSED)
    yield expect("one-pixel.tif", tiff(array=SCENE[:1, :1]), PAGES[:, :1, :1], PAGES[:, :1, :1])
    yield expect("one-row.tif", tiff(array=SCENE[20:21]), PAGES[:, 20:21], PAGES[:, 20:21])
    yield expect("one-column.tif", tiff(array=SCENE[:, 20:21]), PAGES[:, :, 20:21], PAGES[:, :, 20:21])
    yield expect("black.tif", tiff(array=SCENE * 0), PAGES * 0, PAGES * 0)
    yield expect("white.tif", tiff(array=SCENE * 0 + 255), PAGES * 0 + 255, PAGES * 0 + 255)
    yield expect("trailing-rubbish.tif", write(tiff_bytes() + b"\0rubbish" * 99))


def _depths() -> Iterator[Case]:
    """Integers of all widths, floats, and what no image may hold."""
    for dtype, top in (("uint16", 60000), ("uint32", 60000), ("int16", 30000), ("int32", 60000), ("int8", 120)):
        array = scene(dtype, top=top)
        read = array.astype("uint8" if dtype == "int8" else "uint16")[None]
        yield expect(f"{dtype}.tif", tiff(array=array), read, array[None])
        yield expect(
            f"{dtype}-big-endian-lzw.tif", tiff(array=array, byteorder=">", compression="lzw"), read, array[None]
        )
    wide = scene("int64", top=60000)
    yield expect("int64.tif", tiff(array=wide), wide.astype("uint16")[None], wide[None])
    yield expect(
        "uint32-large-ids.tif",
        tiff(array=scene("uint32", top=2**31 - 4)),
        REFUSED,
        scene("uint32", top=2**31 - 4)[None],
    )
    yield expect("uint32-beyond-int32.tif", tiff(array=scene("uint32", top=2**32 - 4)), REFUSED, REFUSED)
    for dtype in ("int8", "int16", "int32", "float32"):
        negative = scene(dtype, top=100) - np.array(60, dtype)
        image = negative[None] if dtype == "float32" else REFUSED
        yield expect(f"{dtype}-negative.tif", tiff(array=negative), image, REFUSED)
    for bits in (1, 12):
        packed, pixels = _packed(bits)
        yield expect(f"{bits}-bit.tif", write(packed), pixels[None], pixels[None])
    yield expect("4-bit.tif", write(_packed(4)[0]), _packed(4)[1][None], _packed(4)[1][None])
    whole = scene("float32")
    yield expect("float32-whole.tif", tiff(array=whole), whole[None], whole[None])
    yield expect("float16-whole.tif", tiff(array=whole.astype("float16")), whole[None], whole[None])
    yield expect("float64-whole.tif", tiff(array=whole.astype("float64")), whole[None], whole[None])
    yield expect(
        "float32-predictor.tif", tiff(array=whole, compression="zlib", predictor=True), whole[None], whole[None]
    )
    fractions = whole / 256
    yield expect("float32-fractions.tif", tiff(array=fractions), fractions[None], REFUSED)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        for dtype in ("float32", "float64", "float16"):
            broken = whole.astype(dtype)
            broken[5, 6] = value
            # The reader gives them as they are; whoever uses them as an image must refuse.
            yield expect(f"{dtype}-{name}.tif", tiff(array=broken), REFUSED, REFUSED)
        yield expect(f"all-{name}.tif", tiff(array=np.full_like(whole, value)), REFUSED, REFUSED)
    yield expect("float64-huge.tif", tiff(array=whole.astype("float64") * 1e300), REFUSED, REFUSED)
    yield expect("complex64.tif", tiff(array=whole.astype("complex64")), REFUSED, REFUSED)


def _colours() -> Iterator[Case]:
    """Palettes, inversions, alpha, CMYK."""
    palette = np.random.default_rng(5).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    shown = (palette >> 8).astype(np.uint8).T[SCENE][None]
    yield expect("palette.tif", tiff(photometric="palette", colormap=palette), shown)
    yield expect("palette-lzw.tif", tiff(photometric="palette", colormap=palette, compression="lzw"), shown)
    yield expect("zero-is-white.tif", tiff(photometric="miniswhite"), 255 - PAGES)
    rgb = np.stack([SCENE, SCENE // 2, SCENE // 4], axis=-1)
    alpha = np.concatenate([rgb, np.full_like(rgb[..., :1], 9)], axis=-1)
    yield expect("rgb.tif", tiff(array=rgb, photometric="rgb"), rgb[None], REFUSED)
    yield expect("rgb-zstd.tif", tiff(array=rgb, photometric="rgb", compression="zstd"), rgb[None], REFUSED)
    rgba = tiff(array=alpha, photometric="rgb", extrasamples=["unassalpha"])
    yield expect("rgba.tif", rgba, rgb[None], REFUSED)
    grey_alpha = tiff(array=alpha[..., [0, 3]], planarconfig="contig", extrasamples=["unassalpha"])
    yield expect("grey-alpha.tif", grey_alpha, PAGES, PAGES)
    same = np.stack([SCENE] * 3, axis=-1)
    yield expect("rgb-of-one-value.tif", tiff(array=same, photometric="rgb"), same[None], PAGES)
    yield expect("cmyk.tif", tiff(array=alpha, photometric="separated"), REFUSED, REFUSED)
    five = np.stack([SCENE] * 5)
    yield expect(
        "five-channels.tif",
        tiff(array=five, imagej=True, metadata={"axes": "CYX"}),
        np.moveaxis(five, 0, -1)[None],
        PAGES,
    )


def _pictures() -> Iterator[Case]:
    """PNG, BMP and JPEG, and what bears their names."""
    png = encoded("PNG", SCENE)
    yield expect("grey.png", write(png))
    yield expect("optimized.png", write(encoded("PNG", SCENE, optimize=True)))
    yield expect(
        "grey-16.png",
        write(cv2.imencode(".png", scene("uint16", top=60000))[1].tobytes()),
        scene("uint16", top=60000)[None],
        scene("uint16", top=60000)[None],
    )
    yield expect(
        "bilevel.png",
        write(encoded("PNG", SCENE > 0)),
        255 * (PAGES > 0).astype(np.uint8),
        255 * (PAGES > 0).astype(np.uint8),
    )
    rgb = np.stack([SCENE, SCENE // 2, SCENE // 4], axis=-1)
    yield expect("rgb.png", write(encoded("PNG", rgb)), rgb[None], REFUSED)
    yield expect("rgba.png", write(encoded("PNG", np.dstack([rgb, SCENE]))), rgb[None], REFUSED)
    yield expect("grey-alpha.png", write(encoded("PNG", np.dstack([SCENE, SCENE]), mode="LA")), PAGES, PAGES)
    yield expect("grey.bmp", write(encoded("BMP", SCENE)))
    yield expect("rgb.bmp", write(encoded("BMP", rgb)), rgb[None], REFUSED)
    yield expect("grey.jpg", write(encoded("JPEG", SCENE)), EITHER, REFUSED)
    yield expect("rgb.jpg", write(encoded("JPEG", rgb)), EITHER, REFUSED)
    yield expect("progressive.jpeg", write(encoded("JPEG", rgb, progressive=True)), EITHER, REFUSED)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 305, 2, 10**6, 26)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    jpeg = encoded("JPEG", rgb)
    yield expect("broken-exif.jpg", write(jpeg[:2] + segment + jpeg[2:]), EITHER, REFUSED)
    cmyk = io.BytesIO()
    Image.fromarray(rgb).convert("CMYK").save(cmyk, "JPEG")
    yield expect("cmyk.jpg", write(cmyk.getvalue()), EITHER, REFUSED)
    yield expect("cmyk.png", write(cmyk.getvalue()), EITHER, REFUSED)  # PNG has no CMYK: a JPEG by that name
    palette = Image.fromarray(SCENE).convert("P")
    palette.putpalette(np.random.default_rng(6).integers(0, 256, 768).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    colours = np.array(palette.convert("RGB"))
    yield expect("palette.png", write(buffer.getvalue()), colours[None], np.array(palette)[None])
    frames = [Image.fromarray(np.roll(SCENE, shift, axis=1)) for shift in (0, 3, 6)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], duration=50)
    yield expect("animated.png", write(buffer.getvalue()), EITHER, EITHER)
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=50)
    yield expect("animated-gif.png", write(buffer.getvalue()), REFUSED, REFUSED)
    yield expect("gif.tif", write(buffer.getvalue()), REFUSED, REFUSED)
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", lossless=True)
    yield expect("webp.jpg", write(buffer.getvalue()), REFUSED, REFUSED)
    # By another name: what is inside counts among PNG, BMP and JPEG; TIFF and those do not pass for each other.
    yield expect("png-inside.jpg", write(png))
    yield expect("png-inside.bmp", write(png))
    yield expect("bmp-inside.png", write(encoded("BMP", SCENE)))
    yield expect("tiff-inside.png", write(tiff_bytes()), REFUSED, REFUSED)
    yield expect("png-inside.tif", write(png), REFUSED, REFUSED)
    yield expect("text.tif", write(b"no picture, but a sentence\n" * 9), REFUSED, REFUSED)
    yield expect("text.png", write(b"no picture, but a sentence\n" * 9), REFUSED, REFUSED)
    yield expect("html.jpg", write(b"<html><body>404 not found</body></html>"), REFUSED, REFUSED)
    yield expect("zip.tif", write(b"PK\3\4" + bytes(400)), REFUSED, REFUSED)
    yield expect("pickle.tif", write(b"cos\nsystem\n(S'touch /tmp/never'\ntR."), REFUSED, REFUSED)
    chunk = b"tEXtComment\0" + b"x" * 5000
    extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    yield expect("long-comment.png", write(png[:33] + extra + png[33:]))
    bomb = b"zTXtComment\0\0" + zlib.compress(bytes(2**26))
    extra = struct.pack(">I", len(bomb) - 4) + bomb + struct.pack(">I", zlib.crc32(bomb))
    yield expect("comment-bomb.png", write(png[:33] + extra + png[33:]), EITHER, EITHER)


def _packed(bits: int) -> tuple[bytes, np.ndarray]:
    """A TIFF of `bits` a pixel, by hand, and its pixels."""
    values = scene("uint16", top=2**bits - 1 if bits > 2 else CELLS)
    values = np.minimum(values, 2**bits - 1)
    stream = ((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).reshape(SIDE, -1)
    data = np.packbits(stream, axis=1).tobytes()
    tags = [(256, 4, SIDE), (257, 4, SIDE), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, SIDE), (279, 4, len(data))]
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags
    )
    pixels = (255 * values if bits == 1 else values).astype(np.uint8 if bits <= 8 else np.uint16)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4), pixels


def _pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as out:
        out.write(SCENE, subifds=1, tile=(16, 16), photometric="minisblack")
        out.write(SCENE[::2, ::2].copy(), subfiletype=1, tile=(16, 16), photometric="minisblack")


def _two_sizes(path: Path) -> None:
    with tifffile.TiffWriter(path) as out:
        for array in (SCENE[::4, ::4].copy(), SCENE):
            out.write(array, photometric="minisblack", metadata=None)
