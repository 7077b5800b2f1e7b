"""Prediction of files: images, stacks and folders in, label files out. The cellseg-predict workflow.

One image in memory is the business of `cellseg.inference`; file formats live in `pipelines.images` and
`cellseg.interchange`.
"""

import errno
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cellseg.inference import LoadedRun, Prediction, load_run
from cellseg.runs import Run
from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.images import (
    count_pages,
    image_files,
    image_stem,
    read_pages,
    read_spacing_um,
    write_image,
    write_labels,
)
from pipelines.prepare import Progress

CTC_FRAME = re.compile(r"t(\d{3,})$")
ROI_SET, GEOJSON = "ROI set", "GeoJSON"


@dataclass(frozen=True)
class Options:
    """What to write beside the labels, and what to do with bad files and old results.

    Args:
        probability: Dtype of STEM_probability.tif, None = no such file. float32 and float16 hold the probability p in
            [0, 1]; uint8 holds round(255 p): 255 is 1, and a step is 1/255.
        overlay: STEM_overlay.png, the cells on the image (of a stack, on its middle page).
        roi: STEM_rois.zip, outlines for ImageJ's ROI manager (see `interchange.write_rois`).
        geojson: STEM.geojson, outlines for QuPath, one file a page: STEM_000.geojson, ... of a stack (see
            `interchange.write_geojson`).
        classes: STEM_classes.tif; `predict_files` sets it for a run that knows classes.
        keep_going: Skip files that fail.
        overwrite: Replace results that exist.
        resume: Skip images whose labels exist. They are written last, so that all of such an image is there; what else
            a killed call has left is written again.
    """

    probability: Literal["float32", "float16", "uint8"] | None = None
    overlay: bool = False
    roi: bool = False
    geojson: bool = False
    classes: bool = False
    keep_going: bool = False
    overwrite: bool = False
    resume: bool = False


