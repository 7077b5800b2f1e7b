"""Reader of shards: single records of a folder, whole or a window of them.

Where an array's bytes lie in a file is the business of `pipelines.shards.arrays`; batches are made in
`pipelines.dataset`.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pipelines.shards import arrays
from pipelines.shards.manifest import Manifest
from pipelines.tiling import mirrored_window


class ShardReader:
    """Reads single records of a folder of shards.

    Args:
        folder: Folder with `manifest.json`.
        verify: Compare every shard with its checksum first.

    Raises:
        InputError: no manifest, or a shard that is missing or damaged (the message names it).
    """

    def __init__(self, folder: Path | str, *, verify: bool = True):
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        if verify:
            self.manifest.verify(self.folder)
        self._files = [self.folder / shard["file"] for shard in self.manifest.shards]

    def read(self, sample: dict, *, rows: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """The record of one entry of `manifest.samples`: `image` in the file's dtype, `labels`, `contrast`, ...

        Args:
            sample: The entry.
            rows: Read only the rows from the first to below the second; None = all.
        """
        return arrays.read(self._files[sample["shard"]], sample["arrays"], rows=rows)

    def centres(self, sample: dict) -> np.ndarray:
        """int32 (n, 3): row, column and class of a pixel of each cell; see `pipelines.shards.record.centres`."""
        places = {"centres": sample["arrays"]["centres"]}
        return arrays.read(self._files[sample["shard"]], places)["centres"]

    def labels(self, sample: dict) -> np.ndarray:
        """The labels of a whole sample, (H, W), without its image."""
        places = {"labels": sample["arrays"]["labels"]}
        return arrays.read(self._files[sample["shard"]], places)["labels"]

    def window(self, sample: dict, row: int, column: int, side: int) -> dict[str, np.ndarray]:
        """The per-pixel arrays of the side x side window at (row, column), mirrored where it leaves the image.

        Only the window's rows are read from the shard. The arrays may be read-only.
        """
        height, width = sample["shape"][:2]
        first, last = max(row, 0), min(row + side, height)
        far = max(first - row, row + side - last, -column, column + side - width)
        if last <= first or far >= min(last - first, width):  # mirrored more than once, or from rows beyond the window
            whole = self.read(sample)
            return {name: mirrored_window(whole[name], row, column, side) for name in whole.keys() & arrays.PER_PIXEL}
        places = {name: place for name, place in sample["arrays"].items() if name in arrays.PER_PIXEL}
        record = arrays.read(self._files[sample["shard"]], places, rows=(first, last))
        left, right = max(column, 0), min(column + side, width)
        rim = (first - row, row + side - last, left - column, column + side - right)
        return {name: _mirrored(array[:, left:right], rim) for name, array in record.items()}

    def split(self, split: str) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
        """(entry, record) of each sample of a split, one at a time."""
        for sample in self.manifest.of_split(split):
            yield sample, self.read(sample)


def _mirrored(array: np.ndarray, rim: tuple[int, int, int, int]) -> np.ndarray:
    """An array with a mirrored rim (above, below, left, right), each side narrower than the array."""
    if not any(rim):
        return array
    # By far faster than np.pad and than indexing; the bits of any dtype of up to 4 bytes are moved.
    bits = array if array.dtype.kind != "b" and array.dtype != np.uint32 else array.view(f"i{array.itemsize}")
    return (
        cv2.copyMakeBorder(bits, *rim, cv2.BORDER_REFLECT_101)
        .view(array.dtype)
        .reshape(array.shape[0] + rim[0] + rim[1], array.shape[1] + rim[2] + rim[3], *array.shape[2:])
    )
