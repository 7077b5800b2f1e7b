"""The package as others get it: built, installed elsewhere, every command run there, then without TensorFlow.

A script (`make test-wheel`): it makes an environment of some 3 GB for each Python. What the suite can check without one
is in `tests/test_packaging.py`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = ("prepare", "train", "predict", "track", "evaluate", "report", "search", "runs")
SHORT = ("train.epochs=1", "train.steps_per_epoch=2", "train.batch_size=1", "train.patch=64", "model.filters=4")
FOUND = """
import cellseg, pipelines, sys
from pathlib import Path
from cellseg import boxed, published
from cellseg.experiment import read
for package in (cellseg, pipelines):
    assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
for path in sorted(boxed.EXPERIMENTS.glob("*.yaml")):
    read(path.name)
assert len(read("demo").items()) == 90
assert boxed.names() == ["nuclei"], boxed.names()
assert len(published.TABLES) > 1 and all(published.read(name) for name in published.TABLES)
print(boxed.EXPERIMENTS / "data" / "nuclei")
"""
# What a command says where TensorFlow is missing and no other backend was chosen; None: it needs no network.
WITHOUT = {
    "cellseg-prepare demo.yaml --out tf-shards --format tfrecord": "TFRecord shards are written by TensorFlow",
    "cellseg-prepare demo.yaml --out npz-shards --format npz": None,
    "cellseg-train demo.yaml data.shards={here}/npz-shards data.format=npz --out other": "needs tensorflow, which is",
    "cellseg-predict nuclei {sample}/images --out other-labels": "needs tensorflow, which is",
    "cellseg-track frame-labels --out other-tracks --no-report": None,
    "cellseg-evaluate {sample}/labels labels --measure dice": None,
    "cellseg-evaluate run": "needs tensorflow, which is",
    "cellseg-report run": None,
    "cellseg-runs .": None,
    "cellseg-search isbi2012-search.yaml": "needs ",
}


class Place:
    """An environment and an empty folder, neither of which knows the checkout."""

    def __init__(self, python: str, folder: Path):
        self.bin, self.folder = folder / "env" / "bin", folder / "work"
        self.folder.mkdir(parents=True)
        self.environment = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        subprocess.run([python, "-m", "venv", str(folder / "env")], check=True)

    def run(self, *arguments: str, expected: int = 0) -> str:
        """Run a command of the environment; its output. Ends everything if its status is another."""
        done = subprocess.run(
            [str(self.bin / arguments[0]), *arguments[1:]],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != expected or "Traceback" in done.stderr:
            said = textwrap.indent(done.stdout[-2000:] + done.stderr[-4000:], "    ")
            raise SystemExit(f"{' '.join(arguments)}: status {done.returncode}, expected {expected}\n{said}")
        return done.stdout + done.stderr


def build(folder: Path, python: str) -> Path:
    """Build source distribution and, out of that, the wheel; the path of the wheel."""
    place = Place(python, folder / "builder")
    place.run("python", "-m", "pip", "install", "--quiet", "build")
    place.run("python", "-m", "build", "--outdir", str(folder / "dist"), str(ROOT))
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def check(wheel: Path, python: str, folder: Path, *, constrained: bool) -> None:
    """Install the wheel for one Python and use every command; then remove TensorFlow and do so again."""
    place = Place(python, folder)
    limits = ["--constraint", str(ROOT / "constraints.txt")] if constrained else []
    place.run("python", "-m", "pip", "install", "--quiet", *limits, str(wheel))
    place.run("python", "-m", "pip", "check")
    for name in COMMANDS:
        assert "Usage: " in place.run(f"cellseg-{name}", "--help")
        assert re.search(r"\d+\.\d+", place.run(f"cellseg-{name}", "--version"))
    sample = place.run("python", "-c", FOUND).strip().splitlines()[-1]
    place.run("cellseg-train", "demo.yaml", *SHORT, "--out", "run")
    assert (place.folder / "run" / "report.html").is_file()
    place.run("cellseg-predict", "nuclei", f"{sample}/images", "--out", "labels")
    assert len(list((place.folder / "labels").glob("*.tif"))) == 90
    scores = place.run("cellseg-evaluate", f"{sample}/labels", "labels", "--measure", "dice")
    assert float(re.search(r"dice\s+([\d.]+)", scores)[1]) > 0.9, scores  # type: ignore[index]
    assert "finished" in place.run("cellseg-runs", ".")
    (place.folder / "frames").mkdir()
    image = min(Path(sample, "images").glob("*.tif"))
    for frame in range(3):
        shutil.copy(image, place.folder / "frames" / f"t{frame:03d}.tif")
    place.run("cellseg-predict", "nuclei", "frames", "--out", "frame-labels")
    place.run("cellseg-track", "frame-labels", "--out", "tracks")
    assert (place.folder / "tracks" / "report.html").is_file()
    without_tensorflow(place, sample)


def without_tensorflow(place: Place, sample: str) -> None:
    """Remove TensorFlow; whoever needs it says so in one message, and the others go on working."""
    place.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "tensorflow")
    place.run("python", "-c", "import cellseg, pipelines, cellseg.metrics, cellseg.instances, cellseg.tracking")
    for command, told in WITHOUT.items():
        words = command.format(sample=sample, here=place.folder).split()
        said = place.run(*words, expected=0 if told is None else 2)
        assert told is None or (told in said and len(said.strip().splitlines()) <= 3), f"{command}: {said}"


def main() -> None:
    """Build once, check with each Python."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters to install it for")
    options.add_argument("--folder", type=Path, help="where to work, kept afterwards [a temporary folder]")
    options.add_argument("--unconstrained", action="store_true", help="the newest dependencies, not constraints.txt")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        wheel = build(folder, given.python[0])
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        for number, python in enumerate(given.python):
            check(wheel, python, folder / str(number), constrained=not given.unconstrained)
            version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
            print(f"{version.stdout.strip()}: every command works, and without TensorFlow says what is missing")


if __name__ == "__main__":
    main()