def predict_files(
    run: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    options: Options = Options(),
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Predict every image of `inputs` and write the labels to `out`.

    Args:
        run: A finished run folder.
        inputs: Images, stacks, or folders of them.
        out: Folder for STEM.tif (maskNNN.tif for tNNN.tif) and what `options` ask for; a run that knows classes also
            writes STEM_classes.tif, the class of the cell that each pixel lies in. Every TIFF has the input's pixel
            size.
        options: See `Options`.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user of warnings, with `keep_going` of files that failed, and with `resume` of how many are done.

    Returns:
        The files that failed; always empty without `keep_going`.

    Raises:
        InputError: no images, two inputs of the same stem, results that exist or would replace an input, results to go
            on with that were made with other options, a bad run, or without `keep_going` a bad file; every result
            written until then is whole.
    """
    if options.overwrite and options.resume:
        raise InputError("--resume keeps the results that exist and --overwrite replaces them. Pass one of them.")
    files = find_inputs(inputs)
    targets = {file: out / f"{result_stem(file)}.tif" for file in files}
    options = replace(options, classes=has_classes(run))
    _check_targets(targets, options)
    if options.resume:
        files = _missing(targets, options, say)
        if not files:
            return []
    loaded = load_run(run)
    failed = []
    for file in progress(files, len(files)):
        try:
            _predict_file(loaded, file, targets[file], options, say)
        except (InputError, OSError) as error:
            text = str(error) if str(file) in str(error) else f"{file}: {error}"
            if not options.keep_going or _is_fatal(error):
                raise InputError(text) from error
            say(text)
            failed.append(file)
    return failed


def has_classes(run: Path) -> bool:
    """Whether a run tells classes of cells apart. Raises InputError if it is no finished run."""
    return bool(Run.read(run).data.get("classes"))


def find_inputs(inputs: Sequence[Path]) -> list[Path]:
    """The image files of files and folders, in order. Raises FileNotFoundError or InputError."""
    files: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            files += image_files(path)
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(f"There is no file or folder {path}.")
    return files


def result_stem(file: Path) -> str:
    """Stem of a result: the Cell Tracking Challenge's maskNNN for tNNN, else the image's own."""
    frame = CTC_FRAME.fullmatch(file.stem)
    return f"mask{frame[1]}" if frame else image_stem(file)


def outputs(target: Path, options: Options, *, num_pages: int = 1) -> dict[str, Path]:
    """Every file that is written for one image of `num_pages`, by what it holds; the labels are `target`."""
    files = {"labels": target}
    if options.probability:
        files["probability"] = target.with_name(f"{target.stem}_probability.tif")
    if options.classes:
        files["classes"] = target.with_name(f"{target.stem}_classes.tif")
    if options.overlay:
        files["overlay"] = target.with_name(f"{target.stem}_overlay.png")
    if options.roi:
        files[ROI_SET] = target.with_name(f"{target.stem}_rois.zip")
    if options.geojson:
        pages = [""] if num_pages == 1 else [f"_{number:03d}" for number in range(num_pages)]
        files |= {f"{GEOJSON}{page}": target.with_name(f"{target.stem}{page}.geojson") for page in pages}
    return files


def _num_pages(file: Path, options: Options) -> int:
    """Pages of a file, where they matter for the names of its results; 1 for a damaged one, which fails later."""
    if not options.geojson:
        return 1
    try:
        return count_pages(file)
    except (InputError, OSError):
        return 1


def _missing(targets: dict[Path, Path], options: Options, say: Callable[[str], None]) -> list[Path]:
    """The images that have no labels yet."""
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


def _check_targets(targets: dict[Path, Path], options: Options) -> None:
    writer: dict[Path, Path] = {}
    inputs = {file.resolve() for file in targets}
    for file, target in targets.items():
        for what, path in outputs(target, options, num_pages=_num_pages(file, options)).items():
            if path in writer:
                raise InputError(
                    f"{writer[path]} and {file} would both be written to {path}. "
                    "Give them different names, or predict them into two folders."
                )
            writer[path] = file
            if path.resolve() in inputs:
                raise InputError(f"The {what} of {file} would replace the image {path}. Choose another --out.")
    there = [path for path in writer if path.exists()]
    if there and not (options.overwrite or options.resume):
        raise InputError(
            f"{len(there)} results exist already, for example {there[0]}. "
            "Pass --resume to go on with the images that have none, --overwrite to replace them, or choose another "
            "--out."
        )


def _predict_file(loaded: LoadedRun, file: Path, target: Path, options: Options, say: Callable[[str], None]) -> None:
    pages = read_pages(file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predictions = [loaded.predict(page) for page in pages]
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        say(f"{file}: {text}")
    spacing_um = read_spacing_um(file)
    files = outputs(target, options, num_pages=len(pages))
    if options.probability:
        probability = stored(np.stack([prediction.probability for prediction in predictions]), options.probability)
        write_image(files["probability"], _squeeze(probability[..., None]), spacing_um=spacing_um)
    if options.classes:
        kinds = [prediction.classes for prediction in predictions if prediction.classes is not None]
        write_labels(files["classes"], _squeeze(np.stack(kinds)), spacing_um=spacing_um)
    if options.overlay:
        _write_overlay(files["overlay"], loaded, pages, predictions)
    if options.roi or options.geojson:
        _write_outlines(files, predictions, loaded.class_names)
    # The labels come last: where they are, everything of this image is there.
    write_labels(target, _squeeze(np.stack([prediction.labels for prediction in predictions])), spacing_um=spacing_um)


def stored(probability: np.ndarray, dtype: str) -> np.ndarray:
    """A probability in [0, 1] as float32 or float16 of the same values, or as uint8: round(255 p)."""
    if dtype == "uint8":
        return np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8)
    return probability.astype(dtype)


def _squeeze(stack: np.ndarray) -> np.ndarray:
    return stack[0] if len(stack) == 1 else stack


def _write_overlay(path: Path, loaded: LoadedRun, pages: np.ndarray, predictions: Sequence[Prediction]) -> None:
    from cellseg import figures

    middle = len(pages) // 2
    png = figures.overlay(pages[middle], predictions[middle].labels, contrast=loaded.run.experiment.data.contrast)
    with whole_file(path) as temporary:
        temporary.write_bytes(png)


def _write_outlines(files: dict[str, Path], predictions: Sequence[Prediction], class_names: Sequence[str]) -> None:
    from cellseg import interchange

    if ROI_SET in files:
        interchange.write_rois(files[ROI_SET], _squeeze(np.stack([prediction.labels for prediction in predictions])))
    pages = [path for what, path in files.items() if what.startswith(GEOJSON)]
    if pages:
        for path, prediction in zip(pages, predictions, strict=True):
            interchange.write_geojson(path, prediction.labels, classes=prediction.classes, class_names=class_names)


def _is_fatal(error: Exception) -> bool:
    """A full disk or a read-only folder will not get better with the next file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT)
