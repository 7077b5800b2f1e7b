"""Damage: what a file says of itself and cannot be, found before its pixels are decoded, and the errors that say so.

Pixels are decoded in `pipelines.decoding`.
"""

import contextlib
import errno
import logging
import math
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tifffile

from pipelines.errors import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# The others are comments, profiles and further pictures: decoders print what they think of them.
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
LARGEST_PNG = 2**30  # pixels; OpenCV decodes no more
# Of the segments before the scan; APP0 (JFIF) and APP14 (Adobe) say what the colours are.
JPEG_SCAN, JPEG_EXTRAS = 0xDA, (*range(0xE1, 0xEE), 0xEF, 0xFE)
# Bytes of a value by TIFF data type.
TAG_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# What a byte can become at most: LZW, Deflate (RFC 1951: 258 bytes of 2 bits), PackBits. Others know no such bound.
DENSEST = {5: 2600, 8: 1040, 32946: 1040, 32773: 64}
# An image that takes more than this in memory, and is so many times smaller in its file, is hardly one. Labels of few
# cells, or none, are as small as compression can make them (measured: Deflate 1 : 980, PNG 1 : 1025, LZW 1 : 1300).
LARGEST_UNASKED = 2**30
LARGEST_TILE = 2**26
HARDLY_IMAGE, HARDLY_LABELS = 500, max(DENSEST.values())
# Smaller copies of a page, each half as wide as the one before it: 2**64 pixels have no more.
MOST_SUBIFDS = 64
SUBIFDS = 330  # the tag that names them
TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)  # says the system, of whatever file it is asked for then


def damaged(path: Path, reason: object) -> InputError:
    """The error for a file whose content is broken."""
    return InputError(
        f"{path} is damaged or cut short: {reason}. Copy it again from where it came; if it opens elsewhere, "
        "save it there as an uncompressed TIFF."
    )


@contextlib.contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn whatever a decoder throws into one InputError, and keep its log of this thread silent meanwhile."""
    thread = threading.get_ident()
    logger = logging.getLogger("tifffile")

    def of_other_threads(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(of_other_threads)
    try:
        yield
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except MemoryError as error:
        raise InputError(
            f"{path} does not fit into memory ({str(error).rstrip('.') or 'no more is to be had'}). Cut it into "
            "smaller images, or use a machine with more memory."
        ) from error
    # Decoders raise some ten types for broken data: TiffFileError, struct.error, zlib.error, ValueError, KeyError...
    except Exception as error:
        if isinstance(error, OSError) and error.errno in TOO_MANY_OPEN:
            raise
        raise damaged(path, f"{type(error).__name__}, {' '.join(str(error).split()).rstrip('.')}") from error
    finally:
        logger.removeFilter(of_other_threads)


def check_claim(path: Path, claimed: int, stored: int, *, labels: bool) -> None:
    """Raise InputError if `claimed` bytes of pixels are far more than anyone would have put into `stored` bytes."""
    if claimed > LARGEST_UNASKED and claimed > stored * (HARDLY_LABELS if labels else HARDLY_IMAGE):
        raise InputError(
            f"{path} claims to be an image of {claimed / 2**30:.1f} GiB in {stored / 2**20:.2g} MiB, which is hardly "
            "one. If it is, save it without compression."
        )


def checked_pages(tif: tifffile.TiffFile, path: Path) -> Iterator[tifffile.TiffPage | tifffile.TiffFrame]:
    """The pages of a TIFF, one by one; InputError unless all that they speak of is there and can hold what it should.

    tifffile passes over a tag that is not all there (OME axes among them), gives zeros for a strip that is not there,
    ends the list of pages where it cannot follow it, goes round in a circle of pages for ever, and asks for the memory
    of an image before it looks whether there is one.
    """
    size = tif.filehandle.size
    seen: set[int] = set()
    copies: set[int] = set()
    smaller = 0  # bytes of the headers of smaller copies
    for index, page in enumerate(tif.pages):
        if page.offset in seen:
            raise damaged(path, f"its pages form a circle: page {index} is one that came before")
        seen.add(page.offset)
        if end_of_tags(tif, page.offset) > size:
            raise damaged(path, f"the header of page {index} is not all in the file")
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not segments or any(count == 0 or offset + count > size for offset, count in segments):
            raise damaged(path, f"the pixels of page {index} are not all in the file")
        _check_pixels(page, size, path, index)
        smaller += _check_smaller(page, copies, path, index)
        if smaller > size:
            raise damaged(path, f"the headers of its smaller copies take {smaller} bytes, more than the whole file")
        yield page
    if "<!ENTITY" in tif.pages.first.description:  # of OME-XML, which has none; a few lines unfold to a billion words
        raise damaged(path, "its description defines entities")
    tif.filehandle.seek(tif.pages.next_page_offset or 0)
    pointer = tif.filehandle.read(tif.tiff.offsetsize)
    if len(pointer) < tif.tiff.offsetsize or any(pointer):
        raise damaged(path, f"the file ends after page {len(tif.pages) - 1}, but there should be more")


def end_of_tags(tif: tifffile.TiffFile, offset: int) -> int:
    """End of the last tag value that the page header at `offset` points to."""
    end = 0
    for _, kind, count, place in _tags(tif, offset):
        length = count * TAG_SIZES.get(kind, 0)
        if length > tif.tiff.tagoffsetthreshold:
            end = max(end, place + length)
    return end


def _tags(tif: tifffile.TiffFile, offset: int) -> list[tuple[int, ...]]:
    """(code, kind, count, place or value) of every tag of the header at `offset`."""
    file, layout = tif.filehandle, tif.tiff
    entry = struct.Struct(layout.byteorder + ("HHQQ" if layout.is_bigtiff else "HHII"))
    file.seek(offset)
    (number,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    return list(entry.iter_unpack(file.read(number * entry.size)))


def _check_smaller(page: tifffile.TiffPage | tifffile.TiffFrame, seen: set[int], path: Path, index: int) -> int:
    """Bytes of the headers of a page's smaller copies (SubIFDs), all of which tifffile reads; added to those seen."""
    offsets = page.subifds or ()
    if len(offsets) > MOST_SUBIFDS:
        raise damaged(path, f"page {index} names {len(offsets)} smaller copies of itself (at most {MOST_SUBIFDS})")
    tif, length = page.parent, 0
    for offset in offsets:
        if offset < 8:  # none, as tifffile understands it
            continue
        if offset in seen:
            raise damaged(path, f"a smaller copy of page {index} is one that came before")
        seen.add(offset)
        tags = _tags(tif, offset) if offset < tif.filehandle.size else []
        if not tags or any(code == SUBIFDS for code, *_ in tags):
            raise damaged(path, f"a smaller copy of page {index} is not in the file, or has smaller copies itself")
        length += tif.tiff.tagnosize + len(tags) * tif.tiff.tagsize + tif.tiff.offsetsize
    return length


