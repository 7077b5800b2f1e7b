"""Preparation: the folder of shards that belongs to an experiment, made or found fit for use.

Making it is the work of `pipelines.prepare`; what happens with the shards then is ordered in `cellseg.workflow`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellseg.experiment import Experiment
from cellseg.named import check_options, weight_map_function
from pipelines.augment import Augmenter
from pipelines.errors import InputError
from pipelines.prepare import Progress, Summary, prepare
from pipelines.provenance import changes
from pipelines.shards.manifest import NAME as MANIFEST
from pipelines.shards.manifest import Manifest
from pipelines.sources.several import root
from pipelines.targets import TARGETS

FRAME_GAP = 2  # frames left out between blocks where the YAML says nothing


class Prepared(NamedTuple):
    """A folder of shards that may be used: the experiment with its kind of split settled, the folder, its content."""

    experiment: Experiment
    folder: Path
    summary: Summary


def check_sections(experiment: Experiment) -> None:
    """Check the target, augment and weight_map sections before any work is done. Raises InputError."""
    named = {"name": experiment.target} if isinstance(experiment.target, str) else experiment.target
    options = check_options(TARGETS, named, key="target", given=("num_classes",))
    if options.get("width", 1) < 1:
        raise InputError(f"target.width must be at least 1 pixel, got {options['width']}.")
    if experiment.data.expand is not None and not experiment.augment:
        raise InputError(
            "data.expand adds augmented copies, but the augment section is empty: they would be copies of the images "
            "as they are. Give augment some steps, or leave data.expand out."
        )
    _check_augmentation(experiment)
    weight_map = weight_map_function(experiment.weight_map)
    if weight_map is not None:
        try:
            weight_map(np.zeros((8, 8), np.int32))
        except ValueError as error:
            raise InputError(f"weight_map: {error}") from error


def _check_augmentation(experiment: Experiment) -> None:
    patch = experiment.train.patch
    augmenter = Augmenter(experiment.augment)

    def answer(side: int, channels: int = 1) -> tuple[int, ...]:
        image, labels = np.zeros((side, side, channels), np.float32), np.zeros((side, side), np.int32)
        try:
            return augmenter(image, {"labels": labels}, rng=np.random.default_rng(0))[0].shape[:2]
        except InputError:
            if channels == 3:
                raise
            return answer(side, channels=3)  # some transforms are for colours alone, and these may be there

    if not augmenter.resizes:
        answer(min(patch, 64))
    # What depends on the size of the images is tried when that is known (`pipelines.dataset`).
    elif (size := answer(2 * patch)) == answer(3 * patch) != (patch, patch):
        raise InputError(
            f"augment: the steps make {size[0]}x{size[1]} pixels of any image, but train.patch is {patch}. End them "
            f"with a crop or resize to {patch}x{patch}, or set train.patch."
        )


def ensure_shards(
    experiment: Experiment,
    *,
    overwrite: bool = False,
    anew: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress = lambda items, total: items,
) -> Prepared:
    """The experiment's folder of shards, prepared if it is not there.

    Args:
        experiment: Its data and split sections are read.
        overwrite: Prepare again where the shards are damaged, of another configuration or of other raw files.
        anew: Prepare again in any case (with `overwrite`), or refuse a folder that is there (without).
        workers: Processes that read images.
        scheduler: Address of a Dask scheduler whose workers read images instead.
        progress: Wraps an iterable of known length, to draw a bar.

    Returns:
        The experiment with its kind of split settled, the folder, and what is in it.

    Raises:
        InputError: what is there may not be used and `overwrite` is not set, or the data is bad.
    """
    check_sections(experiment)
    folder = experiment.shards()
    experiment = _settled(experiment, folder)
    if (folder / MANIFEST).is_file() and not anew:
        try:
            return Prepared(experiment, folder, _check_shards(experiment, folder))
        except InputError:
            if not overwrite:
                raise
    summary = prepare(
        experiment.sources(),
        folder,
        config=experiment.data_config(),
        options=experiment.data.options(),
        table=experiment.split_table(),
        name=experiment.name,
        seed=experiment.seed,
        workers=workers,
        scheduler=scheduler,
        overwrite=overwrite,
        progress=progress,
    )
    return Prepared(experiment, folder, summary)


def _settled(experiment: Experiment, folder: Path) -> Experiment:
    """Choose the kind of split where the YAML leaves it open: neighbouring frames must not lie in two splits."""
    if experiment.split.by is not None:
        return experiment
    if experiment.split.file is not None:
        update: dict = {"by": "csv"}
    elif (folder / MANIFEST).is_file() and not source_there(experiment):
        stored = Manifest.read(folder).config["split"]
        update = {"by": stored["by"], "gap": stored["gap"]}
    else:
        items = experiment.items()
        framed = any(item.frame is not None for item in items)
        published = {"train", "test"} <= {item.published for item in items}
        by = "published" if published else "block" if framed else "image"
        update = {"by": by, "gap": max(experiment.split.gap, FRAME_GAP) if framed else experiment.split.gap}
    return experiment.model_copy(update={"split": experiment.split.model_copy(update=update)})


def _check_shards(experiment: Experiment, folder: Path) -> Summary:
    """What is in the folder.

    Raises:
        InputError: The shards are damaged, of another configuration or of raw files that have changed.
    """
    manifest = Manifest.read(folder)
    manifest.check_config(experiment.data_config(), folder)
    manifest.verify(folder)
    summary = Summary({name: len(of) for name, of in manifest.splits.items()}, len(manifest.shards), manifest.advice)
    if not source_there(experiment):  # the shards are enough to train
        return summary
    different = changes(manifest.files, experiment.items(), root(experiment.sources()))
    if different:
        raise InputError(
            f"The raw data in {_listed(experiment.sources())} is not what the shards in {folder} were made "
            f"from ({different}). Pass --overwrite to prepare them again, or set data.shards to another folder."
        )
    return summary


def source_there(experiment: Experiment) -> bool:
    """Whether the raw data is here; shards are enough to train."""
    try:
        return bool(experiment.sources())
    except FileNotFoundError:
        return False


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
