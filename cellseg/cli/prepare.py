"""cellseg-prepare: raw images to shards."""

import shlex
from pathlib import Path

import click

from cellseg.cli import shell

LAYOUTS = ("pairs", "ctc", "dsb2018", "isbi", "epfl", "glas", "consep")


@click.command(name="cellseg-prepare")
@click.argument("what", metavar="EXPERIMENT.yaml|SOURCE", required=False, type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--layout", type=click.Choice(LAYOUTS), help="How SOURCE is laid out.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the shards.")
@click.option("--images", type=click.Path(path_type=Path), help="Image folder, if it is not SOURCE/images (pairs).")
@click.option("--labels", type=click.Path(path_type=Path), help="Label folder, if it is not SOURCE/labels (pairs).")
@click.option("--truth", type=click.Choice(["gold", "silver", "markers", "auto"]), help="Which truth to take (ctc).")
@click.option("--sequence", help="Which sequence to take, for example 01 (ctc).")
@click.option("--kind", type=click.Choice(["all", "fluorescence", "stained"]), help="Which images to take (dsb2018).")
@click.option("--format", "shard_format", type=click.Choice(["tfrecord", "npz"]), help="Shard format [tfrecord].")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that read images.")
@click.option("--scheduler", metavar="ADDRESS", help="Let a Dask cluster read images instead; it needs the same files.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of a split by image [0].")
@click.option("--show", type=click.IntRange(min=1), help="Draw N augmented samples, to augmented.png.")
@click.option("--overwrite", is_flag=True, help="Replace the shards in the output folder.")
def prepare(
    what,
    overrides,
    layout,
    out,
    images,
    labels,
    truth,
    sequence,
    kind,
    shard_format,
    workers,
    scheduler,
    seed,
    show,
    overwrite,
):
    """Turn raw images and their truth into shards for training.

    Either EXPERIMENT.yaml, whose data and split sections say everything (KEY=VALUE overrides them, for example
    data.format=npz), or SOURCE --layout LAYOUT --out DIR (KEY=VALUE sets keys of data and split). The folder gets the
    shards, manifest.json, preview.png (look at it) and a commented experiment.yaml that cellseg-train runs as it is.
    An interrupted preparation goes on where it was when it is started again.
    """
    from cellseg import experiment as experiments
    from cellseg.preparation import ensure_shards
    from pipelines.errors import InputError

    if _is_experiment(what):
        given = {"--layout": layout, "--images": images, "--labels": labels, "--truth": truth, "--sequence": sequence}
        given["--kind"] = kind
        extra = [name for name, value in {**given, "--seed": seed}.items() if value is not None]
        if extra:
            raise InputError(f"{', '.join(extra)} cannot be given with {what}: set the keys in it, or as KEY=VALUE.")
        experiment = experiments.read(what, overrides)
        changes = {"format": shard_format} if shard_format else {}
        if out is not None:
            changes["shards"] = str(out.resolve())
        experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update=changes)})
    else:
        chosen = {"truth": truth, "sequence": sequence, "kind": kind}
        experiment = _from_source(what, layout, out, images, labels, chosen, shard_format, seed, overrides)
    if experiment.data.format == "tfrecord":
        shell.quiet_tensorflow()
    progress = shell.progress("preparing")
    # What is only shown again need not be made again.
    anew = show is None or overwrite
    settled, folder, summary = ensure_shards(
        experiment, overwrite=overwrite, anew=anew, workers=workers, scheduler=scheduler, progress=progress
    )
    counts = ", ".join(f"{number} {split}" for split, number in summary.splits.items())
    click.echo(f"{sum(summary.splits.values())} images ({counts}) in {summary.shards} shards.")
    for line in summary.advice:
        click.echo(f"- {line}")
    if show is not None:
        _show(settled if _is_experiment(what) else experiments.read(folder / "experiment.yaml"), folder, show)
    # A starter that the user has edited is kept, and an experiment file is its own starter.
    starter = [str(folder / "experiment.yaml")]
    if _is_experiment(what):
        moved = [f"data.shards={folder}"] if out is not None else []
        moved += [f"data.format={shard_format}"] if shard_format else []
        starter = [str(what), *overrides, *moved]
    click.echo(f"Look at {folder / 'preview.png'}, then run: cellseg-train {shlex.join(starter)}")
    if (folder / "experiment.new.yaml").exists():
        click.echo(f"Your edited experiment.yaml was kept; a fresh one is {folder / 'experiment.new.yaml'}")


