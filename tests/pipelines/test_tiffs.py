"""TIFF files: pages in the order of the file, whatever they differ in; the pixels of the file and of no other."""

import struct

import numpy as np
import pytest
import tifffile

from pipelines import images
from pipelines.errors import InputError
from pipelines.rasters import open_raster
from tests.odd_pages import ALIKE, many_subifds

ROWS = slice(None)
IMAGE = np.random.default_rng(0).integers(1, 255, (32, 32)).astype(np.uint8)
STACK = np.stack([IMAGE, IMAGE // 2, IMAGE // 3])


def save(path, pages, options, **how):
    with tifffile.TiffWriter(path, **how) as out:
        for page, more in zip(pages, options, strict=True):
            out.write(page, **{"metadata": None, "photometric": "minisblack", **more})
    return path


def check(path, expected):
    """The same pages whole, one by one, and by windows."""
    expected = expected[..., np.newaxis] if expected.ndim == 3 else expected
    assert images.count_pages(path) == len(expected)
    np.testing.assert_array_equal(images.read_pages(path), expected)
    raster = open_raster(path)
    for number, page in enumerate(expected):
        np.testing.assert_array_equal(images.read_page(path, number), page)
        np.testing.assert_array_equal(raster.read(number, ROWS), page)


def refused(path, message):
    for read in (images.read_pages, lambda path: images.read_page(path, 0), open_raster):
        with pytest.raises(InputError, match=rf"{path.name}.*{message}"):
            read(path)


# The order of pages


@pytest.mark.parametrize("what", ALIKE)
@pytest.mark.parametrize("how", [{}, {"bigtiff": True, "byteorder": ">"}])
def test_pages_stored_in_different_ways_keep_their_order(tmp_path, what, how):
    one, other = ALIKE[what]
    path = save(tmp_path / "a.tif", STACK, [one, other, one], **how)
    check(path, STACK)
    # 1, 1/2, 1/3 of the same image: with equal ones put together the middle page came last.
    assert np.array_equal(images.read_labels(path, page=1), IMAGE // 2)
    assert np.array_equal(images.read_labels(path), STACK)


def test_one_page_of_many_that_is_stored_in_another_way(tmp_path):
    """Of eight pages and more tifffile compares the second, the eighth and the last with the first."""
    many = np.concatenate([STACK] * 4)
    options = [{"compression": "lzw", "rowsperstrip": 32} if page == 4 else {} for page in range(12)]
    check(save(tmp_path / "a.tif", many, options), many)


def test_pages_whose_zero_is_white_are_turned_round_alone(tmp_path):
    white = {"photometric": "miniswhite"}
    path = save(tmp_path / "a.tif", [STACK[0], 255 - STACK[1], STACK[2]], [{}, white, {}])
    check(path, STACK)


@pytest.mark.parametrize("shape", [(3, 4, 9, 7), (2, 3, 4, 9, 7)])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_hyperstacks_keep_the_order_of_their_description(tmp_path, shape, kind):
    array = np.random.default_rng(1).integers(0, 60000, shape).astype(np.uint16)
    axes = "TZCYX"[-len(shape) :]
    path = tmp_path / f"a.{kind}.tif"
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes}, **{kind: True})
    check(path, np.moveaxis(array, -3, -1).reshape(-1, 9, 7, shape[-3]))


def test_two_images_of_an_ome_tiff_keep_the_order_of_its_description(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as out:
        for page, compression in zip(STACK, ("zlib", None, "zlib"), strict=True):
            out.write(page, compression=compression, photometric="minisblack")
    check(tmp_path / "a.ome.tif", STACK)


def test_pages_that_do_not_compare_are_refused(tmp_path):
    mixed = [page.astype(dtype) for page, dtype in zip(STACK, ("u1", "u2", "u1"), strict=True)]
    save(tmp_path / "dtypes.tif", mixed, [{}] * 3)
    refused(tmp_path / "dtypes.tif", r"holds pages of different types \(uint8, uint16\)")
    save(tmp_path / "sizes.tif", [IMAGE, IMAGE[:20], IMAGE], [{}] * 3)
    refused(tmp_path / "sizes.tif", r"holds pages of different sizes \(32x32, 20x32, \.\.\.\)")
    save(tmp_path / "channels.tif", [IMAGE, np.stack([IMAGE] * 3, -1)], [{}, {"photometric": "rgb"}])
    for read in (images.read_pages, open_raster):
        with pytest.raises(InputError, match=r"channels\.tif holds pages of different numbers of channels \(1, 3\)"):
            read(tmp_path / "channels.tif")


def test_pages_described_as_one_image_are_stored_alike(tmp_path):
    """A description that is not true of all pages: decoded like the first, they would be other images."""
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[1].tags["PhotometricInterpretation"].overwrite(0)
    refused(tmp_path / "a.tif", "describes its pages as one image, but they are stored in different ways")


@pytest.mark.parametrize("subifds", [False, True])
def test_smaller_copies_and_masks_are_no_pages(tmp_path, subifds):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as out:
        for page in STACK:
            out.write(page, photometric="minisblack", metadata=None, subifds=2 if subifds else None)
            out.write(page[::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
            out.write(page[::4, ::4], subfiletype=1, photometric="minisblack", metadata=None)
            if not subifds:
                out.write(page > 100, subfiletype=4, metadata=None)
    check(path, STACK)


@pytest.mark.parametrize("metadata", [{}, None])
def test_a_mask_of_transparency_is_no_second_image(tmp_path, metadata):
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        out.write(IMAGE, metadata=metadata)
        out.write(IMAGE > 100, subfiletype=4, metadata=metadata)
    check(tmp_path / "a.tif", IMAGE[np.newaxis])
    with tifffile.TiffWriter(tmp_path / "alone.tif") as out:
        out.write(IMAGE > 100, subfiletype=4, metadata=metadata)
    assert np.array_equal(images.read_labels(tmp_path / "alone.tif")[0], (IMAGE > 100) * 255)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (300_000, r"page 0 names 300000 smaller copies of itself \(at most 64\)"),
        (1, r"a smaller copy of page 0 is not in the file, or has smaller copies itself"),
    ],
)
def test_smaller_copies_without_end_are_damage(tmp_path, number, message):
    (tmp_path / "a.ome.tif").write_bytes(many_subifds(number))
    refused(tmp_path / "a.ome.tif", message)


def test_smaller_copies_differ_from_each_other(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        for page in STACK[:2]:
            out.write(page, photometric="minisblack", metadata=None, subifds=2)
            out.write(page[::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
            out.write(page[::4, ::4], subfiletype=1, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        first, page = tif.pages[0].subifds[0], tif.pages[1]
        place, second = page.tags[330].valueoffset, page.subifds[1]
    data = (tmp_path / "a.tif").read_bytes()
    assert data[place + 4 : place + 8] == struct.pack("<I", second)
    (tmp_path / "a.tif").write_bytes(data[: place + 4] + struct.pack("<I", first) + data[place + 8 :])
    refused(tmp_path / "a.tif", "a smaller copy of page 1 is one that came before")
    (tmp_path / "a.tif").write_bytes(data[: place + 4] + struct.pack("<I", len(data) + 9) + data[place + 8 :])
    refused(tmp_path / "a.tif", "a smaller copy of page 1 is not in the file")


# Colours


@pytest.mark.parametrize("repeats", [1, 4])
def test_every_page_has_its_own_palette(tmp_path, repeats):
    many = np.concatenate([STACK] * repeats)
    palettes = np.random.default_rng(2).integers(0, 256, (len(many), 3, 256)).astype(np.uint16)
    options = [{"photometric": "palette", "colormap": palette * 257} for palette in palettes]
    path = save(tmp_path / "a.tif", many, options)
    check(path, np.stack([palette.T[page] for page, palette in zip(many, palettes, strict=True)]).astype(np.uint8))
    assert np.array_equal(images.read_labels(path), many)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_zero_is_white_needs_a_highest_value(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE.astype(dtype), photometric="miniswhite")
    refused(tmp_path / "a.tif", f"says that 0 is white, but its pixels are {dtype}")
    assert np.array_equal(images.read_labels(tmp_path / "a.tif")[0], IMAGE)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("extra", "kept"),
    [
        (["unassalpha", "unspecified"], [0, 1, 2, 4]),
        (["unspecified", "unassalpha"], [0, 1, 2, 3]),
        (["unspecified", "unspecified"], [0, 1, 2, 3, 4]),
        (["assocalpha", "unassalpha"], [0, 1, 2]),
    ],
)
def test_alpha_is_left_out_where_it_stands(tmp_path, planar, extra, kept):
    channels = np.stack([IMAGE, IMAGE // 2, IMAGE // 3, IMAGE // 4, IMAGE // 5])
    stored = channels if planar == "separate" else np.moveaxis(channels, 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, extrasamples=extra)
    check(tmp_path / "a.tif", np.moveaxis(channels[kept], 0, -1)[np.newaxis])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CIELAB", {"photometric": "cielab"}),
        ("ICCLAB", {"photometric": "icclab"}),
        ("YCBCR", {"photometric": "ycbcr", "subsampling": (1, 1)}),
        ("SEPARATED", {"photometric": "separated"}),
        ("CFA", {"photometric": "cfa"}),
    ],
)
def test_other_colours_are_not_taken_for_rgb(tmp_path, name, options):
    samples = {"SEPARATED": 4, "CFA": 1}.get(name, 3)
    array = IMAGE if samples == 1 else np.stack([IMAGE] * samples, axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", array, metadata=None, **options)
    refused(
        tmp_path / "a.tif", rf"holds {name} colours; grey values, RGB or a palette were expected\. Convert it to RGB"
    )


def test_ycbcr_of_jpeg_is_decoded_as_rgb(tmp_path):
    red = np.full((32, 32, 3), (200, 30, 60), np.uint8)
    options = {"photometric": "rgb", "compressionargs": {"outcolorspace": "ycbcr"}}
    tifffile.imwrite(tmp_path / "a.tif", red, compression="jpeg", **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    assert np.abs(images.read_image(tmp_path / "a.tif").astype(int) - (200, 30, 60)).max() <= 3
