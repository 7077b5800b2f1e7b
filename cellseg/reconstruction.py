"""Reconstruction: the sections of a volume, answered one by one, become 3-D objects; what is measured on them.

A section's labels come from `cellseg.instances`; surfaces as triangles live in `cellseg.meshes`.

Two ways from sections to objects. `join` takes the voxels as they are: what touches is one object, as fits
mitochondria, vessels and whatever forks. `link` keeps the cuts that each section has already made between touching
cells, and gives a cell at most one partner in the next section, the one that it shares most with: nuclei that touch
stay apart, but a branch ends where it leaves its stem.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from trimesh import Trimesh

from cellseg.measuring import check_spacing
from cellseg.meshes import boxes, object_meshes
from cellseg.overlap import assignment, contingency
from pipelines.errors import InputError
from pipelines.images import write_labels

AXES = ("z", "row", "column")


def join(sections: Iterable[np.ndarray], *, connectivity: int = 6) -> np.ndarray:
    """Every connected piece of the foreground is one object.

    Args:
        sections: Masks or labels (H, W), from the first section to the last; above 0 is foreground.
        connectivity: 6 joins voxels that share a face, 26 also those that share an edge or a corner.

    Returns:
        int32 (Z, H, W), 0 = background, 1..n.
    """
    if connectivity not in (6, 26):
        raise InputError(f"connectivity must be 6 or 26, got {connectivity}.")
    volume = _stacked([section > 0 for section in sections])
    labels, _ = ndimage.label(volume, structure=ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3))
    return labels.astype(np.int32, copy=False)


def link(sections: Iterable[np.ndarray], *, min_overlap: float = 0.5) -> np.ndarray:
    """Cells of neighbouring sections become one object where they share enough pixels, each with at most one partner.

    Of all ways to choose partners, the one with the most shared pixels is taken.

    Args:
        sections: Labels int (H, W), from the first section to the last; 0 = background.
        min_overlap: Least shared pixels, as a fraction of the smaller of the two cells, in (0, 1].

    Returns:
        int32 (Z, H, W), 0 = background, 1..n.
    """
    if not 0 < min_overlap <= 1:
        raise InputError(f"min_overlap must be above 0 and at most 1, got {min_overlap}.")
    numbered, links, count = [], [], 0
    for section in sections:
        ids, index = np.unique(section, return_inverse=True)
        names = np.where(ids > 0, count + np.cumsum(ids > 0), 0)
        numbered.append(names[index].reshape(section.shape).astype(np.int32))
        count = int(names.max(initial=count))
        if len(numbered) > 1:
            links.append(_partners(numbered[-2], numbered[-1], min_overlap))
    volume = _stacked(numbered)
    first, second = np.concatenate(links, axis=1) if links else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count + 1, count + 1))
    _, objects = connected_components(graph, directed=False)
    # The background, 0, has no partners: its component is its own.
    return renumbered(np.where(volume > 0, objects[volume] + 1, 0).astype(np.int32))


def clean(
    labels: np.ndarray,
    *,
    min_voxels: int = 0,
    min_um3: float = 0.0,
    fill_holes: bool = False,
    spacing_um: Sequence[float] | None = None,
) -> np.ndarray:
    """Drop small objects, fill the holes in the others, and number them anew.

    Args:
        labels: int (Z, H, W), 0 = background.
        min_voxels: Smaller objects are dropped; 0 and 1 keep all.
        min_um3: Likewise, in cubic micrometres.
        fill_holes: Background that an object encloses on all sides becomes the object's; a tunnel stays open.
        spacing_um: (z, row, column) size of a voxel, needed for `min_um3`.

    Returns:
        int32 (Z, H, W), 1..n.
    """
    spacing = check_spacing(spacing_um, AXES)
    if min_um3 and spacing is None:
        raise InputError(f"min_um3 is {min_um3}, but the size of a voxel is not known. Give spacing_um as well.")
    least = max(min_voxels, min_um3 / np.prod(spacing) if spacing is not None else 0)
    sizes = np.bincount(labels.ravel())
    # A size that equals the least must not fall to rounding.
    kept = np.where(sizes >= least * (1 - 1e-9), np.arange(len(sizes)), 0)
    out = kept[labels].astype(np.int32)
    if fill_holes:
        for number, box in boxes(out):
            part = out[box]
            part[ndimage.binary_fill_holes(part == number) & (part == 0)] = number
    return renumbered(out)


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Labels numbered 1..n in the order of their ids, int32."""
    present = np.bincount(labels.ravel(), minlength=1) > 0
    present[0] = False
    return np.where(present, np.cumsum(present), 0).astype(np.int32)[labels]


