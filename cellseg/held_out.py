"""Held-out images: those of a split one by one, with their truth and the probability that a run gives them.

Reading shards is the work of `pipelines.dataset`; scoring the images of `cellseg.scoring`, tuning on them of
`cellseg.tuning`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cellseg.detections import Detections
from cellseg.inference import LoadedRun
from pipelines.dataset import ShardReader


@dataclass(frozen=True)
class HeldOut:
    """One image of a split.

    Args:
        name: Of the image.
        image: (H, W, C) as in the file.
        limits: Contrast limits of the image.
        labels: int32 (H, W), the truth.
        classes: int32 (H, W), the true class of each pixel; None where the data has none.
        ignore: bool (H, W), unannotated pixels; None where all are annotated.
        probability: float32 (H, W, K), what the run says; of a network that finds cells one by one, `Detections`.
    """

    name: str
    image: np.ndarray
    limits: tuple[float, float]
    labels: np.ndarray
    classes: np.ndarray | None
    ignore: np.ndarray | None
    probability: np.ndarray | Detections


def held_out(loaded: LoadedRun, reader: ShardReader, split: str) -> Iterator[HeldOut]:
    """The images of a split, one at a time."""
    for sample, record in reader.split(split):
        yield look_at(loaded, sample, record)


def look_at(loaded: LoadedRun, sample: dict, record: dict[str, np.ndarray]) -> HeldOut:
    """One image: its entry in the manifest and its record, with the probability that the run gives it."""
    limits = tuple(sample["contrast"])
    return HeldOut(
        name=sample["name"],
        image=record["image"],
        limits=limits,
        labels=record["labels"].astype(np.int32),
        classes=record["classes"].astype(np.int32) if "classes" in record else None,
        ignore=record["ignore"].astype(bool) if "ignore" in record else None,
        probability=loaded.predictor.probability(record["image"], limits=limits),
    )
