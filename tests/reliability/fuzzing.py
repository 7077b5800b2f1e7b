"""Fuzzing: bytes that nobody has thought of, guided by what code they reach, for whatever reads files of others.

    python -m tests.reliability.fuzzing image|tracks|manifest|yaml [--minutes 15] [--findings DIR]      (make fuzz)

Each reader may answer, or raise InputError or OSError with the file's name; anything else is a finding, as is an input
that takes more than 10 s or 2 GB. A finding is written down and the search goes on; what was found became a test in the
room that it was found in. Files that people have thought of are made in `tests.corpus`.
"""

import argparse
import contextlib
import importlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.datasets import write_shards

SECONDS, MEGABYTES, LARGEST = 10, 2048, 1 << 14
INSTRUMENTED = ["pipelines", "cellseg", "tifffile", "yaml", "PIL"]
ROOMS = ("pipelines.rasters", "pipelines.tracks", "pipelines.shards.reader", "cellseg.experiment", "cellseg.tracks")
SUFFIXES = (".tif", ".png", ".bmp", ".jpg")
TRACKS = ("1 0 9 0\n2 0 4 1\n", "", "3 0 0 0\n4 1 9 3\n5 1 9 3\n\n", "1 2 3\n", "7 5 2 0\n", "1 0 3 2\n2 4 5 1\n")

# Makes a reader that may be fed: folder for its files -> function of bytes.
Reader = Callable[[bytes], None]


def image(folder: Path) -> Reader:
    """Images, labels and calibration; windows of a raster are those of the whole image."""
    from pipelines import calibration, images, rasters
    from pipelines.errors import InputError

    def read(data: bytes) -> None:
        path = folder / f"fuzzed{SUFFIXES[data[0] % len(SUFFIXES)] if data else '.tif'}"
        path.write_bytes(data[1:])
        pages = _tried(images.read_pages, path)
        for function in (images.read_labels, images.count_pages, images.read_spacing_um, calibration.read_interval_s):
            _tried(function, path)
        with contextlib.suppress(InputError, OSError):
            raster = rasters.open_raster(path)
            window = raster.read(raster.pages - 1, slice(1, 9), slice(2, 7))
            if pages is not None:
                assert np.array_equal(window, pages[-1][1:9, 2:7], equal_nan=True), "a window is not the image's"

    return read


def tracks(folder: Path) -> Reader:
    """Tables of tracks; what was read can be written and read again."""
    from cellseg.tracks import check_span
    from pipelines.tracks import check_frame, read_tracks, write_tracks

    path, again = folder / "res_track.txt", folder / "again.txt"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        table = _tried(read_tracks, path)
        if table is None:
            return
        write_tracks(again, table)
        assert read_tracks(again) == table, "a table does not come back as it was written"
        for check in (
            lambda path: check_span(table, range(9), str(path)),
            lambda path: check_frame(table, [1, 2], 3, str(path)),
        ):
            _tried(check, path)

    return read


def manifest(folder: Path) -> Reader:
    """Manifests, and the records whose places they name."""
    from pipelines.errors import InputError
    from pipelines.shards.reader import ShardReader

    shards = write_shards(folder, 5, side=32, cells=1)

    def read(data: bytes) -> None:
        (shards / "manifest.json").write_bytes(data)
        try:
            reader = ShardReader(shards, verify=False)
        except (InputError, OSError) as error:
            assert "manifest.json" in str(error), f"a message without the file: {error}"
            return
        assert reader.manifest.channels > 0
        for sample in reader.manifest.samples:
            with contextlib.suppress(InputError, OSError):  # OSError: a shard of another name
                record = reader.read(sample)
                assert record["image"].shape == tuple(sample["shape"]), "an image is not of its shape"
                reader.window(sample, 1, 1, 8)

    return read


def yaml(folder: Path) -> Reader:
    """Experiment files; what was read can be written and read again."""
    from cellseg import experiment

    path, again = folder / "experiment.yaml", folder / "again.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        found = _tried(experiment.read, path)
        if found is not None:
            again.write_text(found.to_yaml(), encoding="utf-8")
            assert experiment.read(again) == found, "an experiment does not come back as it was written"

    return read


