"""Layout epfl: mitochondria in two stacks, published as training and testing."""

import pickle

import cv2
import numpy as np
import pytest
import tifffile

from pipelines.errors import InputError
from pipelines.sources import SOURCES
from pipelines.sources.epfl import find
from tests.datasets import write_epfl

# Two pixels that touch by a corner, and one apart.
MASK = np.array([[255, 0, 0, 0], [0, 255, 0, 255]], np.uint8)
LABELS = [[1, 0, 0, 0], [0, 1, 0, 2]]


def write(path, slices):
    tifffile.imwrite(path, np.stack(slices), photometric="minisblack")


def test_both_parts_with_the_split_that_they_are_published_as(tmp_path):
    items = SOURCES["epfl"](write_epfl(tmp_path, 2))
    assert [(item.name, item.source, item.frame, item.published) for item in items] == [
        ("training/000", "training", 0, "train"),
        ("training/001", "training", 1, "train"),
        ("testing/000", "testing", 0, "test"),
        ("testing/001", "testing", 1, "test"),
    ]
    assert items[3].files == (tmp_path / "testing.tif", tmp_path / "testing_groundtruth.tif")
    sample = pickle.loads(pickle.dumps(items[3])).load()
    assert (sample.name, sample.source, sample.frame, sample.spacing_um) == (
        "testing/001",
        "testing",
        1,
        (0.005, 0.005),
    )
    np.testing.assert_array_equal(sample.image[..., 0], tifffile.imread(tmp_path / "testing.tif")[1])
    np.testing.assert_array_equal(sample.labels > 0, tifffile.imread(tmp_path / "testing_groundtruth.tif")[1] == 255)


def test_pixels_that_touch_by_a_corner_are_one_mitochondrion(tmp_path):
    write(tmp_path / "training.tif", [MASK, MASK])
    write(tmp_path / "training_groundtruth.tif", [MASK, MASK[::-1]])
    assert [item.load().labels.tolist() for item in find(tmp_path)] == [LABELS, [[0, 1, 0, 2], [1, 0, 0, 0]]]


@pytest.mark.parametrize("part", ["training", "testing"])
def test_one_part_is_enough(tmp_path, part):
    items = find(write_epfl(tmp_path, 3, parts=[part]))
    assert [item.name for item in items] == [f"{part}/000", f"{part}/001", f"{part}/002"]


def test_folders_named_as_in_lucchi(tmp_path):
    for folder, name in (("testing", "mask{:04d}.png"), ("testing_groundtruth", "{:d}.png")):
        (tmp_path / folder).mkdir()
        for number in range(3):
            cv2.imwrite(str(tmp_path / folder / name.format(number)), MASK)
    items = find(tmp_path)
    assert [item.name for item in items] == ["testing/000", "testing/001", "testing/002"]
    assert items[2].files == (tmp_path / "testing" / "mask0002.png", tmp_path / "testing_groundtruth" / "2.png")
    assert items[2].load().labels.tolist() == LABELS


def test_slices_far_apart_are_not_listed(tmp_path):
    folder = tmp_path / "testing"
    folder.mkdir()
    for number in (0, 3, 2_000_000_000):
        cv2.imwrite(str(folder / f"m_{number}.png"), MASK)
    with pytest.raises(InputError, match=r"slices 0 to 2000000000, but lacks 1, 2, 4, 5, 6, \.\.\."):
        find(tmp_path)
    (folder / "m_0.png").rename(folder / "m_20240101120000123.png")
    with pytest.raises(InputError, match="m_20240101120000123.png: 20240101120000123 in its name is no number"):
        find(tmp_path)


def test_a_stack_alone(tmp_path):
    write_epfl(tmp_path, 2)
    (tmp_path / "testing_groundtruth.tif").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"testing\.tif is alone: .* holds no testing_groundtruth\.tif and no fo"
    ):
        find(tmp_path)
    (tmp_path / "testing.tif").rename(tmp_path / "testing_groundtruth.tif")
    with pytest.raises(
        FileNotFoundError, match=r"testing_groundtruth\.tif is alone: .* holds no testing\.tif and no f"
    ):
        find(tmp_path)


def test_missing_and_unequal_stacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere\. It should hold training\.tif"):
        find(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds neither training\.tif nor testing\.tif\. The layout 'epfl'"):
        find(tmp_path)
    write(tmp_path / "training.tif", [MASK, MASK])
    write(tmp_path / "training_groundtruth.tif", [MASK] * 3)
    with pytest.raises(InputError, match=r"training\.tif has 2 slices, but its labels .*_groundtruth\.tif have 3"):
        find(tmp_path)
    write(tmp_path / "training_groundtruth.tif", [MASK.T] * 2)
    with pytest.raises(
        InputError, match=r"training/000: the image is 2x4 pixels, but its labels are 4x2.*_groundtruth"
    ):
        find(tmp_path)[0].load()
