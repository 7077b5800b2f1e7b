"""Small data sets on disk, made by the tests: discs on a noisy ground, in the layouts that the readers know."""

import numpy as np
import tifffile
from skimage.draw import disk


def discs(seed=0, *, side=64, num=4, radius=6):
    """Labels int32 (side, side) of `num` discs that do not touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    placed = 0
    while placed < num:
        centre = rng.integers(radius + 1, side - radius - 1, 2)
        rows, columns = disk(centre, radius + 2, shape=labels.shape)
        if not labels[rows, columns].any():
            placed += 1
            labels[disk(centre, radius, shape=labels.shape)] = placed
    return labels


def picture(labels, seed=0, *, dtype="uint8"):
    """An image (H, W) whose cells are bright: 60 on 20 grey values of 255, with noise."""
    rng = np.random.default_rng(seed)
    image = 20 + 100 * (labels > 0) + rng.normal(0, 6, labels.shape)
    scale = 257 if dtype == "uint16" else 1
    return (np.clip(image, 0, 255) * scale).astype(dtype)


def write_pairs(folder, num=10, *, side=64, dtype="uint8", **options):
    """`folder`/images/NAME.tif and `folder`/labels/NAME.tif; returns the folder."""
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for number in range(num):
        labels = discs(number, side=side, **options)
        tifffile.imwrite(folder / "images" / f"cell{number:02d}.tif", picture(labels, number, dtype=dtype))
        tifffile.imwrite(folder / "labels" / f"cell{number:02d}.tif", labels.astype(np.uint16))
    return folder


def write_ctc(folder, num=12, *, side=64, truth="ST"):
    """A CTC data set with one sequence 01 and its silver (or gold) truth; returns the folder."""
    segmentation = folder / f"01_{truth}" / "SEG"
    tracking = folder / "01_GT" / "TRA"
    for sub in (folder / "01", segmentation, tracking):
        sub.mkdir(parents=True, exist_ok=True)
    for frame in range(num):
        labels = np.roll(discs(0, side=side), frame, axis=1)
        tifffile.imwrite(folder / "01" / f"t{frame:03d}.tif", picture(labels, frame))
        tifffile.imwrite(segmentation / f"man_seg{frame:03d}.tif", labels.astype(np.uint16))
        tifffile.imwrite(tracking / f"man_track{frame:03d}.tif", labels.astype(np.uint16))
    lines = [f"{cell} 0 {num - 1} 0" for cell in range(1, 5)]
    (tracking / "man_track.txt").write_text("\n".join(lines) + "\n")
    return folder


def config(*, layout="pairs", format="npz", by="image", **split):
    """The data and split sections of an experiment, as `pipelines.prepare.prepare` wants them."""
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2, "gap": 0, "seed": 0}
    data = {"layout": layout, "channels": None, "contrast": [2.0, 98.0], "spacing_um": None, "interval_s": None}
    return {"data": {**data, "format": format}, "split": {"by": by, **fractions, **split}}


def write_shards(folder, num=10, *, format="npz", side=64, dtype="uint8"):
    """A data set of discs, prepared; returns the folder of the shards."""
    from pipelines.prepare import prepare

    source = write_pairs(folder / "raw", num, side=side, dtype=dtype)
    prepare(source, folder / "shards", config=config(format=format), options={"images": None, "labels": None})
    return folder / "shards"
