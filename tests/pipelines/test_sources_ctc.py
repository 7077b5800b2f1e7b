"""Layout ctc: frames with gold, silver or marker truth, and the cells that partial gold truth leaves out."""

import math
import os
import pickle

import cv2
import numpy as np
import pytest
import tifffile

from pipelines.errors import InputError
from pipelines.sources import SOURCES
from pipelines.sources.ctc import find, median_diameter, tracks_file, unannotated
from tests.cells import empty, two_touching
from tests.datasets import write_ctc


def save(path, value, shape=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.full(shape, value, np.uint16))


@pytest.fixture
def data(tmp_path):
    """Two sequences of four frames: gold for frames 1 and 3, silver and a table of tracks for sequence 01 alone.

    Every image holds one value everywhere: the marker of frame 2 is a cell 2 as large as the frame.
    """
    for sequence in ("01", "02"):
        for frame in range(4):
            save(tmp_path / sequence / f"t{frame:03d}.tif", 100 * int(sequence) + frame)
            save(tmp_path / f"{sequence}_GT" / "TRA" / f"man_track{frame:03d}.tif", frame)
        for frame in (1, 3):
            save(tmp_path / f"{sequence}_GT" / "SEG" / f"man_seg{frame:03d}.tif", 10 + frame)
    for frame in range(4):
        save(tmp_path / "01_ST" / "SEG" / f"man_seg{frame:03d}.tif", 20 + frame)
    (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text("1 1 1 0\n2 2 2 0\n3 3 3 0\n")
    return tmp_path


def test_gold_gives_only_its_frames(data):
    items = SOURCES["ctc"](data, truth="gold")
    assert [(item.name, item.source, item.frame) for item in items] == [
        ("01/t001", "01", 1),
        ("01/t003", "01", 3),
        ("02/t001", "02", 1),
        ("02/t003", "02", 3),
    ]
    sample = pickle.loads(pickle.dumps(items[3])).load()
    assert (sample.name, sample.source, sample.frame) == ("02/t003", "02", 3)
    assert (sample.image[0, 0, 0], sample.labels[0, 0]) == (203, 13)
    assert sample.ignore is None
    truth = data / "02_GT"
    files = (data / "02" / "t003.tif", truth / "SEG" / "man_seg003.tif", truth / "TRA" / "man_track003.tif")
    assert items[3].files == files
    # Sequence 01 also has a table of tracks, against which the markers are checked.
    assert items[1].files[2:] == tuple(data / "01_GT" / "TRA" / name for name in ("man_track003.tif", "man_track.txt"))


def test_auto_is_silver_where_every_sequence_has_it_otherwise_gold(data):
    assert [item.name for item in find(data, truth="auto")] == [item.name for item in find(data, truth="gold")]
    assert [item.files for item in find(data, truth="auto", sequence="01")] == [
        item.files for item in find(data, truth="silver", sequence="01")
    ]


@pytest.mark.parametrize(("truth", "label"), [("silver", 22), ("markers", 2)])
@pytest.mark.parametrize("sequence", ["01", 1, "1"])
def test_silver_and_markers_of_one_sequence(data, truth, label, sequence):
    items = find(data, truth=truth, sequence=sequence)
    assert [item.name for item in items] == ["01/t000", "01/t001", "01/t002", "01/t003"]
    sample = items[2].load()
    assert sample.labels[0, 0] == label and sample.ignore is None
    tables = [path for path in items[2].files if path.name == "man_track.txt"]
    assert len(tables) == (truth == "markers") and len(items[2].files) == 2 + len(tables)


def test_four_digits_and_gaps(tmp_path):
    for frame in (0, 9, 1000):
        save(tmp_path / "01" / f"t{frame:04d}.tif", 1)
        save(tmp_path / "01_ST" / "SEG" / f"man_seg{frame:04d}.tif", 1)
    items = find(tmp_path, truth="silver")
    assert [(item.name, item.frame) for item in items] == [("01/t0000", 0), ("01/t0009", 9), ("01/t1000", 1000)]


def test_tracks_file_is_located(data):
    assert tracks_file(data, "01") == data / "01_GT" / "TRA" / "man_track.txt"
    assert tracks_file(data, "02") is None


def test_missing_truth_says_what_there_is(data, tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"no folder .*02_ST.SEG, so sequence 02 has no silver truth\. It has: gold, markers; set data\.truth",
    ):
        find(data, truth="silver")
    save(tmp_path / "03" / "t000.tif", 1)
    with pytest.raises(FileNotFoundError, match=r"03_GT.SEG, .* It has no truth at all"):
        find(tmp_path, sequence="03")
    with pytest.raises(InputError, match=r"data\.truth is 'golden'\. Did you mean 'gold'\? Known: gold, silver, mark"):
        find(data, truth="golden")


def test_truth_without_image_is_named(data):
    (data / "01" / "t001.tif").unlink()
    (data / "01" / "t003.tif").unlink()
    with pytest.raises(
        InputError, match=r"2 of 2 truth files in .*01_GT.SEG have no image in .*01: man_seg001\.tif, m"
    ):
        find(data)


def test_wrong_folders(data):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        find(data / "nowhere")
    with pytest.raises(InputError, match=rf"01 holds no sequence: .*Give its parent folder, {data}"):
        find(data / "01")
    with pytest.raises(FileNotFoundError, match=r"has no sequence '07'\. It has: 01, 02"):
        find(data, sequence="07")
    save(data / "03" / "image.tif", 1)
    save(data / "03_GT" / "SEG" / "man_seg000.tif", 1)
    with pytest.raises(InputError, match=r"03 holds no file tNNN\.tif"):
        find(data, sequence="03")


def test_files_that_do_not_fit(data):
    save(data / "01_GT" / "SEG" / "man_seg0001.tif", 1)
    with pytest.raises(InputError, match=r"man_seg0001\.tif and .*man_seg001\.tif are both frame 1"):
        find(data)
    save(data / "02_GT" / "SEG" / "man_seg_001_004.tif", 1)
    with pytest.raises(InputError, match=r"man_seg_001_004\.tif is one slice of a 3-D volume"):
        find(data, sequence="02")


def test_sizes_and_volumes_are_refused_with_the_file(data):
    save(data / "01_GT" / "SEG" / "man_seg001.tif", 1, shape=(5, 6))
    save(data / "01" / "t003.tif", 1, shape=(2, 4, 6))
    first, second = find(data, sequence="01")
    with pytest.raises(InputError, match=r"01/t001: the image is 4x6 pixels, but its labels are 5x6.*man_seg001\.tif"):
        first.load()
    with pytest.raises(InputError, match=r"t003\.tif holds 2 pages; a file with one image was expected"):
        second.load()
    save(data / "02_GT" / "SEG" / "man_seg001.tif", 1, shape=(2, 4, 6))
    with pytest.raises(InputError, match=r"man_seg001\.tif holds 2 pages; 2-D truth"):
        find(data, sequence="02")[0].load()


def test_two_folders_of_one_number(data):
    save(data / "1" / "t000.tif", 1)
    for sequence in (None, "01", "02"):
        with pytest.raises(InputError, match=r"[/\\]01 and .*[/\\]1 are both sequence 1\. Rename one of the folders"):
            find(data, sequence=sequence)


def test_a_marker_is_annotated_if_half_of_it_lies_in_one_cell():
    labels = two_touching()  # cells in columns 1 to 3 and 4 to 6, rows 1 to 4
    markers = empty()
    markers[1, 0:2] = 70_000  # one of two pixels in cell 1: annotated
    assert unannotated(labels, markers, 1.0) is None
    markers[4, 2:6] = 5  # two of four in cell 1, two in cell 2
    assert unannotated(labels, markers, 1.0) is None
    markers[0, 5:8], markers[1, 7] = 9, 9  # none of four
    markers[1, 6] = 9  # one of five in cell 2
    alone = unannotated(labels, markers, math.nan)
    # Its own pixels, but not the one in the cell.
    assert np.argwhere(alone).tolist() == [[0, 5], [0, 6], [0, 7], [1, 7]]


def test_no_marker_and_no_cell_at_all():
    assert unannotated(two_touching(), empty(), 3.0) is None
    assert unannotated(empty(), empty(), math.nan) is None
    markers = empty()
    markers[2, 2:4] = 1
    np.testing.assert_array_equal(unannotated(empty(), markers, math.nan), markers > 0)


def test_the_disc_is_one_and_a_half_diameters_wide_and_leaves_cells_alone():
    labels = np.zeros((60, 60), np.int32)
    labels[20:40, 34:50] = 3
    markers = np.zeros_like(labels)
    markers[29:32, 24:27] = 1  # centroid (30, 25)
    markers[30, 40] = 2  # in the cell
    ignore = unannotated(labels, markers, 16.0)
    rows, columns = np.indices(labels.shape)
    # Radius 1.5 * 16 / 2 = 12.
    expected = (np.hypot(rows - 30, columns - 25) < 12) & (labels == 0)
    np.testing.assert_array_equal(ignore, expected)
    assert ignore.dtype == bool and ((np.hypot(rows - 30, columns - 25) < 12) & (labels > 0)).any()


def test_a_disc_ends_at_the_edge_of_the_image():
    markers = np.zeros((9, 9), np.int32)
    markers[0, 8] = 1
    ignore = unannotated(np.zeros_like(markers), markers, 2.0)  # radius 1.5
    assert np.argwhere(ignore).tolist() == [[0, 7], [0, 8], [1, 7], [1, 8]]


def partial_gold(folder):
    """Two frames of three cells in squares of 8x8; gold has two of them in frame 0 and one, of 4x16, in frame 1."""
    squares = np.zeros((40, 60), np.uint16)
    for cell, column in enumerate((6, 26, 46), start=1):
        squares[16:24, column : column + 8] = cell
    save(folder / "01" / "t000.tif", 5, squares.shape)
    save(folder / "01" / "t001.tif", 6, squares.shape)
    gold = [np.where(squares == 1, 8, np.where(squares == 3, 9, 0)), np.zeros_like(squares)]
    gold[1][30:34, 40:56] = 1
    for frame, labels in enumerate(gold):
        for kind, name, array in (("SEG", "man_seg", labels), ("TRA", "man_track", squares)):
            path = folder / "01_GT" / kind / f"{name}00{frame}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, array.astype(np.uint16))
    (folder / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 1 0\n2 0 1 0\n3 0 1 0\n")
    return squares, gold


def test_cells_that_gold_truth_leaves_out_are_ignored(tmp_path):
    squares, gold = partial_gold(tmp_path)
    sample = pickle.loads(pickle.dumps(find(tmp_path)[0])).load()
    assert np.unique(sample.labels).tolist() == [0, 8, 9]
    # Three cells of 64 pixels: diameter 2 sqrt(64 / pi) = 9.03, so the disc's radius is 6.77; cell 2's is round
    # (19.5, 29.5), and its corners lie 4.9 away.
    rows, columns = np.indices(squares.shape)
    np.testing.assert_array_equal(sample.ignore, np.hypot(rows - 19.5, columns - 29.5) < 1.5 * math.sqrt(64 / math.pi))
    assert (sample.ignore & (squares == 2)).sum() == 64 and not (sample.ignore & (gold[0] > 0)).any()


@pytest.mark.parametrize("suffix", [".TIF", ".Tiff", ".png"])
def test_markers_with_another_suffix_are_markers(tmp_path, suffix):
    partial_gold(tmp_path)
    folder = tmp_path / "01_GT" / "TRA"
    expected = [item.load().ignore for item in find(tmp_path)]
    for frame in range(2):
        old = folder / f"man_track00{frame}.tif"
        if suffix == ".png":
            cv2.imwrite(str(old.with_suffix(suffix)), tifffile.imread(old))
            old.unlink()
        else:
            old.rename(old.with_suffix(suffix))
    items = find(tmp_path)
    for item, ignore in zip(items, expected, strict=True):
        np.testing.assert_array_equal(item.load().ignore, ignore)
    assert expected[0].any()
    (folder / "man_track.txt").write_text("1 0 1 7\n")
    with pytest.raises(InputError, match="the parent of track 1 is 7"):
        find(tmp_path)


def test_without_markers_nothing_is_ignored(tmp_path):
    partial_gold(tmp_path)
    (tmp_path / "01_GT" / "TRA" / "man_track000.tif").unlink()
    first, second = find(tmp_path)
    assert first.load().ignore is None and second.load().ignore.any()
    assert [path.name for path in first.files] == ["t000.tif", "man_seg000.tif"]
    assert [path.name for path in second.files][2:] == ["man_track001.tif", "man_track.txt"]
    (tmp_path / "01_GT" / "TRA" / "man_track001.tif").unlink()
    assert find(tmp_path)[1].load().ignore is None


def test_the_median_is_taken_over_all_files_and_again_when_one_has_changed(tmp_path):
    folder = tmp_path / "SEG"
    for frame, (height, width) in enumerate([(2, 2), (4, 4)]):
        labels = np.zeros((9, 9), np.uint16)
        labels[:height, :width] = 500
        labels[8, 8] = frame  # a cell of one pixel in frame 1
        folder.mkdir(exist_ok=True)
        tifffile.imwrite(folder / f"man_seg{frame:03d}.tif", labels)
    # Areas 4, 16 and 1: the middle one is 4.
    assert median_diameter(folder) == pytest.approx(2 * math.sqrt(4 / math.pi))
    labels[8, 8], labels[:6, 6:8] = 0, 3
    tifffile.imwrite(folder / "man_seg001.tif", labels)
    os.utime(folder / "man_seg001.tif", ns=(1, 1))
    # Areas 4, 16 and 12.
    assert median_diameter(folder) == pytest.approx(2 * math.sqrt(12 / math.pi))
    for path in folder.iterdir():
        tifffile.imwrite(path, 0 * labels)
    assert math.isnan(median_diameter(folder))


@pytest.mark.parametrize("truth", ["markers", "gold"])
def test_markers_that_disagree_with_the_tracks(tmp_path, truth):
    partial_gold(tmp_path)
    table = tmp_path / "01_GT" / "TRA" / "man_track.txt"
    table.write_text("1 0 1 0\n2 0 0 0\n3 0 1 0\n4 1 1 0\n")
    first, second = find(tmp_path, truth=truth)
    assert first.load().frame == 0
    with pytest.raises(
        InputError,
        match=r"man_track001\.tif and .*man_track\.txt disagree: the image holds 2, which the table does not let live "
        r"in frame 1; the table lets 4 live in frame 1",
    ):
        second.load()
    table.write_text("1 0 1 7\n")
    with pytest.raises(InputError, match=r"man_track\.txt, line 1: the parent of track 1 is 7, but"):
        find(tmp_path, truth=truth)
    table.unlink()
    assert [item.load().frame for item in find(tmp_path, truth=truth)] == [0, 1]


def test_frames_far_apart_are_not_counted_through(tmp_path):
    for frame in ("0000000000", "2000000000"):
        save(tmp_path / "01" / f"t{frame}.tif", 5)
        save(tmp_path / "01_GT" / "TRA" / f"man_track{frame}.tif", 1)
    (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 2000000000 0\n")
    items = find(tmp_path, truth="markers")
    assert [(item.frame, item.load().labels.max()) for item in items] == [(0, 1), (2_000_000_000, 1)]
    save(tmp_path / "01_GT" / "TRA" / "man_track2147483648.tif", 1)
    with pytest.raises(InputError, match="man_track2147483648.tif: 2147483648 in its name is no number of a frame"):
        find(tmp_path, truth="markers")


def test_silver_truth_is_not_checked_against_the_tracks(tmp_path):
    write_ctc(tmp_path, 2)
    (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text("nonsense\n")
    assert len([item.load() for item in find(tmp_path, truth="silver")]) == 2


def test_markers_of_another_size_than_the_gold_truth(tmp_path):
    partial_gold(tmp_path)
    tifffile.imwrite(tmp_path / "01_GT" / "TRA" / "man_track000.tif", np.array([[1, 2, 3]], np.uint16))
    with pytest.raises(InputError, match=r"01/t000: .*man_seg000\.tif is 40x60 pixels, but .*man_track000\.tif is 1x3"):
        find(tmp_path)[0].load()


def test_tracks_that_live_on_after_the_images_are_refused(tmp_path):
    partial_gold(tmp_path)
    table = tmp_path / "01_GT" / "TRA" / "man_track.txt"
    table.write_text(table.read_text() + "4 50 60 0\n")
    with pytest.raises(
        InputError, match="1 tracks live on after the last marker image, that of frame 1: .* track 4, from 50"
    ):
        find(tmp_path, truth="gold")
