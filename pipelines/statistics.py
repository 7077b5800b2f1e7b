"""Statistics of a data set, collected sample by sample: intensities, foreground, number and size of cells.

What follows from them for an experiment is the work of `pipelines.advice`.
"""

import numpy as np

from pipelines.sample import Sample

PERCENTILES = (0.1, 1, 2, 25, 50, 75, 98, 99, 99.9)
# Float pixels that percentiles are read from: a rank of 0.1 % then has a standard error of 0.012 %.
FLOATS_KEPT = 65536
AREA_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Statistics:
    """Running statistics of one split; `result()` at any time.

    Percentiles of integer images are exact. Those of float images are exact up to FLOATS_KEPT pixels in all; of more,
    they are estimated from that many, drawn from all images so that each pixel has the same chance, the same ones in
    every run. Memory: these, a histogram of 65,536 bins, one number an object and a few an image.
    """

    def __init__(self) -> None:
        self.num_images = 0
        self._foreground = self._pixels = self._ignored = 0
        self._areas: list[np.ndarray] = []
        self._counts: list[int] = []
        self._touching = 0
        self._histogram = np.zeros(65536, np.int64)
        self._floats, self._lots = np.zeros(0, np.float32), np.zeros(0)
        self._num_floats = 0
        self._ranges: list[float] = []
        self._classes = np.zeros(1, np.int64)

    def add(self, sample: Sample, contrast: tuple[float, float]) -> None:
        """Count one sample and its contrast limits (low, high)."""
        self.num_images += 1
        values = sample.image.ravel()
        if values.dtype.kind == "f":
            self._draw(values)
        else:
            self._histogram += np.bincount(values, minlength=65536)
        self._ranges.append(float(contrast[1] - contrast[0]))
        if sample.labels is None:
            return
        known = np.ones(sample.labels.shape, bool) if sample.ignore is None else ~sample.ignore
        # Not bincount: ids may be sparse, and one of 2**31 would take 16 GB.
        ids, areas = np.unique(sample.labels[known], return_counts=True)
        areas = areas[ids > 0].astype(np.int32)
        self._areas.append(areas)
        self._counts.append(len(areas))
        self._touching += len(touching_ids(np.where(known, sample.labels, 0)))
        self._foreground += int(areas.sum())
        self._pixels += int(known.sum())
        self._ignored += int(known.size - known.sum())
        if sample.classes is not None:
            counts = np.bincount(sample.classes[known], minlength=len(self._classes))
            counts[: len(self._classes)] += self._classes
            self._classes = counts

    def result(self) -> dict:
        """Plain numbers for the manifest. Undefined ones (no image, no object) are None."""
        areas = np.concatenate(self._areas) if self._areas else np.zeros(0)
        return {
            "images": self.num_images,
            "foreground_fraction": self._foreground / self._pixels if self._pixels else None,
            "ignored_fraction": self._ignored / (self._pixels + self._ignored) if self._pixels else None,
            "class_fractions": (self._classes / self._classes.sum()).tolist() if self._classes.any() else None,
            "intensity_percentiles": self._percentiles(),
            "contrast_range": _quantiles(np.asarray(self._ranges), AREA_QUANTILES),
            "objects": int(sum(self._counts)),
            "touching_fraction": self._touching / sum(self._counts) if sum(self._counts) else None,
            "objects_per_image": {
                "min": min(self._counts, default=None),
                "mean": float(np.mean(self._counts)) if self._counts else None,
                "max": max(self._counts, default=None),
            },
            "object_area": _quantiles(areas, AREA_QUANTILES),
            "object_diameter": _quantiles(2 * np.sqrt(areas / np.pi), AREA_QUANTILES),
        }

    def _draw(self, values: np.ndarray) -> None:
        """Give every pixel a lot in [0, 1) and keep the FLOATS_KEPT lowest of all images."""
        self._num_floats += values.size
        lots = np.random.default_rng(self.num_images).random(values.size)
        if len(self._lots) == FLOATS_KEPT:
            low = lots < self._lots.max()
            values, lots = values[low], lots[low]
        self._floats, self._lots = np.concatenate([self._floats, values]), np.concatenate([self._lots, lots])
        if len(self._lots) > FLOATS_KEPT:
            lowest = np.argpartition(self._lots, FLOATS_KEPT)[:FLOATS_KEPT]
            self._floats, self._lots = self._floats[lowest], self._lots[lowest]

    def _percentiles(self) -> dict[str, float]:
        total = self._histogram.sum() + self._num_floats
        if not total:
            return {}
        # Each float that was kept stands for `share` pixels.
        share = self._num_floats / max(len(self._floats), 1)
        values = np.concatenate([np.arange(65536), self._floats])
        counts = np.concatenate([self._histogram, np.full(len(self._floats), share)])
        order = np.argsort(values, kind="stable")
        cumulative = np.cumsum(counts[order])
        places = np.searchsorted(cumulative, np.asarray(PERCENTILES) / 100 * (total - 1), side="right")
        return {f"{p:g}": float(values[order[place]]) for p, place in zip(PERCENTILES, places, strict=True)}


def touching_ids(labels: np.ndarray) -> np.ndarray:
    """The ids of cells that have a pixel beside one of another cell, corners included; int (n,), sorted.

    Args:
        labels: int (H, W), 0 = background.
    """
    found = []
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = labels[: len(labels) - rows, max(0, -columns) : labels.shape[1] - max(0, columns)]
        other = labels[rows:, max(0, columns) : labels.shape[1] - max(0, -columns)]
        meet = (one != other) & (one > 0) & (other > 0)
        found += [one[meet], other[meet]]
    return np.unique(np.concatenate(found))


def _quantiles(values: np.ndarray, quantiles: tuple[float, ...]) -> dict[str, float] | None:
    if not len(values):
        return None
    return {f"{q:g}": float(v) for q, v in zip(quantiles, np.quantile(values, quantiles), strict=True)}
