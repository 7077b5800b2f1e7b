import cv2
import numpy as np
import pytest
import tifffile
import zarr

from pipelines.errors import InputError
from pipelines.images import read_page, read_pages
from pipelines.ome_zarr import create_zarr
from pipelines.rasters import open_raster

RNG = np.random.default_rng(0)


def noise(*shape, dtype=np.uint16):
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def check(path, image=None):
    """Every window of every page is that of `read_pages`."""
    pages = read_pages(path) if image is None else image
    if image is None:
        np.testing.assert_array_equal(read_page(path, len(pages) - 1), pages[-1])
    raster = open_raster(path)
    assert (raster.pages, *raster.shape) == pages.shape
    height, width = pages.shape[1:3]
    for page in range(len(pages)):
        seen = np.zeros((height, width), int)
        for rows, columns in raster.windows(4000):
            window = raster.read(page, rows, columns)
            assert window.dtype == pages.dtype
            np.testing.assert_array_equal(window, pages[page, rows, columns])
            seen[rows, columns] += 1
        assert (seen == 1).all()
        rows, columns = slice(height // 3, height // 2 + 9), slice(width // 4, width // 2 + 5)
        np.testing.assert_array_equal(raster.read(page, rows, columns), pages[page, rows, columns])
    return raster


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((70, 91), np.uint16, {}),
        ((70, 91), np.uint8, {"tile": (16, 32)}),
        ((70, 91), np.uint16, {"tile": (16, 32), "compression": "zlib", "predictor": True}),
        ((70, 91), np.uint16, {"rowsperstrip": 8, "compression": "lzw"}),
        ((70, 91), np.uint16, {"rowsperstrip": 8, "bigtiff": True, "byteorder": ">"}),
        ((70, 91), np.float32, {"rowsperstrip": 9, "compression": "zlib"}),
        ((70, 91), np.float64, {"tile": (32, 16), "compression": "zlib"}),
        ((70, 91), np.float16, {}),
        ((70, 91), bool, {"compression": "zlib", "rowsperstrip": 4}),
        ((70, 91), np.uint8, {"photometric": "miniswhite", "tile": (16, 16)}),
        ((70, 91, 3), np.uint8, {"photometric": "rgb", "tile": (32, 32), "compression": "zlib"}),
        ((70, 91, 3), np.uint8, {"photometric": "rgb", "tile": (32, 32), "compression": "jpeg"}),
        ((70, 91, 4), np.uint8, {"photometric": "rgb", "extrasamples": ["unassalpha"], "rowsperstrip": 5}),
        ((3, 70, 91), np.uint8, {"photometric": "rgb", "planarconfig": "separate", "tile": (32, 32)}),
        ((3, 70, 91), np.uint16, {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
        ((5, 40, 31), np.uint16, {"compression": "zlib", "rowsperstrip": 8, "photometric": "minisblack"}),
        ((3, 2, 40, 31), np.uint16, {"metadata": {"axes": "TCYX"}, "ome": True, "tile": (16, 16)}),
        ((2, 3, 40, 31), np.uint16, {"metadata": {"axes": "CTYX"}, "ome": True, "compression": "zlib"}),
        ((3, 2, 40, 31), np.uint16, {"metadata": {"axes": "TCYX"}, "imagej": True}),
        ((70, 91), np.uint8, {"photometric": "palette", "colormap": noise(3, 256), "tile": (16, 16)}),
        ((2, 3, 40, 31), np.uint16, {"volumetric": True, "tile": (2, 16, 16), "compression": "zlib"}),
    ],
)
def test_windows_of_tiffs_are_those_of_the_whole(tmp_path, shape, dtype, options):
    array = noise(*shape, dtype=np.uint8) > 127 if dtype is bool else noise(*shape, dtype=dtype)
    if options.get("compression") == "jpeg":
        array = cv2.GaussianBlur(array, (0, 0), 5)
    options = {"photometric": "minisblack", **options} if not options.get("imagej") else options
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    check(tmp_path / "a.tif")


def test_a_pyramid_gives_its_full_resolution(tmp_path):
    full = noise(128, 160)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", bigtiff=True) as tif:
        options = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
        metadata = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
        tif.write(full, subifds=2, metadata=metadata, **options)
        tif.write(full[::2, ::2], subfiletype=1, **options)
        tif.write(full[::4, ::4], subfiletype=1, **options)
    raster = check(tmp_path / "a.ome.tif", full[None, ..., None])
    assert raster.spacing_um == (0.25, 0.5) and raster.block == (32, 32)


@pytest.mark.parametrize("shape", [(30, 41), (30, 41, 3)])
@pytest.mark.parametrize(("name", "dtype"), [("a.png", np.uint8), ("a.png", np.uint16), ("a.bmp", np.uint8)])
def test_pictures_are_one_block(tmp_path, shape, name, dtype):
    cv2.imwrite(str(tmp_path / name), noise(*shape, dtype=dtype))
    raster = check(tmp_path / name)
    assert raster.dtype == dtype
    assert raster.block == (30, 41) and len(list(raster.windows(1))) == 1


def test_blocks_are_what_is_decoded_at_once(tmp_path):
    image = noise(64, 48)
    for options, block in (
        ({}, (1, 48)),
        ({"compression": "zlib", "rowsperstrip": 64}, (64, 48)),
        ({"compression": "zlib", "rowsperstrip": 8}, (8, 48)),
        ({"tile": (16, 32)}, (16, 32)),
    ):
        tifffile.imwrite(tmp_path / "a.tif", image, **options)
        assert open_raster(tmp_path / "a.tif").block == block
    windows = list(open_raster(tmp_path / "a.tif").windows(2 * 16 * 48))
    assert windows == [(slice(row, row + 16), slice(0, 48)) for row in (0, 16, 32, 48)]


def test_a_window_decodes_its_own_tiles_alone(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(64, 64), tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[0].dataoffsets[15]
    with open(tmp_path / "a.tif", "r+b") as file:  # the last tile is broken
        file.seek(offset)
        file.write(b"\0" * 20)
    raster = open_raster(tmp_path / "a.tif")
    assert raster.read(0, slice(0, 48)).shape == (48, 64, 1)
    with pytest.raises(InputError, match=r"a\.tif is damaged or cut short"):
        raster.read(0, slice(48, 64))


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
def test_a_file_cut_in_the_middle_is_named(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", noise(64, 64), **options)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.tif is damaged or cut short: the pixels of page 0 are not all"):
        open_raster(tmp_path / "a.tif")


def test_a_huge_declared_size_is_damage_not_memory(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(64, 64), compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages[0].tags[name].overwrite(60_000)
    with pytest.raises(InputError, match=r"a\.tif is damaged .*page 0 claims 7200000000 bytes of pixels"):
        open_raster(tmp_path / "a.tif")


def test_pages_of_different_sizes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(noise(40, 30), metadata=None)
        tif.write(noise(50, 30), metadata=None)
    with pytest.raises(InputError, match=r"a\.tif holds pages of different sizes \(40x30, 50x30"):
        open_raster(tmp_path / "a.tif")


def test_values_that_no_image_holds(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((40, 30), -5, np.int32), tile=(16, 16))
    with pytest.raises(InputError, match=r"a\.tif holds int32 values from -5 to -5"):
        open_raster(tmp_path / "a.tif").read(0, slice(0, 9))


def write_zarr(path, array, axes, *, version="0.4", scale=None, unit="micrometer"):
    """An OME-Zarr of chunks of 16 px, by hand."""
    layout = 2 if version == "0.4" else 3
    entries = [{"name": axis, **({"type": "space", "unit": unit} if axis in "zyx" else {})} for axis in axes]
    steps = [{"type": "scale", "scale": scale or [1.0] * len(axes)}]
    content = [{"version": version, "axes": entries, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}]
    attributes = {"multiscales": content} if layout == 2 else {"ome": {"version": version, "multiscales": content}}
    group = zarr.open_group(str(path), mode="w", zarr_format=layout, attributes=attributes)
    chunks = tuple([1] * (array.ndim - 2) + [16, 16])
    shards = tuple([1] * (array.ndim - 2) + [32, 32]) if layout == 3 else None
    group.create_array("s0", shape=array.shape, dtype=array.dtype, chunks=chunks, shards=shards)[...] = array


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("yx", (70, 41), lambda a: a[None, ..., None]),
        ("cyx", (3, 70, 41), lambda a: a.transpose(1, 2, 0)[None]),
        ("tczyx", (2, 3, 4, 20, 31), lambda a: a.transpose(0, 2, 3, 4, 1).reshape(8, 20, 31, 3)),
        ("zyx", (4, 20, 31), lambda a: a[..., None]),
    ],
)
def test_windows_of_ome_zarr(tmp_path, version, axes, shape, order):
    array = noise(*shape)
    write_zarr(tmp_path / "a.ome.zarr", array, axes, version=version, scale=[1.0] * (len(axes) - 2) + [0.25, 0.5])
    raster = check(tmp_path / "a.ome.zarr", order(array))
    assert raster.spacing_um == (0.25, 0.5) and raster.dtype == np.uint16


def test_the_unit_of_an_ome_zarr(tmp_path):
    write_zarr(tmp_path / "a.zarr", noise(20, 20), "yx", scale=[250.0, 500.0], unit="nanometer")
    assert open_raster(tmp_path / "a.zarr").spacing_um == (0.25, 0.5)
    write_zarr(tmp_path / "a.zarr", noise(20, 20), "yx", unit="parsec")
    assert open_raster(tmp_path / "a.zarr").spacing_um is None


@pytest.mark.parametrize("scale", [float("nan"), 0.0, -0.5, 1e9, float("inf"), 1e308, 50.001])
def test_a_scale_that_no_microscope_has_counts_as_unknown(tmp_path, scale):
    write_zarr(tmp_path / "a.zarr", noise(20, 20), "yx", scale=[0.5, scale])
    assert open_raster(tmp_path / "a.zarr").spacing_um is None
    write_zarr(tmp_path / "a.zarr", noise(20, 20), "yx", scale=[scale, 0.5], unit="meter")
    assert open_raster(tmp_path / "a.zarr").spacing_um is None


def test_the_coarsest_scale_is_known(tmp_path):
    write_zarr(tmp_path / "a.zarr", noise(20, 20), "yx", scale=[50.0, 0.5])
    assert open_raster(tmp_path / "a.zarr").spacing_um == (50.0, 0.5)


def claim(path, shape, chunks, *, chunk_files=0, **attributes):
    """An OME-Zarr of some hundred bytes that claims to have a shape, with a few true chunks of zeros."""
    content = [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]
    group = zarr.open_group(str(path), mode="w", zarr_format=2, attributes={"multiscales": content, **attributes})
    group.create_array("0", shape=shape, chunks=chunks, dtype=np.uint8, fill_value=7)
    for number in range(chunk_files):
        (path / "0" / f"0.{number}").write_bytes(bytes(100))


def test_a_zarr_that_claims_far_more_than_it_holds_is_refused(tmp_path):
    claim(tmp_path / "a.zarr", (10**6, 10**6), (512, 512), chunk_files=5)
    with pytest.raises(
        InputError, match=r"a\.zarr claims to be an image of 931\.3 GiB in 0\.00048 MiB, which is hardly"
    ):
        open_raster(tmp_path / "a.zarr")
    claim(tmp_path / "b.zarr", (10**6, 10**6), (512, 512), **{"image-label": {"version": "0.4"}})
    with pytest.raises(InputError, match=r"b\.zarr claims to be an image of 931\.3 GiB in 0 MiB"):
        open_raster(tmp_path / "b.zarr")
    claim(tmp_path / "c.zarr", (10, 10), (10**6, 10**6), chunk_files=1)
    with pytest.raises(InputError, match=r"c\.zarr is damaged .*claims chunks of 1000000000000 bytes, far larger than"):
        open_raster(tmp_path / "c.zarr")


def test_chunks_without_a_file_are_the_fill_value_but_not_all_of_them(tmp_path):
    write_zarr(tmp_path / "a.zarr", np.pad(noise(16, 16), ((0, 24), (0, 14))), "yx")  # zeros make no chunk
    assert not open_raster(tmp_path / "a.zarr").read(0, slice(16, 40)).any()
    claim(tmp_path / "b.zarr", (40, 30), (16, 16))
    with pytest.raises(
        InputError, match=r"b\.zarr holds no pixels: there is no chunk of its 40x30 values in .*b\.zarr.0"
    ):
        open_raster(tmp_path / "b.zarr")
    claim(tmp_path / "c.zarr", (40, 30), (16, 16), **{"image-label": {"version": "0.4"}})  # labels of no cell
    assert (open_raster(tmp_path / "c.zarr").read(0, slice(None)) == 7).all()


def test_what_is_no_ome_zarr_image_is_explained(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InputError, match=r"a\.zarr is no OME-Zarr image: it holds neither \.zattrs nor zarr\.json"):
        open_raster(tmp_path / "a.zarr")
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2, attributes={"plate": {}})
    with pytest.raises(InputError, match=r"a\.zarr is no OME-Zarr image: .*no 'multiscales'. Of a plate"):
        open_raster(tmp_path / "a.zarr")


