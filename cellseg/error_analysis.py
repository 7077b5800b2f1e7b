"""Error analysis: which true cells are missed, which neighbours are joined, which cells are cut, over many images.

Scores of whole images live in `cellseg.evaluation`, the drawings of what is found here in `cellseg.figures.errors`.
"""

import math
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cellseg.metrics.objects import object_overlap
from cellseg.overlap import Overlap, contingency, match
from pipelines.errors import InputError

FOUND = 0.5  # IoU from which a true cell counts as found
NUM_BINS = 5  # bins with equally many cells
WIDEST_GAP = 20.0  # px, of neighbours
GAPS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)  # px, where a bin of gaps begins; the last one ends with WIDEST_GAP
MARGIN = 2.0  # px from a cell's outline that are not its core: there, outlines that differ a little are no error
PIECE = 0.1  # share of a true cell from which a predicted piece of it counts
SHARES = (0.0, 0.01, 0.05, 0.2)  # shares of a core that is background, above which a bin begins
Z = 1.959963984540054  # of the normal distribution, for 95 %

CELL = np.dtype(
    {
        "names": ("border_distance", "brightness", "area", "found", "drawn", "core", "background", "pieces"),
        "formats": (np.float64, np.float64, np.float64, bool, bool, np.int64, np.int64, np.int64),
    }
)
PAIR = np.dtype([("gap", np.float64), ("merged", bool)])


class ErrorAnalysis:
    """Where predictions go wrong, one image at a time: facts of every true cell, and of every pair of neighbours.

    Kept are 50 bytes a cell and 9 a pair of neighbours, whatever the size of the images. The order of the images does
    not matter: all cells of all images count alike, once each, and an image without cells adds nothing.

    A true cell of which more than half is unannotated is left out of everything.
    """

    def __init__(self) -> None:
        self._images = self._left_out = 0
        self._cells: list[np.ndarray] = []
        self._pairs: list[np.ndarray] = []

    def add(
        self, image: np.ndarray, labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None
    ) -> None:
        """Look at one image.

        Args:
            image: float (H, W, C) in [0, 1], after `pipelines.contrast.stretch_contrast`.
            labels_true: integer (H, W), 0 = background; ids may have gaps.
            labels_pred: integer (H, W).
            ignore: bool (H, W), True = unannotated.

        Raises:
            InputError: labels that are no integers >= 0, or sizes that differ.
        """
        cells, pairs, left_out = image_facts(image, labels_true, labels_pred, ignore)
        self._images += 1
        self._left_out += left_out
        self._cells.append(cells)
        self._pairs.append(pairs)

    def result(self) -> dict[str, Any]:
        """What has been added so far, ready for JSON; what is undefined is None.

        Every rate of k of n comes with its 95 % Wilson interval (`wilson`).

        Returns:
            images, cells, left_out (cells that are unannotated for more than half), found, recall, interval: the
            whole.
            by_fact: {"border_distance" | "brightness" | "area": bins}; a bin is {low, high: the least and the
            largest value in it, cells, found, recall, interval}, those of the area also {diameter_low,
            diameter_high}. See `recall_bins`; cells that touch the border (distance 0) are a bin of their own.
            merges: {pairs, merged, share, interval, bins: [{low, high, pairs, merged, share, interval}]}, bins of gap
            widths low <= gap < high px (the last one includes its end), empty ones too. See `_pair_facts`.
            false_membranes: {cells, not_drawn, cut, cut_share, interval, core_pixels, background_pixels, share,
            bins: [{low, high, cells}]}. See `_false_membranes`.
        """
        cells = np.concatenate([np.zeros(0, CELL), *self._cells])
        pairs = np.concatenate([np.zeros(0, PAIR), *self._pairs])
        found, distance = cells["found"], cells["border_distance"]
        at_border = distance == 0
        area = recall_bins(cells["area"], found)
        for one in area:
            one |= {f"diameter_{end}": 2 * math.sqrt(one[end] / math.pi) for end in ("low", "high")}
        return {
            "images": self._images,
            "left_out": self._left_out,
            **_rate(found, "cells", "found", "recall"),
            "by_fact": {
                "border_distance": recall_bins(distance[at_border], found[at_border])
                + recall_bins(distance[~at_border], found[~at_border]),
                "brightness": recall_bins(cells["brightness"], found),
                "area": area,
            },
            "merges": _merges(pairs),
            "false_membranes": _false_membranes(cells),
        }


