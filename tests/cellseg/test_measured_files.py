import numpy as np
import pandas as pd
import pytest
import tifffile

from cellseg import results
from cellseg.cli import predict, shell
from cellseg.inference import Prediction
from cellseg.measured_files import measure_files
from pipelines.images import write_image, write_labels
from tests.datasets import discs
from tests.runs import bright_pixels_run


def test_images_and_stacks_become_one_table(tmp_path):
    one = np.zeros((6, 8), np.int32)
    one[1:3, 1:4] = 1  # 6 pixels
    stack = np.stack([np.zeros_like(one), 3 * one, one[::-1]])
    write_image(tmp_path / "in" / "a.tif", (7 * one).astype(np.uint8), spacing_um=(0.5, 0.25))
    write_labels(tmp_path / "out" / "a.tif", one)
    tifffile.imwrite(tmp_path / "in" / "s.tif", np.full(stack.shape, 9, np.uint8), photometric="minisblack")
    write_labels(tmp_path / "out" / "s.tif", stack)
    targets = {tmp_path / "in" / name: tmp_path / "out" / name for name in ("a.tif", "s.tif")}
    table = measure_files(tmp_path / "cells.csv", targets)
    assert table[["image", "frame", "label", "track", "area", "intensity_mean"]].to_numpy().tolist() == [
        ["a", 0, 1, 0, 6, 7], ["s", 1, 3, 0, 6, 9], ["s", 2, 1, 0, 6, 9],
    ]  # fmt: skip
    assert table["area_um2"][0] == 6 * 0.125 and np.isnan(table["area_um2"][1])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "cells.csv"), table, check_dtype=False)
    table = measure_files(tmp_path / "cells.csv", targets, otherwise=(1, 2))
    assert table["area_um2"].tolist() == [0.75, 12, 12]
    assert measure_files(tmp_path / "cells.csv", targets, spacing_um=(1, 1))["area_um2"].tolist() == [6, 6, 6]


def test_the_frames_of_a_series_have_their_numbers(tmp_path):
    for frame in (4, 12):
        write_image(tmp_path / "in" / f"t{frame:03d}.tif", np.zeros((5, 5), np.uint8))
        write_labels(tmp_path / "out" / f"mask{frame:03d}.tif", np.eye(5, dtype=np.int32))
    targets = {tmp_path / "in" / f"t{n:03d}.tif": tmp_path / "out" / f"mask{n:03d}.tif" for n in (4, 12)}
    assert measure_files(tmp_path / "c.csv", targets)["frame"].tolist() == [4, 12]


def test_scores_and_classes_follow_their_cells(tmp_path):
    one = np.zeros((6, 8), np.int32)
    one[0:2, 0:2], one[4:6, 4:6] = 1, 2
    stack = np.stack([one, np.zeros_like(one), (one == 2).astype(np.int32)])
    scores = [[0.9, 0.5], [], [0.25]]
    predictions = [
        Prediction(labels, labels.astype(np.float32), np.where(labels > 0, 3 - labels, 0), np.array(of, np.float32))
        for labels, of in zip(stack, scores, strict=True)
    ]
    tifffile.imwrite(tmp_path / "s.tif", np.zeros(stack.shape, np.uint8), photometric="minisblack")
    for name, pages in (("labels.tif", stack), ("none.tif", np.zeros_like(stack))):
        write_labels(tmp_path / name, pages)
        of = (
            predictions if name == "labels.tif" else [Prediction(pages[0], pages[0], None, np.zeros(0, np.float32))] * 3
        )
        results.scores_table(of, ["round", "long"]).to_csv(results.scores_file(tmp_path / name), index=False)
    table = measure_files(tmp_path / "c.csv", {tmp_path / "s.tif": tmp_path / "labels.tif"}, scores=True)
    assert table[["frame", "label", "class", "score"]].to_numpy().tolist() == [
        [0, 1, "long", 0.9], [0, 2, "round", 0.5], [2, 1, "long", 0.25],
    ]  # fmt: skip
    empty = measure_files(tmp_path / "c.csv", {tmp_path / "s.tif": tmp_path / "none.tif"}, scores=True)
    assert len(empty) == 0 and list(empty) == list(table)


def test_no_cell_at_all(tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((5, 5), np.uint8))
    write_labels(tmp_path / "b.tif", np.zeros((5, 5), np.int32))
    table = measure_files(tmp_path / "c.csv", {tmp_path / "a.tif": tmp_path / "b.tif"})
    assert len(table) == 0 and "area" in pd.read_csv(tmp_path / "c.csv")


def test_the_command(tmp_path, capsys):
    run, out = bright_pixels_run(tmp_path), tmp_path / "out"
    for seed, name in enumerate("ab"):
        write_image(tmp_path / "in" / f"{name}.tif", np.where(discs(seed) > 0, 200, 0).astype(np.uint8))

    def call(*options):
        return shell.run(predict.predict, [str(run), str(tmp_path / "in"), "--out", str(out), *options])

    assert call("--measure", "--spacing-um", "0.5", "0.5") == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "b.tif", "cells.csv"]
    cells = pd.read_csv(out / "cells.csv")
    assert cells["image"].tolist() == ["a"] * 4 + ["b"] * 4
    np.testing.assert_array_equal(cells["area_um2"], cells["area"] / 4)
    for path in out.glob("*.tif"):
        path.unlink()
    capsys.readouterr()
    assert call("--measure") == 2
    assert "1 results exist already, for example" in capsys.readouterr().err
    assert call() == 0
    (out / "b.tif").unlink()
    assert call("--measure", "--resume") == 0
    cells = pd.read_csv(out / "cells.csv")
    assert len(cells) == 8 and "area_um2" not in cells


@pytest.mark.parametrize("option", ["--measure"])
def test_an_image_in_pieces_is_refused(tmp_path, capsys, option):
    run = bright_pixels_run(tmp_path)
    write_image(tmp_path / "in" / "a.tif", np.zeros((400, 400), np.uint8))
    arguments = [str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), option, "--memory", "2MB"]
    assert shell.run(predict.predict, arguments) == 2
    assert "--measure need the whole image" in capsys.readouterr().err
