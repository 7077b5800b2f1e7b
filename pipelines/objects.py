"""Objects: what a network that finds cells one by one must say of a patch: a box, a class and a mask of each.

Targets of networks that answer pixel by pixel live in `pipelines.targets`; patches are cut in `pipelines.dataset`.
"""

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage import measure

from pipelines.allocator import aligned
from pipelines.dataset import ArraySpec, Batches, ShardReader

LEAST_VISIBLE = 0.25  # of a cell's area: less of it, cut off by the patch's border, teaches nothing about its shape
IGNORED = -1


class Objects(NamedTuple):
    """The cells of a patch, in M rows of which the last ones may be empty.

    Args:
        boxes: float32 (M, 4), top, left, bottom, right in pixels, bottom and right exclusive; 0 in an empty row.
        classes: int32 (M,), 1..K; 0 = empty row.
        labels: int32 (h, w): 1..M is the cell of that row (counted from 1), 0 background, -1 counts for nothing.
        left_out: Cells for which there was no row; their pixels are -1.
    """

    boxes: np.ndarray
    classes: np.ndarray
    labels: np.ndarray
    left_out: int


def find_objects(
    labels: np.ndarray,
    classes: np.ndarray | None = None,
    ignore: np.ndarray | None = None,
    *,
    max_objects: int,
    areas: Mapping[int, int] | None = None,
    rescaled: bool = False,
) -> Objects:
    """The cells of a patch as rows of boxes and classes, and labels that point to the rows.

    A connected piece of an id is a cell if it holds a quarter of the cell's area (LEAST_VISIBLE), or if it is the
    largest piece of a cell that the border of the patch does not cut: mirroring and turning put a second copy of a cell
    into a patch, or its rim alone. The area is the one in the whole image times the change of size by augmentation,
    which is read off the cells that lie in the patch as a whole. Other pieces, cells of unknown class and unannotated
    pixels are -1: neither cell nor background.

    Args:
        labels: int array (h, w), 0 = background.
        classes: int array (h, w), the class inside of each cell, 0 = not known; None = one class for all.
        ignore: bool (h, w), unannotated pixels.
        max_objects: M, the number of rows. Of more cells the largest are kept.
        areas: Pixels of each id in its whole image; None = those in the patch.
        rescaled: Whether the images were resized before, so that areas change even where no cell is whole.

    Returns:
        See `Objects`; rows in the order in which a scan by rows meets the cells. Without cells all rows are empty.
    """
    blank = np.zeros(labels.shape, bool) if ignore is None else ignore.astype(bool)
    pieces = np.asarray(measure.label(np.where(blank, 0, labels), connectivity=2), np.int32)
    windows = ndimage.find_objects(pieces)
    sizes = np.bincount(pieces.ravel(), minlength=len(windows) + 1)[1:]
    owners = np.zeros(len(windows) + 1, np.int64)
    owners[pieces.ravel()] = labels.ravel()
    owners = owners[1:]
    kinds = np.ones(len(windows), np.int32) if classes is None else _majority(pieces, classes, len(windows))
    kept = np.flatnonzero(_whole_enough(pieces, sizes, owners, areas, rescaled) & (kinds > 0))
    left_out = max(0, len(kept) - max_objects)
    if left_out:
        kept = np.sort(kept[np.argsort(-sizes[kept], kind="stable")[:max_objects]])
    boxes, rows = np.zeros((max_objects, 4), np.float32), np.zeros(max_objects, np.int32)
    numbers = np.full(len(windows) + 1, IGNORED, np.int32)
    numbers[0] = 0
    for row, piece in enumerate(kept):
        down, across = windows[piece]
        boxes[row], rows[row] = (down.start, across.start, down.stop, across.stop), kinds[piece]
        numbers[piece + 1] = row + 1
    return Objects(boxes, rows, np.where(blank, np.int32(IGNORED), numbers[pieces]), left_out)


