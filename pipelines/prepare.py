"""Prepare: raw images to shards, manifest, preview and a starter experiment. The cellseg-prepare workflow.

Reading layouts lives in `pipelines.sources`, splitting in `pipelines.splits`, shard formats in `pipelines.shards`.
"""

import collections
import concurrent.futures
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipelines.advice import advise, suggest_patch
from pipelines.errors import InputError
from pipelines.files import check_free, sha256, whole_folder
from pipelines.images import contrast_limits, to_channels
from pipelines.provenance import fingerprints
from pipelines.sample import Item, Sample
from pipelines.shards import FORMATS
from pipelines.shards.manifest import NAME as MANIFEST
from pipelines.shards.manifest import SPLITS, Manifest, pixels_hash
from pipelines.sources import SOURCES
from pipelines.splits import assign, check_duplicates
from pipelines.statistics import Statistics

STARTER = "experiment.yaml"
NEW_STARTER = "experiment.new.yaml"  # where the user has edited the first
PREVIEW = "preview.png"
SHARD_BYTES = 64 * 2**20
PREVIEWS = {"train": 4, "validation": 2, "test": 2}

Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class Loaded:
    """A sample with what is measured while its pixels are at hand."""

    sample: Sample
    contrast: tuple[float, float]
    sha256: str


def prepare(
    source: Path,
    out: Path,
    *,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    name: str = "experiment",
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress = lambda items, total: items,
) -> Manifest:
    """Read a data set, split it and write it as shards; the folder appears whole or not at all.

    Args:
        source: The raw data.
        out: Folder for the shards, `manifest.json`, `preview.png` and `experiment.yaml`.
        config: The experiment's `data` and `split` sections, all keys present; stored in the manifest.
        options: Keywords of the layout's reader in `SOURCES`.
        name: Name of the starter experiment.
        seed: Seed of the starter experiment.
        workers: Processes that read images; the answer does not depend on it.
        overwrite: Replace a folder of shards.
        progress: Wraps an iterable of known length, to draw a bar.

    Raises:
        InputError: bad input; nothing is left at `out`, and what was there before is untouched.
    """
    data, split = config["data"], config["split"]
    check_free(out, marker=MANIFEST, overwrite=overwrite)
    items = SOURCES[data["layout"]](source, **options)
    splits = _assign(items, split)
    used = [(item, split_name) for split_name in SPLITS for item in items if splits[item.name] == split_name]
    manifest = Manifest(config=dict(config), format=data["format"])
    statistics = {split_name: Statistics() for split_name in SPLITS}
    previews = _Previews(splits)
    with whole_folder(out, marker=MANIFEST, overwrite=overwrite) as folder:
        load = partial(_load, **{key: data[key] for key in ("channels", "contrast", "spacing_um", "interval_s")})
        with _Shards(folder, manifest) as shards:
            loads = _loaded([item for item, _ in used], load, workers)
            for loaded, (_, split_name) in zip(progress(loads, len(used)), used, strict=True):
                _check_channels(manifest, loaded.sample)
                shards.write(loaded, split_name)
                statistics[split_name].add(loaded.sample, loaded.contrast)
                previews.add(loaded)
        _check_leaks(manifest)
        manifest.statistics = {split_name: statistics[split_name].result() for split_name in SPLITS}
        smallest = min(min(sample["shape"][:2]) for sample in manifest.samples)
        manifest.advice = advise(manifest.statistics["train"], smallest_side=smallest)
        manifest.files = fingerprints(items, source)
        previews.draw(folder / PREVIEW)
        _write_starter(folder, out, manifest, starter(manifest, source=source, name=name, seed=seed))
        manifest.write(folder)
    return manifest


def _write_starter(folder: Path, old: Path, manifest: Manifest, text: str) -> None:
    """Write the starter; an experiment that the user has edited in the folder that is replaced stays, beside it."""
    name, edited = STARTER, old / STARTER
    if edited.is_file() and (old / MANIFEST).is_file() and sha256(edited) != _starter_hash(old):
        (folder / STARTER).write_bytes(edited.read_bytes())
        name = NEW_STARTER
    (folder / name).write_text(text, encoding="utf-8")
    manifest.starter = sha256(folder / name)


def _starter_hash(folder: Path) -> str:
    try:
        return Manifest.read(folder).starter
    except InputError:  # a damaged manifest: nobody knows, so the file is kept
        return ""


def starter(manifest: Manifest, *, source: Path, name: str, seed: int) -> str:
    """Text of a commented experiment with values from the data, which cellseg-train runs untouched."""
    train = manifest.statistics["train"]
    diameter = train["object_diameter"]["0.5"] if train["object_diameter"] else None
    smallest = min(min(sample["shape"][:2]) for sample in manifest.samples)
    largest = max(max(sample["shape"][:2]) for sample in manifest.samples)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    # Flow style and JSON agree for what a configuration holds, and JSON quotes what YAML would misread.
    environment.filters["yaml"] = json.dumps
    return environment.get_template("experiment.yaml.j2").render(
        name=name,
        seed=seed,
        source=str(source.resolve()),
        config=manifest.config,
        statistics=manifest.statistics,
        advice=manifest.advice,
        channels=manifest.channels,
        smallest=smallest,
        largest=largest,
        diameter=diameter,
        patch=suggest_patch(diameter, smallest),
    )


