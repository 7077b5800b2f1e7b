from collections import Counter

import numpy as np
import pytest

from pipelines.dataset import Batches, ShardReader
from pipelines.shares import Share
from tests.datasets import write_shards


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    reader = ShardReader(write_shards(tmp_path_factory.mktemp("data"), 10))
    return Batches(reader, patch=32, batch_size=4, augment=[{"name": "elastic_grid", "sigma": 3.0}], seed=1)


def rows(batch):
    return [tuple(array[row].tobytes() for array in batch) for row in range(len(batch[0]))]


@pytest.mark.parametrize("devices", [2, 4])
def test_the_shares_of_a_step_are_its_rows_once_each(batches, devices):
    for step in (0, 3):
        seen = [row for device in range(devices) for row in rows(Share(batches, device, of=devices).batch(step))]
        assert Counter(seen) == Counter(rows(batches.batch(step))) and len(set(seen)) == 4


def test_device_d_of_n_takes_every_nth_row_from_d_on(batches):
    for found, expected in zip(Share(batches, 1, of=2).batch(5), batches.batch(5), strict=True):
        np.testing.assert_array_equal(found, expected[[1, 3]])


def test_no_sample_is_drawn_twice_in_a_pass_over_all_workers(batches, monkeypatch):
    names = [sample["name"] for sample in batches._reader.manifest.of_split("train")]
    drawn, patch = [], batches.patch
    monkeypatch.setattr(batches, "patch", lambda sample, rng: (drawn.append(sample["name"]), patch(sample, rng))[1])
    shares = [Share(batches, worker, of=2) for worker in (0, 1)]
    steps = len(names) // 4
    assert steps * 4 <= len(names)
    for share in shares:
        for step in range(steps):
            share.batch(step)
    assert len(drawn) == 4 * steps and set(Counter(drawn).values()) == {1}


def test_shapes_are_those_of_the_share(batches):
    share = Share(batches, 0, of=2)
    assert [array.shape for array in share.batch(0)] == list(share.shapes) and share.shapes[0] == (2, 32, 32, 1)
