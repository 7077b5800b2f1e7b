"""Result tables: docs/results/*.json and published figures to the tables between the markers of docs/results.md.

    python -m experiments.result_tables [--check]

What each table shows stands in docs/results/tables.yaml. A run becomes such a JSON file in `experiments.make_results`.
"""

import argparse
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cellseg.evaluation import BASELINES
from cellseg.metrics import IMAGE_METRICS
from cellseg.published import Column, read
from pipelines.errors import InputError
from pipelines.files import whole_file

HERE = Path(__file__).parent
STORED, PAGE = HERE.parent / "docs" / "results", HERE.parent / "docs" / "results.md"
DEFINITIONS = STORED / "tables.yaml"
NOT_MEASURED = "*Not measured yet.*"
UNDEFINED = "–"
TEST, TUNED = "test", "validation (scored what it was tuned on)"
MARKED = re.compile(r"(<!-- begin (?P<name>\S+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)
PICTURES = ("curves", "best", "typical", "worst")
TRACKED = ("tra", "seg", "det", "lnk", "division_f1", "ct")
DECIMALS = {"pixel": 4, "pixel_rand_error": 4, "object_hausdorff": 1}  # by kind or name of a measure; else 3


@dataclass(frozen=True)
class Row:
    """A published row: its title, its figures by column, and whether ours is to reach them."""

    title: str
    figures: Mapping[str, float]
    aim: bool = True


def definitions(path: Path = DEFINITIONS) -> list[dict]:
    """The tables, in their order."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def stored(name: str, folder: Path = STORED) -> list[dict]:
    """The results of an experiment: of its own seed, then of the others; [] if there are none."""
    found = [folder / f"{name}.json", *folder.glob(f"{name}-seed*.json")]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.is_file()]
    return sorted(results, key=lambda one: one["seed"])


def filled(text: str, tables: Mapping[str, str], *, where: str = "docs/results.md") -> str:
    """The page with each table between its markers.

    Raises:
        InputError: a table has no markers in the page, or markers have no table.
    """
    marked = [match["name"] for match in MARKED.finditer(text)]
    for name in tables:
        if name not in marked:
            raise InputError(f"{where} has no place for {name}: write <!-- begin {name} --> and <!-- end {name} -->.")
    for name in marked:
        if name not in tables:
            raise InputError(f"{where} marks a place for {name}, which has no table. Remove the markers.")
    return MARKED.sub(lambda match: f"{match[1]}{tables[match['name']]}\n{match[3]}", text)


def tables(defined: Sequence[Mapping] | None = None, folder: Path = STORED) -> dict[str, str]:
    """Markdown by name of the marker: one table an experiment, and `summary`."""
    defined = definitions() if defined is None else defined
    results = {one["name"]: stored(one["name"], folder) for one in defined}
    made = {one["name"]: experiment_table(one, results[one["name"]], folder=folder) for one in defined}
    return {"summary": summary(defined, results), **made}


def experiment_table(definition: Mapping, results: Sequence[Mapping], *, folder: Path = STORED) -> str:
    """Ours, the published rows and the trivial answers; then what it took."""
    if not results:
        return NOT_MEASURED
    columns = definition["columns"]
    first = results[0]["scores"]
    rows = [(f"**ours, {TEST}** ({_images(first['test'])})", _ours(results, columns, "test"))]
    if definition.get("tuned"):
        rows.append((f"ours, {TUNED}, {_images(first['validation'])}", _ours(results, columns, "validation")))
    protocol = stored(f"{definition['name']}-report", folder)
    if protocol:
        rows.append((f"ours, {definition['protocol']['title']}", _ours(protocol, columns, "validation")))
    for row in published_rows(definition):
        rows.append((f"published: {row.title}", [_printed(row.figures.get(column)) for column in columns]))
    rows += _trivial_rows(first, columns, "test")
    if definition.get("tuned") and first["validation"].keys() >= BASELINES.keys():  # not in results of November 2026
        rows += _trivial_rows(first, columns, "validation", ", validation images")
    lines = markdown(["", *map(title, columns)], [[name, *cells] for name, cells in rows])
    if len(results) > 1:
        seeds = ", ".join(str(one["seed"]) for one in results)
        lines += ["", f"Mean ± standard deviation over the seeds {seeds}."]
    if "contest" in results[0]:
        lines += ["", *contest_table(results[0]["contest"])]
    if "tracking" in results[0]:
        lines += ["", *tracking_table(results[0]["tracking"])]
    pictures = [f"{definition['name']}-{kind}.png" for kind in PICTURES]
    shown = [f"![{name.removesuffix('.png')}](results/{name})" for name in pictures if (folder / name).is_file()]
    return "\n\n".join(["\n".join(lines), facts(results), *shown])


def contest_table(contest: Mapping) -> list[str]:
    """The run's place among the methods of a published table, best first."""
    names = contest["columns"]
    rows = []
    for row in contest["rows"]:
        name = f"**{row['name']} (ours)**" if row["ours"] else row["name"]
        scores = [_printed(row["scores"].get(name)) for name in names]
        rows.append([str(row["place"] or UNDEFINED), name, *scores, str(row["rank_sum"] or UNDEFINED)])
    lines = markdown(["place", "method", *names, "rank sum"], rows)
    return [*lines, "", *(f"{note}." for note in contest["notes"])]


def tracking_table(tracking: Mapping) -> list[str]:
    """The run's own cells of raw frames, linked in several ways, against the markers."""
    rows = []
    for row in tracking["rows"]:
        scores = (row[name] for name in TRACKED)
        rows.append([row["tracker"], *(UNDEFINED if one is None else f"{one:.3f}" for one in scores)])
    return markdown([f"frames {tracking['frames']}, tracked", *TRACKED], rows)


def facts(results: Sequence[Mapping]) -> str:
    """What it took, in a line."""
    one = results[0]
    minutes = " and ".join(f"{result['training_minutes']:.0f}" for result in results)
    memory = f", peak memory {one['peak_memory_mb'] / 1024:.1f} GB" if one.get("peak_memory_mb") else ""
    size = f"{one['parameters'] / 1e6:.2f} million weights, " if one.get("parameters") else ""
    epochs = f"{one['epochs']} epochs, " if one.get("epochs") else ""
    chosen = "".join(f", {option} {value}" for option, value in one.get("instances", {}).items())
    later = one.get("tuned_again")
    fixed = one.get("decision") == "argmax" and not chosen
    tuned = "" if fixed else f", tuned on the validation images for {one['tuned_for']}"
    # Of several channels the most probable one may decide; a threshold that is stored then says nothing.
    decided = "the most probable channel" if one.get("decision") == "argmax" else f"threshold {one['threshold']:.3g}"
    again = f" (again on {later['date'].partition(' ')[0]}, git {later['git']})" if later else ""
    changed = f" With {'; '.join(one['changed'])}." if one.get("changed") else ""
    return (
        f"`{one['command']}` on {one['date']}, {one['hardware']}, git {one['git']}: {size}{epochs}{minutes} min of "
        f"training{memory}; {decided}{chosen}{tuned}{again}.{changed}"
    )


def summary(defined: Sequence[Mapping], results: Mapping[str, Sequence[Mapping]]) -> str:
    """Every published figure beside ours and the better of the trivial answers: reached or not, and why not."""
    rows = []
    for definition in defined:
        name, of = definition["name"], results[definition["name"]]
        tuned = of if definition.get("tuned") else []
        for row in published_rows(definition):
            for column in definition["columns"] if row.aim else ():
                if column not in row.figures:
                    continue
                figure = row.figures[column]
                trivial = _trivial(of[0]["scores"], column) if of else None
                cells = [_printed(figure), shown_number(trivial, column)]
                cells += [_ours(of, [column], "test")[0], _ours(tuned, [column], "validation")[0]]
                verdict = _verdict(of, figure, column, definition)
                rows.append([f"[{name}](#{name})", f"{title(column)}, {row.title}", *cells, verdict])
    ours = ["ours, test", "ours, validation", "reached on the test images"]
    return "\n".join(markdown(["experiment", "figure", "published", "trivial answer", *ours], rows))


def published_rows(definition: Mapping) -> list[Row]:
    """The published rows of a table, by the names of its columns.

    Raises:
        InputError: a table has no such method.
    """
    return [_published(one, definition["columns"]) for one in definition.get("published", ())]


def _published(wanted: Mapping, ours: Sequence[str]) -> Row:
    name = wanted["table"]
    table = read(STORED / name if name.endswith(".csv") else name)
    data, note = wanted.get("data", ""), wanted.get("note", "")
    columns = {column.name: column for column in table.columns if not data or column.data == data}
    for method in table.methods:
        scores = {key: value for key, value in method.scores.items() if key in columns}
        told = "; ".join(method.notes)
        if method.name != wanted["method"] or not scores or note not in told:
            continue
        figures = {_place(columns[key], key, ours): value for key, value in scores.items()}
        remark = told.partition(", ")[2] if data else ""
        called = wanted.get("title", f"{method.name} ({remark})" if remark else method.name)
        return Row(called, figures, aim=not wanted.get("beside", False))
    raise InputError(f"{DEFINITIONS.name}: the table {name} has no row of {wanted['method']}, {data or 'any data'}.")


def _place(column: Column, key: str, ours: Sequence[str]) -> str:
    """The column of ours that a published one compares with; its part of the images is named by us alone."""
    measure = column.measure or key.partition(" (")[0]
    if column.part:
        return f"{column.part.removeprefix('test')}/{measure}"
    found = [one for one in ours if _split(one)[1] == measure and _split(one)[0] != "probability"]
    return measure if measure in ours or not found else found[0]


def _verdict(results: Sequence[Mapping], figure: float, column: str, definition: Mapping) -> str:
    """Whether the mean over the results that have a value reaches a published figure, and why not."""
    if not results:
        return "not measured yet"
    values = _values(results, column, "test")
    if not values:
        return "undefined"
    mean = statistics.fmean(values)
    if (mean >= figure) if _higher(column) else (mean <= figure):
        remark = definition.get("remarks", {}).get(column)
        return f"yes, but {remark}" if remark else "yes"
    return f"no: {definition['reason']}" if "reason" in definition else "no"


def _ours(results: Sequence[Mapping], columns: Sequence[str], split: str) -> list[str]:
    """Mean over the results, with the spread where there are several, and their number where some have no value."""
    cells = []
    for column in columns:
        values = _values(results, column, split)
        cell = shown_number(statistics.fmean(values) if values else None, column)
        if len(values) > 1:
            cell += f" ± {shown_number(statistics.stdev(values), column)}"
        cells.append(cell + f" ({len(values)} of {len(results)})" * (0 < len(values) < len(results)))
    return cells


def _values(results: Sequence[Mapping], column: str, split: str) -> list[float]:
    """A column's values of those results that have one."""
    found = (_value(result["scores"].get(split, {}), column) for result in results)
    return [value for value in found if value is not None]


def score(scores: Mapping, column: str) -> str:
    """A column's value of one result for readers."""
    return shown_number(_value(scores, column), column)


def _value(scores: Mapping, column: str) -> float | None:
    """A column's value among the scores of a split; None where the split has no image of the column's part."""
    part, measure = _split(column)
    if part == "probability":
        return scores.get("probability", {}).get(measure)
    of = scores.get("parts", {}).get(part, {}) if part else scores
    return of.get("measures", {}).get(measure)


def _baseline(scores: Mapping, column: str, key: str, split: str = "test") -> float | None:
    part, measure = _split(column)
    if part == "probability":
        return None
    whole = scores if split == "test" else scores[split]
    of = scores[split].get("parts", {}).get(part, {}) if part else whole
    return of.get(key, {}).get(measure)


def _trivial_rows(scores: Mapping, columns: Sequence[str], split: str, told: str = "") -> list[tuple[str, list[str]]]:
    """What the answers that need no network score on the images of a split."""
    return [
        (name + told, [shown_number(_baseline(scores, column, key, split), column) for column in columns])
        for key, name in BASELINES.items()
    ]


def _trivial(scores: Mapping, column: str) -> float | None:
    """The better of the answers that need no network."""
    found = [_baseline(scores, column, key) for key in BASELINES]
    return (max if _higher(column) else min)((one for one in found if one is not None), default=None)


def _split(column: str) -> tuple[str, str]:
    part, _, measure = column.rpartition("/")
    return part, measure


def _higher(column: str) -> bool:
    return IMAGE_METRICS[_split(column)[1]].higher_is_better


def title(column: str) -> str:
    """A column's measure and part for readers, with an arrow where lower is better."""
    part, measure = _split(column)
    arrow = "" if _higher(column) else " ↓"
    return f"{measure}{f', {part}' if part else ''}{arrow}"


def _images(scores: Mapping) -> str:
    return f"{scores['images']} image{'' if scores['images'] == 1 else 's'}"


def shown_number(value: float | None, column: str) -> str:
    """A score with the decimals that its measure is printed with; a dash for None."""
    if value is None:
        return UNDEFINED
    measure = _split(column)[1]
    kind = IMAGE_METRICS[measure].kind
    return f"{value:.{DECIMALS.get(measure, DECIMALS.get(kind, 3))}f}"


def _printed(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.6g}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def update(page: Path, made: Callable[[], Mapping[str, str]], *, check: bool = False) -> bool:
    """Fill a page's markers; with `check` only say whether it is as it should be."""
    text = page.read_text(encoding="utf-8")
    new = filled(text, made(), where=page.name)
    if new != text and not check:
        with whole_file(page) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return new == text


def main(arguments: list[str] | None = None) -> None:
    """Fill docs/results.md, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is not up to date")
    options = parser.parse_args(arguments)
    if not update(PAGE, tables, check=options.check) and options.check:
        parser.error(f"{PAGE.name} does not agree with {STORED.name}/*.json: make tables")


if __name__ == "__main__":
    main()