def image_seeds(folder: Path) -> Iterator[bytes]:
    """Small files of the corpus, each with the byte that stands for its suffix."""
    from tests.corpus import cases

    for number, case in enumerate(cases()):
        path = folder / f"seed{number}{Path(case.name).suffix.lower()}"
        if path.suffix in SUFFIXES and not case.name.startswith(
            ("bomb", "fifo", "device", "link", "folder", "comment")
        ):
            case.make(path)
            if path.stat().st_size < LARGEST:
                yield bytes([SUFFIXES.index(path.suffix)]) + path.read_bytes()


def text_seeds(folder: Path) -> Iterator[bytes]:
    """Tables of tracks."""
    yield from (text.encode() for text in TRACKS)


def manifest_seeds(folder: Path) -> Iterator[bytes]:
    """A manifest of five samples."""
    yield (write_shards(folder / "seed", 5, side=32, cells=1) / "manifest.json").read_bytes()


def yaml_seeds(folder: Path) -> Iterator[bytes]:
    """The experiments that come with the project."""
    yield from (path.read_bytes() for path in Path("experiments").glob("*.yaml"))
    yield b"name: a\ndata: {source: x, layout: pairs, contrast: [1, 1e2]}\naugment: &a [{name: flip}]\nseed: 0x1F"


READERS = {
    "image": (image, image_seeds),
    "tracks": (tracks, text_seeds),
    "manifest": (manifest, manifest_seeds),
    "yaml": (yaml, yaml_seeds),
}


def _tried(function: Callable, path: Path):
    """The function's answer, or None where it refuses the file by its name."""
    from pipelines.errors import InputError

    try:
        return function(path)
    except (InputError, OSError) as error:
        assert path.name in str(error), f"a message without the file: {error}"
        return None


class Findings:
    """Inputs that a reader stumbled over, one for each place in the code.

    Args:
        folder: Where they are written: NAME-00 and, beside it, NAME-00.txt with the traceback.
        name: Of the reader.
    """

    def __init__(self, folder: Path, name: str):
        self.places: set[tuple] = set()
        self._folder, self._name = folder, name

    def watch(self, read: Reader, data: bytes) -> None:
        """Feed a reader, and note down what it stumbles over."""
        start = time.process_time()
        try:
            read(data)
            if time.process_time() - start > SECONDS:
                raise TimeoutError(f"{time.process_time() - start:.0f} s")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = (type(error).__name__, where.filename, where.lineno)
            if place not in self.places:
                self._write(data, traceback.format_exc())
            self.places.add(place)

    def _write(self, data: bytes, text: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name}-{len(self.places):02d}"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(text)
        print(f"{path}: {text.splitlines()[-1][:200]}", file=sys.stderr, flush=True)


def fuzz(reader: str, seconds: float, folder: Path, out: Path) -> None:
    """Fuzz in this process, which libFuzzer ends: after the time, or at an input that takes too much time or memory."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        for room in ROOMS:
            importlib.import_module(room)
    findings = Findings(out, reader)
    (folder / "work").mkdir()
    read = READERS[reader][0](folder / "work")
    limits = [f"-max_total_time={seconds:.0f}", f"-timeout={3 * SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    settings = [f"-max_len={LARGEST}", f"-artifact_prefix={out}/{reader}-", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, *settings, str(folder / "seeds")], lambda data: findings.watch(read, data))
    atheris.Fuzz()


def main() -> None:
    """Fuzz one reader for some minutes; status 1 if there are findings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--findings", type=Path, default=Path("fuzzed"))
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.within:
        fuzz(options.reader, 60 * options.minutes, options.within, options.findings)
    options.findings.mkdir(parents=True, exist_ok=True)
    before, end = set(options.findings.iterdir()), time.monotonic() + 60 * options.minutes
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        folder = Path(place)
        for name in ("seeds", "raw"):
            (folder / name).mkdir()
        for number, data in enumerate(READERS[options.reader][1](folder / "raw")):
            (folder / "seeds" / f"{number:03d}").write_bytes(data)
        # What it has found to be interesting, it goes on from after an input that ended it.
        while (left := end - time.monotonic()) > 1:
            shutil.rmtree(folder / "work", ignore_errors=True)
            arguments = [options.reader, "--minutes", str(left / 60), "--findings", str(options.findings)]
            subprocess.run(
                [sys.executable, "-m", "tests.reliability.fuzzing", *arguments, "--within", place], check=False
            )
    found = sorted(path.name for path in set(options.findings.iterdir()) - before)
    print(f"{options.reader}: {options.minutes:g} minutes, findings: {', '.join(found) or 'none'}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
