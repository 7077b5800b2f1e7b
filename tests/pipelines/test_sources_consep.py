"""Layout consep: nuclei, each of one class."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from pipelines.errors import InputError
from pipelines.sources import CLASSES, SOURCES
from pipelines.sources.consep import class_of_each_nucleus, find
from tests.datasets import discs, write_consep


def test_nuclei_and_their_classes(tmp_path):
    items = SOURCES["consep"](write_consep(tmp_path, train=2, test=1))
    assert [(item.name, item.source, item.published, item.frame) for item in items] == [
        ("Train/train_1", "Train", "train", None),
        ("Train/train_2", "Train", "train", None),
        ("Test/test_1", "Test", "test", None),
    ]
    names = ("Images/train_2.png", "Inst/train_2.tif", "Class/train_2.png")
    assert items[1].files == tuple(tmp_path / "Train" / name for name in names)
    sample = pickle.loads(pickle.dumps(items[1])).load()
    assert (sample.name, sample.source, sample.frame) == ("Train/train_2", "Train", None)
    np.testing.assert_array_equal(sample.image, cv2.imread(str(items[1].files[0]))[..., ::-1])
    np.testing.assert_array_equal(sample.labels, discs(2))
    np.testing.assert_array_equal(sample.classes, discs(2))
    assert sample.classes.dtype == np.int32
    assert CLASSES["consep"] == ("miscellaneous", "inflammatory", "epithelial", "spindle-shaped")


@pytest.mark.parametrize(("train", "test", "part"), [(2, 0, "Train"), (0, 2, "Test")])
def test_one_part_is_enough(tmp_path, train, test, part):
    write_consep(tmp_path, train=train, test=test)
    empty = {"Train": "Test", "Test": "Train"}[part]
    for folder in ("Images", "Inst", "Class"):
        (tmp_path / empty / folder).rmdir()
    (tmp_path / empty).rmdir()
    assert [item.source for item in find(tmp_path)] == [part, part]


def test_a_nucleus_takes_the_class_of_most_of_its_pixels():
    labels = np.array([[7, 7, 7, 0, 9, 9, 9, 9, 2, 2, 2]], np.int32)
    types = np.array([[0, 4, 4, 3, 3, 3, 1, 1, 0, 0, 2]], np.int32)
    # 7: two of class 4; 9: two of 3 and two of 1, the lower wins; 2: its one pixel with a class; beside them: none.
    expected = [[4, 4, 4, 0, 1, 1, 1, 1, 2, 2, 2]]
    classes = class_of_each_nucleus(labels, types, Path("c.png"))
    assert classes.tolist() == expected
    assert classes.dtype == np.int32


def test_no_nucleus():
    empty = np.zeros((2, 3), np.int32)
    assert not class_of_each_nucleus(empty, empty + 3, Path("c.png")).any()


def test_classes_that_are_missing_or_unknown():
    labels = np.arange(9, dtype=np.int32)[np.newaxis]
    with pytest.raises(
        InputError, match=r"c\.png gives no class to 7 of 8 nuclei: id 1, 2, 3, 4, 5, \.\.\.\. Every nuc"
    ):
        class_of_each_nucleus(labels, np.where(labels == 6, 1, 0), Path("c.png"))
    with pytest.raises(InputError, match=r"c\.png gives no class to 1 of 8 nuclei: id 6\. Every nucleus"):
        class_of_each_nucleus(labels, np.where(labels == 6, 0, 1), Path("c.png"))
    with pytest.raises(
        InputError, match=r"c\.png holds class 5; 0 to 4 were expected: miscellaneous, .* merge 3 and 4"
    ):
        class_of_each_nucleus(labels, np.full_like(labels, 5), Path("c.png"))


def test_the_file_of_a_nucleus_without_class_is_named(tmp_path):
    write_consep(tmp_path, train=1)
    cv2.imwrite(str(tmp_path / "Train" / "Class" / "train_1.png"), np.where(discs(1) == 3, 0, 1).astype(np.uint8))
    with pytest.raises(InputError, match=r"Class.train_1\.png gives no class to 1 of 4 nuclei: id 3"):
        find(tmp_path)[0].load()


def test_missing_folders(tmp_path):
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            FileNotFoundError, match=r"holds neither Train nor Test\. The layout 'consep' needs Train/Im"
        ):
            find(source)
    write_consep(tmp_path)
    (tmp_path / "Test" / "Inst").rename(tmp_path / "Test" / "Labels")
    with pytest.raises(FileNotFoundError, match=r"no folder .*Test.Inst\. .* Labels/\*\.mat must be exported"):
        find(tmp_path)


@pytest.mark.parametrize("folder", ["Images", "Inst", "Class"])
def test_a_file_that_is_missing_in_one_folder(tmp_path, folder):
    write_consep(tmp_path)
    next((tmp_path / "Train" / folder).glob("train_2.*")).unlink()
    with pytest.raises(
        InputError, match=rf"1 of 4 files in .* have no file of their name in .*Train.{folder}: train_2\.\w+\. Add"
    ):
        find(tmp_path)


def test_two_files_of_one_stem(tmp_path):
    write_consep(tmp_path)
    tifffile.imwrite(tmp_path / "Train" / "Class" / "train_1.tif", discs(1).astype(np.uint8))
    with pytest.raises(InputError, match=r"train_1\.png and .*train_1\.tif have the same stem"):
        find(tmp_path)


def test_sizes_that_differ_name_the_files(tmp_path):
    write_consep(tmp_path)
    items = find(tmp_path)
    tifffile.imwrite(items[0].files[1], discs(1)[:60].astype(np.uint16))
    with pytest.raises(
        InputError, match=r"train_1: the nuclei are 60x64 pixels, but their classes 64x64.*Inst.train_1\.t"
    ):
        items[0].load()
    cv2.imwrite(str(items[0].files[2]), discs(1)[:60].astype(np.uint8))
    with pytest.raises(
        InputError, match=r"the image is 64x64 pixels, but its labels are 60x64.*Images.train_1\.png, .*Inst"
    ):
        items[0].load()
    tifffile.imwrite(items[0].files[1], np.stack([discs(1)] * 2).astype(np.uint16))
    with pytest.raises(InputError, match=r"Inst.train_1\.tif holds 2 pages; one was expected"):
        items[0].load()
