"""Layouts: which files of a folder belong together as one image with its truth, one reader a layout.

A reader finds `Item`s without reading pixels; decoding the files is the work of `pipelines.images`, dividing items
among train, validation and test that of `pipelines.splits`.
"""

from collections.abc import Callable

from pipelines.sample import Item
from pipelines.sources import ctc, dsb2018, pairs

SOURCES: dict[str, Callable[..., list[Item]]] = {"pairs": pairs.find, "dsb2018": dsb2018.find, "ctc": ctc.find}
