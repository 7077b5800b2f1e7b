"""Outlines: labels as polygons along the edges of the pixels, and polygons filled again.

Files of polygons for other programs live in `cellseg.interchange`; pictures of outlines in `cellseg.figures`.

Corners, not centres: pixel (row, column) is the square from (row, column) to (row + 1, column + 1), so its centre lies
at (row + 0.5, column + 0.5). This is the convention of ImageJ's traced selections and of QuPath, and the only one in
which a cell of one pixel has a polygon with an area, and the areas of polygons are those of their pixels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from skimage.measure import label as connected_components

# Rings (N, 2) of (row, column) corners, not closed: the outer one first, then the holes.
Polygon = list[np.ndarray]

# Steps along a pixel's edges with the pixel on the right hand, and where they start: east above it, south to its
# right, west below it, north to its left.
STARTS, STEPS = ((0, 0), (0, 1), (1, 1), (1, 0)), ((0, 1), (1, 0), (0, -1), (-1, 0))


def polygons(labels: np.ndarray) -> dict[int, list[Polygon]]:
    """The polygons of every cell, exact: `filled` gives the labels back.

    A cell's pieces that touch at a corner alone are polygons of their own, as are pieces apart. No ring meets itself,
    so the polygons are valid for GeoJSON: outer rings turn one way and holes the other, with a positive and a negative
    area in (x, y) = (column, row).

    Args:
        labels: int (H, W), 0 = background.

    Returns:
        Label id to its polygons, from the top down, ids in order; rings are int32 (N, 2) of (row, column), corners
        only. Without cells it is empty.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise ValueError(f"Labels must be integers (H, W), got {labels.dtype} {labels.shape}.")
    found: dict[int, list[Polygon]] = {int(cell): [] for cell in np.unique(labels) if cell}
    pieces = connected_components(labels, connectivity=1, background=0)
    whose: dict[int, Polygon] = {}
    # A piece's outer ring holds its uppermost edge, where the search begins: it comes before the holes.
    for piece, row, column, ring in _rings(pieces):
        if piece not in whose:
            whose[piece] = []
            found[int(labels[row, column])].append(whose[piece])
        whose[piece].append(ring)
    return found


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


def _rings(pieces: np.ndarray) -> list[tuple[int, int, int, np.ndarray]]:
    """Every boundary ring of pieces (H, W): (piece, row and column of a pixel of it, corners), from the top down."""
    padded = np.pad(pieces, 1)
    inner = padded[1:-1, 1:-1]
    width = pieces.shape[1] + 1
    owners, begins, ends, directions = [], [], [], []
    # Over an east step lies the pixel above, over a south step the one to the right, and so on.
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    for direction, other in enumerate(beyond):
        rows, columns = np.nonzero((inner > 0) & (inner != other))
        owners.append(inner[rows, columns].astype(np.int64))
        begin = (rows + STARTS[direction][0]) * width + columns + STARTS[direction][1]
        begins.append(begin)
        ends.append(begin + STEPS[direction][0] * width + STEPS[direction][1])
        directions.append(np.full(len(rows), direction))
    owner, begin, end, heading = map(np.concatenate, (owners, begins, ends, directions))
    # Piece by piece, from the top down.
    num_corners = (pieces.shape[0] + 1) * width
    order = np.argsort(owner * num_corners + begin, kind="stable")
    owner, begin, end, heading = owner[order], begin[order], end[order], heading[order]
    following = _following(owner * num_corners + begin, owner * num_corners + end, heading)
    return _followed(owner, np.stack([begin // width, begin % width], axis=1), heading, following)


def _following(begin: np.ndarray, end: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """The edge that each edge leads to; `begin` is sorted."""
    following = np.searchsorted(begin, end)
    last = len(begin) - 1
    # Where two pixels of a piece meet at a corner alone, two edges lead on. The left turn passes from one pixel to the
    # other: since the piece holds together elsewhere, the ring then meets this corner only once.
    two = begin[np.minimum(following + 1, last)] == end
    two &= following < last
    following[two & (heading[following] != (heading - 1) % 4)] += 1
    return following


def _followed(
    owner: np.ndarray, corners: np.ndarray, heading: np.ndarray, following: np.ndarray
) -> list[tuple[int, int, int, np.ndarray]]:
    rings, seen = [], [False] * len(owner)
    steps, turns = following.tolist(), heading.tolist()
    # The first edge of a ring begins at its uppermost, leftmost point, which is a corner.
    for first in range(len(steps)):
        if seen[first]:
            continue
        edge, before, ring = first, -1, []
        while not seen[edge]:
            seen[edge] = True
            if turns[edge] != before:
                ring.append(edge)
            edge, before = steps[edge], turns[edge]
        row, column = corners[first] - STARTS[turns[first]]
        rings.append((int(owner[first]), int(row), int(column), corners[ring].astype(np.int32)))
    return rings


def _fill(labels: np.ndarray, polygon: Polygon, cell: int) -> None:
    """Even-odd rule: a centre is inside if an odd number of sides cross its row to the left of it."""
    begins = np.concatenate([np.asarray(ring, np.float64) for ring in polygon])
    ends = np.concatenate([np.roll(np.asarray(ring, np.float64), -1, axis=0) for ring in polygon])
    upper = np.where((begins[:, 0] < ends[:, 0])[:, None], begins, ends)
    lower = np.where((begins[:, 0] < ends[:, 0])[:, None], ends, begins)
    # Rows whose centres lie in [upper, lower) of a side: half open, so that a corner counts once.
    first = np.clip(np.ceil(upper[:, 0] - 0.5), 0, labels.shape[0]).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 0] - 0.5), 0, labels.shape[0]).astype(np.int64)
    count = last - first
    if not count.any():
        return
    side = np.repeat(np.arange(len(count)), count)
    rows = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count) + first[side]
    slope = (lower[side, 1] - upper[side, 1]) / (lower[side, 0] - upper[side, 0])
    crossings = upper[side, 1] + slope * (rows + 0.5 - upper[side, 0])
    columns = np.clip(np.ceil(crossings - 0.5), 0, labels.shape[1]).astype(np.int64)
    top, left = int(rows.min()), int(columns.min())
    toggles = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), np.int64)
    np.add.at(toggles, (rows - top, columns - left), 1)
    inside = (np.cumsum(toggles, axis=1) % 2 == 1)[:, : labels.shape[1] - left]
    labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = cell