def measure_objects(
    labels: np.ndarray,
    *,
    spacing_um: Sequence[float] | None = None,
    meshes: Mapping[int, Trimesh] | None = None,
) -> pd.DataFrame:
    """Measure every object of a volume.

    The volume is that of its voxels, which is the truth within 1 % from a radius of 4 voxels on; the surface is that of
    its mesh (`cellseg.meshes` has a table of its error).

    Args:
        labels: int (Z, H, W), 0 = background.
        spacing_um: (z, row, column) size of a voxel in micrometres, where known.
        meshes: `object_meshes` with the same spacing, where they were made already.

    Returns:
        One line an object, ids ascending; without objects no line, but all columns:

        - object, z, row, column (centroid; the centre of the first voxel is 0), num_voxels
        - first_section, last_section, row_min, row_max, column_min, column_max: the box, both ends included
        - touches_border: the object may go on outside the volume; the cut counts as surface
        - surface, in sides of a voxel; with `spacing_um` instead z_um, row_um, column_um, volume_um3, surface_um2,
          equivalent_diameter_um (of the sphere of the same volume)
        - sphericity = surface of the sphere of the same volume / surface; 1 = sphere, up to the error of the surface
    """
    spacing = check_spacing(spacing_um, AXES)
    if meshes is None:
        meshes = object_meshes(labels, spacing_um=spacing or (1.0, 1.0, 1.0))
    lines = [_line(labels, number, box) for number, box in boxes(labels)]
    whole, real = np.int64, np.float64
    kinds = {"object": whole} | dict.fromkeys(AXES, real) | {"num_voxels": whole, "first_section": whole}
    kinds |= dict.fromkeys(("last_section", "row_min", "row_max", "column_min", "column_max"), whole)
    table = pd.DataFrame(lines, columns=[*kinds, "touches_border"]).astype(kinds | {"touches_border": bool})
    surface = np.array([meshes[int(number)].area for number in table["object"]], np.float64)
    voxel = float(np.prod(spacing)) if spacing is not None else 1.0
    volume = table["num_voxels"].to_numpy() * voxel
    if spacing is not None:
        for axis, size in zip(AXES, spacing, strict=True):
            table[f"{axis}_um"] = table[axis] * size
        table["volume_um3"] = volume
    table["surface" if spacing is None else "surface_um2"] = surface
    if spacing is not None:
        table["equivalent_diameter_um"] = np.cbrt(6 * volume / np.pi)
    table["sphericity"] = np.cbrt(np.pi) * (6 * volume) ** (2 / 3) / surface
    return table


def write_volume(path: Path | str, labels: np.ndarray, *, spacing_um: Sequence[float] | None = None) -> None:
    """Write the objects as a TIFF z-stack that ImageJ opens with its voxel size; it appears whole or not at all."""
    write_labels(path, labels, spacing_um=check_spacing(spacing_um, AXES), sections=True)


def _stacked(sections: list[np.ndarray]) -> np.ndarray:
    if not sections:
        raise InputError("There is no section. A volume has at least one.")
    shapes = {section.shape for section in sections}
    if len(shapes) > 1 or sections[0].ndim != 2:
        raise InputError(f"The sections of a volume must be (H, W) of one size, got {sorted(shapes)}.")
    return np.stack(sections)


def _partners(one: np.ndarray, other: np.ndarray, min_overlap: float) -> np.ndarray:
    """Pairs of cells of two sections, int (2, n)."""
    if one.shape != other.shape:
        raise InputError(f"The sections of a volume must be of one size, got {one.shape} and {other.shape}.")
    shared = contingency(one, other)
    first, second, pixels = shared.object_pairs
    enough = pixels >= min_overlap * np.minimum(shared.areas_true[first], shared.areas_pred[second])
    # Too small an overlap gains nothing: it is never chosen in place of one that counts.
    chosen = assignment(shared, np.where(enough, pixels, 0))
    chosen = chosen[enough[chosen]]
    return np.stack([shared.ids_true[first[chosen]], shared.ids_pred[second[chosen]]])


def _line(labels: np.ndarray, number: int, box: tuple[slice, ...]) -> list:
    inside = np.nonzero(labels[box] == number)
    centre = [one.mean() + side.start for one, side in zip(inside, box, strict=True)]
    ends = [end for side in box for end in (side.start, side.stop - 1)]
    border = any(side.start == 0 or side.stop == size for side, size in zip(box, labels.shape, strict=True))
    return [number, *centre, len(inside[0]), *ends, border]


RECONSTRUCTIONS: dict[str, Callable[..., np.ndarray]] = {"join": join, "link": link}
