import numpy as np
import pandas as pd
import pytest

from cellseg.cli import shell
from cellseg.cli.track import track
from cellseg.following import Wanted, track_folder
from cellseg.metrics.sequence import evaluate_sequence
from cellseg.tracking import Options
from cellseg.tracks import read_result
from pipelines.errors import InputError
from pipelines.images import read_labels, read_spacing_um, stored_dtype, write_image, write_labels
from pipelines.tracks import Track
from tests import sequences
from tests.cellseg.test_tracking import dividing, moving, permuted

NO_REPORT = Wanted(report=False)


@pytest.fixture
def folder(tmp_path):
    """Labels of `moving` under permuted ids, mask003.tif to mask007.tif."""
    for frame, labels in enumerate(permuted(moving()), start=3):
        write_labels(tmp_path / "labels" / f"mask{frame:03d}.tif", labels)
    return tmp_path / "labels"


def test_writes_a_result_folder(folder, tmp_path):
    followed = track_folder(folder, tmp_path / "out", spacing_um=(0.5, 0.5), interval_s=60, wanted=NO_REPORT)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cells.csv",
        *(f"mask{frame:03d}.tif" for frame in range(3, 8)),
        "msd.csv",
        "res_track.txt",
        "tracks.csv",
    ]
    result = read_result(tmp_path / "out")
    assert result.tracks == {1: Track(1, 3, 7, 0), 2: Track(2, 3, 7, 0)} == followed.lineage.tracks
    for frame, labels in enumerate(moving(), start=3):
        np.testing.assert_array_equal(result.read(frame), labels)
    assert read_spacing_um(tmp_path / "out" / "mask003.tif") == (0.5, 0.5)
    tracks = pd.read_csv(tmp_path / "out" / "tracks.csv")
    # Two pixels of half a micrometre a minute.
    np.testing.assert_allclose(tracks["mean_speed_um_per_s"], 1 / 60, rtol=0.03)
    assert len(pd.read_csv(tmp_path / "out" / "cells.csv")) == 10


def test_the_challenges_measures_take_the_folder(tmp_path):
    table = {1: Track(1, 0, 2, 0), 2: Track(2, 3, 5, 1), 3: Track(3, 3, 5, 1), 9: Track(9, 0, 5, 0)}
    # Daughters under new ids: the scene goes on with id 1.
    truth = [np.where(one == 1, 3, one) if frame > 2 else one for frame, one in enumerate(dividing())]
    true, _ = sequences.write_ctc(tmp_path, (truth, table), ([], {}))
    for frame, labels in enumerate(permuted(truth)):
        write_labels(tmp_path / "labels" / f"t{frame}_labels.tif", labels)
    track_folder(tmp_path / "labels", tmp_path / "out", wanted=NO_REPORT)
    scores = evaluate_sequence(true, tmp_path / "out", ["tra", "lnk", "division_f1", "ct"])["measures"]
    assert scores == {"tra": 1, "lnk": 1, "division_f1": 1, "ct": 1}


def test_intensities_are_measured_on_images(folder, tmp_path):
    for frame, labels in enumerate(moving()):
        write_image(tmp_path / "images" / f"t{frame}.tif", np.where(labels == 2, 200, 50).astype(np.uint8))
    followed = track_folder(folder, tmp_path / "out", images=tmp_path / "images", wanted=NO_REPORT)
    assert followed.cells.groupby("track")["intensity_mean"].unique().tolist() == [[50], [200]]


def test_images_must_fit(folder, tmp_path):
    write_image(tmp_path / "images" / "t3.tif", np.zeros((60, 80), np.uint8))
    with pytest.raises(InputError, match=r"no image for 4 of 5 frames of labels, for example frame 4"):
        track_folder(folder, tmp_path / "out", images=tmp_path / "images")
    for frame in range(3, 8):
        write_image(tmp_path / "images" / f"t{frame}.tif", np.zeros((60, 81), np.uint8))
    with pytest.raises(InputError, match=r"t3.tif is 60x81 pixels, but its labels .*mask003.tif are 60x80"):
        track_folder(folder, tmp_path / "out", images=tmp_path / "images")
    assert not (tmp_path / "out").exists()


def test_frames_of_different_size_name_both_files(folder, tmp_path):
    write_labels(folder / "mask005.tif", np.zeros((60, 70), np.int32))
    with pytest.raises(InputError, match=r"mask003.tif is 60x80 pixels, but .*mask005.tif is 60x70"):
        track_folder(folder, tmp_path / "out")


def test_one_frame_and_missing_frames_are_told(folder, tmp_path):
    (folder / "mask005.tif").unlink()
    said = []
    followed = track_folder(folder, tmp_path / "out", say=said.append, wanted=NO_REPORT)
    assert said == ["1 frame has no file: 5. Cells are followed from the frame before to the one after."]
    assert [one.parent for one in followed.lineage.tracks.values()] == [0, 0, 1, 2]
    for frame in (4, 6, 7):
        (folder / f"mask{frame:03d}.tif").unlink()
    write_labels(folder / "mask020.tif", moving()[0])
    said.clear()
    track_folder(folder, tmp_path / "far", say=said.append, wanted=NO_REPORT)
    assert "16 frames have no file: 4, 5, 6, 7, 8 and 11 more." in said[0] and "more than 3 of them" in said[0]
    (folder / "mask020.tif").unlink()
    said.clear()
    followed = track_folder(folder, tmp_path / "one", say=said.append, wanted=NO_REPORT)
    assert said == ["There is one frame only: each of its cells is a track of its own."]
    assert followed.lineage.tracks == {1: Track(1, 3, 3, 0), 2: Track(2, 3, 3, 0)}


