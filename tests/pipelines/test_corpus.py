"""Every file of the corpus through the readers of images and labels: right pixels, or one message that names it."""

import numpy as np
import pytest

from pipelines import images
from pipelines.errors import InputError
from pipelines.rasters import open_raster
from tests.corpus import cases
from tests.odd_images import REFUSED

CASES = cases()
ALL = slice(None)


def answer(read, path):
    """What a reader gives, or None where it refuses the file by its name."""
    try:
        return read(path)
    except (InputError, OSError) as error:
        assert path.name in str(error) or path.name in str(getattr(error, "filename", "")), error
        return None


def whole(path):
    """All pages of a file, window by window."""
    raster = open_raster(path)
    return np.stack([raster.read(page, ALL) for page in range(raster.pages)])


def test_there_are_enough_and_a_seed_makes_the_same_again(tmp_path):
    assert len(CASES) > 350

    def flipped(seed):
        found = [case for case in cases(seed) if case.name.startswith("body")]
        for case in found:
            case.make(tmp_path / case.name)
        return [(tmp_path / case.name).read_bytes() for case in found]

    assert flipped(0) == flipped(0) != flipped(1)


@pytest.mark.parametrize("case", CASES, ids=[ascii(case.name) for case in CASES])
def test_right_pixels_or_a_message_with_the_name(tmp_path, capfd, case):
    path = tmp_path / case.name
    case.make(path)
    pixels = answer(images.read_pages, path)
    for name, read, expected in (
        ("image", lambda _: pixels, case.image),
        ("window", whole, case.image),
        ("labels", images.read_labels, case.labels),
    ):
        found = answer(read, path)
        finite = found is not None and np.isfinite(found).all()  # who uses an image refuses what is no number
        if not isinstance(expected, str):
            assert found is not None and np.array_equal(found, expected), name
        elif expected == REFUSED:
            assert found is None or (name != "labels" and not finite), name
    assert capfd.readouterr() == ("", "")
