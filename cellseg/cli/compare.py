"""cellseg-evaluate --compare: runs, and published methods, ranked in one table.

The options are those of `cellseg.cli.evaluate`; the table is made in `cellseg.contenders` and `cellseg.comparison`.
"""

from pathlib import Path

import click

from cellseg.cli import shell
from cellseg.comparison import UNDEFINED, Comparison, Row, direction, shown, sum_of_ranks, write_csv, write_html


def compare(
    paths: tuple[Path, ...], *, published: Path | str | None, csv_file: Path | None, html_file: Path | None, split: str
) -> None:
    """Print the table of these runs, and write it where asked.

    Args:
        paths: Run folders.
        published: Name of a shipped table (`cellseg.published.TABLES`), or a CSV file.
        csv_file, html_file: Where to write the table, too.
        split: Which scores of the runs.
    """
    from cellseg import contenders
    from cellseg.published import read

    reported = read(published) if published is not None else None
    scored = contenders.read_runs(paths, split)
    if reported is not None and any(contenders.needs_network(run, reported) for run in scored):
        shell.quiet_tensorflow()
    comparison = contenders.compare(scored, reported, progress=shell.progress("images"))
    click.echo(table(comparison))
    if csv_file is not None:
        write_csv(comparison, csv_file)
    if html_file is not None:
        write_html(comparison, html_file)


def table(comparison: Comparison) -> str:
    """The comparison as lines to read: warnings, the table, what its marks mean, notes."""
    header = ["place", "method", *(column.name for column in comparison.columns), "rank sum"]
    lines = [header, *(_cells(row, comparison) for row in comparison.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"Warning: {warning}" for warning in comparison.warnings] + [""] * bool(comparison.warnings)
    for line in lines:
        cells = [
            cell.ljust(width) if place == 1 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    mixed = len({row.method.is_run for row in comparison.rows}) > 1
    text += [
        "",
        f"{'> run of cellseg; ' * mixed}* best of its column; (rank in its column). {direction(comparison.columns)}",
    ]
    text += [f"[{number}] {note}" for number, note in enumerate(comparison.notes, start=1)]
    return "\n".join([*text, *comparison.remarks])


def _cells(row: Row, comparison: Comparison) -> list[str]:
    mixed = len({other.method.is_run for other in comparison.rows}) > 1
    name = ("> " if row.method.is_run else "  ") * mixed + row.method.name
    cells = [UNDEFINED if row.place is None else str(row.place), name + "".join(f" [{mark}]" for mark in row.marks)]
    digits = len(str(len(comparison.rows)))
    for column in comparison.columns:
        rank = row.ranks.get(column.name)
        text = shown(row.method.scores.get(column.name), column)
        cells.append(text if rank is None else f"{'*' if rank == 1 else ''}{text} {f'({rank})':>{digits + 2}}")
    return [*cells, sum_of_ranks(row, comparison)]
