"""Outline files: cells drawn as outlines in ROI sets of ImageJ and GeoJSON of QuPath, read and filled.

They are written in `cellseg.interchange`, and traced around labels in `cellseg.outlines`.

Corners, not centres: pixel (row, column) is the square from (row, column) to (row + 1, column + 1), in both programs.
Nothing is unpacked onto the disk, and nothing in a file is run.
"""

import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from pipelines.errors import InputError

# Rings (N, 2) of (row, column) corners, not closed: the outer one first, then the holes.
Polygon = list[np.ndarray]

OUTLINE_SUFFIXES = (".zip", ".roi", ".geojson", ".json")
AREAS = {ROI_TYPE.POLYGON, ROI_TYPE.RECT, ROI_TYPE.OVAL, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED}
ELLIPSE_CORNERS = 64
LARGEST_ROI = 2**26  # bytes: eight million corners
LARGEST_SET = 2**29  # bytes of all ROIs of a set; a zip of some kilobytes can unfold to more than any disk holds
FARTHEST = 2**20  # pixels from the upper left corner; no image is as large
MOST_CROSSINGS = 2**18  # of sides and rows at once; those of a zigzag are many times its corners

# Axes that count the pages of an image and their lengths, as of `pipelines.decoding.page_axes`.
PageAxes = tuple[tuple[str, int], ...]


def filled(cells: Mapping[int, Sequence[Polygon]], shape: tuple[int, int]) -> np.ndarray:
    """Labels of polygons: a pixel belongs to the cell whose polygon its centre lies in.

    Args:
        cells: Label id > 0 to its polygons; rings (N, 2) of (row, column), fractions too, closed or not. Where cells
            overlap, the later one wins; what lies outside `shape` is cut off.
        shape: (H, W).

    Returns:
        int32 (H, W), 0 = background.
    """
    labels = np.zeros(shape, np.int32)
    for cell, parts in cells.items():
        for polygon in parts:
            _fill(labels, polygon, cell)
    return labels


@dataclass(frozen=True, eq=False)
class Outlined:
    """Cells of a file, as outlines.

    Args:
        pages: Page (from 0) -> the polygons of each of its cells, in the order of the file; a file without positions
            has page 0 alone.
        passed_over: What the file holds beside areas (points, lines, text), as (name, kind).
        unplaced: How many of the cells have no position, which in a stack may be any page; they count as page 0.
        unclear: Name of the first cell whose page is not known though it has a frame and a section, since the image's
            axes are not known: the pages then number the positions alone. "" if there is none.
    """

    pages: dict[int, list[list[Polygon]]]
    passed_over: list[tuple[str, str]]
    unplaced: int = 0
    unclear: str = ""

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


