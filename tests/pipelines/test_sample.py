"""Sample: what passes the door and what does not."""

import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.sample import Sample


def image(height=4, width=6, channels=1, dtype=np.uint8):
    return np.zeros((height, width, channels), dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_takes_the_three_dtypes_and_keeps_the_array(dtype):
    given = image(dtype=dtype, channels=3)
    assert Sample(image=given, labels=None, name="a").image is given


@pytest.mark.parametrize("shape", [(4, 6), (0, 6, 1), (1, 4, 6, 1)])
def test_refuses_other_shapes(shape):
    with pytest.raises(InputError, match=r"cell7: an image must be \(H, W, C\) and not empty"):
        Sample(image=np.zeros(shape, np.uint8), labels=None, name="cell7")


@pytest.mark.parametrize("dtype", [np.int16, np.float64, bool])
def test_refuses_other_dtypes(dtype):
    with pytest.raises(InputError, match=f"a: an image must be one of uint8, uint16, float32, got {np.dtype(dtype)}"):
        Sample(image=image(dtype=dtype), labels=None, name="a")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_counts_the_pixels_that_are_no_numbers(value):
    bad = image(dtype=np.float32)
    bad[0, :3] = value
    with pytest.raises(InputError, match="a: 3 pixels are NaN or infinite"):
        Sample(image=bad, labels=None, name="a")


def test_shows_both_sizes_when_labels_differ():
    with pytest.raises(InputError, match="01/t003: the image is 4x6 pixels, but its labels are 6x4"):
        Sample(image=image(), labels=np.zeros((6, 4), np.int32), name="01/t003")


@pytest.mark.parametrize(
    ("what", "dtype", "wrong"),
    [
        ("labels", "int32", np.uint16),
        ("classes", "int32", np.int64),
        ("weight_map", "float32", np.float64),
        ("ignore", "bool", np.uint8),
    ],
)
def test_each_map_has_its_dtype(what, dtype, wrong):
    maps = {"labels": None} | {what: np.ones((4, 6), dtype)}
    assert getattr(Sample(image=image(), name="a", **maps), what) is maps[what]
    with pytest.raises(InputError, match=f"a: {what} must be {dtype}, got {np.dtype(wrong)}"):
        Sample(image=image(), name="a", **(maps | {what: np.ones((4, 6), wrong)}))


def test_refuses_negative_labels():
    with pytest.raises(InputError, match=r"labels must be >= 0 .*got -2"):
        Sample(image=image(), labels=np.full((4, 6), -2, np.int32), name="a")
