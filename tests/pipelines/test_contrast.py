"""Contrast limits beside numpy's percentiles, stretching and channels by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipelines import contrast
from pipelines.errors import InputError

PERCENTS = st.floats(0, 100, allow_nan=False)
SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)


@given(st.sampled_from(["uint8", "uint16", "float32"]).flatmap(lambda d: _values(d)), PERCENTS, PERCENTS)
def test_contrast_limits_are_those_of_numpy(image, one, other):
    low, high = sorted((one, other))
    expected = tuple(np.percentile(image, [low, high]))
    if expected[0] == expected[1]:
        expected = (image.min(), image.max())
    assert contrast.contrast_limits(image, low, high) == expected


def _values(dtype):
    # float32 percentiles are numpy's own, so small whole numbers are enough there.
    elements = st.integers(0, 1000).map(float) if dtype == "float32" else None
    return arrays.arrays(dtype, SHAPES, elements=elements)


def test_contrast_limits_agree_with_numpy_in_the_last_bit():
    image = np.array([18156, 8349, 38915, 4821, 8519, 4608, 13821, 56941, 44083], np.uint16).reshape(3, 3, 1)
    percent = 49.6571693798853  # left + step * share differs from numpy's right - step * (1 - share) here
    assert contrast.contrast_limits(image, percent, 98)[0] == np.percentile(image, percent)


def test_stretch_contrast_by_hand():
    image = np.array([0, 10, 20, 30, 40], np.uint8).reshape(1, 5, 1)
    # Percentiles 25 and 75 of five values are the second and the fourth: 10 and 30.
    stretched = contrast.stretch_contrast(image, low=25, high=75)
    assert stretched.dtype == np.float32
    assert stretched.ravel().tolist() == [0, 0, 0.5, 1, 1]
    assert contrast.stretch_contrast(image, limits=(0, 80)).ravel().tolist() == [0, 0.125, 0.25, 0.375, 0.5]
    assert contrast.stretch_contrast(image, limits=(0, 40), minimum_range=80).ravel()[-1] == 0.5
    assert image.ravel().tolist() == [0, 10, 20, 30, 40]


def test_one_pair_of_limits_for_all_channels_keeps_the_colour():
    image = np.dstack([np.full((4, 4), 50), np.full((4, 4), 100), np.full((4, 4), 150)]).astype(np.uint16)
    assert contrast.stretch_contrast(image, low=0, high=100)[0, 0].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("limits", [None, (7, 7)])
def test_a_constant_image_becomes_zeros(dtype, limits):
    assert not contrast.stretch_contrast(np.full((4, 4, 1), 7, dtype), limits=limits).any()


def test_few_bright_pixels_on_a_flat_ground_are_not_lost():
    image = np.full((20, 20, 1), 10, np.uint8)
    image[3, 4] = 200  # 0.25 % of the pixels: both percentiles are 10
    assert contrast.contrast_limits(image) == (10, 200)
    assert contrast.stretch_contrast(image).sum() == 1


def test_channels():
    colour = np.array([[[10, 20, 30]]], np.uint8)
    # 0.299 * 10 + 0.587 * 20 + 0.114 * 30 = 18.15
    assert contrast.to_channels(colour, "grey").tolist() == [[[18]]]
    assert contrast.to_channels(colour, "grey").dtype == np.uint8
    assert contrast.to_channels(colour.astype(np.float32), "grey") == pytest.approx(18.15)
    assert contrast.to_channels(colour, [2, 0]).tolist() == [[[30, 10]]]
    assert contrast.to_channels(colour, "rgb") is colour
    assert contrast.to_channels(colour, None) is colour
    grey = np.array([[[1000], [2000]]], np.uint16)
    assert contrast.to_channels(grey, "grey").tolist() == grey.tolist()
    assert contrast.to_channels(grey, "rgb").tolist() == [[[1000] * 3, [2000] * 3]]
    assert contrast.to_channels(np.repeat(grey, 3, axis=-1), "grey").tolist() == grey.tolist()


@pytest.mark.parametrize(
    ("count", "channels", "message"),
    [
        (3, "gray", "is 'gray'. Did you mean 'grey'"),
        (2, "grey", "the image has 2 channels.*channels: \\[0\\]"),
        (5, "rgb", "the image has 5 channels"),
        (3, [3], "is \\[3\\], but the image has channels 0 to 2"),
        (3, [], "is \\[\\], but"),
    ],
)
def test_bad_channels(count, channels, message):
    with pytest.raises(InputError, match=rf"data\.channels .*{message}"):
        contrast.to_channels(np.zeros((2, 2, count), np.uint8), channels)
