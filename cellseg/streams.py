"""Streams: batches as the Keras backend takes them. What is in a batch is made in `pipelines.dataset`."""

import os

import keras

from pipelines.allocator import keep_freed_memory
from pipelines.dataset import Batches, training_dataset


class BatchStream(keras.utils.PyDataset):
    """An endless `keras.utils.PyDataset` of (image, target, weight_map) batches; needs no TensorFlow.

    Args:
        batches: What to stream.
        first_step: Where to start; the batches are those of an uninterrupted run.
        workers: Threads that make batches. The answer does not depend on it.
    """

    def __init__(self, batches: Batches, *, first_step: int = 0, workers: int = 1):
        keep_freed_memory()
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=2 * workers)
        self._batches, self._first_step = batches, first_step

    @property
    def num_batches(self) -> None:
        """None: endless."""
        return None

    def __getitem__(self, index: int):
        """The batch of a step after `first_step`."""
        return self._batches.batch(self._first_step + index)


def stream(batches: Batches, *, first_step: int = 0, parallel_calls: int | None = None):
    """What `fit` is given: a `tf.data.Dataset` on the TensorFlow backend, a `BatchStream` on the others.

    The batches are the same ones, bit for bit.
    """
    calls = parallel_calls or os.cpu_count() or 1
    if keras.backend.backend() == "tensorflow":
        return training_dataset(batches, first_step=first_step, parallel_calls=calls)
    return BatchStream(batches, first_step=first_step, workers=calls)
