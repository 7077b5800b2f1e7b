"""Prepare: raw images to shards, manifest, preview and a starter experiment. The cellseg-prepare workflow.

Reading layouts lives in `pipelines.sources`, splitting in `pipelines.splits`, loading and augmenting copies in
`pipelines.loading`, shard formats in `pipelines.shards`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import cluster, starter
from pipelines.advice import advise
from pipelines.alignment import shift_of
from pipelines.errors import InputError
from pipelines.files import check_free, sha256, whole_folder
from pipelines.loading import Task, load, loaded, tasks
from pipelines.provenance import fingerprint, relative, unchanged
from pipelines.sample import Item, Sample
from pipelines.shards import arrays, journal, manifest
from pipelines.shards.record import Loaded, loaded_again
from pipelines.shards.writing import ShardWriter
from pipelines.sources import CLASSES, SOURCES
from pipelines.sources.several import find_all, root
from pipelines.splits import assign, check_duplicates, read_table
from pipelines.statistics import Statistics

PREVIEW = "preview.png"
PREVIEWS = {"train": 4, "validation": 2, "test": 2}

Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class Summary:
    """What was prepared: number of samples by split, number of shards, and the advice."""

    splits: dict[str, int]
    shards: int
    advice: list[str]


def prepare(
    source: Path | Sequence[Path],
    out: Path,
    *,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    table: Path | None = None,
    name: str = "experiment",
    seed: int = 0,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda items, total: items,
) -> Summary:
    """Read a data set, split it and write it as shards; the folder appears whole or not at all.

    After an interruption the next call continues behind the shards that were whole, if configuration and raw files are
    the same. Memory does not grow with the number of images but for their names.

    Args:
        source: The raw data, one folder or several of one layout.
        out: Folder for the shards, `manifest.json`, `preview.png` and `experiment.yaml`.
        config: The experiment's `data` and `split` sections, all keys present, stored in the manifest; with
            `data.expand`, also `expansion` (see `pipelines.loading.load`).
        options: Keywords of the layout's reader in `SOURCES`.
        table: For a split by a CSV, the file.
        name: Name of the starter experiment.
        seed: Seed of the starter experiment.
        workers: Processes that read images; the answer does not depend on it.
        scheduler: Address of a Dask scheduler whose workers read images instead; they need the same file system. The
            answer does not depend on it.
        overwrite: Replace a folder of shards.
        progress: Wraps an iterable of known length, to draw a bar.

    Raises:
        InputError: bad input, or no cluster; nothing is left at `out`, and what was there before is untouched.
    """
    data = config["data"]
    check_free(out, marker=manifest.NAME, overwrite=overwrite)
    sources = [source] if isinstance(source, Path) else list(source)
    if scheduler is not None:
        sources, options = _from_anywhere(sources, options)
    base = root(sources)
    items = find_all(SOURCES[data["layout"]], sources, options)
    splits = _assign(items, config["split"], table)
    wanted = tasks(items, splits, data.get("expand"))
    plan = {
        "config": manifest.config_hash(dict(config)),
        "version": manifest.VERSION,
        "tasks": journal.digest((task.item.name, task.split, task.copy) for task in wanted),
    }
    view = _View(splits)
    # The cluster first: a folder that an interrupted preparation has left is lost by an error, and kept without one.
    with (
        cluster.connected(scheduler) as client,
        whole_folder(out, marker=manifest.NAME, overwrite=overwrite, keep=journal.NAME) as folder,
    ):
        record = journal.Journal(folder, plan, lambda file, before: unchanged(base / file, before))
        read = partial(load, data=data, expansion=config.get("expansion"), root=base)
        done = record.num_samples
        with ShardWriter(folder, data["format"], record) as shards:
            for task, one in zip(wanted[:done], _stored(folder, record), strict=True):
                view.add(task, one)
            todo = wanted[done:]
            for task, one in zip(progress(todo, len(todo)), loaded(todo, read, workers, client), strict=True):
                view.add(task, one)
                shards.write(one, task.split)
        check_duplicates(splits, view.hashes)
        view.draw(folder / PREVIEW)
        statistics = {split: view.statistics[split].result() for split in manifest.SPLITS}
        classes = CLASSES.get(data["layout"], ()) if view.has_classes else ()
        advice = advise(statistics["train"], smallest_side=view.smallest, classes=classes)
        advice += _published_leaks(items, splits)
        advice += view.alignment()
        facts = starter.Facts(dict(config), statistics, advice, view.channels, view.smallest, view.largest)
        where = [str(one.resolve()) for one in sources]
        text = starter.text(
            facts,
            source=where[0] if len(where) == 1 else where,
            table=None if table is None else str(table.resolve()),
            name=name,
            seed=seed,
        )
        manifest.write(
            folder,
            record,
            config=dict(config),
            format=data["format"],
            statistics=statistics,
            advice=advice,
            classes=classes,
            starter=starter.write(folder, out, text),
            others=_unused_files(items, splits, base),
        )
        number = sum(1 for _ in record.lines())
        record.remove()
    counts = {split: sum(task.split == split for task in wanted) for split in manifest.SPLITS}
    return Summary(counts, number, advice)


def _from_anywhere(sources: Sequence[Path], options: Mapping[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    """The same places as paths that hold in any folder; a folder's name inside a source is one already."""
    inside = [key for key, value in options.items() if any((source / str(value)).exists() for source in sources)]
    moved = {
        key: value.absolute() if isinstance(value, Path) and key not in inside else value
        for key, value in options.items()
    }
    return [source.absolute() for source in sources], moved


