"""cellseg-train --folds: one experiment trained in every fold.

The option is that of `cellseg.cli.train`; the work is done in `cellseg.folds`.
"""

from pathlib import Path

import click

from cellseg.cli import shell


def train_folds(experiment, out: Path, num: int, *, overwrite: bool) -> None:
    """Train the folds that are not there yet and print their table."""
    from cellseg import folds

    result = folds.train_folds(
        experiment,
        out,
        num,
        overwrite=overwrite,
        progress=shell.progress("images"),
        say=lambda text: shell.say(f"{experiment.name}: {text}"),
    )
    click.echo(printed(result))
    click.echo(f"All digits: {out / folds.TABLE}; all folds together: cellseg-predict {out} INPUT... --out DIR")
    click.echo(str(out))


def printed(result: dict) -> str:
    """The table for readers, and what its columns are."""
    import pandas as pd

    from cellseg import folds

    frame = folds.table(result)
    columns = [name for name in frame.columns if name not in result["runs"]]
    lines = [f"{'measure':24}" + "".join(f"{name.replace('_', ' '):>16}" for name in columns)]
    for measure, row in frame[columns].iterrows():
        cells = ["-" if pd.isna(value) else f"{value:.4f}" for value in row]
        lines.append(f"{measure!s:24}" + "".join(f"{cell:>16}" for cell in cells))
    images = result["out_of_fold"]["images"]
    lines += ["", f"mean, sd, all background: of the test scores of {len(result['runs'])} folds"]
    told = f"out of fold: {images} {result['split']} images, each predicted by a fold that has not trained on it"
    flatter = "; the fold's threshold and best epoch were chosen on them" if result["split"] == "validation" else ""
    lines.append(told + flatter)
    if result["ensemble"] is None:
        common = result["split"] == "validation"
        why = "cells found one by one have no mean" if common else "some fold has trained on each of the images"
        lines.append(f"ensemble: without a score here, since {why}")
    else:
        lines.append(f"ensemble: all folds together, on the {result['ensemble']['images']} test images of all of them")
    return "\n".join(lines)
