"""Published tables: scores that reports printed, shipped beside this file (README.md: sources), and how they are read.

Ranking them, and runs among them, is the work of `cellseg.comparison`.
"""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellseg.metrics import METRICS
from pipelines.errors import InputError, nearest

METHOD, NOTE = "method", "note"
LONG = ("report", "data", "measure", "value", NOTE)  # header of a table with one line a figure
MISSING = ("", "-", "–", "nan", "na", "n/a")
PARAMETERS = "parameters_millions"
PRINTED_RANK_SUM = "printed_rank_sum"


@dataclass(frozen=True)
class Column:
    """A column of a table of methods.

    Args:
        name: As in the header.
        measure: Name in `cellseg.metrics.METRICS` of what fills it for a run; "" if nothing does.
        higher_is_better: None = shown, not ranked.
        part: Only images whose names begin with this and "_"; "" = all.
        data: Only runs on this data set; "" = any.
        decimals: Decimals of the printed scores; None = not rounded.
    """

    name: str
    measure: str = ""
    higher_is_better: bool | None = None
    part: str = ""
    data: str = ""
    decimals: int | None = None


@dataclass(frozen=True)
class Method:
    """A row of a table of methods.

    Args:
        name: Of the method, or of the run.
        scores: By name of the column; a score that is missing has no entry.
        notes: What a reader must know of them.
        is_run: Whether it is a run of this program.
    """

    name: str
    scores: Mapping[str, float]
    notes: tuple[str, ...] = ()
    is_run: bool = False


@dataclass(frozen=True)
class Known:
    """What a shipped table's header does not say: (measure, part) of each column, and notes on the whole.

    Args:
        columns: (measure, part) by name of the column; ("", "") where no measure fills it.
        contest: Number of images that the printed scores are of, by part.
        notes: What a reader must know of the table.
    """

    columns: Mapping[str, tuple[str, str]]
    contest: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A table as read: its name, columns, methods, and what `Known` says of it."""

    name: str
    columns: tuple[Column, ...]
    methods: tuple[Method, ...]
    contest: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(published: Path | str) -> Published:
    """A table by its name in TABLES, or from a CSV file with a column `method` and a column a measure.

    An empty cell is a missing score; a column `note` is text. A copy of a shipped table is known by its header.

    Raises:
        InputError: no such name or file, no CSV, no column `method`, no methods, or a cell that cannot be used.
    """
    shipped = str(published) in TABLES
    path = Path(__file__).with_name(f"{published}.csv") if shipped else Path(published)
    if not path.is_file():
        raise InputError(
            f"There is no published table '{published}', and no such file.{nearest(str(published), TABLES)} "
            f"Known tables: {', '.join(TABLES)}; or give a CSV file with a column '{METHOD}' and a column a measure."
        )
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, strict=True)
        try:
            lines = [[cell.strip() for cell in line] for line in reader]
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: not a CSV: {error}. Close every quote, or save the table as CSV."
            ) from error
    header = lines[0] if lines else []
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if any(line)]
    repeated = [name for name, times in Counter(header).items() if times > 1 or not name]
    if repeated:
        raise InputError(f"{path}: the name '{repeated[0]}' in the first line is empty or stands there twice.")
    for number, line in rows:
        if len(line) != len(header):
            raise InputError(f"{path}, line {number}: it has {len(line)} cells, but the first line has {len(header)}.")
    records = [(number, dict(zip(header, line, strict=True))) for number, line in rows]
    if tuple(header) == LONG:
        return _long(path, records)
    if METHOD not in header:
        raise InputError(
            f"{path} has no column '{METHOD}'. Its first line should be '{METHOD},dice,...' (names of measures); it is "
            f"'{','.join(header)[:80]}'."
        )
    return _wide(path, [name for name in header if name not in (METHOD, NOTE)], records)


def _wide(path: Path, names: Sequence[str], records: Sequence[tuple[int, Mapping[str, str]]]) -> Published:
    """A row a method, a column a measure."""
    measured = set(names) - {PRINTED_RANK_SUM}
    table = next((name for name, known in TABLES.items() if known.columns and set(known.columns) == measured), "")
    known = TABLES[table] if table else Known({})
    seen: set[str] = set()
    methods = []
    for number, record in records:
        method = record[METHOD]
        if not method or method in seen:
            what = f"'{method}' has a line already" if method else f"the cell of column '{METHOD}' is empty"
            raise InputError(f"{path}, line {number}: {what}. Each method needs one line and a name.")
        seen.add(method)
        scores = {name: _number(record[name], path, number, name) for name in names}
        note = (record[NOTE],) if record.get(NOTE) else ()
        methods.append(Method(method, {name: one for name, one in scores.items() if one is not None}, note))
    if not methods:
        raise InputError(f"{path} lists no method: one line each is expected below its first line.")
    places = {name: (name if name in METRICS else "", "") for name in names} | dict(known.columns)
    decimals = {name: _decimals([record[name] for _, record in records]) for name in names}
    columns = tuple(
        Column(
            name, places[name][0], _direction(places[name][0] or name), part=places[name][1], decimals=decimals[name]
        )
        for name in names
    )
    notes = list(known.notes)
    for name in names:
        if not table and name not in (*METRICS, *DIRECTIONS, PARAMETERS, PRINTED_RANK_SUM):
            notes.append(f"{name} is not ranked: it is no measure that cellseg knows.{nearest(name, METRICS)}")
    return Published(table or path.stem, columns, tuple(methods), known.contest, tuple(notes))


def _long(path: Path, records: Sequence[tuple[int, Mapping[str, str]]]) -> Published:
    """A line a figure: a column a measure on a data set; figures of one report, data set and note are one row."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    printed: dict[Column, list[str]] = {}
    for number, record in records:
        measure, data = record["measure"], record["data"]
        value = _number(record["value"], path, number, "value")
        if value is None:
            continue
        name, key = f"{measure} ({data})", (record["report"], data, record[NOTE])
        if name in found.get(key, {}):
            raise InputError(f"{path}, line {number}: this report's {name} has a line already. Keep one of them.")
        known = measure if measure in METRICS else ""
        printed.setdefault(Column(name, known, _direction(measure), data=data), []).append(record["value"])
        found.setdefault(key, {})[name] = value
    if not found:
        raise InputError(f"{path} lists no figure: one line each is expected below its first line.")
    columns = tuple(
        Column(one.name, one.measure, one.higher_is_better, data=one.data, decimals=_decimals(cells))
        for one, cells in printed.items()
    )
    methods = tuple(
        Method(report, scores, (f"{data}, {note}" if note else data,)) for (report, data, note), scores in found.items()
    )
    return Published(path.stem, columns, methods, notes=TABLES["other_reports"].notes)


