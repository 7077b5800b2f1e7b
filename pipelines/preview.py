"""Preview: one picture that shows at a glance whether images and labels belong together.

Pictures of truth against prediction live in `cellseg.figures`.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.contrast import stretch_contrast
from pipelines.files import whole_file
from pipelines.sample import Sample

MOST = 12
DPI = 150
PANEL, INSIDE, BETWEEN, MARGIN, HEAD = 3.2, 0.06, 0.4, 0.2, 0.42  # inches; INSIDE a pair, BETWEEN pairs
TALLEST = 1.5  # a panel's height is at most this times its width; taller images become narrower
# Okabe & Ito's colours without black: colour-blind readers tell them apart. By id, so two neighbours may share one.
COLOURS = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]],
    np.uint8,
)
FILL = 0.25
HATCH = 4  # pixels


def contact_sheet(
    samples: Sequence[Sample],
    path: Path | str,
    *,
    limits: Sequence[tuple[float, float]],
    splits: Sequence[str] | None = None,
) -> None:
    """Draw each sample as a pair: the image, and the image with its cells outlined and tinted, one colour a cell.

    Args:
        samples: Any sizes and channels, at least one; of more than 12, 12 are taken evenly.
        path: PNG to write; it appears whole or not at all.
        limits: Per sample (low, high) of its contrast, in the image's own values.
        splits: Per sample the name of its split, for the title; None leaves it out.

    Raises:
        ValueError: No sample, or not as many limits or splits as samples.
    """
    if not samples or len(limits) != len(samples) or (splits is not None and len(splits) != len(samples)):
        raise ValueError(
            "A contact sheet needs at least one sample, and one pair of limits and one split for each; got "
            f"{len(samples)} samples, {len(limits)} limits and {'no' if splits is None else len(splits)} splits."
        )
    chosen = np.linspace(0, len(samples) - 1, min(MOST, len(samples))).round().astype(int)
    across = min(2, len(chosen))
    rows = math.ceil(len(chosen) / across)
    width = 2 * PANEL + INSIDE
    # Every row is as high as the images in it need.
    heights = [max(_panel_inches(samples[i])[0] for i in chosen[row::rows]) + HEAD for row in range(rows)]
    total = (2 * MARGIN + across * width + (across - 1) * BETWEEN, MARGIN + sum(heights) + rows * MARGIN)
    figure = Figure(figsize=total, dpi=DPI, facecolor="white")
    for place, index in enumerate(chosen):
        # Column by column: the samples of a split, which come together, are read from top to bottom.
        row, column = place % rows, place // rows
        left = MARGIN + column * (width + BETWEEN)
        top = total[1] - MARGIN - sum(heights[:row]) - row * MARGIN
        _draw_pair(figure, (left, top), samples[index], limits[index], "" if splits is None else splits[index])
    with whole_file(path) as temporary, boxes_for_letters():
        FigureCanvasAgg(figure).print_png(str(temporary))


@contextlib.contextmanager
def boxes_for_letters() -> Iterator[None]:
    """Draw letters that the font has not (names in Chinese) as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        yield


