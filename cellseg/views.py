"""Views on disk: the probability of an image larger than memory, in every view of every network, and their mean.

Cells are made of it in `cellseg.streaming`; in memory the same is done by `cellseg.inference` and `cellseg.averaging`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg.averaging import symmetric, symmetric_back
from cellseg.inference import LoadedRun, Predictor
from pipelines.disk import DiskArray
from pipelines.tiling import Grid, mirrored_index, predict_rows

Span = tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """An image on disk as one of the symmetries of the square sees it; rows and columns are those of the view.

    Args:
        image: (H, W, C).
        symmetry: Number of the symmetry, see `cellseg.averaging.symmetric`.
    """

    image: DiskArray
    symmetry: int = 0

    @property
    def shape(self) -> Span:
        """(height, width) of the view."""
        height, width = self.image.shape[:2]
        return (width, height) if self.symmetry & 4 else (height, width)

    def read(self, rows: Span, columns: Span) -> np.ndarray:
        """The window at rows and columns."""
        down, across = self._place(rows, columns)
        return symmetric(self.image.read(slice(*down), slice(*across)), self.symmetry)

    def write(self, rows: Span, columns: Span, window: np.ndarray) -> None:
        """Put a window there."""
        down, across = self._place(rows, columns)
        self.image.write(down[0], across[0], symmetric_back(window, self.symmetry))

    def tile(self, row: int, column: int, side: int) -> np.ndarray:
        """The tile at (row, column), mirrored at the image's borders."""
        rows = mirrored_index(np.arange(row, row + side), self.shape[0])
        columns = mirrored_index(np.arange(column, column + side), self.shape[1])
        top, left = rows.min(), columns.min()
        window = self.read((int(top), int(rows.max()) + 1), (int(left), int(columns.max()) + 1))
        return window[(rows - top)[:, None], columns - left]

    def _place(self, rows: Span, columns: Span) -> tuple[Span, Span]:
        """Where a window of the view lies in the image."""
        down, across = (columns, rows) if self.symmetry & 4 else (rows, columns)
        height, width = self.image.shape[:2]
        down = (height - down[1], height - down[0]) if self.symmetry & 1 else down
        across = (width - across[1], width - across[0]) if self.symmetry & 2 else across
        return down, across


@dataclass(frozen=True)
class Part:
    """A part of the work that can be done on its own, also by another process that sees the same files.

    Args:
        image: The working copy, (H, W, C).
        limits: Contrast limits of the whole image.
        member: Number of the network among `loaded.predictor.members`.
        symmetry: Of the view.
        rows, columns: What is wanted, (first, last + 1) in the view.
    """

    image: DiskArray
    limits: tuple[float, float]
    member: int
    symmetry: int
    rows: Span
    columns: Span

    def answer(self, loaded: LoadedRun) -> np.ndarray:
        """Probability of the part, float32 (h, w, K): the same as that of the whole image there."""
        return np.concatenate([rows for _, rows in self.answers(loaded)])

    def answers(self, loaded: LoadedRun) -> Iterator[tuple[int, np.ndarray]]:
        """The same a few rows at a time; see `pipelines.tiling.predict_rows`."""
        predictor, view = loaded.predictor.members[self.member], Seen(self.image, self.symmetry)
        grid = grid_of(predictor)

        def window(row: int, column: int) -> np.ndarray:
            return predictor.stretched(view.tile(row, column, grid.tile), limits=self.limits)

        return predict_rows(window, view.shape, predictor.answer, grid=grid, rows=self.rows, columns=self.columns)


# Parts in, the answer of each in the same order out: how work is given to other processes.
Helpers = Callable[[Iterable[Part]], Iterator[np.ndarray]]


def probability_on_disk(
    loaded: LoadedRun,
    image: DiskArray,
    limits: tuple[float, float],
    folder: Path,
    *,
    num_bytes: int,
    helpers: Helpers | None = None,
) -> DiskArray:
    """Mean probability of all networks and views, equal to `loaded.predictor.probability` to the last bit.

    Args:
        loaded: The run; zoom 1, no resizing.
        image: The working copy, (H, W, C).
        limits: Contrast limits of the whole image.
        folder: For arrays on disk.
        num_bytes: About as much is held at once.
        helpers: Who computes parts; None = this process.

    Returns:
        float32 (H, W, K).
    """
    members = loaded.predictor.members
    total: DiskArray | None = None
    for number, member in enumerate(members):
        mean: DiskArray | None = None
        for symmetry in range(member.symmetries):
            for rows, columns, answer in _answers(loaded, image, limits, number, symmetry, num_bytes, helpers):
                if mean is None:
                    mean = DiskArray(folder / f"member{number}", (*image.shape[:2], answer.shape[2]), np.float32)
                _add(Seen(mean, symmetry), rows, columns, answer, number=symmetry, count=member.symmetries)
        if mean is None:
            raise ValueError("the network gave no answer.")
        if total is None:
            total = mean
            continue
        height, width = image.shape[:2]
        step = max(1, num_bytes // (16 * width * mean.shape[2]))
        for first in range(0, height, step):
            rows = first, min(first + step, height)
            _add(Seen(total), rows, (0, width), mean.read(slice(*rows)), number=number, count=len(members))
        mean.remove()
    if total is None:
        raise ValueError("an ensemble needs at least one member.")
    return total


def grid_of(predictor: Predictor) -> Grid:
    """Where a predictor's tiles lie."""
    sides = predictor.tiling
    return Grid(sides.tile, sides.output, sides.overlap, sides.stride, sides.blend)


def _add(view: Seen, rows: Span, columns: Span, answer: np.ndarray, *, number: int, count: int) -> None:
    """Add answer `number` of `count` to their sum, and make a mean of it after the last; as `averaging.mean`."""
    if number:
        answer = view.read(rows, columns) + answer
        answer = answer / np.float32(count) if number == count - 1 else answer
    view.write(rows, columns, answer)


def _answers(
    loaded: LoadedRun,
    image: DiskArray,
    limits: tuple[float, float],
    member: int,
    symmetry: int,
    num_bytes: int,
    helpers: Helpers | None,
) -> Iterator[tuple[Span, Span, np.ndarray]]:
    """(rows, columns, answer) of everything, in the view's own coordinates."""
    height, width = Seen(image, symmetry).shape
    grid = grid_of(loaded.predictor.members[member])
    kinds = len(loaded.class_names) + 1 if loaded.class_names else 1
    # Sums, their mean and their rest.
    widest = max(grid.output, num_bytes // (grid.output * kinds * 12))
    for left, right in _spans(0, width, widest):
        if helpers is None:
            part = Part(image, limits, member, symmetry, (0, height), (left, right))
            for row, answer in part.answers(loaded):
                yield (row, row + len(answer)), (left, right), answer
            continue
        # A part's first tiles are computed again by the part above it, so it should not be flat; a worker holds it.
        tall = max(grid.output, num_bytes // ((right - left) * kinds * 12))
        spans = _spans(0, height, tall)
        parts = (Part(image, limits, member, symmetry, rows, (left, right)) for rows in spans)
        for rows, answer in zip(spans, helpers(parts), strict=True):
            yield rows, (left, right), answer


def _spans(first: int, end: int, length: int) -> list[Span]:
    """Spans of about equal lengths, none above `length`, that follow one another from first to end."""
    count = -(-(end - first) // length)
    edges = [first + (end - first) * number // count for number in range(count + 1)]
    return list(itertools.pairwise(edges))
