"""Report: a run folder to report.html, one file that needs no network.

Only files of the run folder are read; its layout lives in `cellseg.runs`, the figures in `cellseg.figures`, the
page in `templates/report.html.j2`.
"""

import base64
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cellseg import __version__, figures, runs, templating, yaml_text
from cellseg.experiment import DETECTORS
from cellseg.metrics import IMAGE_METRICS
from pipelines.errors import InputError
from pipelines.files import whole_file

NAME = "report.html"
UNDEFINED = "–"
LISTED = 50  # images in the table; the rest is in scores.json
SPLITS = ("train", "validation", "test")
COLUMNS = {
    "test": "test",
    "validation": "validation",
    "baseline": "all background",
    "baseline_foreground": "all foreground",
}
# Measure: whether higher is better, and what it says in one line.
MEASURES = {
    "pixel_accuracy": (True, "share of pixels that are right; high for an empty answer where cells are sparse"),
    "iou": (True, "overlap of drawn and true foreground: shared / either, over all pixels"),
    "dice": (True, "overlap of drawn and true foreground: 2 x shared / (drawn + true), over all pixels"),
    "frequency_weighted_iou": (True, "IoU of background and foreground, weighted by how common each is"),
    "pixel_error": (False, "share of pixels that are wrong"),
    "average_precision": (True, "cells found: TP / (TP + FP + FN), a cell counts as found at IoU 0.5"),
    "average_precision_75": (True, "the same, found only at IoU 0.75"),
    "average_precision_90": (True, "the same, found only at IoU 0.9: nearly pixel-exact outlines"),
    "average_precision_mean": (True, "the same, mean over IoU 0.5, 0.55, ..., 0.95"),
    "panoptic_quality": (True, "cells found and how well their outlines fit, in one number"),
    "seg": (True, "Cell Tracking Challenge SEG: mean IoU of each true cell with the one that covers its half"),
    "count_error": (False, "|cells drawn - true cells| / true cells, mean over images"),
}
PICTURES = {
    "test": "Held-out images",
    "classes": "Classes of held-out images",
    "samples": "Samples",
    "training": "During training",
}


def write_report(run: Path | str) -> Path:
    """Write `report.html` into a run folder; it appears whole, and an older one is replaced.

    A file that the run does not have is named in its section of the report.

    Args:
        run: Folder that cellseg-train wrote.

    Returns:
        Path of the report.

    Raises:
        InputError: There is no such folder, it is no run (no experiment.yaml), or one of its files is damaged.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(f"There is no run folder {run}. Give a folder that cellseg-train wrote.")
    if not (run / runs.EXPERIMENT).is_file():
        raise InputError(
            f"{run} is no run folder: {runs.EXPERIMENT} was looked for in it. Give a folder that cellseg-train wrote."
        )
    templates = templating.environment()
    templates.filters |= {"number": number, "percent": percent}
    page = templates.get_template("report.html.j2").render(_content(run))
    with whole_file(run / NAME) as path:
        path.write_text(page, encoding="utf-8")
    return run / NAME


def number(value: object) -> str:
    """A number for readers: 3 or 4 significant digits, counts whole, and a dash for None and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNDEFINED
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == 0 or 0.01 <= abs(value) <= 1:
        return f"{value:.4f}"  # scores stand in columns: the same number of decimals for each
    return f"{value:.4g}" if abs(value) > 1 else f"{value:.3g}"


