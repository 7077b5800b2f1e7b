"""cellseg-evaluate: score two folders of labels, or a run.

The scoring lives in `cellseg.evaluation`; how a command fails in `cellseg.cli.shell`.
"""

import json
from pathlib import Path

import click

from cellseg.cli import shell
from pipelines.errors import InputError
from pipelines.files import whole_file

WORST = 3


class _Command(click.Command):
    """Lets one `--measure` take several names, as in `--measure dice seg`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _repeat_measure(args) if "--measure" in args else args)


@click.command("cellseg-evaluate", cls=_Command)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TRUTH PREDICTION | RUN")
@click.option("--measure", "measures", multiple=True, metavar="NAME ...", help="Measures to take instead of the usual.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the scores here too.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Which images of a run to score; test if not given.",
)
def evaluate(paths: tuple[Path, ...], measures: tuple[str, ...], json_file: Path | None, split: str | None) -> None:
    """Score predicted labels against true ones.

    TRUTH and PREDICTION are two folders of label TIFFs or PNGs whose files match by name (`_mask` and `_label` at the
    end do not count), a CTC ground truth (01_GT) and result folder (01_RES), or two files. A file of several pages is
    a stack, each page an image.

    RUN is a folder that cellseg-train wrote: its network is applied to the images of a split and scored.
    """
    if len(paths) == 2:
        if split:
            raise click.UsageError("--split chooses images of a run; with TRUTH and PREDICTION all files are scored.")
        result = _folders(*paths, measures)
    elif len(paths) == 1:
        result = _run(paths[0], measures, split or "test")
    else:
        raise click.UsageError(
            f"Expected TRUTH and PREDICTION, or one RUN, got {len(paths)} paths: {', '.join(map(str, paths))}."
        )
    click.echo(table(result))
    if json_file is not None:
        with whole_file(json_file) as temporary:
            temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")


def table(result: dict) -> str:
    """Scores as lines to read: measure and pooled value, then the worst images by Dice."""
    undefined = result.get("undefined", {})
    width = max(map(len, result["measures"]))
    lines = [f"{result['images']} image{'' if result['images'] == 1 else 's'}", ""]
    for name, value in result["measures"].items():
        note = f"  (undefined in {undefined[name]})" if undefined.get(name) else ""
        lines.append(f"{name:{width}}  {_number(value)}{note}")
    scored = [row for row in result["per_image"] if row.get("dice") is not None]
    if len(scored) > 1:
        worst = sorted(scored, key=lambda row: row["dice"])[:WORST]
        name_width = max(len(row["name"]) for row in worst)
        lines += ["", "Lowest dice", *(f"{row['name']:{name_width}}  {_number(row['dice'])}" for row in worst)]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _folders(truth: Path, prediction: Path, measures: tuple[str, ...]) -> dict:
    from tqdm import tqdm

    from cellseg.evaluation import DEFAULT_MEASURES, evaluate_folders

    def progress(pairs: list) -> tqdm:
        return tqdm(pairs, desc="scoring", unit="file", disable=None, leave=False)

    return evaluate_folders(truth, prediction, measures or DEFAULT_MEASURES, progress=progress)


def _run(path: Path, measures: tuple[str, ...], split: str) -> dict:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. One argument must be a run folder that cellseg-train wrote.")
    missing = [name for name in ("experiment.yaml", "model.keras") if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"{path} is not a run folder: it holds no {' and no '.join(missing)}. "
            "Give a folder that cellseg-train wrote, or two folders: TRUTH PREDICTION."
        )
    shell.quiet_tensorflow()
    from cellseg.evaluation import DEFAULT_MEASURES
    from cellseg.workflow import evaluate_run

    return evaluate_run(path, split, measures=measures or DEFAULT_MEASURES, progress=shell.progress("images"))


def _repeat_measure(args: list[str]) -> list[str]:
    """Write `--measure a b` as `--measure a --measure b`; a word that is no measure ends the list."""
    from cellseg.metrics import METRICS

    out: list[str] = []
    taking = False
    for arg in args:
        follows = bool(out) and out[-1] == "--measure"
        if taking and not follows and arg in METRICS and not Path(arg).exists():
            out.append("--measure")
        elif arg != "--measure" and not follows:
            taking = False
        taking = taking or arg == "--measure"
        out.append(arg)
    return out


main = shell.entry(evaluate)
