"""Small data sets on disk, made by the tests: discs on a noisy ground, in the layouts that the readers know."""

import cv2
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


def write_pairs(folder, num=10, *, side=64, dtype="uint8", cells=4, **options):
    """`folder`/images/NAME.tif and `folder`/labels/NAME.tif; returns the folder."""
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for number in range(num):
        labels = discs(number, side=side, num=cells, **options)
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


def write_isbi(folder, num=6, *, side=64):
    """train-volume.tif and train-labels.tif of `num` slices, 255 inside a cell, and a test-volume.tif; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_stack(folder, "train-volume", "train-labels", range(num), side)
    tifffile.imwrite(folder / "test-volume.tif", _slices(range(num, 2 * num), side)[0], photometric="minisblack")
    return folder


def write_epfl(folder, num=4, *, side=64, parts=("training", "testing")):
    """PART.tif and PART_groundtruth.tif of `num` slices each; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        _write_stack(folder, part, f"{part}_groundtruth", range(100 * number, 100 * number + num), side)
    return folder


def write_glas(folder, *, train=6, test_a=2, test_b=2, side=64, suffix=".png"):
    """STEM and STEM_anno of each part and Grade.csv, with the blanks of the original; odd numbers are malignant, and
    each two images of a part are of one patient. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for part, num in {"train": train, "testA": test_a, "testB": test_b}.items():
        for number in range(1, num + 1):
            labels = discs(number, side=side)
            grey = picture(labels, len(lines))
            cv2.imwrite(str(folder / f"{part}_{number}{suffix}"), np.stack([grey, grey // 2, grey], axis=-1))
            cv2.imwrite(str(folder / f"{part}_{number}_anno{suffix}"), labels.astype(np.uint8))
            grades = " malignant, poorly differentiated" if number % 2 else " benign, healthy"
            lines.append(f"{part}_{number},{(number - 1) // 2 + 1},{grades}")
    (folder / "Grade.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_consep(folder, *, train=4, test=2, side=64):
    """Train and Test with Images, Inst and Class, nucleus n of class n (1 to 4); returns the folder."""
    for part, num in {"Train": train, "Test": test}.items():
        for sub in ("Images", "Inst", "Class"):
            (folder / part / sub).mkdir(parents=True, exist_ok=True)
        for number in range(1, num + 1):
            labels = discs(number, side=side)
            stem = f"{part.lower()}_{number}"
            grey = picture(labels, number + 50 * (part == "Test"))
            cv2.imwrite(str(folder / part / "Images" / f"{stem}.png"), np.stack([grey, grey // 2, grey], axis=-1))
            tifffile.imwrite(folder / part / "Inst" / f"{stem}.tif", labels.astype(np.uint16))
            cv2.imwrite(str(folder / part / "Class" / f"{stem}.png"), labels.astype(np.uint8))
    return folder


def _slices(seeds, side):
    labels = [discs(seed, side=side) for seed in seeds]
    return np.stack([picture(one, seed) for one, seed in zip(labels, seeds, strict=True)]), np.stack(labels)


def _write_stack(folder, images, truth, seeds, side):
    pictures, labels = _slices(seeds, side)
    tifffile.imwrite(folder / f"{images}.tif", pictures, photometric="minisblack")
    tifffile.imwrite(folder / f"{truth}.tif", (255 * (labels > 0)).astype(np.uint8), photometric="minisblack")


def config(*, layout="pairs", format="npz", by="image", **split):
    """The data and split sections of an experiment, as `pipelines.prepare.prepare` wants them."""
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2, "gap": 0, "seed": 0}
    data = {"layout": layout, "channels": None, "contrast": [2.0, 98.0], "spacing_um": None, "interval_s": None}
    return {"data": {**data, "format": format}, "split": {"by": by, **fractions, **split}}


def write_shards(folder, num=10, *, format="npz", side=64, dtype="uint8", cells=4):
    """A data set of discs, prepared; returns the folder of the shards."""
    from pipelines.prepare import prepare

    source = write_pairs(folder / "raw", num, side=side, dtype=dtype, cells=cells)
    prepare(source, folder / "shards", config=config(format=format), options={"images": None, "labels": None})
    return folder / "shards"


def call(task):
    """What a task loads, as it is: for the tests of the worker processes."""
    return task.item.load()
