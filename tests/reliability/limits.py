"""Limits: a full disk, one that refuses to write, a read-only one, few file handles, and two writers of one folder.

A script (`make kill` runs it behind the kills). It mounts small disks in memory, for which it needs to be root, or to
be allowed namespaces of its own (`unshare`). The jobs are those of `tests.reliability.kills`; a sample that needs no
rights is in `tests/end_to_end/test_kills.py`.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.reliability.commands import Commands, broken, tree
from tests.reliability.kills import JOBS, Job, Kills

LARGE = "1g"
ONE_MESSAGE = 3  # lines at most; where a training can go on, it says so in a line of its own
FILLS = ("train", "train-overwrite")  # refuse to begin on a small disk, so that is filled while they work
MANY, HANDLES = 200, 64
# Trainings, and what must see TensorFlow's own files first, may take more.
LOW = {"prepare": HANDLES, "prepare-workers": HANDLES, "train": HANDLES, "predict": HANDLES, "track": HANDLES}


class Disks(Kills):
    """As `Kills`, on a disk in memory."""

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """The folder in which jobs work is a disk of its own."""
        folder = self.folder / "same"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "none", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)

    def fresh(self, job: Job, name: str) -> Path:
        """As that of `Kills`, in a folder that may be a disk."""
        folder = self.folder / name
        if not os.path.ismount(folder):
            return super().fresh(job, name)
        things = super().fresh(job, "fresh")
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(things, folder, dirs_exist_ok=True)
        return folder

    def full(self, name: str, part: float) -> list[str]:
        """Give a job a part of the room that it needs, then all of it; what was wrong."""
        job = JOBS[name]
        expected, seconds, _ = self.undisturbed(job)
        needed = sum(path.stat().st_size for path in (self.folder / "expected").rglob("*") if path.is_file())
        with self.mounted() as folder:
            self.fresh(job, "same")
            filler = folder / "filler"
            if name not in FILLS:
                inputs = used(folder)
                remount(folder, f"size={inputs + int(part * max(needed - inputs, 65536)) + 4096}")
                status, printed = self.commands.run(folder, job.command, *job.arguments)
            else:
                self.commands.start(folder, job.command, *job.arguments)
                if not self.commands.ended(part * seconds):
                    fill(filler)
                status, printed = self.commands.status(), self.commands.printed()
            faults = message_faults(status, printed, "No space left", "MB free")
            faults += [f"torn: {one}" for one in broken(folder) if not one.startswith("filler")]
            filler.unlink(missing_ok=True)
            remount(folder, f"size={LARGE}")
            return faults + self.afterwards(job, folder, expected)

    def refused(self, name: str, most: int) -> list[str]:
        """Let no file grow beyond so many bytes: a write fails, as on a full disk, and no rights are needed."""
        job = JOBS[name]
        expected, _, _ = self.undisturbed(job)
        folder = self.fresh(job, "same")
        status, printed = self.commands.run(folder, job.command, *job.arguments, limits={"RLIMIT_FSIZE": most})
        faults = message_faults(status, printed, "File too large")
        faults += [f"torn: {one}" for one in broken(folder)]
        return faults + self.afterwards(job, folder, expected)

    def read_only(self, name: str) -> list[str]:
        """A disk that cannot be written: one message, and nothing changes."""
        job = JOBS[name]
        with self.mounted() as folder:
            before = tree(self.fresh(job, "same"))
            remount(folder, "ro")
            status, printed = self.commands.run(folder, job.command, *job.arguments)
            faults = message_faults(status, printed, "ead-only")
            return faults + ([] if tree(folder) == before else ["the folder has changed"])

    def few_handles(self, name: str, handles: int) -> list[str]:
        """Many files and few handles: the same result as with many."""
        job = JOBS[name]
        self.multiply()
        expected, _, _ = self.undisturbed(job)
        folder = self.fresh(job, "same")
        status, printed = self.commands.run(folder, job.command, *job.arguments, limits={"RLIMIT_NOFILE": handles})
        if status:
            return [f"with {handles} handles: status {status}: {printed[-800:]}"]
        return differences(tree(folder), expected)

    def multiply(self) -> None:
        """Make the data `MANY` files."""
        raw, frames = self.things / "raw", self.things / "frames"
        if (raw / "images" / "copy000.tif").exists():
            return
        import tifffile

        for sub in ("images", "labels"):
            first = tifffile.imread(min((raw / sub).glob("*.tif")))[:96, :96]
            for number in range(MANY):
                copy = first.copy()
                copy[0, 0] = number if sub == "images" else copy[0, 0]  # no two are equal
                copy[1, :2] = divmod(number, 16) if sub == "images" else copy[1, :2]
                tifffile.imwrite(raw / sub / f"copy{number:03d}.tif", copy)
        frame = tifffile.imread(frames / "t000.tif")[:96, :96]
        for path in frames.iterdir():
            path.unlink()
        for number in range(MANY):
            tifffile.imwrite(frames / f"t{number:03d}.tif", frame)

    def two_writers(self, name: str, second: Commands, delay: float) -> list[str]:
        """Start a job twice in one folder: both end well or one is refused, and the result is that of one."""
        job = JOBS[name]
        expected, seconds, _ = self.undisturbed(job)
        folder = self.fresh(job, "same")
        self.commands.start(folder, job.command, *job.arguments)
        time.sleep(delay * seconds)
        second.start(folder, job.command, *job.arguments, printed="second")
        statuses = (self.commands.status(), second.status())
        printed = (self.commands.printed(), second.printed())
        faults = [] if 0 in statuses else ["neither has succeeded"]
        for status, text in zip(statuses, printed, strict=True):
            if status:
                faults += message_faults(status, text, "Another process", "exist already", "exists already")
        return faults + differences(tree(folder), expected)

    def afterwards(self, job: Job, folder: Path, expected: dict[str, str]) -> list[str]:
        """Do a job again where it has failed."""
        again = job.arguments if job.again is None else job.again(folder)
        status, printed = self.commands.run(folder, job.command, *again)
        if status:
            return [f"again: status {status}: {printed[-800:]}"]
        return differences(tree(folder), expected)


def used(folder: Path) -> int:
    """Bytes that are used on a disk."""
    return shutil.disk_usage(folder).used


def remount(folder: Path, how: str) -> None:
    """Give a disk other options."""
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def fill(path: Path) -> None:
    """Fill a disk with one file."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(512))