def percent(value: object) -> str:
    """A fraction as percent with 3 significant digits, and a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNDEFINED
    return f"{100 * value:.3g} %"


def _date(environment: str, newest: Path) -> str:
    """When the run began, as environment.txt says; of an older run, when `newest` was written."""
    first = environment.partition("\n")[0]
    if first.startswith("date: "):
        return first.removeprefix("date: ")
    return datetime.datetime.fromtimestamp(_modified(newest)).strftime("%Y-%m-%d %H:%M")


def _content(run: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    text = (run / runs.EXPERIMENT).read_text(encoding="utf-8")
    scores, data = _json(run, runs.SCORES, {}), _json(run, runs.DATA, {})
    threshold = _json(run, runs.THRESHOLD, {})
    environment = _text(run / runs.ENVIRONMENT)
    newest = max((run / name for name in (runs.EXPERIMENT, runs.SCORES) if (run / name).is_file()), key=_modified)
    per_image = (scores.get("test") or {}).get("per_image") or []
    return {
        "name": _experiment_name(text, run),
        "folder": run.name,
        "date": _date(environment, newest),
        "version": __version__,
        "command": _command(environment),
        "experiment": text,
        "environment": environment,
        "warnings": _json(run, runs.WARNINGS, []),
        "summary": _summary(scores),
        "scores": _scores_table(scores),
        "classification": (scores.get("test") or {}).get("classification"),
        "transfer": _json(run, runs.TRANSFER, {}),
        "errors": _errors(run),
        "threshold": threshold,
        "detects": _detects(text),
        "threshold_image": _threshold_image(run, threshold, cells=_detects(text)),
        "tuning": _tuning(run, threshold),
        "training_image": _training_image(run),
        "training_minutes": data.get("training_minutes"),
        "pictures": _pictures(run),
        "images": _images_table(per_image),
        "images_image": _embedded(figures.per_image_scores(per_image)) if len(per_image) > 1 else None,
        "advice": data.get("advice") or [],
        "data_rows": _data_rows(data),
    }


def _experiment_name(text: str, run: Path) -> str:
    try:
        content = yaml_text.load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{run / runs.EXPERIMENT} is damaged: it is not YAML ({error}). Train again.") from error
    return str(content.get("name") or run.name) if isinstance(content, dict) else run.name


def _detects(text: str) -> bool:
    content = yaml_text.load(text)
    model = content.get("model") if isinstance(content, dict) else None
    return isinstance(model, dict) and model.get("name") in DETECTORS


def _command(environment: str) -> str:
    lines = [line.partition(":")[2].strip() for line in environment.splitlines() if line.startswith("command:")]
    return lines[0] if lines else ""


def _summary(scores: Mapping) -> list[dict[str, Any]]:
    """The figures a reader looks for first, each beside the answer of all background."""
    test, baseline = (scores.get("test") or {}).get("measures") or {}, scores.get("baseline") or {}
    names = {"dice": "Dice", "average_precision": "Average precision at IoU 0.5", "pixel_accuracy": "Pixel accuracy"}
    return [
        {"name": shown, "value": test[name], "baseline": baseline.get(name)}
        for name, shown in names.items()
        if name in test
    ]


def _scores_table(scores: Mapping) -> dict[str, Any]:
    """Columns that the run has, one row a measure."""
    values = {key: (scores.get(key) or {}) for key in COLUMNS}
    for split in ("test", "validation"):
        values[split] = values[split].get("measures") or {}
    columns = {key: title for key, title in COLUMNS.items() if values[key] or key != "baseline_foreground"}
    measures = list(dict.fromkeys(name for key in columns for name in values[key]))
    rows = []
    for name in measures:
        higher, meaning = MEASURES.get(name, (None, ""))
        direction = {True: "higher", False: "lower", None: ""}[higher]
        cells = [values[key].get(name) for key in columns]
        rows.append({"name": name, "direction": direction, "meaning": meaning, "cells": cells})
    counts = {split: (scores.get(split) or {}).get("images") for split in ("test", "validation")}
    undefined = any(number(cell) == UNDEFINED for row in rows for cell in row["cells"])
    return {"columns": list(columns.values()), "rows": rows, "counts": counts, "undefined": undefined}


def _errors(run: Path) -> dict[str, Any]:
    """The error analysis with its two figures; without figures where there is no file or no true cell."""
    errors = _json(run, runs.ERRORS, {})
    if not errors.get("cells"):
        return errors
    try:
        drawn = {
            "recall_image": _embedded(figures.recall_by_fact(errors)),
            "merges_image": _embedded(figures.merges_and_membranes(errors)),
        }
    except (KeyError, TypeError) as error:
        raise InputError(f"{run / runs.ERRORS} is damaged ({error!r} in it). Train again.") from error
    return errors | drawn


def _images_table(per_image: Sequence[Mapping]) -> dict[str, Any]:
    """Worst first; images where Dice is undefined come last."""
    measures = [name for name in (per_image[0] if per_image else {}) if name != "name"]
    ranked = sorted(per_image, key=lambda row: math.inf if row.get("dice") is None else row["dice"])
    rows = [{"name": row["name"], "cells": [row.get(name) for name in measures]} for row in ranked[:LISTED]]
    undefined = any(number(cell) == UNDEFINED for row in rows for cell in row["cells"])
    return {"measures": measures, "rows": rows, "left_out": len(ranked) - len(rows), "undefined": undefined}


def _data_rows(data: Mapping) -> list[dict[str, Any]]:
    """One row a split: images, cells, cells an image, foreground, diameters."""
    statistics = data.get("statistics") or {}
    counts = data.get("splits") or {}
    rows = []
    for split in SPLITS:
        one = statistics.get(split) or {}
        if not one and split not in counts:
            continue
        diameter = one.get("object_diameter") or {}
        rows.append(
            {
                "split": split,
                "images": one.get("images", counts.get(split)),
                "cells": one.get("objects"),
                "per_image": (one.get("objects_per_image") or {}).get("mean"),
                "foreground": one.get("foreground_fraction"),
                "diameters": [diameter.get(quantile) for quantile in ("0.05", "0.5", "0.95")],
            }
        )
    return rows


def _training_image(run: Path) -> str | None:
    path = run / runs.HISTORY
    if not path.is_file():
        return None
    try:
        history = pd.read_csv(path)
    except ValueError as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path} is damaged ({error}). Train again.") from error
    return _embedded(figures.training_curves(history))


def _threshold_image(run: Path, threshold: Mapping, *, cells: bool) -> str | None:
    if not threshold.get("curve") or threshold.get("threshold") is None:
        return None
    measure, tuned = str(threshold.get("measure", "")), threshold.get("search")
    try:
        chosen = threshold["threshold"]
        png = figures.threshold_curve(threshold["curve"], chosen, tuned=tuned, measure=measure, cells=cells)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged_threshold(run, error) from error
    return _embedded(png)


def _tuning(run: Path, threshold: Mapping) -> dict[str, Any]:
    """What was tuned: how the measure is best, the chosen options, and the best combinations as a table's rows."""
    search = threshold.get("search") or {}
    measure = IMAGE_METRICS.get(threshold.get("measure", ""))
    try:
        best = search.get("best", [])
        options = list(best[0]["instances"]) if best else []
        cells = [[str(one["instances"][name]) for name in options] for one in best]
        rows = [[*row, f"{one['threshold']:.3g}", one["value"]] for row, one in zip(cells, best, strict=True)]
        thresholds = len(search.get("threshold", []))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged_threshold(run, error) from error
    return {
        "extreme": "lowest" if measure is not None and not measure.higher_is_better else "highest",
        "options": options,
        "rows": rows if options else [],
        "combinations": search.get("combinations"),
        "labellings": search.get("labellings"),
        "thresholds": thresholds,
    }


