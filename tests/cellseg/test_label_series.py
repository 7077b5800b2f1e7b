import os
import re

import numpy as np
import pytest
import roifile

from cellseg.interchange import write_geojson, write_rois
from cellseg.label_series import few, find_series, frame_numbers, scattered_id
from pipelines.errors import InputError
from pipelines.images import write_image, write_labels
from tests.pipelines.test_outline_files import polygon, save


def labels(frame=0):
    """Two cells, the first one column further in each frame."""
    made = np.zeros((8, 12), np.int32)
    made[1:4, 1 + frame : 4 + frame] = 3
    made[5:8, 8:12] = 5
    return made


def numbered(made):
    """The same cells as 1, 2: outlines have no ids."""
    return np.searchsorted(np.unique(made), made).astype(np.int32)


def same(series, frames):
    assert list(series.load) == list(frames)
    for frame, expected in frames.items():
        np.testing.assert_array_equal(series.read(frame), expected)


@pytest.mark.parametrize(
    "names, frames",
    [
        (["mask000.tif", "mask001.tif"], [0, 1]),
        (["mask009.tif", "mask010.tif"], [9, 10]),
        (["mask9.tif", "mask99.tif", "mask100.tif"], [9, 99, 100]),
        (["man_track8.tif", "man_track012.TIF"], [8, 12]),
        (["well2_t7_cp_masks.tif", "well2_t11_cp_masks.tif"], [7, 11]),
        (["3.tif", "20.tif"], [3, 20]),
        (["b-07.ome.tif", "b-08.ome.tif"], [7, 8]),
        (["img_0005_label.png", "img_0006_label.png"], [5, 6]),
    ],
)
def test_a_folder_of_label_images(tmp_path, names, frames):
    for number, name in enumerate(names):
        if name.endswith(".png"):
            write_image(tmp_path / name, labels(number).astype(np.uint8))
        else:
            write_labels(tmp_path / name, labels(number))
    series = find_series(tmp_path)
    same(series, {frame: labels(number) for number, frame in enumerate(frames)})
    assert series.where[frames[0]] == str(tmp_path / names[0])


def test_other_files_of_a_program_are_passed_over(tmp_path):
    for frame in range(2):
        write_image(tmp_path / f"a_{frame:03d}.tif", np.full((8, 12), 7, np.uint8))
        write_labels(tmp_path / f"a_{frame:03d}_cp_masks.tif", labels(frame))
        (tmp_path / f"a_{frame:03d}_seg.npy").write_bytes(b"no labels")
    same(find_series(tmp_path), {0: labels(0), 1: labels(1)})


def test_what_cellseg_predict_writes(tmp_path):
    for frame in range(2):
        write_labels(tmp_path / f"b_{frame}.tif", labels(frame))
        write_image(tmp_path / f"b_{frame}_probability.tif", np.zeros((8, 12), np.float32))
        write_rois(tmp_path / f"b_{frame}_rois.zip", labels(frame))
    same(find_series(tmp_path), {0: labels(0), 1: labels(1)})


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_stack(tmp_path, in_folder):
    write_labels(tmp_path / "stack.tif", np.array([labels(0), labels(1), labels(2)]))
    series = find_series(tmp_path if in_folder else tmp_path / "stack.tif")
    same(series, {frame: labels(frame) for frame in range(3)})
    assert series.where[2] == f"{tmp_path / 'stack.tif'}, page 2"


def test_an_array_of_numpy(tmp_path):
    np.save(tmp_path / "a.npy", np.array([labels(0), labels(1)], np.uint16))
    same(find_series(tmp_path / "a.npy"), {0: labels(0), 1: labels(1)})
    np.save(tmp_path / "b.npy", np.zeros((2, 8, 12)))
    with pytest.raises(InputError, match=r"b.npy holds float64 of shape \(2, 8, 12\): labels \(T, H, W\)"):
        find_series(tmp_path / "b.npy")
    (tmp_path / "c.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"c.npy is no array of numpy"):
        find_series(tmp_path / "c.npy")


def test_a_roi_set_of_a_sequence(tmp_path):
    write_rois(tmp_path / "a.zip", np.array([labels(0), np.zeros_like(labels()), labels(2)]))
    said = []
    series = find_series(tmp_path / "a.zip", shape=(8, 12), say=said.append)
    same(series, {0: numbered(labels(0)), 1: np.zeros((8, 12), np.int32), 2: numbered(labels(2))})
    assert said == []


def test_a_roi_set_or_geojson_a_frame(tmp_path):
    for frame in range(2):
        (tmp_path / "rois").mkdir(exist_ok=True)
        (tmp_path / "json").mkdir(exist_ok=True)
        write_rois(tmp_path / "rois" / f"a{frame}.zip", labels(frame))
        write_geojson(tmp_path / "json" / f"a{frame}.geojson", labels(frame))
    for name in ("rois", "json"):
        said = []
        # The lower right cell ends in the last row and column: the outlines reach over the whole image.
        same(find_series(tmp_path / name, say=said.append), {0: numbered(labels(0)), 1: numbered(labels(1))})
        assert len(said) == 1 and "the labels are 8x12 pixels" in said[0] and "--images" in said[0]


def test_overlapping_outlines_are_counted(tmp_path):
    square = [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]
    inside = [[[1, 1], [3, 1], [3, 3], [1, 3], [1, 1]]]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": one}} for one in (inside, square)
    ] + [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {"name": "spot"}}]
    import json

    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    said = []
    series = find_series(tmp_path / "a.geojson", shape=(5, 5), say=said.append)
    assert (series.read(0)[:4, :4] == 2).all() and not series.read(0)[4].any()
    assert "1 outlines are no areas and were passed over: spot (Point)." in said[0]
    assert "cells overlap in 4 pixels, which the later one has got; 1 cells have no pixel left." in said[1]


