"""Merging: the cells of an image larger than memory, found a few rows at a time, the same as those of the whole.

What a cell is says `cellseg.instances`; the probability comes from `cellseg.streaming`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from cellseg.cuts import Cut
from cellseg.instances import (
    CUTS,
    INSTANCES,
    NEEDS_INNER,
    Census,
    check_inner,
    check_probability,
    connected,
    cut_pieces,
)
from pipelines.disk import DiskArray
from pipelines.errors import InputError

Rows = Callable[[int, int], np.ndarray]  # (first, last + 1) -> these rows of something, (h, W)
Inner = Callable[[slice, slice], np.ndarray | None]  # rows and columns -> this window of `inner`, (h, w)


class Pieces:
    """Connected pieces of a mask that is seen strip by strip, from top to bottom.

    Args:
        connectivity: 4 or 8.
    """

    def __init__(self, connectivity: int):
        self._connectivity, self._count, self._row = connectivity, 1, 0
        self._boxes = [np.zeros((1, 4), np.int32)]
        self._pairs = [np.zeros((0, 2), np.int64)]
        self._above = np.zeros(0, np.int32)

    def add(self, mask: np.ndarray) -> np.ndarray:
        """Number the pieces of the next strip.

        Args:
            mask: uint8 (h, W), 0 or 1.

        Returns:
            int32 (h, W), provisional numbers, 0 = outside; `merged` says which of them are one piece.
        """
        count, labels, boxes = connected(mask, self._connectivity)
        np.add(labels, self._count - 1, out=labels, where=labels > 0)
        self._boxes.append(boxes[1:] + np.array([self._row, self._row, 0, 0], np.int32))
        if self._row:
            self._pairs.append(_touching(self._above, labels[0], self._connectivity))
        self._count, self._row, self._above = self._count + count - 1, self._row + len(mask), labels[-1].copy()
        return labels

    def merged(self) -> tuple[np.ndarray, np.ndarray]:
        """What the strips' numbers stand for.

        Returns:
            (piece, boxes): int32, the piece of each provisional number, 0 for 0; int32 (1 + pieces, 4), the first and
            last + 1 row and column of each piece, of which the first entry means nothing.
        """
        one, other = np.concatenate(self._pairs).T
        graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(self._count, self._count))
        num_pieces, piece = csgraph.connected_components(graph, directed=False)
        found = np.concatenate(self._boxes)
        boxes = np.empty((num_pieces, 4), np.int32)
        boxes[:, [0, 2]], boxes[:, [1, 3]] = np.iinfo(np.int32).max, 0
        for side in (0, 2):
            np.minimum.at(boxes[:, side], piece, found[:, side])
            np.maximum.at(boxes[:, side + 1], piece, found[:, side + 1])
        return piece.astype(np.int32), boxes


@dataclass(frozen=True)
class Limits:
    """How much is held in memory at once.

    Args:
        rows: Of the image.
        piece: Pixels of the largest box in which a connected piece is cut into cells; larger ones stay whole.
    """

    rows: int
    piece: int


@dataclass(frozen=True)
class Labelled:
    """Labels on disk.

    Args:
        provisional: int32 (H, W).
        numbers: The final label of each provisional one.
    """

    provisional: DiskArray
    numbers: np.ndarray

    @property
    def num_cells(self) -> int:
        """Labels are 0 = background, 1..num_cells."""
        return int(self.numbers.max(initial=0))

    def rows(self, first: int, end: int) -> np.ndarray:
        """int32 (h, W), rows first to end - 1 of the labels."""
        return self.numbers[self.provisional.read(slice(first, end))]


def label_rows(
    probability: Rows,
    shape: tuple[int, int],
    folder: Path,
    *,
    name: str,
    options: Mapping[str, Any],
    limits: Limits,
    inner: Inner | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Labelled:
    """The labels of `INSTANCES[name](probability, inner, **options)`, in bounded memory: equal, numbers included.

    A few tens of bytes are held for each connected piece of foreground.

    Args:
        probability: Gives rows of the foreground's probability, float (h, W); asked twice for each row at most.
        shape: (H, W).
        folder: For the arrays on disk.
        name, options: The method, and its keywords.
        limits: How much is held at once.
        inner: Gives windows of what the method of this name takes as `inner`, float (h, w); None where it takes none.
        say: Told of pieces that are too large to be cut into cells.

    Raises:
        InputError: NaN, an option outside its range, or a method that cannot be had by rows.
    """
    height, width = shape
    if name != "components" and name not in CUTS:
        raise InputError(f"instances.name is '{name}', which needs the whole image in memory. Raise --memory.")
    blank = np.zeros((1, 1), np.float32)
    INSTANCES[name](blank, None if inner is None else blank, **options)  # complains of options outside their range
    defaults = {key: one.default for key, one in inspect.signature(INSTANCES[name]).parameters.items()}
    settings = {**defaults, **options}
    connectivity = settings.get("connectivity", 8)
    strips = [(first, min(first + limits.rows, height)) for first in range(0, height, limits.rows)]

    def mask(first: int, end: int) -> np.ndarray:
        rows = probability(first, end)
        check_probability(rows)
        return (rows >= settings["threshold"]).astype(np.uint8)

    filled = _filled(mask, shape, strips, folder, 12 - connectivity) if settings["fill_holes"] else mask
    labels, pieces = DiskArray(folder / "labels", shape, np.int32), Pieces(connectivity)
    for first, end in strips:
        labels.write(first, 0, pieces.add(filled(first, end)))
    numbers, boxes = pieces.merged()
    num_labels = len(boxes)
    if name in CUTS:
        for first, end in strips:
            labels.write(first, 0, numbers[labels.read(slice(first, end))])
        given = {key: settings[key] for key in inspect.signature(CUTS[name]).parameters}
        within = inner if name in NEEDS_INNER else None
        num_labels = _cut(labels, boxes, CUTS[name](**given), strips, limits, within, say)
        numbers = np.arange(num_labels, dtype=np.int32)
    census = Census(num_labels)
    for first, end in strips:
        found = numbers[labels.read(slice(first, end))]
        census.add(found, offset=first * width)
        if settings["border"] == "drop":
            census.mark(found, top=first == 0, bottom=end == height)
        if settings["margin"]:
            census.look_inside(found, settings["margin"], first=first, height=height)
    return Labelled(labels, census.numbers(settings["min_size"])[numbers])


def _touching(above: np.ndarray, below: np.ndarray, connectivity: int) -> np.ndarray:
    """Pairs of numbers > 0 that touch across two rows, each pair once: int64 (n, 2)."""
    length = len(above)
    codes = []
    for shift in (-1, 0, 1) if connectivity == 8 else (0,):
        one = above[max(shift, 0) : length + min(shift, 0)].astype(np.int64)
        other = below[max(-shift, 0) : length + min(-shift, 0)].astype(np.int64)
        both = (one > 0) & (other > 0)
        codes.append(one[both] << 32 | other[both])
    found = np.unique(np.concatenate(codes))
    return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1)


def _filled(mask: Rows, shape: tuple[int, int], strips: list[tuple[int, int]], folder: Path, connectivity: int) -> Rows:
    """The mask without its holes: background that does not reach the image border."""
    background, pieces = DiskArray(folder / "background", shape, np.int32), Pieces(connectivity)
    for first, end in strips:
        background.write(first, 0, pieces.add(1 - mask(first, end)))
    piece, boxes = pieces.merged()
    reaches = (boxes[:, 0] == 0) | (boxes[:, 1] == shape[0]) | (boxes[:, 2] == 0) | (boxes[:, 3] == shape[1])
    reaches[0] = False  # number 0 is the foreground
    outside = reaches[piece]
    return lambda first, end: 1 - outside[background.read(slice(first, end))].astype(np.uint8)


def _cut(
    labels: DiskArray,
    boxes: np.ndarray,
    cut: Cut,
    strips: list[tuple[int, int]],
    limits: Limits,
    inner: Inner | None,
    say: Callable[[str], None],
) -> int:
    """Cut the pieces on disk into cells; gives the next number that is free."""
    margin, first_free, num_whole = cut.margin, len(boxes), 0
    sides = boxes[:, [1, 3]].astype(np.int64) - boxes[:, [0, 2]] + 2 * margin
    small = sides.prod(axis=1) <= limits.piece
    for numbers in _by_strip(boxes, strips):
        num_whole += int(np.count_nonzero(~small[numbers]))
        numbers = numbers[small[numbers]]
        for some in _groups(numbers, boxes, limits.rows):
            top, left = np.maximum(boxes[some][:, [0, 2]].min(axis=0) - margin, 0).tolist()
            bottom, right = (boxes[some][:, [1, 3]].max(axis=0) + margin).tolist()
            around = slice(top, bottom), slice(left, right)
            window, within = labels.read(*around), None
            if inner is not None:
                within = check_inner(inner(*around), window.shape)
            places = boxes[some] - np.array([top, top, left, left])
            first_free = cut_pieces(window, some, places, cut, first=first_free, inner=within)
            labels.write(top, left, window)
    if num_whole:
        say(
            f"{num_whole} of {len(boxes) - 1} connected pieces of foreground are too large to be cut into cells within "
            f"--memory (more than {limits.piece} pixels with their surroundings); each was left as one cell."
        )
    return first_free


def _by_strip(boxes: np.ndarray, strips: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Numbers of the pieces that begin in each strip."""
    order = np.argsort(boxes[1:, 0], kind="stable") + 1
    ends = np.searchsorted(boxes[order, 0], [end for _, end in strips])
    yield from np.split(order, ends[:-1])


def _groups(numbers: np.ndarray, boxes: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Pieces that are read together: those of few rows; every higher one is read by itself."""
    low = boxes[numbers, 1] - boxes[numbers, 0] <= rows
    if low.any():
        yield numbers[low]
    yield from numbers[~low, np.newaxis]
