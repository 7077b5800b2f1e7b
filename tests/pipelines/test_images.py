"""Images and labels: what goes in comes out, and damage is found."""

import logging
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from pipelines import damage, images, tiffs
from pipelines.errors import InputError

RNG_SEED = 0
HIGHEST = {"uint8": 256, "uint16": 65536}


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(RNG_SEED).integers(0, HIGHEST[dtype], shape).astype(dtype)


def save_png(path, array):
    path.write_bytes(cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)[1].tobytes())
    return path


# Reading images


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
def test_tiff_pages_at_full_depth(tmp_path, dtype, compression):
    stack = noise(4, 9, 7, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", compression=compression)
    pages = images.read_pages(tmp_path / "a.tif")
    assert pages.dtype == dtype
    assert np.array_equal(pages, stack[..., np.newaxis])
    assert images.count_pages(tmp_path / "a.tif") == 4
    assert all(np.array_equal(images.read_page(tmp_path / "a.tif", i), pages[i]) for i in range(4))
    with pytest.raises(InputError, match=r"a\.tif has 4 pages; page 4 was asked for"):
        images.read_page(tmp_path / "a.tif", 4)


@pytest.mark.parametrize(
    ("options", "shape", "to_plain"),
    [
        ({"photometric": "minisblack"}, (9, 7), lambda a: a[np.newaxis, ..., np.newaxis]),
        ({"photometric": "rgb"}, (9, 7, 3), lambda a: a[np.newaxis]),
        ({"photometric": "rgb", "planarconfig": "separate"}, (3, 9, 7), lambda a: a.transpose(1, 2, 0)[np.newaxis]),
        ({"photometric": "rgb"}, (4, 9, 7, 3), lambda a: a),
        ({"photometric": "rgb", "extrasamples": ["unassalpha"]}, (9, 7, 4), lambda a: a[np.newaxis, ..., :3]),
        ({"imagej": True, "metadata": {"axes": "CYX"}}, (2, 9, 7), lambda a: a.transpose(1, 2, 0)[np.newaxis]),
        ({"imagej": True, "metadata": {"axes": "TCYX"}}, (4, 2, 9, 7), lambda a: a.transpose(0, 2, 3, 1)),
        ({"imagej": True, "metadata": {"axes": "TZYX"}}, (4, 2, 9, 7), lambda a: a.reshape(8, 9, 7, 1)),
        ({"ome": True, "metadata": {"axes": "ZCYX"}}, (4, 2, 9, 7), lambda a: a.transpose(0, 2, 3, 1)),
        ({"photometric": "minisblack", "tile": (16, 16)}, (2, 40, 30), lambda a: a[..., np.newaxis]),
    ],
)
def test_tiff_axes(tmp_path, options, shape, to_plain):
    array = noise(*shape)
    path = tmp_path / ("a.ome.tif" if "ome" in options else "a.tif")
    tifffile.imwrite(path, array, **options)
    pages = images.read_pages(path)
    assert np.array_equal(pages, to_plain(array))
    assert images.count_pages(path) == len(pages)
    assert all(np.array_equal(images.read_page(path, i), page) for i, page in enumerate(pages))


def test_tiff_pages_written_one_by_one_and_of_different_sizes(tmp_path):
    stack = noise(3, 9, 7)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in stack:
            writer.write(page, contiguous=False)
    assert np.array_equal(images.read_pages(tmp_path / "a.tif")[..., 0], stack)
    assert np.array_equal(images.read_page(tmp_path / "a.tif", 2)[..., 0], stack[2])
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(stack[0])
        writer.write(stack[0, :5])
    with pytest.raises(InputError, match=r"b\.tif holds pages of different sizes \(9x7, 5x7"):
        images.read_pages(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("dtype", "read"),
    [("int8", "uint8"), ("int16", "uint16"), ("int32", "uint16"), ("float16", "float32"), ("float64", "float32")],
)
def test_other_dtypes_are_read_without_loss(tmp_path, dtype, read):
    array = np.array([[0, 1], [100, 127]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", array)
    image = images.read_image(tmp_path / "a.tif")
    assert image.dtype == read
    assert np.array_equal(image[..., 0], array)


@pytest.mark.parametrize(("value", "dtype"), [(-1, "int16"), (65536, "int32")])
def test_integers_out_of_range_are_refused(tmp_path, value, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, value]], dtype))
    with pytest.raises(InputError, match=rf"a\.tif holds {dtype} values from .*{value}"):
        images.read_image(tmp_path / "a.tif")


