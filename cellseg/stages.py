"""Stages: what is done to one file, from reading to the last result. The network stands in the middle.

Files follow one another in `cellseg.conveyor`; images larger than memory are the work of `cellseg.streaming`.
"""

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg.conveyor import Outcome
from cellseg.detections import Detections
from cellseg.inference import ImageWarning, LoadedRun
from cellseg.results import Options, write_results
from pipelines.contrast import contrast_limits
from pipelines.images import read_page, read_pages, read_spacing_um
from pipelines.ome_zarr import is_zarr
from pipelines.rasters import open_raster
from pipelines.sample import Sample

ALL = slice(None)


@dataclass(frozen=True)
class Picture:
    """A file between two stages.

    Args:
        file: The image.
        pages: (N, H, W, C), as in the file.
        ready: Of each page, the channels that the network takes and their contrast limits.
        spacing_um: (row, column) pixel size, where known.
        probabilities: Of each page, (H, W, K), or `Detections`; none before the network has looked.
        said: What the user should hear.
    """

    file: Path
    pages: np.ndarray
    ready: tuple[tuple[np.ndarray, tuple[float, float]], ...]
    spacing_um: tuple[float, float] | None
    probabilities: tuple[np.ndarray | Detections, ...] = ()
    said: tuple[str, ...] = ()


def read(file: Path, *, loaded: LoadedRun, page: int | None = None) -> Picture:
    """Everything before the network: decode, check, choose channels, measure the contrast.

    Args:
        file: The image.
        loaded: The run.
        page: Read only this page, from 0; None reads all.

    Raises:
        InputError: damaged, NaN, or channels that the run cannot take.
    """
    raster = open_raster(file) if is_zarr(file) else None
    if raster is not None:
        numbers = range(raster.pages) if page is None else [page]
        pages = np.stack([raster.read(number, ALL) for number in numbers])
    else:
        pages = read_pages(file) if page is None else read_page(file, page)[np.newaxis]
    contrast = loaded.run.experiment.data.contrast
    ready = []
    for one in pages:
        image = loaded.to_channels(Sample(image=one, labels=None, name=str(file)).image)
        ready.append((image, contrast_limits(image, *contrast)))
    return Picture(file, pages, tuple(ready), read_spacing_um(file) if raster is None else raster.spacing_um)


def look(picture: Picture, *, loaded: LoadedRun) -> Picture:
    """The network's part. Not for two threads at once: warnings are caught, which Python does for all threads."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probabilities = tuple(loaded.predictor.probability(image, limits=limits) for image, limits in picture.ready)
    # Other warnings may come from the thread that reads another file.
    own = [f"{picture.file}: " if issubclass(one.category, ImageWarning) else "" for one in caught]
    said = dict.fromkeys(f"{whose}{one.message}" for whose, one in zip(own, caught, strict=True))
    return dataclasses.replace(picture, ready=(), probabilities=probabilities, said=tuple(said))


def write(picture: Picture, *, loaded: LoadedRun, target: Path, options: Options) -> Outcome:
    """Everything behind the network: find the cells, write the results."""
    predictions = [loaded.decide(probability) for probability in picture.probabilities]
    write_results(target, options, loaded, picture.pages, predictions, spacing_um=picture.spacing_um)
    return Outcome(picture.file, picture.said, picture.pages.dtype.name)
