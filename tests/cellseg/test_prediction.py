import errno
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import roifile
import tifffile

from cellseg import load_run, prediction, results, runs, stages
from cellseg.cli import predict, shell
from cellseg.evaluation import evaluate_folders
from cellseg.prediction import Options, predict_files
from pipelines.decoding import read_spacing_um
from pipelines.errors import InputError
from pipelines.files import temporary_name
from pipelines.images import write_labels
from pipelines.ome_zarr import create_zarr
from pipelines.rasters import open_raster
from tests.datasets import discs
from tests.runs import bright_pixels_run


@pytest.fixture
def run(tmp_path):
    return bright_pixels_run(tmp_path)


def write(path, labels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, ((labels > 0) * 200).astype(np.uint8), **options)
    return path


def know_classes(run):
    """Make a run tell classes apart: every bright pixel is of class 2, `long`."""
    inputs = keras.layers.Input((None, None, 1))
    layer = keras.layers.Conv2D(3, 1, name="probability")
    network = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.array([-1, 0, 1], np.float32).reshape(1, 1, 1, 3), np.array([1, 0, 0], np.float32)])
    network.save(run / runs.MODEL)
    data = json.loads((run / runs.DATA).read_text())
    runs.write_json(run, runs.DATA, {**data, "classes": ["round", "long"]})


def test_images_become_label_files(tmp_path, run):
    images = [write(tmp_path / "in" / f"{name}.tif", discs(seed)) for seed, name in enumerate(("a", "b"))]
    predict_files(run, [tmp_path / "in"], tmp_path / "out", options=Options(probability="float32"))
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
    know_classes(run)
    predict_files(run, [path], tmp_path / "out", options=Options(probability="float16"))
    written = sorted(tmp_path.glob("out/*.tif"))
    assert [path.name for path in written] == ["a.tif", "a_classes.tif", "a_probability.tif"]
    assert all(read_spacing_um(path) == pytest.approx((0.5, 0.25)) for path in written)


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


def folder_with_an_odd_name(tmp_path):
    """a.tif, b.tif and one whose name is the bytes o, 0xff; returns the latter as messages show it."""
    for seed, name in enumerate("abc"):
        write(tmp_path / "in" / f"{name}.tif", discs(seed))
    os.rename(tmp_path / "in" / "c.tif", os.fsencode(tmp_path / "in") + b"/o\xff.tif")
    return str(tmp_path / "in" / "o\\xff.tif")


@pytest.mark.parametrize("options", [[], ["--measure"], ["--measure", "--track"]])
def test_a_name_that_is_no_text_is_refused_before_any_work(tmp_path, run, capsys, options):
    odd = folder_with_an_odd_name(tmp_path)
    arguments = [str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options]
    assert shell.run(predict.predict, arguments) == shell.BAD_INPUT
    said = capsys.readouterr().err
    assert f"'{odd}' is no UTF-8" in said and "Rename" in said
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_text_is_passed_over_with_keep_going(tmp_path, run, capsys):
    odd = folder_with_an_odd_name(tmp_path)
    arguments = [str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--measure", "--keep-going"]
    assert shell.run(predict.predict, arguments) == shell.BAD_INPUT
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif", "cells.csv"]
    said = capsys.readouterr().err
    assert f"'{odd}' is no UTF-8" in said and said.endswith(f"1 files failed: {odd}\n")


def test_a_folder_for_results_whose_name_is_no_text(tmp_path, run, capsys):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    out = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    assert shell.run(predict.predict, [str(run), str(path), "--out", out]) == shell.BAD_INPUT
    assert "out\\xff' is no UTF-8" in capsys.readouterr().err and not os.path.exists(out)


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
    ("name", "options"), [("a_overlay.png", {"overlay": True}), ("a_probability.tif", {"probability": "float32"})]
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


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        (["--probability", "in"], "float32"),
        (["in", "--probability", "--overlay"], "float32"),
        (["in", "--probability"], "float32"),
        (["--probability", "uint8", "in"], "uint8"),
        (["--probability=float16", "in"], "float16"),
    ],
)
def test_the_type_of_the_probability_can_be_left_out(tmp_path, monkeypatch, run, arguments, dtype):
    write(tmp_path / "in" / "a.tif", discs(0))
    monkeypatch.chdir(tmp_path)
    assert shell.run(predict.predict, [str(run), "--out", "out", *arguments]) == 0
    assert tifffile.imread(tmp_path / "out" / "a_probability.tif").dtype == dtype


