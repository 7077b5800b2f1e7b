"""Layout `glas`: glands of the colon (GlaS at MICCAI 2015), each image benign or malignant as Grade.csv says.

Which images are for training is decided in `pipelines.splits`; the challenge's own parts are only passed on.
"""

import csv
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines import images
from pipelines.errors import InputError, nearest
from pipelines.sample import Item, Sample

CLASSES = ("benign", "malignant")
PARTS = {"train": "train", "testA": "test", "testB": "test"}  # first part of the stem: the split published for it
TABLE = "Grade.csv"
NAME, PATIENT, GRADE = "name", "patient ID", "grade (GlaS)"
SUFFIX = "_anno"
SHOWN = 5


class Row(NamedTuple):
    """One image in Grade.csv."""

    patient: str
    grade: str


def find(source: Path | str) -> list[Item]:
    """Images train_N, testA_N and testB_N (bmp or png) with their glands in STEM_anno and their grade in Grade.csv.

    Returns:
        Items of train, testA, testB in the order of their numbers: name `train_2`, source `train`, published "train"
        or "test", stratum "benign" or "malignant", group "patient 5". In a sample, a gland's pixels are of class 1
        (benign) or 2 (malignant), that of its image.

        Ids of glands are those of the files, also where one stands for several pieces, as in testB_3. The published
        parts share patients; a split by image keeps a patient's images together, unlike the challenge.

    Raises:
        FileNotFoundError: The folder or Grade.csv is missing.
        InputError: A file of another name, an image without `_anno` or row, an `_anno` or a row without image, two
            files for one stem, or a table with missing columns, unknown grades or rows that contradict each other.
    """
    source = Path(source)
    pictures, annotations = _files(source)
    rows = read_grades(source / TABLE)
    _check_complete(pictures, annotations, source, f"image has no {SUFFIX} file", f"{SUFFIX} file has no image")
    _check_complete(pictures, rows, source / TABLE, "image has no row", "row has no image")
    items = []
    for stem in sorted(pictures, key=_order):
        part, row = stem.split("_")[0], rows[stem]
        items.append(
            Item(
                name=stem,
                load=partial(load, pictures[stem], annotations[stem], stem, 1 + CLASSES.index(row.grade)),
                source=part,
                files=(pictures[stem], annotations[stem], source / TABLE),
                published=PARTS[part],
                stratum=row.grade,
                group=f"patient {row.patient}",
            )
        )
    return items


def read_grades(path: Path) -> dict[str, Row]:
    """Rows of Grade.csv by the stem of their image; blanks around names and cells are taken off.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no CSV, a column is missing, a cell is empty, a grade is unknown, or an image has two rows.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}. The layout 'glas' needs the table of grades beside the images."
        )
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, strict=True)
        try:
            lines = [[cell.strip() for cell in line] for line in reader]
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: not a CSV: {error}. Close every quote, or save the table as CSV."
            ) from error
    header = [cell.lower() for cell in lines[0]] if lines else []
    missing = [column for column in (NAME, PATIENT, GRADE) if column.lower() not in header]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(repr(column) for column in missing)}. Its first line should be "
            f"'{NAME},{PATIENT},{GRADE}'; it is '{','.join(lines[0])[:80] if lines else ''}'."
        )
    places = [header.index(column.lower()) for column in (NAME, PATIENT, GRADE)]
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        stem, patient, grade = (line[place] if place < len(line) else "" for place in places)
        grade = grade.lower()
        if not (stem and patient and grade):
            raise InputError(f"{path}, line {number}: name, patient or grade is empty. Fill it in.")
        if grade not in CLASSES:
            raise InputError(
                f"{path}, line {number}: {stem} is of grade '{grade}'.{nearest(grade, CLASSES)} "
                f"Known: {', '.join(CLASSES)}."
            )
        if stem in rows:
            raise InputError(f"{path}, line {number}: {stem} has a row already. Keep one of them.")
        rows[stem] = Row(patient, grade)
    return rows


def load(image_file: Path, label_file: Path, name: str, class_id: int) -> Sample:
    """Read one image; its glands, and their class for each pixel."""
    try:
        pages = images.read_labels(label_file)
        if len(pages) != 1:
            raise InputError(f"{label_file} holds {len(pages)} pages; one was expected.")
        labels = pages[0]
        return Sample(
            image=images.read_image(image_file),
            labels=labels,
            name=name,
            source=name.split("_")[0],
            classes=np.where(labels > 0, np.int32(class_id), np.int32(0)),
        )
    except InputError as error:
        if str(image_file) in str(error) or str(label_file) in str(error):
            raise
        raise InputError(f"{error} Files: {image_file}, {label_file}.") from error


def _files(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and annotations by the stem of the image."""
    pictures: dict[str, Path] = {}
    annotations: dict[str, Path] = {}
    for path in images.image_files(source):
        stem = path.stem.removesuffix(SUFFIX)
        if not re.fullmatch(rf"({'|'.join(PARTS)})_\d+", stem):
            raise InputError(
                f"{path} is neither an image ({', '.join(f'{part}_1' for part in PARTS)}, ...) nor its annotation "
                f"({stem[:20]}... with {SUFFIX}). Rename it or move it away."
            )
        kind = pictures if stem == path.stem else annotations
        if stem in kind:
            raise InputError(f"{kind[stem]} and {path} are both '{path.stem}'. Keep one of them there.")
        kind[stem] = path
    return pictures, annotations


def _check_complete(pictures: dict[str, Path], others: dict, where: Path, without: str, unwanted: str) -> None:
    """Raise InputError unless the two have the same stems; the words are singular, as in 'image has no row'."""
    for stems, what in ((pictures.keys() - others.keys(), without), (others.keys() - pictures.keys(), unwanted)):
        if stems:
            names = sorted(stems, key=lambda stem: (stem.split("_")[0], len(stem), stem))
            more = ", ..." if len(names) > SHOWN else ""
            raise InputError(
                f"{where}: {len(names)} {what.replace(' has', 's have', 1) if len(names) > 1 else what}: "
                f"{', '.join(names[:SHOWN])}{more}. Each image needs its {SUFFIX} file and one row in {TABLE}."
            )


def _order(stem: str) -> tuple[int, int, str]:
    part, number = stem.split("_")
    return list(PARTS).index(part), int(number), stem
