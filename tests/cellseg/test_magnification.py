"""cellseg-predict --zoom and --diameter: images are zoomed for the network, labels keep the file's own pixels."""

import inspect
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile

import cellseg
from cellseg import runs
from cellseg.cli import predict, shell
from cellseg.cluster import Job
from cellseg.instances import INSTANCES
from cellseg.magnification import POWERS, Magnification, in_own_pixels, typical_diameter
from cellseg.results import Options
from cellseg.runs import Run
from pipelines.errors import InputError
from pipelines.images import read_labels, write_image
from tests.runs import bright_pixels_run


def taught(folder, diameter=20.0, **instances):
    """The run whose network calls bright pixels cells; its training's cells had this diameter."""
    folder.mkdir(exist_ok=True)
    folder = bright_pixels_run(folder)
    data = runs.read_json(folder, runs.DATA)
    data["statistics"] = {"train": {"object_diameter": diameter and {"0.05": 1.0, "0.5": diameter, "0.95": 99.0}}}
    runs.write_json(folder, runs.DATA, data)
    if instances:
        known = Run.read(folder).experiment
        runs.write_text(folder, runs.EXPERIMENT, known.model_copy(update={"instances": instances}).to_yaml())
    return folder


def disks(*radii, side=160):
    """Bright disks one under the other."""
    image = np.zeros((side, side), np.uint8)
    for number, radius in enumerate(radii):
        cv2.circle(image, (side // 2, int((number + 0.5) * side / len(radii))), radius, 200, -1)
    return image


def call(*arguments):
    return shell.run(predict.predict, [str(word) for word in arguments])


def views(loaded):
    """Sizes of the views that the network is asked about, from now on."""
    seen, look = [], loaded.predictor._look
    loaded.predictor._look = lambda image: seen.append(image.shape[:2]) or look(image)
    return seen


def test_the_factor_is_the_trainings_diameter_through_that_of_the_cells(tmp_path):
    run = Run.read(taught(tmp_path, 20.0))
    assert Magnification().factor(run) == 1
    assert Magnification(zoom=0.3).factor(run) == 0.3
    assert Magnification(diameter=80.0).factor(run) == 0.25
    assert typical_diameter(run) == 20.0
    assert typical_diameter(Run.read("nuclei")) == pytest.approx(12.9, abs=0.05)  # as its card says


def test_the_factor_stands_on_top_of_the_runs_own_zoom(tmp_path):
    folder = taught(tmp_path, 20.0)
    text = (folder / runs.EXPERIMENT).read_text()
    own = Run.read(folder).experiment.inference.model_copy(update={"zoom": [1.0, 2.0]})
    assert "zoom" in text
    experiment = Run.read(folder).experiment.model_copy(update={"inference": own})
    runs.write_text(folder, runs.EXPERIMENT, experiment.to_yaml())
    loaded = cellseg.load_run(folder, diameter=40)
    seen = views(loaded)
    loaded.predict(disks(20))
    assert seen == [(80, 80), (160, 160)]


def test_labels_lie_on_the_files_own_pixels(tmp_path):
    folder, image = taught(tmp_path, 20.0), disks(22, 31)
    loaded = cellseg.load_run(folder, diameter=40)
    seen = views(loaded)
    found = loaded.predict(image)
    assert seen == [(80, 80)]
    assert found.labels.shape == found.probability.shape == image.shape and found.labels.max() == 2
    # Thresholded after the resizing, the outline is as smooth as the disk's own, not a staircase of the smaller view.
    missed = np.count_nonzero((found.labels > 0) != (image > 0))
    assert missed < 0.02 * np.count_nonzero(image)
    np.testing.assert_array_equal(cellseg.load_run(folder, zoom=0.5).predict(image).labels, found.labels)


def test_each_run_of_an_ensemble_has_its_own_factor(tmp_path):
    folders = [taught(tmp_path / "a", 20.0), taught(tmp_path / "b", 10.0)]
    together = cellseg.load_run(folders, diameter=40)
    assert [member.zoom for member in together.predictor.members] == [(0.5,), (0.25,)]


def test_sizes_of_the_instance_method_grow_with_the_cells(tmp_path):
    assert in_own_pixels({"name": "watershed", "min_size": 20, "depth": 0.5}, 0.25) == {
        **{"name": "watershed", "min_size": 320, "depth": 2.0},
        "sigma": 4.0,  # the method's own 1.0
    }
    assert in_own_pixels({"name": "seeded", "depth": 0.1, "sigma": 2.0}, 2.0) == {
        **{"name": "seeded", "depth": 0.1, "sigma": 1.0, "min_size": 0},  # this depth is no length
    }
    assert in_own_pixels({"name": "components", "min_size": 1}, 0.1)["min_size"] == 1  # keeps all
    assert in_own_pixels({"name": "components", "min_size": 3}, 10.0)["min_size"] == 1
    # A speck of 49 px is 12 px for the network, where 20 are asked for.
    image = disks(22, 22)
    image[:7, :7] = 200
    folder = taught(tmp_path, 20.0, name="components", min_size=20)
    assert cellseg.load_run(folder).predict(image).labels.max() == 3
    assert cellseg.load_run(folder, diameter=40).predict(image).labels.max() == 2


def test_every_method_has_said_which_of_its_options_are_sizes():
    assert POWERS.keys() == INSTANCES.keys()
    for name, function in INSTANCES.items():
        numbers = {
            option
            for option, one in inspect.signature(function).parameters.items()
            if one.kind is one.KEYWORD_ONLY and isinstance(one.default, int | float) and one.default is not False
        }
        assert POWERS[name].keys() <= numbers
        # The margin is one of the image, however large its cells are.
        assert numbers - POWERS[name].keys() <= {
            "threshold", "connectivity", "margin", "depth", "seed_threshold", "mask_threshold", "min_visible"
        }  # fmt: skip


def test_the_command_zooms_and_says_so(tmp_path, capsys):
    folder, image = taught(tmp_path, 20.0), disks(22, 31)
    write_image(tmp_path / "in" / "a.tif", image, spacing_um=(0.5, 0.5))
    assert call(folder, tmp_path / "in", "--diameter", 40, "--measure", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "Images are zoomed by 0.5 for run: cells of 40 px then look like the 20 px of the training" in said
    expected = cellseg.load_run(folder, diameter=40).predict(image).labels
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.tif", page=0), expected)
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as file:
        assert file.pages[0].shape == image.shape
    assert call(folder, tmp_path / "in", "--zoom", 0.5, "--out", tmp_path / "zoom") == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "zoom" / "a.tif", page=0), expected)
    assert "zoomed by 0.5 for run; labels have" in capsys.readouterr().err


def test_sequences_and_volumes_are_zoomed_too(tmp_path, capsys):
    folder = taught(tmp_path, 20.0)
    for frame in range(2):
        write_image(tmp_path / "in" / f"t{frame:03d}.tif", disks(22, 31))
    expected = cellseg.load_run(folder, diameter=40).predict(disks(22, 31)).labels
    assert call(folder, tmp_path / "in", "--diameter", 40, "--track", "--out", tmp_path / "tracks") == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "tracks" / "mask001.tif", page=0), expected)
    options = ["--volume", "--no-report", "--min-voxels", 0]
    assert call(folder, tmp_path / "in", "--diameter", 40, *options, "--out", tmp_path / "volume") == 0
    found = read_labels(tmp_path / "volume" / "in.tif")
    np.testing.assert_array_equal(found > 0, np.stack([expected > 0] * 2))
    assert capsys.readouterr().err.count("Images are zoomed by 0.5") == 2


