"""cellseg-search: an experiment file and a search space to many short trainings, and the best of them."""

import datetime
from pathlib import Path

import click

from cellseg.cli import shell
from pipelines.errors import InputError


@click.command(name="cellseg-search")
@click.argument("experiment", metavar="[EXPERIMENT.yaml]", required=False, type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--space", type=click.Path(path_type=Path), help="YAML file with the search section [the experiment's].")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the search [runs/NAME-search-DATE].")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trials at a time.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="End after this time; resume goes on.")
@click.option("--resume", metavar="DIR", type=click.Path(path_type=Path), help="Go on with the search in this folder.")
def search(experiment, overrides, space, out, jobs, hours, resume):
    """Try other values of an experiment's keys: drawn broadly first, then near the best; the test images have no part.

    The search section names the keys and what their values are drawn from:

    \b
        search:
          space:
            train.learning_rate: {name: log_uniform, low: 1e-5, high: 1e-2}
            loss.beta: {name: uniform, low: 0.3, high: 0.9}
            model.filters: {name: choice, values: [8, 16, 32]}
          broad: {trials: 16}
          narrow: {trials: 8, around: 3}

    The first trial is the experiment as it stands. Each trial is a run folder, trials.csv lists them, and best.yaml is
    the experiment with the best values. KEY=VALUE overrides a key of the file. The last line on stdout is the folder.
    SIGTERM, as Ctrl-C, ends the trials that run; --resume goes on with them.
    """
    if (experiment is None) == (resume is None):
        raise InputError("Give an EXPERIMENT.yaml to begin a search, or --resume DIR to go on with one.")
    if resume is not None and (space is not None or out is not None or overrides):
        raise InputError(f"--resume goes on with what is stored in {resume}: leave out --space, --out and KEY=VALUE.")
    shell.quiet_tensorflow()
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError("cellseg-search needs optuna: pip install 'cellseg[search]'.") from error
    from cellseg import experiment as experiments
    from cellseg import search as searches
    from cellseg import search_results, study, termination

    if resume is not None:
        if not (resume / study.EXPERIMENT).is_file():
            raise InputError(f"There is no search in {resume}: it holds no {study.EXPERIMENT}. Begin one first.")
        folder, checked = resume, experiments.read(resume / study.EXPERIMENT)
        _, drawn = searches.section_of(checked)
    else:
        checked = experiments.read(experiment, overrides, space=space)
        date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = out or Path("runs") / f"{checked.name}-search-{date}"
        checked, drawn = searches.begin(checked, folder, progress=shell.progress("images"))
    shell.say(f"{checked.name}: tensorboard --logdir {folder / search_results.TENSORBOARD} shows the trials")
    with termination.heeded():
        shared = searches.go_on(checked, folder, jobs=jobs, hours=hours, say=shell.say)
    click.echo(search_results.printed(search_results.table(shared, drawn, checked), drawn, folder))
    missing = search_results.without_narrow(shared, searches.section_of(checked)[0])
    if missing:
        click.echo(missing)
    best = search_results.best_trial(shared)
    if best is not None:
        run = folder / study.TRIALS / study.name_of(best.number)
        click.echo(f"Best: {run}; its test images: cellseg-evaluate {run}")
        click.echo(f"Train with its values: cellseg-train {folder / study.BEST}")
    click.echo(str(folder))


main = shell.entry(search)