def test_a_broken_chunk_is_named(tmp_path):
    write_zarr(tmp_path / "a.zarr", noise(20, 20), "yx")
    (tmp_path / "a.zarr" / "s0" / "0.0").write_bytes(b"no chunk")
    (tmp_path / "a.zarr" / "s0" / "0").mkdir(exist_ok=True)
    (tmp_path / "a.zarr" / "s0" / "0" / "0").write_bytes(b"no chunk")
    with pytest.raises(InputError, match=r"a\.zarr is damaged or cut short"):
        open_raster(tmp_path / "a.zarr").read(0, slice(0, 20))


@pytest.mark.parametrize("pages", [1, 3])
def test_what_is_written_as_ome_zarr_comes_back(tmp_path, pages):
    array = noise(pages, 40, 31)
    (tmp_path / "a.ome.zarr").mkdir()
    options = {"name": "a", "spacing_um": (0.5, 0.25), "labels": True}
    create_zarr(tmp_path / "a.ome.zarr", array.shape, array.dtype, **options)[...] = array[0] if pages == 1 else array
    raster = check(tmp_path / "a.ome.zarr", array[..., None])
    assert raster.spacing_um == (0.5, 0.25)
    attributes = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r").attrs
    assert attributes["image-label"] == {"version": "0.4"}
    assert [axis["name"] for axis in attributes["multiscales"][0]["axes"]] == list("tyx")[-array.squeeze().ndim :]
