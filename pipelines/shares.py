"""Shares: the part of every batch that one device sees, where several devices or machines train together.

The batches themselves are made in `pipelines.dataset`.
"""

from typing import Any

from pipelines.dataset import ArraySpec, Batches


class Share:
    """The rows of each batch that belong to one device; to be streamed in the place of the batches.

    A batch belongs to the whole training, however many devices work on it: device d of n takes its rows d::n, so that
    together they see each row once and no other.

    Args:
        batches: Of the whole training.
        device: Number of the device, from 0, among all of the training.
        of: How many devices there are in all; `batches.shapes[0][0]` must be a multiple of it.
    """

    def __init__(self, batches: Batches, device: int, *, of: int):
        self._batches, self._device, self._of = batches, device, of
        self.shapes = tuple((shape[0] // of, *shape[1:]) for shape in batches.shapes)
        self.specs = tuple(_share(spec, of) for spec in batches.specs)

    def batch(self, step: int) -> tuple:
        """The device's part of the batch of a step; arrays as of `Batches.batch`, with fewer rows."""
        return self._batches.batch(step, first=self._device, every=self._of)


def _share(spec: Any, of: int) -> Any:
    """Shapes of a share, of one array or of several by name."""
    if isinstance(spec, dict):
        return {name: _share(one, of) for name, one in spec.items()}
    return ArraySpec((spec.shape[0] // of, *spec.shape[1:]), spec.dtype)