@pytest.mark.parametrize("value", [255, 1])
def test_a_mask_is_refused_or_labelled(tmp_path, value):
    mask = np.where(labels() > 0, value, 0)
    write_labels(tmp_path / "a_1.tif", mask)
    match = rf"a_1.tif is a mask, .* than 0 and {value}, in 2 pieces.*--label-masks.*another id than {value}"
    with pytest.raises(InputError, match=match):
        find_series(tmp_path).read(1)
    assert sorted(np.unique(find_series(tmp_path, label_masks=True).read(1)).tolist()) == [0, 1, 2]


def test_one_cell_and_no_cell_are_no_masks(tmp_path):
    one = np.where(labels() == 3, 1, 0)
    write_labels(tmp_path / "a0.tif", one)
    write_labels(tmp_path / "a1.tif", np.zeros_like(one))
    same(find_series(tmp_path), {0: one, 1: np.zeros_like(one)})


def test_fractions_are_no_labels(tmp_path):
    write_image(tmp_path / "a0.tif", np.full((4, 4), 0.5, np.float32))
    with pytest.raises(InputError, match="labels must be whole numbers, the file holds float32"):
        find_series(tmp_path).read(0)


def test_names_that_are_no_series(tmp_path):
    with pytest.raises(InputError, match=r"the names a1_2 and a2_3 differ in more than one number"):
        frame_numbers([tmp_path / "a1_2.tif", tmp_path / "a2_3.tif"])
    with pytest.raises(InputError, match=r"the names a and b differ in more than one number"):
        frame_numbers([tmp_path / "a.tif", tmp_path / "b.tif"])
    with pytest.raises(InputError, match=r"a01.tif and .*a1.tif are both frame 1"):
        frame_numbers([tmp_path / "a1.tif", tmp_path / "a01.tif", tmp_path / "a2.tif"])
    assert list(frame_numbers([tmp_path / "a_t007_x.tif"])) == [7]
    assert list(frame_numbers([tmp_path / "a.tif"])) == [0]


