"""Layout dsb2018: a folder an image, a file a nucleus."""

import pickle

import numpy as np
import pytest
from skimage.io import imsave

from pipelines.errors import InputError
from pipelines.sources import SOURCES
from pipelines.sources.dsb2018 import find, is_fluorescence


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, array, check_contrast=False)


def mask(*columns):
    array = np.zeros((4, 6), np.uint8)
    array[1:3, list(columns)] = 255
    return array


TWO_NUCLEI = (mask(0, 1), mask(3))


def add(root, name, colour, masks=TWO_NUCLEI):
    image = np.full((4, 6, 4), 255, np.uint8)
    image[..., :3] = colour
    save(root / name / "images" / f"{name}.png", image)
    for i, one in enumerate(masks):
        save(root / name / "masks" / f"m{i}.png", one)


GREY_DARK, GREY_BRIGHT, PURPLE, DARK_RED = (20, 20, 20), (220, 220, 220), (200, 150, 210), (40, 10, 10)


@pytest.mark.parametrize("stage", ["", "stage1_train"])
def test_masks_are_numbered_in_file_order_and_the_first_keeps_its_pixels(tmp_path, stage):
    add(tmp_path / stage, "b0", GREY_DARK, masks=[mask(0, 1), mask(1, 2), mask(5)])
    (item,) = SOURCES["dsb2018"](tmp_path)
    assert (item.name, item.source, item.frame) == ("b0", "", None)
    assert [path.name for path in item.files] == ["b0.png", "m0.png", "m1.png", "m2.png"]
    sample = pickle.loads(pickle.dumps(item)).load()
    assert sample.name == "b0"
    assert sample.labels.tolist() == [[0] * 6, [1, 1, 2, 0, 0, 3], [1, 1, 2, 0, 0, 3], [0] * 6]


def test_alpha_is_dropped_and_three_equal_channels_are_grey(tmp_path):
    add(tmp_path, "a", GREY_DARK)
    add(tmp_path, "b", PURPLE)
    grey, colour = (item.load().image for item in find(tmp_path))
    assert (grey.shape, grey[0, 0].tolist()) == ((4, 6, 1), [20])
    assert (colour.shape, colour[0, 0].tolist()) == ((4, 6, 3), [200, 150, 210])


def test_kinds(tmp_path):
    for name, colour in {"d": GREY_DARK, "c": GREY_BRIGHT, "b": PURPLE, "a": DARK_RED}.items():
        add(tmp_path, name, colour)
    assert [item.name for item in find(tmp_path)] == ["a", "b", "c", "d"]
    assert [item.name for item in find(tmp_path, kind="fluorescence")] == ["d"]
    assert [item.name for item in find(tmp_path, kind="stained")] == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"kind is 'flourescence'\. Did you mean 'fluorescence'\? Known: all, fl"):
        find(tmp_path, kind="flourescence")


def test_the_ground_is_judged_by_the_range_of_the_dtype():
    assert is_fluorescence(np.full((2, 2, 1), 32000, np.uint16))
    assert not is_fluorescence(np.full((2, 2, 1), 33000, np.uint16))


def test_no_image_of_the_kind(tmp_path):
    add(tmp_path, "a", GREY_DARK)
    with pytest.raises(InputError, match=r"None of the 1 images in .* is of kind 'stained'"):
        find(tmp_path, kind="stained")


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere\. It should hold stage1_train/ID"):
        find(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no folder\. The layout 'dsb2018' has ID/images"):
        find(tmp_path)
    add(tmp_path, "a", GREY_DARK, masks=[])
    with pytest.raises(InputError, match=r"[/\\]a has no folder masks\. Each id folder holds"):
        find(tmp_path)
    (tmp_path / "a" / "masks").mkdir()
    with pytest.raises(InputError, match=r"a.masks holds no image"):
        find(tmp_path)
    save(tmp_path / "a" / "masks" / "m.png", mask(1))
    save(tmp_path / "a" / "images" / "second.png", mask(1))
    with pytest.raises(InputError, match=r"a.images holds 2 images; exactly one was expected"):
        find(tmp_path)


def test_a_mask_of_another_size_is_named(tmp_path):
    add(tmp_path, "a", GREY_DARK, masks=[mask(0), mask(3)[:3]])
    with pytest.raises(InputError, match=r"m1\.png is 3x6 pixels, but its image .*a\.png is 4x6"):
        find(tmp_path)[0].load()
