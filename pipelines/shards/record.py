"""Record: what is stored of one sample, and its entry in the manifest.

Where the bytes go is the business of the formats (`pipelines.shards.npz`, `.tfrecord`).
"""

from dataclasses import dataclass, field

import numpy as np

from pipelines.sample import Sample
from pipelines.shards.arrays import Place


@dataclass(frozen=True)
class Loaded:
    """A sample with what is measured while its pixels are at hand.

    Args:
        sample: As read.
        contrast: Limits (low, high), see `pipelines.contrast.contrast_limits`.
        sha256: Of the pixels.
        files: Fingerprints of the raw files, see `pipelines.provenance.fingerprint`.
    """

    sample: Sample
    contrast: tuple[float, float]
    sha256: str
    files: dict[str, dict] = field(default_factory=dict)


def record_of(loaded: Loaded) -> dict[str, np.ndarray]:
    """Arrays to store; see `pipelines.shards`."""
    sample = loaded.sample
    labels = sample.labels
    assert labels is not None
    record = {
        "image": sample.image,
        "labels": labels.astype(np.min_scalar_type(int(labels.max(initial=0)))),
        "contrast": np.asarray(loaded.contrast, np.float32),
        "centres": centres(labels, sample.classes),
    }
    optional = {"classes": sample.classes, "weight_map": sample.weight_map, "ignore": sample.ignore}
    if sample.classes is not None:
        optional["classes"] = sample.classes.astype(np.min_scalar_type(int(sample.classes.max(initial=0))))
    return record | {name: array for name, array in optional.items() if array is not None}


def entry_of(loaded: Loaded, *, split: str, shard: int, arrays: dict[str, Place]) -> dict:
    """The sample's entry in the manifest."""
    sample = loaded.sample
    assert sample.labels is not None
    entry = {
        "name": sample.name,
        "source": sample.source,
        "frame": sample.frame,
        "split": split,
        "shard": shard,
        "shape": list(sample.image.shape),
        "dtype": sample.image.dtype.name,
        "contrast": list(loaded.contrast),
        "foreground_fraction": float(np.mean(sample.labels > 0)),
        "objects": len(np.unique(sample.labels[sample.labels > 0])),
        "sha256": loaded.sha256,
        "arrays": arrays,
    }
    if sample.spacing_um is not None:
        entry["spacing_um"] = list(sample.spacing_um)
    if sample.interval_s is not None:
        entry["interval_s"] = sample.interval_s
    return entry


def loaded_again(entry: dict, record: dict[str, np.ndarray]) -> Loaded:
    """The `Loaded` that a record and its entry were made from, without its files."""
    spacing = entry.get("spacing_um")
    sample = Sample(
        image=record["image"],
        labels=record["labels"].astype(np.int32),
        name=entry["name"],
        source=entry["source"],
        frame=entry["frame"],
        classes=record["classes"].astype(np.int32) if "classes" in record else None,
        weight_map=record.get("weight_map"),
        ignore=record.get("ignore"),
        spacing_um=None if spacing is None else (spacing[0], spacing[1]),
        interval_s=entry.get("interval_s"),
    )
    return Loaded(sample, (entry["contrast"][0], entry["contrast"][1]), entry["sha256"])


def centres(labels: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Of each object the pixel nearest to its centroid, so that a patch can be cut around it.

    Args:
        labels: int (H, W), 0 = background.
        classes: int (H, W), or None.

    Returns:
        int32 (n, 3): row, column and class (0 without classes) of a pixel inside each object, in the order of the
        ids; (0, 3) without objects.
    """
    rows, columns = np.nonzero(labels)
    if not len(rows):
        return np.zeros((0, 3), np.int32)
    ids, number = np.unique(labels[rows, columns], return_inverse=True)
    size = np.bincount(number)
    distance = (rows - (np.bincount(number, rows) / size)[number]) ** 2
    distance += (columns - (np.bincount(number, columns) / size)[number]) ** 2
    order = np.lexsort((distance, number))
    first = order[np.searchsorted(number[order], np.arange(len(ids)))]
    kind = np.zeros(len(ids)) if classes is None else classes[rows[first], columns[first]]
    return np.stack([rows[first], columns[first], kind], axis=1).astype(np.int32)
