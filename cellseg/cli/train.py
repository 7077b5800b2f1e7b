"""cellseg-train: an experiment file to a trained, scored run."""

import datetime
from pathlib import Path

import click

from cellseg.cli import shell


@click.command(name="cellseg-train")
@click.argument("experiment", metavar="EXPERIMENT.yaml", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/NAME-DATE].")
@click.option("--overwrite", is_flag=True, help="Replace the run folder, and shards of another configuration.")
def train(experiment, overrides, out, overwrite):
    """Prepare the data if needed, train, tune the threshold, score the held-out images and write the report.

    KEY=VALUE overrides a key of the file, with dots between the levels: train.epochs=1. The last line on stdout is the
    run folder.
    """
    from cellseg import experiment as experiments

    checked = experiments.read(experiment, overrides)
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    run = out or Path("runs") / f"{checked.name}-{date}"
    shell.quiet_tensorflow()
    from cellseg import workflow

    workflow.train(
        checked,
        run,
        overwrite=overwrite,
        progress=shell.progress("images"),
        say=lambda text: shell.say(f"{checked.name}: {text}"),
    )
    _print_scores(run)
    click.echo(f"Report: {run / 'report.html'}")
    click.echo(str(run))


def _print_scores(run: Path) -> None:
    from cellseg import runs

    scores = runs.read_json(run, runs.SCORES)
    for message in runs.read_json(run, runs.WARNINGS):
        click.echo(f"WARNING: {message}")
    click.echo(f"{'measure':24}{'test':>10}{'validation':>12}{'all background':>16}")
    for name, value in scores["test"]["measures"].items():
        cells = (value, scores["validation"]["measures"][name], scores["baseline"].get(name))
        texts = ["-" if cell is None else f"{cell:.4f}" for cell in cells]
        click.echo(f"{name:24}{texts[0]:>10}{texts[1]:>12}{texts[2]:>16}")
    threshold = runs.read_json(run, runs.THRESHOLD)
    options = "".join(f", {option} {value}" for option, value in threshold.get("instances", {}).items())
    how = f"chosen for {threshold['measure']} on {threshold['split']} images"
    click.echo(f"threshold {threshold['threshold']:g}{options}, {how}")


main = shell.entry(train)