def test_a_folder_without_labels(tmp_path):
    with pytest.raises(InputError, match="holds no labels: no file there ends in"):
        find_series(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_series(tmp_path / "nowhere")
    (tmp_path / "a.zip").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a.zip is no ROI set of ImageJ"):
        find_series(tmp_path)
    (tmp_path / "a.geojson").write_text("{}")
    with pytest.raises(InputError, match=r"a.geojson is no GeoJSON of cells"):
        find_series(tmp_path / "a.geojson")


@pytest.mark.parametrize("suffix", [".tif", ".zip"])
def test_a_name_that_is_no_text(tmp_path, suffix):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff_0" + suffix.encode())
    (write_rois if suffix == ".zip" else write_labels)(path, labels())
    for given in (tmp_path, path):
        with pytest.raises(InputError, match=rf"a\\xff_0{suffix}' is no UTF-8"):
            find_series(given)


def test_a_position_that_no_stack_has(tmp_path):
    roi = roifile.ImagejRoi.frompoints(np.array([[1, 1], [4, 1], [4, 4]], np.int16), name="far")
    roi.position = 2_000_000_000
    roifile.roiwrite(tmp_path / "a.zip", [roi])
    with pytest.raises(InputError, match=r"a.zip has an outline at position 2000000000.*at most 1048576"):
        find_series(tmp_path / "a.zip", shape=(8, 8))


def test_missing_frames(tmp_path):
    for frame in (2, 3, 7):
        write_labels(tmp_path / f"mask{frame:03d}.tif", labels())
    assert find_series(tmp_path).missing() == [range(4, 7)]
    assert few(range(8)) == "0, 1, 2, 3, 4 and 3 more"
    assert few(iter(range(10**9)), 10**9) == "0, 1, 2, 3, 4 and 999999995 more"


@pytest.mark.parametrize(
    ("names", "frames", "passed_over"),
    [
        (["t98.tif", "t99.tif", "mask100.tif", "mask101.tif"], [100, 101], "2 .* passed over: t98.tif, t99.tif"),
        (["seg_0.tif", "seg_1.tif", "seg_2_label.tif"], [2], "2 .* passed over: seg_0.tif, seg_1.tif"),
        # Images of the frames that have labels are not spoken of.
        (["a_4.tif", "a_5.tif", "a_6.tif", "a_5_mask.tif"], [5], "2 .* passed over: a_4.tif, a_6.tif"),
        (["seg_1.tif", "seg_10_label.tif"], [10], "1 .* passed over: seg_1.tif"),
        (["t5.tif", "t6.tif", "mask5.tif", "mask6.tif"], [5, 6], None),
        (["a.tif", "a_mask.tif"], [0], None),
    ],
)
def test_files_that_are_called_otherwise_are_told(tmp_path, names, frames, passed_over):
    for name in names:
        write_labels(tmp_path / name, labels())
    said = []
    assert list(find_series(tmp_path, say=said.append).load) == frames
    assert len(said) == (passed_over is not None)
    if passed_over:
        assert re.search(passed_over, said[0]) and str(tmp_path) in said[0] and "like the others" in said[0]


@pytest.mark.parametrize(
    ("names", "frame"),
    [
        (["mask000.tif", "mask000.png", "mask001.tif"], 0),
        (["mask007.tif", "mask007.png"], 7),
        (["well2_t07_x.tif", "well2_t07_x.ome.tif", "well2_t08_x.tif"], 7),
    ],
)
def test_one_number_with_two_suffixes(tmp_path, names, frame):
    with pytest.raises(InputError, match=rf"{names[1]} and .*{names[0]} are both frame {frame}. Keep one of them"):
        frame_numbers([tmp_path / name for name in names])


def test_times_are_no_numbers_of_frames(tmp_path):
    paths = [tmp_path / f"m_2024010{day}120000123.tif" for day in (1, 2)]
    with pytest.raises(InputError, match=r"m_20240101120000123.tif: 20240101120000123 .* at most 2147483647"):
        frame_numbers(paths)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (np.full((1, 4, 4), 2**32 + 5, np.int64), "between 0 and 2147483647, found 4294967301. Number the cells"),
        (np.full((1, 4, 4), -4, np.int16), "between 0 and 2147483647, found -4"),
        (np.full((4, 4), 2**31 + 5, np.uint32), "found 2147483653"),
        (np.full((4, 4), 2**64 - 1, np.uint64), "found 18446744073709551615"),
        (np.zeros((0, 32, 32), np.int32), r"holds int32 of shape \(0, 32, 32\): .* at least one pixel"),
        (np.zeros((2, 0, 32), np.int32), r"holds int32 of shape \(2, 0, 32\): .* at least one pixel"),
    ],
)
def test_arrays_that_hold_no_labels(tmp_path, stack, message):
    np.save(tmp_path / "a.npy", stack)
    with pytest.raises(InputError, match=rf"a.npy.*{message}"):
        find_series(tmp_path / "a.npy")


def test_an_id_in_pieces_far_apart():
    made = labels()
    assert scattered_id(made) is None
    # A cell of 3x3 that is cut in two is no such; a pixel of it at the other end of the image is one.
    made[2, 1:4] = 0
    assert scattered_id(made) is None
    made[7, 11] = 70_000
    made[0, 0] = 70_000
    assert scattered_id(made) == 70_000
    assert scattered_id(np.zeros((4, 4), np.int32)) is None
    # A long cell of one piece.
    line = np.zeros((4, 40), np.int32)
    line[1] = 1
    assert scattered_id(line) is None


def test_outlines_in_frames_and_sections_are_no_sequence(tmp_path):
    rois = [polygon(1, 1, 5, 5, t_position=t, z_position=z, name=f"{t}-{z}") for t, z in ((1, 1), (2, 1), (1, 3))]
    save(tmp_path / "a.zip", rois)
    with pytest.raises(InputError, match=r"a\.zip holds outlines in frames and in sections, such as '2-1'; volumes"):
        find_series(tmp_path / "a.zip")
    save(tmp_path / "a.zip", rois[:2])
    assert len(find_series(tmp_path / "a.zip")) == 2
