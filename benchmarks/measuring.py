"""Measuring the cells of a sequence: `measure_cells` in one and two processes, beside the regionprops_table under it.

With --data or CELLSEG_DATA, on the silver outlines of PhC-C2DL-PSC 01; without, on as many blobs. Both measure area,
centroid, axes, eccentricity, orientation, solidity, perimeter and mean intensity; ours has micrometres and
five more intensities as well.
"""

import os
from pathlib import Path

import numpy as np
from scipy import ndimage
from side_by_side import alternate, parser, report, row
from skimage.measure import label, regionprops_table

from cellseg.measuring import measure_cells
from cellseg.motion import mean_squared_displacement, measure_tracks
from pipelines.images import read_image, read_labels
from pipelines.tracks import Track

SEQUENCE = "PhC-C2DL-PSC"
SHAPE = (576, 720)
PROPERTIES = (
    "label",
    "area",
    "centroid",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "orientation",
    "solidity",
    "perimeter_crofton",
    "intensity_mean",
)


def sequence(frames, data):
    """Labels and images of each frame, and what they are."""
    source = Path(data) / SEQUENCE if data else None
    if source is not None and source.is_dir():
        labels = [read_labels(source / f"01_ST/SEG/man_seg{frame:03d}.tif")[0] for frame in range(frames)]
        return labels, [read_image(source / f"01/t{frame:03d}.tif") for frame in range(frames)], SEQUENCE
    rng = np.random.default_rng(0)
    noise = [ndimage.gaussian_filter(rng.normal(size=SHAPE), 5) for _ in range(frames)]
    labels = [label(one > 0.08).astype(np.int32) for one in noise]
    return labels, [rng.integers(0, 256, (*SHAPE, 1), dtype=np.uint8) for _ in range(frames)], "blobs"


def main():
    """Time both, and print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--data", default=os.environ.get("CELLSEG_DATA"), help="folder that holds the data sets")
    arguments.add_argument("--frames", type=int, default=200)
    arguments.add_argument("--repeats", type=int, default=5)
    options = arguments.parse_args()
    labels, images, name = sequence(options.frames, options.data)

    def ours(workers=1):
        return measure_cells(enumerate(labels), images, spacing_um=(1.6, 1.6), interval_s=600, workers=workers)

    def theirs():
        for one, image in zip(labels, images, strict=True):
            regionprops_table(one, image, properties=PROPERTIES)

    alone, spread, taken = alternate(ours, lambda: ours(2), theirs, repeats=options.repeats)
    cells = ours()
    spans = cells.groupby("track", as_index=False)["frame"].agg(["min", "max"])
    tracks = {track: Track(track, first, last, 0) for track, first, last in spans.to_numpy().tolist()}
    (of_tracks,) = alternate(lambda: measure_tracks(cells, tracks), repeats=options.repeats)
    (of_msd,) = alternate(lambda: mean_squared_displacement(cells), repeats=options.repeats)
    rows = [
        row(f"{len(cells)} cells in {len(labels)} frames of {name}, s", alone, taken),
        row("in two processes, their start included, s", spread, taken),
        row(f"{len(tracks)} tracks, s", of_tracks, None),
        row("mean squared displacement, s", of_msd, None),
    ]
    report("Measuring", rows, options.json)


if __name__ == "__main__":
    main()
