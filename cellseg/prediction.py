"""Prediction of files: images, stacks and folders in, label files out. The cellseg-predict workflow.

What is done to one file lives in `cellseg.stages`, how files follow one another in `cellseg.conveyor` or, on a cluster,
`cellseg.cluster`; which files the results are in `cellseg.results`; images larger than memory in `cellseg.streaming`.
"""

import contextlib
import enum
import errno
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cellseg import cluster, stages
from cellseg.conveyor import IN_FLIGHT, OWN, Outcome, conveyed
from cellseg.inference import LoadedRun, load_run
from cellseg.magnification import AS_IT_IS, Magnification
from cellseg.measured_files import measure_files
from cellseg.results import CELLS, SUFFIXES, Options, check_targets, find_inputs, missing, result_stem
from cellseg.runs import Run, members_of
from cellseg.streaming import default_memory, predict_streamed, whole_bytes
from cellseg.views import Helpers
from pipelines.cluster import connected, on_all_workers
from pipelines.errors import InputError, InterruptionError
from pipelines.files import check_name, remove_leftovers
from pipelines.prepare import Progress
from pipelines.rasters import open_raster

__all__ = ["Options", "predict_files"]

LABELS_ALONE = Options()
# Will not get better with the next file: a full disk, a folder that cannot be written.
FATAL = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOTDIR)


class Way(enum.Enum):
    """How a file is predicted, so that what is in memory at any time keeps to its bounds."""

    TOGETHER = "others are read and written meanwhile"
    ALONE = "whole, and nothing else meanwhile"
    IN_PIECES = "streamed"


