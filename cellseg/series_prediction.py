"""Series prediction: labels of every frame or section of one series, in a folder that an interrupted call goes on with.

What becomes of these labels is ordered in `cellseg.following` (tracks) and `cellseg.volumes` (objects); images that
have nothing to do with each other are predicted by `cellseg.prediction`.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cellseg import stages
from cellseg.conveyor import Outcome, conveyed
from cellseg.image_series import ImageSeries
from cellseg.inference import load_run
from cellseg.magnification import AS_IT_IS, Magnification
from cellseg.prediction import Judge, check_writable
from cellseg.results import Options, outputs
from cellseg.runs import DATA, EXPERIMENT, MODEL, THRESHOLD, Run, members_of
from pipelines.errors import InputError, InterruptionError
from pipelines.files import sha256, whole_file, whole_folder
from pipelines.images import read_labels
from pipelines.prepare import Progress

LABELS, MADE_OF = "labels", "made_of.json"
# Of `results.Options`; the two workflows make results of their own, of a whole series in memory or one frame at a time.
REFUSED = ("probability", "overlay", "roi", "geojson")
CLASSES = Options(classes=True)

Say = Callable[[str], None]


class Notes:
    """What the user is told, kept for the report."""

    def __init__(self, say: Callable[[str], None]):
        self.told: list[str] = []
        self._say = say

    def say(self, text: str) -> None:
        """Tell the user, and note it down."""
        self.told.append(text)
        self._say(text)


class PredictedSeries:
    """Labels of a series that is being predicted.

    Args:
        folder: Where the labels lie, one file a frame.
        frames: All frames of the series, ascending.
    """

    def __init__(self, folder: Path, frames: Sequence[int]):
        width = max(3, len(str(max(frames))))
        self._files = {frame: folder / f"mask{frame:0{width}d}.tif" for frame in frames}

    def file(self, frame: int) -> Path:
        """The file of a frame, whether it is there or not."""
        return self._files[frame]

    def done(self) -> list[int]:
        """Frames that have labels."""
        return [frame for frame, path in self._files.items() if path.exists()]

    def read(self, frame: int) -> np.ndarray:
        """Labels of a frame, int32 (H, W)."""
        return read_labels(self._files[frame], page=0)

    def read_classes(self, frame: int) -> np.ndarray:
        """Class of the cell that each pixel of a frame lies in, int32 (H, W); only of runs that know classes."""
        return read_labels(outputs(self._files[frame], CLASSES)["classes"], page=0)


def read_runs(run: Path | str | Sequence[Path]) -> list[Run]:
    """The run, or the runs whose probabilities are averaged. Raises InputError; the networks are not loaded."""
    given = [run] if isinstance(run, Path | str) else run
    return [Run.read(one) for each in given for one in members_of(each)]


def check_options(options: Options, what: str, others: Sequence[str] = ()) -> None:
    """Raise InputError where an option is for single images.

    Args:
        options: Of the call.
        what: The option that asks for a series, such as --track.
        others: Further options that were given and do not go with it.
    """
    refused = [f"--{name}" for name in REFUSED if getattr(options, name)]
    refused += ["--format zarr"] if options.format != "tiff" else []
    refused += others
    if refused:
        raise InputError(
            f"{what} does not go with {', '.join(refused)}, which is for images one by one. Leave that out, or call "
            f"cellseg-predict once more for it, without {what}."
        )
    if options.overwrite and options.resume:
        raise InputError("--resume keeps the results that exist and --overwrite replaces them. Pass one of them.")


@contextlib.contextmanager
def unfinished(
    out: Path,
    runs: Sequence[Run],
    images: ImageSeries,
    *,
    marker: str,
    options: Options,
    magnification: Magnification = AS_IT_IS,
) -> Iterator[tuple[Path, PredictedSeries]]:
    """The folder in which `out` is made, and its labels; `out` appears whole, with what the caller puts there.

    The labels are kept if anything goes wrong later, and a call with `options.resume` goes on with them; when all has
    gone well they are removed.

    Args:
        out: The result folder.
        runs: Whose labels they are.
        images: What they are labels of.
        marker: File that every folder of this kind holds; see `whole_folder`.
        options: `overwrite` replaces an older result and what an interrupted call has left, `resume` goes on with that.
        magnification: With which the labels are found.

    Raises:
        InputError: `out` may not be replaced, or something is left and `options` do not say what to do with it, or it
            was made by other runs, of other images or with another zoom.
    """
    check_writable(out)
    made_of = _made_of(runs, images, magnification)
    with whole_folder(out, marker=marker, overwrite=options.overwrite, keep=MADE_OF, after_errors=True) as folder:
        labels = PredictedSeries(folder / LABELS, list(images.places))
        left = len(labels.done())
        if options.overwrite:
            _remove(folder.iterdir())
        elif left and not options.resume:
            raise InterruptionError(
                f"A call that was interrupted has left the labels of {left} images of {out}. Pass --resume to go on "
                "with them, or --overwrite to begin anew."
            )
        elif left and json.loads((folder / MADE_OF).read_text()) != made_of:
            raise InterruptionError(
                f"--resume: what an interrupted call has left of {out} was made by another run, of other images or "
                "with another zoom. Pass --overwrite in its place to begin anew."
            )
        with whole_file(folder / MADE_OF) as path:
            path.write_text(json.dumps(made_of, indent=1), encoding="utf-8")
        # The work after the labels is done again.
        _remove(one for one in folder.iterdir() if one.name not in (LABELS, MADE_OF))
        try:
            yield folder, labels
        except (InputError, OSError) as error:
            if not labels.done():
                (folder / MADE_OF).unlink()
                raise
            raise InterruptionError(
                f"{error} The labels of {len(labels.done())} of {len(images)} images are kept; the same command with "
                "--resume goes on with them."
            ) from error
        shutil.rmtree(folder / LABELS, ignore_errors=True)
        (folder / MADE_OF).unlink()


def predict_series(
    runs: Sequence[Run],
    images: ImageSeries,
    labels: PredictedSeries,
    *,
    magnification: Magnification = AS_IT_IS,
    keep_going: bool = False,
    progress: Progress = lambda items, total: items,
    say: Say = lambda text: None,
) -> list[str]:
    """Predict the images that have no labels yet.

    Args:
        runs: One, or several whose probabilities are averaged.
        images: Of the series.
        labels: Where they are written; those that are there are kept.
        magnification: By what images are zoomed for the runs.
        keep_going: Pass over images that fail.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user of warnings and failures.

    Returns:
        Images that failed; always none without `keep_going`.

    Raises:
        InputError: A bad image; every label file until then is whole.
    """
    for text in filter(None, map(magnification.told, runs)):
        say(text)
    done = set(labels.done())
    todo = {Path(images.where(frame)): frame for frame in images.places if frame not in done}
    if done:
        say(f"{len(done)} of {len(images)} images have their labels already; going on with the others.")
    if not todo:
        return []
    loaded = load_run([run.folder for run in runs], magnification)
    judge = Judge(runs[0], Options(keep_going=keep_going), say)
    wanted = CLASSES if loaded.class_names else Options()

    def read(name: Path) -> stages.Picture:
        path, page = images.places[todo[name]]
        return dataclasses.replace(stages.read(path, loaded=loaded, page=page), file=name)

    def write(picture: stages.Picture) -> Outcome:
        return stages.write(picture, loaded=loaded, target=labels.file(todo[picture.file]), options=wanted)

    look = partial(stages.look, loaded=loaded)
    with contextlib.closing(conveyed(todo, read=read, look=look, write=write)) as outcomes:
        for outcome in progress(outcomes, len(todo)):
            judge.hear(outcome)
    return [str(path) for path in judge.failed]


def _made_of(runs: Sequence[Run], images: ImageSeries, magnification: Magnification) -> dict[str, Any]:
    """What decides the labels: the runs' files, their zoom, and the images by name, size and time."""
    files = [run.folder / name for run in runs for name in (MODEL, EXPERIMENT, DATA, THRESHOLD)]
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in images.files]
    return {
        "runs": [sha256(path) for path in files],
        "images": [list(state) for state in states],
        "zoom": [magnification.factor(run) for run in runs],
    }


def _remove(paths: Iterable[Path]) -> None:
    for one in list(paths):
        shutil.rmtree(one) if one.is_dir() else one.unlink()
