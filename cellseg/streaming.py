"""Streaming: prediction of an image of any size in bounded memory, with the same cells as those of the whole image.

Of several networks and views, the probability is averaged in `cellseg.views`; cells are found in `cellseg.merging`.
What fits into memory is predicted by `cellseg.stages`.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cellseg import answers
from cellseg.inference import LoadedRun, LowContrastWarning
from cellseg.instances import CUTS, INSTANCES
from cellseg.magnification import AS_IT_IS
from cellseg.merging import Labelled, Limits, label_rows
from cellseg.named import check_options
from cellseg.networks import outputs_of
from cellseg.results import Options, outputs, stored
from cellseg.views import Helpers, probability_on_disk
from pipelines.contrast import to_channels
from pipelines.disk import DiskArray, work_folder
from pipelines.errors import InputError
from pipelines.large_files import Window, write_large
from pipelines.rasters import Raster, open_raster
from pipelines.working_copies import limits_on_disk, working_copy

CGROUP = Path("/sys/fs/cgroup/memory.max")
LARGEST_COPY = 2**26
LARGEST_STRIP = 2**22  # pixels
# A pixel of a piece's box while it is cut: 109 to 118 were measured on 3000 x 3000 px, most of them in scikit-image's
# reconstruction.
CUT_BYTES = 130
# A pixel of a whole image while its cells are found: mask, pieces and, where it is foreground, their census.
LABELLING_BYTES = 36


@dataclass(frozen=True)
class Budget:
    """What is held at once, in shares of the memory.

    Args:
        memory: In bytes.
    """

    memory: int

    @property
    def copied(self) -> int:
        """Bytes of the file that are decoded together."""
        return min(self.memory // 16, LARGEST_COPY)

    @property
    def summed(self) -> int:
        """Bytes of the network's answers that are being summed up."""
        return self.memory // 4

    def rows(self, width: int, kinds: int) -> int:
        """Rows of an image that are labelled together."""
        return max(1, min(self.memory // (200 + 40 * kinds), LARGEST_STRIP) // width)

    @property
    def piece(self) -> int:
        """Pixels of the largest piece that is cut into cells."""
        return 3 * self.memory // 5 // CUT_BYTES


def default_memory() -> int:
    """Bytes that a prediction may take where nobody has said: half of what the machine, or the container, has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # not there, or "max"
        memory = min(memory, int(CGROUP.read_text()))
    return memory // 2


def needs_streaming(file: Path, loaded: LoadedRun, memory_bytes: int | None = None) -> bool:
    """Whether an image would take more than `memory_bytes` if it were predicted as a whole.

    Raises:
        FileNotFoundError, InputError: As `pipelines.rasters.open_raster`.
    """
    return whole_bytes(open_raster(file), loaded) > (default_memory() if memory_bytes is None else memory_bytes)


def whole_bytes(raster: Raster, loaded: LoadedRun) -> int:
    """Bytes that the prediction of a whole image takes at its peak, about."""
    height, width, channels = raster.shape
    kinds = outputs_of(loaded.run.experiment.target, num_classes=len(loaded.class_names))
    size = raster.dtype.itemsize
    member = loaded.predictor.members[0]
    views = max(one.symmetries * len(one.zoom) for one in loaded.predictor.members) * len(loaded.predictor.members)
    largest = max(1.0, *(zoom for one in loaded.predictor.members for zoom in one.zoom)) ** 2
    # All pages: as decoded (twice while they are decoded), probability, labels.
    kept = channels * size * (2 if raster.pages > 1 else 1) + 4 * kinds + 4 + (8 if kinds > 1 else 0)
    network = largest * (channels * size + 8 * member.channels + 4 * kinds) + (8 * kinds if views > 1 else 0)
    # A watershed may meet one piece as large as the image.
    cutting = CUT_BYTES if loaded.run.experiment.instances["name"] in CUTS else 0
    working = max(network, LABELLING_BYTES, cutting)
    return int(height * width * (raster.pages * kept + working))


def predict_streamed(
    loaded: LoadedRun,
    file: Path,
    target: Path,
    *,
    memory_bytes: int | None = None,
    probability: Literal["float32", "float16", "uint8"] | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
    helpers: Helpers | None = None,
) -> None:
    """Predict an image of any size and write its labels, equal to `loaded.predict` of the whole image.

    Unfinished work lies in a hidden folder beside `target`, at most 4 bytes a pixel for each of: the image, every
    class, labels, background, and a second time every class for an ensemble. It is removed at the end.

    Args:
        loaded: A run or an ensemble.
        file: TIFF or OME-Zarr; or any image whose blocks can be decoded within the memory.
        target: `.tif`: a tiled BigTIFF; `.zarr`: an OME-Zarr. Probability and classes lie beside it, named as
            `cellseg.results.outputs` says; the labels come last.
        memory_bytes: What the process may take beyond the loaded network; None = `default_memory`.
        probability: Dtype of the probability's file; None = no such file.
        overwrite: Replace an OME-Zarr that is there; a TIFF always is.
        say: Tells the user of warnings.
        helpers: Who computes the network's part, for example on a cluster; None = this process.

    Raises:
        FileNotFoundError, InputError: damaged, NaN, wrong channels, a file that cannot be read by windows, or a run
            that needs the whole image at once.
        OSError: the disk is full, or cannot be written.
    """
    budget = Budget(default_memory() if memory_bytes is None else memory_bytes)
    raster = open_raster(file)
    _check_blocks(raster, budget)
    _check_run(loaded, raster)
    with work_folder(target) as folder:
        pages = [_page(loaded, raster, page, folder / str(page), budget, say, helpers) for page in range(raster.pages)]
        _write(loaded, pages, target, raster.spacing_um, probability, overwrite)


@dataclass(frozen=True)
class _Page:
    """What was found on one page, on disk."""

    probability: DiskArray
    labelled: Labelled
    kinds: np.ndarray | None  # the class of each cell, 0 for the background


def _page(
    loaded: LoadedRun,
    raster: Raster,
    page: int,
    folder: Path,
    budget: Budget,
    say: Callable[[str], None],
    helpers: Helpers | None,
) -> _Page:
    folder.mkdir()
    image = _image(loaded, raster, page, folder / "image", budget)
    limits = limits_on_disk(image, *loaded.run.experiment.data.contrast, num_bytes=budget.copied)
    for text in dict.fromkeys(_warnings(loaded, image, limits)):
        say(f"{raster.path}: {text}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LowContrastWarning)  # said already, not once a tile
        probability = probability_on_disk(loaded, image, limits, folder, num_bytes=budget.summed, helpers=helpers)
    image.remove()
    height, width, kinds = probability.shape
    rows = budget.rows(width, kinds)
    section = loaded.run.experiment.instances
    labelled = label_rows(
        lambda first, end: loaded.foreground(probability.read(slice(first, end))),
        (height, width),
        folder,
        name=section["name"],
        options={
            **check_options(INSTANCES, section, key="instances", given=("threshold",)),
            "threshold": loaded.threshold,
        },
        limits=Limits(rows, budget.piece),
        inner=lambda part, columns: loaded.inner(probability.read(part, columns)),
        say=lambda text: say(f"{raster.path}: {text}"),
    )
    return _Page(probability, labelled, _kinds(labelled, probability, rows) if loaded.class_names else None)


def _image(loaded: LoadedRun, raster: Raster, page: int, path: Path, budget: Budget) -> DiskArray:
    """The working copy with the channels that the run takes, as `LoadedRun.to_channels` of the whole image."""
    wanted, channels = loaded.run.data["channels"], loaded.run.experiment.data.channels
    count = to_channels(np.zeros((1, 1, raster.shape[2]), raster.dtype), channels).shape[2]
    if count == wanted or wanted == 1:
        copy, grey = working_copy(
            raster, page, path, channels=lambda window: to_channels(window, channels), num_bytes=budget.copied
        )
        count = copy.shape[2]
        if count > 1 and wanted == 1 and grey:
            return _first_channel(copy, path.with_name("grey"), budget)
        if count == wanted:
            return copy
    raise InputError(
        f"{raster.path}: the image has {count} channels; this run was trained on {wanted}. "
        "Convert the image, or train with data.channels."
    )


def _first_channel(image: DiskArray, path: Path, budget: Budget) -> DiskArray:
    first = DiskArray(path, (*image.shape[:2], 1), image.dtype)
    rows = max(1, budget.copied // (image.shape[1] * image.shape[2] * image.dtype.itemsize))
    for row in range(0, image.shape[0], rows):
        first.write(row, 0, image.read(slice(row, row + rows))[..., :1])
    image.remove()
    return first


def _warnings(loaded: LoadedRun, image: DiskArray, limits: tuple[float, float]) -> Iterator[str]:
    """What the networks have to say of the image's contrast."""
    pixel = image.read(slice(0, 1), slice(0, 1))
    for member in loaded.predictor.members:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            member.stretched(pixel, limits=limits)
        yield from (str(one.message) for one in caught)


def _kinds(labelled: Labelled, probability: DiskArray, rows: int) -> np.ndarray:
    """The class of each cell by majority of its pixels, as `answers.cell_classes`; 0 for the background."""
    num_classes = probability.shape[2]
    votes = np.zeros((labelled.num_cells + 1, num_classes), np.int64)
    for first in range(0, probability.shape[0], rows):
        labels = labelled.rows(first, first + rows)
        kinds = answers.classes(probability.read(slice(first, first + rows)))
        low = int(labels[labels > 0].min(initial=votes.shape[0] - 1))
        inside = labels > 0
        found = np.bincount((labels[inside] - low) * num_classes + kinds[inside])
        found = np.pad(found, (0, -len(found) % num_classes)).reshape(-1, num_classes)
        votes[low : low + len(found)] += found
    winner = votes.argmax(axis=1).astype(np.int32)
    winner[0] = 0
    return winner


def _write(
    loaded: LoadedRun,
    pages: list[_Page],
    target: Path,
    spacing_um: tuple[float, float] | None,
    probability: Literal["float32", "float16", "uint8"] | None,
    overwrite: bool,
) -> None:
    files = outputs(target, Options(probability=probability, classes=bool(loaded.class_names)))
    height, width = pages[0].probability.shape[:2]
    shape = (len(pages), height, width)

    def chances(page: int, rows: slice, columns: slice) -> np.ndarray:
        return stored(loaded.foreground(pages[page].probability.read(rows, columns)), str(probability))

    def ids(page: int, rows: slice, columns: slice) -> np.ndarray:
        labelled = pages[page].labelled
        return labelled.numbers[labelled.provisional.read(rows, columns)]

    def kinds(page: int, rows: slice, columns: slice) -> np.ndarray:
        found = pages[page].kinds
        return np.zeros(0) if found is None else found[ids(page, rows, columns)]

    def write(what: str, window: Window, dtype: np.dtype | type, *, labels: bool) -> None:
        write_large(files[what], window, shape, dtype, labels=labels, spacing_um=spacing_um, overwrite=overwrite)

    if probability:
        write("probability", chances, np.dtype(probability), labels=False)
    if loaded.class_names:
        write("classes", kinds, np.uint16, labels=True)
    largest = max(page.labelled.num_cells for page in pages)
    # The labels come last: where they are, everything of this image is there.
    write("labels", ids, np.uint16 if largest < 2**16 else np.uint32, labels=True)


def _zoom_told(loaded: LoadedRun, zoom: tuple[float, ...]) -> str:
    return f"inference.zoom: {list(zoom)}" if loaded.magnification == AS_IT_IS else "--zoom or --diameter"


def _check_blocks(raster: Raster, budget: Budget) -> None:
    """Raise InputError where not even one block of the file can be decoded within the memory."""
    rows, columns = raster.block
    needed = 3 * rows * columns * raster.stored_bytes
    if needed > budget.memory:
        raise InputError(
            f"{raster.path} can only be read in blocks of {rows}x{columns} pixels, and to decode one takes "
            f"{needed / 1e9:.2g} GB, more than the {budget.memory / 1e9:.2g} GB that may be used. Save it as a "
            "tiled TIFF (for example tiles of 512x512), or raise --memory."
        )


def _check_run(loaded: LoadedRun, raster: Raster) -> None:
    """Raise InputError where a run looks at the whole image at once."""
    if loaded.run.experiment.detects:
        raise InputError(
            f"{raster.path} does not fit into the memory that may be used, and cannot be read in pieces: "
            f"{loaded.run.experiment.model['name']} finds cells one by one, and what its tiles have found is put "
            "together in memory. Raise --memory, or cut the image."
        )
    for member in loaded.predictor.members:
        for what, whole in (
            (_zoom_told(loaded, member.zoom), member.zoom != (1.0,)),
            ("inference.method: resize", member.tiling.resize),
        ):
            if whole:
                raise InputError(
                    f"{raster.path} does not fit into the memory that may be used, and is read in pieces; with {what} "
                    "a run needs the whole image. Raise --memory, or use a run without it."
                )
