"""Layouts: which files of a folder belong together as one image with its truth, one reader a layout.

A reader finds `Item`s without reading pixels; decoding the files is the work of `pipelines.images`, dividing items
among train, validation and test that of `pipelines.splits`.
"""

from collections.abc import Callable

from pipelines.sample import Item
from pipelines.sources import consep, ctc, dsb2018, epfl, glas, isbi, pairs

SOURCES: dict[str, Callable[..., list[Item]]] = {
    "pairs": pairs.find,
    "ctc": ctc.find,
    "isbi": isbi.find,
    "epfl": epfl.find,
    "glas": glas.find,
    "dsb2018": dsb2018.find,
    "consep": consep.find,
}

# Names of the classes of a layout whose samples have `classes`, class 1 first.
CLASSES: dict[str, tuple[str, ...]] = {"glas": glas.CLASSES, "consep": consep.CLASSES}
