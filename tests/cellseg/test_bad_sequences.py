"""Sequences with something amiss, each through the real command: cellseg-track, and cellseg-predict --track."""

import numpy as np
import pandas as pd
import pytest

from cellseg.cli import predict, shell, track
from cellseg.tracks import read_result
from pipelines.images import stored_dtype, write_image, write_labels
from tests.cellseg.test_tracking import moving
from tests.runs import bright_pixels_run

SIDE = 260  # many() has SIDE * SIDE cells


def many():
    """Cells of one pixel, more than 16 bits can number."""
    labels = np.zeros((2 * SIDE, 2 * SIDE), np.int32)
    labels[::2, ::2] = np.arange(1, SIDE * SIDE + 1).reshape(SIDE, SIDE)
    return labels


def bright(labels):
    return np.where(labels > 0, 200, 0).astype(np.uint8)


class Track:
    """cellseg-track on a folder of labels."""

    def __init__(self, folder):
        self.folder, self.out = folder / "labels", folder / "out"

    def write(self, frame, labels):
        write_labels(self.folder / f"mask{frame:03d}.tif", labels)

    def run(self, *options):
        return shell.run(track.track, [str(self.folder), "--out", str(self.out), "--no-report", *options])


class Predict(Track):
    """cellseg-predict --track on images of the same cells."""

    def __init__(self, folder):
        super().__init__(folder)
        self._run = bright_pixels_run(folder)
        path = self._run / "experiment.yaml"
        path.write_text(path.read_text().replace("tile: 32", "tile: 80"))

    def write(self, frame, labels):
        write_image(self.folder / f"t{frame:03d}.tif", bright(labels))

    def run(self, *options):
        words = [self._run, self.folder, "--track", "--measure", "--no-report", "--out", self.out, *options]
        return shell.run(predict.predict, [str(word) for word in words])


@pytest.fixture(params=[Track, Predict])
def command(request, tmp_path):
    return request.param(tmp_path)


def tracks(command):
    table = pd.read_csv(command.out / "tracks.csv")
    return list(zip(table["start"], table["end"], table["parent"], strict=True))


def test_one_frame_only(command, capsys):
    command.write(4, moving()[0])
    assert command.run() == shell.OK
    assert "There is one frame only: each of its cells is a track of its own." in capsys.readouterr().err
    assert tracks(command) == [(4, 4, 0), (4, 4, 0)]
    assert pd.read_csv(command.out / "cells.csv")["frame"].tolist() == [4, 4]


def test_gaps_in_the_frame_numbers(command, capsys):
    for frame, labels in zip((3, 4, 6, 7), np.array(moving())[[0, 1, 3, 4]], strict=True):
        command.write(frame, labels)
    assert command.run() == shell.OK
    assert "1 frame has no file: 5. Cells are followed from the frame before" in capsys.readouterr().err
    # The challenge's tables know no holes: each goes on as a child of its own.
    assert tracks(command) == [(3, 4, 0), (3, 4, 0), (6, 7, 1), (6, 7, 2)]
    assert sorted(read_result(command.out).files) == [3, 4, 6, 7]


def test_numbers_without_zeros_before_them(tmp_path):
    command = Track(tmp_path)
    for frame, labels in zip((98, 99, 100, 101), moving(), strict=False):
        write_labels(command.folder / f"mask{frame}.tif", labels)
    assert command.run() == shell.OK
    assert tracks(command) == [(98, 101, 0), (98, 101, 0)]


def test_frames_two_billion_apart(command, capsys):
    for frame in (0, 2_000_000_000):
        command.write(frame, moving()[0])
    assert command.run() == shell.OK
    said = capsys.readouterr().err
    assert "1999999999 frames have no file: 1, 2, 3, 4, 5 and 1999999994 more. Cells are" in said
    assert sorted(read_result(command.out).files) == [0, 2_000_000_000]


def test_times_in_place_of_numbers(command, capsys):
    for frame in (20240101120000123, 20240102120000123):
        command.write(frame, moving()[0])
    assert command.run() == shell.BAD_INPUT
    said = capsys.readouterr().err
    assert "20240101120000123 in its name is no number of a frame" in said and "mask000.tif, mask001.tif" in said
    assert not command.out.exists()


def test_frames_of_different_size(command, capsys):
    command.write(0, moving()[0])
    command.write(1, moving()[1][:, 1:])
    assert command.run() == shell.BAD_INPUT
    said = capsys.readouterr().err.splitlines()[-1]
    assert "000.tif is 60x80 pixels, but" in said and "001.tif is 60x79. All" in said
    assert not command.out.exists()


def test_an_empty_frame_in_the_middle(command):
    for frame, labels in enumerate(moving()):
        command.write(frame, 0 * labels if frame == 2 else labels)
    assert command.run() == shell.OK
    assert tracks(command) == [(0, 4, 0), (0, 4, 0)]
    cells = pd.read_csv(command.out / "cells.csv")
    assert cells[cells["filled"]]["frame"].tolist() == [2, 2]
    assert np.unique(read_result(command.out).read(2)).tolist() == [0, 1, 2]


def test_no_cell_in_any_frame(command):
    for frame, labels in enumerate(moving()[:2]):
        command.write(frame, 0 * labels)
    assert command.run() == shell.OK
    assert tracks(command) == [] and (command.out / "res_track.txt").read_text() == ""


def test_a_frame_that_is_damaged(command, capsys):
    command.write(0, moving()[0])
    command.write(1, moving()[1])
    path = sorted(command.folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[:100])
    assert command.run() == shell.BAD_INPUT
    assert path.name in capsys.readouterr().err
    assert not command.out.exists()


def test_ids_beyond_16_bits(tmp_path):
    command = Track(tmp_path)
    for frame, labels in enumerate(moving()[:2]):
        command.write(frame, np.where(labels > 0, labels + 70_000, 0))
    assert stored_dtype(command.folder / "mask000.tif") == np.uint32
    assert command.run() == shell.OK
    assert tracks(command) == [(0, 1, 0), (0, 1, 0)]


def test_more_cells_than_16_bits_number(tmp_path):
    command = Predict(tmp_path)
    command.write(0, many())
    words = [command._run, command.folder, "--track", "--out", command.out]
    assert shell.run(predict.predict, [str(word) for word in words]) == shell.OK
    assert stored_dtype(command.out / "mask000.tif") == np.uint32
    np.testing.assert_array_equal(read_result(command.out).read(0), many())


@pytest.mark.parametrize(("value", "pieces"), [(255, 2), (1, 2)])
def test_a_mask_given_as_labels(tmp_path, capsys, value, pieces):
    command = Track(tmp_path)
    for frame, labels in enumerate(moving()[:2]):
        command.write(frame, np.where(labels > 0, value, 0))
    assert command.run() == shell.BAD_INPUT
    said = capsys.readouterr().err
    assert f"mask000.tif is a mask, not labels: it holds no other values than 0 and {value}, in {pieces} pieces" in said
    assert "Pass --label-masks to make a cell of every piece" in said and not command.out.exists()
    assert command.run("--label-masks") == shell.OK
    assert tracks(command) == [(0, 1, 0), (0, 1, 0)]