class _Shards:
    """Writes samples to shards of about SHARD_BYTES, one split a shard, and enters them into the manifest."""

    def __init__(self, folder: Path, manifest: Manifest):
        self._folder, self._manifest = folder, manifest
        self._format = FORMATS[manifest.format]
        self._writer: Any = None
        self._bytes = 0
        self._numbers: collections.Counter[str] = collections.Counter()

    def write(self, loaded: Loaded, split: str) -> None:
        shards = self._manifest.shards
        if self._writer is None or shards[-1]["split"] != split or self._bytes >= SHARD_BYTES:
            self._close()
            file = f"{split}-{self._numbers[split]:05d}{self._format.SUFFIX}"
            self._numbers[split] += 1
            self._writer, self._bytes = self._format.Writer(self._folder / file), 0
            shards.append({"file": file, "sha256": "", "samples": 0, "split": split})
        record = _record(loaded)
        position = self._writer.write(record)
        self._bytes += sum(array.nbytes for array in record.values())
        shards[-1]["samples"] += 1
        self._manifest.samples.append(_entry(loaded, split, len(shards) - 1, position))

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            shard = self._manifest.shards[-1]
            shard["sha256"] = sha256(self._folder / shard["file"])
            self._writer = None


class _Previews:
    """Keeps a few samples of each split for the preview."""

    def __init__(self, splits: Mapping[str, str | None]):
        self._wanted: dict[str, str] = {}
        for split, count in PREVIEWS.items():
            names = [name for name, its in splits.items() if its == split]
            places = np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)
            self._wanted |= {names[place]: split for place in places}
        self._kept: list[Loaded] = []

    def add(self, loaded: Loaded) -> None:
        if loaded.sample.name in self._wanted:
            self._kept.append(loaded)

    def draw(self, path: Path) -> None:
        from pipelines.preview import contact_sheet

        contact_sheet(
            [loaded.sample for loaded in self._kept],
            path,
            limits=[loaded.contrast for loaded in self._kept],
            splits=[self._wanted[loaded.sample.name] for loaded in self._kept],
        )


def _assign(items: Sequence[Item], split: Mapping[str, Any]) -> dict[str, str | None]:
    groups = None
    if split["by"] == "image":
        # A stack or sequence stays in one split, since its pages are nearly the same picture, and so do copies of one
        # file; a copy in another file format is found after reading, and refused.
        groups = {
            item.name: sha256(item.files[0]) if item.frame is None else f"source {item.source}"
            for item in items
            if item.files
        }
    return assign(items, **{key: value for key, value in split.items() if key != "fold"}, groups=groups)


def _load(
    item: Item,
    *,
    channels: str | list[int] | None,
    contrast: tuple[float, float],
    spacing_um: tuple[float, float] | None,
    interval_s: float | None,
) -> Loaded:
    sample = item.load()
    sample = replace(
        sample,
        image=to_channels(sample.image, channels),
        spacing_um=(spacing_um[0], spacing_um[1]) if spacing_um else sample.spacing_um,
        interval_s=interval_s or sample.interval_s,
    )
    if sample.labels is None:
        raise InputError(f"{sample.name} has no labels; training needs them.")
    return Loaded(sample, contrast_limits(sample.image, *contrast), pixels_hash(sample.image))


def _loaded(items: Sequence[Item], load: Callable[[Item], Loaded], workers: int) -> Iterator[Loaded]:
    """Each item's sample, in order; with several workers, at most a few samples wait in memory."""
    if workers <= 1:
        for item in items:
            yield load(item)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with TensorFlow's threads can hang
    # Ctrl-C is the main process' business; a worker would only print a traceback.
    quiet = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=quiet) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _record(loaded: Loaded) -> dict[str, np.ndarray]:
    sample = loaded.sample
    labels = sample.labels
    assert labels is not None
    record = {
        "image": sample.image,
        "labels": labels.astype(np.min_scalar_type(int(labels.max(initial=0)))),
        "contrast": np.asarray(loaded.contrast, np.float32),
    }
    optional = {"classes": sample.classes, "weight_map": sample.weight_map, "ignore": sample.ignore}
    return record | {name: array for name, array in optional.items() if array is not None}


def _entry(loaded: Loaded, split: str, shard: int, position: int) -> dict:
    sample = loaded.sample
    assert sample.labels is not None
    entry = {
        "name": sample.name,
        "source": sample.source,
        "frame": sample.frame,
        "split": split,
        "shard": shard,
        "position": position,
        "shape": list(sample.image.shape),
        "dtype": sample.image.dtype.name,
        "contrast": list(loaded.contrast),
        "foreground_fraction": float(np.mean(sample.labels > 0)),
        "objects": len(np.unique(sample.labels[sample.labels > 0])),
        "sha256": loaded.sha256,
    }
    if sample.spacing_um is not None:
        entry["spacing_um"] = list(sample.spacing_um)
    if sample.interval_s is not None:
        entry["interval_s"] = sample.interval_s
    return entry


def _check_channels(manifest: Manifest, sample: Sample) -> None:
    if manifest.samples and sample.image.shape[2] != manifest.channels:
        raise InputError(
            f"{sample.name} has {sample.image.shape[2]} channels, but {manifest.samples[0]['name']} has "
            f"{manifest.channels}. Bring them together with data.channels: grey, rgb, or a list such as [0]."
        )


def _check_leaks(manifest: Manifest) -> None:
    # Two empty frames are equal, but nothing can be learned from one about the other.
    telling = [sample for sample in manifest.samples if sample["contrast"][0] < sample["contrast"][1]]
    check_duplicates(
        {sample["name"]: sample["split"] for sample in telling},
        {sample["name"]: sample["sha256"] for sample in telling},
    )
