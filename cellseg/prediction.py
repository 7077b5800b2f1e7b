"""Prediction of files: images, stacks and folders in, label files out. The cellseg-predict workflow.

One image in memory is the business of `cellseg.inference`; file formats live in `pipelines.images`.
"""

import errno
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellseg.inference import LoadedRun, Prediction, load_run
from cellseg.runs import Run
from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.images import image_files, image_stem, read_pages, read_spacing_um, write_image, write_labels
from pipelines.prepare import Progress

CTC_FRAME = re.compile(r"t(\d{3,})$")


@dataclass(frozen=True)
class Options:
    """What to write beside the labels, and what to do with bad files and old results."""

    probability: bool = False
    overlay: bool = False
    classes: bool = False
    keep_going: bool = False
    overwrite: bool = False


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
        out: Folder for STEM.tif (maskNNN.tif for tNNN.tif), STEM_probability.tif and STEM_overlay.png; a run that knows
            classes also writes STEM_classes.tif, the class of the cell that each pixel lies in.
        options: See `Options`.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user of warnings and, with `keep_going`, of files that failed.

    Returns:
        The files that failed; always empty without `keep_going`.

    Raises:
        InputError: no images, two inputs of the same stem, results that exist or would replace an input, a bad run, or
            without `keep_going` a bad file; every result written until then is whole.
    """
    files = find_inputs(inputs)
    targets = {file: out / f"{result_stem(file)}.tif" for file in files}
    options = replace(options, classes=has_classes(run))
    _check_targets(targets, options)
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


def outputs(target: Path, options: Options) -> dict[str, Path]:
    """Every file that is written for one image, by what it holds; the labels are `target`."""
    files = {"labels": target}
    if options.probability:
        files["probability"] = target.with_name(f"{target.stem}_probability.tif")
    if options.classes:
        files["classes"] = target.with_name(f"{target.stem}_classes.tif")
    if options.overlay:
        files["overlay"] = target.with_name(f"{target.stem}_overlay.png")
    return files


def _check_targets(targets: dict[Path, Path], options: Options) -> None:
    writer: dict[Path, Path] = {}
    inputs = {file.resolve() for file in targets}
    for file, target in targets.items():
        for what, path in outputs(target, options).items():
            if path in writer:
                raise InputError(
                    f"{writer[path]} and {file} would both be written to {path}. "
                    "Give them different names, or predict them into two folders."
                )
            writer[path] = file
            if path.resolve() in inputs:
                raise InputError(f"The {what} of {file} would replace the image {path}. Choose another --out.")
    there = [path for path in writer if path.exists()]
    if there and not options.overwrite:
        raise InputError(
            f"{len(there)} results exist already, for example {there[0]}. "
            "Pass --overwrite to replace them, or choose another --out."
        )


def _predict_file(loaded: LoadedRun, file: Path, target: Path, options: Options, say: Callable[[str], None]) -> None:
    pages = read_pages(file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predictions = [loaded.predict(page) for page in pages]
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        say(f"{file}: {text}")
    spacing_um = read_spacing_um(file)
    files = outputs(target, options)
    if options.probability:
        probability = np.stack([prediction.probability for prediction in predictions])
        write_image(files["probability"], _squeeze(probability[..., None]), spacing_um=spacing_um)
    if options.classes:
        kinds = [prediction.classes for prediction in predictions if prediction.classes is not None]
        write_labels(files["classes"], _squeeze(np.stack(kinds)), spacing_um=spacing_um)
    if options.overlay:
        _write_overlay(files["overlay"], loaded, pages, predictions)
    # The labels come last: where they are, everything of this image is there.
    write_labels(target, _squeeze(np.stack([prediction.labels for prediction in predictions])), spacing_um=spacing_um)


def _squeeze(stack: np.ndarray) -> np.ndarray:
    return stack[0] if len(stack) == 1 else stack


def _write_overlay(path: Path, loaded: LoadedRun, pages: np.ndarray, predictions: Sequence[Prediction]) -> None:
    from cellseg import figures

    middle = len(pages) // 2
    png = figures.overlay(pages[middle], predictions[middle].labels, contrast=loaded.run.experiment.data.contrast)
    with whole_file(path) as temporary:
        temporary.write_bytes(png)


def _is_fatal(error: Exception) -> bool:
    """A full disk or a read-only folder will not get better with the next file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT)