def test_an_unknown_type_of_probability_is_explained(tmp_path, run, capsys):
    assert shell.run(predict.predict, [str(run), "in", "--out", "out", "--probability=float64"]) == 2
    assert "'float64' is not one of 'float32', 'float16', 'uint8'" in capsys.readouterr().err


def test_outlines_for_other_programs(tmp_path, run):
    write(tmp_path / "in" / "a.tif", discs(0))
    arguments = [str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--roi", "--geojson"]
    assert shell.run(predict.predict, arguments) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.geojson", "a.tif", "a_rois.zip"]
    assert [roi.name for roi in roifile.roiread(tmp_path / "out" / "a_rois.zip")] == ["1", "2", "3", "4"]
    features = json.loads((tmp_path / "out" / "a.geojson").read_text())["features"]
    assert [feature["properties"] for feature in features] == [
        {"objectType": "detection", "name": str(cell)} for cell in (1, 2, 3, 4)
    ]


def test_a_run_that_knows_classes_writes_them_into_the_geojson(tmp_path, run):
    write(tmp_path / "in" / "a.tif", discs(0))
    know_classes(run)
    predict_files(run, [tmp_path / "in"], tmp_path / "out", options=Options(geojson=True))
    features = json.loads((tmp_path / "out" / "a.geojson").read_text())["features"]
    assert [feature["properties"]["classification"]["name"] for feature in features] == ["long"] * 4


def test_a_stack_gives_one_geojson_a_page_and_one_roi_set(tmp_path, run):
    stack = np.stack([discs(seed, num=seed + 1) for seed in range(3)])
    write(tmp_path / "in" / "s.tif", stack, photometric="minisblack")
    predict_files(run, [tmp_path / "in"], tmp_path / "out", options=Options(roi=True, geojson=True))
    pages = sorted(tmp_path.glob("out/*.geojson"))
    assert [path.name for path in pages] == ["s_000.geojson", "s_001.geojson", "s_002.geojson"]
    assert [len(json.loads(path.read_text())["features"]) for path in pages] == [1, 2, 3]
    assert [roi.position for roi in roifile.roiread(tmp_path / "out" / "s_rois.zip")] == [1, 2, 2, 3, 3, 3]


def test_pages_that_would_replace_another_images_outlines_are_refused(tmp_path, run):
    write(tmp_path / "in" / "s.tif", np.stack([discs(0), discs(1)]), photometric="minisblack")
    write(tmp_path / "in" / "s_001.tif", discs(0))
    with pytest.raises(InputError, match=r"s.tif and .*s_001.tif would both be written to .*s_001.geojson"):
        predict_files(run, [tmp_path / "in"], tmp_path / "out", options=Options(geojson=True))


def killed(tmp_path, run, monkeypatch, *, at, options):
    """Three images of which the second one's labels were about to be written when the call ended."""
    for seed, name in enumerate("abc"):
        write(tmp_path / "in" / f"{name}.tif", discs(seed))

    def write_or_die(path, labels, **keywords):
        if path.name == at:
            raise KeyboardInterrupt
        write_labels(path, labels, **keywords)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(results, "write_labels", write_or_die)
        predict_files(run, [tmp_path / "in"], tmp_path / "out", options=options)


def test_resume_predicts_what_is_missing_alone(tmp_path, run, monkeypatch):
    killed(tmp_path, run, monkeypatch, at="b.tif", options=Options(probability="uint8"))
    out = tmp_path / "out"
    # `c` was in the writer's queue already, and what is there is whole.
    there = ["a.tif", "a_probability.tif", "b_probability.tif", "c.tif", "c_probability.tif"]
    assert sorted(p.name for p in out.iterdir()) == there
    (out / "c.tif").unlink()
    (out / "b_probability.tif").write_bytes(b"stale")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    temporary_name(out / "c.tif", dead.pid).write_bytes(b"half")
    before = (out / "a.tif").stat().st_mtime_ns
    said = []
    options = Options(probability="uint8", resume=True)
    assert predict_files(run, [tmp_path / "in"], out, options=options, say=said.append) == []
    assert said == ["1 of 3 images have their results already; going on with the others."]
    assert (out / "a.tif").stat().st_mtime_ns == before
    for seed, name in enumerate("abc"):
        np.testing.assert_array_equal(tifffile.imread(out / f"{name}.tif") > 0, discs(seed) > 0)
        assert tifffile.imread(out / f"{name}_probability.tif").dtype == np.uint8
    assert sorted(p.name for p in out.iterdir()) == sorted([*there, "b.tif"])


def test_resume_with_nothing_left_does_not_load_the_network(tmp_path, run):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    predict_files(run, [path], tmp_path / "out")
    (run / runs.MODEL).write_bytes(b"no network")
    assert predict_files(run, [path], tmp_path / "out", options=Options(resume=True)) == []


def test_resume_starts_from_nothing_and_skips_bad_files(tmp_path, run):
    damaged_folder(tmp_path)
    arguments = [str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--keep-going", "--resume"]
    for _ in range(2):  # the bad file is tried again, and fails again
        assert shell.run(predict.predict, arguments) == 2
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]


def test_resume_with_other_options_is_refused(tmp_path, run):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    predict_files(run, [path], tmp_path / "out")
    with pytest.raises(InputError, match=r"a.tif was made without its ROI set, .*a_rois.zip. Leave that option out"):
        predict_files(run, [path], tmp_path / "out", options=Options(resume=True, roi=True))
    with pytest.raises(InputError, match="--resume keeps the results that exist and --overwrite replaces them"):
        predict_files(run, [path], tmp_path / "out", options=Options(resume=True, overwrite=True))


def predict_with(run, *arguments):
    return shell.run(predict.predict, [str(run), *map(str, arguments)])


def test_an_ensemble_averages_its_runs(tmp_path, run, capsys):
    # The second run's answer is half the first one's, its threshold 0.1: the mean of 1 and 0.5 is 0.75, of 0.5 and 0.1
    # 0.3; cells of the mean are the same.
    (tmp_path / "two").mkdir()
    other = bright_pixels_run(tmp_path / "two")
    inputs = keras.layers.Input((None, None, 1))
    layer = keras.layers.Conv2D(1, 1, name="probability", kernel_initializer=keras.initializers.Constant(0.5))
    keras.Model(inputs, layer(inputs)).save(other / runs.MODEL)
    runs.write_json(other, runs.THRESHOLD, {"threshold": 0.1, "measure": "dice", "value": 1.0, "split": "validation"})
    write(tmp_path / "in" / "a.tif", discs(0))
    assert predict_with(run, tmp_path / "in", "--with", other, "--out", tmp_path / "out", "--probability") == 0
    probability = tifffile.imread(tmp_path / "out" / "a_probability.tif")
    np.testing.assert_allclose(probability, 0.75 * (discs(0) > 0), atol=1e-6)
    expected = load_run([run, other]).predict(tifffile.imread(tmp_path / "in" / "a.tif"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), expected.labels)
    assert predict_with(run, tmp_path / "in", "--with", tmp_path / "no", "--out", tmp_path / "o") == 2
    assert f"There is no run folder {tmp_path / 'no'}" in capsys.readouterr().err


def test_an_empty_image_has_no_cells(tmp_path, run):
    write(tmp_path / "in" / "dark.tif", np.zeros((40, 50), int))
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out", "--overlay", "--roi", "--geojson") == 0
    labels = tifffile.imread(tmp_path / "out" / "dark.tif")
    assert labels.shape == (40, 50) and not labels.any()
    assert json.loads((tmp_path / "out" / "dark.geojson").read_text())["features"] == []


def test_nan_names_the_file(tmp_path, run, capsys):
    (tmp_path / "in").mkdir()
    image = np.zeros((40, 40), np.float32)
    image[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "in" / "holes.tif", image)
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out") == 2
    assert "holes.tif: 1 pixels are NaN or infinite. Replace them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", [runs.MODEL, runs.THRESHOLD])
