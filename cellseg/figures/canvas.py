"""Canvas: what all figures share: colours, resolution, placing pixels on a page, PNG bytes."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipelines.preview import boxes_for_letters

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6b6b6b"
DPI = 150


def pixels(height: float, width: float) -> tuple[int, int]:
    """Whole pixels of a place given in inches."""
    return max(1, round(height * DPI)), max(1, round(width * DPI))


def put(figure: Figure, picture: np.ndarray, caption: str, left: float, top: float) -> None:
    """Put a picture, one pixel a pixel, with its caption above; left and top in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    tall, wide = (side / DPI for side in picture.shape[:2])
    axis = figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))
    axis.imshow(picture, interpolation="nearest", aspect="auto", cmap="gray", vmin=0, vmax=255)
    axis.set_axis_off()
    figure.text(left / width, 1 - (top - 0.04) / height, caption, fontsize=9, va="bottom", color="#222222")


def legend(figure: Figure, left: float, colours: Mapping[str, Sequence[int]]) -> None:
    """A line at the bottom that names colours, (R, G, B) of 255; `left` in inches."""
    patches = [
        Patch(
            facecolor=(colour[0] / 255, colour[1] / 255, colour[2] / 255),
            edgecolor="#555555",
            linewidth=0.5,
            label=name,
        )
        for name, colour in colours.items()
    ]
    figure.legend(
        handles=patches,
        loc="lower left",
        bbox_to_anchor=(left / figure.get_size_inches()[0], 0),
        ncols=len(patches),
        frameon=False,
        fontsize=8.5,
        handlelength=1.2,
        handleheight=0.9,
        columnspacing=1.2,
        borderpad=0.3,
        borderaxespad=0,
    )


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    with boxes_for_letters():
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
