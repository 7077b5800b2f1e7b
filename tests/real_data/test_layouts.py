"""The readers on the real data sets below CELLSEG_DATA; they may not be shipped, so this group runs where they are."""

import collections
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.sources import SOURCES

ROOT = Path(os.environ.get("CELLSEG_DATA", "nowhere"))

# Images of each part and grade, as counted in Grade.csv.
GLANDS = {
    ("train", "train", "benign"): 19,
    ("train", "train", "malignant"): 29,
    ("testA", "test", "benign"): 12,
    ("testA", "test", "malignant"): 8,
    ("testB", "test", "benign"): 3,
    ("testB", "test", "malignant"): 7,
}

pytestmark = pytest.mark.real_data


def load(items):
    return [item.load() for item in items]


def num_cells(samples, one_class=None):
    """Cells of all samples, those of one class alone if one is given."""
    cells = [one.labels if one_class is None else one.labels * (one.classes == one_class) for one in samples]
    return sum(len(np.unique(labels[labels > 0])) for labels in cells)


@pytest.fixture
def data(request):
    folder = ROOT / request.param
    if not folder.exists():
        pytest.skip(f"CELLSEG_DATA holds no {request.param}")
    return folder


@pytest.mark.parametrize("data", ["PhC-C2DL-PSC"], indirect=True)
def test_pancreatic_stem_cells(data):
    items = SOURCES["ctc"](data, truth="silver", sequence="01")
    assert len(items) == 200 and items[0].name == "01/t000"
    counts = [len(np.unique(items[frame].load().labels)) - 1 for frame in (0, 199)]
    assert counts == [74, 274]
    # Loading the markers checks each frame against man_track.txt.
    markers = SOURCES["ctc"](data, truth="markers", sequence="01")
    assert [sample.frame for sample in load(markers)] == list(range(200))


@pytest.mark.parametrize("data", ["Fluo-N2DH-GOWT1"], indirect=True)
def test_mouse_stem_cells(data):
    items = SOURCES["ctc"](data, truth="gold", sequence="01")
    markers = SOURCES["ctc"](data, truth="markers", sequence="01")
    assert 0 < len(items) < len(markers) == 60
    samples = load(items)
    assert samples[0].image.shape == (1024, 1024, 1)
    assert [sample.frame for sample in load(markers)] == list(range(60))
    # Gold truth outlines 144 of the cells; the others' surroundings are a good tenth of all pixels.
    assert num_cells(samples) == 144
    ignored = [0.0 if sample.ignore is None else sample.ignore.mean() for sample in samples]
    assert np.mean(ignored) == pytest.approx(0.113, abs=5e-4)
    assert sum(share > 0 for share in ignored) == 26
    for sample in samples:
        assert sample.ignore is None or not (sample.ignore & (sample.labels > 0)).any()


@pytest.mark.parametrize("data", ["isbi2012"], indirect=True)
def test_neuron_membranes(data):
    samples = load(SOURCES["isbi"](data))
    assert [sample.frame for sample in samples] == list(range(30))
    assert {(sample.image.shape, sample.spacing_um) for sample in samples} == {((512, 512, 1), (0.004, 0.004))}
    assert np.mean([sample.labels > 0 for sample in samples]) == pytest.approx(0.780, abs=5e-4)
    # With 8 neighbours it would be 3413: cells merge through corners of the membranes.
    assert num_cells(samples) == 3431


@pytest.mark.parametrize("data", ["lucchi-plus-plus"], indirect=True)
def test_mitochondria(data):
    items = SOURCES["epfl"](data)
    assert [(item.source, item.published) for item in items] == [("training", "train")] * 24 + [
        ("testing", "test")
    ] * 24
    samples = load(items)
    assert {(sample.image.shape, sample.spacing_um) for sample in samples} == {((768, 1024, 1), (0.005, 0.005))}
    assert np.mean([sample.labels > 0 for sample in samples]) == pytest.approx(0.097, abs=5e-4)


@pytest.mark.parametrize("data", ["glas"], indirect=True)
def test_glands(data):
    items = SOURCES["glas"](data)
    assert collections.Counter((item.source, item.published, item.stratum) for item in items) == GLANDS
    assert len({item.group for item in items}) == 14
    samples = load(items)
    assert [num_cells(samples, one_class) for one_class in (1, 2)] == [396, 290]
    assert all(np.array_equal(sample.classes > 0, sample.labels > 0) for sample in samples)


@pytest.mark.parametrize("data", ["consep"], indirect=True)
def test_nuclei_of_four_classes(data):
    items = SOURCES["consep"](data)
    assert [item.published for item in items] == ["train"] * 6 + ["test"] * 3
    samples = load(items)
    assert [num_cells(samples, one) for one in (1, 2, 3, 4)] == [64, 469, 1479, 2179]
    for item, sample in zip(items, samples, strict=True):
        # The published classes agree with the nuclei: nothing had to be changed.
        assert np.array_equal(sample.classes, cv2.imread(str(item.files[2]), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize("data", ["dsb2018"], indirect=True)
def test_data_science_bowl(data):
    assert len(SOURCES["dsb2018"](data, kind="fluorescence")) == 90
    assert len(SOURCES["dsb2018"](data, kind="stained")) == 16
