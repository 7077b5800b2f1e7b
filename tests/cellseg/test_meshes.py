import numpy as np
import pytest
import trimesh

from cellseg.meshes import object_meshes, write_meshes
from cellseg.reconstruction import measure_objects
from pipelines.errors import InputError


def ellipsoid(half, spacing, centre=(0.0, 0.0, 0.0)):
    """Labels of a digitised ellipsoid: semi-axes, voxel size and centre along (z, row, column), in micrometres."""
    reach = [int(np.ceil(radius / size)) + 2 for radius, size in zip(half, spacing, strict=True)]
    grid = np.meshgrid(
        *(np.arange(-count, count + 1) * size for count, size in zip(reach, spacing, strict=True)), indexing="ij"
    )
    inside = sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(grid, centre, half, strict=True)) <= 1
    return inside.astype(np.int32)


def surface(half):
    """Of an ellipsoid: the integral over the sphere that it is stretched from, midpoint rule."""
    a, b, c = half
    steps = 400
    polar, around = np.meshgrid((np.arange(steps) + 0.5) * np.pi / steps, (np.arange(steps) + 0.5) * 2 * np.pi / steps)
    stretch = np.sqrt(
        (b * c * np.sin(polar) * np.cos(around)) ** 2
        + (a * c * np.sin(polar) * np.sin(around)) ** 2
        + (a * b * np.cos(polar)) ** 2
    )
    return float((np.sin(polar) * stretch).sum() * (np.pi / steps) * (2 * np.pi / steps))


def test_the_reference_surface_is_that_of_a_sphere():
    assert surface((3, 3, 3)) == pytest.approx(4 * np.pi * 9, rel=1e-4)


@pytest.mark.parametrize(
    ("half", "spacing"),
    [
        ((6, 6, 6), (1, 1, 1)),
        ((10, 10, 10), (1, 1, 1)),
        ((20, 20, 20), (1, 1, 1)),
        ((0.1, 0.1, 0.1), (0.005, 0.005, 0.005)),
        ((12, 12, 12), (3, 1, 1)),
        ((20, 20, 20), (3, 1, 1)),
        ((8, 12, 20), (1, 1, 1)),
        ((20, 12, 8), (1, 1, 1)),
        ((12, 12, 20), (3, 1, 1)),
        ((18, 10, 14), (3, 1, 1)),
        ((16, 12, 16), (2, 0.5, 1)),
        ((20, 12, 30), (5, 1, 1)),
    ],
)
@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.37, -0.21, 0.45)])
def test_volume_and_surface_within_3_percent(half, spacing, shift):
    labels = ellipsoid(half, spacing, np.multiply(shift, spacing))
    meshes = object_meshes(labels, spacing_um=spacing)
    measured = measure_objects(labels, spacing_um=spacing, meshes=meshes).iloc[0]
    volume = 4 / 3 * np.pi * np.prod(half)
    assert measured["volume_um3"] == pytest.approx(volume, rel=0.03)
    assert measured["surface_um2"] == pytest.approx(surface(half), rel=0.03)
    assert meshes[1].volume == pytest.approx(volume, rel=0.03)
    assert measured["sphericity"] == pytest.approx(np.cbrt(np.pi) * (6 * volume) ** (2 / 3) / surface(half), rel=0.04)


def test_a_mesh_lies_where_its_object_lies():
    labels = np.zeros((9, 12, 20), np.int32)
    labels[2:5, 4:10, 11:19] = 7
    found = object_meshes(labels, spacing_um=(3.0, 1.0, 0.5))
    assert list(found) == [7]
    # (x, y, z): the middle of columns 11 to 18, rows 4 to 9 and sections 2 to 4, in micrometres.
    np.testing.assert_allclose(found[7].center_mass, [14.5 * 0.5, 6.5, 9.0], atol=1e-3)
    assert found[7].is_watertight
    assert found[7].volume > 0


@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_the_smallest_objects_do_not_vanish(voxels):
    labels = np.zeros((1, 1, 5), np.int32)
    labels[0, 0, :voxels] = 1
    one = object_meshes(labels)[1]
    assert one.is_watertight
    assert 0 < one.volume < 2 * voxels


def test_objects_that_touch_have_surfaces_of_their_own():
    labels = np.ones((6, 6, 12), np.int32)
    labels[..., 6:] = 2
    meshes = object_meshes(labels)
    assert meshes[1].area == pytest.approx(meshes[2].area)
    assert object_meshes(0 * labels) == {}


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_meshes_come_back_from_their_file(tmp_path, suffix):
    labels = np.zeros((8, 8, 16), np.int32)
    labels[1:6, 1:6, 1:6], labels[2:7, 2:7, 9:14] = 1, 4
    meshes = object_meshes(labels, spacing_um=(0.5, 0.1, 0.1))
    path = tmp_path / f"objects{suffix}"
    write_meshes(path, meshes)
    back = trimesh.load_scene(path)
    assert sum(one.volume for one in back.geometry.values()) == pytest.approx(
        meshes[1].volume + meshes[4].volume, rel=1e-4
    )
    ends = np.stack([one.bounds for one in meshes.values()])
    np.testing.assert_allclose(back.bounds, [ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)], atol=1e-5)
    if suffix == ".glb":
        assert sorted(back.geometry) == ["object_1", "object_4"]
    if suffix != ".obj":
        colours = np.concatenate([one.visual.vertex_colors[:, :3] for one in back.geometry.values()])
        assert len(np.unique(colours, axis=0)) == 2
    else:
        assert path.read_text().count("\no object_") + path.read_text().startswith("o object_") == 2
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"objects.stl: meshes are written as .obj, .ply, .glb, not as '.stl'"):
        write_meshes(tmp_path / "objects.stl", {})
    with pytest.raises(InputError, match=r"objects.obj: there is no object to write"):
        write_meshes(tmp_path / "objects.obj", {})