def _direction(measure: str) -> bool | None:
    return METRICS[measure].higher_is_better if measure in METRICS else DIRECTIONS.get(measure)


def _number(cell: str, path: Path, line: int, column: str) -> float | None:
    if cell.lower() in MISSING:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{path}, line {line}, column '{column}': '{cell}' is no number. Write one, or leave the cell empty. "
            f"Text may stand in the columns '{METHOD}' and '{NOTE}'."
        )
    return value


def _decimals(cells: Sequence[str]) -> int | None:
    """Most decimals that a cell shows; None where one is written with an exponent."""
    cells = [cell for cell in cells if cell.lower() not in MISSING]
    if any("e" in cell.lower() for cell in cells):
        return None
    return max((len(cell.partition(".")[2]) for cell in cells), default=None)


# Measures of published tables that are none of ours: whether higher is better.
DIRECTIONS = {"dice_loss": False}

TABLES = {
    "glas2015": Known(
        {
            "f1_a": ("glas_f1", "testA"),
            "f1_b": ("glas_f1", "testB"),
            "object_dice_a": ("object_dice", "testA"),
            "object_dice_b": ("object_dice", "testB"),
            "object_hausdorff_a": ("object_hausdorff", "testA"),
            "object_hausdorff_b": ("object_hausdorff", "testB"),
        },
        contest={"testA": 60, "testB": 20},
        notes=("glas2015: the GlaS contest of 2015 (arXiv 1603.00275) with two later entries (DTU-*).",),
    ),
    "isbi_membrane": Known(
        {
            "iou": ("iou", ""),
            "dice": ("dice", ""),
            "pixel_error": ("pixel_error", ""),
            "rand_error": ("pixel_rand_error", ""),
            PARAMETERS: ("", ""),
        },
        notes=(
            "isbi_membrane: four networks on ISBI 2012, scored on a split of their report's own, which is not known: a "
            "run on other images only comes near.",
            "rand_error is that of binary pixels, as the report printed it (pixel_rand_error); its iou does not follow "
            "from its dice, and how it was averaged is not known.",
        ),
    ),
    "other_reports": Known(
        {},
        notes=("The reports' scores are on splits that each of them chose; see the notes of the rows.",),
    ),
}
