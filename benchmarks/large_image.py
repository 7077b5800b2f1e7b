"""An image larger than memory: the same cells as those of the whole image, none of them cut, in bounded memory.

1. 4096 x 4096: predicted as a whole (peer) and streamed (ours): pixels that differ, peak memory, time.
2. A mosaic of real pictures of nuclei, none of them cut: recall of the true cells (IoU >= 0.5) in the mosaic (ours) and
   in the single pictures (peer); cells in two pieces here and not there (ours), and there and not here (peer); touching
   labels across the borders of tiles (ours) and across lines half a tile away (peer), which would differ if tiles cut
   cells; peak memory, time.

Memory is that of the process beyond what it had after a first small prediction, which loads and compiles everything.
Every measurement is a process of its own. Pictures are brought to full contrast one by one, because those of different
microscopes would not be seen in one mosaic.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from side_by_side import parser, report, row

NUCLEI = Path(__file__).parents[1] / "experiments" / "data" / "nuclei"
GAP = 16  # px of black round every picture
UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
Picture = tuple[np.ndarray, np.ndarray]  # image uint16 (H, W, 1), labels int32 (H, W)


def memory_size(text: str) -> int:
    """Bytes of a text such as 2GB."""
    found = re.fullmatch(r"([\d.]+)\s*([MG]I?B)", text.upper())
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no amount of memory, for example 2GB")
    return int(float(found[1]) * UNITS[found[2]])


def read_pictures(contrast: tuple[float, float]) -> list[Picture]:
    """The grey pictures of the project's nuclei, each at full contrast."""
    from pipelines.contrast import stretch_contrast, to_channels
    from pipelines.images import image_files, read_image, read_labels

    pictures = []
    for file, truth in zip(image_files(NUCLEI / "images"), image_files(NUCLEI / "labels"), strict=True):
        image = read_image(file)
        image = to_channels(image, "grey") if image.shape[2] == 3 else image
        stretched = stretch_contrast(image, low=contrast[0], high=contrast[1])
        pictures.append((np.rint(65535 * stretched).astype(np.uint16), read_labels(truth, page=0)))
    return pictures


def places(pictures: list[Picture], side: int) -> list[tuple[int, int, int]]:
    """(picture, row, column) of as many whole pictures as fill a square, in rows of pictures of one height."""
    order = sorted(range(len(pictures)), key=lambda number: pictures[number][0].shape)
    found, top, turn = [], GAP, 0
    while True:
        left, height, last = GAP, 0, len(found)
        while True:
            number = order[turn % len(order)]
            rows, columns = pictures[number][1].shape
            if left + columns + GAP > side:
                break
            if top + rows + GAP <= side:
                found.append((number, top, left))
                height = max(height, rows)
            left, turn = left + columns + GAP, turn + 1
        if len(found) == last:
            return found
        top += height + GAP


def write_mosaic(path: Path, pictures: list[Picture], side: int) -> list[tuple[int, int, int]]:
    """Write the mosaic as a tiled BigTIFF, and give the places of its pictures."""
    from pipelines.disk import DiskArray
    from pipelines.large_files import write_large

    canvas, placed = DiskArray(path.with_suffix(".raw"), (side, side), np.uint16), places(pictures, side)
    for number, top, left in placed:
        canvas.write(top, left, pictures[number][0][..., 0])
    write_large(path, lambda page, rows, columns: canvas.read(rows, columns), (1, side, side), np.uint16)
    canvas.remove()
    return placed


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The highest memory of the process while this is open, looked at every few milliseconds."""

    def __enter__(self) -> "Peak":
        self.first = self.highest = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.highest = max(self.highest, resident())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def child(run: str, file: Path, target: Path, memory: int | None) -> None:
    """In a process of its own: predict, streamed within `memory` or else as a whole, and print seconds and bytes."""
    import cellseg
    from cellseg.streaming import predict_streamed
    from pipelines.allocator import keep_freed_memory
    from pipelines.images import read_pages, write_labels

    keep_freed_memory()
    loaded = cellseg.load_run(run)
    loaded.predict(np.random.default_rng(0).integers(0, 65535, (300, 300), dtype=np.uint16))
    begin = time.perf_counter()
    with Peak() as peak:
        if memory is None:
            write_labels(target, loaded.predict(read_pages(file)[0]).labels)
        else:
            predict_streamed(loaded, file, target, memory_bytes=memory, say=lambda text: print(text, file=sys.stderr))
    print(json.dumps({"s": time.perf_counter() - begin, "bytes": peak.highest - peak.first}))


def measured(run: str, file: Path, target: Path, memory: int | None) -> dict[str, float]:
    """`child` in a process of its own."""
    program = f"import large_image; from pathlib import Path; large_image.child({run!r}, Path({str(file)!r}), "
    program += f"Path({str(target)!r}), {memory})"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"the prediction of {file} failed")
    return json.loads(done.stdout.splitlines()[-1])


def judged(labels_true: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every true cell: whether a label has an IoU >= 0.5 with it, and how many cover a tenth of it or more."""
    ids, true = np.unique(labels_true, return_inverse=True)
    found, predicted = np.unique(labels, return_inverse=True)
    table = np.bincount(true.ravel() * len(found) + predicted.ravel(), minlength=len(ids) * len(found))
    table = table.reshape(len(ids), len(found))
    areas, sizes = table.sum(axis=1, keepdims=True), table.sum(axis=0, keepdims=True)
    cells, marks = ids > 0, found > 0
    share = (table / (areas + sizes - table))[cells][:, marks]
    covered = (table >= 0.1 * areas)[cells][:, marks]
    return (share >= 0.5).any(axis=1), covered.sum(axis=1)


