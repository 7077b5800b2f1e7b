"""Volume report: the objects of a volume as one HTML page with a rendered picture, sections and numbers.

The page is written in `cellseg.pages`, the picture of the objects drawn in `cellseg.figures.volumes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from trimesh import Trimesh

from cellseg import figures, pages
from cellseg.image_series import ImageSeries
from cellseg.pages import Figure, Page, Section, Table, Tile
from cellseg.score_tables import number, percent
from pipelines.files import whole_file

FOLDER = "pictures"
LISTED, SECTIONS = 30, 3
CONTRAST = (0.2, 99.8)  # as the eye needs it; the network has its own
METHODS = {
    "join": "What touches, in a section or from one section to the next, is one object.",
    "link": "A cell of a section has at most one partner in the next section: touching cells stay apart.",
}


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume whose objects were found.

    Args:
        images: The sections.
        objects: int32 (Z, H, W), 1..n.
        meshes: Object -> mesh, in micrometres, or in voxels where the spacing is not known.
        table: `cellseg.reconstruction.measure_objects`.
        spacing_um: (z, row, column), where known.
        method: How sections became objects.
        run: Folder of the run.
        notes: What the user was told.
    """

    images: ImageSeries
    objects: np.ndarray
    meshes: Mapping[int, Trimesh]
    table: pd.DataFrame
    spacing_um: tuple[float, float, float] | None
    method: str
    run: Path
    notes: Sequence[str]


def write_volume_report(folder: Path, volume: Volume) -> Path:
    """Draw the pictures of a volume and write `report.html`, both into its result folder; returns its path."""
    sizes = volume.spacing_um or (1.0, 1.0, 1.0)
    extent = [side * size for side, size in zip(volume.objects.shape, sizes, strict=True)]
    unit = "um" if volume.spacing_um else "voxels"
    drawn = {"objects.png": figures.rendered_objects(volume.meshes, extent=extent, unit=unit)}
    numbers = list(volume.images.places)
    middle = np.linspace(0, len(numbers) - 1, SECTIONS + 2)[1:-1] if len(numbers) > SECTIONS else range(len(numbers))
    chosen = [round(place) for place in middle]
    for place in chosen:
        name = f"section_{numbers[place]:03d}.png"
        image = volume.images.read(numbers[place])
        drawn[name] = figures.overlay(image, volume.objects[place], contrast=CONTRAST)
    for name, png in drawn.items():
        with whole_file(folder / FOLDER / name) as path:
            path.write_bytes(png)
    shown = {name: pages.embedded(png) for name, png in drawn.items()}
    page = Page(
        title=volume.images.name,
        subtitle=f"Objects found by the run {volume.run.resolve().name} and measured by cellseg, {pages.today()}.",
        tiles=_tiles(volume),
        notes=volume.notes,
        sections=[
            Section(
                "Objects", figures=[Figure(shown["objects.png"], "Seen from above at an angle; colours as below.")]
            ),
            Section(
                "Sections",
                figures=[Figure(shown[name], f"Section {name[8:-4]}.", wide=True) for name in list(drawn)[1:]],
            ),
            _numbers(volume),
            _largest(volume.table),
        ],
        files=_files(folder, volume),
        command=pages.command(),
    )
    pages.write_page(folder / pages.NAME, page)
    return folder / pages.NAME


def _size(table: pd.DataFrame) -> tuple[str, str]:
    """Column of the volume and its unit."""
    return ("volume_um3", "µm³") if "volume_um3" in table else ("num_voxels", "voxels")


def _tiles(volume: Volume) -> list[Tile]:
    column, unit = _size(volume.table)
    sizes = volume.table[column].to_numpy(np.float64)
    touching = int(volume.table["touches_border"].sum())
    median = f"{np.median(sizes):.3g} {unit}" if len(sizes) else "–"
    return [
        Tile("Objects", number(len(volume.table)), f"{touching} touch the border, and may go on outside"),
        Tile("Share of the volume", percent(float((volume.objects > 0).mean()))),
        Tile("Median volume", median),
        Tile("Sections", number(len(volume.images)), " x ".join(map(str, volume.objects.shape[1:])) + " pixels"),
    ]


def _numbers(volume: Volume) -> Section:
    column, unit = _size(volume.table)
    real = {"surface_um2": "µm²", "surface": "sides of a voxel", column: unit, "sphericity": ""}
    names = {"surface_um2": "Surface", "surface": "Surface", column: "Volume", "sphericity": "Sphericity"}
    facts = []
    for name, own in real.items():
        if name in volume.table and len(volume.table):
            low, middle, high = (f"{one:.3g}" for one in np.quantile(volume.table[name], [0.05, 0.5, 0.95]))
            facts.append((f"{names[name]} of an object", f"{middle} ({low} to {high}) {own}".rstrip()))
    voxel = " x ".join(f"{size:.4g}" for size in volume.spacing_um) + " µm" if volume.spacing_um else "not known"
    facts += [("All objects together", f"{volume.table[column].sum():.4g} {unit}"), ("Voxel (z, row, column)", voxel)]
    texts = [METHODS[volume.method]]
    if not volume.spacing_um:
        texts.append("Pass --spacing-um Y X and --section-um Z to have micrometres.")
    note = (
        "Of the objects: the median, and in brackets the 5th and 95th percentile. Volume: of the voxels; surface: of "
        "the mesh, a cut at the border included. Sphericity: surface of the sphere of the same volume / surface, 1 = "
        "sphere."
    )
    return Section("Numbers", texts, facts, note=note)


def _largest(table: pd.DataFrame) -> Section:
    column, unit = _size(table)
    largest = table.sort_values(column, ascending=False).head(LISTED)
    surface = "surface_um2" if "surface_um2" in table else "surface"
    columns = ["object", f"volume, {unit}", "surface, µm²" if surface == "surface_um2" else "surface, voxel sides"]
    rows = [
        [
            f"{line['object']:.0f}",
            f"{line[column]:.4g}",
            f"{line[surface]:.4g}",
            f"{line['sphericity']:.3f}",
            f"{line['first_section']:.0f} to {line['last_section']:.0f}",
            "yes" if line["touches_border"] else "no",
        ]
        for _, line in largest.iterrows()
    ]
    note = f"{len(table) - LISTED} smaller objects stand in objects.csv." if len(table) > LISTED else ""
    heads = [*columns, "sphericity", "sections", "touches the border"]
    return Section("The largest objects", table=Table(heads, rows) if rows else None, note=note)


def _files(folder: Path, volume: Volume) -> list[tuple[str, str]]:
    meshes = sorted(path.name for path in folder.glob("objects.*") if path.suffix in (".obj", ".ply", ".glb"))
    unit = "micrometres" if volume.spacing_um else "voxels"
    return [
        (f"{volume.images.name}.tif", "the objects as a labelled z-stack"),
        ("objects.csv", "a line for each object"),
        *((name, f"the surfaces, in {unit}, for 3-D programs") for name in meshes),
        (f"{FOLDER}/", "the pictures of this page"),
    ]
