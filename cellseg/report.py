"""Report: a run folder to report.html, one file that needs no network.

Only files of the run folder are read; its layout lives in `cellseg.runs`, the figures in `cellseg.figures`, tables of
scores in `cellseg.score_tables`, the page in `templates/report.html.j2`.
"""

import base64
import contextlib
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from cellseg import __version__, figures, runs, templating, yaml_text
from cellseg.experiment import DETECTORS
from cellseg.metrics import IMAGE_METRICS
from cellseg.score_tables import duration, images_table, number, parts_table, percent, scores_table, summary
from pipelines.errors import InputError
from pipelines.files import whole_file

NAME = "report.html"
# What is raised where a file holds something else than its writer writes.
ODD = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
SPLITS = ("train", "validation", "test")
PICTURES = {
    "test": "Held-out images",
    "classes": "Classes of held-out images",
    "methods": "Ways to tile",
    "samples": "What the network learns from",
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
    templates.filters |= {"number": number, "percent": percent, "duration": duration}
    try:
        page = templates.get_template("report.html.j2").render(_content(run))
    except InputError:
        raise
    except (
        jinja2.UndefinedError,
        *ODD,
    ) as error:  # of what is nested so deep in a file that the page alone looks at it
        names = ", ".join((runs.SCORES, runs.ERRORS, runs.THRESHOLD, runs.TRANSFER))
        raise InputError(f"{run}: one of {names} lacks what the report shows ({error}). Train again.") from error
    with whole_file(run / NAME) as path:
        path.write_text(page, encoding="utf-8")
    return run / NAME


def _date(environment: str, newest: Path) -> str:
    """When the run began, as environment.txt says; of an older run, when `newest` was written."""
    first = environment.partition("\n")[0]
    if first.startswith("date: "):
        return first.removeprefix("date: ")
    return datetime.datetime.fromtimestamp(_modified(newest)).strftime("%Y-%m-%d %H:%M")


def _content(run: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    text = _text(run / runs.EXPERIMENT)
    scores, data = _json(run, runs.SCORES, {}), _json(run, runs.DATA, {})
    threshold = _json(run, runs.THRESHOLD, {})
    environment = _text(run / runs.ENVIRONMENT)
    newest = max((run / name for name in (runs.EXPERIMENT, runs.SCORES) if (run / name).is_file()), key=_modified)
    with _of(run / runs.SCORES):
        test = scores.get("test") or {}
        per_image = test.get("per_image") or []
        scored = {
            "summary": summary(scores),
            "scores": scores_table(scores),
            "parts": parts_table(scores),
            "classification": test.get("classification"),
            "images": images_table(per_image),
            "images_image": _embedded(figures.per_image_scores(per_image)) if len(per_image) > 1 else None,
        }
    with _of(run / runs.DATA):
        advice, data_rows = [str(line) for line in data.get("advice") or []], _data_rows(data)
    return {
        **scored,
        "name": _experiment_name(text, run),
        "folder": run.name,
        "date": _date(environment, newest),
        "version": __version__,
        "command": _command(environment),
        "experiment": text,
        "environment": environment,
        "warnings": _json(run, runs.WARNINGS, []),
        "transfer": _json(run, runs.TRANSFER, {}),
        "errors": _errors(run),
        "threshold": threshold,
        "detects": _detects(text),
        "threshold_image": _threshold_image(run, threshold, cells=_detects(text)),
        "tuning": _tuning(run, threshold),
        "training_image": _training_image(run),
        "training_minutes": data.get("training_minutes"),
        "pictures": _pictures(run),
        "advice": advice,
        "data_rows": data_rows,
    }


@contextlib.contextmanager
def _of(path: Path, remedy: str = "Train again.") -> Iterator[None]:
    """Name the file whose content is no such as it should be."""
    try:
        yield
    except InputError:
        raise
    except ODD as error:
        raise InputError(f"{path} is damaged ({error!r:.200} in it). {remedy}") from error


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


def _errors(run: Path) -> dict[str, Any]:
    """The error analysis with its two figures; without figures where there is no file or no true cell."""
    errors = _json(run, runs.ERRORS, {})
    if not errors.get("cells"):
        return errors
    with _of(run / runs.ERRORS):
        drawn = {
            "recall_image": _embedded(figures.recall_by_fact(errors)),
            "merges_image": _embedded(figures.merges_and_membranes(errors)),
        }
    return errors | drawn


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
    with _of(path):  # pandas' own errors are ValueErrors
        return _embedded(figures.training_curves(pd.read_csv(path)))


def _threshold_image(run: Path, threshold: Mapping, *, cells: bool) -> str | None:
    if not threshold.get("curve") or threshold.get("threshold") is None:
        return None
    measure, tuned = str(threshold.get("measure", "")), threshold.get("search")
    with _of(run / runs.THRESHOLD, _tuned_anew(run)):
        chosen = threshold["threshold"]
        return _embedded(figures.threshold_curve(threshold["curve"], chosen, tuned=tuned, measure=measure, cells=cells))


def _tuning(run: Path, threshold: Mapping) -> dict[str, Any]:
    """What was tuned: how the measure is best, the chosen options, and the best combinations as a table's rows."""
    search = threshold.get("search") or {}
    with _of(run / runs.THRESHOLD, _tuned_anew(run)):
        measure = IMAGE_METRICS.get(threshold.get("measure", ""))
        best = search.get("best", [])
        options = list(best[0]["instances"]) if best else []
        cells = [[str(one["instances"][name]) for name in options] for one in best]
        rows = [[*row, f"{one['threshold']:.3g}", one["value"]] for row, one in zip(cells, best, strict=True)]
        thresholds = len(search.get("threshold", []))
        if isinstance(threshold.get("threshold"), int | float):
            float(threshold["threshold"])  # the page shows it, unless it has hundreds of digits
    return {
        "extreme": "lowest" if measure is not None and not measure.higher_is_better else "highest",
        "options": options,
        "rows": rows if options else [],
        "combinations": search.get("combinations"),
        "labellings": search.get("labellings"),
        "thresholds": thresholds,
    }


def _tuned_anew(run: Path) -> str:
    return f"Choose it anew: cellseg-evaluate {run} --tune dice."


def _pictures(run: Path) -> list[dict[str, Any]]:
    """The run's pictures by section, in the order of PICTURES; a picture whose file is gone has no source."""
    listed = _json(run, runs.PICTURES, [])
    sections = []
    with _of(run / runs.PICTURES):
        for section, title in PICTURES.items():
            pictures = [
                {"caption": one.get("caption", ""), "file": one["file"], "source": _picture(run, one["file"])}
                for one in listed
                if one.get("section", "test") == section
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
    with _of(path):
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def _modified(path: Path) -> float:
    return path.stat().st_mtime
