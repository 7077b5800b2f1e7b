"""U-Net's weight map against the formula taken word by word: one distance transform of the whole frame a cell.

With CELLSEG_DATA, on the last frame of PhC-C2DL-PSC (274 cells); without, on as many discs of that size.
"""

import os
from pathlib import Path

import numpy as np
from scipy import ndimage
from side_by_side import alternate, parser, report, row

from pipelines.images import read_labels
from pipelines.weight_maps import border

FRAME = "PhC-C2DL-PSC/01_ST/SEG/man_seg199.tif"
SHAPE, CELLS = (576, 720), 274


def naive(labels, w0=10.0, sigma=5.0):
    """Ronneberger 2015, eq. 2, with the class weight 1; the two smallest distances are kept on the way."""
    first = np.full(labels.shape, np.inf)
    second = np.full(labels.shape, np.inf)
    for cell in np.unique(labels[labels > 0]):
        distance = ndimage.distance_transform_edt(labels != cell)
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    ridge = np.where(labels == 0, w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2)), 0)
    return (1 + ridge).astype(np.float32)


def frame():
    """Labels of a crowded frame, and what it is."""
    path = Path(os.environ.get("CELLSEG_DATA", "")) / FRAME
    if path.is_file():
        return read_labels(path)[0], FRAME
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.int32)
    for cell in range(1, CELLS + 1):
        row, column = rng.integers(6, np.array(SHAPE) - 6)
        labels[row - 5 : row + 6, column - 5 : column + 6][np.hypot(*np.ogrid[-5:6, -5:6]) <= 5] = cell
    return labels, f"{CELLS} discs"


def main():
    """Measure and print."""
    options = parser(__doc__).parse_args()
    labels, name = frame()
    ours, peer = alternate(lambda: border(labels), lambda: naive(labels))
    error = float(np.abs(border(labels) - naive(labels)).max())
    cells = len(np.unique(labels)) - 1
    rows = [row(f"weight map, {labels.shape[0]}x{labels.shape[1]}, {cells} cells ({name}), s", ours, peer)]
    title = "Weight map: ours, peer = the naive formula"
    report(title, rows, options.json, times_faster=peer / ours, largest_error=error)


if __name__ == "__main__":
    main()
