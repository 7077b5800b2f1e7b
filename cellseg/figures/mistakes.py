"""Mistakes drawn: one colour for each kind of cell, on its image, as PNG bytes.

Which cell is of which kind is decided in `cellseg.mistakes`; other pictures live in `cellseg.figures.pictures`.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from cellseg.figures.canvas import DPI, legend, pixels, png, put
from cellseg.figures.pictures import CAPTION, DIMMED, LARGE, LEGEND, MARGIN
from cellseg.mistakes import FOUND, KINDS, MERGED, MISSED, SPLIT, SPURIOUS, Mistakes
from pipelines.preview import displayed, outline, resized

# After Okabe & Ito, who chose them for every kind of colour vision; found cells step back in grey.
COLOURS = {
    FOUND: (200, 200, 200),
    MISSED: (213, 94, 0),
    SPURIOUS: (240, 228, 66),
    SPLIT: (86, 180, 233),
    MERGED: (204, 121, 167),
}
LARGEST = 14.0  # inches, longer side of a picture: at most 2100 pixels
NARROWEST = 5.2  # inches that the legend needs
TRUTH_GREY = 90  # true cells where there is no image
FILL = 0.4


def mistake_outlines(
    labels_true: np.ndarray,
    labels_pred: np.ndarray,
    mistakes: Mistakes,
    *,
    image: np.ndarray | None = None,
    limits: tuple[float, float] | None = None,
    title: str = "",
) -> bytes:
    """Every cell outlined in the colour of its kind, and wrong ones tinted.

    True cells are drawn by their true outline, spurious ones by the predicted one, and in a split cell the outlines of
    its fragments as well. The legend counts the cells. A pixel of the labels is a pixel of the picture or more, unless
    the image is larger than 2100 pixels.

    Args:
        labels_true: int (H, W), 0 = background.
        labels_pred: int (H, W), the same shape.
        mistakes: Kinds of their cells, by id.
        image: (H, W, C), any dtype; None draws the true cells in grey on black.
        limits: (low, high) of the contrast in the image's own values; None = 2nd and 98th percentile.
        title: A line above the picture.

    Returns:
        PNG.
    """
    shape = labels_true.shape
    longer = min(max(LARGE, max(shape) / DPI), LARGEST)
    height, width = (max(side * longer / max(shape), 1 / DPI) for side in shape)
    size = pixels(height, width)
    if image is None:
        shown = np.repeat(np.where(labels_true > 0, TRUTH_GREY, 0).astype(np.int32)[..., None], 3, axis=2)
        shown = resized(shown, size).astype(np.uint8)
    else:
        shown = (DIMMED * resized(displayed(image, limits), size)).astype(np.uint8)
    cells_true, cells_pred = (resized(labels.astype(np.int32), size) for labels in (labels_true, labels_pred))
    found, fragments = _kinds(cells_true, mistakes.true, FOUND), _kinds(cells_pred, mistakes.pred, SPLIT)
    spurious = _kinds(cells_pred, mistakes.pred, SPURIOUS)
    wrong = _kinds(cells_true, mistakes.true, MISSED, SPLIT, MERGED)
    palette = np.array([COLOURS[kind] for kind in KINDS], np.uint8)
    for kinds in (spurious, wrong):
        drawn = kinds >= 0
        shown[drawn] = np.round((1 - FILL) * shown[drawn] + FILL * palette[kinds[drawn]])
    # A badly fitting outline is a spurious cell over a missed one: the missed one's line is drawn last.
    for kinds, cells in ((found, cells_true), (spurious, cells_pred), (fragments, cells_pred), (wrong, cells_true)):
        line = outline(np.where(kinds >= 0, cells, 0), thickness=2)
        shown[line] = palette[kinds[line]]
    head = CAPTION if title else MARGIN
    total = (max(width, NARROWEST) + 2 * MARGIN, head + height + LEGEND)
    figure = Figure(figsize=total, dpi=DPI, facecolor="white")
    put(figure, shown, "", MARGIN, head)
    figure.text(MARGIN / total[0], 1 - (head - 0.04) / total[1], title, fontsize=9, va="bottom", parse_math=False)
    counts = mistakes.counts
    legend(figure, MARGIN, {f"{kind} {counts[kind]}": COLOURS[kind] for kind in KINDS})
    return png(figure)


def _kinds(cells: np.ndarray, kinds: Mapping[int, str], *shown: str) -> np.ndarray:
    """Index among KINDS of the kind of each pixel's cell; -1 in the background and for kinds that are not shown."""
    ids, index = np.unique(cells, return_inverse=True)
    numbers = [KINDS.index(kinds[label]) if kinds.get(label) in shown else -1 for label in ids.tolist()]
    return np.array(numbers)[index.reshape(cells.shape)]
