"""cellseg-predict --track --measure: from images to tracks in one call."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellseg import following, series_prediction, stages
from cellseg.cli import predict, shell
from cellseg.following import Wanted, track_images
from cellseg.results import Options
from cellseg.tracks import read_result
from pipelines.errors import InputError
from pipelines.images import read_image, read_spacing_um, write_image
from tests.cellseg.test_tracking import moving
from tests.runs import bright_pixels_run

BARE = Wanted(tables=False)


@pytest.fixture
def run(tmp_path):
    return bright_pixels_run(tmp_path)


def bright(labels):
    return np.where(labels > 0, 150 + 40 * labels, 0).astype(np.uint8)


@pytest.fixture
def sequence(tmp_path):
    """Two moving cells, t003.tif to t007.tif."""
    for frame, labels in enumerate(moving(), start=3):
        write_image(tmp_path / "seq" / f"t{frame:03d}.tif", bright(labels), spacing_um=(0.5, 0.5))
    return tmp_path / "seq"


def call(*arguments):
    return shell.run(predict.predict, [str(word) for word in arguments])


def masks(out):
    return [read_result(out).read(frame) for frame in read_result(out).files]


def test_one_command_from_images_to_report(tmp_path, run, sequence, capsys):
    out = tmp_path / "out"
    assert call(run, sequence, "--track", "--measure", "--interval-s", 60, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    movie = next(out.glob("tracks.*")).name if list(out.glob("tracks.mp4")) else "tracks.gif"
    assert {path.name for path in out.iterdir()} == {
        *(f"mask{frame:03d}.tif" for frame in range(3, 8)),
        *("cells.csv", "tracks.csv", "msd.csv", "res_track.txt", "report.html", "pictures"),
        "tracks.mp4" if (out / "tracks.mp4").exists() else movie,
    }
    for found, true in zip(masks(out), moving(), strict=True):
        np.testing.assert_array_equal(found, true)
    tracks = pd.read_csv(out / "tracks.csv")
    np.testing.assert_allclose(tracks["mean_speed_um_per_s"], 1 / 60, rtol=0.03)  # two pixels of 0.5 um a minute
    cells = pd.read_csv(out / "cells.csv")
    assert cells.groupby("track")["intensity_mean"].unique().tolist() == [[190], [230]]
    assert read_spacing_um(out / "mask003.tif") == (0.5, 0.5)
    text = (out / "report.html").read_text()
    assert "Cells found by the run run" in text and "0.5 µm, as the files say" in text and "60 s, as given" in text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_a_stack_gives_the_same_tracks(tmp_path, run):
    stack = np.stack([bright(labels) for labels in moving()])
    tifffile.imwrite(tmp_path / "movie.tif", stack, imagej=True, metadata={"axes": "TYX", "finterval": 20.0})
    track_images(run, tmp_path / "movie.tif", tmp_path / "out", wanted=Wanted(report=False))
    assert [path.name for path in sorted((tmp_path / "out").glob("mask*"))] == [
        f"mask00{page}.tif" for page in range(5)
    ]
    for found, true in zip(masks(tmp_path / "out"), moving(), strict=True):
        np.testing.assert_array_equal(found, true)
    assert pd.read_csv(tmp_path / "out" / "cells.csv")["time_s"].max() == 80


def test_track_alone_writes_no_tables(tmp_path, run, sequence):
    assert call(run, sequence, "--track", "--out", tmp_path / "out") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"mask{frame:03d}.tif" for frame in range(3, 8)), "res_track.txt"]


def test_units_of_the_runs_experiment_come_last(tmp_path, run, sequence):
    import yaml

    path = run / "experiment.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"] |= {"spacing_um": [2.0, 2.0], "interval_s": 5.0}
    path.write_text(yaml.safe_dump(content))
    wanted = Wanted(report=False)
    track_images(run, sequence, tmp_path / "a", wanted=wanted)
    cells = pd.read_csv(tmp_path / "a" / "cells.csv")
    np.testing.assert_allclose(cells["area_um2"], 0.25 * cells["area"])
    assert cells["time_s"].tolist() == (5 * cells["frame"]).tolist()
    for path in sequence.iterdir():
        write_image(path, read_image(path))
    track_images(run, sequence, tmp_path / "b", wanted=wanted, interval_s=7)
    cells = pd.read_csv(tmp_path / "b" / "cells.csv")
    np.testing.assert_allclose(cells["area_um2"], 4 * cells["area"])
    assert cells["time_s"].tolist() == (7 * cells["frame"]).tolist()


def stop_at(monkeypatch, name, error=KeyboardInterrupt):
    """Raise in the network's part of one image; returns the names that it looks at."""
    look, seen = stages.look, []

    def look_or_stop(picture, **options):
        if picture.file.name == name:
            raise error
        seen.append(picture.file.name)
        return look(picture, **options)

    monkeypatch.setattr(stages, "look", look_or_stop)
    return seen


