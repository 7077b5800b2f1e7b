"""Bad input: every file of the corpus through prepare, predict, evaluate and track, among good files. `make bad-input`.

    python -m tests.reliability.bad_input [--only WORD ...] [--part K/N] [--json FILE]

The files are made in `tests.corpus`. A sample of the sweep stands in `tests/end_to_end/test_bad_input.py`, all files
through the readers alone in `tests/pipelines/test_corpus.py`.
"""

import argparse
import contextlib
import importlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from pipelines import images, preview
from pipelines.files import sha256
from pipelines.sources.pairs import labels_of_mask
from tests.conftest import COARSE
from tests.corpus import cases
from tests.datasets import discs, picture
from tests.odd_images import REFUSED, SIDE, SMALL, Case, scene

SECONDS, MEGABYTES = 10, 2048
# Beyond this an allocation fails, so that a file that gets so far does not take the machine with it.
FENCE = 8 * 2**30
SERVE = "--serve"


@dataclass(frozen=True)
class Answer:
    """What a command did: exit status, what it wrote to stderr, and what it took (of the processor, so that it does not
    matter who else uses the machine)."""

    status: int
    said: str
    seconds: float
    megabytes: int


Call = Callable[..., Answer]


def answer(command: str, *arguments: object) -> Answer:
    """Run a command in this process, with all that its libraries print."""
    from cellseg.cli import shell

    main = importlib.import_module(f"cellseg.cli.{command}").main
    begin, start = _memory("VmRSS", reset=True), time.process_time()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as printed, _redirected({1: printed, 2: said}):
        status = shell.run(main.command, [str(one) for one in arguments])
        sys.stderr.flush()
        said.seek(0)
        text = said.read().decode(errors="replace")
    return Answer(status, text, time.process_time() - start, _memory("VmHWM") - begin)