def test_palette_zero_is_white_and_one_bit(tmp_path):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1] = (65535, 257, 0)
    index = np.array([[0, 1]], np.uint8)
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=colours)
    assert images.read_image(tmp_path / "p.tif").tolist() == [[[0, 0, 0], [255, 1, 0]]]
    assert images.read_labels(tmp_path / "p.tif").tolist() == [[[0, 1]]]
    tifffile.imwrite(tmp_path / "w.tif", np.array([[0, 250]], np.uint8), photometric="miniswhite")
    assert images.read_image(tmp_path / "w.tif").tolist() == [[[255], [5]]]
    assert images.read_labels(tmp_path / "w.tif").tolist() == [[[0, 250]]]
    tifffile.imwrite(tmp_path / "b.tif", np.array([[False, True] * 8]), photometric="minisblack")
    assert images.read_image(tmp_path / "b.tif")[0, :2, 0].tolist() == [0, 255]
    # tifffile and scikit-image write bool as "0 is white"; True still means cell.
    tifffile.imwrite(tmp_path / "m.tif", np.array([[False, True] * 8]))
    assert images.read_labels(tmp_path / "m.tif")[0, 0, :2].tolist() == [0, 255]


def test_png_bmp_and_jpeg(tmp_path):
    grey16, colour16, colour8 = noise(9, 7, dtype="uint16"), noise(9, 7, 3, dtype="uint16"), noise(9, 7, 3)
    assert np.array_equal(images.read_image(save_png(tmp_path / "g.png", grey16))[..., 0], grey16)
    assert np.array_equal(images.read_image(save_png(tmp_path / "c.png", colour16)), colour16)
    Image.fromarray(np.dstack([colour8, colour8[..., 0]])).save(tmp_path / "alpha.png")
    assert np.array_equal(images.read_image(tmp_path / "alpha.png"), colour8)
    Image.fromarray(colour8[..., :2].copy(), mode="LA").save(tmp_path / "grey_alpha.png")
    assert np.array_equal(images.read_image(tmp_path / "grey_alpha.png"), colour8[..., :1])
    Image.fromarray(colour8).save(tmp_path / "c.bmp")
    assert np.array_equal(images.read_image(tmp_path / "c.bmp"), colour8)
    Image.fromarray(colour8[..., 0]).save(tmp_path / "g.bmp")
    assert np.array_equal(images.read_image(tmp_path / "g.bmp"), colour8[..., :1])
    Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)).save(tmp_path / "c.jpg")
    assert np.abs(images.read_image(tmp_path / "c.jpg").astype(int) - (200, 100, 50)).max() <= 3


