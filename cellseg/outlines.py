"""Outlines: labels as polygons along the edges of the pixels.

Polygons are read and filled again in `pipelines.outline_files`; files of them are written in `cellseg.interchange`, and
pictures of outlines drawn in `cellseg.figures`.

Corners, not centres: pixel (row, column) is the square from (row, column) to (row + 1, column + 1), so its centre lies
at (row + 0.5, column + 0.5). This is the convention of ImageJ's traced selections and of QuPath, and the only one in
which a cell of one pixel has a polygon with an area, and the areas of polygons are those of their pixels.
"""

import numpy as np
from skimage.measure import label as connected_components

from pipelines.outline_files import Polygon

# Steps along a pixel's edges with the pixel on the right hand, and where they start: east above it, south to its
# right, west below it, north to its left.
STARTS, STEPS = ((0, 0), (0, 1), (1, 1), (1, 0)), ((0, 1), (1, 0), (0, -1), (-1, 0))


def polygons(labels: np.ndarray) -> dict[int, list[Polygon]]:
    """The polygons of every cell, exact: `outline_files.filled` gives the labels back.

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