def test_a_run_without_weights_is_explained(tmp_path, run, capsys, missing):
    (run / missing).unlink()
    path = write(tmp_path / "in" / "a.tif", discs(0))
    assert predict_with(run, path, "--out", tmp_path / "out") == 2
    assert f"{run} lacks {missing}: it is no run folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_before_any_work(tmp_path, run, capsys, monkeypatch):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    out = path / "out"
    assert predict_with(run, path, "--out", out) == 2
    assert f"cannot be written to {out}: {path} is a file. Choose another --out" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path)
    assert predict_with(run, path, "--out", tmp_path / "new" / "out", "--keep-going") == 2
    said = capsys.readouterr().err
    assert f"cannot be written to {tmp_path / 'new' / 'out'}: {tmp_path} is read-only" in said
    assert said.count("cellseg-predict:") == 1


def test_a_full_disk_ends_the_call_also_with_keep_going(tmp_path, run, capsys, monkeypatch):
    for seed, name in enumerate("abc"):
        write(tmp_path / "in" / f"{name}.tif", discs(seed))

    def write_or_fail(path, labels, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(results, "write_labels", write_or_fail)
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out", "--keep-going") == 2
    assert "a.tif: No space left on device." in capsys.readouterr().err


def test_an_unreadable_file_is_skipped_with_keep_going(tmp_path, run, capsys, monkeypatch):
    write(tmp_path / "in" / "a.tif", discs(0))
    write(tmp_path / "in" / "b.tif", discs(1))
    real = stages.read_pages

    def read_or_fail(file):
        if file.name == "a.tif":
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return real(file)

    monkeypatch.setattr(stages, "read_pages", read_or_fail)
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out", "--keep-going") == 2
    assert "a.tif: Permission denied." in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.tif"]


def test_another_bit_depth_is_told_once(tmp_path, run, capsys):
    data = json.loads((run / runs.DATA).read_text())
    runs.write_json(run, runs.DATA, {**data, "minimum_range": {"uint8": 20.0}})
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.tif", discs(0))
    for seed, name in enumerate("bc"):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", (discs(seed) > 0).astype(np.float32) / 2)
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out") == 0
    for seed, name in enumerate("bc"):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / f"{name}.tif") > 0, discs(seed) > 0)
    (said,) = capsys.readouterr().err.splitlines()
    assert (
        "b.tif is float32, but this run was trained on uint8 images. Grey values are stretched by percentiles" in said
    )


