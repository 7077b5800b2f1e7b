"""Corpus: some 400 broken or odd image files, made by a seed, each with what a reader must make of it.

Those that are odd and right live in `tests.odd_images` and `tests.odd_pages`. What the commands make of all is swept by
`tests.reliability.bad_input`; bytes that nobody has thought of are tried by `tests.reliability.fuzzing`.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.odd_images import EITHER, REFUSED, SCENE, SIDE, Case, encoded, expect, odd, tiff, tiff_bytes, write
from tests.odd_pages import ome, pages


def cases(seed: int = 0) -> list[Case]:
    """All files, the same for the same seed."""
    rng = np.random.default_rng(seed)
    found = [*odd(), *pages(), *_damaged(rng), *_tags(), *_enormous(), *_places()]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return found


def _damaged(rng: np.random.Generator) -> Iterator[Case]:
    """Cut short and flipped bytes, of every kind of file."""
    wholes = {
        "plain.tif": tiff_bytes(),
        "zlib.tif": tiff_bytes(compression="zlib"),
        "lzw-tiled.tif": tiff_bytes(compression="lzw", tile=(16, 16)),
        "zstd.tif": tiff_bytes(compression="zstd"),
        "bigtiff.tif": tiff_bytes(bigtiff=True, compression="packbits"),
        "jpeg.tif": tiff_bytes(compression="jpeg"),
        "stack.tif": tiff_bytes(array=np.stack([SCENE, SCENE]), compression="zlib"),
        "ome.tif": tiff_bytes(array=np.stack([SCENE, SCENE]), ome=True, metadata={"UUID": "0"}),  # else a random one
        "grey.png": encoded("PNG", SCENE),
        "grey.bmp": encoded("BMP", SCENE),
        "grey.jpg": encoded("JPEG", SCENE),
    }
    for name, whole in wholes.items():
        stem, suffix = os.path.splitext(name)
        for number, cut in enumerate(sorted(rng.choice(np.arange(1, len(whole) - 40), 5, replace=False))):
            yield expect(f"cut{number}-{stem}{suffix}", write(whole[:cut]), REFUSED, REFUSED)
        for number in range(4):
            place = int(rng.integers(0, min(len(whole), 260)))
            yield expect(f"head{number}-{stem}{suffix}", write(_flipped(whole, rng, place)), EITHER, EITHER)
        for number in range(3):
            place = int(rng.integers(len(whole) // 3, len(whole)))
            yield expect(f"body{number}-{stem}{suffix}", write(_flipped(whole, rng, place)), EITHER, EITHER)
    for number in range(4):
        noise = rng.integers(0, 256, 3000).astype(np.uint8).tobytes()
        yield expect(f"noise{number}.tif", write(b"II*\0\x08\0\0\0" + noise), REFUSED, REFUSED)
    yield expect("noise.png", write(b"\x89PNG\r\n\x1a\n" + noise), REFUSED, REFUSED)
    yield expect("noise.bmp", write(b"BM" + noise), REFUSED, REFUSED)
    yield expect("noise.jpg", write(b"\xff\xd8\xff\xe0" + noise), REFUSED, REFUSED)
    middle = bytearray(wholes["plain.tif"])
    middle[len(middle) // 2 : len(middle) // 2 + 100] = b""
    yield expect("hole.tif", write(bytes(middle)), REFUSED, REFUSED)


def _tags() -> Iterator[Case]:
    """TIFFs whose header says what cannot be."""
    yield expect("header-alone.tif", write(b"II*\0\0\0\0\0"), REFUSED, REFUSED)
    yield expect("header-to-itself.tif", write(b"II*\0" + struct.pack("<I", 0) + bytes(50)), REFUSED, REFUSED)
    yield expect("header-beyond.tif", write(b"II*\0" + struct.pack("<I", 2**31) + bytes(50)), REFUSED, REFUSED)
    yield expect("no-tags.tif", write(b"II*\0\x08\0\0\0" + bytes(6)), REFUSED, REFUSED)
    loop = bytearray(tiff_bytes(metadata=None))
    end = _end_of_directory(loop)
    loop[end : end + 4] = loop[4:8]
    yield expect("pages-in-a-circle.tif", write(bytes(loop)), REFUSED, REFUSED)
    # Tag, value, and what may come of it.
    values: list[tuple[str, int, int, Any]] = [
        ("width-0", 256, 0, REFUSED),
        ("height-0", 257, 0, REFUSED),
        ("width-narrower", 256, SIDE - 8, EITHER),
        ("width-wider", 256, SIDE + 8, REFUSED),
        ("bits-0", 258, 0, REFUSED),
        ("bits-7", 258, 7, EITHER),
        ("bits-24", 258, 24, REFUSED),
        ("bits-65000", 258, 65000, REFUSED),
        ("compression-unknown", 259, 54321, REFUSED),
        ("compression-fax", 259, 4, EITHER),
        ("compression-old-jpeg", 259, 6, REFUSED),
        ("compression-deflate", 259, 8, REFUSED),
        ("compression-lzw", 259, 5, EITHER),
        ("photometric-unknown", 262, 999, EITHER),
        ("photometric-palette", 262, 3, EITHER),
        ("photometric-ycbcr", 262, 6, EITHER),
        ("strip-at-0", 273, 0, EITHER),
        ("strip-beyond", 273, 10**6, REFUSED),
        ("samples-0", 277, 0, EITHER),
        ("samples-3", 277, 3, REFUSED),
        ("samples-60000", 277, 60000, REFUSED),
        ("rows-0", 278, 0, EITHER),
        ("rows-beyond", 278, 10**6, EITHER),
        ("bytes-0", 279, 0, REFUSED),
        ("bytes-few", 279, 100, EITHER),
    ]
    for name, tag, value, image in values:
        yield expect(f"{name}.tif", write(_with_tag(tiff_bytes(metadata=None), tag, value)), image, image)
    packed = tiff_bytes(metadata=None, compression="zlib")
    for name, tag, value in (("zlib-width-0", 256, 0), ("zlib-wider", 256, SIDE + 8), ("zlib-bits-64", 258, 64)):
        yield expect(f"{name}.tif", write(_with_tag(packed, tag, value)), REFUSED, REFUSED)
    strips = tiff_bytes(metadata=None, compression="zlib", rowsperstrip=4)
    yield expect("strips-missing.tif", write(_with_tag(strips, 257, SIDE + 8)), REFUSED, REFUSED)
    predicted = tiff_bytes(metadata=None, compression="zlib", predictor=True)
    yield expect("predictor-unknown.tif", write(_with_tag(predicted, 317, 77)), REFUSED, REFUSED)
    yield expect("predictor-float.tif", write(_with_tag(predicted, 317, 3)), EITHER, EITHER)
    tiled = tiff_bytes(metadata=None, tile=(16, 16))
    for name, tag, value in (
        ("tile-0", 322, 0),
        ("tile-0-high", 323, 0),
        ("tile-15", 322, 15),
        ("tile-60000", 322, 60000),
    ):
        yield expect(
            f"{name}.tif",
            write(_with_tag(tiled, tag, value)),
            REFUSED if "15" not in name else EITHER,
            REFUSED if "15" not in name else EITHER,
        )
    for name, text in {
        "ome-empty": "<OME/>",
        "ome-not-xml": '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image',
        "ome-laughs": _laughs(),
        "ome-entity": _external_entity(),
        "ome-many-planes": ome("<TiffData/>", frames=10**6),
        "ome-no-size": ome("<TiffData/>").replace('SizeX="48"', 'SizeX="x"'),
        "ome-other-file": ome('<TiffData><UUID FileName="../../../etc/passwd">urn:uuid:1</UUID></TiffData>'),
    }.items():
        kind = REFUSED if name in ("ome-laughs", "ome-entity", "ome-other-file") else EITHER
        yield expect(f"{name}.tif", tiff(description=text, metadata=None), kind, kind)
    for name, text in {
        "imagej-many-frames": "ImageJ=1.54f\nimages=1000000\nframes=1000000\nhyperstack=true\n",
        "imagej-negative": "ImageJ=1.54f\nimages=-5\nframes=-5\n",
        "imagej-words": "ImageJ=1.54f\nimages=many\nunit=\\u00\nfinterval=nan\n",
        "shaped-other": '{"shape": [5, 48, 48]}',
        "shaped-enormous": '{"shape": [1000000, 48, 48]}',
        "shaped-text": '{"shape": "48"}',
    }.items():
        yield expect(f"{name}.tif", tiff(description=text, metadata=None), EITHER, EITHER)
    yield expect("resolution-0.tif", tiff(resolution=((0, 1), (0, 1)), resolutionunit="CENTIMETER"))
    zero = tiff_bytes(resolution=(100.0, 100.0), resolutionunit="CENTIMETER", metadata=None)
    yield expect("resolution-over-0.tif", write(_rational_over_zero(zero)))
    yield expect("no-end-of-pages.tif", write(_next_page(tiff_bytes(metadata=None), 7)), REFUSED, REFUSED)


def _enormous() -> Iterator[Case]:
    """Files of some kilobytes, some megabytes at most, that claim to be gigabytes."""
    plain = tiff_bytes(metadata=None)
    packed = {
        codec: tiff_bytes(metadata=None, compression=codec) for codec in ("zlib", "lzw", "zstd", "packbits", "lzma")
    }
    for name, width, height in (
        ("wide", 2**31 - 1, SIDE),
        ("high", SIDE, 2**31 - 1),
        ("both", 200000, 200000),
        ("all", 2**32 - 1, 2**32 - 1),
    ):
        yield expect(f"enormous-{name}.tif", write(_sized(plain, width, height)), REFUSED, REFUSED)
    for codec, data in packed.items():
        yield expect(f"enormous-{codec}.tif", write(_sized(data, 60000, 60000)), REFUSED, REFUSED)
    tiles = tiff_bytes(metadata=None, compression="zlib", tile=(16, 16))
    yield expect("enormous-tiled.tif", write(_sized(tiles, 100000, 100000)), REFUSED, REFUSED)
    one = _with_tag(_with_tag(tiles, 322, 65520), 323, 65520)
    yield expect("enormous-tile.tif", write(one), REFUSED, REFUSED)
    yield expect("enormous-samples.tif", write(_with_tag(packed["zlib"], 277, 65535)), REFUSED, REFUSED)
    # Not only a claim: strips of zeros that deflate to all these bytes.
    yield expect("bomb-zlib.tif", _bomb, REFUSED, REFUSED)
    yield expect("enormous.png", write(_png_header(60000, 60000)), REFUSED, REFUSED)
    yield expect("enormous-2-31.png", write(_png_header(2**31 - 1, 2**31 - 1)), REFUSED, REFUSED)
    yield expect("bomb.png", lambda path: path.write_bytes(_png_bomb(60000, 60000)), REFUSED, REFUSED)
    bmp = bytearray(encoded("BMP", SCENE))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    yield expect("enormous.bmp", write(bytes(bmp)), REFUSED, REFUSED)
    bmp[18:26] = struct.pack("<ii", 12000, 12000)
    yield expect("large.bmp", write(bytes(bmp)), REFUSED, REFUSED)
    jpeg = bytearray(encoded("JPEG", SCENE))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    yield expect("enormous.jpg", write(bytes(jpeg)), REFUSED, REFUSED)
    many = _with_tag_count(plain, 273, 2**30)
    yield expect("enormous-tag.tif", write(many), REFUSED, REFUSED)


def _places() -> Iterator[Case]:
    """Files that are none, and names that programs stumble over."""
    yield expect("empty.tif", write(b""), REFUSED, REFUSED)
    yield expect("empty.png", write(b""), REFUSED, REFUSED)
    yield expect("empty.jpg", write(b""), REFUSED, REFUSED)
    yield expect("one-byte.tif", write(b"I"), REFUSED, REFUSED)
    yield expect("folder.tif", lambda path: path.mkdir(), REFUSED, REFUSED)
    yield expect("folder.png", lambda path: path.mkdir(), REFUSED, REFUSED)
    yield expect("link-to-itself.tif", lambda path: path.symlink_to(path.name), REFUSED, REFUSED)
    yield expect("link-in-a-circle.tif", _circle, REFUSED, REFUSED)
    yield expect("link-to-nothing.tif", lambda path: path.symlink_to("nowhere.tif"), REFUSED, REFUSED)
    yield expect("link-to-a-folder.tif", lambda path: path.symlink_to("..", target_is_directory=True), REFUSED, REFUSED)
    yield expect("fifo.tif", lambda path: os.mkfifo(path), REFUSED, REFUSED)
    yield expect("device.tif", lambda path: path.symlink_to("/dev/zero"), REFUSED, REFUSED)
    for name in (
        "two words.tif",
        "Zellkerne größer 5 µm.tif",
        "细胞.tif",
        "клетка.png",
        "emoji-🔬.tif",
        "-rf.tif",
        "--help.tif",
        "a;b&c|d.tif",
        "quote'\".tif",
        "<script>alert(1)<!--script>.tif",
        "100%s{0}$HOME.tif",
        "new\nline.tif",
        "UPPER.TIF",
        "many.dots.in.it.tif",
        "dot .tif",
        "é combined vs é.tif",
        "x" * 200 + ".tif",
        "[1-3]*?.tif",
        "=1+1.png",
    ):
        yield expect(name, tiff() if name.lower().endswith("tif") else write(encoded("PNG", SCENE)))


# How the files are put together


def _flipped(data: bytes, rng: np.random.Generator, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


def _directory(data: bytes | bytearray) -> tuple[int, int]:
    """Place of the first entry of a little-endian TIFF's first page, and the number of entries."""
    (offset,) = struct.unpack_from("<I", data, 4)
    (number,) = struct.unpack_from("<H", data, offset)
    return offset + 2, number


