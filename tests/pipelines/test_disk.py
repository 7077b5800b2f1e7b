import fcntl
import pickle

import numpy as np
import pytest

from pipelines.disk import DiskArray, clipped, work_folder
from pipelines.errors import InputError


@pytest.mark.parametrize("shape", [(7, 11), (7, 11, 3)])
def test_windows_come_back_as_they_were_written(tmp_path, shape):
    array = DiskArray(tmp_path / "a", shape, np.float32)
    expected = np.zeros(shape, np.float32)
    rng = np.random.default_rng(0)
    for row, column, height, width in ((0, 0, 7, 11), (2, 3, 4, 5), (6, 10, 1, 1), (0, 5, 7, 2)):
        window = rng.random((height, width, *shape[2:])).astype(np.float32)
        array.write(row, column, window)
        expected[row : row + height, column : column + width] = window
        np.testing.assert_array_equal(array.read(slice(0, 7)), expected)
        np.testing.assert_array_equal(array.read(slice(1, 99), slice(-4, 6)), expected[1:, :6])


def test_a_turned_window_is_written_as_it_is_seen(tmp_path):
    array = DiskArray(tmp_path / "a", (4, 3), np.int32)
    array.write(0, 0, np.arange(12, dtype=np.int32).reshape(3, 4).T)
    assert array.read(slice(1, 2)).tolist() == [[1, 5, 9]]


def test_what_was_never_written_is_zero_and_takes_no_room(tmp_path):
    array = DiskArray(tmp_path / "a", (100_000, 100_000), np.float32)
    assert array.read(slice(99_999, None), slice(99_990, None)).tolist() == [[0.0] * 10]
    assert (tmp_path / "a").stat().st_blocks * 512 < 2**20


def test_a_window_beyond_the_border_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"A 2x2 window at \(3, 0\) does not lie in \(4, 4\)"):
        DiskArray(tmp_path / "a", (4, 4), np.uint8).write(3, 0, np.zeros((2, 2)))


def test_an_array_goes_to_another_process(tmp_path):
    array = DiskArray(tmp_path / "a", (2, 2), np.uint8)
    array.write(0, 0, np.array([[1, 2], [3, 4]], np.uint8))
    assert pickle.loads(pickle.dumps(array)).read(slice(0, 2)).tolist() == [[1, 2], [3, 4]]


def test_a_file_that_shrinks_is_noticed(tmp_path):
    array = DiskArray(tmp_path / "a", (4, 4), np.uint8)
    array.read(slice(0, 4))
    with open(tmp_path / "a", "r+b") as file:
        file.truncate(10)
    with pytest.raises(OSError, match="a was cut short while it was in use"):
        array.read(slice(0, 4))


def test_clipped_windows():
    assert clipped(slice(-3, 4), 10) == slice(0, 4)
    assert clipped(slice(8, 14), 10) == slice(8, 10)
    assert clipped(slice(None), 10) == slice(0, 10)
    assert clipped(slice(12, 14), 10) == slice(10, 10)


def test_a_work_folder_is_gone_afterwards_and_after_an_error(tmp_path):
    with work_folder(tmp_path / "out" / "a.tif") as folder:
        (folder / "file").write_text("x")
        assert folder.parent == tmp_path / "out"
    with pytest.raises(ZeroDivisionError), work_folder(tmp_path / "out" / "a.tif") as folder:
        (folder / "file").write_text("x")
        raise ZeroDivisionError
    assert not list((tmp_path / "out").iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / ".a.tif.work.partial"
    left.mkdir()
    (left / "old").write_text("x")
    (left / "folder").mkdir()
    (left / "folder" / "older").write_text("x")
    with work_folder(tmp_path / "a.tif") as folder:
        assert folder == left and not list(folder.iterdir())


def test_a_work_folder_that_was_removed_as_a_leftover_meanwhile_is_made_again(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def slow(handle, flags):
        real(handle, flags)
        calls.append(handle)
        if len(calls) == 1:  # another process has removed the folder between our making and locking it
            (tmp_path / ".a.tif.work.partial").rmdir()

    monkeypatch.setattr(fcntl, "flock", slow)
    with work_folder(tmp_path / "a.tif") as folder:
        (folder / "mine").write_text("x")
    assert len(calls) == 2


def test_two_writers_of_one_file_are_refused(tmp_path):
    with work_folder(tmp_path / "a.tif") as folder:
        (folder / "mine").write_text("x")
        expected = pytest.raises(InputError, match=r"Another process is writing .*a\.tif at this moment")
        with expected, work_folder(tmp_path / "a.tif"):
            pass
        assert (folder / "mine").exists()
