"""The README's picture: what the run in the box makes of images that it has never seen, as docs/results/nuclei.png.

    python -m experiments.readme_picture

The images are test images of nuclei_split.csv (DSB2018, CC0); how they are drawn is decided in `cellseg.figures`.
"""

from pathlib import Path

import tifffile
from matplotlib.figure import Figure

import cellseg
from cellseg.figures.canvas import png
from experiments.result_tables import HERE, STORED
from pipelines.files import whole_file
from pipelines.images import read_labels
from pipelines.preview import displayed, tinted

SHOWN = ("27c30f901149", "0bf4b1441676")  # of the test split: a good one, and one of median score
PANEL = 2.6  # inches
TITLES = ("image", "cells found", "drawn by hand")


def picture(names: tuple[str, ...] = SHOWN) -> bytes:
    """A row for each image: the image, the cells that the run finds, the truth. PNG."""
    run = cellseg.load_run("nuclei")
    figure = Figure(figsize=(3 * PANEL, len(names) * PANEL + 0.3), dpi=110, facecolor="white", layout="constrained")
    axes = figure.subplots(len(names), 3, squeeze=False)
    for row, name in enumerate(names):
        image = tifffile.imread(HERE / "data" / "nuclei" / "images" / f"{name}.tif")
        truth = read_labels(HERE / "data" / "nuclei" / "labels" / f"{name}.tif")[0]
        shown = displayed(image if image.ndim == 3 else image[..., None], None)
        for axis, one in zip(
            axes[row], (shown, tinted(shown, run.predict(image).labels), tinted(shown, truth)), strict=True
        ):
            axis.imshow(one, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=10)
    return png(figure)


def main(path: Path = STORED / "nuclei.png") -> None:
    """Draw and write it."""
    with whole_file(path) as temporary:
        temporary.write_bytes(picture())


if __name__ == "__main__":
    main()