def test_a_dim_image_is_told_with_its_name(tmp_path, run, capsys):
    data = json.loads((run / runs.DATA).read_text())
    runs.write_json(run, runs.DATA, {**data, "minimum_range": {"uint8": 250.0}})
    for name in "ab":
        write(tmp_path / "in" / f"{name}.tif", discs(0))
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": contrast range 200 is far below")[0][-5:] for line in said] == ["a.tif", "b.tif"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500MB", 500 * 10**6),
        ("2GB", 2 * 10**9),
        ("2GiB", 2**31),
        ("1.5 gib", 3 * 2**29),
        ("123456", 123456),
        ("4k", 4000),
    ],
)
def test_an_amount_of_memory_is_read(text, expected):
    assert predict.Bytes().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["plenty", "2 GBB", "-1GB", "0", "2,5GB", ""])
def test_nonsense_is_no_amount_of_memory(tmp_path, run, capsys, text):
    assert predict_with(run, tmp_path, "--out", tmp_path / "out", f"--memory={text}") == 2
    assert f"'{text}' is no amount of memory. Write for example 500MB, 2GB, 2GiB" in capsys.readouterr().err


def mosaic(path, *, side=300):
    """An image of nine scenes that is too large for the least memory that `STREAMED` leaves to one file."""
    labels = np.tile(discs(0, side=100), (3, 3))[:side, :side]
    return write(path, labels), labels


STREAMED = ("--memory", "4MB")


