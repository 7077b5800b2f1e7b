"""cellseg-evaluate: score two folders of labels, or a run; or compare runs.

The scoring lives in `cellseg.evaluation`, what it writes besides in `cellseg.score_files`, comparing in
`cellseg.cli.compare`; how a command fails in `cellseg.cli.shell`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import click

from cellseg.cli import shell
from pipelines.errors import InputError
from pipelines.files import whole_file

WORST = 3
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class _Command(click.Command):
    """Lets one `--measure` take several names, as in `--measure dice seg`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _repeat_measure(args) if "--measure" in args else args)


@click.command("cellseg-evaluate", cls=_Command)
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="TRUTH PREDICTION | RUN | --compare RUN RUN ...",
)
@click.option("--measure", "measures", multiple=True, metavar="NAME ...", help="Measures to take instead of the usual.")
@click.option("--json", "json_file", type=FILE, help="Write the scores here too.")
@click.option("--csv", "csv_file", type=FILE, help="Write a table here: a row an image, then pooled and intervals.")
@click.option("--overlay", type=FOLDER, help="Draw each image's mistakes here, NAME_errors.png, one colour a kind.")
@click.option("--images", type=FOLDER, help="With --overlay: the images to draw on; else on the true cells in grey.")
@click.option("--operations", type=FILE, help="With tra and its kin: list each correction that AOGM counts, as CSV.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Which images of a run to score; test if not given.",
)
@click.option(
    "--tune",
    metavar="MEASURE",
    help="Choose a run's threshold anew, for this measure on the validation images; then score and store.",
)
@click.option("--compare", is_flag=True, help="Rank several runs in one table.")
@click.option("--published", metavar="TABLE", help="With --compare: a CSV of published results to stand among.")
@click.option("--html", "html_file", type=FILE, help="With --compare: write the table here as a page.")
def evaluate(
    paths: tuple[Path, ...],
    measures: tuple[str, ...],
    json_file: Path | None,
    csv_file: Path | None,
    overlay: Path | None,
    images: Path | None,
    operations: Path | None,
    split: str | None,
    tune: str | None,
    compare: bool,
    published: str | None,
    html_file: Path | None,
) -> None:
    """Score predicted labels against true ones.

    TRUTH and PREDICTION are two folders of label TIFFs or PNGs whose files match by name (`_mask` and `_label` at the
    end do not count), a CTC ground truth (01_GT) and result folder (01_RES), or two files. A file of several pages is
    a stack, each page an image; under CTC names it is a volume. An image of 0 and 255 alone is a mask, whose connected
    pieces are its cells. Predictions may be float TIFFs, a probability in [0, 1], if all measures named take them.

    RUN is a folder that cellseg-train wrote: its network is applied to the images of a split and scored. With the
    usual measures the scores of that split in RUN/scores.json and the report are written again; with --measure nothing
    in RUN changes. --tune MEASURE chooses its threshold first, and the instance options that the tuning section of its
    experiment names; threshold.json, the scores of both splits and the report are written again.

    Printed are the scores of all images together with the interval that 95 % of resampled sets of images reach, how
    many cells were found, missed, split and merged and how many are spurious, and the worst images.
    """
    if compare:
        given = {
            "--measure": measures,
            "--json": json_file,
            "--overlay": overlay,
            "--images": images,
            "--operations": operations,
            "--tune": tune,
        }
        _refuse(given, "goes with TRUTH PREDICTION or one RUN, not with --compare.")
        from cellseg.cli.compare import compare as compare_runs

        compare_runs(paths, published=published, csv_file=csv_file, html_file=html_file, split=split or "test")
        return
    _refuse({"--published": published, "--html": html_file}, "goes with --compare RUN RUN ...")
    if images is not None and overlay is None:
        raise click.UsageError("--images are drawn on by --overlay DIR, which is missing.")
    if len(paths) == 2:
        if split:
            raise click.UsageError("--split chooses images of a run; with TRUTH and PREDICTION all files are scored.")
        _refuse({"--tune": tune}, "chooses the threshold of a RUN, not with TRUTH PREDICTION.")
        result = _folders(*paths, measures, overlay, images, operations)
    elif len(paths) == 1:
        _refuse({"--images": images, "--operations": operations}, "goes with TRUTH PREDICTION, not with a run.")
        if tune:
            given = {"--measure": measures, "--split": split, "--overlay": overlay}
            _refuse(given, "does not go with --tune, which scores both splits with the usual measures; run it after.")
        result = _run(paths[0], measures, split or "test", overlay, tune)
    else:
        raise click.UsageError(
            f"Expected TRUTH and PREDICTION, or one RUN, got {len(paths)} paths: {', '.join(map(str, paths))}."
        )
    click.echo(table(result))
    if json_file is not None:
        with whole_file(json_file) as temporary:
            temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    if csv_file is not None:
        from cellseg.score_files import scores_table, write_table

        write_table(csv_file, scores_table(result))