def test_no_cell_at_all(tmp_path):
    for frame in range(2):
        write_labels(tmp_path / "labels" / f"{frame}.tif", np.zeros((4, 4), np.int32))
    followed = track_folder(tmp_path / "labels", tmp_path / "out")
    assert followed.lineage.tracks == {} and len(followed.cells) == len(followed.tracks) == 0
    assert (tmp_path / "out" / "res_track.txt").read_text() == ""


def test_filled_gaps_are_drawn(folder, tmp_path):
    labels = read_labels(folder / "mask005.tif")[0]
    labels[labels == labels[40, 56]] = 0
    write_labels(folder / "mask005.tif", labels)
    followed = track_folder(folder, tmp_path / "out", spacing_um=(2, 2), wanted=Wanted(report=False, workers=2))
    result = read_result(tmp_path / "out")
    assert result.tracks == {1: Track(1, 3, 7, 0), 2: Track(2, 3, 7, 0)}
    np.testing.assert_array_equal(result.read(5), moving()[2])
    # Nothing is measured on what was drawn, and the path goes straight over it.
    assert followed.lineage.num_filled == 1
    cells = followed.cells.set_index(["track", "frame"])
    assert cells.index[cells["filled"]].tolist() == [(2, 5)]
    assert np.isnan(cells.loc[(2, 5), ["area", "area_um2", "solidity"]].astype(float)).all()
    assert followed.tracks["num_frames"].tolist() == [5, 4]
    assert followed.tracks["mean_area"].notna().all()
    unfilled = track_folder(folder, tmp_path / "other", options=Options(fill_gaps=False), wanted=NO_REPORT)
    assert unfilled.lineage.num_gaps == 1 and not unfilled.cells["filled"].any()


def test_pieces_that_lie_far_apart_are_told_once(folder, tmp_path):
    for frame in (4, 5):
        labels = read_labels(folder / f"mask{frame:03d}.tif")[0]
        labels[57:59, 1:3] = labels[40, 56]
        write_labels(folder / f"mask{frame:03d}.tif", labels)
    said = []
    track_folder(folder, tmp_path / "out", say=said.append, wanted=NO_REPORT)
    assert len(said) == 1 and "mask004.tif: the pieces of id" in said[0] and "taken for one cell" in said[0]


def test_all_frames_have_one_dtype(tmp_path):
    labels = np.zeros((520, 520), np.int32)
    labels[::2, ::2] = np.arange(1, 260 * 260 + 1).reshape(260, 260)
    write_labels(tmp_path / "labels" / "mask000.tif", np.where(labels == 1, 1, 0))
    write_labels(tmp_path / "labels" / "mask001.tif", labels)
    track_folder(tmp_path / "labels", tmp_path / "out", wanted=Wanted(tables=False))
    assert [stored_dtype(tmp_path / "out" / f"mask00{frame}.tif") for frame in range(2)] == [np.uint32, np.uint32]


def test_65536_cells_get_32_bits(tmp_path):
    labels = np.zeros((520, 520), np.int32)
    labels[::2, ::2] = np.arange(1, 260 * 260 + 1).reshape(260, 260)
    write_labels(tmp_path / "labels" / "mask000.tif", labels)
    followed = track_folder(tmp_path / "labels", tmp_path / "out", wanted=Wanted(tables=False))
    written = read_result(tmp_path / "out").read(0)
    assert len(followed.lineage.tracks) == written.max() == 67600
    np.testing.assert_array_equal(written, labels)


def test_nothing_is_replaced_unasked(folder, tmp_path):
    with pytest.raises(InputError, match="holds the labels themselves"):
        track_folder(folder, folder, overwrite=True)
    track_folder(folder, tmp_path / "out", wanted=NO_REPORT)
    with pytest.raises(InputError, match="exists already and nothing was changed"):
        track_folder(folder, tmp_path / "out")
    track_folder(folder, tmp_path / "out", overwrite=True, wanted=NO_REPORT)
    with pytest.raises(InputError, match="it holds no res_track.txt"):
        track_folder(tmp_path / "out", folder, overwrite=True)


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--out", str(out), "--spacing-um", "0.65", "0.65", "--interval-s", "600", "--max-gap", "1"]
    assert shell.run(track, [str(folder), *options]) == shell.OK
    assert capsys.readouterr().out == f"{out}\n"
    assert "path_length_um" in pd.read_csv(out / "tracks.csv")
    assert shell.run(track, [str(folder), *options]) == shell.BAD_INPUT
    assert "--overwrite" in capsys.readouterr().err


def test_the_command_refuses_a_mask(tmp_path, capsys):
    write_labels(tmp_path / "masks" / "a0.tif", np.where(moving()[0] > 0, 255, 0))
    assert shell.run(track, [str(tmp_path / "masks"), "--out", str(tmp_path / "out")]) == shell.BAD_INPUT
    assert "a0.tif is a mask, not labels" in capsys.readouterr().err
    assert (
        shell.run(track, [str(tmp_path / "masks"), "--out", str(tmp_path / "out"), "--label-masks", "--no-report"]) == 0
    )
    assert shell.run(track, [str(tmp_path / "masks"), "--out", str(tmp_path / "b"), "--spacing-um", "0", "1"]) == 2
    assert "spacing_um is (0.0, 1.0)" in capsys.readouterr().err
