import sys

import numpy as np
import pandas as pd
import pytest

from cellseg.measuring import measure_cells, write_table
from pipelines.errors import InputError
from tests.cells import empty, one_cell, sparse_ids, two_touching

LEADING = ["frame", "label", "track", "row", "column", "area"]


def one(table):
    assert len(table) == 1
    return table.iloc[0]


def test_a_square_of_known_area():
    cell = one(measure_cells([(3, one_cell())]))
    assert (cell["frame"], cell["label"], cell["track"], cell["area"]) == (3, 1, 1, 16)
    # Rows 1 to 4 and columns 1 to 4: the middle is 2.5.
    assert (cell["row"], cell["column"]) == (2.5, 2.5)
    assert cell["equivalent_diameter"] == pytest.approx(np.sqrt(64 / np.pi))
    assert not cell["touches_border"]


def test_columns_lead_with_what_names_the_cell():
    assert list(measure_cells([(0, one_cell())]))[:6] == LEADING


def test_micrometres_of_pixels_that_are_not_square():
    labels = np.zeros((9, 9), np.int32)
    labels[4, 2:7] = 1  # 5 pixels in a row
    cell = one(measure_cells([(2, labels)], spacing_um=(3.0, 0.5), interval_s=10))
    assert (cell["row_um"], cell["column_um"]) == (12.0, 2.0)
    assert cell["area_um2"] == pytest.approx(5 * 3.0 * 0.5)
    assert cell["area"] == 5
    # 5 pixels in a row: variance (25 - 1) / 12 = 2 pixels, 0.5 um2.
    assert cell["major_axis"] == pytest.approx(4 * np.sqrt(2))
    assert cell["major_axis_um"] == pytest.approx(4 * np.sqrt(0.5))
    assert cell["minor_axis_um"] == 0
    assert cell["equivalent_diameter_um"] == pytest.approx(np.sqrt(4 * 7.5 / np.pi))
    assert cell["time_s"] == 20


def test_the_outline_of_a_disk_on_pixels_that_are_not_square():
    rows, columns = np.indices((31, 91))
    disk = (np.hypot(3.0 * (rows - 15), columns - 45) <= 40).astype(np.int32)
    assert one(measure_cells([(0, disk)], spacing_um=(3.0, 1.0)))["perimeter_um"] == pytest.approx(80 * np.pi, rel=0.02)


def test_direction_is_that_of_the_real_cell():
    # 3 rows x 5 columns of pixels: lying, but upright where a pixel is four times as high as wide.
    labels = np.zeros((9, 9), np.int32)
    labels[3:6, 2:7] = 1
    assert abs(one(measure_cells([(0, labels)]))["orientation"]) == pytest.approx(np.pi / 2)
    real = one(measure_cells([(0, labels)], spacing_um=(4.0, 1.0)))
    assert real["orientation"] == 0
    # Variances 16 * (9 - 1) / 12 and (25 - 1) / 12.
    assert real["eccentricity"] == pytest.approx(np.sqrt(1 - 2 / (16 * 8 / 12)))


