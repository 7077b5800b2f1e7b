"""Interchange: labels to and from outlines in the files of other programs: ROI sets of ImageJ, GeoJSON of QuPath.

The outlines themselves live in `cellseg.outlines`; label TIFFs in `pipelines.images`.

Both programs count coordinates in pixels from the image's upper left corner, x (column) before y (row), and the centre
of the first pixel lies at (0.5, 0.5): the corners of `cellseg.outlines` are what they draw and measure.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from cellseg.outlines import Polygon, filled, polygons
from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.preview import COLOURS

MOVE_TO, LINE_TO, CLOSE = 0.0, 1.0, 4.0  # ImageJ's ShapeRoi
AREAS = {ROI_TYPE.POLYGON, ROI_TYPE.RECT, ROI_TYPE.OVAL, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED}
ELLIPSE_CORNERS = 64
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


@dataclass(frozen=True, eq=False)
class Outlined:
    """Cells of a file, as outlines.

    Args:
        pages: Page (from 0) -> the polygons of each of its cells, in the order of the file; a file without positions
            has page 0 alone.
        passed_over: What the file holds beside areas (points, lines, text), as (name, kind).
    """

    pages: dict[int, list[list[Polygon]]]
    passed_over: list[tuple[str, str]]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the smallest image that holds all of them, at least (1, 1)."""
        rings = [ring for cells in self.pages.values() for parts in cells for polygon in parts for ring in polygon]
        if not rings:
            return 1, 1
        height, width = np.ceil(np.concatenate(rings).max(axis=0)).astype(int)
        return max(int(height), 1), max(int(width), 1)

    def labels(self, page: int, shape: tuple[int, int]) -> tuple[np.ndarray, int, int]:
        """Labels of a page.

        Returns:
            int32 (H, W), cells 1, 2, ... in the order of the file, the later one on top where two overlap; how many
            pixels were claimed more than once; how many cells have no pixel of their own there.
        """
        labels = np.zeros(shape, np.int32)
        cells = self.pages.get(page, [])
        claimed = 0
        for number, parts in enumerate(cells, start=1):
            corner, mask = _mask(parts, shape)
            window = labels[corner[0] : corner[0] + mask.shape[0], corner[1] : corner[1] + mask.shape[1]]
            claimed += int(np.count_nonzero(window[mask]))
            window[mask] = number
        return labels, claimed, len(cells) - len(np.unique(labels[labels > 0]))


def read_rois(path: Path | str) -> Outlined:
    """Cells of an ImageJ ROI set (.zip) or of a single .roi; a ROI's position in a stack is its page.

    Polygons, freehand, traced and composite selections are areas, and so are rectangles and ovals.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no ROI set.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. An ImageJ ROI set was looked for there.")
    try:
        read = ImagejRoi.fromfile(path)
    except Exception as error:
        raise InputError(
            f"{path} is no ROI set of ImageJ ({type(error).__name__}: {error}). Save it from ImageJ's ROI manager "
            "(More > Save)."
        ) from error
    found: dict[int, list[list[Polygon]]] = {}
    passed_over = []
    for roi in read if isinstance(read, list) else [read]:
        if not roi.composite and roi.roitype not in AREAS:
            passed_over.append((roi.name, roi.roitype.name.lower()))
            continue
        # Of a hyperstack the frame counts, of a plain stack the position.
        page = max(roi.t_position or roi.position, 1) - 1
        found.setdefault(page, []).append(_parts(roi))
    return Outlined(dict(sorted(found.items())), passed_over)


def read_geojson(path: Path | str) -> Outlined:
    """Cells of a GeoJSON file of QuPath: each Polygon or MultiPolygon of a FeatureCollection, or of a plain list.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no GeoJSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. A GeoJSON file was looked for there.")
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        features = read if isinstance(read, list) else read.get("features", [read])
        cells, passed_over = [], []
        for feature in features:
            geometry = feature.get("geometry") or feature
            kind, coordinates = geometry["type"], geometry.get("coordinates")
            if kind not in ("Polygon", "MultiPolygon"):
                passed_over.append((str((feature.get("properties") or {}).get("name", "")), kind))
                continue
            parts = [coordinates] if kind == "Polygon" else coordinates
            cells.append([[np.array(ring, np.float64)[:, 1::-1] for ring in rings] for rings in parts])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} is no GeoJSON of cells ({type(error).__name__}: {error}). Export it from QuPath with File > "
            "Export objects as GeoJSON."
        ) from error
    return Outlined({0: cells}, passed_over)


def _mask(parts: list[Polygon], shape: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
    """Upper left corner and bool array of the part of an image that holds a cell: a small cell is filled quickly."""
    corners = np.concatenate([np.zeros((0, 2)), *(ring for polygon in parts for ring in polygon)])
    if not len(corners):
        return (0, 0), np.zeros((0, 0), bool)
    first = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape)
    last = np.clip(np.ceil(corners.max(axis=0)).astype(int), first, shape)
    moved = [[ring - first for ring in polygon] for polygon in parts]
    size = int(last[0] - first[0]), int(last[1] - first[1])
    return (int(first[0]), int(first[1])), filled({1: moved}, size) > 0


def _parts(roi: ImagejRoi) -> list[Polygon]:
    if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL) and not roi.composite:
        return [[_box(roi)]]
    coordinates = roi.coordinates(multi=True)
    rings = [ring[:, ::-1] for ring in (coordinates if isinstance(coordinates, list) else [coordinates])]
    # As one polygon: a ring within another is its hole, by the even-odd rule of `filled`.
    return [[ring for ring in rings if len(ring) > 2]]


def _box(roi: ImagejRoi) -> np.ndarray:
    top, left, bottom, right = roi.top, roi.left, roi.bottom, roi.right
    if roi.roitype == ROI_TYPE.RECT:
        return np.array([(top, left), (top, right), (bottom, right), (bottom, left)], np.float64)
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
    height, width = bottom - top, right - left
    return np.stack([top + height * (1 + np.sin(angle)) / 2, left + width * (1 + np.cos(angle)) / 2], axis=1)


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
