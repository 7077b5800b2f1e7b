"""The commands of the README, as they stand there, on the embedded data or on data of the same layout."""

import re
import shutil
from pathlib import Path

import pytest
import tifffile

from cellseg.cli import predict, shell
from tests import commands
from tests.datasets import write_ctc

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# What makes a training short; everything else is as the README and the experiment say.
SHORT = "train.epochs=1 train.steps_per_epoch=2 train.batch_size=1 train.patch=64 model.filters=4 model.depth=2"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def block_with(text, language="sh"):
    (found,) = [block for block in blocks(language) if text in block]
    return found


@pytest.fixture(scope="module")
def own_images(tmp_path_factory):
    """A person's folder of images: eight of the embedded nuclei."""
    folder = tmp_path_factory.mktemp("readme")
    nuclei = ROOT / "experiments" / "data" / "nuclei"
    for sub in ("images", "labels"):
        (folder / "my-cells" / sub).mkdir(parents=True)
        for path in sorted((nuclei / sub).glob("*.tif"))[:8]:
            shutil.copy(path, folder / "my-cells" / sub)
    block = block_with("cellseg-prepare my-cells")
    assert block.count("cellseg-") == 4
    commands.run(block, folder, also=SHORT)
    return folder


def test_your_own_images(own_images):
    assert (own_images / "my-run" / "report.html").exists()
    assert len(list((own_images / "my-labels").glob("*_overlay.png"))) == 8
    assert len([p for p in (own_images / "my-labels").glob("*.tif")]) == 8


def test_nuclei_without_training(tmp_path, monkeypatch, capsys):
    nuclei = ROOT / "experiments" / "data" / "nuclei" / "images"
    (tmp_path / "my_images").mkdir()
    for path in sorted(nuclei.glob("*.tif"))[:2]:
        shutil.copy(path, tmp_path / "my_images")
    monkeypatch.chdir(tmp_path)
    command, *arguments = block_with("cellseg-predict nuclei").split()
    assert command == "cellseg-predict"
    assert shell.run(predict.predict, arguments) == 0, capsys.readouterr().err
    for path in (tmp_path / "my_images").iterdir():
        assert tifffile.imread(tmp_path / "my-nuclei" / path.name).max() > 5  # nuclei
        assert (tmp_path / "my-nuclei" / f"{path.stem}_overlay.png").exists()


def test_a_sequence(own_images):
    (own_images / "my-sequence").mkdir()
    image = tifffile.imread(sorted((own_images / "my-cells" / "images").glob("*.tif"))[0])[:64, :64]
    for frame in range(2):
        tifffile.imwrite(own_images / "my-sequence" / f"t{frame:03d}.tif", image)
    commands.run(block_with("--track --measure"), own_images)
    names = {path.name for path in (own_images / "my-tracks").iterdir()}
    told = ("mask000.tif", "mask001.tif", "res_track.txt", "cells.csv", "tracks.csv", "msd.csv", "report.html")
    assert names >= set(told)


def test_python(own_images, monkeypatch):
    monkeypatch.chdir(own_images)
    image = tifffile.imread(sorted((own_images / "my-cells" / "images").glob("*.tif"))[0])
    names = {"image": image}
    exec(block_with("load_run", "python"), names)
    assert names["result"].labels.shape == names["result"].probability.shape == image.shape


def test_the_pancreatic_experiment(tmp_path, monkeypatch):
    write_ctc(tmp_path / "data" / "PhC-C2DL-PSC", 20)
    blocks_ = block_with("experiments/pancreatic.yaml").splitlines()
    (train,) = [line for line in blocks_ if line.startswith("cellseg-train")]
    frames = "split.train=0-8 split.validation=14-14 split.test=19-19"
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("data"))
    monkeypatch.setenv("CELLSEG_DATA", str(tmp_path / "data"))
    commands.run(train, tmp_path, also=f"{SHORT} {frames} split.gap=4")
    assert (tmp_path / "runs" / "pancreatic" / "report.html").exists()
    assert any(line.startswith("tensorboard --logdir runs/pancreatic/tensorboard") for line in blocks_)
    assert (tmp_path / "runs" / "pancreatic" / "tensorboard").is_dir()


def test_the_experiment_for_any_sequence(tmp_path, monkeypatch):
    """Untouched but for its size, on a data set of two sequences with silver truth."""
    folder = write_ctc(tmp_path / "New-Cells", 14)
    shutil.copytree(folder / "01", folder / "02")
    shutil.copytree(folder / "01_ST", folder / "02_ST")
    for path in sorted((folder / "02").glob("t*.tif")):  # the same pictures must not lie in two splits
        tifffile.imwrite(path, tifffile.imread(path)[::-1])
    for path in sorted((folder / "02_ST" / "SEG").glob("*.tif")):
        tifffile.imwrite(path, tifffile.imread(path)[::-1])
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("data"))
    monkeypatch.setenv("CELLSEG_DATA", str(folder))
    grid = "tuning.instances={sigma:\\ [1.0]}"
    commands.run("cellseg-train experiments/ctc.yaml --out run", tmp_path, also=f"{SHORT} {grid}")
    assert (tmp_path / "run" / "report.html").exists()


def test_every_experiment_is_listed():
    rows = [line.split("|") for line in README.partition("## Experiments")[2].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row[1])}
    assert named == {path.stem for path in (ROOT / "experiments").glob("*.yaml")}


def test_the_two_commands_of_a_fresh_machine():
    targets = [block.strip() for block in blocks("sh") if block.startswith("make ")]
    assert targets == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, re.MULTILINE) and re.search(r"^test:", makefile, re.MULTILINE)