def table(result: Mapping) -> str:
    """Scores as lines to read: each measure with its interval and baselines, the kinds of cells, the worst images."""
    from cellseg.evaluation import BASELINES
    from cellseg.metrics import IMAGE_METRICS, METRICS

    intervals = {name: both for name, both in result.get("intervals", {}).items() if both}
    titles = {key: title for key, title in BASELINES.items() if key in result}
    undefined = result.get("undefined", {})
    head = ["", "score", *(["95 % interval"] if intervals else []), *titles.values()]
    rows = [head] if len(head) > 2 else []
    for name, value in result["measures"].items():
        row = [name, _number(value)]
        if intervals:
            row.append(" to ".join(map(_number, intervals[name])) if name in intervals else "")
        rows.append([*row, *(_number(result[key].get(name)) for key in titles)])
    notes = {name: _note(METRICS[name].higher_is_better, undefined.get(name, 0)) for name in result["measures"]}
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    what = "image" if result["per_image"] else "tracked frame"
    lines = [f"{result['images']} {what}{'' if result['images'] == 1 else 's'}", ""]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([*cells, notes.get(row[0], "")]).rstrip())
    if result.get("mistakes"):
        counts = dict(result["mistakes"])
        spurious = counts.pop("spurious")
        kinds = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        lines += ["", f"{sum(counts.values())} true cells: {kinds}; and {spurious} spurious"]
    if "operations" in result:
        lines += ["", "AOGM operations: " + ", ".join(f"{kind} {n}" for kind, n in result["operations"].items())]
    single = [name for name in result["measures"] if name in IMAGE_METRICS]
    measure = "dice" if "dice" in single or not single else single[0]
    scored = [row for row in result["per_image"] if row.get(measure) is not None]
    if len(scored) > 1:
        higher = IMAGE_METRICS[measure].higher_is_better
        worst = sorted(scored, key=lambda row: row[measure], reverse=not higher)[:WORST]
        name_width = max(len(row["name"]) for row in worst)
        lines += ["", f"{'Lowest' if higher else 'Highest'} {measure}"]
        lines += [f"{row['name']:{name_width}}  {_number(row[measure])}" for row in worst]
    return "\n".join(lines)


def _note(higher_is_better: bool, undefined: int) -> str:
    notes = ["lower is better"] * (not higher_is_better) + [f"undefined in {undefined}"] * (undefined > 0)
    return f"({'; '.join(notes)})" if notes else ""


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _refuse(given: Mapping[str, object], why: str) -> None:
    for option, value in given.items():
        if value:
            raise click.UsageError(f"{option} {why}")


def _folders(
    truth: Path,
    prediction: Path,
    measures: tuple[str, ...],
    overlay: Path | None,
    images: Path | None,
    operations: Path | None,
) -> dict:
    from tqdm import tqdm

    from cellseg.evaluation import DEFAULT_MEASURES, evaluate_folders
    from cellseg.metrics import IMAGE_METRICS, METRICS
    from cellseg.metrics.aogm import Aogm

    chosen = measures or DEFAULT_MEASURES
    if operations is not None and not any(name in METRICS and name not in IMAGE_METRICS for name in chosen):
        raise click.UsageError("--operations lists what a measure of sequences counts; add for example --measure tra.")
    if overlay is not None and all(name in METRICS and name not in IMAGE_METRICS for name in chosen):
        raise click.UsageError("--overlay draws single images; add a measure of them, for example --measure dice.")
    watch = None
    if overlay is not None:
        from cellseg.pairing import pair_files
        from cellseg.score_files import MistakePictures

        pictures = MistakePictures(overlay, images)
        pictures.check(pair_files(truth, prediction))
        watch = pictures.watch
    corrected: list[Aogm] = []

    def progress(items: list) -> tqdm:
        return tqdm(items, desc="scoring", disable=None, leave=False)

    result = evaluate_folders(
        truth,
        prediction,
        chosen,
        progress=progress,
        watch=watch,
        watch_operations=corrected.append,
    )
    if operations is not None:
        if not corrected:
            raise InputError(
                f"{operations} was not written: without man_track.txt and res_track.txt there are no links."
            )
        from cellseg.score_files import operations_table, write_table

        write_table(operations, operations_table(corrected[0].operations))
    return result


def _run(path: Path, measures: tuple[str, ...], split: str, overlay: Path | None, tune: str | None) -> dict:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. One argument must be a run folder that cellseg-train wrote.")
    missing = [name for name in ("experiment.yaml", "model.keras") if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"{path} is not a run folder: it holds no {' and no '.join(missing)}. "
            "Give a folder that cellseg-train wrote, or two folders: TRUTH PREDICTION."
        )
    shell.quiet_tensorflow()
    if tune:
        from cellseg.workflow import tune_again

        return tune_again(path, tune, progress=shell.progress("images"), say=shell.say)
    from cellseg.scoring import score_run

    draw = None
    if overlay is not None:
        from cellseg.score_files import MistakePictures

        draw = MistakePictures(overlay).draw
    return score_run(path, split, measures=measures or None, progress=shell.progress("images"), watch=draw)


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
