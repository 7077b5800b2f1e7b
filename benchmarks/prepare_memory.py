"""Peak memory and time of cellseg-prepare for 1,000 and for 10,000 images: it must not grow with their number.

Each run is a process of its own, and of its children; the images are 256x256 uint16 TIFFs with 20 cells.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import parser, report, row

SIDE = 256
FEW, MANY = 1000, 10_000


def write_images(folder: Path, number: int) -> None:
    """`number` different images and their labels."""
    import tifffile

    rng = np.random.default_rng(0)
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for cell in range(1, 21):
        row, column = rng.integers(0, SIDE, 2)
        labels[(rows - row) ** 2 + (columns - column) ** 2 < 100] = cell
    image = (3000 + 20000 * (labels > 0) + rng.normal(0, 800, labels.shape)).clip(0, 65535).astype(np.uint16)
    for index in range(number):
        image[0, :2] = divmod(index, 65536)  # no two are equal
        name = f"{index:06d}.tif"
        tifffile.imwrite(folder / "images" / name, np.roll(image, index, axis=(0, 1)))
        tifffile.imwrite(folder / "labels" / name, np.roll(labels, index, axis=(0, 1)))


def measured(source: Path, out: Path, format: str, workers: int) -> dict:
    """Seconds and peak resident MB of one cellseg-prepare."""
    arguments = [str(source), "--layout", "pairs", "--out", str(out), "--format", format, "--workers", str(workers)]
    program = (
        "import json, resource, sys, time\n"
        "from cellseg.cli import prepare, shell\n"
        "begin = time.perf_counter()\n"
        f"assert shell.run(prepare.prepare, {arguments!r}) == 0\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps({'mb': peak, 's': time.perf_counter() - begin}))\n"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measure and print."""
    options = parser(__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sources = {number: Path(folder) / str(number) for number in (FEW, MANY)}
        for number, source in sources.items():
            write_images(source, number)
        for format, workers in (("npz", 1), ("npz", 2), ("tfrecord", 1)):
            found = {}
            for number, source in sources.items():
                out = Path(folder) / "out"
                found[number] = measured(source, out, format, workers)
                subprocess.run(["rm", "-rf", out], check=True)
            label = f"{format}, {workers} worker{'s' if workers > 1 else ''}"
            rows.append(row(f"{label}: peak MB for {MANY}, peer = for {FEW}", found[MANY]["mb"], found[FEW]["mb"]))
            rates = (number / found[number]["s"] for number in (MANY, FEW))
            rows.append(row(f"{label}: images/s of {MANY}, peer = of {FEW}", *rates))
    report("cellseg-prepare: ours = 10,000 images, peer = 1,000 images", rows, options.json)


if __name__ == "__main__":
    main()
