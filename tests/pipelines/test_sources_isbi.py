"""Layout isbi: cell interiors between membranes, slice by slice; and what stacks of slices may look like."""

import pickle

import cv2
import numpy as np
import pytest
import tifffile

from pipelines.errors import InputError
from pipelines.sources import SOURCES
from pipelines.sources.isbi import find
from tests.datasets import write_isbi

# A membrane drawn with steps by the corner only: above and below it lie two cells.
DIAGONAL = np.array([[255, 255, 255, 0], [255, 255, 0, 255], [255, 0, 255, 255], [0, 255, 255, 255]], np.uint8)
LABELS = [[1, 1, 1, 0], [1, 1, 0, 2], [1, 0, 2, 2], [0, 2, 2, 2]]
IMAGES = np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4)


def write_stack(folder, images=IMAGES, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.stack([DIAGONAL] * len(images)) if labels is None else labels
    tifffile.imwrite(folder / "train-volume.tif", images, photometric="minisblack")
    tifffile.imwrite(folder / "train-labels.tif", labels, photometric="minisblack")
    return folder


def write_series(folder, slices, *, first=0, name="slice{:d}.png"):
    folder.mkdir(parents=True)
    for number, one in enumerate(slices, start=first):
        cv2.imwrite(str(folder / name.format(number)), one)


def test_a_slice_of_the_stack(tmp_path):
    items = SOURCES["isbi"](write_stack(tmp_path))
    places = [(item.name, item.source, item.frame, item.published, item.group) for item in items]
    assert places == [(f"train/0{i}", "train", i, "", "") for i in range(3)]
    assert items[1].files == (tmp_path / "train-volume.tif", tmp_path / "train-labels.tif")
    sample = pickle.loads(pickle.dumps(items[1])).load()
    assert (sample.name, sample.source, sample.frame, sample.spacing_um) == ("train/01", "train", 1, (0.004, 0.004))
    np.testing.assert_array_equal(sample.image[..., 0], IMAGES[1])
    assert sample.labels.dtype == np.int32


def test_two_cells_that_touch_by_a_corner_of_the_membrane_stay_two(tmp_path):
    # With 8 neighbours both would be one cell: pixel (0, 2) touches (1, 3) by a corner.
    assert find(write_stack(tmp_path))[0].load().labels.tolist() == LABELS


def test_slices_of_the_test_volume_are_no_items(tmp_path):
    assert len(find(write_isbi(tmp_path, 6))) == 6


def test_the_pixel_size_of_the_file_comes_first(tmp_path):
    write_stack(tmp_path)
    options = {"resolution": (2e6, 1e6), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "train-volume.tif", IMAGES, photometric="minisblack", **options)
    assert find(tmp_path)[0].load().spacing_um == pytest.approx((0.01, 0.005))


def test_more_than_a_hundred_slices_sort_by_name(tmp_path):
    names = [item.name for item in find(write_stack(tmp_path, np.zeros((101, 4, 4), np.uint8)))]
    assert names == sorted(names) and names[-1] == "train/100"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["slice{:d}.png", "{:02d}.tif"])
def test_folders_of_slices_in_the_order_of_their_numbers(tmp_path, first, name):
    # 12 slices, so that slice10 would come before slice2 in the order of letters.
    images = np.arange(12, dtype=np.uint8)[:, None, None] + np.zeros((4, 4), np.uint8)
    write_series(tmp_path / "train-volume", images, first=first, name=name)
    write_series(tmp_path / "train-labels", [DIAGONAL] * 12, first=first, name=name)
    items = find(tmp_path)
    assert [item.frame for item in items] == list(range(12))
    assert [item.load().image[0, 0, 0] for item in items] == list(range(12))
    assert items[3].files == tuple(
        tmp_path / folder / name.format(3 + first) for folder in ("train-volume", "train-labels")
    )
    assert items[3].load().labels.tolist() == LABELS


def test_a_folder_of_labels_beside_a_stack_of_images(tmp_path):
    write_stack(tmp_path)
    (tmp_path / "train-labels.tif").unlink()
    write_series(tmp_path / "train-labels", [DIAGONAL] * 3, first=1)
    assert [item.load().labels.tolist() for item in find(tmp_path)] == [LABELS] * 3