def test_read_image_refuses_a_stack(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", noise(3, 9, 7), photometric="minisblack")
    with pytest.raises(InputError, match=r"stack\.tif holds 3 pages; a file with one image was expected"):
        images.read_image(tmp_path / "stack.tif")


# Stacks, page by page

STACKS = {
    "plain": ((40, 9, 7), {"compression": "zlib"}),
    "bare": ((40, 9, 7), {"metadata": None}),
    "imagej": ((40, 9, 7), {"imagej": True, "metadata": {"axes": "TYX"}}),
    "ome": ((40, 9, 7), {"ome": True, "compression": "zlib", "metadata": {"axes": "TYX"}}),
    "one header": ((40, 9, 7), {"truncate": True, "metadata": {"axes": "TYX"}}),
    "channels": ((40, 2, 9, 7), {"imagej": True, "compression": "zlib", "metadata": {"axes": "TCYX"}}),
    "channels first": ((2, 40, 9, 7), {"ome": True, "compression": "zlib", "metadata": {"axes": "CTYX"}}),
    "channels, one header": ((2, 40, 9, 7), {"truncate": True, "metadata": {"axes": "CTYX"}}),
}


def save_stack(path, layout):
    """Write STACKS[layout] as a file of some age; its pages, (40, 9, 7, C)."""
    shape, options = STACKS[layout]
    array = noise(*shape, dtype="uint16")
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    os.utime(path, (1e9, 1e9))
    return array[..., np.newaxis] if array.ndim == 3 else np.moveaxis(array, options["metadata"]["axes"].index("C"), -1)


@pytest.mark.parametrize("layout", STACKS)
def test_a_page_is_read_without_the_rest_of_the_stack(tmp_path, monkeypatch, layout):
    expected = save_stack(tmp_path / "a.tif", layout)
    assert np.array_equal(images.read_pages(tmp_path / "a.tif"), expected)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *_, **__: pytest.fail("all pages were decoded"))
    for page in (0, 1, 17, 39):
        assert np.array_equal(images.read_page(tmp_path / "a.tif", page), expected[page])


@pytest.mark.parametrize("layout", ["plain", "bare", "imagej", "ome", "one header"])
def test_reading_a_stack_page_by_page_is_linear(tmp_path, monkeypatch, layout):
    expected = save_stack(tmp_path / "a.tif", layout)[..., 0]
    save_stack(tmp_path / "b.tif", layout)
    headers = []
    for room, name in ((damage, "end_of_tags"), (tifffile.TiffPage, "__init__"), (tifffile.TiffFrame, "__init__")):
        real = getattr(room, name)

        def counted(*args, real=real, **options):
            headers.append(real)
            return real(*args, **options)

        monkeypatch.setattr(room, name, counted)
    for page in range(40):
        assert np.array_equal(images.read_page(tmp_path / "a.tif", page)[..., 0], expected[page])
        assert np.array_equal(images.read_labels(tmp_path / "b.tif", page=page), expected[page])
        assert images.read_spacing_um(tmp_path / "a.tif") is None
    # Two files of 40 pages, each header a few times. Anew for every page it would be 3 * 40 * 40 = 4800 times.
    assert len(headers) <= 2 * 40 * 5