def displayed(image: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """An image (H, W, C) of any dtype as uint8 RGB (H, W, 3), stretched to `limits` (None: its 2nd to 98th percentile).

    One channel is shown grey, two as red and green, three as red, green and blue; of more, the first three.
    """
    stretched = np.round(255 * stretch_contrast(image, limits=limits)).astype(np.uint8)
    channels = stretched.shape[2]
    if channels == 1:
        return np.repeat(stretched, 3, axis=2)
    if channels == 2:
        return np.concatenate([stretched, np.zeros_like(stretched[..., :1])], axis=2)
    return stretched[..., :3]


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture at (height, width): uint8 or float is interpolated, labels (int32) keep their ids."""
    height, width = size
    if picture.shape[:2] == (height, width):
        return picture
    if picture.dtype == np.int32:
        rows = (np.arange(height) + 0.5) * picture.shape[0] / height
        columns = (np.arange(width) + 0.5) * picture.shape[1] / width
        return picture[rows.astype(int)[:, None], columns.astype(int)]
    enlarged = height * width > picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR if enlarged else cv2.INTER_AREA)


def outline(labels: np.ndarray, *, thickness: int = 1) -> np.ndarray:
    """bool (H, W): the pixels of each cell within `thickness` of its edge; touching cells keep a line each."""
    cells = labels > 0
    edge = np.zeros(labels.shape, bool)
    # As find_boundaries(mode="inner") of scikit-image, in less than half of its time: a movie asks for hundreds.
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = labels[one] != labels[other]
        edge[one] |= differs
        edge[other] |= differs
    edge &= cells
    inside = cells & ~edge
    for _ in range(thickness - 1):
        grown = cv2.dilate(edge.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        edge, inside = edge | (grown & inside), inside & ~grown
    return edge


def tinted(picture: np.ndarray, labels: np.ndarray, *, palette: np.ndarray = COLOURS, thickness: int = 1) -> np.ndarray:
    """Cells tinted and outlined on a picture; the lines lie inside the cells.

    Args:
        picture: uint8 RGB (H, W, 3).
        labels: int (H, W), 0 = background.
        palette: uint8 (n, 3); the cell with id i gets colour i modulo n.
        thickness: Of the outlines, in pixels.

    Returns:
        uint8 (H, W, 3); without cells, the picture itself.
    """
    cells = labels > 0
    colours = palette[labels % len(palette)]
    out = picture.copy()
    out[cells] = np.round((1 - FILL) * picture[cells] + FILL * colours[cells])
    edge = outline(labels, thickness=thickness)
    out[edge] = colours[edge]
    return out


def veiled(picture: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    """Unannotated pixels hatched in grey on a picture uint8 (H, W, 3); `ignore` is bool (H, W)."""
    rows, columns = np.indices(ignore.shape)
    stripes = ignore & ((rows + columns) // HATCH % 2 == 0)
    out = picture.copy()
    out[stripes] = np.round(0.5 * out[stripes] + 0.5 * 160)
    return out


def _panel_inches(sample: Sample) -> tuple[float, float]:
    height, width = sample.image.shape[:2]
    wide = PANEL * min(1.0, TALLEST * width / height)
    return max(wide * height / width, 1 / DPI), max(wide, 1 / DPI)


def _draw_pair(
    figure: Figure, corner: tuple[float, float], sample: Sample, limits: tuple[float, float], split: str
) -> None:
    left, top = corner
    total_width, total_height = figure.get_size_inches()
    height, width = _panel_inches(sample)
    size = (max(1, round(height * DPI)), max(1, round(width * DPI)))
    picture = resized(displayed(sample.image, limits), size)
    # Outlines are drawn at the final size: a line one pixel thin would not survive a reduction.
    labels = np.zeros(size, np.int32) if sample.labels is None else resized(sample.labels, size)
    thickness = 2 if size[0] > sample.image.shape[0] else 1
    truth = tinted(picture, labels, thickness=thickness)
    if sample.ignore is not None:
        truth = veiled(truth, resized(sample.ignore.astype(np.int32), size) > 0)
    for number, panel in enumerate((picture, truth)):
        box = (left + number * (width + INSIDE), top - HEAD - height, width, height)
        axis = figure.add_axes(
            (box[0] / total_width, box[1] / total_height, box[2] / total_width, box[3] / total_height)
        )
        axis.imshow(panel, interpolation="nearest", aspect="auto")
        axis.set_axis_off()

    def write(text: str, right: float, down: float, **style: object) -> None:
        figure.text((left + right) / total_width, (top - down) / total_height, text, va="top", **style)  # type: ignore[arg-type]

    write(_shortened(sample.name), 0, 0, fontsize=10, fontweight="bold", parse_math=False)
    write(_facts(sample), 0, 0.2, fontsize=8.5, color="#333333")
    write(split, 2 * PANEL + INSIDE, 0, fontsize=10, fontweight="bold", color="#0072B2", ha="right")


def _facts(sample: Sample) -> str:
    height, width, channels = sample.image.shape
    size = f"{height} x {width}" + (f" x {channels}" if channels > 1 else "") + f" pixels, {sample.image.dtype}"
    if sample.labels is None:
        return f"{size}, no labels"
    count = len(np.unique(sample.labels[sample.labels > 0]))
    cells = {0: "no cells", 1: "1 cell"}.get(count, f"{count} cells")
    facts = f"{size}, {cells}, {100 * np.mean(sample.labels > 0):.1f} % foreground"
    return facts if sample.ignore is None else f"{facts}, {100 * sample.ignore.mean():.0f} % unannotated"


def _shortened(name: str, longest: int = 48) -> str:
    return name if len(name) <= longest else f"{name[: longest - 13]}…{name[-12:]}"
