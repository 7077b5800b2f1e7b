import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.contrast import contrast_limits, to_channels
from pipelines.disk import DiskArray
from pipelines.errors import InputError
from pipelines.rasters import open_raster
from pipelines.working_copies import limits_on_disk, working_copy

PROPERTY = settings(max_examples=60, derandomize=True, deadline=None)
SHAPE = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 2))
PERCENT = st.sampled_from([(2.0, 98.0), (0.0, 100.0), (1.0, 99.8), (50.0, 50.0)])


def on_disk(folder, image):
    (folder / "a").unlink(missing_ok=True)
    array = DiskArray(folder / "a", image.shape, image.dtype)
    array.write(0, 0, image)
    return array


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("copies")


@PROPERTY
@given(st.sampled_from([np.uint8, np.uint16]).flatmap(lambda dtype: arrays(dtype, SHAPE)), PERCENT)
def test_limits_of_whole_numbers_are_those_of_the_image(folder, image, percent):
    assert limits_on_disk(on_disk(folder, image), *percent, num_bytes=100) == contrast_limits(image, *percent)


@PROPERTY
@given(arrays(np.float32, SHAPE, elements=st.floats(-1e6, 1e6, width=32)), PERCENT)
def test_limits_of_floats_are_those_of_the_image(folder, image, percent):
    assert limits_on_disk(on_disk(folder, image), *percent, num_bytes=100) == contrast_limits(image, *percent)


def test_limits_of_a_larger_float_image(folder):
    image = np.random.default_rng(0).normal(0, 1000, (200, 300, 1)).astype(np.float32)
    assert limits_on_disk(on_disk(folder, image), 2.0, 98.0, num_bytes=5000) == contrast_limits(image)
    image[:] = np.round(image, -2)
    assert limits_on_disk(on_disk(folder, image), 1.0, 99.8, num_bytes=5000) == contrast_limits(image, 1.0, 99.8)


def test_a_few_bright_pixels_give_minimum_and_maximum(folder):
    image = np.full((50, 50, 1), -3.5, np.float32)
    image[4, 4] = 7
    assert limits_on_disk(on_disk(folder, image), 2.0, 98.0, num_bytes=999) == (-3.5, 7.0)


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 7, "compression": "zlib"}])
def test_a_copy_holds_the_channels_that_were_asked_for(tmp_path, options):
    image = np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **options)
    raster = open_raster(tmp_path / "a.tif")
    for channels in (None, "grey", [2, 0]):
        copy, grey = working_copy(
            raster, 0, tmp_path / "copy", channels=lambda window, c=channels: to_channels(window, c), num_bytes=3000
        )
        np.testing.assert_array_equal(copy.read(slice(None)), to_channels(image, channels))
        assert grey == (channels == "grey")
        copy.remove()


def test_three_equal_channels_are_grey(tmp_path):
    image = np.repeat(np.arange(200, dtype=np.uint8).reshape(10, 20, 1), 3, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    raster = open_raster(tmp_path / "a.tif")
    options = {"channels": lambda window: window, "num_bytes": 100}
    assert working_copy(raster, 0, tmp_path / "one", **options)[1]
    image[9, 19, 2] = 0
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    assert not working_copy(open_raster(tmp_path / "a.tif"), 0, tmp_path / "two", **options)[1]


def test_all_bad_pixels_are_counted(tmp_path):
    image = np.zeros((40, 30), np.float32)
    image[1, 1] = np.nan
    image[39, 20] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", image)
    with pytest.raises(InputError, match=r"a\.tif: 2 pixels are NaN or infinite"):
        working_copy(
            open_raster(tmp_path / "a.tif"), 0, tmp_path / "copy", channels=lambda window: window, num_bytes=500
        )