def image_facts(
    image: np.ndarray, labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Facts of the true cells of one image.

    Args:
        image, labels_true, labels_pred, ignore: As in `ErrorAnalysis.add`.

    Returns:
        Three things. One record (CELL) for each true cell that is annotated for at least half, in order of the ids:

        - border_distance: from the cell's nearest pixel to the image's border, in px; 0 = touches it.
        - brightness: mean of `image` over the cell's pixels and over the channels.
        - area: the cell's pixels. (These three take all pixels of the cell, also unannotated ones.)
        - found: it has a partner in the one-to-one matching at IoU >= 0.5, as in `average_precision`. One prediction
          that has an IoU of exactly 0.5 with two cells finds one of them.
        - drawn: more than half of its pixels are foreground in the prediction.
        - core: its pixels that are more than 2 px away from its outline. The outline are pixels of the cell beside
          (4 neighbours) a pixel that is not; the border of the image is none.
        - background: those of the core that the prediction calls background.
        - pieces: predicted cells with more than 10 % of its pixels each.

        One record (PAIR) for each pair of neighbours among these cells (`_pair_facts`). And how many were left out.

    Raises:
        InputError: labels that are no integers >= 0, or sizes that differ.
    """
    if image.ndim != 3 or labels_true.ndim != 2 or image.shape[:2] != labels_true.shape:
        raise InputError(
            f"The image has shape {image.shape}, its labels {labels_true.shape}. "
            "They must be (H, W, C) and (H, W) of the same picture."
        )
    everything = contingency(labels_true, labels_pred)
    compact = everything.index_true.reshape(labels_true.shape)
    areas = everything.areas_true[1:]
    overlap = object_overlap(compact, labels_pred, ignore)
    annotated = np.ones(labels_true.shape, bool) if ignore is None else ~ignore
    known = _per_cell(compact, annotated, len(areas))
    kept = 2 * known >= areas
    outline = _outline(compact)

    facts = np.zeros(len(areas), CELL)
    facts["border_distance"] = _border_distances(compact)
    facts["area"] = areas
    grey = image.mean(axis=2, dtype=np.float64)
    facts["brightness"] = np.bincount(compact.ravel(), grey.ravel(), len(areas) + 1)[1:] / areas
    facts["found"][match(overlap, threshold=FOUND).ids_true - 1] = True
    facts["drawn"] = 2 * _per_cell(compact, annotated & (labels_pred > 0), len(areas)) > known
    core = annotated & (_distance_to(outline) > MARGIN) & (compact > 0)
    facts["core"] = _per_cell(compact, core, len(areas))
    facts["background"] = _per_cell(compact, core & (labels_pred == 0), len(areas))
    rows, _, shared = overlap.object_pairs
    cell = overlap.ids_true[rows] - 1
    facts["pieces"] = np.bincount(cell[shared > PIECE * known[cell]], minlength=len(areas))
    pairs = _pair_facts(compact, outline, kept, _covering(overlap, known))
    return facts[kept], pairs, int(np.count_nonzero(~kept))


def recall_bins(values: np.ndarray, found: np.ndarray) -> list[dict[str, Any]]:
    """Recall in at most five bins with equally many cells.

    Of n cells in ascending order, bin k of K = 5 begins with the value of cell floor(k n / K), counted from 0. Cells of
    equal value are never parted: bins that begin with the same value are one.

    Args:
        values: float (n,), a fact of each cell.
        found: bool (n,), whether it was found.

    Returns:
        The bins that hold cells, lowest first: low and high (the least and the largest value in the bin), cells,
        found, recall, interval. Without cells an empty list.
    """
    if not len(values):
        return []
    starts = np.unique(np.sort(values)[np.arange(NUM_BINS) * len(values) // NUM_BINS])
    place = np.searchsorted(starts, values, side="right") - 1
    return [
        {
            "low": float(values[place == k].min()),
            "high": float(values[place == k].max()),
            **_rate(found[place == k], "cells", "found", "recall"),
        }
        for k in range(len(starts))
    ]


def wilson(successes: int, trials: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a rate of k successes in n trials; None for n = 0.

    (p + z**2 / 2n +- z sqrt(p (1 - p) / n + z**2 / 4n**2)) / (1 + z**2 / n), p = k / n, z = 1.96

    It takes the trials as independent. Cells of one image are alike, so that the truth is somewhat wider.

    Reference:
        Wilson 1927, J. Am. Stat. Assoc. 22:209; recommended by Brown, Cai & DasGupta 2001, Stat. Sci. 16:101.
    """
    if not trials:
        return None
    p, n = successes / trials, trials
    middle = p + Z**2 / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = ((middle + side * half) / (1 + Z**2 / n) for side in (-1, 1))
    # At the ends the formula gives 0 and 1, up to rounding.
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


def _rate(happened: np.ndarray, trials: str, successes: str, rate: str) -> dict[str, Any]:
    """How often something happened, under the names given, with its interval."""
    n, k = len(happened), int(np.count_nonzero(happened))
    interval = wilson(k, n)
    return {trials: n, successes: k, rate: k / n if n else None, "interval": list(interval) if interval else None}


def _merges(pairs: np.ndarray) -> dict[str, Any]:
    """Share of merged pairs, in all and by the width of the gap."""
    place = np.searchsorted(GAPS, pairs["gap"], side="right") - 1
    bins = [
        {"low": low, "high": high, **_rate(pairs["merged"][place == k], "pairs", "merged", "share")}
        for k, (low, high) in enumerate(zip(GAPS, (*GAPS[1:], WIDEST_GAP), strict=True))
    ]
    return {**_rate(pairs["merged"], "pairs", "merged", "share"), "bins": bins}


def _false_membranes(cells: np.ndarray) -> dict[str, Any]:
    """Background that the prediction draws inside true cells: lines and holes that pierce or cut them.

    Where cells are what lies between membranes (ISBI 2012), these are membranes that are not there; elsewhere holes
    and cracks. Looked at are cells that were drawn (more than half of their pixels are foreground): a missed cell is
    no false membrane. `share` is that of the core's pixels that are background, over all these cells together; `bins`
    counts the cells by their own share, low < share <= high, after a bin for none at all; cells too small to have a
    core are in no bin. A drawing that is more than 2 px too small leaves background in the core as well.

    A cell is cut if two or more predicted cells have more than 10 % of its pixels each; pieces that touch one another
    count, and so does a neighbour's drawing that reaches so far into it.
    """
    drawn = cells[cells["drawn"]]
    core, background = (int(drawn[name].sum()) for name in ("core", "background"))
    own = drawn[drawn["core"] > 0]
    share = own["background"] / own["core"]
    # 0 is the bin for none; above it, the bin whose start lies below the share.
    place = np.searchsorted(SHARES, share, side="left")
    counts = np.bincount(place, minlength=len(SHARES) + 1)
    edges = [(0.0, 0.0), *zip(SHARES, (*SHARES[1:], 1.0), strict=True)]
    return {
        "not_drawn": len(cells) - len(drawn),
        **_rate(drawn["pieces"] > 1, "cells", "cut", "cut_share"),
        "core_pixels": core,
        "background_pixels": background,
        "share": background / core if core else None,
        "bins": [
            {"low": low, "high": high, "cells": int(count)} for (low, high), count in zip(edges, counts, strict=True)
        ],
    }


def _per_cell(compact: np.ndarray, mask: np.ndarray, num_cells: int) -> np.ndarray:
    """int64 (n,), pixels of each cell inside a mask."""
    return np.bincount(compact[mask], minlength=num_cells + 1)[1:]


def _border_distances(compact: np.ndarray) -> np.ndarray:
    """int64 (n,), from each cell to the border of the image."""
    height, width = compact.shape
    boxes = ndimage.find_objects(compact)
    nearest = [min(rows.start, columns.start, height - rows.stop, width - columns.stop) for rows, columns in boxes]
    return np.array(nearest, np.int64)


def _outline(compact: np.ndarray) -> np.ndarray:
    """bool (H, W), pixels of cells beside (4 neighbours) a pixel of something else."""
    out = np.zeros(compact.shape, bool)
    for axis in (0, 1):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        differs = compact[before] != compact[after]
        out[before] |= differs
        out[after] |= differs
    return out & (compact > 0)


def _distance_to(mask: np.ndarray) -> np.ndarray:
    """float (H, W), distance to the nearest pixel of a mask; infinite if it has none."""
    return ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)


