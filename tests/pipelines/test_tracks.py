"""CTC track tables: every rule that a table can break is named with its line."""

import pytest

from pipelines.errors import InputError
from pipelines.tracks import Track, check_frame, read_tracks, write_tracks


def write(folder, text):
    path = folder / "man_track.txt"
    path.write_text(text)
    return path


def test_a_division_and_a_gap(tmp_path):
    # 1 divides into 2 and 5; 7 is 5 seen again after two frames in which it could not be seen.
    path = write(tmp_path, "1 0 3 0\n\n  2 4 9 1\r\n5\t4 4 1\n7 7 7 5\n")
    assert read_tracks(path) == {
        1: Track(1, 0, 3, 0),
        2: Track(2, 4, 9, 1),
        5: Track(5, 4, 4, 1),
        7: Track(7, 7, 7, 5),
    }
    assert list(read_tracks(path)) == [1, 2, 5, 7]


def test_a_parent_may_stand_below_its_child(tmp_path):
    assert read_tracks(write(tmp_path, "2 4 9 1\n1 0 3 0\n"))[2].parent == 1


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_table(tmp_path, text):
    assert read_tracks(write(tmp_path, text)) == {}


def test_a_table_that_notepad_has_saved(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf1 0 4 0\r\n2 5 9 1\r\n")
    assert [(one.label, one.begin, one.end) for one in read_tracks(tmp_path / "a.txt").values()] == [
        (1, 0, 4),
        (2, 5, 9),
    ]


def test_a_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*man_track\.txt\. A table of tracks"):
        read_tracks(tmp_path / "man_track.txt")


@pytest.mark.parametrize("line", ["3 0 5", "3 0 5 0 1", "3 0 x 0", "3 0 5 -1", "3 0 5.0 0", "3;0;5;0", "³ 0 5 0"])
def test_a_line_that_is_not_four_numbers(tmp_path, line):
    with pytest.raises(InputError, match=rf"man_track\.txt, line 3 is '{line}': four whole numbers were expected"):
        read_tracks(write(tmp_path, f"1 0 9 0\n\n{line}\n"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 5 0", r"line 2: a track has label 0, which is the background"),
        ("3 6 5 0", r"line 2: track 3 ends in frame 5, before it begins in 6"),
        ("1 6 7 0", r"line 2: label 1 stands in line 1 already"),
        ("3 6 7 3", r"line 2: track 3 is its own parent"),
        ("3 6 7 4", r"line 2: the parent of track 3 is 4, but the table has no such track"),
        ("3 4 7 1", r"line 2: track 3 begins in frame 4, but its parent 1 lives until frame 4\. A parent ends before"),
    ],
)
def test_rules_that_a_table_breaks(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        read_tracks(write(tmp_path, f"1 0 4 0\n{line}\n"))


TRACKS = {label: Track(label, begin, end, 0) for label, begin, end in [(1, 0, 3), (2, 3, 9), (3, 4, 9)]}


@pytest.mark.parametrize(
    ("frame", "ids"), [(0, [0, 1]), (3, [1, 2]), (4, [0, 2, 3]), (9, [3, 2, 0]), (10, [0]), (10, [])]
)
def test_markers_that_agree(frame, ids):
    assert check_frame(TRACKS, ids, frame, "a and b") is None


def test_markers_that_disagree():
    with pytest.raises(InputError, match=r"^a\.tif and b\.txt disagree: the image holds 4, which the table does not "):
        check_frame(TRACKS, [1, 2, 4], 3, "a.tif and b.txt")
    with pytest.raises(
        InputError, match=r"the table lets 2 live in frame 3, but the image does not hold them\. Correct"
    ):
        check_frame(TRACKS, [0, 1], 3, "a.tif and b.txt")
    with pytest.raises(InputError, match=r"image holds 1, which .* in frame 4; the table lets 2, 3 live in frame 4"):
        check_frame(TRACKS, [0, 1], 4, "a.tif and b.txt")
    with pytest.raises(InputError, match=r"the image holds 11, 12, 13, 14, 15 and 3 more, which"):
        check_frame(TRACKS, [1, *range(11, 19)], 0, "a.tif and b.txt")


def test_written_tables_are_read_again(tmp_path):
    tracks = {2: Track(2, 3, 5, 1), 1: Track(1, 0, 2, 0)}
    write_tracks(tmp_path / "a.txt", tracks)
    assert (tmp_path / "a.txt").read_text() == "1 0 2 0\n2 3 5 1\n"
    assert read_tracks(tmp_path / "a.txt") == tracks
    write_tracks(tmp_path / "b.txt", {})
    assert read_tracks(tmp_path / "b.txt") == {}


def test_a_table_that_contradicts_itself_is_not_written(tmp_path):
    for tracks, match in (
        ({1: Track(2, 0, 1, 0)}, "cannot stand under label 1"),
        ({1: Track(1, 2, 1, 0)}, "cannot stand under label 1"),
        ({1: Track(1, 0, 1, 7)}, "the parent of track 1 is 7"),
        ({1: Track(1, 0, 1, 0), 2: Track(2, 1, 1, 1)}, "lives until frame 1"),
    ):
        with pytest.raises(ValueError, match=match):
            write_tracks(tmp_path / "a.txt", tracks)
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize("number", ["2147483648", "9" * 25, "9" * 5000], ids=["2**31", "25 digits", "5000 digits"])
def test_numbers_that_are_no_ids_and_no_frames(tmp_path, number):
    """Found by fuzzing: a frame of 93 digits took all memory, a number of 5000 digits is none for Python."""
    for text in (f"{number} 0 2 0\n", f"1 0 {number} 0\n"):
        with pytest.raises(
            InputError, match=r"man_track\.txt, line 1 is .*: no label and no frame is higher than 2147483647"
        ):
            read_tracks(write(tmp_path, text))
    assert read_tracks(write(tmp_path, "1 0 2147483647 0\n2 0000000000000002 3 0\n"))[2] == Track(2, 2, 3, 0)