class Server:
    """A process that runs commands; one that takes too long is killed, and the next command gets a new one."""

    def __init__(self, warm: Callable[[Call], object] = lambda call: None):
        self._process: subprocess.Popen | None = None
        self._warm = warm

    def __call__(self, command: str, *arguments: object) -> Answer:
        if self._process is None:
            program = [sys.executable, "-m", "tests.reliability.bad_input", SERVE]
            # TensorFlow greets before anyone can stop it; what commands print they print elsewhere.
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(program, text=True, **pipes)  # type: ignore[call-overload]
            self._warm(partial(self._ask, patience=60 * SECONDS))
        # By far more than the limit: others may use the machine, too.
        return self._ask(command, *arguments, patience=12 * SECONDS)

    def _ask(self, command: str, *arguments: object, patience: float) -> Answer:
        process = self._process
        assert process and process.stdin and process.stdout
        print(json.dumps([command, *map(str, arguments)]), file=process.stdin, flush=True)
        start = time.perf_counter()
        ready, _, _ = select.select([process.stdout], [], [], patience)
        line = process.stdout.readline() if ready else ""
        if line:
            return Answer(**json.loads(line))
        self.close()
        how = f"ended with status {process.returncode}" if ready else "did not end"
        return Answer(-1, f"the process {how}", time.perf_counter() - start, 0)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def serve() -> None:
    """Answer commands, a line of JSON each, until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (FENCE, FENCE))
    preview.DPI = COARSE  # drawing takes most of a small preparation
    out = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(json.dumps(asdict(answer(*json.loads(line)))), file=out, flush=True)


# The four commands, and what must come of a case


def predict(case: Case, folder: Path, call: Call, run: Path) -> Iterator[str]:
    """The case as an image, between two good ones."""
    source, out = folder / "in", folder / "out"
    source.mkdir()
    good = _good_images(source, ("!first.tif", "~last.tif"))
    case.make(source / case.name)
    if not isinstance(case.image, str):
        images.write_image(source / "the same.tif", case.image)
    given = call("predict", run, source, "--out", out, "--keep-going")
    yield from _faults(case.name, given, case.image)
    for name, labels in good.items():
        if not (out / name).is_file() or not np.array_equal(images.read_labels(out / name), labels):
            yield f"the result of {name}, a good file, is lost"
    target = out / f"{images.image_stem(case.name)}.tif"
    if given.status == 0 and not isinstance(case.image, str):
        if not np.array_equal(images.read_labels(target), images.read_labels(out / "the same.tif")):
            yield "its cells are not those of the same pixels in a plain TIFF"
    elif given.status == 2 and target.exists():
        yield "it was refused, and has a result"


def prepare_image(case: Case, folder: Path, call: Call, run: Path) -> Iterator[str]:
    """The case as an image of a data set."""
    known = None if isinstance(case.image, str) else case.image
    shape = (1, SIDE, SIDE, 1) if known is None else known.shape
    _data_set(folder, "uint8" if known is None else known.dtype.name, shape[-1])
    case.make(folder / "images" / case.name)
    truth = np.stack([discs(99 + page, **SMALL)[: shape[1], : shape[2]] for page in range(shape[0])]).astype(np.uint16)
    tifffile.imwrite(folder / "labels" / f"{images.image_stem(case.name)}.tif", truth, photometric="minisblack")
    yield from _prepared(case, folder, call, "image", case.image)


def prepare_labels(case: Case, folder: Path, call: Call, run: Path) -> Iterator[str]:
    """The case as the truth of a data set."""
    known = None if isinstance(case.labels, str) else case.labels
    shape = (1, SIDE, SIDE) if known is None else known.shape
    _data_set(folder, "uint8", 1)
    case.make(folder / "labels" / case.name)
    image = np.stack([picture(discs(99 + page, **SMALL), page)[: shape[1], : shape[2]] for page in range(shape[0])])
    tifffile.imwrite(folder / "images" / f"{images.image_stem(case.name)}.tif", image, photometric="minisblack")
    wanted = case.labels if known is None else np.stack([labels_of_mask(page.astype(np.int32)) for page in known])
    yield from _prepared(case, folder, call, "labels", wanted)


def evaluate(case: Case, folder: Path, call: Call, run: Path) -> Iterator[str]:
    """The case as a prediction, beside a good one."""
    stem, scores = images.image_stem(case.name), folder / "scores.json"
    right = scene("uint16", top=400)[None] if isinstance(case.labels, str) else case.labels
    for name in ("truth", "prediction"):
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / "!good.tif", scene())
    case.make(folder / "prediction" / case.name)
    images.write_labels(folder / "truth" / f"{stem}.tif", right.astype(np.int64))  # labels may be floats
    given = call("evaluate", folder / "truth", folder / "prediction", "--measure", "dice", "--json", scores)
    yield from _faults(stem, given, case.labels)
    if given.status == 0:
        dice = {row["name"]: row["dice"] for row in json.loads(scores.read_text())["per_image"]}
        if dice.pop("!good") != 1:
            yield "the good file lost its score"
        if not isinstance(case.labels, str) and not set(dice.values()) <= {1.0, None}:
            yield f"its labels are not the right ones: Dice {dice}"


def track(case: Case, folder: Path, call: Call, run: Path) -> Iterator[str]:
    """The case as a frame between two good ones."""
    stem, suffix = os.path.splitext(case.name)
    shape = (1, SIDE, SIDE) if isinstance(case.labels, str) else case.labels.shape
    frames, out = folder / "frames", folder / "out"
    frames.mkdir()
    before = {}
    for number in (0, 2):
        labels = np.roll(discs(3, **SMALL), number, axis=0)[: shape[1], : shape[2]].astype(np.uint16)
        before[number] = labels > 0
        tifffile.imwrite(frames / f"{stem}_{number:03d}.tif", labels, photometric="minisblack")
    case.make(frames / f"{stem}_001{suffix}")
    wanted = REFUSED if shape[0] > 1 else case.labels
    given = call("track", frames, "--out", out, "--label-masks", "--no-fill-gaps", "--no-report")
    yield from _faults(f"{stem}_001{suffix}", given, wanted)
    if given.status == 0:
        if not (out / "mask001.tif").is_file():
            yield "its frame was passed over in silence"
            return
        after = {number: images.read_labels(out / f"mask{number:03d}.tif")[0] > 0 for number in (0, 1, 2)}
        if any(not np.array_equal(after[number], before[number]) for number in before):
            yield "the cells of a good frame are lost"
        if not isinstance(wanted, str) and not np.array_equal(after[1], wanted[0] > 0):
            yield "its cells are not the right ones"
    elif out.exists():
        yield "it was refused, and left a result folder"


STEPS = {
    "predict": predict,
    "prepare, image": prepare_image,
    "prepare, labels": prepare_labels,
    "evaluate": evaluate,
    "track": track,
}


def swept(case: Case, folder: Path, call: Call, run: Path) -> dict[str, list[str]]:
    """Faults of one case by step; no faults are an empty list."""
    found = {}
    for name, step in STEPS.items():
        place = folder / "case"
        place.mkdir(parents=True)
        found[name] = list(step(case, place, call, run))
        shutil.rmtree(place)
    return found


def known_run(folder: Path) -> Path:
    """A run that calls bright pixels of the first channel cells, whatever else the image holds."""
    from cellseg import runs
    from tests.runs import bright_pixels_run, experiment

    run = bright_pixels_run(folder)
    data = {"source": "cells", "layout": "pairs", "contrast": [0, 100], "channels": [0]}
    settings = experiment(data=data, inference={"tile": 32, "overlap": 8})
    runs.write_text(run, runs.EXPERIMENT, settings.to_yaml())
    return run


def _faults(name: str, given: Answer, wanted: np.ndarray | str) -> Iterator[str]:
    """What is wrong with an answer, whatever the command."""
    if given.status not in (0, 2) or "Traceback" in given.said:
        yield f"status {given.status}: {given.said[-600:]}"
    elif isinstance(wanted, str) and wanted == REFUSED and given.status == 0:
        yield "it was taken, and should have been refused"
    elif not isinstance(wanted, str) and given.status == 2:
        yield f"it was refused, and is right: {given.said[-600:]}"
    elif given.status == 2 and name not in given.said:
        yield f"the message does not name the file: {given.said[-600:]}"
    lines = [line for line in given.said.replace(name, "NAME").splitlines() if not line.startswith("cellseg-")]
    if given.status in (0, 2) and lines:
        yield f"somebody else prints, too: {lines[:3]}"
    if "does not fit into memory" in given.said:
        yield f"it asked for memory until there was none: {given.said[-300:]}"
    if given.seconds > SECONDS:
        yield f"it took {given.seconds:.1f} s"
    if given.megabytes > MEGABYTES:
        yield f"it took {given.megabytes} MB"


def _prepared(case: Case, folder: Path, call: Call, array: str, wanted: np.ndarray | str) -> Iterator[str]:
    from pipelines.shards.reader import ShardReader

    before = {path: sha256(path) for path in folder.glob("*/good*.tif")}
    given = call("prepare", folder, "--layout", "pairs", "--out", folder / "out", "--format", "npz", "split.by=image")
    stem = images.image_stem(case.name)
    yield from _faults(stem, given, wanted)
    if {path: sha256(path) for path in before} != before:
        yield "a raw file was changed"
    if given.status == 2 and (folder / "out").exists():
        yield "it was refused, and left shards"
    if given.status == 0 and not isinstance(wanted, str):
        reader = ShardReader(folder / "out")
        entries = [one for one in reader.manifest.samples if not one["name"].startswith("good")]
        stored = np.stack([reader.read(one)[array] for one in sorted(entries, key=lambda one: one["name"])])
        if not np.array_equal(stored, wanted):
            yield f"its {array} in the shards is not the right one"


def _data_set(folder: Path, dtype: str, channels: int) -> None:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(5):
        labels = discs(number, **SMALL)
        grey = picture(labels, number).astype(dtype)
        image = grey if channels == 1 else np.stack([grey] * channels, axis=-1)
        images.write_image(folder / "images" / f"good{number}.tif", image)
        tifffile.imwrite(folder / "labels" / f"good{number}.tif", labels.astype(np.uint16))


def _good_images(folder: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Write good images; returns the labels that the network of bright pixels finds in them."""
    found = {}
    for number, name in enumerate(names):
        labels = discs(number, **SMALL)
        tifffile.imwrite(folder / name, (200 * (labels > 0)).astype(np.uint8))
        found[name] = labels_of_mask(255 * (labels > 0).astype(np.int32))[None]
    return found