def test_square_pixels_only_scale_the_numbers():
    cells = measure_cells([(0, two_touching())], spacing_um=(0.5, 0.5))
    for name in ("equivalent_diameter", "major_axis", "minor_axis", "perimeter"):
        np.testing.assert_allclose(cells[f"{name}_um"], cells[name] / 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_intensities_are_numpys_own(dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 250, (6, 8)).astype(dtype)
    cells = measure_cells([(0, sparse_ids())], [image])
    for _, cell in cells.iterrows():
        values = image[sparse_ids() == cell["label"]].astype(np.float64)
        expected = [values.mean(), values.std(), values.min(), values.max(), np.median(values), values.sum()]
        found = [cell[f"intensity_{name}"] for name in ("mean", "std", "min", "max", "median", "sum")]
        np.testing.assert_allclose(found, expected)


def test_channels_have_columns_of_their_own():
    image = np.stack([np.full((6, 8), 7), np.full((6, 8), 60_000)], axis=-1).astype(np.uint16)
    cell = one(measure_cells([(0, one_cell())], [image]))
    assert (cell["intensity_mean_0"], cell["intensity_mean_1"], cell["intensity_sum_1"]) == (7, 60_000, 960_000)
    cell = one(measure_cells([(0, one_cell())], [image], channels=["gfp", "dapi"]))
    assert (cell["intensity_std_gfp"], cell["intensity_median_dapi"]) == (0, 60_000)


def test_the_nucleus_is_the_bright_part_of_its_channel():
    image = np.zeros((6, 8, 2), np.uint8)
    image[..., 1] = 20
    image[1:3, 1:3, 1] = 200  # 4 pixels about (1.5, 1.5)
    image[:, 6:, 1] = 250  # outside the cell
    cell = one(measure_cells([(0, one_cell())], [image], nucleus_channel=1, spacing_um=(2.0, 1.0)))
    assert (cell["nucleus_row"], cell["nucleus_column"], cell["nucleus_area"]) == (1.5, 1.5, 4)
    assert (cell["nucleus_row_um"], cell["nucleus_column_um"], cell["nucleus_area_um2"]) == (3.0, 1.5, 8.0)
    assert (cell["row"], cell["column"]) == (2.5, 2.5)


def test_a_flat_cell_is_all_nucleus():
    cell = one(measure_cells([(0, one_cell())], [np.full((6, 8), 9, np.uint8)], nucleus_channel=0))
    assert (cell["nucleus_row"], cell["nucleus_area"]) == (2.5, 16)


def test_cells_at_the_border_are_marked():
    labels = np.zeros((5, 6), np.int32)
    labels[0, 2], labels[4, 3], labels[2, 0], labels[1, 5], labels[2, 2] = 1, 2, 3, 4, 5
    assert measure_cells([(0, labels)])["touches_border"].tolist() == [True, True, True, True, False]


def test_frames_keep_their_order_and_an_empty_one_has_no_line():
    cells = measure_cells(iter([(4, two_touching()), (5, empty()), (2, one_cell())]))
    assert cells[["frame", "label"]].to_numpy().tolist() == [[4, 1], [4, 2], [2, 1]]


def test_untracked_cells_have_track_0():
    cells = measure_cells([(0, two_touching())], tracked=False)
    assert cells["track"].tolist() == [0, 0]
    assert cells["label"].tolist() == [1, 2]


@pytest.mark.parametrize("frames", [[], [(0, empty())], [(0, empty()), (1, empty())]])
def test_without_cells_there_are_columns_and_no_lines(frames):
    options = {"spacing_um": (1, 1), "interval_s": 1, "nucleus_channel": 0}
    nothing = measure_cells(frames, [np.zeros((6, 8), np.uint8)] * len(frames), **options)
    something = measure_cells([(0, one_cell())], [np.zeros((6, 8), np.uint8)], **options)
    assert len(nothing) == 0
    assert list(nothing) == list(something)
    assert nothing.dtypes.to_dict() == something.dtypes.to_dict()


def test_one_frame_at_a_time_is_asked_for():
    asked = []

    def frames():
        for frame in range(3):
            asked.append(f"labels {frame}")
            yield frame, one_cell()

    def images():
        for frame in range(3):
            asked.append(f"image {frame}")
            yield np.zeros((6, 8), np.uint8)

    measure_cells(frames(), images())
    assert asked == ["labels 0", "image 0", "labels 1", "image 1", "labels 2", "image 2"]


def test_cells_that_were_drawn_keep_their_place_alone():
    image = np.full((6, 8), 9, np.uint8)
    options = {"spacing_um": (2, 2), "interval_s": 5, "nucleus_channel": 0}
    frames = [(3, two_touching()), (4, two_touching())]
    cells = measure_cells(frames, [image, image], filled={4: [2], 5: [1]}, **options)
    assert cells["filled"].tolist() == [False, False, False, True]
    drawn = cells.iloc[3]
    assert (drawn["frame"], drawn["track"], drawn["row"], drawn["column"], drawn["row_um"]) == (4, 2, 2.5, 5, 5)
    assert drawn["time_s"] == 20 and not drawn["touches_border"]
    known = ["frame", "label", "track", "row", "column", "row_um", "column_um", "time_s", "touches_border", "filled"]
    assert drawn.drop(known).isna().all()
    # The others are as they were.
    pd.testing.assert_frame_equal(cells[:3], measure_cells(frames, [image, image], **options)[:3])


def test_several_workers_give_the_same_table():
    frames = [(frame, two_touching()) for frame in range(3)]
    images = [np.arange(48).reshape(6, 8) + frame for frame in range(3)]
    pd.testing.assert_frame_equal(measure_cells(frames, images, workers=2), measure_cells(frames, images))


@pytest.mark.parametrize(
    ("frames", "images", "options", "message"),
    [
        ([(7, np.zeros((2, 2)))], None, {}, r"Frame 7: labels must be integers >= 0 of shape \(H, W\), got float64"),
        ([(7, np.full((2, 2), -1))], None, {}, "Frame 7: labels must be integers >= 0"),
        ([(7, one_cell()), (7, empty())], None, {}, "Frame 7 is given twice"),
        ([(1, one_cell())], [np.zeros((5, 8))], {}, r"Frame 1: the image has shape \(5, 8, 1\), but its labels \(6, 8"),
        ([(1, one_cell())], [np.zeros((6, 8))], {"nucleus_channel": 1}, "nucleus_channel is 1, but the image has chan"),
        ([(1, one_cell())], None, {"nucleus_channel": 1}, "nucleus_channel is 1, but there are no images"),
        ([(1, one_cell())], [np.zeros((6, 8))], {"channels": ["a", "b"]}, "2 channels are named, but the image has 1"),
        (
            [(0, one_cell()), (1, one_cell())],
            [np.zeros((6, 8)), np.zeros((6, 8, 2))],
            {},
            "Frame 1: the image has another number of channels than those before",
        ),
        ([], None, {"spacing_um": (1, 0)}, r"spacing_um is \(1.0, 0.0\); \(row, column\) in micrometres"),
        ([], None, {"spacing_um": (1,)}, r"spacing_um is \(1.0,\)"),
        ([], None, {"interval_s": -3}, "interval_s is -3; the seconds between"),
    ],
)
def test_what_cannot_be_measured_is_named(frames, images, options, message):
    with pytest.raises(InputError, match=message):
        measure_cells(frames, images, **options)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_comes_back_from_its_file(tmp_path, suffix):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    cells = measure_cells([(0, two_touching())], [np.eye(6, 8)], spacing_um=(0.1, 0.3))
    path = tmp_path / "tables" / f"cells{suffix}"
    write_table(path, cells)
    back = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(back, cells, check_exact=True)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_an_unknown_kind_of_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cells.xlsx: a table is written as .csv or .parquet, not as '.xlsx'"):
        write_table(tmp_path / "cells.xlsx", pd.DataFrame())


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow, which is not installed.*pip install 'cellseg\[parq"):
        write_table(tmp_path / "cells.parquet", pd.DataFrame())
    assert not list(tmp_path.iterdir())
