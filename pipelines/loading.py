"""Loading: items to samples ready to be stored, by several processes or machines, the training ones also augmented.

What a layout's files are is known by `pipelines.sources`; writing is the business of `pipelines.shards`. Processes are
started by `pipelines.workers`; the cluster's own ways live in `pipelines.cluster`.
"""

import functools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import cluster
from pipelines.augment import MAPS, Augmenter
from pipelines.contrast import contrast_limits, stretch_contrast, to_channels
from pipelines.errors import InputError
from pipelines.provenance import fingerprint, relative
from pipelines.sample import Item, Sample
from pipelines.shards.manifest import SPLITS, pixels_hash
from pipelines.shards.record import Loaded
from pipelines.workers import in_order

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, slots=True)
class Task:
    """One sample to make: an item as it is (copy 0), or its n-th augmented copy."""

    item: Item
    split: str
    copy: int = 0


def tasks(items: Sequence[Item], splits: Mapping[str, str | None], expand: int | None) -> list[Task]:
    """What to load: every item of a split, and augmented copies of the training items until there are `expand`.

    Args:
        items: What a source found.
        splits: Item name -> split, or None.
        expand: Number of training samples, originals included; None = no copies.

    Returns:
        The tasks split by split, copies behind their original.

    Raises:
        InputError: there are more training items than `expand` already.
    """
    originals = sum(splits[item.name] == "train" for item in items)
    every, more = 0, 0
    if expand is not None:
        if expand < originals:
            raise InputError(
                f"data.expand is {expand}, but the training split holds {originals} images already. Give a larger "
                "number, or leave data.expand out."
            )
        every, more = divmod(expand - originals, originals)
    found, rank = [], 0
    for split in SPLITS:
        for item in items:
            if splits[item.name] == split:
                copies = every + (rank < more) if split == "train" else 0
                rank += split == "train"
                found += [Task(item, split, copy) for copy in range(1 + copies)]
    return found


def load(task: Task, *, data: Mapping[str, Any], expansion: Mapping[str, Any] | None, root: Path) -> Loaded:
    """Read one sample.

    Args:
        task: Which.
        data: The experiment's data section: channels, contrast, spacing_um and interval_s are read.
        expansion: How copies are made: {"augment": steps of an `Augmenter`, "seed": int}.
        root: What the raw files are named relative to.

    Raises:
        InputError: whatever is wrong with the files.
    """
    sample = task.item.load()
    spacing = data["spacing_um"]
    sample = replace(
        sample,
        image=to_channels(sample.image, data["channels"]),
        spacing_um=(spacing[0], spacing[1]) if spacing else sample.spacing_um,
        interval_s=data["interval_s"] or sample.interval_s,
    )
    if sample.labels is None:
        raise InputError(f"{sample.name} has no labels; training needs them.")
    limits = contrast_limits(sample.image, *data["contrast"])
    if task.copy:
        assert expansion is not None
        sample = augmented(sample, limits, task.copy, steps=expansion["augment"], seed=expansion["seed"])
    files = {relative(file, root): fingerprint(file) for file in task.item.files}
    return Loaded(sample, limits, pixels_hash(sample.image), files)


def augmented(
    sample: Sample, limits: tuple[float, float], copy: int, *, steps: Sequence[Mapping[str, Any]], seed: int
) -> Sample:
    """The `copy`-th augmented copy of a sample, named `NAME+0001`; the same for the same seed, name and number.

    The transforms see the image in [0, 1], as in training; the answer is brought back to the file's grey values and
    dtype, clipped to its contrast limits.
    """
    rng = np.random.default_rng([seed, copy, zlib.crc32(sample.name.encode())])
    image = stretch_contrast(sample.image, limits=limits)
    maps: dict[str, Any] = {name: getattr(sample, name) for name in MAPS if getattr(sample, name) is not None}
    image, moved = _augmenter(json.dumps(list(steps)))(image, maps, rng=rng)
    changes: dict[str, Any] = {**moved}
    low, high = limits
    grey = np.clip(image, 0, 1) * (high - low) + low
    grey = np.rint(grey) if sample.image.dtype.kind == "u" else grey
    return replace(sample, image=grey.astype(sample.image.dtype), name=f"{sample.name}+{copy:04d}", **changes)


@functools.lru_cache(maxsize=1)
def _augmenter(steps: str) -> Augmenter:
    return Augmenter(json.loads(steps))


def _load_there(task: Task, *, load: Callable[[Task], Loaded]) -> Loaded:
    cluster.must_see(task.item.files)
    return load(task)


def _name(task: Task) -> str:
    return task.item.name


def loaded(
    wanted: Sequence[Task], load: Callable[[Task], Loaded], workers: int, client: "Client | None" = None
) -> Iterator[Loaded]:
    """Each task's sample, in order; with several workers, at most a few samples wait in memory.

    Args:
        wanted: What to load.
        load: See `load`; picklable.
        workers: Processes on this machine.
        client: Of a cluster whose workers load instead; see `pipelines.cluster`.
    """
    if client is not None:
        yield from cluster.spread(client, functools.partial(_load_there, load=load), wanted, name=_name)
        return
    yield from in_order(load, wanted, workers)
