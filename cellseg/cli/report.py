"""cellseg-report: write the report of a run again.

What the report shows is decided in `cellseg.report`.
"""

from pathlib import Path

import click

from cellseg.cli import shell


@click.command(name="cellseg-report")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write RUN/report.html again from the files in the run folder RUN; the last line on stdout is its path."""
    from cellseg.report import write_report

    click.echo(str(write_report(run)))


main = shell.entry(report)
