"""Kills: each command is killed at random moments, then does its work again; nothing may be torn, lost or left over.

A script (`make kill`). Half of the moments are times, half are changes of names in the folder (a file opened to write,
renamed, removed): these find the narrow places between two of them. How commands are run and their files compared
lives in `tests.reliability.commands`; a sample of the same runs in `tests/end_to_end/test_kills.py`.
"""

import argparse
import difflib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.commands import ROOT, Commands, broken, tree

NUCLEI = ROOT / "experiments" / "data" / "nuclei"
TRAIN = """
name: killed
data: {source: raw, layout: pairs, format: npz}
split: {by: image, train: 0.5, validation: 0.25, test: 0.25}
model: {name: unet, padding: same, filters: 2, depth: 2, up: bilinear, batch_norm: true, dropout: 0.1}
train: {epochs: 3, steps_per_epoch: 4, batch_size: 2, patch: 64, learning_rate: 0.01, checkpoint_minutes: 0}
"""


@dataclass(frozen=True)
class Job:
    """What is killed.

    Args:
        command: Name without `cellseg-`.
        arguments: Of the first call.
        again: Given the folder as the kill has left it, the arguments of the next call.
        needs: Of the things that `make_things` makes, the names of those in the folder.
        before: Calls that come first, not killed.
        done: What a call says that finds everything done, and ends with 2.
    """

    command: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    again: Callable[[Path], tuple[str, ...]] | None = None
    before: tuple[tuple[str, ...], ...] = ()
    done: str = "exists already"


def _resumed(folder: Path) -> tuple[str, ...]:
    return ("--resume", "run") if (folder / "run").exists() else ("experiment.yaml", "--out", "run")


def _overwriting(folder: Path) -> tuple[str, ...]:
    unfinished = (folder / "run" / "backup").exists()
    return ("--resume", "run") if unfinished else ("experiment.yaml", "--out", "run", "--overwrite")


PREPARE = ("raw", "--layout", "pairs", "--out", "shards")
PREDICT = ("run", "raw/images", "--out", "labels")
SEQUENCE = ("run", "frames", "--out", "tracks", "--track", "--measure")
JOBS = {
    "prepare": Job("prepare", (*PREPARE, "--format", "npz"), ("raw",)),
    "prepare-workers": Job("prepare", (*PREPARE, "--workers", "2"), ("raw",)),
    "prepare-overwrite": Job(
        "prepare", (*PREPARE, "--overwrite"), ("raw",), before=(("prepare", *PREPARE, "data.contrast=[0, 100]"),)
    ),
    "train": Job(
        "train", ("experiment.yaml", "--out", "run"), ("raw", "experiment.yaml"), again=_resumed, done="finis"
    ),
    "train-overwrite": Job(
        "train",
        ("experiment.yaml", "--out", "run", "--overwrite"),
        ("raw", "experiment.yaml", "run", "shards"),
        again=_overwriting,
    ),
    "predict": Job(
        "predict",
        (*PREDICT, "--probability", "--overlay", "--roi", "--geojson", "--measure"),
        ("raw", "run"),
        again=lambda folder: (
            *PREDICT,
            "--probability=float32",
            "--overlay",
            "--roi",
            "--geojson",
            "--measure",
            "--resume",
        ),
    ),
    "predict-zarr": Job(
        "predict",
        (*PREDICT, "--format", "zarr", "--probability"),
        ("raw", "run"),
        again=lambda folder: (*PREDICT, "--format", "zarr", "--probability", "--resume"),
    ),
    "predict-pieces": Job(
        "predict",
        (*PREDICT, "--memory", "1MB", "--probability"),
        ("raw", "run"),
        again=lambda folder: (*PREDICT, "--memory", "1MB", "--probability", "--resume"),
    ),
    "predict-track": Job(
        "predict", SEQUENCE, ("frames", "run"), again=lambda folder: (*SEQUENCE, "--resume"), done="whole already"
    ),
    "track": Job("track", ("frame-labels", "--images", "frames", "--out", "tracks"), ("frames", "frame-labels")),
    "track-overwrite": Job(
        "track",
        ("frame-labels", "--out", "tracks", "--overwrite"),
        ("frame-labels",),
        before=(("track", "frame-labels", "--out", "tracks", "--no-report"),),
    ),
}


