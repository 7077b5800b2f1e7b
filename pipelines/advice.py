"""Advice: what the statistics of a data set mean for an experiment.

The statistics themselves are collected in `pipelines.statistics`.
"""

import math
from collections.abc import Sequence

SMALLEST_PATCH, LARGEST_PATCH = 64, 256
# From this share of cells that touch another on, components merge enough of them to be seen in any count.
MANY_TOUCH = 0.02


def balanced_weights(foreground_fraction: float) -> dict[str, float]:
    """Loss weights for a foreground fraction f: the minority counts more, whichever it is.

    foreground_weight and background_weight are proportional to 1 / sqrt(f) and 1 / sqrt(1 - f) and scaled so that the
    mean pixel weighs 1. The square root is half-way between no balance and 1 / f: full balance draws too much of a
    sparse foreground. beta = 0.7 - 0.4 f, alpha = 1 - beta: in a Tversky loss a missed foreground pixel costs more
    where foreground is rare, and less where background is.

    Args:
        foreground_fraction: Share of foreground pixels in [0, 1]; taken as at least 0.001 and at most 0.999.

    Returns:
        alpha, beta, foreground_weight, background_weight, each rounded to 4 digits.
    """
    f = min(max(float(foreground_fraction), 0.001), 0.999)
    foreground, background = 1 / math.sqrt(f), 1 / math.sqrt(1 - f)
    mean = f * foreground + (1 - f) * background
    beta = 0.7 - 0.4 * f
    return {
        "alpha": round(1 - beta, 4),
        "beta": round(beta, 4),
        "foreground_weight": round(foreground / mean, 4),
        "background_weight": round(background / mean, 4),
    }


def suggest_patch(diameter: float | None, smallest_side: int) -> int:
    """Side of a training patch, in pixels: about eight cells wide, a multiple of 16, inside the smallest image.

    Args:
        diameter: Median equivalent diameter of the cells in pixels; None = unknown.
        smallest_side: Shortest side of any image.
    """
    wanted = LARGEST_PATCH if diameter is None else min(max(8 * diameter, SMALLEST_PATCH), LARGEST_PATCH)
    return max(16, min(math.ceil(wanted / 16) * 16, smallest_side // 16 * 16))


def suggest_depths(diameter: float) -> list[float]:
    """Depths for the watershed to choose from, in pixels: 3, 6 and 12 % of the cells' median width, at least 0.5."""
    return sorted({round(max(0.5, share * diameter), 1) for share in (0.03, 0.06, 0.12)})


def suggest_elastic_sigma(diameter: float | None) -> float:
    """Largest sensible standard deviation of a 3x3 grid's displacements: 10 px (U-Net), or a third of a cell."""
    return 10.0 if diameter is None else round(min(10.0, max(1.0, diameter / 3)), 1)


def advise(statistics: dict, *, smallest_side: int, classes: Sequence[str] = ()) -> list[str]:
    """Sentences for the person who sets up the experiment.

    Args:
        statistics: `Statistics.result()` of the training split.
        smallest_side: Shortest side of any image, in pixels.
        classes: Names of the classes, class 1 first.

    Returns:
        One sentence a subject. Without labelled pixels: only what is known of the images.
    """
    lines: list[str] = []
    f = statistics["foreground_fraction"]
    if f is not None:
        weights = balanced_weights(f)
        rare, trivial, score = ("Foreground", "background", 1 - f) if f < 0.5 else ("Background", "foreground", f)
        lines.append(
            f"{rare} is the rarer class: {100 * f:.1f} % of the pixels are foreground. An answer of all {trivial} "
            f"scores {100 * score:.1f} % pixel accuracy, so judge by Dice or IoU, not by accuracy."
        )
        lines.append(
            "Suggested loss: tversky_bce with "
            + ", ".join(f"{name} {value:g}" for name, value in weights.items())
            + " (used unless the YAML sets others)."
        )
    if statistics["ignored_fraction"]:
        lines.append(
            f"{100 * statistics['ignored_fraction']:.1f} % of the training pixels are unannotated: they count in no "
            "loss and in no score."
        )
    if classes and statistics["class_fractions"]:
        fractions = [*statistics["class_fractions"][1:], *[0.0] * len(classes)]
        found = ", ".join(f"{name} {100 * share:.1f} %" for name, share in zip(classes, fractions, strict=False))
        lines.append(f"Classes, in pixels of all: {found}.")
    if statistics["object_diameter"] is None:
        lines.append("There are no labelled cells in the training split: nothing can be learned from it.")
        return lines
    small, diameter, large = (statistics["object_diameter"][q] for q in ("0.05", "0.5", "0.95"))
    patch = suggest_patch(diameter, smallest_side)
    lines.append(
        f"Cells are {diameter:.0f} px wide (5 % below {small:.0f}, 5 % above {large:.0f}); a patch of {patch} px holds "
        f"about {(patch / max(diameter, 1)) ** 2 * (f or 0) / 0.785:.0f} of them."
    )
    if large > patch:
        lines.append(f"The largest cells ({large:.0f} px) do not fit a patch of {patch} px: consider smaller images.")
    touching = statistics.get("touching_fraction") or 0
    if touching >= MANY_TOUCH:
        lines.append(
            f"{100 * touching:.0f} % of the cells touch another: as connected components they would be one, so "
            "instances.name watershed cuts them at their necks."
        )
    sigma = suggest_elastic_sigma(diameter)
    lines.append(
        f"Elastic deformation: a 3x3 grid with sigma up to {sigma:g} px suits this cell size"
        + ("." if sigma >= 10 else "; U-Net's 10 px would tear cells this small.")
    )
    return lines