def read_rois(path: Path | str, *, axes: PageAxes = ()) -> Outlined:
    """Cells of an ImageJ ROI set (.zip) or of a single .roi; a ROI's position in a stack is its page.

    Polygons, freehand, traced and composite selections are areas, and so are rectangles and ovals.

    Args:
        path: The file.
        axes: Of the image that they were drawn on, where known: in a hyperstack of frames and sections they say which
            page a frame and a section are. Without them the one that is not the same for all counts.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no ROI set, or a position lies outside of `axes`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. An ImageJ ROI set was looked for there.")
    try:
        read = _rois(path)
        areas = [roi for roi in read if _is_area(roi)]
        cells = [_parts(roi) for roi in areas]
    except Exception as error:  # of zipfile, struct, numpy or roifile, as the damage will have it
        raise InputError(
            f"{path} is no ROI set of ImageJ ({type(error).__name__}: {error}). Save it from ImageJ's ROI manager "
            "(More > Save)."
        ) from error
    passed_over = [(roi.name, roi.roitype.name.lower()) for roi in read if not _is_area(roi)]
    pages, unclear = _pages(areas, dict(axes), path)
    found: dict[int, list[list[Polygon]]] = {}
    for page, parts in zip(pages, cells, strict=True):
        found.setdefault(max(page, 1) - 1, []).append(parts)
    return Outlined(dict(sorted(found.items())), passed_over, pages.count(0), unclear)


def read_outlines(path: Path | str, *, axes: PageAxes = ()) -> Outlined:
    """Cells of a file with one of OUTLINE_SUFFIXES; see `read_rois` and `read_geojson`."""
    return read_geojson(path) if Path(path).suffix.lower() in (".geojson", ".json") else read_rois(path, axes=axes)


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
        read = json.loads(path.read_text(encoding="utf-8-sig"))  # some programs write a byte order mark
        features = read if isinstance(read, list) else read.get("features", [read])
        cells, passed_over = [], []
        for feature in features:
            geometry = feature.get("geometry") or feature
            kind, coordinates = geometry["type"], geometry.get("coordinates")
            if kind not in ("Polygon", "MultiPolygon"):
                passed_over.append((str((feature.get("properties") or {}).get("name", "")), kind))
                continue
            parts = [coordinates] if kind == "Polygon" else coordinates
            if not all(parts):
                raise ValueError("a polygon has no ring")
            cells.append([[_ring(ring) for ring in rings] for rings in parts])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} is no GeoJSON of cells ({type(error).__name__}: {error}). Export it from QuPath with File > "
            "Export objects as GeoJSON."
        ) from error
    return Outlined({0: cells}, passed_over, len(cells))


def _rois(path: Path) -> list[ImagejRoi]:
    """The ROIs of a file, read in memory: the names in a zip are labels, and never paths on this disk."""
    if path.suffix.lower() != ".zip":
        with open(path, "rb") as file:
            return [ImagejRoi.frombytes(file.read(LARGEST_ROI))]
    with zipfile.ZipFile(path) as archive:
        # macOS adds files of its own, __MACOSX/._NAME.roi.
        inside = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
        if sum(one.file_size for one in inside) > LARGEST_SET:
            raise ValueError(f"it unfolds to more than {LARGEST_SET >> 20} MB")
        found = []
        for one in inside:
            # No more than the directory says comes out of a member.
            with archive.open(one) as file:
                found.append(ImagejRoi.frombytes(file.read(LARGEST_ROI)))
        return found


def _is_area(roi: ImagejRoi) -> bool:
    return roi.composite or roi.roitype in AREAS


def _pages(rois: Sequence[ImagejRoi], lengths: Mapping[str, int], path: Path) -> tuple[list[int], str]:
    """Page of each ROI from 1, 0 where none is said; name of the first whose page the axes do not tell, or ""."""
    places = [(roi.t_position, roi.z_position, roi.position) for roi in rois]
    if all(lengths.get(axis, 1) > 1 for axis in "TZ"):
        return [_page_of_hyperstack(roi, lengths, path) for roi in rois], ""
    odd = next((roi for roi in rois if roi.t_position > 1 or roi.z_position > 1), None)
    if odd is not None and all(any(place[axis] > 1 for place in places) for axis in (0, 1)):
        numbers = {place: number for number, place in enumerate(sorted(set(places)), start=1)}
        return [numbers[place] for place in places], odd.name or f"frame {odd.t_position}, section {odd.z_position}"
    # Of frames and sections the one of which there are several counts; in a plain stack the position.
    return [frame if frame > 1 else max(section, position, frame) for frame, section, position in places], ""


def _page_of_hyperstack(roi: ImagejRoi, lengths: Mapping[str, int], path: Path) -> int:
    place = {"T": roi.t_position, "Z": roi.z_position}
    if 0 in place.values():  # 0 is every frame, or every section, unless it is a plain position
        return 0 if any(place.values()) else roi.position
    if any(place[axis] > lengths[axis] for axis in place):
        raise InputError(
            f"{path}: '{roi.name}' is at frame {place['T']} and section {place['Z']}, but its image has "
            f"{lengths['T']} frames of {lengths['Z']} sections. Are they of another stack?"
        )
    # Axes of `lengths` stand in the order in which they count, the slowest first.
    page = 0
    for axis, length in lengths.items():
        page = page * length + place[axis] - 1
    return page + 1


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
    return [[_near(ring) for ring in rings if len(ring) > 2]]


def _ring(corners: list) -> np.ndarray:
    ring = np.array(corners, np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2:
        raise ValueError("a ring is no list of [x, y]")
    return _near(ring[:, 1::-1])


def _near(ring: np.ndarray) -> np.ndarray:
    if not (np.abs(ring) < FARTHEST).all():  # nor NaN
        raise ValueError("a corner lies beyond any image")
    return ring


def _box(roi: ImagejRoi) -> np.ndarray:
    top, left, bottom, right = roi.top, roi.left, roi.bottom, roi.right
    if roi.roitype == ROI_TYPE.RECT:
        return np.array([(top, left), (top, right), (bottom, right), (bottom, left)], np.float64)
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
    height, width = bottom - top, right - left
    return np.stack([top + height * (1 + np.sin(angle)) / 2, left + width * (1 + np.cos(angle)) / 2], axis=1)


def _fill(labels: np.ndarray, polygon: Polygon, cell: int) -> None:
    """Even-odd rule: a centre is inside if an odd number of sides cross its row to the left of it."""
    begins = np.concatenate([np.asarray(ring, np.float64) for ring in polygon])
    ends = np.concatenate([np.roll(np.asarray(ring, np.float64), -1, axis=0) for ring in polygon])
    upper = np.where((begins[:, 0] < ends[:, 0])[:, None], begins, ends)
    lower = np.where((begins[:, 0] < ends[:, 0])[:, None], ends, begins)
    # Rows whose centres lie in [upper, lower) of a side: half open, so that a corner counts once.
    first = np.clip(np.ceil(upper[:, 0] - 0.5), 0, labels.shape[0]).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 0] - 0.5), 0, labels.shape[0]).astype(np.int64)
    crossed = last > first
    if not crossed.any():
        return
    upper, lower, first, last = upper[crossed], lower[crossed], first[crossed], last[crossed]
    slopes = (lower[:, 1] - upper[:, 1]) / (lower[:, 0] - upper[:, 0])
    top, bottom = int(first.min()), int(last.max())
    sides = np.concatenate([upper[:, 1], lower[:, 1]])
    left, right = (int(np.clip(np.ceil(end - 0.5), 0, labels.shape[1])) for end in (sides.min(), sides.max()))
    # Parity is all that counts, and what a byte keeps of a sum.
    toggles = np.zeros((bottom - top, right - left + 1), np.uint8)
    # In blocks of sides, of one side at least: memory does not grow with their number.
    blocks = np.cumsum(last - first) // MOST_CROSSINGS
    for begin, end in itertools.pairwise([0, *(np.flatnonzero(np.diff(blocks)) + 1), len(first)]):
        count = last[begin:end] - first[begin:end]
        side = np.repeat(np.arange(begin, end), count)
        rows = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count) + first[side]
        crossings = upper[side, 1] + slopes[side] * (rows + 0.5 - upper[side, 0])
        columns = np.clip(np.ceil(crossings - 0.5), left, right).astype(np.int64)
        np.add.at(toggles, (rows - top, columns - left), np.uint8(1))
    inside = (np.cumsum(toggles, axis=1, dtype=np.uint8) % 2 == 1)[:, : labels.shape[1] - left]
    labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = cell