class ObjectBatches(Batches):
    """Training batches by step number for networks that find cells one by one: (image, truth).

    As `Batches`, whose samples, crops and augmentation they share bit for bit under the same seed; `truth` is
    {"boxes": float32 (batch, M, 4), "classes": int32 (batch, M), "labels": int32 (batch, patch, patch)}, see `Objects`.

    Args:
        reader: Where the samples come from; the train split is used.
        max_objects: M.
        with_classes: Tell the data's classes apart; else every cell is of class 1.
        options: Keywords of `Batches`: patch, batch_size, augment, oversample, minimum_range, seed.

    Attributes:
        crowded: Patches so far that held more than M cells.
        left_out: Cells of them that were taken for nothing, in all.
    """

    def __init__(self, reader: ShardReader, *, max_objects: int, with_classes: bool = False, **options):
        self.max_objects, self._with_classes = max_objects, with_classes
        self.crowded = self.left_out = 0
        self._lock = threading.Lock()
        self._areas = functools.lru_cache(maxsize=4096)(self._areas_of)
        super().__init__(reader, target="classes" if with_classes else "foreground", **options)
        self._by_name = {sample["name"]: sample for sample in self._samples}

    @property
    def specs(self) -> Sequence:
        """Shape and dtype of every array of a batch."""
        side, size = self._patch, self._batch_size
        return (
            ArraySpec(self.shapes[0], "float32"),
            {
                "boxes": ArraySpec((size, self.max_objects, 4), "float32"),
                "classes": ArraySpec((size, self.max_objects), "int32"),
                "labels": ArraySpec((size, side, side), "int32"),
            },
        )

    def batch(self, step: int, *, first: int = 0, every: int = 1) -> tuple:
        """The batch of a step, or some of its rows, as `Batches.batch`: (image, truth)."""
        rows = range(first, self._batch_size, every)
        image_spec, specs = self.specs
        image = aligned((len(rows), *image_spec.shape[1:]))
        truth = {name: np.zeros((len(rows), *spec.shape[1:]), spec.dtype) for name, spec in specs.items()}
        for place, patch in self._patches(step, rows):
            image[place] = patch["image"]
            for name, array in truth.items():
                array[place] = patch[name]
        return image, truth

    def patch(self, sample: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One random, augmented patch: image (patch, patch, C), and boxes, classes, labels as in `Objects`."""
        image, maps = self._augmented(sample, rng)
        found = find_objects(
            maps["labels"],
            maps.get("classes") if self._with_classes else None,
            maps.get("ignore"),
            max_objects=self.max_objects,
            areas=self._areas(sample["name"]),
            rescaled=self._augment.resizes,
        )
        if found.left_out:
            with self._lock:
                self.crowded, self.left_out = self.crowded + 1, self.left_out + found.left_out
        return {"image": image, "boxes": found.boxes, "classes": found.classes, "labels": found.labels}

    def _areas_of(self, name: str) -> dict[int, int]:
        """Pixels of each id in a whole sample."""
        ids, areas = np.unique(self._reader.labels(self._by_name[name]), return_counts=True)
        return {int(one): int(area) for one, area in zip(ids, areas, strict=True) if one > 0}


def _whole_enough(
    pieces: np.ndarray, sizes: np.ndarray, owners: np.ndarray, areas: Mapping[int, int] | None, rescaled: bool
) -> np.ndarray:
    """Whether each piece is enough of its cell to be one; see `find_objects`. Bool (n,)."""
    count = len(sizes)
    if not count:
        return np.zeros(0, bool)
    cut = np.zeros(count + 1, bool)
    for edge in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        cut[edge] = True
    cut = cut[1:]
    _, inverse = np.unique(owners, return_inverse=True)
    here = np.bincount(inverse, weights=sizes)[inverse]
    known = {} if areas is None else areas
    area = np.array([known.get(int(owner), size) for owner, size in zip(owners, here, strict=True)])
    id_cut = np.bincount(inverse, weights=cut)[inverse] > 0
    alone = (np.bincount(inverse)[inverse] == 1) & ~cut
    change = sizes / area
    scale = float(np.median(change[alone])) if alone.any() else float(change.max()) if rescaled else 1.0
    largest = np.zeros(inverse.max() + 1)
    np.maximum.at(largest, inverse, sizes)
    return (sizes >= LEAST_VISIBLE * scale * area) | (~id_cut & (sizes == largest[inverse]))


def _majority(pieces: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """The class of most pixels of each piece, int32 (count,); the lower one of a tie, 0 where none is known."""
    num_classes = int(classes.max(initial=0)) + 1
    votes = np.bincount(pieces.ravel() * num_classes + classes.ravel(), minlength=(count + 1) * num_classes)
    votes = votes.reshape(count + 1, num_classes)[1:]
    votes[:, 0] = 0
    return votes.argmax(axis=1).astype(np.int32)
