"""Every file of experiments/: it can be used, says how, and splits its data as docs/results.md says."""

import re
from pathlib import Path

import pytest

from cellseg import evaluation, experiment, training
from experiments.result_tables import definitions
from pipelines.sample import Item
from pipelines.splits import assign

FOLDER = Path(__file__).parents[1] / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))
HEADER = ("Command", "Data", "Time", "Score", "Source")
OF_RESULTS = ("Hardware", "Published")
RESULTS = [one["name"] for one in definitions()]  # what docs/results.md has a table of
TRIED_OTHERWISE = ("glas-unet", "glas-mask-rcnn")  # two phases; a warm-up of a whole epoch
# Positions of frames in the stack or sequence, both ends included, as docs/results.md says.
BLOCKS = {
    "isbi2012-dmcn": ((0, 16), (18, 20), (23, 29)),
    "isbi2012-unet1": ((0, 16), (18, 20), (23, 29)),
    "isbi2012-unet2": ((0, 16), (18, 20), (23, 29)),
    "isbi2012-weighted-unet": ((0, 16), (18, 20), (23, 29)),
    "isbi2012-search": ((0, 16), (18, 20), (23, 29)),
    "em-stacks-unet2015": ((0, 16), (18, 20), (23, 29)),
    "gowt1": ((0, 24), (28, 34), (37, 47)),
    "gowt1-cells": ((0, 24), (28, 34), (37, 47)),
    "gowt1-unet2015": ((0, 24), (28, 34), (37, 47)),
    "pancreatic": ((0, 139), (145, 159), (165, 199)),
    "pancreatic-cells": ((0, 139), (145, 159), (165, 199)),
}
FRAMES = {"isbi": 30, "ctc": 200}


def no_image():
    raise AssertionError("a split is made without reading images")


def split_of(one, items):
    section = one.split
    parts = {"train": section.train, "validation": section.validation, "test": section.test}
    return assign(items, by=section.by, **parts, gap=section.gap, seed=one.seed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_can_be_used(path):
    one = experiment.read(path)
    assert one.name == path.stem
    training.check(one)
    evaluation.check_section(one.evaluation)


@pytest.mark.parametrize("name", [name for name in RESULTS if name not in TRIED_OTHERWISE])
def test_results_can_be_tried_in_one_epoch(name):
    (phase,) = experiment.read(FOLDER / f"{name}.yaml", ["train.epochs=1"]).train.all_phases()
    assert training.optimizer_for(phase, steps_per_epoch=2).learning_rate is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_how_and_whence(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for key in (*HEADER, *(OF_RESULTS if path.stem in RESULTS else ())):
        assert any(re.match(rf"# {key}: +\S", line) for line in header), key
    (command,) = [line for line in header if line.startswith("# Command:")]
    if "NAME=" in command:
        assert command.rpartition("NAME=")[2].split()[0] == path.stem


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_frames(name):
    one = experiment.read(FOLDER / f"{name}.yaml")
    frames = range(FRAMES[one.data.layout])
    split = split_of(one, [Item(str(frame), no_image, "01", frame) for frame in frames])
    blocks = dict(zip(("train", "validation", "test"), BLOCKS[name], strict=True))
    for frame in frames:
        expected = [part for part, (first, last) in blocks.items() if first <= frame <= last]
        assert [split[str(frame)]] == (expected or [None])


def test_slices_of_the_mitochondria():
    one = experiment.read(FOLDER / "mitochondria.yaml")
    items = [
        Item(f"{part}/{z}", no_image, part, z, published=use)
        for part, use in (("training", "train"), ("testing", "test"))
        for z in range(24)
    ]
    split = split_of(one, items)
    of = {part: [name for name in split if split[name] == part] for part in ("train", "validation", "test")}
    assert of["train"] == [f"training/{z}" for z in range(18)]
    assert of["validation"] == [f"training/{z}" for z in range(20, 24)]
    assert of["test"] == [f"testing/{z}" for z in range(24)]


@pytest.mark.parametrize("name", ["nuclei", "dsb2018", "dsb2018-mask-rcnn"])
def test_every_fifth_nuclei_image_is_for_the_test(name):
    one = experiment.read(FOLDER / f"{name}.yaml")
    rows = [line.split(",") for line in one.split_table().read_text().splitlines()[1:]]
    assert rows == sorted(rows) and len(rows) == 90
    kinds = {0: "test", 1: "validation"}
    assert [kind for _, kind in rows] == [kinds.get(place % 5, "train") for place in range(90)]
