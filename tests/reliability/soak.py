"""Soak: long work with a look at memory and file handles all along, which must stay flat.

A script (`make soak`): 3,000 steps of training, 2,000 predicted images, 50,000 prepared ones; `--scale 0.1` is a tenth
of each. Peak memory of preparing, and its rate, are measured in `benchmarks/prepare_memory.py`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.reliability.commands import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import prepare_memory

NUCLEI = ROOT / "experiments" / "data" / "nuclei"
STEPS, PREDICTED, PREPARED = 3000, 2000, 50_000
EPOCH = 50  # steps
INTERVAL_S = 0.5
POINTS = 10  # of the printed curve
# Of memory between the second and the last fifth of the time: what a name and a few numbers for each item may take, and
# what the allocator may keep.
GROWTH_MB, GROWTH_PART = 20, 0.05
BYTES_AN_ITEM = {"train": 0, "predict": 500, "prepare": 2500}
TRAIN = """
name: soak
data: {{source: raw, layout: pairs, format: npz}}
split: {{by: image, train: 0.8, validation: 0.1, test: 0.1}}
augment: [{{name: HorizontalFlip, p: 0.5}}, {{name: RandomGamma, p: 0.5}}]
model: {{name: unet, padding: same, filters: 8, depth: 3, up: bilinear, batch_norm: true}}
train: {{epochs: {epochs}, steps_per_epoch: {steps}, batch_size: 4, patch: 64, checkpoint_minutes: 0.5}}
"""


@dataclass(frozen=True)
class Look:
    """What a process holds at a moment: seconds since its start, resident MB and open files, its children's as well."""

    seconds: float
    megabytes: float
    handles: int


def watched(*arguments: str, folder: Path) -> list[Look]:
    """Run a command in a folder and look at it all along. Ends everything if it fails."""
    program = f"from cellseg.cli.{arguments[0]} import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    begin, looks = time.monotonic(), []
    with open(folder / "printed.txt", "wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments[1:]],
            cwd=folder,
            env=environment,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            looks.append(Look(time.monotonic() - begin, *_held(process.pid)))
            time.sleep(INTERVAL_S)
    if process.returncode:
        raise SystemExit((folder / "printed.txt").read_text()[-4000:])
    return looks[:-1]  # the last may have seen it end


def _held(process: int) -> tuple[float, int]:
    megabytes, handles = 0.0, 0
    for one in _family(process):
        try:
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
            handles += len(os.listdir(f"/proc/{one}/fd"))
        except (OSError, IndexError):  # it has just ended
            continue
        megabytes += pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return megabytes, handles


def _family(process: int) -> Iterator[int]:
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def verdict(name: str, looks: list[Look], items: int) -> bool:
    """Print the curve and whether it is flat."""
    if len(looks) < 2 * POINTS:
        raise SystemExit(f"{name}: it was over in {len(looks)} looks. Take a larger --scale.")
    memory, handles = (np.array([getattr(look, what) for look in looks]) for what in ("megabytes", "handles"))
    print(f"{name}: {looks[-1].seconds:.0f} s")
    for part in np.array_split(np.arange(len(looks)), POINTS):
        print(
            f"    {looks[part[-1]].seconds:8.0f} s {np.median(memory[part]):8.0f} MB {handles[part].max():6d} handles"
        )
    fifths = np.array_split(np.arange(len(looks)), 5)
    before, after = (float(np.median(memory[fifth])) for fifth in (fifths[1], fifths[4]))
    allowed = max(GROWTH_MB, GROWTH_PART * before) + BYTES_AN_ITEM[name.split()[0]] * items / 1e6
    more = int(handles[fifths[4]].max() - handles[fifths[1]].max())
    flat = after - before <= allowed and more <= 2
    told = f"{after - before:+.0f} MB (allowed {allowed:.0f}), {more:+d} handles"
    print(f"    from the second fifth to the last: {told}: {'flat' if flat else 'NOT FLAT'}", flush=True)
    return flat


def train(folder: Path, scale: float) -> bool:
    """A training of many steps, with validation, checkpoints and the dashboard's files."""
    for sub in ("images", "labels"):
        (folder / "raw" / sub).mkdir(parents=True)
        for path in sorted((NUCLEI / sub).glob("*.tif"))[:30]:
            shutil.copy(path, folder / "raw" / sub)
    steps = int(STEPS * scale)
    epochs = max(2, steps // EPOCH)
    (folder / "experiment.yaml").write_text(TRAIN.format(epochs=epochs, steps=steps // epochs))
    return verdict(f"train {steps} steps", watched("train", "experiment.yaml", "--out", "run", folder=folder), steps)


def predict(folder: Path, scale: float) -> bool:
    """Many images, of several sizes, through the run in the box."""
    (folder / "many").mkdir(parents=True)
    known, number = sorted((NUCLEI / "images").glob("*.tif")), int(PREDICTED * scale)
    for place in range(number):
        os.symlink(known[place % len(known)], folder / "many" / f"{place:05d}.tif")
    looks = watched("predict", "nuclei", "many", "--out", "labels", "--overlay", "--measure", folder=folder)
    return verdict(f"predict {number} images", looks, number)


def prepare(folder: Path, scale: float) -> bool:
    """Many small images to shards."""
    number = int(PREPARED * scale)
    prepare_memory.SIDE = 64
    prepare_memory.write_images(folder / "raw", number)
    arguments = ("raw", "--layout", "pairs", "--out", "shards", "--format", "npz")
    looks = watched("prepare", *arguments, folder=folder)
    return verdict(f"prepare {number} images", looks, number)


LONG: dict[str, Callable[[Path, float], bool]] = {"train": train, "predict": predict, "prepare": prepare}


def main() -> int:
    """Do them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(LONG)} [all]")
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    flat = True
    for name in given.only or LONG:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).mkdir()
            flat &= LONG[name](Path(folder) / name, given.scale)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