def _covering(overlap: Overlap, known: np.ndarray) -> np.ndarray:
    """int64 (n,), index of the predicted cell with more than half of each true cell's annotated pixels; 0 = none."""
    rows, columns, shared = overlap.object_pairs
    cell = overlap.ids_true[rows] - 1
    most = 2 * shared > known[cell]
    covering = np.zeros(len(known), np.int64)
    covering[cell[most]] = columns[most]
    return covering


def _pair_facts(compact: np.ndarray, outline: np.ndarray, kept: np.ndarray, covering: np.ndarray) -> np.ndarray:
    """Neighbouring true cells: the width of the gap between them, and whether one prediction took both.

    Two cells are neighbours if their zones of influence meet (every pixel belongs to the cell nearest to it), so that
    no third cell lies between. The gap is the least distance of the centres of their pixels less 1, the width of what
    lies between: 0 = side by side, 0.41 = corner to corner, 1 = one pixel of background. Up to 20 px they count.

    Merged: one predicted cell has more than half of the pixels of both, as the Cell Tracking Challenge counts a node
    that must be split (Matula et al. 2015, PLoS ONE 10:e0144959).
    """
    pairs = _neighbours(compact)
    pairs = pairs[kept[pairs - 1].all(axis=1)]
    places, owners = np.argwhere(outline), compact[outline]
    places = places[np.argsort(owners, kind="stable")]
    ends = np.cumsum(np.bincount(owners, minlength=len(kept) + 1))
    trees = {cell: cKDTree(places[ends[cell - 1] : ends[cell]]) for cell in np.unique(pairs)}
    facts = np.zeros(len(pairs), PAIR)
    for number, pair in enumerate(pairs):
        # The closest pixels of two cells lie on their outlines.
        small, large = sorted((trees[cell] for cell in pair), key=lambda tree: tree.n)
        facts["gap"][number] = large.query(small.data)[0].min() - 1
    first, second = covering[pairs - 1].T
    facts["merged"] = (first == second) & (first > 0)
    return facts[facts["gap"] <= WIDEST_GAP]


def _neighbours(compact: np.ndarray) -> np.ndarray:
    """int64 (k, 2), pairs of cells whose zones of influence meet (8 neighbours) near enough for the widest gap."""
    if not compact.any():
        return np.zeros((0, 2), np.int64)
    distance, nearest = ndimage.distance_transform_edt(compact == 0, return_indices=True)
    # Where zones meet between two cells, neither is farther than half the way, up to a pixel's diagonal.
    zones = np.where(distance <= (WIDEST_GAP + 1) / 2 + math.sqrt(2), compact[tuple(nearest)], 0)
    num_codes = int(compact.max()) + 1
    codes = []
    for own, other in (
        (zones[:, :-1], zones[:, 1:]),
        (zones[:-1], zones[1:]),
        (zones[:-1, :-1], zones[1:, 1:]),
        (zones[:-1, 1:], zones[1:, :-1]),
    ):
        meet = (own != other) & (own > 0) & (other > 0)
        low, high = np.minimum(own[meet], other[meet]), np.maximum(own[meet], other[meet])
        codes.append(low * num_codes + high)
    return np.stack(np.divmod(np.unique(np.concatenate(codes)), num_codes), axis=1)