def _end_of_directory(data: bytes | bytearray) -> int:
    first, number = _directory(data)
    return first + 12 * number


def _entry(data: bytes | bytearray, tag: int) -> int:
    first, number = _directory(data)
    return next(
        place for place in range(first, first + 12 * number, 12) if struct.unpack_from("<H", data, place)[0] == tag
    )


def _with_tag(data: bytes, tag: int, value: int) -> bytes:
    changed = bytearray(data)
    place = _entry(changed, tag)
    changed[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(changed)


def _with_tag_count(data: bytes, tag: int, count: int) -> bytes:
    changed = bytearray(data)
    place = _entry(changed, tag)
    changed[place + 4 : place + 8] = struct.pack("<I", count)
    return bytes(changed)


def _sized(data: bytes, width: int, height: int) -> bytes:
    changed = _with_tag(_with_tag(data, 256, width), 257, height)
    return _with_tag(changed, 278, height) if struct.pack("<H", 278) in data else changed


def _next_page(data: bytes, offset: int) -> bytes:
    changed = bytearray(data)
    end = _end_of_directory(changed)
    changed[end : end + 4] = struct.pack("<I", offset)
    return bytes(changed)


def _rational_over_zero(data: bytes) -> bytes:
    changed = bytearray(data)
    for tag in (282, 283):
        (place,) = struct.unpack_from("<I", changed, _entry(changed, tag) + 8)
        changed[place + 4 : place + 8] = bytes(4)
    return bytes(changed)


def _bomb(path: Path) -> None:
    """100000 x 40000 zeros in 12 kB: a strip of 4 MB of zeros deflates to 4 kB, and stands for all strips."""
    strip = zlib.compress(bytes(40 * 100000), 9)
    number = 1000
    offsets = [8] * number  # the same bytes serve for every strip
    tags = [(256, 4, 1, 100000), (257, 4, 1, 40 * number), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    tables = 8 + len(strip) + len(strip) % 2
    tags += [(273, 4, number, tables), (277, 3, 1, 1), (278, 4, 1, 40), (279, 4, number, tables + 4 * number)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    place = tables + 8 * number
    body = strip + bytes(len(strip) % 2) + struct.pack(f"<{number}I", *offsets)
    body += struct.pack(f"<{number}I", *[len(strip)] * number)
    path.write_bytes(b"II*\0" + struct.pack("<I", place) + body + directory)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_header(width: int, height: int) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")


def _png_bomb(width: int, height: int) -> bytes:
    """Zeros, of which a hundred lines are compressed once and stand there again and again."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    lines = squeeze.compress(bytes(width + 1) * 100) + squeeze.flush(zlib.Z_FULL_FLUSH)
    total = (width + 1) * height
    body = b"\x78\x01" + lines * (height // 100) + b"\x03\x00" + struct.pack(">HH", total % 65521, 1)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _laughs() -> str:
    """Entities that unfold to 10**9 words."""
    lines = ['<!ENTITY l0 "lol">'] + [f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10)]
    head, body = ome("<TiffData/>").split("?>", 1)
    return f"{head}?><!DOCTYPE OME [{''.join(lines)}]>{body.replace('<TiffData/>', '<TiffData/><X>&l9;</X>')}"


def _external_entity() -> str:
    head, body = ome("<TiffData/>").split("?>", 1)
    inside = body.replace("<TiffData/>", "<TiffData/><X>&x;</X>")
    return f'{head}?><!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/passwd">]>{inside}'


def _circle(path: Path) -> None:
    other = path.with_name(".other-end.tif")
    other.unlink(missing_ok=True)
    path.symlink_to(other.name)
    other.symlink_to(path.name)