def test_what_does_not_fit_into_the_memory_is_predicted_in_pieces(tmp_path, run, monkeypatch):
    mosaic(tmp_path / "in" / "b.tif")
    for name, seed in (("a", 0), ("c", 1)):
        write(tmp_path / "in" / f"{name}.tif", discs(seed))
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "whole", "--probability", "float16") == 0
    streamed, real = [], prediction.predict_streamed
    monkeypatch.setattr(
        prediction,
        "predict_streamed",
        lambda loaded, file, *rest, **more: streamed.append(file.name) or real(loaded, file, *rest, **more),
    )
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out", "--probability", "float16", *STREAMED) == 0
    assert streamed == ["b.tif"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole").iterdir()) and len(names) == 6
    for name in names:
        np.testing.assert_array_equal(
            tifffile.imread(tmp_path / "out" / name), tifffile.imread(tmp_path / "whole" / name)
        )
    # Only what is missing, also of the pieces.
    (tmp_path / "out" / "b.tif").unlink()
    assert (
        predict_with(run, tmp_path / "in", "--out", tmp_path / "out", "--probability=float16", "--resume", *STREAMED)
        == 0
    )
    assert streamed == ["b.tif", "b.tif"] and (tmp_path / "out" / "b.tif").exists()


def test_an_image_that_takes_all_the_memory_is_predicted_whole_and_alone(tmp_path, run, monkeypatch):
    # 90,000 px take about 5 MB: more than a quarter of 8 MB, but not more.
    for name in "bd":
        mosaic(tmp_path / "in" / f"{name}.tif")
    for seed, name in enumerate("ace"):
        write(tmp_path / "in" / f"{name}.tif", discs(seed))
    groups, real = [], prediction.conveyed

    def conveyed(files, **stages):
        groups.append([])
        return real((groups[-1].append(file.name) or file for file in files), **stages)

    monkeypatch.setattr(prediction, "conveyed", conveyed)
    arguments = (run, tmp_path / "in", tmp_path / "in" / "a.tif", "--out", tmp_path / "out")
    assert predict_with(*arguments, "--overlay", "--memory", "8MB") == 0
    assert groups == [["a.tif"], ["b.tif"], ["c.tif"], ["d.tif"], ["e.tif"]]
    assert len(list((tmp_path / "out").iterdir())) == 10
    assert predict_with(*arguments, "--overlay", "--overwrite") == 0
    assert groups[5:] == [["a.tif", "b.tif", "c.tif", "d.tif", "e.tif"]]


def test_pictures_of_an_image_in_pieces_are_refused(tmp_path, run, capsys):
    path, _ = mosaic(tmp_path / "in" / "big.tif")
    write(tmp_path / "in" / "small.tif", discs(0))
    arguments = (run, tmp_path / "in", "--out", tmp_path / "out", "--overlay", "--geojson", "--keep-going", *STREAMED)
    assert predict_with(*arguments) == 2
    said = capsys.readouterr().err
    assert f"{path} is too large for the memory that may be used" in said
    assert "--overlay, --geojson need the whole image. Leave them out, or raise --memory." in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "small.geojson",
        "small.tif",
        "small_overlay.png",
    ]


@pytest.mark.parametrize("memory", [(), STREAMED])
def test_ome_zarr_in_and_out(tmp_path, run, memory):
    _, labels = mosaic(tmp_path / "raw" / "b.tif")
    know_classes(run)
    arguments = ("--format", "zarr", "--probability", "uint8", *memory)
    assert predict_with(run, tmp_path / "raw", "--out", tmp_path / "one", *arguments) == 0
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "b.zarr",
        "b_classes.zarr",
        "b_probability.zarr",
    ]
    found = open_raster(tmp_path / "one" / "b.zarr").read(0, slice(None))[..., 0]
    np.testing.assert_array_equal(found > 0, labels > 0)
    # A zarr is an image, too: 255 where a cell is.
    (tmp_path / "in").mkdir()
    (tmp_path / "one" / "b_probability.zarr").rename(tmp_path / "in" / "c.zarr")
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "two", *memory) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "two" / "c.tif") > 0, labels > 0)
    assert predict_with(run, tmp_path / "raw", "--out", tmp_path / "one", *arguments) == 2  # they are there
    assert predict_with(run, tmp_path / "raw", "--out", tmp_path / "one", *arguments, "--overwrite") == 0


def test_no_scheduler_is_one_message(tmp_path, run, capsys):
    path = write(tmp_path / "in" / "a.tif", discs(0))
    assert predict_with(run, path, "--out", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1") == 2
    said = capsys.readouterr().err
    assert "No Dask scheduler answers at tcp://127.0.0.1:1" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_the_network_looks(tmp_path, run, capsys, monkeypatch):
    for seed, name in enumerate("abcd"):
        write(tmp_path / "in" / f"{name}.tif", discs(seed))
    look = stages.look

    def look_or_stop(picture, **options):
        if picture.file.name == "c.tif":
            raise KeyboardInterrupt
        return look(picture, **options)

    monkeypatch.setattr(stages, "look", look_or_stop)
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out") == 130
    assert "interrupted. Nothing unfinished was left" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("side", [float("nan"), 0.0, -0.5, 1e9, float("inf")])
def test_an_ome_zarr_whose_scale_is_no_pixel_size_is_predicted_without_one(tmp_path, run, side):
    (tmp_path / "in" / "a.zarr").mkdir(parents=True)
    array = create_zarr(tmp_path / "in" / "a.zarr", (1, 64, 64), np.uint8, name="a", spacing_um=(side, side))
    array[...] = (discs(0) > 0) * np.uint8(200)
    assert predict_with(run, tmp_path / "in", "--out", tmp_path / "out") == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif") > 0, discs(0) > 0)
    assert read_spacing_um(tmp_path / "out" / "a.tif") is None
