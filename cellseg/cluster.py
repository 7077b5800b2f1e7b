"""Prediction on the workers of a Dask cluster: a file is one task, and of an image in pieces each part is one.

The local way is `cellseg.conveyor`; connecting, order and what happens when a worker dies live in `pipelines.cluster`.
"""

import dataclasses
import functools
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellseg import stages
from cellseg.conveyor import Outcome
from cellseg.inference import LoadedRun, LowContrastWarning, load_run
from cellseg.magnification import AS_IT_IS, Magnification
from cellseg.results import Options
from cellseg.runs import DATA, EXPERIMENT, MODEL, THRESHOLD
from cellseg.views import Part
from pipelines.cluster import must_see, spread
from pipelines.errors import InputError
from pipelines.files import sha256

if TYPE_CHECKING:
    from distributed import Client

# One network a process at a time: it uses all cores by itself, and warnings are caught around it.
_NETWORK = threading.Lock()


@dataclass(frozen=True)
class Job:
    """What is the same for all files of a call.

    Args:
        runs: Run folders, absolute; several are an ensemble.
        checksums: Of what these folders hold, so that a worker which has seen other contents there loads them again.
        options: See `Options`.
        magnification: See `cellseg.inference.load_run`.
    """

    runs: tuple[str, ...]
    checksums: tuple[str, ...]
    options: Options
    magnification: Magnification = AS_IT_IS

    @classmethod
    def of(cls, runs: Sequence[Path], options: Options, magnification: Magnification = AS_IT_IS) -> "Job":
        """The job of some run folders."""
        files = [run / name for run in runs for name in (MODEL, EXPERIMENT, DATA, THRESHOLD)]
        return cls(tuple(str(run.absolute()) for run in runs), tuple(map(sha256, files)), options, magnification)


def predicted(client: "Client", files: Iterable[Path], targets: Mapping[Path, Path], job: Job) -> Iterator[Outcome]:
    """The outcome of each file, in order; results are written by the workers. See `pipelines.cluster.spread`."""
    tasks = ((file, file.absolute(), targets[file].absolute()) for file in files)
    return spread(client, functools.partial(_predict, job=job), tasks, name=lambda task: task[0])


def answered(client: "Client", parts: Iterable[Part], *, job: Job) -> Iterator[np.ndarray]:
    """The probability of each part of an image that is predicted in pieces, in order; a `cellseg.views.Helpers`."""
    return spread(client, functools.partial(_answer, job=job), _flushed(parts), name=lambda part: part.image.path)


def _flushed(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        part.image.close()  # a network file system shows others what was written when it is closed
        yield part


def _answer(part: Part, *, job: Job) -> np.ndarray:
    """On a worker: the network's part of a part."""
    must_see([part.image.path, *job.runs])
    loaded = _loaded(job)
    with _NETWORK, warnings.catch_warnings():
        warnings.simplefilter("ignore", LowContrastWarning)  # who asks has said it
        return part.answer(loaded)


def _predict(task: tuple[Path, Path, Path], *, job: Job) -> Outcome:
    """On a worker: one file from reading to its labels."""
    file, place, target = task
    must_see([place, *job.runs])
    loaded = _loaded(job)
    try:
        picture = stages.read(place, loaded=loaded)
        with _NETWORK:
            picture = stages.look(picture, loaded=loaded)
        outcome = stages.write(picture, loaded=loaded, target=target, options=job.options)
        return dataclasses.replace(outcome, file=file)
    except (InputError, OSError) as error:
        return Outcome(file, error=error)


def _loaded(job: Job) -> LoadedRun:
    """The run, loaded once a process however many threads ask."""
    with _NETWORK:
        return _load(job.runs, job.checksums, job.magnification)


@functools.lru_cache(maxsize=1)
def _load(runs: tuple[str, ...], checksums: tuple[str, ...], magnification: Magnification) -> LoadedRun:
    return load_run(list(runs), magnification)
