"""Select the demo nuclei: every k-th fluorescence image of DSB2018 stage1_train, as plain image and label TIFFs.

Prepares `experiments/data/nuclei` from the public download (bbbc.broadinstitute.org/BBBC038); preparing shards
from it is the work of `cellseg-prepare`.

    CANDIDATES=experiments/data/nuclei/candidates.txt
    python experiments/select_nuclei.py DSB2018/stage1_train OUT --every 1 --among $CANDIDATES

The rule: the candidates (without --among all ids) whose picture is fluorescence (red, green and blue equal, and a dark
background: median below half of the range), sorted by id, every k-th, beginning with the first. A nucleus keeps its
number in the sorted list of its mask files; a pixel of two masks belongs to the first.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.errors import InputError
from pipelines.files import whole_folder
from pipelines.images import write_image, write_labels
from pipelines.sample import Sample
from pipelines.sources import dsb2018

NAME_LENGTH = 12
IMAGES, LABELS = "images", "labels"


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments, select and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the folder stage1_train, or the one that holds it")
    parser.add_argument("out", type=Path, metavar="OUT", help="gets images/ID12.tif and labels/ID12.tif")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="take every K-th id (default: %(default)s)")
    parser.add_argument("--among", type=Path, metavar="FILE", help="only ids that begin with a line of this file")
    options = parser.parse_args(arguments)
    try:
        among = options.among and options.among.read_text(encoding="utf-8").split()
        print(summary(select(options.source, options.out, every=options.every, among=among), options.out))
    except (InputError, OSError) as error:
        parser.error(str(error))


def select(source: Path, out: Path, *, every: int, among: Sequence[str] | None = None) -> list[Sample]:
    """Write the selection to OUT/images and OUT/labels, which must not hold files yet; a LICENSE.md may be there.

    Args:
        source: `stage1_train`, or the folder that holds it.
        out: Gets `images/ID12.tif` (uint8) and `labels/ID12.tif` (uint16, ids 1..n); ID12 = the id's first 12 digits.
        every: Take every k-th id of the sorted list, beginning with the first.
        among: Beginnings of the ids to choose from; None = all.

    Returns:
        What was written, under its short names.

    Raises:
        InputError: `every` below 1, two ids that share their first digits, no fluorescence image, folders in the way.
    """
    if every < 1:
        raise InputError(f"--every is {every}; it must be 1 (all images) or more.")
    items = dsb2018.find(source, kind="fluorescence")
    if among is not None:
        items = [item for item in items if item.name.startswith(tuple(among))]
        if not items:
            raise InputError(f"None of the {len(among)} candidates is a fluorescence image in {source}.")
    items = items[::every]
    short = [item.name[:NAME_LENGTH] for item in items]
    if len(set(short)) < len(short):
        raise InputError(f"Two of the ids in {source} share their first {NAME_LENGTH} digits; raise NAME_LENGTH.")
    samples = [_renamed(item.load(), name) for item, name in zip(items, short, strict=True)]
    with (
        whole_folder(out / IMAGES, marker=f"{short[0]}.tif") as images,
        whole_folder(out / LABELS, marker=f"{short[0]}.tif") as labels,
    ):
        for sample in samples:
            write_image(images / f"{sample.name}.tif", sample.image)
            write_labels(labels / f"{sample.name}.tif", sample.labels)
    return samples


def summary(samples: list[Sample], out: Path) -> str:
    """The numbers that LICENSE.md states: images, nuclei, foreground, sizes, bytes."""
    sizes: dict[str, int] = {}
    for sample in samples:
        size = "x".join(map(str, sample.image.shape[:2]))
        sizes[size] = sizes.get(size, 0) + 1
    nuclei = sum(len(np.unique(sample.labels[sample.labels > 0])) for sample in samples)
    foreground = sum(int((sample.labels > 0).sum()) for sample in samples) / sum(s.labels.size for s in samples)
    total = sum(path.stat().st_size for part in (IMAGES, LABELS) for path in (out / part).iterdir())
    listed = ", ".join(f"{count} of {size}" for size, count in sorted(sizes.items(), key=lambda pair: -pair[1]))
    return (
        f"{len(samples)} images ({listed} pixels), {nuclei} nuclei, {100 * foreground:.1f} % foreground, {total} bytes"
    )


def _renamed(sample: Sample, name: str) -> Sample:
    return Sample(image=sample.image, labels=sample.labels, name=name)


if __name__ == "__main__":
    main()
