import pytest

from pipelines.errors import InputError
from pipelines.numbering import frame_number, gaps


def test_gaps_are_ranges_between_neighbours():
    assert gaps([7, 2, 3]) == [range(4, 7)]
    assert gaps([0, 1, 2]) == gaps([5]) == gaps([]) == []
    assert [len(gap) for gap in gaps([0, 2**31 - 1, 2])] == [1, 2**31 - 4]


@pytest.mark.parametrize("digits", ["2147483648", "20240101120000123", "9" * 40])
def test_a_time_is_no_frame(digits):
    with pytest.raises(InputError, match=rf"m_{digits}.tif: {digits} in its name is no number of a frame.* time"):
        frame_number(digits, f"m_{digits}.tif")


def test_numbers_with_zeros_before_them():
    assert frame_number("0000000000000007", "a.tif") == 7
    assert frame_number("2147483647", "a.tif") == 2**31 - 1
