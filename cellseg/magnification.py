"""Magnification: images zoomed so that their cells look to a run as large as those that it was trained on.

The zooming itself is done in `cellseg.averaging`; labels are always made on the file's own pixels.
"""

import inspect
from dataclasses import dataclass
from typing import Any

from cellseg.instances import INSTANCES
from cellseg.runs import Run
from pipelines.errors import InputError

SMALLEST, LARGEST = 0.02, 10.0
# Options of the instance methods that are lengths (1) or areas (2) in pixels.
POWERS: dict[str, dict[str, int]] = {
    "components": {"min_size": 2},
    "detections": {"min_size": 2},
    "watershed": {"min_size": 2, "sigma": 1, "depth": 1},
    "seeded": {"min_size": 2, "sigma": 1},
}


@dataclass(frozen=True)
class Magnification:
    """How images are zoomed before a run sees them, on top of its own `inference.zoom`.

    Args:
        zoom: The factor, where it is known: 0.5 halves the sides.
        diameter: Diameter of the images' cells in pixels, where that is known: the factor is the one that makes them as
            large as the training's. At most one of both; without either images stay as they are.

    Raises:
        InputError: Both, or one outside its range.
    """

    zoom: float | None = None
    diameter: float | None = None

    def __post_init__(self) -> None:
        if self.zoom is not None and self.diameter is not None:
            raise InputError("--diameter says how far to zoom by itself. Pass --zoom or --diameter, not both.")
        if self.zoom is not None and not SMALLEST <= self.zoom <= LARGEST:
            raise InputError(f"--zoom is {self.zoom:g}; a factor from {SMALLEST:g} to {LARGEST:g} was expected.")
        if self.diameter is not None and not 0 < self.diameter < float("inf"):
            raise InputError(f"--diameter is {self.diameter:g}; the width of a cell in pixels was expected, above 0.")

    def factor(self, run: Run) -> float:
        """By what the sides of an image are multiplied for a run.

        Raises:
            InputError: The run does not know how large its training's cells are, or they differ too much.
        """
        if self.diameter is None:
            return 1.0 if self.zoom is None else self.zoom
        trained = typical_diameter(run)
        if trained is None:
            raise InputError(
                f"{run.folder} has not noted how large the cells of its training were (data.json: statistics, train, "
                "object_diameter), so --diameter cannot be used. Pass --zoom FACTOR: their diameter in pixels through "
                "that of your cells."
            )
        factor = trained / self.diameter
        if not SMALLEST <= factor <= LARGEST:
            raise InputError(
                f"--diameter is {self.diameter:g} px, and the cells that {run.folder} was trained on are {trained:.3g} "
                f"px wide: the zoom would be {factor:.3g}, and {SMALLEST:g} to {LARGEST:g} can be had."
            )
        return factor

    def told(self, run: Run) -> str | None:
        """A sentence for the user; None where nothing is zoomed."""
        factor = self.factor(run)
        if factor == 1:
            return None
        why = "" if self.diameter is None else f": cells of {self.diameter:g} px then look"
        why += f" like the {typical_diameter(run):.3g} px of the training" if why else ""
        return f"Images are zoomed by {factor:.3g} for {run.folder.name}{why}; labels have the file's own pixels."


AS_IT_IS = Magnification()


def typical_diameter(run: Run) -> float | None:
    """Median diameter in pixels of the training's cells, of disks of their area; None where a run does not know it."""
    statistics = (run.data.get("statistics") or {}).get("train") or {}
    return (statistics.get("object_diameter") or {}).get("0.5")


def in_own_pixels(section: dict[str, Any], factor: float) -> dict[str, Any]:
    """An `instances` section for images whose pixels are 1 / `factor` of those that it was chosen on.

    Lengths are divided by the factor and areas by its square, so that a cell is cut and kept as if the image itself had
    been zoomed. Defaults are written out; a `min_size` of 0 or 1, which keeps everything, stays.
    """
    name = section["name"]
    defaults = inspect.signature(INSTANCES[name]).parameters
    scaled = dict(section)
    for option, power in POWERS[name].items():
        value = section.get(option, defaults[option].default)
        if option == "min_size":
            scaled[option] = value if value <= 1 else max(1, round(value / factor**power))
        else:
            scaled[option] = value / factor**power
    return scaled
