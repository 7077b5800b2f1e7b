"""Volumes: the objects of a volume as a shaded picture, as PNG bytes.

Meshes are made in `cellseg.meshes`; pictures of single sections live in `cellseg.figures.pictures`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from cellseg.figures.canvas import DPI, pixels, png, put
from pipelines.preview import COLOURS, resized

if TYPE_CHECKING:
    from trimesh import Trimesh

WIDTH, TALLEST, HEAD = 7.2, 6.0, 0.3  # inches
FINER = 2  # drawn that much larger and reduced again: smooth edges
LIGHT = np.array([-0.45, -0.55, -0.7])  # towards the light: from the upper left, before the picture
AMBIENT, FOG = 0.35, 0.35  # light of shaded sides; how much paler the far end is
FRAME = np.array([120, 120, 120], np.uint8)


def rendered_objects(
    meshes: Mapping[int, "Trimesh"],
    *,
    extent: Sequence[float],
    unit: str = "um",
    turn: float = 25.0,
    tilt: float = 45.0,
) -> bytes:
    """All objects in the frame of their volume, seen from above at an angle, in the colours that the sections have.

    Parallel lines stay parallel, so that the scale bar holds everywhere.

    Args:
        meshes: `cellseg.meshes.object_meshes`; without any the frame alone.
        extent: (z, row, column) size of the volume, in the meshes' unit.
        unit: Of the meshes: um, or voxels.
        turn: Degrees by which the volume is turned about its z axis.
        tilt: Degrees by which it is tipped towards the viewer; 0 looks straight along z.

    Returns:
        PNG.
    """
    view = _view(turn, tilt)
    corners = np.array(list(product(*((0.0, float(side)) for side in reversed(extent))))) @ view.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    wide, tall = high[:2] - low[:2]
    scale = min(WIDTH / wide, TALLEST / tall)  # inches a unit
    size = pixels(tall * scale, wide * scale)
    canvas = np.full((size[0] * FINER, size[1] * FINER, 3), 255, np.uint8)
    density = scale * DPI * FINER
    depth = np.full(canvas.shape[:2], np.inf)
    for points, colour in _layers(meshes, view, corners, 1 / density):
        _splat(canvas, depth, (points - low) * density, colour, (high[2] - low[2]) * density)
    figure = Figure(figsize=(WIDTH + 0.1, tall * scale + HEAD + 0.35), dpi=DPI, facecolor="white")
    count = f"{len(meshes)} object{'' if len(meshes) == 1 else 's'}"
    sizes = " x ".join(f"{side:.3g}" for side in extent)
    put(figure, resized(canvas, size), f"{count} in {sizes} {_named(unit)} (z, row, column)", 0.05, HEAD)
    _scale_bar(figure, scale, unit)
    return png(figure)


def _view(turn: float, tilt: float) -> np.ndarray:
    """(x, y, z) to (right, down, away from the viewer)."""
    about_z, about_x = np.radians(turn), np.radians(tilt)
    cos, sin = np.cos(about_z), np.sin(about_z)
    turned = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    cos, sin = np.cos(about_x), np.sin(about_x)
    return np.array([[1.0, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ turned


def _layers(
    meshes: Mapping[int, "Trimesh"], view: np.ndarray, corners: np.ndarray, step: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points in the view and their colours: those of each mesh, at most `step` apart, and the frame's."""
    light = LIGHT / np.linalg.norm(LIGHT)
    for number, mesh in meshes.items():
        shade = np.clip(mesh.vertex_normals @ view.T @ light, 0, 1)
        bright = COLOURS[number % len(COLOURS)] * (AMBIENT + (1 - AMBIENT) * shade)[:, None]
        # A gleam where the light is thrown back to the viewer.
        bright = bright + 60 * shade[:, None] ** 12
        seen = mesh.vertices @ view.T
        corner, colour = seen[mesh.faces], bright[mesh.faces]
        longest = np.linalg.norm(corner - np.roll(corner, 1, axis=1), axis=2).max(initial=0)
        parts = max(1, int(np.ceil(longest / step)))
        for first in range(parts + 1):
            second = np.arange(parts - first + 1)
            shares = np.stack([np.full_like(second, first), second, parts - first - second], axis=1) / parts
            yield (shares @ corner).reshape(-1, 3), (shares @ colour).reshape(-1, 3)
    for one, other in product(range(8), repeat=2):
        if one < other and (one ^ other) in (1, 2, 4):
            length = np.linalg.norm(corners[one] - corners[other])
            shares = np.linspace(0, 1, max(2, int(np.ceil(length / step)) + 1))[:, None]
            edge = corners[one] * (1 - shares) + corners[other] * shares
            yield edge, np.broadcast_to(FRAME, edge.shape)


def _splat(canvas: np.ndarray, depth: np.ndarray, points: np.ndarray, colours: np.ndarray, deepest: float) -> None:
    """Draw points over what lies behind them, in place."""
    height, width = depth.shape
    place = np.clip(points[:, 1].astype(int), 0, height - 1) * width + np.clip(points[:, 0].astype(int), 0, width - 1)
    # Far to near: of the points in one pixel the last stays.
    order = np.argsort(-points[:, 2], kind="stable")
    place, far = place[order], points[order, 2]
    nearer = far < depth.ravel()[place]
    place, far = place[nearer], far[nearer]
    fog = (FOG * far / max(deepest, 1e-9))[:, None]
    shown = colours[order][nearer] * (1 - fog) + 255 * fog
    depth.reshape(-1)[place] = far
    canvas.reshape(-1, 3)[place] = np.clip(shown, 0, 255)


def _scale_bar(figure: Figure, scale: float, unit: str) -> None:
    width, height = figure.get_size_inches()
    longest = 0.25 * width / scale
    size = 10 ** np.floor(np.log10(longest))
    size *= max(factor for factor in (1, 2, 5) if factor * size <= longest)
    axis = figure.add_axes((0.05 / width, 0.2 / height, size * scale / width, 0.04 / height))
    axis.set_facecolor("#222222")
    axis.set_xticks([])
    axis.set_yticks([])
    text = f"{size:g} {_named(unit)}"
    figure.text((0.12 + size * scale) / width, 0.22 / height, text, fontsize=9, va="center", color="#222222")


def _named(unit: str) -> str:
    return "µm" if unit == "um" else unit
