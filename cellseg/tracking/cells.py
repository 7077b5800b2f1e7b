"""The cells of one frame, as linking needs them: where their pixels lie, how large they are.

Tables for users are made in `cellseg.measuring`; which cell is which in the next frame is chosen beside this room.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a frame, numbered 0..n-1 in the order of their first pixels, so that their ids do not matter.

    Args:
        frame: Number of the frame.
        ids: int64 (n,), label id of each cell.
        areas: float64 (n,), pixels.
        centres: float64 (n, 2), (row, column).
        rows, columns: int64 (p,), the pixels of all cells, in reading order.
        owners: int64 (p,), the cell that each of them belongs to.
        numbers: int32 (H, W), the cell of each pixel, -1 = background.
        roundness: float64 (n,), minor over major axis of the ellipse with the same second moments, in (0, 1].
    """

    frame: int
    ids: np.ndarray
    areas: np.ndarray
    centres: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    owners: np.ndarray
    numbers: np.ndarray
    roundness: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, cell: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of one cell's pixels."""
        own = self.owners == cell
        return self.rows[own], self.columns[own]


def find_cells(labels: np.ndarray, frame: int = 0) -> Cells:
    """The cells of labels, int (H, W), 0 = background; pieces of one id are one cell."""
    rows, columns = np.nonzero(labels)
    ids, first, index = np.unique(labels[rows, columns], return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    owners = rank[index]
    areas = np.bincount(owners, minlength=len(ids)).astype(np.float64)
    sums = [np.bincount(owners, places, len(ids)) for places in (rows, columns)]
    centres = np.stack(sums, axis=1) / areas[:, np.newaxis]
    numbers = np.full(labels.shape, -1, np.int32)
    numbers[rows, columns] = owners
    return Cells(
        frame,
        ids[order].astype(np.int64),
        areas,
        centres,
        rows,
        columns,
        owners,
        numbers,
        _roundness(rows - centres[owners, 0], columns - centres[owners, 1], owners, areas),
    )


def usual_diameter(*frames: Cells) -> float:
    """Median of 2 sqrt(area / pi) over the cells of some frames, in pixels; 1 where there is no cell."""
    areas = np.concatenate([cells.areas for cells in frames])
    return float(np.median(2 * np.sqrt(areas / np.pi))) if len(areas) else 1.0


def _roundness(rows: np.ndarray, columns: np.ndarray, owners: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Of pixels given from the centres of their cells."""
    products = (rows * rows, columns * columns, rows * columns)
    down, across, slanted = (np.bincount(owners, one, len(areas)) / areas for one in products)
    # A pixel is a square, not a point: 1/12 is its own second moment, so that a line of pixels has a width.
    middle, half = (down + across) / 2 + 1 / 12, np.hypot((down - across) / 2, slanted)
    return np.sqrt((middle - half) / (middle + half))
