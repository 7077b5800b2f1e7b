import numpy as np
import pytest
import tifffile

from cellseg.cli import predict, shell
from cellseg.evaluation import evaluate_folders
from cellseg.prediction import Options, predict_files
from pipelines.errors import InputError
from pipelines.images import write_labels
from tests.datasets import discs
from tests.runs import bright_pixels_run


@pytest.fixture
def run(tmp_path):
    return bright_pixels_run(tmp_path)


def write(path, labels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, ((labels > 0) * 200).astype(np.uint8), **options)
    return path


def test_images_become_label_files(tmp_path, run):
    images = [write(tmp_path / "in" / f"{name}.tif", discs(seed)) for seed, name in enumerate(("a", "b"))]
    predict_files(run, [tmp_path / "in"], tmp_path / "out", options=Options(probability=True))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.tif", "a_probability.tif", "b.tif", "b_probability.tif",
    ]  # fmt: skip
    for seed, path in enumerate(images):
        labels = tifffile.imread(tmp_path / "out" / path.name)
        assert labels.dtype == np.uint16 and labels.max() == 4
        np.testing.assert_array_equal(labels > 0, discs(seed) > 0)
        probability = tifffile.imread(tmp_path / "out" / f"{path.stem}_probability.tif")
        assert probability.dtype == np.float32 and probability.shape == (64, 64)


def test_an_ome_tiff_is_called_by_its_name_and_meets_its_truth(tmp_path, run):
    for seed, name in enumerate(("a", "b")):
        write(tmp_path / "in" / f"{name}.ome.tif", discs(seed))
        write_labels(tmp_path / "truth" / f"{name}.tif", discs(seed))
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif"]
    assert evaluate_folders(tmp_path / "truth", tmp_path / "out", ["dice"])["measures"]["dice"] == 1
    (tmp_path / "truth" / "a.tif").rename(tmp_path / "truth" / "a.ome.tif")
    assert evaluate_folders(tmp_path / "truth", tmp_path / "out", ["dice"])["images"] == 2


def test_mixed_sizes_and_an_image_smaller_than_a_tile(tmp_path, run):
    for side in (20, 33, 100):
        write(tmp_path / "in" / f"s{side}.tif", discs(0, side=max(side, 64))[:side, :side])
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    assert {tifffile.imread(p).shape for p in (tmp_path / "out").iterdir()} == {(20, 20), (33, 33), (100, 100)}


def test_a_stack_gives_one_file_and_frames_are_renamed(tmp_path, run):
    stack = np.stack([discs(seed) for seed in range(3)])
    write(tmp_path / "in" / "stack.tif", stack, photometric="minisblack")
    write(tmp_path / "in" / "t007.tif", discs(5))
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    assert tifffile.imread(tmp_path / "out" / "stack.tif").shape == (3, 64, 64)
    assert (tmp_path / "out" / "mask007.tif").exists()


def test_the_pixel_size_is_carried_over(tmp_path, run):
    from pipelines.images import read_spacing_um, write_image

    path = tmp_path / "in" / "a.tif"
    write_image(path, ((discs(0) > 0) * 200).astype(np.uint8), spacing_um=(0.5, 0.25))
    predict_files(run, [path], tmp_path / "out")
    assert read_spacing_um(tmp_path / "out" / "a.tif") == pytest.approx((0.5, 0.25))


def test_equal_stems_from_two_inputs_are_refused(tmp_path, run):
    one, two = write(tmp_path / "1" / "a.tif", discs(0)), write(tmp_path / "2" / "a.tif", discs(1))
    with pytest.raises(InputError, match=r"1/a.tif and .*2/a.tif would both be written to .*a.tif"):
        predict_files(run, [one, two], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_is_never_replaced_by_its_labels(tmp_path, run):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"would replace the image .*a.tif"):
        predict_files(run, [path], tmp_path / "in", options=Options(overwrite=True))
    assert path.read_bytes() == before


def test_old_results_are_kept_unless_asked(tmp_path, run):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    predict_files(run, [path], tmp_path / "out")
    with pytest.raises(InputError, match=r"1 results exist already.*--overwrite"):
        predict_files(run, [path], tmp_path / "out")
    predict_files(run, [path], tmp_path / "out", options=Options(overwrite=True))


def damaged_folder(tmp_path):
    for seed, name in enumerate("abc"):
        write(tmp_path / "in" / f"{name}.tif", discs(seed))
    path = tmp_path / "in" / "b.tif"
    path.write_bytes(path.read_bytes()[:900])


def test_a_bad_file_stops_with_its_name(tmp_path, run):
    damaged_folder(tmp_path)
    with pytest.raises(InputError, match=r"b.tif"):
        predict_files(run, [tmp_path / "in"], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.tif"]


def test_keep_going_lists_what_failed_and_exits_2(tmp_path, run, capsys):
    damaged_folder(tmp_path)
    arguments = [str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--keep-going"]
    assert shell.run(predict.predict, arguments) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]
    assert "1 files failed" in capsys.readouterr().err


def test_the_command_prints_the_folder_and_exits_0(tmp_path, run, capsys):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    assert shell.run(predict.predict, [str(run), str(path), "--out", str(tmp_path / "out"), "--overlay"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert (tmp_path / "out" / "a_overlay.png").stat().st_size > 500


def test_nothing_to_predict_is_explained(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="no file or folder .*nowhere"):
        predict_files(run, [tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no image"):
        predict_files(run, [tmp_path / "empty"], tmp_path / "out")


def test_the_wrong_channels_name_the_file(tmp_path, run):
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "colour.tif", image, photometric="rgb")
    with pytest.raises(InputError, match=r"colour.tif: the image has 3 channels; this run was trained on 1"):
        predict_files(run, [tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "options"), [("a_overlay.png", {"overlay": True}), ("a_probability.tif", {"probability": True})]
)
def test_no_result_replaces_an_image(tmp_path, run, name, options):
    import cv2

    write(tmp_path / "in" / "a.tif", discs(0))
    other = tmp_path / "in" / name
    cv2.imwrite(str(other), ((discs(1) > 0) * 200).astype(np.uint8))
    before = other.read_bytes()
    with pytest.raises(InputError, match="would replace the image"):
        predict_files(run, [tmp_path / "in"], tmp_path / "in", options=Options(overwrite=True, **options))
    assert other.read_bytes() == before
    if options.get("probability"):
        with pytest.raises(InputError, match=r"would both be written to .*a_probability.tif"):
            predict_files(run, [tmp_path / "in"], tmp_path / "out", options=Options(**options))


def test_an_old_overlay_is_kept_unless_asked(tmp_path, run):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_overlay.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"1 results exist already, for example .*a_overlay.png"):
        predict_files(run, [path], tmp_path / "out", options=Options(overlay=True))
    assert (tmp_path / "out" / "a_overlay.png").read_bytes() == b"mine"
