"""A sample of the sweep of bad input through the commands; `make bad-input` sends every file through all of them."""

import pytest

from tests.corpus import cases
from tests.reliability.bad_input import STEPS, answer, known_run

# One of each kind that has ever made a command stumble, and one that is odd and right.
SAMPLE = (
    "lzw-tiled-big-endian.tif",
    "pages-in-a-circle.tif",
    "enormous-zlib.tif",
    "float32-nan.tif",
    "folder.tif",
    "fifo.tif",
    "new\nline.tif",
)
CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return known_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("name", SAMPLE, ids=map(ascii, SAMPLE))
def test_no_command_stumbles(tmp_path, run, name, step):
    assert list(step(CASES[name], tmp_path, answer, run)) == []