@pytest.mark.parametrize("mask", [DIAGONAL // 255, DIAGONAL > 0], ids=["ones", "bits"])
def test_masks_of_ones_are_masks(tmp_path, mask):
    assert find(write_stack(tmp_path, IMAGES, np.stack([mask] * 3)))[2].load().labels.tolist() == LABELS


def test_a_slice_without_cell(tmp_path):
    assert not find(write_stack(tmp_path, IMAGES, np.zeros_like(IMAGES)))[0].load().labels.any()


def test_missing_stacks(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*nowhere\. It should hold train-volume\.tif and train-labels"
    ):
        find(tmp_path / "nowhere")
    write_stack(tmp_path)
    with pytest.raises(
        InputError, match=r"train-volume\.tif is a file; a folder was expected, which holds train-volume"
    ):
        find(tmp_path / "train-volume.tif")
    (tmp_path / "train-labels.tif").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"holds no train-labels\.tif and no folder train-labels\. The layout 'i"
    ):
        find(tmp_path)
    (tmp_path / "train-volume.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no train-volume\.tif"):
        find(tmp_path)


def test_a_stack_there_twice(tmp_path):
    write_stack(tmp_path)
    write_series(tmp_path / "train-labels", [DIAGONAL])
    with pytest.raises(InputError, match=r"train-labels and .*train-labels\.tif are both the stack 'train-labels'"):
        find(tmp_path)


def test_stacks_of_different_lengths(tmp_path):
    write_stack(tmp_path, IMAGES, np.stack([DIAGONAL] * 2))
    with pytest.raises(InputError, match=r"train-volume\.tif has 3 slices, but its labels .*train-labels\.tif have 2"):
        find(tmp_path)


def test_folders_that_count_from_different_numbers(tmp_path):
    write_series(tmp_path / "train-volume", IMAGES, first=0)
    write_series(tmp_path / "train-labels", [DIAGONAL] * 3, first=1)
    with pytest.raises(InputError, match=r"train-volume counts its slices from 0, its labels .*train-labels from 1"):
        find(tmp_path)


def test_folders_that_are_no_series(tmp_path):
    write_stack(tmp_path)
    (tmp_path / "train-volume.tif").unlink()
    folder = tmp_path / "train-volume"
    write_series(folder, IMAGES)
    cv2.imwrite(str(folder / "slice7.png"), IMAGES[0])
    with pytest.raises(InputError, match=r"train-volume holds slices 0 to 7, but lacks 3, 4, 5, 6\. Neighbouring"):
        find(tmp_path)
    (folder / "slice7.png").rename(folder / "slice02.png")
    with pytest.raises(InputError, match=r"slice02\.png and .*slice2\.png are both slice 2"):
        find(tmp_path)
    (folder / "slice02.png").rename(folder / "other3.png")
    with pytest.raises(InputError, match=r"more than one series: other3\.png and slice0\.png are named apart"):
        find(tmp_path)
    (folder / "other3.png").rename(folder / "overview.png")
    with pytest.raises(InputError, match=r"overview\.png has no number at the end of its name"):
        find(tmp_path)
    (folder / "overview.png").unlink()
    tifffile.imwrite(folder / "slice3.tif", IMAGES, photometric="minisblack")
    with pytest.raises(InputError, match=r"slice3\.tif holds 3 pages; in a folder of slices each file holds one"):
        find(tmp_path)


def test_labels_of_another_size_or_kind_name_their_file(tmp_path):
    small = write_stack(tmp_path / "small", IMAGES, np.stack([DIAGONAL[:3]] * 3))
    with pytest.raises(
        InputError,
        match=r"train/02: the image is 4x4 pixels, but its labels are 3x4.*train-volume\.tif, .*train-labels",
    ):
        find(small)[2].load()
    ids = write_stack(tmp_path / "ids", IMAGES, np.stack([DIAGONAL, DIAGONAL, np.where(DIAGONAL, 7, 0).astype("u1")]))
    assert find(ids)[1].load().labels.max() == 2
    with pytest.raises(
        InputError, match=r"train-labels\.tif: a mask of 0 and 255 was expected, but slice 2 holds 7\. S"
    ):
        find(ids)[2].load()


def test_no_pixels_are_read_to_find_slices(tmp_path, monkeypatch):
    write_stack(tmp_path)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *_, **__: pytest.fail("pixels were read"))
    assert len(find(tmp_path)) == 3
