"""Results: which files an image's prediction becomes, which of them are there already, and writing them.

Finding the cells is the work of `cellseg.stages`; file formats live in `pipelines.images` and `cellseg.interchange`.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.images import count_pages, image_names, image_stem, write_image, write_labels
from pipelines.large_files import write_large
from pipelines.ome_zarr import SUFFIX as ZARR
from pipelines.ome_zarr import is_zarr
from pipelines.rasters import open_raster

if TYPE_CHECKING:
    from cellseg.inference import LoadedRun, Prediction

CTC_FRAME = re.compile(r"t(\d+)")
ROI_SET, GEOJSON, CELLS = "ROI set", "GeoJSON", "cells.csv"
SUFFIXES = {"tiff": ".tif", "zarr": ZARR}


@dataclass(frozen=True)
class Options:
    """What to write beside the labels, and what to do with bad files and old results.

    Args:
        format: `tiff`, or `zarr`: labels, probability and classes are OME-Zarr folders, STEM.zarr and so on.
        probability: Dtype of STEM_probability.tif, None = no such file. float32 and float16 hold the probability p in
            [0, 1]; uint8 holds round(255 p): 255 is 1, and a step is 1/255.
        overlay: STEM_overlay.png, the cells on the image (of a stack, on its middle page).
        roi: STEM_rois.zip, outlines for ImageJ's ROI manager (see `interchange.write_rois`).
        geojson: STEM.geojson, outlines for QuPath, one file a page: STEM_000.geojson, ... of a stack (see
            `interchange.write_geojson`).
        measure: cells.csv of all images, see `measured_files`; not with `zarr`.
        classes: STEM_classes.tif; `predict_files` sets it for a run that knows classes.
        scores: STEM_scores.csv, see `scores_table`; `predict_files` sets it for a run that finds cells one by one.
        keep_going: Skip files that fail.
        overwrite: Replace results that exist; see `check_targets`.
        resume: Skip images whose labels exist. They are written last, so that all of such an image is there; what else
            a killed call has left is written again.
    """

    format: Literal["tiff", "zarr"] = "tiff"
    probability: Literal["float32", "float16", "uint8"] | None = None
    overlay: bool = False
    roi: bool = False
    geojson: bool = False
    measure: bool = False
    classes: bool = False
    scores: bool = False
    keep_going: bool = False
    overwrite: bool = False
    resume: bool = False


def find_inputs(inputs: Sequence[Path]) -> list[Path]:
    """The images of files and folders, in order; an OME-Zarr is one image. Raises FileNotFoundError or InputError."""
    files: list[Path] = []
    for path in map(Path, inputs):
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path}.")
        files += _images_of(path) if path.is_dir() and not is_zarr(path) else [path]
    return files


def _images_of(folder: Path) -> list[Path]:
    arrays = [path.name for path in folder.iterdir() if is_zarr(path) and path.name[0] != "."]
    try:
        names = image_names(folder)
    except InputError:
        if not arrays:
            raise
        names = []
    return [folder / name for name in sorted([*names, *arrays])]


def result_stem(file: Path) -> str:
    """Stem of a result: the Cell Tracking Challenge's maskNNN for tNNN, digits as they stand, else the image's own."""
    frame = CTC_FRAME.fullmatch(file.stem)
    return f"mask{frame[1]}" if frame else image_stem(file)


def outputs(target: Path, options: Options, *, num_pages: int = 1) -> dict[str, Path]:
    """Every file that is written for one image of `num_pages`, by what it holds; the labels are `target`."""
    files = {"labels": target}
    if options.probability:
        files["probability"] = target.with_name(f"{target.stem}_probability{target.suffix}")
    if options.classes:
        files["classes"] = target.with_name(f"{target.stem}_classes{target.suffix}")
    if options.scores:
        files["scores"] = scores_file(target)
    if options.overlay:
        files["overlay"] = target.with_name(f"{target.stem}_overlay.png")
    if options.roi:
        files[ROI_SET] = target.with_name(f"{target.stem}_rois.zip")
    if options.geojson:
        pages = [""] if num_pages == 1 else [f"_{number:03d}" for number in range(num_pages)]
        files |= {f"{GEOJSON}{page}": target.with_name(f"{target.stem}{page}.geojson") for page in pages}
    return files


def scores_file(target: Path) -> Path:
    """The table of scores beside a label file."""
    return target.with_name(f"{target.stem}_scores.csv")


def scores_table(predictions: Sequence["Prediction"], class_names: Sequence[str]) -> pd.DataFrame:
    """One line a cell: page (from 0), label, class (its name; 1 where a run knows no names), score in [0, 1]."""
    tables = []
    for page, prediction in enumerate(predictions):
        scores = np.zeros(0) if prediction.scores is None else prediction.scores
        kinds = np.ones(len(scores), np.int64)
        if prediction.classes is not None and len(scores):
            ids, first = np.unique(prediction.labels, return_index=True)
            kinds = prediction.classes.ravel()[first[ids > 0]].astype(np.int64)
        columns = {"page": np.full(len(scores), page), "label": np.arange(1, len(scores) + 1)}
        table = pd.DataFrame(columns)
        table["class"] = [class_names[kind - 1] for kind in kinds.tolist()] if class_names else kinds
        table["score"] = scores.astype(np.float64).round(6)
        tables.append(table)
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def missing(targets: dict[Path, Path], options: Options, say: Callable[[str], None]) -> list[Path]:
    """The images that have no labels yet. Raises InputError if others lack what `options` ask for."""
    done = {file for file, target in targets.items() if target.exists()}
    for file in sorted(done):
        for what, path in outputs(targets[file], options, num_pages=_num_pages(file, options)).items():
            if not path.exists():
                raise InputError(
                    f"--resume goes on with the options of the first call, but {targets[file]} was made without its "
                    f"{what}, {path}. Leave that option out, pass --overwrite, or choose another --out."
                )
    if done:
        say(f"{len(done)} of {len(targets)} images have their results already; going on with the others.")
    return [file for file in targets if file not in done]


def check_targets(targets: dict[Path, Path], options: Options) -> None:
    """Raise InputError where results would replace one another, an image, or results that are there.

    Nor may `options.overwrite` leave what was made with the older labels of an image, such as outlines that are not
    asked for again, beside its new ones.
    """
    writer: dict[Path, Path] = {}
    inputs = {os.path.realpath(file) for file in targets}  # Path.resolve throws at links in a circle
    for file, target in targets.items():
        for what, path in outputs(target, options, num_pages=_num_pages(file, options)).items():
            if path in writer:
                raise InputError(
                    f"{writer[path]} and {file} would both be written to {path}. "
                    "Give them different names, or predict them into two folders."
                )
            writer[path] = file
            if os.path.realpath(path) in inputs:
                raise InputError(f"The {what} of {file} would replace the image {path}. Choose another --out.")
    table = [target.with_name(CELLS) for target in list(targets.values())[:1] if options.measure]
    there = [path for path in [*writer, *table] if path.exists()]
    if there and not (options.overwrite or options.resume):
        raise InputError(
            f"{len(there)} results exist already, for example {there[0]}. "
            "Pass --resume to go on with the images that have none, --overwrite to replace them, or choose another "
            "--out."
        )
    if options.overwrite and (stale := _stale(targets, options, {*writer, *table}, inputs)):
        more = f" (and {len(stale) - 1} files more)" if len(stale) > 1 else ""
        raise InputError(
            f"{stale[0]}{more} was made with the older labels, which --overwrite replaces, and would no longer fit. "
            "Ask for it as well, remove it, or choose another --out."
        )


def _stale(targets: dict[Path, Path], options: Options, written: set[Path], inputs: set[str]) -> list[Path]:
    """What is there of the labels that are replaced, and is not written again."""
    every = replace(
        options, probability="float32", overlay=True, roi=True, geojson=True, classes=True, scores=True, measure=True
    )
    found: dict[Path, None] = {}
    for file, target in targets.items():
        if target.exists():
            paths = [*outputs(target, every, num_pages=_num_pages(file, every)).values(), target.with_name(CELLS)]
            found |= dict.fromkeys(path for path in paths if path not in written and path.exists())
    return [path for path in found if os.path.realpath(path) not in inputs]


def _num_pages(file: Path, options: Options) -> int:
    """Pages of a file, where they matter for the names of its results; 1 for a damaged one, which fails later."""
    if not options.geojson:
        return 1
    try:
        return open_raster(file).pages if is_zarr(file) else count_pages(file)
    except (InputError, OSError):
        return 1


def write_results(
    target: Path,
    options: Options,
    loaded: "LoadedRun",
    pages: np.ndarray,
    predictions: Sequence["Prediction"],
    *,
    spacing_um: tuple[float, float] | None,
) -> None:
    """Write everything that `options` ask for of one image, the labels last: where they are, all of it is there.

    Args:
        target: Of the labels.
        options: See `Options`.
        loaded: The run, for its contrast and the names of its classes.
        pages: (N, H, W, C), the image as in the file.
        predictions: One a page.
        spacing_um: (row, column) pixel size, where known.
    """
    files = outputs(target, options, num_pages=len(pages))
    plane = partial(_write_plane, options=options, spacing_um=spacing_um)
    if options.probability:
        probability = stored(np.stack([prediction.probability for prediction in predictions]), options.probability)
        plane(files["probability"], probability, labels=False)
    if options.classes:
        kinds = [prediction.classes for prediction in predictions if prediction.classes is not None]
        plane(files["classes"], np.stack(kinds), labels=True)
    if options.scores:
        with whole_file(files["scores"]) as path:
            scores_table(predictions, loaded.class_names).to_csv(path, index=False)
    if options.overlay:
        _write_overlay(files["overlay"], loaded, pages, predictions)
    if options.roi or options.geojson:
        _write_outlines(files, predictions, loaded.class_names)
    plane(target, np.stack([prediction.labels for prediction in predictions]), labels=True)


def _write_plane(
    path: Path, stack: np.ndarray, *, labels: bool, options: Options, spacing_um: tuple[float, float] | None
) -> None:
    if path.suffix == ZARR:
        dtype = np.uint16 if stack.max() < 2**16 else np.uint32
        write_large(
            path,
            lambda page, rows, columns: stack[page, rows, columns],
            stack.shape,
            dtype if labels else stack.dtype,
            labels=labels,
            spacing_um=spacing_um,
            overwrite=options.overwrite or options.resume,
        )
    elif labels:
        write_labels(path, _squeeze(stack), spacing_um=spacing_um)
    else:
        write_image(path, _squeeze(stack[..., None]), spacing_um=spacing_um)


def stored(probability: np.ndarray, dtype: str) -> np.ndarray:
    """A probability in [0, 1] as float32 or float16 of the same values, or as uint8: round(255 p)."""
    if dtype == "uint8":
        return np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8)
    return probability.astype(dtype)


def _squeeze(stack: np.ndarray) -> np.ndarray:
    return stack[0] if len(stack) == 1 else stack


def _write_overlay(path: Path, loaded: "LoadedRun", pages: np.ndarray, predictions: Sequence["Prediction"]) -> None:
    from cellseg import figures

    middle = len(pages) // 2
    png = figures.overlay(pages[middle], predictions[middle].labels, contrast=loaded.run.experiment.data.contrast)
    with whole_file(path) as temporary:
        temporary.write_bytes(png)


def _write_outlines(files: dict[str, Path], predictions: Sequence["Prediction"], class_names: Sequence[str]) -> None:
    from cellseg import interchange

    if ROI_SET in files:
        interchange.write_rois(files[ROI_SET], _squeeze(np.stack([prediction.labels for prediction in predictions])))
    pages = [path for what, path in files.items() if what.startswith(GEOJSON)]
    if pages:
        for path, prediction in zip(pages, predictions, strict=True):
            interchange.write_geojson(path, prediction.labels, classes=prediction.classes, class_names=class_names)