def _is_experiment(what):
    return what is not None and what.suffix in (".yaml", ".yml")


def _show(experiment, folder, number):
    from cellseg.named import weight_map_function
    from pipelines.augment import folding_warnings
    from pipelines.dataset import Batches, ShardReader
    from pipelines.patch_sheet import patch_sheet

    patch = experiment.train.patch
    batches = Batches(
        ShardReader(folder, verify=False),
        patch=patch,
        batch_size=1,
        target=experiment.target,
        augment=experiment.augmentation(),
        oversample=experiment.train.oversample,
        weight_map=weight_map_function(experiment.weight_map),
        seed=experiment.seed,
    )
    patch_sheet([batches.example(place) for place in range(number)], folder / "augmented.png")
    for message in folding_warnings(experiment.augment, (patch, patch)):
        click.echo(f"WARNING: {message}")
    click.echo(f"{number} augmented samples with their labels, targets and weight maps: {folder / 'augmented.png'}")


def _from_source(source, layout, out, images, labels, chosen, shard_format, seed, overrides):
    from cellseg import experiment as experiments
    from pipelines.errors import InputError

    if source is None and images is not None and labels is not None:
        source, layout = Path(images).resolve().parent, layout or "pairs"
    if source is None:
        raise InputError("Give an EXPERIMENT.yaml, or SOURCE --layout LAYOUT --out DIR. See cellseg-prepare --help.")
    if layout is None:
        raise InputError(f"--layout is missing: how is {source} laid out? Known: {', '.join(LAYOUTS)}.")
    if out is None:
        raise InputError("--out is missing: which folder should the shards be written to?")
    if not source.exists():
        raise FileNotFoundError(f"There is no folder {source}.")
    data = {
        "source": str(source.resolve()),
        "layout": layout,
        "shards": str(out.resolve()),
        "format": shard_format or "tfrecord",
        "images": images and str(images.resolve()),
        "labels": labels and str(labels.resolve()),
        "truth": chosen["truth"] or "gold",
        "sequence": chosen["sequence"],
        "kind": chosen["kind"] or "all",
    }
    foreign = {"--images": images, "--labels": labels} if layout != "pairs" else {}
    foreign |= {"--truth": chosen["truth"], "--sequence": chosen["sequence"]} if layout != "ctc" else {}
    foreign |= {"--kind": chosen["kind"]} if layout != "dsb2018" else {}
    unused = [name for name, value in foreign.items() if value is not None]
    if unused:
        raise InputError(f"{', '.join(unused)} means nothing to the layout '{layout}'. Leave it out.")
    content = {"name": _name(source), "seed": seed or 0, "data": data}
    experiments.apply_overrides(content, overrides)
    experiment = experiments.check(content, where="the command line")
    _check_overrides(overrides, experiment.data.expand is not None)
    return experiment


def _check_overrides(overrides, expands):
    """With SOURCE there is no experiment yet: what says nothing about the shards would be lost."""
    from pipelines.errors import InputError

    kept = ("data", "split", "name", "seed") + (("augment",) if expands else ())
    lost = [text for text in overrides if text.partition("=")[0].split(".")[0] not in kept]
    if lost:
        raise InputError(
            f"{', '.join(lost)}: with SOURCE, KEY=VALUE sets keys of data and split (and augment with data.expand). "
            "Prepare first, then edit the experiment.yaml in the folder, or give KEY=VALUE to cellseg-train."
        )


def _name(source: Path) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in source.resolve().name)
    return name.strip("._-") or "experiment"


main = shell.entry(prepare)
