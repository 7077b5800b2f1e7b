"""Options of Mask R-CNN: checked at the door, and as plain values that JSON and YAML can hold.

What they do is said where they are used, in `cellseg.models.mask_rcnn.network`.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.errors import InputError

BACKBONES = {"resnet18": 18, "resnet50": 50}
BATCH_NORMS = ("trainable", "frozen")
MOST_LEVELS = 5  # P2 to P6
COUNTS = (
    *("classes", "channels", "width", "fpn_channels", "box_features", "mask_channels", "mask_layers"),
    *("anchor_samples", "roi_samples", "detections"),
)
SHARES = ("proposal_iou", "detection_iou", "score_threshold", "positive_share")


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as plain values: `anchor_sizes` is a list of lists, one a level.

    Raises:
        InputError: one is out of range.
    """
    plain = dict(options)
    for name, known in (("backbone", tuple(BACKBONES)), ("batch_norm", BATCH_NORMS)):
        if plain[name] not in known:
            raise InputError(f"model.{name}: '{plain[name]}' is not known. Known: {', '.join(known)}.")
    for name in COUNTS:
        if plain[name] < 1:
            raise InputError(f"model.{name} must be >= 1, got {plain[name]}.")
    for name in SHARES:
        if not 0 <= plain[name] <= 1:
            raise InputError(f"model.{name} must be between 0 and 1, got {plain[name]}.")
    for name in ("training_proposals", "proposals"):
        plain[name] = _positive(name, plain[name])
        if len(plain[name]) != 2:
            raise InputError(
                f"model.{name} must be two numbers, of a level before non-maximum suppression and of an image after "
                f"it, got {plain[name]}."
            )
    plain["anchor_ratios"] = _positive("anchor_ratios", plain["anchor_ratios"])
    plain["anchor_sizes"] = _anchor_sizes(plain["anchor_sizes"])
    return plain


def _anchor_sizes(given: Any) -> list[list[float]]:
    levels = [list(entry) if isinstance(entry, list | tuple) else [entry] for entry in given]
    if not 1 <= len(levels) <= MOST_LEVELS:
        raise InputError(
            f"model.anchor_sizes must have 1 to {MOST_LEVELS} entries, one for each level from P2 on, got "
            f"{len(levels)}."
        )
    if len({len(level) for level in levels}) > 1:
        raise InputError(
            "model.anchor_sizes must have equally many sizes for each level, as one network scores them all, got "
            f"{levels}."
        )
    return [_positive("anchor_sizes", level) for level in levels]


def _positive(name: str, values: Any) -> list[Any]:
    values = list(values)
    if not values or min(values) <= 0:
        raise InputError(f"model.{name} must be numbers > 0, got {values}.")
    return values
