"""Layout glas: glands, and the grade and patient of each image."""

import pickle

import cv2
import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.sources import CLASSES, SOURCES
from pipelines.sources.glas import Row, find, read_grades
from tests.datasets import discs, write_glas

HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"


def rewrite(folder, change):
    path = folder / "Grade.csv"
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_image_glands_grade_and_patient(tmp_path, suffix):
    items = SOURCES["glas"](write_glas(tmp_path, train=4, test_a=1, test_b=1, suffix=suffix))
    assert [(item.name, item.source, item.published, item.stratum, item.group, item.frame) for item in items] == [
        ("train_1", "train", "train", "malignant", "patient 1", None),
        ("train_2", "train", "train", "benign", "patient 1", None),
        ("train_3", "train", "train", "malignant", "patient 2", None),
        ("train_4", "train", "train", "benign", "patient 2", None),
        ("testA_1", "testA", "test", "malignant", "patient 1", None),
        ("testB_1", "testB", "test", "malignant", "patient 1", None),
    ]
    files = (tmp_path / f"train_2{suffix}", tmp_path / f"train_2_anno{suffix}", tmp_path / "Grade.csv")
    assert items[1].files == files
    sample = pickle.loads(pickle.dumps(items[1])).load()
    assert (sample.name, sample.source, sample.frame) == ("train_2", "train", None)
    np.testing.assert_array_equal(sample.image, cv2.imread(str(files[0]))[..., ::-1])
    np.testing.assert_array_equal(sample.labels, discs(2))
    assert sample.classes.dtype == np.int32
    np.testing.assert_array_equal(sample.classes, 1 * (discs(2) > 0))
    np.testing.assert_array_equal(items[2].load().classes, 2 * (discs(3) > 0))
    assert CLASSES["glas"] == ("benign", "malignant")


def test_image_2_comes_before_image_10(tmp_path):
    items = find(write_glas(tmp_path, train=11, test_a=0, test_b=0))
    assert [item.name for item in items] == [f"train_{number}" for number in range(1, 12)]


def test_an_image_without_gland(tmp_path):
    write_glas(tmp_path)
    cv2.imwrite(str(tmp_path / "train_1_anno.png"), np.zeros((64, 64), np.uint8))
    sample = find(tmp_path)[0].load()
    assert not sample.labels.any() and not sample.classes.any()


def test_blanks_capitals_and_a_byte_order_mark_do_not_matter(tmp_path):
    path = tmp_path / "Grade.csv"
    path.write_text("\ufeff Patient ID ,NAME,grade (glas)\r\n 7 , train_1 , Benign \r\n\r\n,,\r\n", encoding="utf-8")
    assert read_grades(path) == {"train_1": Row("7", "benign")}


def test_missing_table_columns_and_cells(tmp_path):
    write_glas(tmp_path)
    rewrite(tmp_path, lambda text: text.replace("patient ID", "patient"))
    with pytest.raises(
        InputError, match=r"Grade\.csv has no column 'patient ID'\. Its first line should be 'name,pati"
    ):
        find(tmp_path)
    rewrite(tmp_path, lambda text: "")
    with pytest.raises(
        InputError, match=r"Grade\.csv has no column 'name', 'patient ID', 'grade \(GlaS\)'.*; it is ''"
    ):
        find(tmp_path)
    for row in ("train_1,, benign", "train_1", ",3,benign"):
        rewrite(tmp_path, lambda text, row=row: f"{HEADER}{row}\n")
        with pytest.raises(InputError, match=r"Grade\.csv, line 2: name, patient or grade is empty"):
            find(tmp_path)
    (tmp_path / "Grade.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"There is no file .*Grade\.csv\. The layout 'glas' needs the table of"
    ):
        find(tmp_path)


@pytest.mark.parametrize("rows", [5, 20_000])  # a cell may have 131,072 characters
def test_a_quote_that_is_not_closed_is_explained(tmp_path, rows):
    path = tmp_path / "Grade.csv"
    path.write_text(HEADER + 'train_1,"1,benign,adenoma\n' + "train_2,1,benign,adenoma\n" * rows)
    with pytest.raises(
        InputError, match=r"Grade\.csv, line \d+: not a CSV: .*Close every quote, or save the table as CSV"
    ):
        read_grades(path)


def test_an_unknown_grade_and_a_second_row(tmp_path):
    write_glas(tmp_path)
    rewrite(tmp_path, lambda text: text.replace("train_2,1, benign", "train_2,1, bening"))
    with pytest.raises(
        InputError, match=r"line 3: train_2 is of grade 'bening'\. Did you mean 'benign'\? Known: benign, "
    ):
        find(tmp_path)
    rewrite(tmp_path, lambda text: text.replace("train_2,1, bening", "train_1,1, benign"))
    with pytest.raises(InputError, match=r"line 3: train_1 has a row already"):
        find(tmp_path)


def test_rows_without_image_and_images_without_row(tmp_path):
    write_glas(tmp_path, train=2)
    rewrite(tmp_path, lambda text: text + "".join(f"train_{number},1,benign\n" for number in range(3, 13)))
    with pytest.raises(
        InputError,
        match=r"Grade\.csv: 10 rows have no image: train_3, train_4, train_5, train_6, train_7, \.\.\.\. Each",
    ):
        find(tmp_path)
    rewrite(tmp_path, lambda text: text.split("train_2")[0] + "testA_1,1,benign\ntestA_2,1,benign\ntestB_1,1,benign\n")
    with pytest.raises(InputError, match=r"Grade\.csv: 2 images have no row: testB_2, train_2\. Each image needs"):
        find(tmp_path)


def test_an_image_without_annotation_and_the_reverse(tmp_path):
    write_glas(tmp_path)
    (tmp_path / "train_3_anno.png").unlink()
    with pytest.raises(InputError, match=r": 1 image has no _anno file: train_3\. Each image needs its _anno file"):
        find(tmp_path)
    write_glas(tmp_path)
    (tmp_path / "testA_2.png").unlink()
    with pytest.raises(InputError, match=r": 1 _anno file has no image: testA_2\. Each"):
        find(tmp_path)


def test_one_stem_as_bmp_and_as_png(tmp_path):
    write_glas(tmp_path)
    write_glas(tmp_path / "more", suffix=".bmp")
    for stem in ("train_1", "train_1_anno"):
        (tmp_path / "more" / f"{stem}.bmp").rename(tmp_path / f"{stem}.bmp")
        with pytest.raises(InputError, match=rf"{stem}\.bmp and .*{stem}\.png are both '{stem}'\. Keep one"):
            find(tmp_path)
        (tmp_path / f"{stem}.bmp").unlink()


@pytest.mark.parametrize("name", ["overview.png", "train_1b.png", "testC_1.png", "train_anno.png"])
def test_a_file_of_another_name(tmp_path, name):
    write_glas(tmp_path)
    (tmp_path / "train_1.png").rename(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} is neither an image \(train_1, testA_1, testB_1, \.\.\.\) nor its"):
        find(tmp_path)


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(InputError, match=r"holds no image"):
        find(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        find(tmp_path / "nowhere")


def test_glands_of_another_size_name_both_files(tmp_path):
    write_glas(tmp_path)
    cv2.imwrite(str(tmp_path / "train_1_anno.png"), np.zeros((64, 60), np.uint8))
    with pytest.raises(
        InputError,
        match=r"train_1: the image is 64x64 pixels, but its labels are 64x60.*train_1\.png, .*train_1_anno\.p",
    ):
        find(tmp_path)[0].load()