def _memory(field: str, *, reset: bool = False) -> int:
    """Of this process, in MB; `reset` forgets the peak so far."""
    if reset:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith(field))


@contextlib.contextmanager
def _redirected(places: dict[int, object]) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in places}
    files = {1: sys.stdout, 2: sys.stderr}
    try:
        for number, file in places.items():
            os.dup2(file.fileno(), number)  # type: ignore[attr-defined]
        # Where a test has replaced them, they do not write to 1 and 2.
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w") for number in (1, 2))
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        sys.stdout, sys.stderr = files[1], files[2]
        for number, file in saved.items():
            os.dup2(file, number)
            os.close(file)


def main() -> None:
    """Sweep, print the faults, and end with status 1 if there are any."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", nargs="*", default=[""], help="Cases whose name holds one of these words.")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th file, from the K-th on.")
    parser.add_argument("--json", type=Path, help="Write the faults here, too.")
    options = parser.parse_args()
    from cellseg.cli.shell import quiet_tensorflow

    quiet_tensorflow()
    chosen = [case for case in cases() if any(word in case.name for word in options.only)]
    part, parts = map(int, options.part.split("/"))
    chosen = chosen[part - 1 :: parts]
    faults: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = known_run(folder)
        (folder / "warm").mkdir()
        _good_images(folder / "warm", ("a.tif",))
        server = Server(lambda call: call("predict", run, folder / "warm", "--out", folder / "warmed", "--overwrite"))
        start = time.perf_counter()
        for number, case in enumerate(chosen):
            for step, found in swept(case, folder / "sweep", server, run).items():
                for fault in found:
                    faults.setdefault(f"{case.name!r} {step}", []).append(fault)
                    print(f"{case.name!r}, {step}: {fault}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {len(chosen)}", end="", file=sys.stderr)
        server.close()
    print(f"{len(chosen)} files, {len(chosen) * len(STEPS)} calls, {time.perf_counter() - start:.0f} s: ", end="")
    print(f"{sum(map(len, faults.values()))} faults")
    if options.json:
        options.json.write_text(json.dumps(faults, indent=1))
    sys.exit(bool(faults))


if __name__ == "__main__":
    if SERVE in sys.argv:
        serve()
    else:
        main()
