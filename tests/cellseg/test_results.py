import numpy as np
import pytest
import tifffile

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


@pytest.mark.parametrize(
    ("stale", "asked"),
    [
        ("im0_rois.zip", {"roi": True}),
        ("im0.geojson", {"geojson": True}),
        ("im0_overlay.png", {"overlay": True}),
        ("im0_probability.tif", {"probability": "uint8"}),
        ("im0_classes.tif", {"classes": True}),
        ("im0_scores.csv", {"scores": True}),
        ("cells.csv", {"measure": True}),
    ],
)
def test_nothing_of_the_old_labels_stays_beside_new_ones(tmp_path, stale, asked):
    image, target = tmp_path / "in" / "im0.tif", tmp_path / "out" / "im0.tif"
    image.parent.mkdir()
    tifffile.imwrite(image, np.zeros((4, 4), np.uint8))
    target.parent.mkdir()
    (target.parent / stale).touch()
    anew = results.Options(overwrite=True)
    results.check_targets({image: target}, anew)  # no labels that it could be of
    target.touch()
    with pytest.raises(InputError, match=rf"{stale} was made with the older labels.*--overwrite .* remove"):
        results.check_targets({image: target}, anew)
    results.check_targets({image: target}, results.Options(overwrite=True, **asked))
    results.check_targets({image: target}, results.Options(resume=True))  # the labels stay


def test_outlines_of_every_page_are_replaced_together(tmp_path):
    image, target = tmp_path / "in" / "s.tif", tmp_path / "out" / "s.tif"
    for folder in (image.parent, target.parent):
        folder.mkdir()
    tifffile.imwrite(image, np.zeros((2, 4, 4), np.uint8), photometric="minisblack")
    for name in ("s.tif", "s_001.geojson"):
        (target.parent / name).touch()
    with pytest.raises(InputError, match=r"s_001.geojson was made with the older labels"):
        results.check_targets({image: target}, results.Options(overwrite=True))
    # Another image of the call is written there.
    other = tmp_path / "in" / "s_overlay.png"
    (target.parent / "s_001.geojson").unlink()
    (target.parent / "s_overlay.png").touch()
    results.check_targets({image: target, other: target.with_name("s_overlay.png")}, results.Options(overwrite=True))


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
