"""Measured files: the labels of images that have nothing to do with each other as one table of cells.

Measuring itself lives in `cellseg.measuring`; the cells of a sequence that is tracked are measured in
`cellseg.following`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg.class_columns import ClassColumns
from cellseg.label_series import frame_numbers
from cellseg.measuring import check_spacing, measure_cells, write_table
from cellseg.results import Options, outputs, scores_file
from pipelines.errors import InputError
from pipelines.images import read_labels
from pipelines.rasters import open_raster

ALL = slice(None)


def measure_files(
    path: Path,
    targets: Mapping[Path, Path],
    *,
    spacing_um: Sequence[float] | None = None,
    otherwise: Sequence[float] | None = None,
    class_names: Sequence[str] = (),
    scores: bool = False,
) -> pd.DataFrame:
    """Measure the cells of label files on their images and write the table; one page at a time is in memory.

    Args:
        path: Of the table, which appears whole.
        targets: Image -> file of its labels, with as many pages.
        spacing_um: (row, column) pixel size of all; None takes that of each image, where it knows it.
        otherwise: Pixel size where nothing else says it.
        class_names: Of the run's classes; then a class map lies beside each label file.
        scores: Whether tables of scores lie beside the label files, see `results.scores_table`.

    Returns:
        `measuring.measure_cells` with a first column `image`, the name of the label file without suffix; `frame` is the
        page of a stack, else the number in which the names of the images differ, or 0 where they are no series; `track`
        is 0. With `class_names` there is `class`, see `class_columns`. With `scores`, `class` and `score` come last.
    """
    check_spacing(spacing_um)
    numbers = _numbers(targets)
    tables = []
    for image, target in targets.items():
        raster = open_raster(image)
        frames = range(raster.pages) if raster.pages > 1 else [numbers.get(image, 0)]
        table = measure_cells(
            ((frame, read_labels(target, page=page)) for page, frame in enumerate(frames)),
            (raster.read(page, ALL) for page in range(raster.pages)),
            spacing_um=spacing_um or raster.spacing_um or otherwise,
            tracked=False,
        )
        if class_names:
            known = ClassColumns(class_names, partial(_classes, target, list(frames)))
            for page, frame in enumerate(frames):
                known.note(frame, read_labels(target, page=page))
            table = known.cells(table)
        table.insert(0, "image", pd.Series([target.stem] * len(table), dtype="str"))
        if scores:
            table = _with_scores(table, scores_file(target), list(frames))
        tables.append(table)
    # Images without cells would otherwise decide the dtypes.
    whole = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    write_table(path, whole)
    return whole


def _classes(target: Path, frames: Sequence[int], frame: int) -> np.ndarray:
    return read_labels(outputs(target, Options(classes=True))["classes"], page=frames.index(frame))


def _with_scores(table: pd.DataFrame, path: Path, frames: Sequence[int]) -> pd.DataFrame:
    numbers = {"page": np.int64, "label": np.int64, "score": np.float64}
    scores = pd.read_csv(path, dtype=numbers, keep_default_na=False)  # a class may be called NA
    scores["frame"] = np.array(frames, np.int64)[scores.pop("page")]
    return table.merge(scores, how="left", on=["frame", "label"], validate="one_to_one")


def _numbers(images: Mapping[Path, Path]) -> dict[Path, int]:
    try:
        return {path: number for number, path in frame_numbers(images).items()}
    except InputError:
        return {}