class _View:
    """What is gathered while samples pass by: statistics, hashes, sides, and a few samples for the preview."""

    def __init__(self, splits: Mapping[str, str | None]):
        self.statistics = {split: Statistics() for split in manifest.SPLITS}
        self.hashes: dict[str, str] = {}
        self.smallest, self.largest, self.channels = np.iinfo(int).max, 0, 0
        self.has_classes = False
        self._first: Sample | None = None
        self._wanted: dict[str, str] = {}
        for split, count in PREVIEWS.items():
            names = [name for name, its in splits.items() if its == split]
            places = np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)
            self._wanted |= {names[place]: split for place in places}
        self._kept: list[Loaded] = []

    def add(self, task: Task, one: Loaded) -> None:
        """Look at a sample. Raises InputError if it does not fit to the first one."""
        self._check_alike(one.sample)
        height, width, self.channels = one.sample.image.shape
        self.smallest, self.largest = min(self.smallest, height, width), max(self.largest, height, width)
        if task.copy:
            return
        self.has_classes |= one.sample.classes is not None
        self.statistics[task.split].add(one.sample, one.contrast)
        # Two empty frames are equal, but nothing can be learned from one about the other.
        if one.contrast[0] < one.contrast[1]:
            self.hashes[task.item.name] = one.sha256[:32]
        if one.sample.name in self._wanted:
            self._kept.append(one)

    def alignment(self) -> list[str]:
        """A sentence if the truth of the preview's samples looks shifted against their images."""
        kept = (one.sample for one in self._kept)
        shift = shift_of((sample.image, sample.labels) for sample in kept if sample.labels is not None)
        return [shift.told()] if shift is not None and shift.suspicious else []

    def draw(self, path: Path) -> None:
        """Draw the preview."""
        from pipelines.preview import contact_sheet

        contact_sheet(
            [one.sample for one in self._kept],
            path,
            limits=[one.contrast for one in self._kept],
            splits=[self._wanted[one.sample.name] for one in self._kept],
        )

    def _check_alike(self, sample: Sample) -> None:
        first = self._first
        if first is None:
            # Without its pixels, which are not needed here.
            self._first = Sample(image=sample.image[:1, :1].copy(), labels=None, name=sample.name)
        elif sample.image.shape[2] != first.image.shape[2]:
            raise InputError(
                f"{sample.name} has {sample.image.shape[2]} channels, but {first.name} has {first.image.shape[2]}. "
                "Bring them together with data.channels: grey, rgb, or a list such as [0]; or take images of one kind "
                "(dsb2018: data.kind, --kind)."
            )
        elif sample.image.dtype != first.image.dtype:
            raise InputError(
                f"{sample.name} is {sample.image.dtype}, but {first.name} is {first.image.dtype}: images of different "
                "bit depth in one data set have often been rescaled by an export. Export all of them alike from the "
                "raw data, or make a data set of each kind."
            )


def _stored(folder: Path, record: journal.Journal) -> Iterator[Loaded]:
    for line in record.lines():
        for entry in line["samples"]:
            yield loaded_again(entry, arrays.read(folder / line["shard"]["file"], entry["arrays"]))


def _assign(items: Sequence[Item], split: Mapping[str, Any], table: Path | None) -> dict[str, str | None]:
    groups = None
    if split["by"] in ("image", "published"):
        # A stack or sequence stays in one split, since its pages are nearly the same picture, and so do copies of one
        # file; a copy in another file format is found after reading, and refused.
        groups = {
            item.name: sha256(item.files[0])[:32] if item.frame is None else f"source {item.source}"
            for item in items
            if item.files
        }
    settings = {key: value for key, value in split.items() if key != "file"}
    return assign(items, **settings, groups=groups, table=None if table is None else read_table(table))


def _published_leaks(items: Sequence[Item], splits: Mapping[str, str | None]) -> list[str]:
    """A sentence if groups, patients for example, lie in the training and in the test split, as published."""
    of = {
        split: {item.group for item in items if item.group and splits[item.name] == split} for split in manifest.SPLITS
    }
    shared = sorted((of["train"] | of["validation"]) & of["test"])
    if not shared:
        return []
    return [
        f"The data set's own split has images of {len(shared)} of {len(of['test'])} test groups in training, too "
        f"({', '.join(shared[:4])}{', ...' if len(shared) > 4 else ''}): scores say nothing about new patients. "
        "split.by: image keeps groups apart."
    ]


def _unused_files(items: Sequence[Item], splits: Mapping[str, str | None], base: Path) -> Iterator[tuple[str, dict]]:
    unused = itertools.chain.from_iterable(item.files for item in items if splits[item.name] is None)
    return ((relative(file, base), fingerprint(file)) for file in unused)