def test_workers_of_a_cluster_zoom_as_well(tmp_path):
    from cellseg import cluster

    job = Job.of([taught(tmp_path, 20.0)], Options(), Magnification(diameter=40))
    write_image(tmp_path / "a.tif", disks(22))
    cluster._predict((tmp_path / "a.tif", tmp_path / "a.tif", tmp_path / "out.tif"), job=job)
    loaded = cluster._loaded(job)
    assert loaded.predictor.members[0].zoom == (0.5,)
    assert cluster._loaded(replace(job, magnification=Magnification())).predictor.members[0].zoom == (1.0,)


@pytest.mark.parametrize(
    ("options", "diameter", "text"),
    [
        (["--zoom", 2, "--diameter", 9], 20.0, "Pass --zoom or --diameter, not both"),
        (["--zoom", 0], 20.0, "--zoom is 0; a factor from 0.02 to 10 was expected"),
        (["--zoom", 11], 20.0, "--zoom is 11; a factor"),
        (["--diameter", -3], 20.0, "--diameter is -3; the width of a cell in pixels was expected, above 0"),
        (["--diameter", "nan"], 20.0, "--diameter is nan"),
        (["--diameter", 1], 20.0, "wide: the zoom would be 20, and 0.02 to 10 can be had"),
        (["--diameter", 40], None, "has not noted how large the cells of its training were"),
        (["--diameter", 40, "--track"], None, "Pass --zoom FACTOR: their diameter in pixels through"),
        (["--zoom", 0.5, "--memory", "100KB"], 20.0, "with --zoom or --diameter a run needs the whole image"),
    ],
)
def test_what_cannot_be_zoomed_is_explained(tmp_path, capsys, options, diameter, text):
    write_image(tmp_path / "in" / "t000.tif", disks(22))
    assert call(taught(tmp_path, diameter), tmp_path / "in", *options, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert text in said
    assert not list(tmp_path.glob("out/*")) and not list(tmp_path.glob(".out*"))


def test_a_run_without_statistics_says_so(tmp_path):
    with pytest.raises(InputError, match=r"run has not noted how large .*\(data.json: statistics, train"):
        cellseg.load_run(bright_pixels_run(tmp_path), diameter=40)


def test_another_zoom_is_no_going_on(tmp_path, monkeypatch, capsys):
    from cellseg import following

    folder = taught(tmp_path, 20.0)
    for frame in range(2):
        write_image(tmp_path / "in" / f"t{frame:03d}.tif", disks(22))

    def broken(*_):
        raise InputError("no tracks today.")

    with monkeypatch.context() as patch:
        patch.setattr(following, "follow", broken)
        assert call(folder, tmp_path / "in", "--zoom", 0.5, "--track", "--out", tmp_path / "out") == 2
    command = [folder, tmp_path / "in", "--track", "--resume", "--out", tmp_path / "out"]
    assert call(*command, "--zoom", 1) == 2
    assert "was made by another run, of other images or with another zoom" in capsys.readouterr().err
    assert call(*command, "--diameter", 40) == 0  # the same factor
