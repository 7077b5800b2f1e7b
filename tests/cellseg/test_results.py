import numpy as np
import pytest

from cellseg import results
from pipelines.errors import InputError


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", [0, 0.5, 0.75]), ("float16", [0, 0.5, 0.75]), ("uint8", [0, 128, 191])],  # 127.5 -> 128, 191.25 -> 191
)
def test_a_probability_is_stored_as_the_type_says(dtype, expected):
    stored = results.stored(np.array([[0, 0.5, 0.75]], np.float32), dtype)
    assert stored.dtype == dtype
    assert stored.tolist() == [expected]


def test_a_probability_a_little_over_1_stays_255():
    assert results.stored(np.array([1.003, -0.003], np.float32), "uint8").tolist() == [255, 0]


@pytest.mark.parametrize("digits", ["7", "98", "098", "100", "0012"])
def test_frames_of_the_challenge_keep_their_digits(tmp_path, digits):
    assert results.result_stem(tmp_path / f"t{digits}.tif") == f"mask{digits}"


@pytest.mark.parametrize("name", ["t.tif", "t7a.tif", "at7.tif", "t7_x.tif"])
def test_other_names_stay(tmp_path, name):
    assert results.result_stem(tmp_path / name) == name.removesuffix(".tif")


def test_an_ome_zarr_is_one_image_and_no_folder_of_images(tmp_path):
    (tmp_path / "in" / "b.zarr" / "0").mkdir(parents=True)
    (tmp_path / "in" / "sub").mkdir()
    for name in ("a.tif", "c.tif", "notes.txt", ".hidden.zarr"):
        (tmp_path / "in" / name).touch()
    found = results.find_inputs([tmp_path / "in", tmp_path / "in" / "b.zarr"])
    assert [path.name for path in found] == ["a.tif", "b.zarr", "c.tif", "b.zarr"]
    for name in ("a.tif", "c.tif"):
        (tmp_path / "in" / name).unlink()
    assert [path.name for path in results.find_inputs([tmp_path / "in"])] == ["b.zarr"]
    with pytest.raises(InputError, match="sub holds no image"):
        results.find_inputs([tmp_path / "in" / "sub"])