class Kills:
    """Kills jobs in folders below `folder`; what all of them start from is made there once."""

    def __init__(self, folder: Path, *, images: int = 8):
        self.folder, self.things = folder, folder / "things"
        self.things.mkdir(parents=True)
        self.commands = Commands()
        names = [path.name for path in sorted((NUCLEI / "images").iterdir())]
        for sub, frames in (("images", "frames"), ("labels", "frame-labels")):
            (self.things / "raw" / sub).mkdir(parents=True)
            (self.things / frames).mkdir()
            for name in names[:images]:
                shutil.copy(NUCLEI / sub / name, self.things / "raw" / sub)
            for frame in range(4):
                shutil.copy(NUCLEI / sub / names[0], self.things / frames / f"t{frame:03d}.tif")
        (self.things / "experiment.yaml").write_text(TRAIN)

    def need(self, name: str) -> None:
        """Make a run and its shards, if they are not there yet."""
        if name in ("run", "shards") and not (self.things / "run").exists():
            self.must(self.things, "train", "experiment.yaml", "--out", "run")

    def must(self, folder: Path, command: str, *arguments: str) -> None:
        """Run a command that has to succeed."""
        status, printed = self.commands.run(folder, command, *arguments)
        assert status == 0, f"cellseg-{command} {' '.join(arguments)}: {status}\n{printed}"

    def fresh(self, job: Job, name: str) -> Path:
        """A folder with what a job needs."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for thing in job.needs:
            self.need(thing)
        for thing in job.needs:
            source = self.things / thing
            copy = shutil.copy if source.is_file() else shutil.copytree
            copy(source, folder / thing)
        for command, *arguments in job.before:
            self.must(folder, command, *arguments)
        return folder

    def undisturbed(self, job: Job) -> tuple[dict[str, str], float, int]:
        """What the job makes if nobody kills it, the seconds it takes, and how many names it changes."""
        folder = self.fresh(job, "same")
        begin = time.monotonic()
        self.must(folder, job.command, *job.arguments)
        seconds = time.monotonic() - begin
        shutil.rmtree(self.folder / "expected", ignore_errors=True)
        shutil.copytree(folder, self.folder / "expected")
        return tree(folder), seconds, int(folder.with_name("same.events").read_text())

    def kill(self, job: Job, expected: dict[str, str], *, seconds: float = 0, event: int = 0) -> list[str]:
        """Kill a job at a time or before an event, do it again, and say what was wrong; nothing is best.

        The folder has the same name each time, for absolute paths stand in some of the files.
        """
        folder = self.fresh(job, "same")
        self.commands.start(folder, job.command, *job.arguments, kill_at=event)
        self.commands.kill_after(seconds or 600)
        faults = [f"lives on: process {process}" for process in self.commands.orphans()]
        faults += [f"torn: {one}" for one in broken(folder)]
        was = set(tree(folder))
        again = job.arguments if job.again is None else job.again(folder)
        status, printed = self.commands.run(folder, job.command, *again)
        if status and not (status == 2 and job.done in printed):
            return [*faults, f"again: status {status}: {printed[-600:]}", *sorted(was)]
        after = tree(folder)
        for name in sorted(after.keys() | expected.keys()):
            if name not in expected:
                faults.append(f"left over: {name}")
            elif name not in after:
                faults.append(f"missing: {name}")
            elif after[name] != expected[name]:
                faults.append(f"differs: {name}{self._difference(folder, name)}")
        return faults

    def _difference(self, folder: Path, name: str) -> str:
        """The first lines that differ, of text."""
        try:
            pair = [(place / name).read_text().splitlines() for place in (self.folder / "expected", folder)]
        except (OSError, UnicodeDecodeError):
            return ""
        lines = [line[:300] for line in difflib.unified_diff(*pair, lineterm="", n=0) if line[:2] not in ("--", "@@")]
        return "".join(f"\n        {line}" for line in lines[1:7])


def main() -> int:
    """Kill every job, print a line for each and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)}")
    parser.add_argument("--kills", type=int, default=20, help="of each kind (times, events) and job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work, kept afterwards [a temporary folder]")
    given = parser.parse_args()
    total = 0
    with tempfile.TemporaryDirectory() as temporary:
        kills = Kills((given.folder or Path(temporary)).resolve())
        for name in given.jobs or JOBS:
            rng = random.Random(f"{given.seed} {name}")
            expected, seconds, events = kills.undisturbed(JOBS[name])
            times = [{"seconds": rng.uniform(0.01, 1) * seconds} for _ in range(given.kills)]
            names = [{"event": 1 + event} for event in sorted(rng.sample(range(events), min(given.kills, events)))]
            faulty = 0
            for moment in [*times, *names]:
                faults = kills.kill(JOBS[name], expected, **moment)
                faulty += bool(faults)
                for fault in faults:
                    print(f"    {name}, {moment}: {fault}", flush=True)
            total += faulty
            count = len(times) + len(names)
            print(f"{name}: {count} kills ({seconds:.1f} s, {events} events), {faulty} with faults", flush=True)
        kills.commands.close()
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
