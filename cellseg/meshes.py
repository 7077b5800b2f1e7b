"""Meshes: the surface of each 3-D object as triangles in micrometres, and files of them for 3-D programs.

Objects come from `cellseg.reconstruction`; pictures of meshes live in `cellseg.figures.volumes`.

A mesh laid around the voxels as they are has steps, and its surface is 9 % too large (19 % where sections are five
times as far apart as pixels). So the voxels are smoothed first, by one voxel along the coarsest axis and by the square
root of the ratio along a finer one, and the mesh is laid at the level that encloses the volume of the object's voxels:
smoothing alone would shrink small objects until they vanish. Error of the surface, mean and largest of six places of
the centre, in % (that of the volume is the digitising's: 1 % from a radius of 6 voxels on, 0.3 % from 20 on):

    sphere, radius in voxels      3          4          6         10         20       ellipsoid 8 x 12 x 20
                              2.2, 7.0  -0.2, 2.2   1.2, 2.0   0.3, 0.6   0.2, 0.3          0.1, 0.3

    sections 3 times as far apart, radius in pixels     6         10         20       ellipsoid 12 x 12 x 20
                                                    1.4, 4.9   0.8, 1.7   0.4, 0.6          0.2, 0.5

Coordinates are (x, y, z) = (column, row, section), the centre of the first voxel at 0: that is right-handed, so nothing
is mirrored in a program that lets y point down.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import trimesh
from scipy import ndimage
from scipy.optimize import brentq
from skimage.measure import marching_cubes

from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.preview import COLOURS

MESH_SUFFIXES = (".obj", ".ply", ".glb")
RIM = 4  # voxels around an object, times the smoothing: where the Gaussian has faded


def object_meshes(labels: np.ndarray, *, spacing_um: Sequence[float] = (1.0, 1.0, 1.0)) -> dict[int, trimesh.Trimesh]:
    """The closed surface of every object of a volume.

    Args:
        labels: int (Z, H, W), 0 = background.
        spacing_um: (z, row, column) size of a voxel; the default gives voxels.

    Returns:
        Object to its mesh, vertices (x, y, z) in micrometres, normals outwards. Without objects it is empty.
    """
    return {number: mesh(labels[box] == number, box, spacing_um=spacing_um) for number, box in boxes(labels)}


def boxes(labels: np.ndarray) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """The objects of a volume int (Z, H, W) and the box that each lies in."""
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            yield number, box


def mesh(mask: np.ndarray, box: Sequence[slice], *, spacing_um: Sequence[float]) -> trimesh.Trimesh:
    """The surface of one object: `mask` is bool, the object within its box, with at least one voxel."""
    sizes = np.asarray(spacing_um, np.float64)
    sigma = np.sqrt(sizes.max() / sizes)
    rim = np.ceil(RIM * sigma).astype(int)
    smooth = ndimage.gaussian_filter(np.pad(mask, [(one, one) for one in rim]).astype(np.float32), sigma)
    corners, faces = _enclosing(smooth, float(np.count_nonzero(mask)))
    corners = (corners - rim + [one.start for one in box]) * sizes
    # Backwards, (x, y, z): that turns the triangles' sides outwards.
    return trimesh.Trimesh(corners[:, ::-1], faces, process=False)


def write_meshes(path: Path | str, meshes: Mapping[int, trimesh.Trimesh]) -> None:
    """Write meshes as OBJ, PLY or GLB, by the suffix, each object in its own colour; it appears whole or not at all.

    OBJ and GLB keep the objects apart, named `object_7`; PLY holds one mesh with coloured vertices. One unit is one
    micrometre (or one voxel, as the meshes were made).

    Raises:
        InputError: Another suffix, or no object.
    """
    path = Path(path)
    if path.suffix not in MESH_SUFFIXES:
        raise InputError(f"{path}: meshes are written as {', '.join(MESH_SUFFIXES)}, not as '{path.suffix}'.")
    if not meshes:
        raise InputError(f"{path}: there is no object to write. Lower the threshold or the smallest size.")
    coloured = {}
    for number, one in meshes.items():
        coloured[f"object_{number}"] = copy = one.copy()
        copy.visual = trimesh.visual.ColorVisuals(copy, vertex_colors=np.tile(colour(number), (len(copy.vertices), 1)))
    whole = trimesh.util.concatenate(list(coloured.values())) if path.suffix == ".ply" else _scene(coloured)
    with whole_file(path) as temporary:
        whole.export(file_obj=str(temporary), file_type=path.suffix[1:])


def colour(number: int) -> np.ndarray:
    """(R, G, B) of 255 of an object, as the 2-D pictures have it."""
    return COLOURS[number % len(COLOURS)]


def _enclosing(smooth: np.ndarray, volume: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners and triangles at the level that encloses the volume, in voxels, within about 0.1 %."""

    def excess(level: float) -> float:
        corners, faces, _, _ = marching_cubes(smooth, level)
        first, second, third = np.moveaxis(corners[faces].astype(np.float64), 1, 0)
        return abs(np.einsum("ij,ij->", first, np.cross(second, third))) / 6 - volume

    # Where a few more voxels lie above the level, and a few less; the ends of the range where that is not enough.
    count, highest = smooth.size, float(smooth.max())
    few, many = (min(count - 1, max(0, round(count - share * volume) - 1)) for share in (0.7, 1.4))
    ends = np.partition(smooth.ravel(), [many, few])[[many, few]].astype(np.float64)
    low, high = np.clip(ends, 0.01 * highest, 0.99 * highest)
    if not (low < high and excess(low) > 0 > excess(high)):
        low, high = 0.01 * highest, 0.99 * highest
    level = brentq(excess, low, high, xtol=5e-4 * highest)
    corners, faces, _, _ = marching_cubes(smooth, level, allow_degenerate=False)
    return corners, faces


def _scene(meshes: Mapping[str, trimesh.Trimesh]) -> trimesh.Scene:
    scene = trimesh.Scene()
    for name, one in meshes.items():
        scene.add_geometry(one, node_name=name, geom_name=name)
    return scene
