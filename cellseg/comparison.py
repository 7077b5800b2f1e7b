"""Comparison: methods in one table with ranks and their sum, best first, and that table as CSV and as a page.

How ranks are made lives in `cellseg.metrics.ranks`; what a run's row holds in `cellseg.contenders`, a published one in
`cellseg.published`; the printed table in `cellseg.cli.compare`, the page in `templates/comparison.html.j2`.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellseg import __version__, templating
from cellseg.metrics.ranks import competition_ranks
from cellseg.published import Column, Method
from pipelines.files import whole_file

UNDEFINED = "–"


@dataclass(frozen=True)
class Row:
    """A method in its place.

    Args:
        method: Its name and scores.
        ranks: By name of the column; without an entry where it has no score, or the column no ranks.
        rank_sum: Sum of its ranks; None without any.
        place: Rank of its sum among those with a rank in every ranked column; None for the others, or if it would
            be the only one.
        marks: Numbers of its notes in `Comparison.notes`, from 1.
    """

    method: Method
    ranks: Mapping[str, int]
    rank_sum: int | None
    place: int | None
    marks: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """A table of methods, best first.

    Args:
        columns: Its measures.
        ranked: Names of the columns that have ranks.
        rows: Its methods.
        notes: What rows' marks stand for.
        remarks: What a reader must know of the whole.
        warnings: Why scores in it do not compare, if they do not.
    """

    columns: tuple[Column, ...]
    ranked: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]


def ranked(
    columns: Sequence[Column], methods: Sequence[Method], *, remarks: Sequence[str] = (), warnings: Sequence[str] = ()
) -> Comparison:
    """Methods in the order of their rank sums; equal scores share the better rank, a missing one has none.

    Those without a place come last, in the order of their mean ranks.
    """
    ranks: list[dict[str, int]] = [{} for _ in methods]
    used = []
    for column in columns:
        there = [number for number, method in enumerate(methods) if column.name in method.scores]
        if column.higher_is_better is None or len(there) < 2:
            continue
        used.append(column.name)
        scores = [rounded(methods[number].scores[column.name], column) for number in there]
        for number, rank in zip(
            there, competition_ranks(scores, higher_is_better=column.higher_is_better), strict=True
        ):
            ranks[number][column.name] = int(rank)
    complete = [number for number, one in enumerate(ranks) if used and len(one) == len(used)]
    if len(complete) < 2:  # first among one says nothing
        complete = []
    places = competition_ranks([sum(ranks[number].values()) for number in complete], higher_is_better=False)
    place = {number: int(one) for number, one in zip(complete, places, strict=True)}

    def order(number: int) -> tuple[float, float]:
        of = ranks[number].values()
        return place.get(number, np.inf), sum(of) / len(of) if of else np.inf

    ordered = sorted(range(len(methods)), key=order)
    notes = list(dict.fromkeys(note for number in ordered for note in methods[number].notes))
    rows = tuple(
        Row(
            methods[number],
            ranks[number],
            sum(ranks[number].values()) if ranks[number] else None,
            place.get(number),
            tuple(notes.index(note) + 1 for note in methods[number].notes),
        )
        for number in ordered
    )
    return Comparison(tuple(columns), tuple(used), rows, tuple(notes), tuple(remarks), tuple(warnings))


def rounded(score: float, column: Column) -> float:
    """The score as it is compared: with the decimals of the published table."""
    return score if column.decimals is None else round(score, column.decimals)


def shown(score: float | None, column: Column) -> str:
    """The score for readers; a dash where there is none."""
    if score is None:
        return UNDEFINED
    decimals = column.decimals if column.decimals is not None else 4 if abs(score) < 10 else 2
    return f"{score:.{decimals}f}"


def direction(columns: Sequence[Column]) -> str:
    """Which way is better, in a sentence for all columns."""
    lower = [column.name for column in columns if column.higher_is_better is False]
    open_ = [column.name for column in columns if column.higher_is_better is None]
    text = "Higher is better" + (f", but lower for {', '.join(lower)}." if lower else ".")
    return text + (f" Not ranked: {', '.join(open_)}." if open_ else "")


def sum_of_ranks(row: Row, comparison: Comparison) -> str:
    """The rank sum for readers; over how many columns, if not over all."""
    if row.rank_sum is None:
        return UNDEFINED
    missing = len(row.ranks) < len(comparison.ranked)
    return f"{row.rank_sum} over {len(row.ranks)} of {len(comparison.ranked)}" if missing else str(row.rank_sum)


def write_csv(comparison: Comparison, path: Path) -> None:
    """A line a method: its place, scores with all their digits, ranks and their sum; empty where there is none."""
    names = [column.name for column in comparison.columns]
    header = ["place", "method", "kind", *names, *(f"rank_{name}" for name in comparison.ranked)]
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*header, "rank_sum", "ranked_columns", "note"])
        for row in comparison.rows:
            ranks = [row.ranks.get(name) for name in comparison.ranked]
            line: list[Any] = [row.place, row.method.name, "run" if row.method.is_run else "published"]
            line += [row.method.scores.get(name) for name in names]
            out.writerow([*line, *ranks, row.rank_sum, len(row.ranks), "; ".join(row.method.notes)])


def write_html(comparison: Comparison, path: Path) -> None:
    """One page that stands alone; the best of each column is bold."""
    page = (
        templating.environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            shown=shown,
            sum_of_ranks=sum_of_ranks,
            undefined=UNDEFINED,
            version=__version__,
        )
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
