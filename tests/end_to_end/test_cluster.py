"""Prediction and preparation on a Dask cluster of real processes, of which one is killed midway."""

import numpy as np
import pytest
import tifffile

from cellseg import prediction
from cellseg.cli import predict, prepare, shell
from cellseg.prediction import Options, predict_files
from pipelines import cluster as clusters
from pipelines.errors import InputError, InterruptionError
from pipelines.files import temporary_name
from pipelines.prepare import prepare as prepare_shards
from tests.clusters import cluster, until
from tests.datasets import config, discs, write_pairs
from tests.runs import bright_pixels_run


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class KillMidway:
    """Passes things on, and kills a busy worker when the first two have come; `killed` says what it had in hand.

    In the folder `written` it leaves what a worker leaves that is killed while it writes `half.tif`.
    """

    def __init__(self, made, written=None):
        self.made, self.written, self.killed = made, written, {}

    def __call__(self, items, total=None):
        for number, item in enumerate(items):
            if number == 2:
                busy = self.made.busy()
                name = max(busy, key=busy.get)
                process = self.made.kill(name)
                if self.written:
                    temporary_name(self.written / "half.tif", process).write_bytes(b"ha")
                self.killed = {name: busy[name]}
            yield item


def write_images(folder, num):
    """Small images, and one of five parts for the least memory."""
    folder.mkdir()
    for seed in range(num):
        tifffile.imwrite(folder / f"{seed:02d}.tif", ((discs(seed, side=64 + seed) > 0) * 200).astype(np.uint8))
    tifffile.imwrite(folder / "large.tif", ((np.tile(discs(0, side=300), (6, 1)) > 0) * 200).astype(np.uint8))
    return folder


def test_predicting_with_workers_killed_midway_is_predicting_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # relative paths; the workers run elsewhere
    run, images = bright_pixels_run(tmp_path).relative_to(tmp_path), write_images(tmp_path / "in", 8)
    here, there = tmp_path / "here", tmp_path / "there"
    options = {"options": Options(probability="float16"), "memory": 6 * 10**6}
    predict_files(run, [images.relative_to(tmp_path)], here, **options)
    with cluster(tmp_path / "cluster", "one", "two", "three") as made:
        until(lambda: made.num_workers() == 3)
        between_files, between_parts = KillMidway(made, there), KillMidway(made)
        answered = prediction.cluster.answered
        monkeypatch.setattr(
            prediction.cluster, "answered", lambda client, parts, job: between_parts(answered(client, parts, job=job))
        )
        failed = predict_files(
            run,
            [images.relative_to(tmp_path)],
            there.relative_to(tmp_path),
            **options,
            scheduler=made.address,
            progress=between_files,
        )
        assert failed == []
        for midway in (between_files, between_parts):
            assert sum(midway.killed.values()) > 0
        assert len(contents(here)) == 2 * 9
        assert contents(there) == contents(here)

        # What is missing alone, and a bad file as locally.
        (there / "03.tif").unlink()
        before = (there / "04.tif").stat().st_mtime_ns
        images.joinpath("99.tif").write_bytes(images.joinpath("03.tif").read_bytes()[:900])
        arguments = [str(run), "in", "--out", "there", "--scheduler", made.address, "--resume", "--keep-going"]
        assert shell.run(predict.predict, [*arguments, "--probability=float16", "--memory=6MB"]) == 2
        said = capsys.readouterr().err
        assert "8 of 10 images have their results already" in said
        assert "99.tif is damaged" in said and "1 files failed" in said
        assert contents(there) == contents(here)
        assert (there / "04.tif").stat().st_mtime_ns == before
        with pytest.raises(InputError, match="99.tif is damaged"):
            predict_files(run, [images / "99.tif"], tmp_path / "bad", scheduler=made.address)
        assert not (tmp_path / "bad").exists()


def test_preparing_with_a_worker_killed_midway_writes_the_same_shards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = write_pairs(tmp_path / "raw", 30).relative_to(tmp_path)
    more = {"config": config(), "options": {"images": None, "labels": None}}
    prepare_shards(source, tmp_path / "here", **more)
    expected = contents(tmp_path / "here")
    with cluster(tmp_path / "cluster") as made:
        monkeypatch.setattr(clusters, "CONNECT_S", 1)
        with pytest.raises(InputError, match=r"scheduler at tcp:.* has no workers. Start some with `dask worker tcp:"):
            prepare_shards(source, tmp_path / "there", **more, scheduler=made.address)
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        for name in ("one", "two"):
            made.add_worker(name)
        until(lambda: made.num_workers() == 2)
        midway = KillMidway(made)
        prepare_shards(source, tmp_path / "there", **more, scheduler=made.address, progress=midway)
        assert sum(midway.killed.values()) > 0
        assert contents(tmp_path / "there").keys() == expected.keys()
        assert {name for name, data in contents(tmp_path / "there").items() if data != expected[name]} <= {
            "experiment.yaml"  # it names its own folder
        }
        # The command, and a bad file.
        image = source / "images" / "cell07.tif"
        whole = image.read_bytes()
        image.write_bytes(whole[:900])
        arguments = [str(source), "--layout", "pairs", "--format", "npz", "--out", "bad", "--scheduler", made.address]
        assert shell.run(prepare.prepare, arguments) == 2
        assert "cell07.tif is damaged" in capsys.readouterr().err
        assert not (tmp_path / "bad").exists()
        image.write_bytes(whole)

        def lose(items, total):
            for number, item in enumerate(items):
                if number == 4:
                    made.kill("scheduler")
                yield item

        with pytest.raises(InterruptionError, match="The Dask scheduler has gone. Start it again, and give the same"):
            prepare_shards(source, tmp_path / "lost", **more, scheduler=made.address, progress=lose)
        assert not (tmp_path / "lost").exists()
