"""Patch sheet: what the network is given, drawn: augmented patches with their labels, targets and weight maps.

The samples before any augmentation are drawn in `pipelines.preview`.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.files import whole_file
from pipelines.preview import boxes_for_letters, displayed, tinted

PANEL, HEAD, DPI = 2.6, 0.3, 120  # inches, inches, dots an inch


def patch_sheet(examples: Sequence[tuple[dict, dict[str, np.ndarray]]], path: Path | str) -> None:
    """Write `drawn_patches` to a PNG file, which appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(drawn_patches(examples))


def drawn_patches(examples: Sequence[tuple[dict, dict[str, np.ndarray]]]) -> bytes:
    """A row for each patch: image, labels on it, target, weight map with its scale.

    Args:
        examples: Of `pipelines.dataset.Batches.example`, at least one.

    Returns:
        PNG.
    """
    titles = ("image", "labels", "target", "weight map")
    rows, columns = len(examples), len(titles)
    figure = Figure(figsize=(columns * PANEL + 0.5, rows * (PANEL + HEAD) + 0.1), dpi=DPI, facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (sample, patch) in enumerate(examples):
        labels, margin = patch["labels"], (len(patch["image"]) - len(patch["labels"])) // 2
        inner = patch["image"][margin : margin + len(labels), margin : margin + len(labels)]
        picture = displayed(inner, (0.0, 1.0))
        weights = patch["weight_map"][..., 0]
        axes[row, 0].imshow(displayed(patch["image"], (0.0, 1.0)), interpolation="nearest")
        axes[row, 1].imshow(tinted(picture, labels), interpolation="nearest")
        axes[row, 2].imshow(_target_picture(patch["target"]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        shown = axes[row, 3].imshow(weights, cmap="viridis", vmin=0, vmax=max(1.0, weights.max()))
        figure.colorbar(shown, cax=axes[row, 3].inset_axes((1.03, 0, 0.05, 1))).ax.tick_params(labelsize=7)
        axes[row, 0].set_title(sample["name"][-32:], fontsize=8, loc="left", parse_math=False)
        for column in range(1, columns):
            axes[row, column].set_title(titles[column], fontsize=8, loc="left")
    for axis in axes.flat:
        axis.set_axis_off()
    buffer = io.BytesIO()
    with boxes_for_letters():
        figure.tight_layout(pad=0.5)
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _target_picture(target: np.ndarray) -> np.ndarray:
    """One channel as it is; of several, the number of the highest one in grey steps."""
    channels = target.shape[2]
    return target[..., 0] if channels == 1 else target.argmax(axis=2) / (channels - 1)
