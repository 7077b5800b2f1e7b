"""Score tables: what `scores.json` of a run holds, as rows for the report, and numbers for readers.

The page is written by `cellseg.report`; tables as CSV by `cellseg.score_files`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from cellseg.evaluation import BASELINES
from cellseg.metrics import IMAGE_METRICS

UNDEFINED = "–"
LISTED = 50  # images in the table; the rest is in scores.json
COLUMNS = {"test": "test", "validation": "validation", **BASELINES}
# What a measure says, in one line.
MEANINGS = {
    "pixel_accuracy": "share of pixels that are right; high for an empty answer where cells are sparse",
    "iou": "overlap of drawn and true foreground: shared / either, over all pixels",
    "dice": "overlap of drawn and true foreground: 2 x shared / (drawn + true), over all pixels",
    "frequency_weighted_iou": "IoU of background and foreground, weighted by how common each is",
    "pixel_error": "share of pixels that are wrong",
    "average_precision": "cells found: TP / (TP + FP + FN), a cell counts as found at IoU 0.5",
    "average_precision_75": "the same, found only at IoU 0.75",
    "average_precision_90": "the same, found only at IoU 0.9: nearly pixel-exact outlines",
    "average_precision_mean": "the same, mean over IoU 0.5, 0.55, ..., 0.95",
    "average_precision_70": "the same, found only at IoU 0.7",
    "rand_error": "share of pairs of pixels that only one of truth and answer puts into one cell",
    "pixel_rand_error": "2 e (1 - e) of the pixel error e, as a report printed it",
    "object_dice": "GlaS: Dice of each cell with its partner, weighted by area, both ways",
    "object_hausdorff": "GlaS: farthest distance of partners' outlines, px, weighted by area, both ways",
    "glas_f1": "GlaS: F1 of cells found at an overlap of half",
    "panoptic_quality": "cells found and how well their outlines fit, in one number",
    "aji": "shared pixels of cells and their partners / all pixels of either, cells without a partner included",
    "v_rand": "ISBI 2012: do pixels of one cell stay in one piece, and of different cells apart",
    "v_info": "the same, in information instead of pairs of pixels",
    "seg": "Cell Tracking Challenge SEG: mean IoU of each true cell with the one that covers its half",
    "count_error": "|cells drawn - true cells| / true cells, mean over images",
}


def summary(scores: Mapping) -> list[dict[str, Any]]:
    """The figures a reader looks for first, each beside the answer of all background."""
    test, baseline = (scores.get("test") or {}).get("measures") or {}, scores.get("baseline") or {}
    names = {"dice": "Dice", "average_precision": "Average precision at IoU 0.5", "pixel_accuracy": "Pixel accuracy"}
    return [
        {"name": shown, "value": test[name], "baseline": baseline.get(name)}
        for name, shown in names.items()
        if name in test
    ]


def scores_table(scores: Mapping) -> dict[str, Any]:
    """Columns that the run has, one row a measure."""
    values = {key: (scores.get(key) or {}) for key in COLUMNS}
    for split in ("test", "validation"):
        values[split] = values[split].get("measures") or {}
    columns = {key: title for key, title in COLUMNS.items() if values[key] or key != "baseline_foreground"}
    measures = list(dict.fromkeys(name for key in columns for name in values[key]))
    rows = []
    for name in measures:
        cells = [values[key].get(name) for key in columns]
        rows.append({"name": name, "direction": _better(name), "meaning": MEANINGS.get(name, ""), "cells": cells})
    maps = {key: (scores.get(key) or {}).get("probability") or {} for key in columns}
    for name in dict.fromkeys(name for of in maps.values() for name in of):
        cells = [maps[key].get(name) for key in columns]
        meaning = "of the probability, not of the cells, as its definition says"
        rows.append({"name": f"{name}, probability", "direction": _better(name), "meaning": meaning, "cells": cells})
    counts = {split: (scores.get(split) or {}).get("images") for split in ("test", "validation")}
    undefined = any(number(cell) == UNDEFINED for row in rows for cell in row["cells"])
    return {"columns": list(columns.values()), "rows": rows, "counts": counts, "undefined": undefined}


def parts_table(scores: Mapping) -> list[dict[str, Any]]:
    """One table for each part of the test images that the evaluation section names."""
    tables = []
    for part, found in ((scores.get("test") or {}).get("parts") or {}).items():
        columns = (found["measures"], found.get("baseline") or {}, found.get("baseline_foreground") or {})
        rows = [{"name": name, "cells": [column.get(name) for column in columns]} for name in found["measures"]]
        tables.append({"name": part, "images": found["images"], "rows": rows})
    return tables


def images_table(per_image: Sequence[Mapping]) -> dict[str, Any]:
    """Worst first; images where Dice is undefined come last."""
    measures = [name for name in (per_image[0] if per_image else {}) if name != "name"]
    ranked = sorted(per_image, key=lambda row: math.inf if row.get("dice") is None else row["dice"])
    rows = [{"name": row["name"], "cells": [row.get(name) for name in measures]} for row in ranked[:LISTED]]
    undefined = any(number(cell) == UNDEFINED for row in rows for cell in row["cells"])
    return {"measures": measures, "rows": rows, "left_out": len(ranked) - len(rows), "undefined": undefined}


def _better(measure: str) -> str:
    """higher or lower; nothing for what is no measure of this version."""
    known = IMAGE_METRICS.get(measure)
    return "" if known is None else "higher" if known.higher_is_better else "lower"


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a JSON file is a number that can be shown: no bool, NaN or whole number without end."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def number(value: object) -> str:
    """A number for readers: 3 or 4 significant digits, counts whole, and a dash for None and NaN."""
    if not is_number(value):
        return UNDEFINED
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == 0 or 0.01 <= abs(value) <= 1:
        return f"{value:.4f}"  # scores stand in columns: the same number of decimals for each
    return f"{value:.4g}" if abs(value) > 1 else f"{value:.3g}"


def duration(minutes: float) -> str:
    """A time for readers: seconds below two minutes, otherwise minutes."""
    return f"{60 * minutes:.0f} s" if minutes < 2 else f"{minutes:.3g} minutes"


def percent(value: object) -> str:
    """A fraction as percent with 3 significant digits, and a dash where there is none."""
    if not is_number(value):
        return UNDEFINED
    return f"{100 * value:.3g} %"
