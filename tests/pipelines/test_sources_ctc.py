"""Layout ctc: frames with gold, silver or marker truth."""

import pickle

import numpy as np
import pytest
import tifffile

from pipelines.errors import InputError
from pipelines.sources import SOURCES
from pipelines.sources.ctc import find, tracks_file


def save(path, value, shape=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.full(shape, value, np.uint16))


@pytest.fixture
def data(tmp_path):
    """Two sequences of four frames: gold for frames 1 and 3, silver for sequence 01 alone."""
    for sequence in ("01", "02"):
        for frame in range(4):
            save(tmp_path / sequence / f"t{frame:03d}.tif", 100 * int(sequence) + frame)
            save(tmp_path / f"{sequence}_GT" / "TRA" / f"man_track{frame:03d}.tif", frame)
        for frame in (1, 3):
            save(tmp_path / f"{sequence}_GT" / "SEG" / f"man_seg{frame:03d}.tif", 10 + frame)
    for frame in range(4):
        save(tmp_path / "01_ST" / "SEG" / f"man_seg{frame:03d}.tif", 20 + frame)
    (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 3 0\n")
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
    assert items[3].files == (data / "02" / "t003.tif", data / "02_GT" / "SEG" / "man_seg003.tif")


@pytest.mark.parametrize(("truth", "label"), [("silver", 22), ("markers", 2)])
@pytest.mark.parametrize("sequence", ["01", 1, "1"])
def test_silver_and_markers_of_one_sequence(data, truth, label, sequence):
    items = find(data, truth=truth, sequence=sequence)
    assert [item.name for item in items] == ["01/t000", "01/t001", "01/t002", "01/t003"]
    assert items[2].load().labels[0, 0] == label


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
