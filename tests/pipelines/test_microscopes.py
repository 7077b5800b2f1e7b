"""Files of microscopes: what is said without a plugin, and reading by a plugin that is made up, or real where it is."""

import datetime
import sys
import types

import numpy as np
import pytest

from pipelines import microscopes
from pipelines.decoding import count_pages, page_axes
from pipelines.errors import InputError
from pipelines.images import image_files, read_page, read_pages, read_spacing_um, write_image
from pipelines.rasters import open_raster

# Frames, sections, rows, columns, channels.
PIXELS = np.arange(2 * 3 * 4 * 5 * 2, dtype=np.uint16).reshape(2, 3, 4, 5, 2)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.czi"
    path.write_bytes(b"not empty")
    microscopes._opened.cache_clear()
    yield path
    microscopes._opened.cache_clear()


@pytest.fixture
def plugin(monkeypatch):
    """What the plugin finds in every file; a test may change it."""
    array = pytest.importorskip("dask.array", reason="bioio gives arrays of dask")
    found = types.SimpleNamespace(
        pixels=PIXELS,
        scenes=("only",),
        dims=types.SimpleNamespace(order="TCZYX"),
        physical_pixel_sizes=(2.0, 0.5, 0.25),
        time_interval=datetime.timedelta(minutes=2),
    )

    def get_image_dask_data(order):
        assert order == ("TZYXCS" if found.pixels.ndim == 6 else "TZYXC")
        return array.from_array(found.pixels, chunks=1)

    found.get_image_dask_data = get_image_dask_data
    for name, content in {"bioio": {"BioImage": lambda path, reader: found}, "bioio_czi": {"Reader": None}}.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.mark.parametrize("suffix", microscopes.MICROSCOPE_SUFFIXES)
@pytest.mark.parametrize("function", [read_pages, count_pages, read_spacing_um, open_raster])
def test_without_the_plugin_the_way_to_ome_tiff_is_told(tmp_path, monkeypatch, suffix, function):
    path = tmp_path / f"a{suffix.upper()}"
    path.write_bytes(b"not empty")
    for name in ("bioio", *microscopes.PLUGINS.values()):
        monkeypatch.setitem(sys.modules, name, None)
    kind = suffix[1:]
    match = rf"read by bioio-{kind}, which is not installed .*cellseg\[{kind}\].*export the file as OME-TIFF: in Fiji"
    with pytest.raises(InputError, match=match):
        function(path)


def test_beside_exported_images_the_microscopes_own_file_is_passed_over(tmp_path, file):
    assert image_files(tmp_path) == [file]
    write_image(tmp_path / "b.tif", np.zeros((4, 4), np.uint8))
    assert image_files(tmp_path) == [tmp_path / "b.tif"]


def test_pages_are_frames_and_in_them_sections(file, plugin):
    assert image_files(file.parent) == [file]
    assert count_pages(file) == 6
    np.testing.assert_array_equal(read_pages(file), PIXELS.reshape(6, 4, 5, 2))
    np.testing.assert_array_equal(read_page(file, 4), PIXELS[1, 1])
    assert read_spacing_um(file) == (0.5, 0.25)
    assert microscopes.read_calibration(file) == ((0.5, 0.25), 2.0, 120.0)


def test_windows_of_a_page(file, plugin):
    raster = open_raster(file)
    assert (raster.pages, raster.shape, raster.dtype, raster.spacing_um) == (6, (4, 5, 2), np.uint16, (0.5, 0.25))
    np.testing.assert_array_equal(raster.read(5, slice(1, 3), slice(2, 9)), PIXELS[1, 2, 1:3, 2:])


def test_colours_are_channels(file, plugin):
    plugin.dims.order, plugin.pixels = "TCZYXS", np.arange(60, dtype=np.uint8).reshape(1, 1, 4, 5, 1, 3)
    np.testing.assert_array_equal(read_pages(file), plugin.pixels.reshape(1, 4, 5, 3))
    assert open_raster(file).shape == (4, 5, 3)


def test_units_that_are_not_known(file, plugin):
    plugin.physical_pixel_sizes, plugin.time_interval = (None, 0.5, None), None
    assert microscopes.read_calibration(file) == (None, None, None)


def test_several_positions_and_damage_are_told(file, plugin):
    with pytest.raises(InputError, match=r"a.czi has 6 pages; page 6 was asked for"):
        read_page(file, 6)
    plugin.scenes = ("P1", "P2", "P3", "P4")
    microscopes._opened.cache_clear()
    with pytest.raises(InputError, match=r"a.czi holds 4 images \(P1, P2, P3, ...\).*Export each"):
        read_pages(file)
    plugin.scenes = ("P1",)
    plugin.get_image_dask_data = None
    microscopes._opened.cache_clear()
    with pytest.raises(InputError, match=r"a.czi is damaged or cut short"):
        count_pages(file)


def test_a_real_czi(tmp_path):
    pytest.importorskip("bioio_czi", reason="needs bioio-czi (pip install 'cellseg[czi]')")
    czi = pytest.importorskip("pylibCZIrw.czi", reason="comes with bioio-czi")
    path = tmp_path / "real.czi"
    with czi.create_czi(str(path)) as document:
        for frame in range(2):
            for channel in range(2):
                document.write(PIXELS[frame, 0, ..., [channel]].transpose(1, 2, 0), plane={"T": frame, "C": channel})
        document.write_metadata(scale_x=0.25e-6, scale_y=0.5e-6)
    np.testing.assert_array_equal(read_pages(path), PIXELS[:, 0])
    assert read_spacing_um(path) == pytest.approx((0.5, 0.25))


def test_frames_and_sections_are_known(file, plugin):
    assert page_axes(file) == (("T", 2), ("Z", 3))
