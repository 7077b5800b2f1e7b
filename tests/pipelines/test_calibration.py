import numpy as np
import pytest
import tifffile

from pipelines.calibration import read_interval_s, read_section_um
from pipelines.images import read_spacing_um, write_image, write_labels

FRAMES = np.zeros((3, 8, 8), np.uint8)


def test_imagej(tmp_path):
    path = tmp_path / "a.tif"
    tags = {"axes": "TYX", "finterval": 2.5, "tunit": "min", "unit": "um", "spacing": 3.0}
    tifffile.imwrite(path, FRAMES, imagej=True, metadata=tags)
    assert read_interval_s(path) == 150
    assert read_section_um(path) == 3


def test_ome(tmp_path):
    path = tmp_path / "a.ome.tif"
    tags = {"axes": "TYX", "TimeIncrement": 250.0, "TimeIncrementUnit": "ms", "PhysicalSizeZ": 300.0}
    tifffile.imwrite(path, FRAMES, metadata=tags | {"PhysicalSizeZUnit": "nm"})
    assert read_interval_s(path) == 0.25
    assert read_section_um(path) == pytest.approx(0.3)
    tifffile.imwrite(path, FRAMES, metadata={"axes": "TYX", "TimeIncrement": 7.0, "PhysicalSizeZ": 2.0})
    assert (read_interval_s(path), read_section_um(path)) == (7, 2)


def test_what_cellseg_writes(tmp_path):
    labels = np.ones((2, 4, 4), np.int32)
    write_labels(tmp_path / "t.tif", labels, spacing_um=(0.5, 0.5), interval_s=600.0)
    write_labels(tmp_path / "z.tif", labels, spacing_um=(2.0, 0.5, 0.5), sections=True)
    assert (read_interval_s(tmp_path / "t.tif"), read_section_um(tmp_path / "t.tif")) == (600, None)
    assert (read_interval_s(tmp_path / "z.tif"), read_section_um(tmp_path / "z.tif")) == (None, 2)


@pytest.mark.parametrize(("side", "known"), [(1e-7, False), (1e-6, True), (49.0, True), (2e6, False)])
def test_sides_that_no_voxel_has_are_not_known(tmp_path, side, known):
    path = tmp_path / "a.ome.tif"
    tags = {"PhysicalSizeX": side, "PhysicalSizeY": side, "PhysicalSizeZ": side}
    tifffile.imwrite(path, FRAMES, metadata={"axes": "ZYX", **tags})
    assert read_section_um(path) == (side if known else None)
    assert read_spacing_um(path) == ((side, side) if known else None)


def test_unknown_is_none(tmp_path):
    write_image(tmp_path / "a.tif", FRAMES[0])
    write_image(tmp_path / "a.png", FRAMES[0])
    for path in (tmp_path / "a.tif", tmp_path / "a.png", tmp_path):
        assert read_interval_s(path) is None and read_section_um(path) is None
    tifffile.imwrite(tmp_path / "b.tif", FRAMES, imagej=True, metadata={"axes": "TYX", "finterval": 0.0})
    assert read_interval_s(tmp_path / "b.tif") is None
    tifffile.imwrite(
        tmp_path / "c.ome.tif", FRAMES, metadata={"axes": "TYX", "TimeIncrement": 1.0, "TimeIncrementUnit": "?"}
    )
    assert read_interval_s(tmp_path / "c.ome.tif") is None