def test_resume_goes_on_after_an_interruption(tmp_path, run, sequence, monkeypatch, capsys):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, "t006.tif")
        assert call(run, sequence, "--track", "--out", out) == 130
    assert not out.exists()
    assert call(run, sequence, "--track", "--out", out) == 2
    said = capsys.readouterr().err
    assert "A call that was interrupted has left the labels of 3 images" in said and "Pass --resume" in said
    seen = stop_at(monkeypatch, "nothing")
    assert call(run, sequence, "--track", "--out", out, "--resume") == 0
    assert seen == ["t006.tif", "t007.tif"]
    for found, true in zip(masks(out), moving(), strict=True):
        np.testing.assert_array_equal(found, true)
    assert call(run, sequence, "--track", "--out", out, "--resume") == 2
    assert "is whole already" in capsys.readouterr().err


def test_labels_survive_a_failure_after_them(tmp_path, run, sequence, monkeypatch):
    out = tmp_path / "out"

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="The labels of 5 of 5 images are kept"):
        patch.setattr(following, "write_tracks", full_disk)
        track_images(run, sequence, out, wanted=BARE)

    def a_bug(*arguments, **options):
        raise ZeroDivisionError

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(following, "follow", a_bug)
        track_images(run, sequence, out, wanted=BARE, options=Options(resume=True))
    seen = stop_at(monkeypatch, "nothing")
    track_images(run, sequence, out, wanted=BARE, options=Options(resume=True))
    assert seen == [] and len(masks(out)) == 5


def test_what_others_left_is_not_gone_on_with(tmp_path, run, sequence, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, "t006.tif")
        track_images(run, sequence, out, wanted=BARE)
    threshold = json.loads((run / "threshold.json").read_text())
    (run / "threshold.json").write_text(json.dumps(threshold | {"threshold": 0.4}))
    with pytest.raises(InputError, match="by another run, of other images or with another zoom. Pass --overwrite"):
        track_images(run, sequence, out, wanted=BARE, options=Options(resume=True))
    seen = stop_at(monkeypatch, "nothing")
    track_images(run, sequence, out, wanted=BARE, options=Options(overwrite=True))
    assert len(seen) == 5


