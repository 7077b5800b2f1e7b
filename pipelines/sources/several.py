"""Several data-set folders of one layout as one data set.

One folder is what the readers beside this one understand; which folder an experiment means is known by
`cellseg.experiment`.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.errors import InputError
from pipelines.files import check_name
from pipelines.sample import Item, Sample


def find_all(
    reader: Callable[..., list[Item]], sources: Sequence[Path], options: Mapping[str, Any] | None = None
) -> list[Item]:
    """Items of every folder.

    Args:
        reader: Of one folder.
        sources: One folder: its items as they are. Several: each item's name, source and group begin with its
            folder's name, `A/cell01`, so that nothing of two folders is mixed up.
        options: Keywords of the reader.

    Raises:
        InputError: two folders of one name, a file whose name is no text, and what the reader refuses.
    """
    options = options or {}
    if len(sources) == 1:
        return _named(reader(sources[0], **options))
    places: dict[str, Path] = {}
    for source in sources:
        name = source.resolve().name
        if name in places:
            raise InputError(
                f"data.source: {places[name]} and {source} have the same name, '{name}', so their images could not be "
                "told apart. Rename one of the folders."
            )
        places[name] = source
    return _named([_of(folder, item) for folder, source in places.items() for item in reader(source, **options)])


def root(sources: Sequence[Path]) -> Path:
    """The folder that holds all of them: what raw files are named relative to."""
    return sources[0] if len(sources) == 1 else Path(os.path.commonpath([source.resolve() for source in sources]))


def _named(items: list[Item]) -> list[Item]:
    """The items as they are; InputError if the name of a file is no text."""
    for file in itertools.chain.from_iterable(item.files for item in items):
        check_name(file)
    return items


def _of(folder: str, item: Item) -> Item:
    changes: dict[str, Any] = {"name": f"{folder}/{item.name}", "source": _below(folder, item.source)}
    if item.group:
        changes["group"] = f"{folder}/{item.group}"
    return replace(item, load=partial(_renamed, item.load, folder), **changes)


def _renamed(load: Callable[[], Sample], folder: str) -> Sample:
    sample = load()
    return replace(sample, name=f"{folder}/{sample.name}", source=_below(folder, sample.source))


def _below(folder: str, source: str) -> str:
    return f"{folder}/{source}" if source else folder
