"""cellseg-runs: what runs there are, what two of them have different, how to make one again, and removing them."""

import json
from pathlib import Path

import click

from cellseg.cli import shell
from pipelines.errors import InputError

MEASURES = ("dice", "average_precision", "seg")
SHOWN = 40  # characters of a value


@click.command(name="cellseg-runs")
@click.argument("folders", metavar="[FOLDER|RUN]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--sort", metavar="MEASURE", help="Best first by this measure of the test images [oldest first].")
@click.option("--compare", is_flag=True, help="Show the keys, surroundings and scores in which the runs differ.")
@click.option("--reproduce", is_flag=True, help="Say how to train each run again, and what has changed since.")
@click.option("--remove", is_flag=True, help="Delete these runs, after asking.")
@click.option("--yes", is_flag=True, help="With --remove: do not ask.")
def runs(folders, sort, compare, reproduce, remove, yes):
    """List the runs in or below each FOLDER, runs if none is named, with their state and scores.

    finished: trained and scored. unfinished: interrupted, or training goes on; cellseg-train --resume RUN goes on with
    it. pruned: a trial that its search has stopped. damaged: files that it names are missing or broken. Runs of a
    search have validation scores alone, which are marked (v).
    """
    chosen = [name for name, given in (("compare", compare), ("reproduce", reproduce), ("remove", remove)) if given]
    if len(chosen) > 1:
        raise InputError(f"--{chosen[0]} and --{chosen[1]} do not go together. Pass one of them.")
    if yes and not remove:
        raise InputError("--yes means nothing without --remove. Pass that as well, or leave --yes out.")
    if chosen and not folders:
        raise InputError(f"--{chosen[0]} needs runs: cellseg-runs RUN... --{chosen[0]}.")
    if remove:
        return _remove(folders, yes)
    from cellseg import reproduction, run_list

    found = [run_list.look_at(folder) for folder in run_list.find(folders or (Path("runs"),))]
    if sort is not None:
        found = run_list.sort_by_score(found, sort)
    elif not compare:
        found = sorted(found, key=lambda one: one.date)
    if compare:
        if len(found) < 2:
            raise InputError(f"--compare needs two runs or more; {found[0].folder} is one.")
        click.echo(_compared(found))
    elif reproduce:
        for one in found:
            click.echo(reproduction.recipe(one.folder))
            changed = reproduction.changed(one.folder)
            click.echo("Different today:" if changed else "Nothing of this has changed since.")
            click.echo("".join(f"- {told}\n" for told in changed))
    else:
        click.echo(_listed(found, sort))
    return shell.OK


def _remove(folders, yes):
    from cellseg import run_list

    listed = [run_list.look_at(folder) for folder in folders]
    for one in listed:
        dice = one.score("dice")
        scored = "" if dice is None else f", test Dice {dice:.4f}"
        size = run_list.size_of(one.folder) / 1e6
        click.echo(f"{one.folder}: {one.state}, of {one.date or 'an unknown date'}{scored}, {size:.1f} MB", err=True)
    if not yes:
        click.confirm(
            f"Delete {'this run' if len(listed) == 1 else f'these {len(listed)} runs'}?", abort=True, err=True
        )
    run_list.remove([one.folder for one in listed])
    click.echo(f"{len(listed)} removed")
    return shell.OK


def _listed(found, sort) -> str:
    from cellseg.run_list import SPLITS

    measures = list(dict.fromkeys([*([] if sort is None else [sort]), *MEASURES]))
    lines = [["run", "date", "minutes", "epochs", "state", *measures]]
    for one in found:
        minutes = "-" if one.minutes is None else f"{one.minutes:.1f}"
        line = [str(one.folder), one.date or "-", minutes, str(one.epochs), one.state + _damage(one)]
        split = next((split for split in SPLITS if one.scores.get(split)), "test")
        mark = " (v)" if split == "validation" else ""
        values = [one.score(measure, split) for measure in measures]
        lines.append([*line, *("-" if value is None else f"{value:.4f}{mark}" for value in values)])
    return _table(lines)


def _damage(one) -> str:
    return f" ({', '.join(one.damage)})" if one.damage else ""


def _compared(found) -> str:
    from cellseg import run_list

    names = [str(one.folder) for one in found]
    text = [_table([["", *names], ["state", *(one.state for one in found)], ["date", *(one.date for one in found)]])]
    for title, rows in (
        ("Keys", run_list.different_keys(found)),
        ("Surroundings", run_list.different_surroundings(found)),
    ):
        lines = [[f"  {key}", *map(_shown, values)] for key, values in rows.items()]
        text.append(f"{title} that differ:\n{_table(lines)}" if lines else f"{title}: the same.")
    lines = []
    for name, values in run_list.all_scores(found).items():
        texts = ["-" if value is None else f"{value:.4f}" for value in values]
        first, *others = values
        gains = ["" if first is None or other is None else f" ({other - first:+.4f})" for other in others]
        lines.append([f"  {name}", texts[0], *(cell + gain for cell, gain in zip(texts[1:], gains, strict=True))])
    text.append(f"Scores, and how far above the first run's:\n{_table(lines)}" if lines else "Scores: none.")
    shards = run_list.different_surroundings(found).get("shards (SHA-256)")
    if lines and shards:
        text.append("The runs have other shards: their scores may be of other images.")
    return "\n\n".join(text)


def _shown(value: object) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _table(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


main = shell.entry(runs)