def _damaged_threshold(run: Path, error: Exception) -> InputError:
    return InputError(
        f"{run / runs.THRESHOLD} is damaged ({error!r} in it). Choose it anew: cellseg-evaluate {run} --tune dice."
    )


def _pictures(run: Path) -> list[dict[str, Any]]:
    """The run's pictures by section, in the order of PICTURES; a picture whose file is gone has no source."""
    listed = _json(run, runs.PICTURES, [])
    sections = []
    for section, title in PICTURES.items():
        pictures = [
            {"caption": picture.get("caption", ""), "file": picture["file"], "source": _picture(run, picture["file"])}
            for picture in listed
            if picture.get("section", "test") == section
        ]
        if pictures:
            sections.append({"title": title, "pictures": pictures})
    return sections


def _picture(run: Path, name: str) -> str | None:
    path = (run / name).resolve()
    # A run folder may come from somebody else: it must not pull other files into the report.
    if not path.is_relative_to(run.resolve()) or path.suffix != ".png" or not path.is_file():
        return None
    return _embedded(path.read_bytes())


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _json(run: Path, name: str, empty: dict | list) -> Any:
    """Content of an optional file; `empty` if it is not there."""
    if not (run / name).is_file():
        return empty
    content = runs.read_json(run, name)
    if not isinstance(content, type(empty)):
        expected = "a list" if isinstance(empty, list) else "an object"
        raise InputError(f"{run / name} is damaged: {expected} was expected in it. Train again.")
    return content


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _modified(path: Path) -> float:
    return path.stat().st_mtime
