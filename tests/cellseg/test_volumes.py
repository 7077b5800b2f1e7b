"""cellseg-predict --volume: from the sections of a stack to 3-D objects."""

import numpy as np
import pandas as pd
import pytest
import tifffile
import trimesh

from cellseg import volumes
from cellseg.cli import predict, shell
from cellseg.results import Options
from cellseg.volumes import predict_volume
from pipelines.errors import InputError
from pipelines.images import read_labels, read_spacing_um
from tests.runs import bright_pixels_run

PLAIN = Options()


@pytest.fixture
def run(tmp_path):
    return bright_pixels_run(tmp_path)


def balls():
    """Two balls of radius 5 and 7 in 20 sections of 40 x 50, and a speck."""
    z, row, column = np.indices((20, 40, 50))
    volume = np.zeros(z.shape, np.uint8)
    for centre, radius in (((9, 12, 12), 5), ((10, 25, 36), 7)):
        volume[sum((one - place) ** 2 for one, place in zip((z, row, column), centre, strict=True)) <= radius**2] = 200
    volume[2, 2, 40:43] = 200
    return volume


@pytest.fixture
def stack(tmp_path):
    tifffile.imwrite(tmp_path / "balls.tif", balls(), photometric="minisblack")
    return tmp_path / "balls.tif"


def call(*arguments):
    return shell.run(predict.predict, [str(word) for word in arguments])


def test_one_command_from_a_stack_to_measured_objects(tmp_path, run, stack, capsys):
    out = tmp_path / "out"
    sizes = ["--spacing-um", 0.1, 0.1, "--section-um", 0.2, "--mesh", "ply", "--mesh", "obj"]
    assert call(run, "--volume", stack, *sizes, "--out", out) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n" and "1 object of less than 64 voxels was left out" in said.err
    assert sorted(path.name for path in out.iterdir()) == [
        "balls.tif", "objects.csv", "objects.obj", "objects.ply", "pictures", "report.html",
    ]  # fmt: skip
    objects = read_labels(out / "balls.tif")
    np.testing.assert_array_equal(objects > 0, (balls() > 0) & (np.arange(20) != 2)[:, None, None])
    assert read_spacing_um(out / "balls.tif") == pytest.approx((0.1, 0.1))
    with tifffile.TiffFile(out / "balls.tif") as file:
        assert (file.imagej_metadata["slices"], file.imagej_metadata["spacing"]) == (20, 0.2)
    table = pd.read_csv(out / "objects.csv")
    assert table["num_voxels"].tolist() == [(objects == 1).sum(), (objects == 2).sum()]
    np.testing.assert_allclose(table["volume_um3"], table["num_voxels"] * 0.1 * 0.1 * 0.2)
    # In micrometres, x first: centre + radius of the larger ball.
    mesh = trimesh.load(out / "objects.ply")
    np.testing.assert_allclose(mesh.bounds[1], [4.3, 3.2, 3.4], atol=0.06)
    text = (out / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 4 and "0.2 x 0.1 x 0.1 µm" in text


def test_without_units_everything_is_in_voxels(tmp_path, run, stack, capsys):
    assert call(run, stack, "--volume", "--section-um", 0.2, "--min-voxels", 0, "--out", tmp_path / "out") == 0
    assert "Everything is measured in voxels, since the pixel size is (--spacing-um Y X) not" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert len(table) == 3 and "surface" in table and "volume_um3" not in table
    assert (tmp_path / "out" / "objects.glb").exists()


def test_units_of_the_file(tmp_path, run):
    tags = {"axes": "ZYX", "unit": "um", "spacing": 2.0}
    tifffile.imwrite(tmp_path / "a.tif", balls(), imagej=True, resolution=(4, 4), metadata=tags)
    table = predict_volume(
        run, tmp_path / "a.tif", tmp_path / "out", volume=volumes.Options(), options=PLAIN, report=False
    )
    np.testing.assert_allclose(table["volume_um3"], table["num_voxels"] * 2 / 16)
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("method", "instances", "count"),
    [("join", "components", 1), ("link", "components", 2), ("auto", "components", 1), ("auto", "watershed", 2)],
)
def test_cells_that_touch_are_joined_or_kept_apart(tmp_path, run, method, instances, count):
    # One cell in the first two sections, another in the last two; they share a quarter of their pixels.
    volume = np.zeros((4, 14, 22), np.uint8)
    volume[:2, 3:11, 2:10], volume[2:, 3:11, 8:16] = 200, 200
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    path = run / "experiment.yaml"
    path.write_text(path.read_text().replace("name: components", f"name: {instances}"))
    chosen = volumes.Options(method=method, min_voxels=0)
    table = predict_volume(run, tmp_path / "a.tif", tmp_path / "out", volume=chosen, options=PLAIN, report=False)
    assert len(table) == count


def test_no_object_is_no_error(tmp_path, run):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 16, 16), np.uint8), photometric="minisblack")
    said = []
    table = predict_volume(
        run, tmp_path / "a.tif", tmp_path / "out", volume=volumes.Options(), options=PLAIN, say=said.append
    )
    assert len(table) == 0 and "There is no object, so there is no mesh" in said[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.tif", "objects.csv", "pictures", "report.html",
    ]  # fmt: skip


def test_what_is_no_volume(tmp_path, run, stack, capsys):
    (tmp_path / "one").mkdir()
    tifffile.imwrite(tmp_path / "one" / "a1.tif", balls()[0])
    assert call(run, tmp_path / "one", "--volume", "--out", tmp_path / "out") == 2
    assert "one is one image; --volume needs the sections of a volume" in capsys.readouterr().err
    for number in (2, 5):
        tifffile.imwrite(tmp_path / "one" / f"a{number}.tif", balls()[0])
    assert call(run, tmp_path / "one", "--volume", "--out", tmp_path / "out") == 2
    assert "2 sections have no file: 3, 4. Objects cannot be followed through a hole" in capsys.readouterr().err
    assert call(run, stack, "--volume", "--keep-going", "--overlay", "--out", tmp_path / "out") == 2
    assert "--volume does not go with --overlay, --keep-going" in capsys.readouterr().err
    assert call(run, stack, "--volume", "--section-um", 0, "--out", tmp_path / "out") == 2
    assert "spacing_um is (0.0, 1.0, 1.0); (z, row, column) in micrometres was expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sections_are_kept_for_resume(tmp_path, run, stack, monkeypatch):
    options = {"volume": volumes.Options(), "report": False}

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="The labels of 20 of 20 images are kept"):
        patch.setattr(volumes, "write_volume", full)
        predict_volume(run, stack, tmp_path / "out", options=PLAIN, **options)
    assert len(predict_volume(run, stack, tmp_path / "out", options=Options(resume=True), **options)) == 2
    with pytest.raises(InputError, match="is whole already"):
        predict_volume(run, stack, tmp_path / "out", options=Options(resume=True), **options)
