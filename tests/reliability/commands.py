"""Commands of cellseg as real processes that can be killed, and a look at the files that they leave.

A process of its own for each command would load TensorFlow again: they are forks of one that has imported it, but not
used it. What is killed when is decided in `tests.reliability.kills`.
"""

import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

ROOT = Path(__file__).parents[2]
# Reads a JSON object from each line (`Commands.start` makes it), runs that command in a fork, and prints the fork's
# id and exit status. A change is counted where a name in the folder is opened to write, renamed, removed or made.
PARENT = """
import importlib, json, os, resource, signal, sys
import albumentations, cv2, keras, matplotlib.pyplot, pandas, scipy.ndimage, skimage.measure, tensorboard, tensorflow
import roifile, trimesh, zarr
from cellseg import evaluation, report, training, tuning, workflow, prediction, following, volumes, streaming
from cellseg.cli import shell, train, predict, prepare, track

def watch(folder, kill_at):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event == "open":
            path, mode, flags = arguments
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            path, changes = arguments[0], True
        else:
            return
        if not changes or not isinstance(path, str | bytes | os.PathLike) or os.getpid() != own:
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(folder):
            return
        seen += 1
        if seen == kill_at:
            os.kill(own, signal.SIGKILL)
    own = os.getpid()
    sys.addaudithook(hook)
    return lambda: seen

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(job["folder"])
        printed = os.open(job["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        kinds = {getattr(resource, name): value for name, value in job["limits"].items()}
        hard = {kind: resource.getrlimit(kind)[1] for kind in kinds}
        for kind, value in kinds.items():
            resource.setrlimit(kind, (value, hard[kind]))
        count = watch(job["folder"], job["kill_at"])
        module = importlib.import_module("cellseg.cli." + job["command"])
        status = shell.run(module.main.command, job["arguments"])
        for kind in kinds:
            resource.setrlimit(kind, (hard[kind], hard[kind]))
        with open(job["folder"] + ".events", "w") as file:
            file.write(str(count()))
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# Differ between two runs of the same command: times, machines, addresses in memory, and that one was resumed. None: all
# of the file.
DIFFERENT = {
    r"environment\.txt|reproduce\.txt|changes\.diff|events\.out\.tfevents\..*": None,
    r"report\.html": rb"(?s)<pre>date: .*?</pre>|Training took [\d.]+ \w+|\d{4}-\d\d-\d\d \d\d:\d\d( [+-]\d{4})?"
    rb'|<section class="told" role="note">\s*<ul>\s*<li>[^<]* have their labels already[^<]*</li>\s*</ul>\s*</section>',
    r"data\.json": rb'"(training_minutes|peak_memory_mb)": [\d.]+',
    r"export\.json": rb'"model": "\w+"',
    r"config\.json": rb'"shared_object_id": \d+',
}
UNORDERED = ("report.html", "warnings.json")  # what a resumed training says may come in another order


class Commands:
    """Starts commands, one after the other."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._process, self._printed = 0, Path()

    def start(
        self,
        folder: Path,
        command: str,
        *arguments: str,
        kill_at: int = 0,
        limits: dict[str, int] | None = None,
        printed: str = "printed",
    ) -> int:
        """Start one in `folder`; its process id.

        Args:
            folder: Where; what it prints goes beside it, to FOLDER.printed, and the number of its changes to
                FOLDER.events.
            command: Name without `cellseg-`.
            arguments: Of the command.
            kill_at: It dies before its so-many-th change of a name in the folder; 0 = never.
            limits: Of `resource`, by name.
            printed: The ending in place of that, for a second command in the same folder.
        """
        self._printed = folder.with_name(f"{folder.name}.{printed}")
        job = {"command": command, "arguments": list(map(str, arguments)), "folder": str(folder)}
        job |= {"kill_at": kill_at, "limits": limits or {}, "printed": str(self._printed)}
        self._parent.stdin.write(json.dumps(job).encode() + b"\n")
        self._process = int(self._parent.stdout.readline())
        return self._process

    def ended(self, within: float) -> bool:
        """Whether it ends in so many seconds."""
        return bool(select.select([self._parent.stdout], [], [], within)[0])

    def status(self) -> int:
        """Exit status of the one under way, when it has ended."""
        return int(self._parent.stdout.readline())

    def run(self, folder: Path, command: str, *arguments: str, **options: Any) -> tuple[int, str]:
        """Start one and wait: its exit status and what it printed."""
        self.start(folder, command, *arguments, **options)
        return self.status(), self.printed()

    def kill_after(self, seconds: float) -> bool:
        """Kill the one under way after some time; False: it has ended before."""
        if self.ended(seconds):
            return self.status() == -signal.SIGKILL
        os.kill(self._process, signal.SIGKILL)
        return self.status() == -signal.SIGKILL

    def printed(self) -> str:
        """What the last one has printed."""
        return self._printed.read_text(errors="replace") if self._printed.exists() else ""

    def orphans(self, within: float = 5.0) -> list[int]:
        """Processes that the last one has started and that live on, after they had some seconds to notice."""
        end = time.monotonic() + within
        while (left := _of_session(self._process)) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def close(self) -> None:
        """End them all."""
        self._parent.kill()  # none is under way; leaving TensorFlow in peace takes seconds
        self._parent.wait()
        for pipe in (self._parent.stdin, self._parent.stdout):
            pipe.close()


def _of_session(leader: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def tree(folder: Path) -> dict[str, str]:
    """What lies in a folder, hidden files too: name -> hash of the content, without what differs between two runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[f"{name}/"] = ""
        else:
            name = re.sub(r"tfevents\.[^/]*", "tfevents", name)
            found[name] = _hash(path)
    return found


def _hash(path: Path) -> str:
    if path.suffix != ".keras":
        return hashlib.sha256(_same(path.name, path.read_bytes())).hexdigest()
    with zipfile.ZipFile(path) as archive:  # metadata.json holds the date
        names = sorted(set(archive.namelist()) - {"metadata.json"})
        return hashlib.sha256(b"".join(_same(name, archive.read(name)) for name in names)).hexdigest()


def _same(name: str, content: bytes) -> bytes:
    for pattern, different in DIFFERENT.items():
        if re.fullmatch(pattern, name):
            content = b"" if different is None else re.sub(different, b"", content)
    return b"\n".join(sorted(re.split(rb",?\n|(?=<)", content))) if name in UNORDERED else content


def broken(folder: Path) -> list[str]:
    """Files under their final names that are not whole: everything but what is hidden or in a training's backup."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or any(part.startswith(".") or part == "backup" for part in parts):
            continue
        try:
            _read(path)
        except Exception as error:  # whatever a reader says of half a file
            found.append(f"{path.relative_to(folder)}: {type(error).__name__} {error}")
    return found


def _read(path: Path) -> None:
    kind, text = path.suffix, lambda: path.read_text(encoding="utf-8")
    if kind in (".tif", ".tiff"):
        tifffile.imread(path)
    elif kind == ".json":
        json.loads(text())
    elif kind == ".yaml":
        yaml.safe_load(text())
    elif kind == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays:
                arrays[name].sum()
    elif kind in (".keras", ".zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    elif kind == ".png":
        assert path.read_bytes()[-8:-4] == b"IEND"
    elif kind == ".html":
        assert text().rstrip().endswith("</html>")
    elif kind == ".csv":
        lines = text().splitlines()
        assert lines and text().endswith("\n") and len({line.count(",") for line in lines[-2:]}) == 1
    elif kind in (".txt", ".geojson"):
        assert text()
