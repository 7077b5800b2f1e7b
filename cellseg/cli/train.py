"""cellseg-train: an experiment file to a trained, scored run."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path

import click

from cellseg.cli import shell
from pipelines.errors import InputError, InterruptionError


@click.command(name="cellseg-train")
@click.argument("experiment", metavar="[EXPERIMENT.yaml]", required=False)
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/NAME-DATE].")
@click.option("--overwrite", is_flag=True, help="Replace the run folder, and shards of another configuration.")
@click.option("--dashboard", is_flag=True, help="Serve TensorBoard while it runs; its address is on stderr.")
@click.option("--dashboard-port", type=click.IntRange(1, 65535), help="Serve it at this port [any free one].")
@click.option("--folds", metavar="N", type=click.IntRange(min=2), help="Train N folds; the folder has a run for each.")
@click.option("--resume", metavar="RUN", type=click.Path(path_type=Path), help="Go on with an interrupted run.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="End cleanly after so many hours of training.")
def train(experiment, overrides, out, overwrite, dashboard, dashboard_port, folds, resume, hours):
    """Prepare the data if needed, train, tune the threshold, score the held-out images and write the report.

    EXPERIMENT.yaml may be one that comes with cellseg: demo.yaml trains on images that come with it, too.

    KEY=VALUE overrides a key of the file, with dots between the levels: train.epochs=1. The last line on stdout is the
    run folder. With --resume RUN, the file may be left out. SIGTERM ends a training with a checkpoint and status 143.
    """
    from cellseg import experiment as experiments
    from cellseg import termination

    if folds is not None and (resume or hours):
        raise click.UsageError("--folds goes with neither --resume nor --hours; set train.max_hours for each fold.")
    if resume is not None:
        if out is not None or overwrite:
            raise click.UsageError("--resume goes on in the run's own folder: leave --out and --overwrite away.")
        if experiment is not None and "=" in experiment and not Path(experiment).exists():
            experiment, overrides = None, (experiment, *overrides)
    elif experiment is None:
        raise click.UsageError("Missing argument 'EXPERIMENT.yaml', or --resume RUN.")
    checked = None if experiment is None else experiments.read(experiment, overrides)
    date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = resume.name if checked is None else checked.name
    run = resume or out or Path("runs") / f"{name}-{date}"
    logs = run / "tensorboard" if folds is None else run  # HParams then compares the folds
    with (
        termination.heeded(),
        _served(logs, dashboard_port or 0) if dashboard or dashboard_port else contextlib.nullcontext(),
        _what_now(run),
    ):
        shell.quiet_tensorflow()
        if folds is not None:
            from cellseg.cli.folds import train_folds

            return train_folds(checked, run, folds, overwrite=overwrite)
        from cellseg import workflow

        shown = {"progress": shell.progress("images"), "say": lambda text: shell.say(f"{name}: {text}")}
        if resume is None and checked is not None:
            done = workflow.train(checked, run, overwrite=overwrite, hours=hours, **shown)
        else:
            done = workflow.resume(run, checked, overrides if checked is None else (), hours=hours, **shown)
    if done is None:
        return click.echo("The training is over; the chief of the workers has the run.")
    _print_scores(run)
    click.echo(f"Report: {run / 'report.html'}")
    click.echo(str(run))


@contextlib.contextmanager
def _what_now(run: Path) -> Iterator[None]:
    """Where a training ends early and can go on, say how; not where it was refused before it went on."""
    places = [run, run.with_name(f"{run.name}.interrupted")]
    before = [_written(place) for place in places]
    try:
        yield
    except BaseException as error:
        refused = isinstance(error, InputError | OSError) and not isinstance(error, InterruptionError)
        for place, then in zip(places, before, strict=True):
            now = _written(place)
            if now and not (refused and now == then):
                click.echo(f"To go on with what is there: cellseg-train --resume {place}", err=True)
                break
        raise


def _written(run: Path) -> int:
    """When the checkpoint was written; 0 without one."""
    path = run / "backup" / "checkpoint.npz"
    return path.stat().st_mtime_ns if path.is_file() else 0


@contextlib.contextmanager
def _served(logs: Path, port: int) -> Iterator[None]:
    """TensorBoard for a folder of logs; its address is said even where stderr is no terminal."""
    from cellseg.tensorboard_server import serving

    with serving(logs, port=port) as address:
        click.echo(f"Dashboard: {address}", err=True)
        yield


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
