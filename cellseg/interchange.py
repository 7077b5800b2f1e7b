"""Interchange: labels as outlines in the files of other programs: ROI sets of ImageJ, GeoJSON of QuPath.

Such files are read in `pipelines.outline_files`; the outlines themselves live in `cellseg.outlines`, label TIFFs in
`pipelines.images`.

Both programs count coordinates in pixels from the image's upper left corner, x (column) before y (row), and the centre
of the first pixel lies at (0.5, 0.5): the corners of `cellseg.outlines` are what they draw and measure.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from cellseg.outlines import polygons
from pipelines.files import whole_file
from pipelines.outline_files import Polygon
from pipelines.preview import COLOURS

MOVE_TO, LINE_TO, CLOSE = 0.0, 1.0, 4.0  # ImageJ's ShapeRoi
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same labels give the same bytes


def write_rois(path: Path | str, labels: np.ndarray) -> None:
    """Write the cells as a ROI set (zip) for ImageJ's ROI manager; the file appears whole or not at all.

    A cell of one polygon is a traced selection, one with holes or several pieces a composite one; both select exactly
    the cell's pixels.

    Args:
        path: Final name, `.zip`.
        labels: int (H, W) or (N, H, W), 0 = background. A ROI is called by its label id, `7`; in a stack it carries
            its page as position, and its name is page (from 1) and label id, `0003-7`, since names in a set differ.
            Without cells the set is empty.
    """
    pages = labels[np.newaxis] if labels.ndim == 2 else labels
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, page in enumerate(pages, start=1):
            for cell, parts in polygons(page).items():
                roi = _roi(parts)
                roi.name = str(cell) if labels.ndim == 2 else f"{number:04d}-{cell}"
                roi.position = 0 if labels.ndim == 2 else number
                entry = zipfile.ZipInfo(f"{roi.name}.roi", LONG_AGO)
                archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)


def write_geojson(
    path: Path | str, labels: np.ndarray, *, classes: np.ndarray | None = None, class_names: Sequence[str] = ()
) -> None:
    """Write the cells of one page as a GeoJSON FeatureCollection for QuPath; it appears whole or not at all.

    Each cell is a detection, named by its label id: a Polygon with its holes, or a MultiPolygon where it has several
    pieces. Coordinates are pixels, not micrometres.

    Args:
        path: Final name, `.geojson`.
        labels: int (H, W), 0 = background. Without cells the collection is empty.
        classes: int (H, W), the class of the cell that each pixel lies in; 0 = none. A cell has one class.
        class_names: Of the classes, class 1 first; each has the colour that the figures give it.
    """
    features = []
    # One pixel of each cell says its class.
    cells, places = np.unique(labels, return_index=True)
    kinds = dict(zip(cells.tolist(), np.ravel(classes)[places].tolist(), strict=True)) if classes is not None else {}
    for cell, parts in polygons(labels).items():
        properties: dict = {"objectType": "detection", "name": str(cell)}
        kind = kinds.get(cell, 0)
        if kind:
            colour = COLOURS[(kind - 1) % len(COLOURS)].tolist()
            properties["classification"] = {"name": class_names[kind - 1], "color": colour}
        features.append({"type": "Feature", "geometry": _geometry(parts), "properties": properties})
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _geometry(parts: Sequence[Polygon]) -> dict:
    # GeoJSON repeats the first corner at the end of a ring.
    rings = [[np.concatenate([ring, ring[:1]])[:, ::-1].tolist() for ring in polygon] for polygon in parts]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}


def _roi(parts: Sequence[Polygon]) -> ImagejRoi:
    rings = [ring[:, ::-1] for polygon in parts for ring in polygon]
    corners = np.concatenate(rings)
    if len(rings) == 1:
        roi = ImagejRoi.frompoints(corners)
        roi.roitype = ROI_TYPE.TRACED
    else:
        path = np.concatenate([_path(ring) for ring in rings])
        roi = ImagejRoi(roitype=ROI_TYPE.RECT, multi_coordinates=path, shape_roi_size=len(path))
    # The box ends where the outermost corners lie, as ImageJ itself writes it.
    roi.left, roi.top = (int(value) for value in corners.min(axis=0))
    roi.right, roi.bottom = (int(value) for value in corners.max(axis=0))
    return roi


def _path(ring: np.ndarray) -> np.ndarray:
    """A ring as ImageJ's ShapeRoi stores it: command, x, y for each corner, and a command that closes it."""
    commands = np.full((len(ring), 1), LINE_TO)
    commands[0] = MOVE_TO
    return np.append(np.hstack([commands, ring]).ravel(), CLOSE).astype(np.float32)
