"""The readers on the real data sets below CELLSEG_DATA; they may not be shipped, so this group runs where they are."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.sources import SOURCES

ROOT = Path(os.environ.get("CELLSEG_DATA", "nowhere"))

pytestmark = pytest.mark.real_data


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


@pytest.mark.parametrize("data", ["Fluo-N2DH-GOWT1"], indirect=True)
def test_mouse_stem_cells(data):
    items = SOURCES["ctc"](data, truth="gold", sequence="01")
    markers = SOURCES["ctc"](data, truth="markers", sequence="01")
    assert 0 < len(items) < len(markers) == 60
    assert items[0].load().image.shape == (1024, 1024, 1)


@pytest.mark.parametrize("data", ["dsb2018"], indirect=True)
def test_data_science_bowl(data):
    assert len(SOURCES["dsb2018"](data, kind="fluorescence")) == 90
    assert len(SOURCES["dsb2018"](data, kind="stained")) == 16