def predict_files(
    run: Path | Sequence[Path],
    inputs: Sequence[Path],
    out: Path,
    *,
    options: Options = LABELS_ALONE,
    spacing_um: tuple[float, float] | None = None,
    magnification: Magnification = AS_IT_IS,
    memory: int | None = None,
    scheduler: str | None = None,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Predict every image of `inputs` and write the labels to `out`.

    Args:
        run: A finished run folder, or several whose probabilities are averaged.
        inputs: Images, stacks, or folders of them.
        out: Folder for STEM.tif (maskNNN.tif for tNNN.tif) and what `options` ask for; a run that knows classes also
            writes STEM_classes.tif, the class of the cell that each pixel lies in, and one that finds cells one by one
            STEM_scores.csv. Every TIFF has the input's pixel size.
        options: See `Options`.
        spacing_um: (row, column) pixel size to measure with; None takes that of each image, or else of the run's
            experiment.
        magnification: By what images are zoomed for the run; see `cellseg.inference.load_run`.
        memory: Bytes that images and their results may take; an image that needs more is predicted in pieces. None =
            half of what the machine has.
        scheduler: Address of a Dask scheduler whose workers do the work; they need the same file system. None = here.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user of warnings, with `keep_going` of files that failed, and with `resume` of how many are done.

    Returns:
        The files that failed; always empty without `keep_going`.

    Raises:
        InputError: no images, two inputs of the same stem, results that exist or would replace an input, results to go
            on with that were made with other options, a bad run, a folder that cannot be written, no cluster at
            `scheduler`, or without `keep_going` a file whose name is no text (before any work) or a bad file; every
            result written until then is whole.
    """
    if options.overwrite and options.resume:
        raise InputError("--resume keeps the results that exist and --overwrite replaces them. Pass one of them.")
    if options.measure and options.format != "tiff":
        raise InputError("--measure reads label TIFFs. Leave --format zarr out, or --measure.")
    given = [run] if isinstance(run, Path | str) else run
    folders = [Path(one) for each in given for one in members_of(each)]
    files, unnamed = _named(find_inputs(inputs), options, say)
    targets = {file: out / f"{result_stem(file)}{SUFFIXES[options.format]}" for file in files}
    read = [Run.read(folder) for folder in folders]
    folders = [one.folder for one in read]  # of a run in the box, its place
    magnified = [text for one in read if (text := magnification.told(one))]
    options = replace(options, classes=bool(read[0].data.get("classes")), scores=read[0].experiment.detects)
    check_targets(targets, options)
    files = list(targets)  # each once
    if options.resume:
        files = missing(targets, options, say)
    check_writable(out)
    remove_leftovers(out)
    judge = Judge(read[0], options, say)
    if files:
        for text in magnified:
            say(text)
        how = (folders, magnification, options, memory, scheduler, say)
        with contextlib.closing(_outcomes(files, targets, *how)) as outcomes:
            for outcome in progress(outcomes, len(files)):
                judge.hear(outcome)
    done = {file: target for file, target in targets.items() if file not in judge.failed}
    if options.measure and done:
        otherwise = read[0].experiment.data.spacing_um
        names = () if options.scores else read[0].data.get("classes", ())
        measure_files(
            out / CELLS, done, spacing_um=spacing_um, otherwise=otherwise, class_names=names, scores=options.scores
        )
    return [*unnamed, *judge.failed]


def _named(files: Sequence[Path], options: Options, say: Callable[[str], None]) -> tuple[list[Path], list[Path]]:
    """Files whose names are text, and the others, which are told; without `keep_going` one of them is an InputError."""
    named: list[Path] = []
    unnamed: list[Path] = []
    for file in files:
        try:
            check_name(file)
            named.append(file)
        except InputError as error:
            if not options.keep_going:
                raise
            say(str(error))
            unnamed.append(file)
    return named, unnamed


def _outcomes(
    files: Sequence[Path],
    targets: Mapping[Path, Path],
    folders: Sequence[Path],
    magnification: Magnification,
    options: Options,
    memory: int | None,
    scheduler: str | None,
    say: Callable[[str], None],
) -> Generator[Outcome, None, None]:
    """The outcome of each file, in order."""
    memory = default_memory() if memory is None else memory
    with connected(scheduler) as client:
        loaded = load_run(folders, magnification)
        job = None if client is None else cluster.Job.of(folders, options, magnification)
        for way, group in itertools.groupby(files, key=partial(_way, loaded=loaded, memory=memory)):
            if way is Way.IN_PIECES:
                helpers = partial(cluster.answered, client, job=job) if client and job else None
                for file in group:
                    yield _streamed(loaded, file, targets[file].absolute(), options, memory, say, helpers)
            elif client and job:
                yield from cluster.predicted(client, group, targets, job)
                for folder in {target.absolute().parent for target in targets.values()}:
                    on_all_workers(client, remove_leftovers, folder)  # of those that were killed
            elif way is Way.ALONE:
                for file in group:
                    yield from _in_turn(loaded, [file], targets, options)
            else:
                yield from _in_turn(loaded, group, targets, options)


def _way(file: Path, *, loaded: LoadedRun, memory: int) -> Way:
    try:
        needed = whole_bytes(open_raster(file), loaded)
    except (InputError, OSError):
        return Way.TOGETHER  # whoever reads it says what is wrong
    return Way.IN_PIECES if needed > memory else Way.ALONE if needed > memory // IN_FLIGHT else Way.TOGETHER


def _streamed(
    loaded: LoadedRun,
    file: Path,
    target: Path,
    options: Options,
    memory: int,
    say: Callable[[str], None],
    helpers: Helpers | None,
) -> Outcome:
    whole = [name for name in ("overlay", "roi", "geojson", "measure") if getattr(options, name)]
    try:
        if whole:
            raise InputError(
                f"{file} is too large for the memory that may be used, and is predicted in pieces: "
                f"--{', --'.join(whole)} need the whole image. Leave them out, or raise --memory."
            )
        predict_streamed(
            loaded,
            file,
            target,
            memory_bytes=memory,
            probability=options.probability,
            overwrite=options.overwrite or options.resume,
            say=say,
            helpers=helpers,
        )
        return Outcome(file, dtype=open_raster(file).dtype.name)
    except InterruptionError:
        raise
    except OWN as error:
        return Outcome(file, error=error)


def _in_turn(
    loaded: LoadedRun, files: Iterable[Path], targets: Mapping[Path, Path], options: Options
) -> Iterator[Outcome]:
    def write(picture: stages.Picture) -> Outcome:
        return stages.write(picture, loaded=loaded, target=targets[picture.file], options=options)

    return conveyed(
        files, read=partial(stages.read, loaded=loaded), look=partial(stages.look, loaded=loaded), write=write
    )


class Judge:
    """What is made of the outcomes: the user hears of them, a failure ends the call or is noted down."""

    def __init__(self, run: Run, options: Options, say: Callable[[str], None]):
        self.failed: list[Path] = []
        self._keep_going, self._say = options.keep_going, say
        self._contrast, self._dtypes = run.experiment.data.contrast, set(run.data.get("minimum_range", ()))

    def hear(self, outcome: Outcome) -> None:
        """Take an outcome. Raises InputError if it is a failure, unless `keep_going` is set and the next may do."""
        for text in outcome.said:
            self._say(text)
        if self._dtypes and outcome.dtype and outcome.dtype not in self._dtypes:
            low, high = self._contrast
            self._say(
                f"{outcome.file} is {outcome.dtype}, but this run was trained on {' and '.join(sorted(self._dtypes))} "
                f"images. Grey values are stretched by percentiles ({low:g} to {high:g} %) as in training, so their "
                "scale does not matter, but an image without cells is not known by its low contrast: look at the "
                "results."
            )
            self._dtypes.add(outcome.dtype)  # said once
        if outcome.error is None:
            return
        text = _text(outcome)
        if not self._keep_going or _is_fatal(outcome):
            raise InputError(text) from outcome.error
        self._say(text)
        self.failed.append(outcome.file)


def _text(outcome: Outcome) -> str:
    error = outcome.error
    text = str(error)
    if isinstance(error, MemoryError):
        text = "it does not fit into memory. Pass --memory with less than is free, and it is predicted in pieces."
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return text if str(outcome.file) in text else f"{outcome.file}: {text}"


def _is_fatal(outcome: Outcome) -> bool:
    error = outcome.error
    if not isinstance(error, OSError) or error.errno not in FATAL:
        return False
    return error.filename is None or Path(error.filename).name != outcome.file.name  # else the file alone is closed


def check_writable(out: Path) -> None:
    """Raise InputError before any work if results cannot be written to a folder, which need not be there yet."""
    check_name(out)
    place = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not place.is_dir():
        raise InputError(f"The results cannot be written to {out}: {place} is a file. Choose another --out.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"The results cannot be written to {out}: {place} is read-only. Choose another --out.")