def message_faults(status: int, printed: str, *expected: str) -> list[str]:
    """What is wrong with how a command has failed."""
    lines = [line for line in printed.strip().splitlines() if line.strip()]
    told = "\n        ".join(line[:300] for line in lines[-8:])
    if status != 2 or "Traceback" in printed:
        return [f"status {status}, 2 was expected: {told}"]
    if len(lines) > ONE_MESSAGE or not any(text in printed for text in expected):
        return [f"not one message with '{expected[0]}': {told}"]
    return []


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Which names differ."""
    return [
        f"differs: {name}" for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)
    ]


def cases(disks: Disks, second: Commands) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """(name, what says what was wrong) of each case."""
    for name in JOBS:
        for part in (0.05, 0.3, 0.6, 0.9):
            yield f"full disk, {name}, {part}", partial(disks.full, name, part)
    for name in JOBS:
        for most in (2000, 8000, 40_000):
            yield f"write refused, {name}, {most}", partial(disks.refused, name, most)
    for name in JOBS:
        yield f"read-only, {name}", partial(disks.read_only, name)
    for name in ("prepare", "prepare-workers", "train", "predict", "predict-track", "track"):
        for delay in (0.0, 0.3, 0.7):
            yield f"two writers, {name}, {delay}", partial(disks.two_writers, name, second, delay)
    for name, handles in LOW.items():
        yield f"few handles, {name}, {handles}", partial(disks.few_handles, name, handles)


def main() -> int:
    """Try all cases, print a line for each and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="cases whose name holds one of these texts [all]")
    parser.add_argument("--folder", type=Path, help="where to work, kept afterwards [a temporary folder]")
    given = parser.parse_args()
    if os.geteuid():
        os.execvp("unshare", ["unshare", "-rm", sys.executable, "-m", "tests.reliability.limits", *sys.argv[1:]])
    faulty = number = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        disks, second = Disks(folder), Commands()
        for name, case in cases(disks, second):
            if given.only and not any(text in name for text in given.only):
                continue
            faults = case()
            number += 1
            faulty += bool(faults)
            print(f"{name}: {'as it should be' if not faults else ''}", *faults, sep="\n    ", flush=True)
        disks.commands.close()
        second.close()
    print(f"{number} cases, {faulty} with faults")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