class LabelFile:
    """Windows of a label TIFF of 16 or 32 bits; images of 32 bits are none, and `open_raster` refuses them."""

    def __init__(self, path: Path):
        import tifffile
        import zarr

        self._array = zarr.open(tifffile.imread(path, aszarr=True), mode="r")

    def read(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Labels (h, w)."""
        return np.asarray(self._array[rows, columns])

    def strips(self):
        """All of it, some rows at a time."""
        for first in range(0, self._array.shape[0], 1024):
            yield self.read(slice(first, first + 1024))


def touching(target: Path, lines: list[int], side: int) -> float:
    """Pairs of different labels that touch across horizontal and vertical lines, a line's mean."""
    labels, count = LabelFile(target), 0
    for line in lines:
        across = slice(line - 1, line + 1)
        for pair in (labels.read(across), labels.read(slice(0, side), across).T):
            count += int(np.count_nonzero((pair[0] != pair[1]) & (pair[0] > 0) & (pair[1] > 0)))
    return count / max(1, 2 * len(lines))


def whole_and_streamed(run: str, side: int, memory: int, pictures: list[Picture], folder: Path) -> list:
    """Part 1."""
    file = folder / "small.tif"
    write_mosaic(file, pictures, side)
    whole = measured(run, file, folder / "whole.tif", None)
    ours = measured(run, file, folder / "streamed.tif", memory)
    one, other = LabelFile(folder / "whole.tif"), LabelFile(folder / "streamed.tif")
    differ = sum(int(np.count_nonzero(a != b)) for a, b in zip(one.strips(), other.strips(), strict=True))
    case = f"{side} x {side}, ours = streamed, peer = whole"
    return [
        row(f"{case}: pixels whose labels differ", differ, None),
        row(f"{case}: cells", float(_cells(other)), float(_cells(one))),
        row(f"{case}: peak MB beyond the loaded run", ours["bytes"] / 1e6, whole["bytes"] / 1e6),
        row(f"{case}: seconds", ours["s"], whole["s"]),
    ]


def mosaic(run: str, side: int, memory: int, pictures: list[Picture], folder: Path) -> list:
    """Part 2."""
    import cellseg

    file, target = folder / "mosaic.tif", folder / "mosaic_labels.tif"
    placed = write_mosaic(file, pictures, side)
    ours = measured(run, file, target, memory)
    loaded, result = cellseg.load_run(run), LabelFile(target)
    singles = [judged(truth, loaded.predict(image).labels) for image, truth in pictures]
    found, alone, fell, rose, cells = 0, 0, 0, 0, 0
    for number, top, left in placed:
        truth = pictures[number][1]
        window = result.read(slice(top, top + truth.shape[0]), slice(left, left + truth.shape[1]))
        matched, pieces = judged(truth, window)
        cells += len(matched)
        found, alone = found + int(matched.sum()), alone + int(singles[number][0].sum())
        fell += int(((pieces > 1) & (singles[number][1] < 2)).sum())
        rose += int(((pieces < 2) & (singles[number][1] > 1)).sum())
    from cellseg.views import grid_of

    grid = grid_of(loaded.predictor.members[0])
    # Inside the overlap of two tiles, where it ends and begins, and half a tile away.
    starts = grid.starts(side)[1:]
    seams = [line for start in starts for line in (start, start + grid.overlap // 2, start + grid.overlap)]
    control = [line + grid.output // 2 for line in seams]
    seams, control = ([line for line in lines if 0 < line < side - 1] for lines in (seams, control))
    case = f"mosaic {side} x {side} of {len(placed)} pictures"
    return [
        row(f"{case}: true cells", cells, None),
        row(f"{case}: recall, peer = single pictures", found / cells, alone / cells),
        row(f"{case}: cells in two here and whole in the single picture, peer = the other way round", fell, rose),
        row(
            f"{case}: touching labels across a tile's border, peer = elsewhere",
            touching(target, seams, side),
            touching(target, control, side),
        ),
        row(f"{case}: labels", float(_cells(result)), None),
        row(f"{case}: peak MB beyond the loaded run, peer = --memory", ours["bytes"] / 1e6, memory / 1e6),
        row(f"{case}: seconds", ours["s"], None),
    ]


def _cells(labels: LabelFile) -> int:
    return max(int(strip.max()) for strip in labels.strips())


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("run", nargs="?", default="nuclei", help="a run folder, or the name of a run in the box")
    options.add_argument("--side", type=int, default=20_000, help="of the mosaic, in pixels")
    options.add_argument("--whole", type=int, default=4096, help="side of the image that is also predicted as a whole")
    options.add_argument("--memory", type=memory_size, default="2GB")
    options.add_argument("--work", type=Path, help="folder for images and results; default: a temporary one")
    asked = options.parse_args()
    import cellseg

    pictures = read_pictures(cellseg.load_run(asked.run).run.experiment.data.contrast)
    if asked.work is not None:
        asked.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        rows = whole_and_streamed(asked.run, asked.whole, asked.memory, pictures, Path(name))
        print(*rows, sep="\n", file=sys.stderr, flush=True)  # the next part takes minutes
        rows += mosaic(asked.run, asked.side, asked.memory, pictures, Path(name))
    report("Images larger than memory", rows, asked.json)


if __name__ == "__main__":
    main()