def _check_pixels(page: tifffile.TiffPage | tifffile.TiffFrame, size: int, path: Path, index: int) -> None:
    key: Any = page.keyframe
    claimed = key.size * max(1, key.bitspersample) // 8
    # Without compression tifffile reads on where the byte counts of old programs are too small.
    held = size if key.compression == 1 else sum(page.databytecounts) * DENSEST.get(key.compression, math.inf)
    tile = math.prod(key.tile) * key.samplesperpixel * key.bitspersample // 8 if key.is_tiled else 0
    if tile > max(LARGEST_TILE, 4 * claimed):
        raise damaged(path, f"page {index} claims tiles of {tile} bytes, far larger than its image")
    if claimed > held:
        raise damaged(path, f"page {index} claims {claimed} bytes of pixels, and its file cannot hold as many")
    if len(page.dataoffsets) > 1 and len(page.dataoffsets) < math.prod(key.chunked):
        raise damaged(path, f"page {index} has {len(page.dataoffsets)} pieces of {math.prod(key.chunked)}")


def checked_png(data: bytes, path: Path, *, labels: bool) -> tuple[bytes, int, int]:
    """A PNG's pixels, that is the file without all else; bit depth; colour type.

    Every chunk's checksum was found right: libpng fills up with grey instead.

    Raises:
        InputError: cut short, flipped bits, or a size that its bytes cannot hold.
    """
    parts, position, stored = [PNG_SIGNATURE], len(PNG_SIGNATURE), 0
    kind = b""
    while kind != b"IEND":
        header = data[position : position + 8]
        if len(header) < 8:
            raise damaged(path, "the end of the PNG is missing")
        length, kind = struct.unpack(">I4s", header)
        end = position + 12 + length
        body = data[position + 4 : end - 4]
        if data[end - 4 : end] != struct.pack(">I", zlib.crc32(body)):
            raise damaged(path, f"the checksum of the PNG chunk at byte {position} is wrong")
        if kind in PNG_PIXELS:
            parts.append(data[position:end])
        stored += length if kind == b"IDAT" else 0
        position = end
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or colour not in PNG_CHANNELS:
        raise damaged(path, "the PNG does not begin with a header")
    claimed = width * height * PNG_CHANNELS[colour] * bits // 8
    if not claimed or claimed > stored * DENSEST[8]:
        raise damaged(path, f"it claims {width}x{height} pixels, which {stored} bytes cannot hold")
    # Labels may be a mask of one bit, and blank; of an image counts what a decoder makes of it.
    decoded = width * height * (3 if colour == 3 else PNG_CHANNELS[colour]) * max(bits, 8) // 8
    check_claim(path, claimed if labels else decoded, stored, labels=labels)
    if width * height > LARGEST_PNG:
        raise InputError(f"{path} has {width}x{height} pixels, too many for a PNG. Save it as a tiled TIFF.")
    return b"".join(parts), bits, colour


def jpeg_pixels(data: bytes) -> bytes:
    """A JPEG without Exif, profiles and comments: Pillow warns of what it finds wrong in them."""
    parts, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != JPEG_SCAN:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        end = position + 1 if marker == 0xFF else position + 2 + length
        if marker not in JPEG_EXTRAS:
            parts.append(data[position:end])
        position = end
    return b"".join(parts) + data[position:]
