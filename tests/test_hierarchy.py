"""hierarchy.txt draws what cellseg-prepare reads and makes; here it is compared with the real thing."""

import fnmatch
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.dataset import Batches, ShardReader
from pipelines.patch_sheet import patch_sheet
from pipelines.prepare import prepare
from tests.datasets import (
    config,
    discs,
    picture,
    write_consep,
    write_ctc,
    write_epfl,
    write_glas,
    write_isbi,
    write_pairs,
)

TEXT = (Path(__file__).parents[1] / "hierarchy.txt").read_text()


def drawn(section):
    """Patterns of the files that a section draws, with their folders."""
    block = TEXT.split(f"== {section}")[1].split("\n==")[0].splitlines()[1:]
    patterns, folders = [], []
    for line in filter(str.strip, block):
        depth = (len(line) - len(line.lstrip())) // 4
        name = line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            patterns.append("/".join([*folders, name]))
    return patterns


def same(folder, patterns):
    """Every file is drawn, and everything drawn is there."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for file in files:
        assert any(fnmatch.fnmatch(file, pattern) for pattern in patterns), f"{file} is not drawn"
    for pattern in patterns:
        assert fnmatch.filter(files, pattern), f"{pattern} is drawn but not there"


def write_dsb2018(folder, num=6):
    for number in range(num):
        root = folder / "stage1_train" / f"id{number}"
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        labels = discs(number)
        cv2.imwrite(str(root / "images" / f"id{number}.png"), picture(labels, number))
        for cell in range(1, labels.max() + 1):
            cv2.imwrite(str(root / "masks" / f"mask{cell}.png"), ((labels == cell) * 255).astype(np.uint8))
    return folder


@pytest.mark.parametrize(
    ("layout", "write", "options", "split"),
    [
        ("pairs", write_pairs, {"images": None, "labels": None}, {"by": "image"}),
        ("ctc", write_ctc, {"truth": "silver", "sequence": None}, {"by": "block", "gap": 1}),
        ("dsb2018", write_dsb2018, {"kind": "all"}, {"by": "image"}),
        ("isbi", write_isbi, {}, {"by": "block"}),
        ("epfl", write_epfl, {}, {"by": "published"}),
        ("glas", write_glas, {}, {"by": "published"}),
        ("consep", write_consep, {}, {"by": "published"}),
    ],
)
def test_before_and_after_are_as_drawn(tmp_path, layout, write, options, split):
    source = write(tmp_path / "raw")
    same(source, drawn(f"before: layout {layout}"))
    settings = config(layout=layout, format="tfrecord", **split)
    prepare(source, tmp_path / "shards", config=settings, options=options)
    batches = Batches(ShardReader(tmp_path / "shards"), patch=32, batch_size=1)
    patch_sheet([batches.example(0)], tmp_path / "shards" / "augmented.png")
    same(tmp_path / "shards", drawn("after"))
