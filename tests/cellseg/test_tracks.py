import numpy as np
import pytest

from cellseg.tracks import check_same_frames, check_span, outline_files, read_result, read_truth
from pipelines.errors import InputError
from pipelines.images import write_labels
from pipelines.tracks import Track
from tests import sequences


@pytest.fixture
def folders(tmp_path):
    """(01_GT, 01_RES) of two cells in three frames, all found."""
    return sequences.write_ctc(tmp_path, sequences.two_cells(), sequences.two_cells())


def test_reads_truth_and_result(folders):
    truth, result = folders
    labels, table = sequences.two_cells()
    for read in (read_truth(truth), read_result(result)):
        assert list(read.files) == [0, 1, 2]
        assert read.tracks == table
        np.testing.assert_array_equal(read.read(1), labels[1])
    assert [path.name for path in outline_files(truth).values()] == [f"man_seg00{frame}.tif" for frame in range(3)]


def test_names_the_files_of_a_frame(folders):
    _, result = folders
    assert read_result(result).where(2) == f"{result / 'mask002.tif'} and {result / 'res_track.txt'}"


def test_a_result_may_have_no_table(folders):
    _, result = folders
    (result / "res_track.txt").unlink()
    assert read_result(result).tracks is None


def test_a_volume_keeps_its_slices(tmp_path):
    write_labels(tmp_path / "mask000.tif", np.ones((2, 3, 4), np.int32))
    assert read_result(tmp_path).read(0).shape == (2, 3, 4)


def test_other_files_are_passed_over(folders):
    _, result = folders
    write_labels(result / "mask000_overlay.tif", np.ones((1, 7), np.int32))
    assert list(read_result(result).files) == [0, 1, 2]


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*TRA. Files man_trackNNN.tif"):
        read_truth(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder .*SEG. Files man_segNNN.tif"):
        outline_files(tmp_path)


def test_a_folder_without_masks(tmp_path):
    write_labels(tmp_path / "t000.tif", np.ones((1, 7), np.int32))
    with pytest.raises(InputError, match="holds no file maskNNN.tif"):
        read_result(tmp_path)


def test_two_files_of_one_frame(folders):
    _, result = folders
    write_labels(result / "mask0002.tif", np.ones((1, 7), np.int32))
    with pytest.raises(InputError, match=r"mask0002.tif and .*mask002.tif are both frame 2"):
        read_result(result)


def test_slices_of_a_volume(folders):
    truth, _ = folders
    write_labels(truth / "SEG" / "man_seg_000_001.tif", np.ones((1, 7), np.int32))
    with pytest.raises(InputError, match="man_seg_000_001.tif is one slice of a 3-D volume"):
        outline_files(truth)


def test_a_table_that_outlives_the_images(folders):
    _, result = folders
    (result / "res_track.txt").write_text("1 0 2 0\n2 0 9 0\n")
    with pytest.raises(
        InputError, match=r"res_track.txt: track 2 lives from frame 0 to 9, .* frames 3, 4, 5, 6, 7 and 2 "
    ):
        read_result(result)


def test_a_missing_image_within_a_track(folders):
    _, result = folders
    (result / "mask001.tif").unlink()
    with pytest.raises(
        InputError, match=r"track 1 .* there is no image of frame 1 \(the last image is that of frame 2\)"
    ):
        read_result(result)


def test_no_image_at_all():
    with pytest.raises(InputError, match="table: track 1 .* no image of frame 0 .there is no image at all"):
        check_span({1: Track(1, 0, 0, 0)}, [], "table")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 2\n", r"res_track.txt, line 1 is '1 0 2': four whole numbers"),
        ("1 0 2 0\n2 0 2 5\n", "line 2: the parent of track 2 is 5, but the table has no such track"),
        ("1 0 2 0\n2 1 2 1\n", "line 2: track 2 begins in frame 1, but its parent 1 lives until frame 2"),
        ("1 0 2 1\n", "line 1: track 1 is its own parent"),
        ("1 0 2 0\n1 0 2 0\n", "line 2: label 1 stands in line 1 already"),
    ],
)
def test_tables_that_contradict_themselves(folders, text, message):
    _, result = folders
    (result / "res_track.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_result(result)


def test_frames_of_one_side_only(folders):
    truth, result = folders
    (truth / "TRA" / "man_track001.tif").rename(truth / "TRA" / "man_track004.tif")
    for table in (truth / "TRA" / "man_track.txt", result / "res_track.txt"):
        table.unlink()
    (result / "mask002.tif").unlink()
    with pytest.raises(InputError) as caught:
        check_same_frames(read_truth(truth), read_result(result))
    assert f"frames 2, 4 in {truth / 'TRA'} have no file in {result}" in str(caught.value)
    assert f"frame 1 in {result} has no file in {truth / 'TRA'}" in str(caught.value)


def test_a_track_over_more_frames_than_memory_holds():
    """Found by fuzzing: frames that are not there were listed before they were counted."""
    with pytest.raises(
        InputError, match=r"no image of frames 2, 3, 4, 5, 6 and 2147483640 more \(the last .* frame 9\)"
    ):
        check_span({1: Track(1, 0, 2**31 - 1, 0)}, [1, 0, 9], "table")
