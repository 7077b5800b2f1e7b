import itertools

import keras
import numpy as np
import pytest

from cellseg.streams import BatchStream, stream
from pipelines.dataset import Batches, ShardReader, training_dataset
from tests.datasets import write_shards

STEPS = [{"name": "elastic_grid", "sigma": 3.0}, {"name": "HorizontalFlip", "p": 0.5}, {"name": "GaussNoise", "p": 0.5}]


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    reader = ShardReader(write_shards(tmp_path_factory.mktemp("data"), format="npz"))
    return Batches(reader, patch=32, batch_size=2, augment=STEPS, seed=1)


@pytest.mark.parametrize("workers", [1, 3])
def test_both_consumers_give_equal_batches(batches, workers):
    ours = list(itertools.islice(training_dataset(batches, first_step=4).as_numpy_iterator(), 12))
    adapter = keras.src.trainers.data_adapters.py_dataset_adapter.PyDatasetAdapter(
        BatchStream(batches, first_step=4, workers=workers), shuffle=False
    )
    for expected, found in zip(ours, itertools.islice(adapter.get_numpy_iterator(), 12), strict=True):
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, np.asarray(other))


def test_the_stream_is_that_of_the_backend(batches):
    found = stream(batches, parallel_calls=2)
    assert (keras.backend.backend() == "tensorflow") != isinstance(found, BatchStream)
    first = next(iter(found)) if not isinstance(found, BatchStream) else found[0]
    np.testing.assert_array_equal(np.asarray(first[0]), batches.batch(0)[0])
