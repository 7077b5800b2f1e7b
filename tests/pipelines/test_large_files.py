import numpy as np
import pytest
import tifffile
import zarr

from pipelines.errors import InputError
from pipelines.images import read_labels, read_pages, read_spacing_um
from pipelines.large_files import write_large
from pipelines.rasters import open_raster

SPACING = (0.5, 0.25)


def windows(array):
    return lambda page, rows, columns: array[page, rows, columns]


def labels(*shape):
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int32)


@pytest.mark.parametrize("shape", [(1, 300, 517), (1, 256, 256), (1, 3, 5), (3, 270, 30)])
def test_labels_come_back_from_a_tiled_bigtiff(tmp_path, shape):
    array = labels(*shape)
    write_large(tmp_path / "a.tif", windows(array), shape, np.uint16, labels=True, spacing_um=SPACING)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), array)
    assert read_spacing_um(tmp_path / "a.tif") == pytest.approx(SPACING)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff and tif.is_imagej and tif.pages[0].is_tiled and tif.pages[0].dtype == np.uint16
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_a_probability_comes_back(tmp_path, dtype):
    array = (100 * np.random.default_rng(0).random((1, 270, 300))).astype(dtype)
    write_large(tmp_path / "a.tif", windows(array), array.shape, dtype, spacing_um=SPACING)
    np.testing.assert_array_equal(read_pages(tmp_path / "a.tif")[..., 0], array)
    assert tifffile.imread(tmp_path / "a.tif").dtype == dtype
    assert read_spacing_um(tmp_path / "a.tif") == pytest.approx(SPACING)


@pytest.mark.parametrize("shape", [(1, 600, 517), (2, 30, 40)])
def test_labels_come_back_from_an_ome_zarr(tmp_path, shape):
    array = labels(*shape)
    write_large(tmp_path / "a.zarr", windows(array), shape, np.uint16, labels=True, spacing_um=SPACING)
    raster = open_raster(tmp_path / "a.zarr")
    assert raster.pages == shape[0] and raster.spacing_um == SPACING
    for page in range(shape[0]):
        np.testing.assert_array_equal(raster.read(page, slice(None))[..., 0], array[page])
    attributes = zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs
    assert "image-label" in attributes and attributes["multiscales"][0]["name"] == "a"


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_nothing_is_left_after_an_error(tmp_path, name):
    def window(page, rows, columns):
        if rows.start:
            raise OSError(28, "No space left on device")
        return np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.int32)

    with pytest.raises(OSError, match="No space left"):
        write_large(tmp_path / name, window, (1, 2000, 40), np.uint16, labels=True)
    assert not list(tmp_path.iterdir())


def test_an_ome_zarr_is_replaced_only_when_asked(tmp_path):
    first, second = labels(1, 20, 20), labels(1, 20, 20) + 1
    write_large(tmp_path / "a.zarr", windows(first), (1, 20, 20), np.uint16)
    with pytest.raises(InputError, match=r"a\.zarr exists already"):
        write_large(tmp_path / "a.zarr", windows(second), (1, 20, 20), np.uint16)
    write_large(tmp_path / "a.zarr", windows(second), (1, 20, 20), np.uint16, overwrite=True)
    np.testing.assert_array_equal(open_raster(tmp_path / "a.zarr").read(0, slice(None))[..., 0], second[0])
