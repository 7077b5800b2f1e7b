from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg import cluster
from cellseg.results import Options
from cellseg.runs import Run
from pipelines.errors import InputError
from tests.datasets import discs
from tests.runs import bright_pixels_run


@pytest.fixture
def job(tmp_path):
    return cluster.Job.of([bright_pixels_run(tmp_path)], Options())


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "in").mkdir()
    made = []
    for seed in range(6):
        image = tmp_path / "in" / f"{seed}.tif"
        tifffile.imwrite(image, ((discs(seed) > 0) * 200).astype(np.uint8))
        made.append((Path("in") / image.name, image, tmp_path / "out" / image.name))
    return made


def test_a_worker_loads_the_run_once_for_all_its_threads(job, tasks, monkeypatch):
    loads, load = [], cluster.load_run
    monkeypatch.setattr(cluster, "load_run", lambda folders, *how: loads.append(folders) or load(folders, *how))
    with ThreadPoolExecutor(3) as threads:
        outcomes = list(threads.map(lambda task: cluster._predict(task, job=job), tasks))
    assert [(outcome.file, outcome.error) for outcome in outcomes] == [(file, None) for file, *_ in tasks]
    for seed, (*_, target) in enumerate(tasks):
        np.testing.assert_array_equal(tifffile.imread(target) > 0, discs(seed) > 0)
    assert loads == [list(job.runs)]


def test_a_run_that_has_changed_is_loaded_again(tmp_path, job, tasks):
    assert cluster._predict(tasks[0], job=job).error is None
    run = Run.read(job.runs[0])
    (run.folder / "threshold.json").write_text('{"threshold": 0.0}')
    changed = cluster.Job.of([run.folder], Options(overwrite=True))
    assert changed.checksums != job.checksums
    assert cluster._predict(tasks[0], job=changed).error is None
    assert tifffile.imread(tasks[0][2]).all()  # every probability is at least 0


def test_a_worker_that_does_not_see_the_run_or_the_image(tmp_path, job, tasks):
    file, image, target = tasks[0]
    with pytest.raises(InputError, match="does not see .*/in/none.tif"):
        cluster._predict((file, tmp_path / "in" / "none.tif", target), job=job)
    lost = cluster.Job((str(tmp_path / "elsewhere"),), job.checksums, job.options)
    with pytest.raises(InputError, match="does not see .*/elsewhere"):
        cluster._predict((file, image, target), job=lost)


def test_a_bad_file_is_an_outcome(job, tasks):
    file, image, _ = tasks[0]
    image.write_bytes(image.read_bytes()[:700])
    outcome = cluster._predict(tasks[0], job=job)
    assert outcome.file == file and "0.tif is damaged" in str(outcome.error)