def test_a_frame_that_fails_ends_the_call_or_is_passed_over(tmp_path, run, sequence, capsys):
    (sequence / "t005.tif").write_bytes(b"II*\0 damaged")
    assert call(run, sequence, "--track", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "t005.tif is damaged" in said and "The labels of 2 of 5 images are kept" in said
    assert call(run, sequence, "--track", "--out", tmp_path / "out", "--resume", "--keep-going") == 2
    said = capsys.readouterr().err
    assert "1 frame has no file: 5." in said and "1 files failed" in said
    assert sorted(read_result(tmp_path / "out").files) == [3, 4, 6, 7]


def test_a_sequence_without_one_good_frame(tmp_path, run):
    write_image(tmp_path / "seq" / "t0.tif", np.zeros((8, 8, 3), np.uint8) + np.arange(3, dtype=np.uint8))
    options = Options(keep_going=True)
    with pytest.raises(InputError, match="None of the 1 images of seq could be predicted"):
        track_images(run, tmp_path / "seq", tmp_path / "out", options=options)
    assert not list(tmp_path.glob(".out*"))


def test_one_frame_an_empty_one_and_a_gap(tmp_path, run, sequence, capsys):
    (sequence / "t004.tif").unlink()
    write_image(sequence / "t005.tif", np.zeros(moving()[0].shape, np.uint8))
    assert call(run, sequence, "--track", "--measure", "--no-report", "--out", tmp_path / "out") == 0
    assert "1 frame has no file: 4." in capsys.readouterr().err
    cells = pd.read_csv(tmp_path / "out" / "cells.csv")
    # In the empty frame they are drawn, in the one without file they cannot be; track 1 goes on in its children.
    assert sorted(cells["frame"].unique()) in ([3, 6, 7], [3, 5, 6, 7])
    assert call(run, sequence / "t003.tif", "--track", "--measure", "--out", tmp_path / "one") == 0
    assert "There is one frame only" in capsys.readouterr().err
    assert not list((tmp_path / "one").glob("tracks.[mg]*"))  # no movie of one picture
    assert "There is one frame only" in (tmp_path / "one" / "report.html").read_text()


def test_frames_of_different_size_are_refused_before_any_work(tmp_path, run, sequence):
    write_image(sequence / "t007.tif", np.zeros((60, 81), np.uint8))
    with pytest.raises(InputError, match=r"t003.tif is 60x80 pixels, but .*t007.tif is 60x81"):
        track_images(run, sequence, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--track", "--roi", "--probability"],
            "--track does not go with --probability, --roi, which is for images one",
        ),
        (["--track", "--format", "zarr"], "--track does not go with --format zarr"),
        (["--track", "--memory", "2GB", "--scheduler", "tcp://a:1"], "does not go with --memory, --scheduler"),
        (["--track", "--volume"], "--track is for a sequence and --volume for a volume"),
        (["--track", "--resume", "--overwrite"], "Pass one of them"),
        (["--interval-s", "5"], "--interval-s means nothing without --track"),
        (["--track", "--mesh", "ply"], "--mesh means nothing without --volume"),
        (["--spacing-um", "1", "1"], "--spacing-um means nothing without --track, --measure or --volume"),
        (["--track", "--spacing-um", "1", "0"], "spacing_um is (1.0, 0.0)"),
        (["--track", "--interval-s", "0"], "interval_s is 0.0"),
        (["--measure", "--format", "zarr"], "--measure reads label TIFFs"),
    ],
)
def test_what_does_not_go_together(tmp_path, run, sequence, capsys, options, text):
    assert call(run, sequence, *options, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert text in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_an_older_result_is_kept_unless_asked(tmp_path, run, sequence):
    out = tmp_path / "out"
    track_images(run, sequence, out, wanted=BARE)
    with pytest.raises(InputError, match="exists already and nothing was changed"):
        track_images(run, sequence, out, wanted=BARE)
    (sequence / "t007.tif").unlink()
    track_images(run, sequence, out, wanted=BARE, options=Options(overwrite=True))
    assert not (out / "mask007.tif").exists()
    with pytest.raises(InputError, match="it holds no res_track.txt"):
        track_images(run, sequence, sequence, options=Options(overwrite=True))


def test_the_runs_of_an_ensemble_answer_together(tmp_path, run, sequence):
    (tmp_path / "two").mkdir()
    other = bright_pixels_run(tmp_path / "two")
    assert call(run, sequence, "--with", other, "--track", "--out", tmp_path / "out") == 0
    assert len(masks(tmp_path / "out")) == 5


def test_labels_are_files_of_the_series(tmp_path):
    labels = series_prediction.PredictedSeries(tmp_path, [7, 1200])
    assert [labels.file(frame).name for frame in (7, 1200)] == ["mask0007.tif", "mask1200.tif"]
    assert labels.done() == []