@pytest.mark.parametrize("age", [0, 100])
def test_a_file_that_changes_between_two_pages_is_read_anew(tmp_path, age):
    path, now = tmp_path / "a.tif", time.time()
    first, second = noise(3, 9, 7), noise(4, 9, 7)
    for number, stack in enumerate((first, second)):
        tifffile.imwrite(path, stack, photometric="minisblack", compression="zlib")
        os.utime(path, (now + number - age, now + number - age))
        assert np.array_equal(images.read_page(path, 2)[..., 0], stack[2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(InputError, match=r"a\.tif is damaged or cut short"):
        images.read_page(path, 0)


@pytest.mark.parametrize(("age", "remembered"), [(0, False), (100, True)])
def test_a_file_just_written_is_not_remembered(tmp_path, age, remembered):
    # It may be written again within one tick of the file system's clock, with the same length and time stamps.
    save_stack(tmp_path / "a.tif", "plain")
    os.utime(tmp_path / "a.tif", (time.time() - age,) * 2)
    before = tiffs._headers.cache_info()
    images.read_page(tmp_path / "a.tif", 0)
    images.read_page(tmp_path / "a.tif", 1)
    after = tiffs._headers.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == ((1, 1) if remembered else (0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="open files are listed in /proc/self/fd")
def test_no_file_stays_open_between_two_pages(tmp_path):
    save_stack(tmp_path / "a.tif", "plain")
    for page in range(2):
        images.read_page(tmp_path / "a.tif", page)
        opened = [os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")]
        assert str(tmp_path / "a.tif") not in opened


def test_threads_read_one_stack_side_by_side(tmp_path):
    expected = save_stack(tmp_path / "a.tif", "plain")
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda page: images.read_page(tmp_path / "a.tif", page % 40), range(400)))
    assert all(np.array_equal(one, expected[page % 40]) for page, one in enumerate(read))


# Damage


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("kind", ["one", "stack", "bare", "ome", "imagej", "tiled"])
def test_a_tiff_cut_anywhere_is_damaged(tmp_path, caplog, compression, kind):
    array = noise(24, 20, dtype="uint16") if kind == "one" else noise(3, 24, 20, dtype="uint16")
    options = {"bare": {"metadata": None}, "ome": {"ome": True}, "tiled": {"tile": (16, 16)}}.get(kind, {})
    options |= {"imagej": True} if kind == "imagej" and compression in (None, "zlib") else {}
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression=compression, **options)
    whole = (tmp_path / "a.tif").read_bytes()
    assert images.read_pages(tmp_path / "a.tif").size == array.size
    # tifffile ends an uncompressed stack with 16 bytes that no header points to; without them nothing is lost.
    needed = len(whole) - (16 if compression is None and kind in ("stack", "bare", "imagej") else 0)
    cuts = [1, 7, 8, 9, *range(20, needed, 97), needed - 2, needed - 1]
    for cut in cuts:
        (tmp_path / "cut.tif").write_bytes(whole[:cut])
        for read in (images.read_pages, images.count_pages):
            with pytest.raises(InputError, match=r"cut\.tif is damaged or cut short"):
                read(tmp_path / "cut.tif")
    assert caplog.records == []


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_other_files_cut_anywhere_are_damaged(tmp_path, capfd, suffix):
    whole = cv2.imencode(suffix, noise(12, 12, 3))[1].tobytes()
    for cut in [1, 5, *range(20, len(whole), 41), len(whole) - 1]:
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=rf"cut\{suffix} is damaged or cut short"):
            images.read_image(path)
    assert capfd.readouterr() == ("", "")


def test_flipped_bits_in_a_png_and_a_deflate_tiff_are_found(tmp_path):
    save_png(tmp_path / "a.png", noise(12, 10))
    tifffile.imwrite(tmp_path / "a.tif", noise(12, 10), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        inside = {"a.tif": tif.pages[0].dataoffsets[0] + 20, "a.png": 60}
    for name, position in inside.items():
        data = bytearray((tmp_path / name).read_bytes())
        data[position] ^= 16
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} is damaged"):
            images.read_image(tmp_path / name)


def test_silence_lasts_no_longer_than_the_reading(tmp_path, caplog):
    (tmp_path / "a.tif").write_bytes(b"II*\0\xff\xff\xff\xff")
    with pytest.raises(InputError, match="damaged"):
        images.read_pages(tmp_path / "a.tif")
    assert caplog.records == []
    logging.getLogger("tifffile").warning("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]


def test_what_is_no_image_file(tmp_path):
    (tmp_path / "empty.tif").touch()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "folder.tif").mkdir()
    cases = {
        "empty.tif": r"empty\.tif is empty \(0 bytes\)",
        "notes.txt": r"notes\.txt is not of a known image type\. Known: \.tif, .*\.png",
        "text.png": r"text\.png is damaged or cut short",
        "folder.tif": r"folder\.tif is a folder; an image file was expected",
    }
    for name, message in cases.items():
        for read in (images.read_pages, images.read_image, images.read_labels):
            with pytest.raises(InputError, match=message):
                read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*missing\.tif"):
        images.read_image(tmp_path / "missing.tif")


def test_image_files_of_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"holds no image: no file there ends in \.tif"):
        images.image_files(tmp_path)
    for name in ("b.TIF", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in images.image_files(tmp_path)] == ["a.png", "b.TIF"]
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        images.image_files(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.png is a file; a folder"):
        images.image_files(tmp_path / "a.png")


# Labels


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64"])
def test_label_ids_come_back_exactly(tmp_path, dtype):
    top = min(np.iinfo(dtype).max, 2**31 - 1)
    labels = np.array([[0, 1, 7], [top, 200 % top, 3]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    read = images.read_labels(tmp_path / "a.tif")
    assert read.dtype == np.int32
    assert np.array_equal(read, labels[np.newaxis])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_palette_files_are_the_indices(tmp_path, bits):
    labels = (np.arange(16).reshape(2, 8) % 2**bits).astype(np.uint8)
    picture = Image.fromarray(labels).convert("P")
    picture.putpalette([(37 * i + 11) % 256 for i in range(3 * 2**bits)])
    picture.save(tmp_path / "a.png", bits=bits)
    assert (tmp_path / "a.png").read_bytes()[24:26] == bytes([bits, 3])
    assert np.array_equal(images.read_labels(tmp_path / "a.png")[0], labels)
    picture.save(tmp_path / "a.bmp")
    assert np.array_equal(images.read_labels(tmp_path / "a.bmp")[0], labels)
    assert images.read_image(tmp_path / "a.png")[0, 1].tolist() == [(37 * i + 11) % 256 for i in (3, 4, 5)]


def test_labels_of_a_grey_png_with_4_bits_are_not_spread(tmp_path):
    # A 2x1 image of the nibbles 3 and 15, written by hand: no library here writes grey with 4 bits.
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x3f")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    assert images.read_labels(tmp_path / "a.png").tolist() == [[[3, 15]]]
    assert images.read_image(tmp_path / "a.png").tolist() == [[[51], [255]]]


def test_labels_that_cannot_be_ids(tmp_path):
    tifffile.imwrite(tmp_path / "float.tif", np.full((4, 4), 0.5, np.float32))
    tifffile.imwrite(tmp_path / "minus.tif", np.full((4, 4), -3, np.int16))
    tifffile.imwrite(tmp_path / "huge.tif", np.full((4, 4), 2**31, np.uint32))
    save_png(tmp_path / "colour.png", noise(4, 4, 3))
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.jpg")
    cases = {
        "float.tif": "labels must be whole numbers, the file holds float32",
        "minus.tif": "label ids must be between 0 and 2147483647, found -3",
        "huge.tif": "label ids must be between 0 and 2147483647, found 2147483648",
        "colour.png": "labels must have one channel, the file has 3 that differ",
        "a.jpg": "JPEG changes label ids",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=rf"{name}: {message}"):
            images.read_labels(tmp_path / name)


def test_labels_saved_as_float_are_labels_where_they_are_whole(tmp_path):
    labels = np.array([[0, 1], [70000, 2]], np.float32)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    assert images.read_labels(tmp_path / "labels.tif").tolist() == [[[0, 1], [70000, 2]]]
    tifffile.imwrite(tmp_path / "half.tif", labels + 0.5)
    with pytest.raises(InputError, match="labels must be whole numbers, the file holds float32"):
        images.read_labels(tmp_path / "half.tif")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_labels_of_no_cell_and_of_cell_1_are_labels(tmp_path, dtype):
    """MorphoLibJ writes 32-bit floats, empty frames among them; they are what integers of these values would be."""
    for number, labels in enumerate(([[0, 0], [0, 0]], [[0, 1], [1, 0]], [[1, 1], [1, 1]])):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.array(labels, dtype))
        assert images.read_labels(tmp_path / f"{number}.tif").tolist() == [labels]
    tifffile.imwrite(tmp_path / "probability.tif", np.array([[0, 1], [0.25, 1]], dtype))
    with pytest.raises(InputError, match=f"labels must be whole numbers, the file holds {dtype}"):
        images.read_labels(tmp_path / "probability.tif")


def test_labels_with_three_equal_channels_are_taken(tmp_path):
    labels = noise(4, 5)
    save_png(tmp_path / "a.png", np.repeat(labels[..., np.newaxis], 3, axis=-1))
    assert np.array_equal(images.read_labels(tmp_path / "a.png")[0], labels)


@pytest.mark.parametrize(("top", "dtype"), [(65535, "uint16"), (65536, "uint32"), (2**31 - 1, "uint32")])
@pytest.mark.parametrize("shape", [(9, 7), (4, 9, 7), (1, 9, 7)])
def test_written_labels_open_in_imagej_and_come_back(tmp_path, top, dtype, shape):
    labels = np.zeros(shape, np.int32)
    labels[..., 2:4, 3] = top
    images.write_labels(tmp_path / "out" / "a.tif", labels, spacing_um=(0.5, 0.25), interval_s=90.0)
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as tif:
        assert tif.is_imagej
        assert tif.series[0].axes == ("TYX" if shape[0] == 4 else "YX")
        assert tif.pages[0].dtype == dtype
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert (tif.imagej_metadata["unit"], tif.imagej_metadata["finterval"]) == ("um", 90.0)
        # ImageJ wants pixels per unit, column first.
        assert tif.pages[0].get_resolution() == (4.0, 2.0)
    assert np.array_equal(images.read_labels(tmp_path / "out" / "a.tif").reshape(shape), labels)
    assert images.read_spacing_um(tmp_path / "out" / "a.tif") == (0.5, 0.25)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tif"]


def test_the_highest_id_of_a_sequence_decides_on_the_dtype_of_each_file(tmp_path):
    path = tmp_path / "a.tif"
    for highest, dtype in ((None, np.uint16), (65_535, np.uint16), (65_536, np.uint32)):
        images.write_labels(path, np.zeros((4, 4), np.int32), highest=highest)
        assert images.stored_dtype(path) == dtype


@pytest.mark.parametrize(
    "labels", [np.zeros((4, 4), np.float32), np.full((4, 4), -1), np.zeros((4, 4, 1, 1), int), np.full((2, 2), 2**32)]
)
def test_write_labels_refuses_what_are_no_labels(tmp_path, labels):
    with pytest.raises(ValueError, match=r"Labels must be integers >= 0|does not fit 32 bits"):
        images.write_labels(tmp_path / "a.tif", labels)
    assert list(tmp_path.iterdir()) == []


# Pixel size and writing images


def test_spacing_where_the_unit_is_known(tmp_path):
    array = noise(9, 7)
    cases = {
        "ome.ome.tif": ({"ome": True, "metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}}, (0.5, 0.25)),
        "nm.ome.tif": (
            {"ome": True}
            | {"metadata": {f"PhysicalSize{a}": 500.0 for a in "XY"} | {f"PhysicalSize{a}Unit": "nm" for a in "XY"}},
            (0.5, 0.5),
        ),
        "pixel.ome.tif": ({"ome": True}, None),
        "imagej.tif": ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "micron"}}, (0.5, 0.25)),
        "no_unit.tif": ({"imagej": True, "resolution": (4, 2)}, None),
        "cm.tif": ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, (0.5, 0.5)),
        "printer.tif": ({"resolution": (118, 118), "resolutionunit": "CENTIMETER"}, None),
        "inch.tif": ({"resolution": (25400, 25400), "resolutionunit": "INCH"}, None),
        "none.tif": ({}, None),
    }
    for name, (options, expected) in cases.items():
        tifffile.imwrite(tmp_path / name, array, **options)
        assert images.read_spacing_um(tmp_path / name) == pytest.approx(expected), name
    assert images.read_spacing_um(save_png(tmp_path / "a.png", array)) is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "shape", [(9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 5), (4, 9, 7, 1), (4, 9, 7, 3), (3, 9, 7, 2)]
)
def test_written_tiffs_come_back(tmp_path, dtype, shape):
    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    images.write_image(tmp_path / "a.tif", image, spacing_um=(0.5, 0.25))
    pages = images.read_pages(tmp_path / "a.tif")
    assert pages.dtype == dtype
    assert np.array_equal(pages.reshape(shape), image)
    assert len(pages) == (shape[0] if len(shape) == 4 else 1)
    assert images.read_spacing_um(tmp_path / "a.tif") == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3)])
def test_written_pngs_come_back(tmp_path, shape):
    image = noise(*shape, dtype="uint16")
    images.write_image(tmp_path / "a.png", image)
    assert np.array_equal(images.read_image(tmp_path / "a.png"), image.reshape(9, 7, -1))


@pytest.mark.parametrize(
    ("name", "image"), [("a.png", np.zeros((4, 4, 1), np.float32)), ("a.jpg", noise(4, 4)), ("a.png", noise(4, 4, 2))]
)
def test_write_image_refuses_what_the_format_cannot_hold(tmp_path, name, image):
    with pytest.raises(ValueError, match=rf"{name}: cannot write {image.dtype} .*Use a \.tif"):
        images.write_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_large_labels_of_no_cell_are_no_bomb(tmp_path, monkeypatch):
    """Deflate makes a thousandth of them; an image that is so small is refused, where it would take much memory."""
    monkeypatch.setattr(damage, "LARGEST_UNASKED", 2**20)
    blank = np.zeros((2048, 2048), np.uint16)
    for codec in ("zlib", "lzw"):
        tifffile.imwrite(tmp_path / f"{codec}.tif", blank, compression=codec, rowsperstrip=2048)
    cv2.imwrite(str(tmp_path / "a.png"), blank, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    for path in tmp_path.iterdir():
        assert path.stat().st_size * 500 < blank.nbytes
        assert np.array_equal(images.read_labels(path), blank[np.newaxis])
        with pytest.raises(InputError, match=rf"{path.name} claims to be an image of 0\.0 GiB in .*, which is hardly"):
            images.read_pages(path)
    tifffile.imwrite(tmp_path / "zstd.tif", blank, compression="zstd", rowsperstrip=2048)
    with pytest.raises(InputError, match=r"zstd\.tif claims to be .* save it without compression"):
        images.read_labels(tmp_path / "zstd.tif")


@pytest.mark.parametrize("name", ["a.png", "bit.png", "a.tif"])
def test_labels_are_counted_as_what_they_become(tmp_path, monkeypatch, name):
    """Ids of a byte or a bit take four: 4 MB in memory are 1 MB in 8 bits, and 4 kB compressed."""
    monkeypatch.setattr(damage, "LARGEST_UNASKED", 2**21)
    labels = np.zeros((1024, 1024), np.uint8)
    for cells in (0, 1):
        labels[500, 500] = cells
        if name == "a.tif":
            tifffile.imwrite(tmp_path / name, labels, compression="zlib", rowsperstrip=1024)
        elif name == "a.png":
            cv2.imwrite(str(tmp_path / name), labels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        else:
            Image.fromarray(labels > 0).save(tmp_path / name)
        if not cells:
            assert not images.read_labels(tmp_path / name).any()
            continue
        with pytest.raises(InputError, match=rf"{name} claims to be an image of 0\.0 GiB in 0\.00.* hardly one"):
            images.read_labels(tmp_path / name)
    monkeypatch.setattr(damage, "LARGEST_UNASKED", 2**22)
    assert images.read_labels(tmp_path / name).sum() in (1, 255)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_labels_of_no_cell_take_no_memory(tmp_path):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6000, 6000), np.uint8), compression="zlib")
    before = resident()
    labels = images.read_labels(tmp_path / "a.tif")
    assert labels.shape == (1, 6000, 6000) and labels.dtype == np.int32
    assert resident() - before < labels.nbytes / 2


def test_an_image_of_one_bit_is_counted_as_what_it_becomes(tmp_path, monkeypatch):
    monkeypatch.setattr(damage, "LARGEST_UNASKED", 2**19)
    Image.fromarray(np.zeros((1024, 1024), bool)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png claims to be an image of 0\.0 GiB"):
        images.read_pages(tmp_path / "a.png")
    assert not images.read_labels(tmp_path / "a.png").any()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_too_few_file_handles_are_no_damage(tmp_path, name):
    """Another copy of the file would not help."""
    images.write_image(tmp_path / name, np.zeros((8, 8), np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    images.read_pages(tmp_path / name)  # imports what opens files of its own
    os.utime(tmp_path / name)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match=r"Too many open files"):
            images.read_pages(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
