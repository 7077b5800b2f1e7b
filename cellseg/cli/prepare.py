"""cellseg-prepare: raw images to shards."""

from pathlib import Path

import click

from cellseg.cli import shell

LAYOUTS = ("pairs", "ctc", "dsb2018")


@click.command(name="cellseg-prepare")
@click.argument("what", metavar="EXPERIMENT.yaml|SOURCE", required=False, type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--layout", type=click.Choice(LAYOUTS), help="How SOURCE is laid out.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the shards.")
@click.option("--images", type=click.Path(path_type=Path), help="Image folder, if it is not SOURCE/images (pairs).")
@click.option("--labels", type=click.Path(path_type=Path), help="Label folder, if it is not SOURCE/labels (pairs).")
@click.option("--truth", type=click.Choice(["gold", "silver", "markers"]), help="Which truth to take (ctc).")
@click.option("--sequence", help="Which sequence to take, for example 01 (ctc).")
@click.option("--format", "shard_format", type=click.Choice(["tfrecord", "npz"]), help="Shard format [tfrecord].")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that read images.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of a split by image [0].")
@click.option("--overwrite", is_flag=True, help="Replace the shards in the output folder.")
def prepare(what, overrides, layout, out, images, labels, truth, sequence, shard_format, workers, seed, overwrite):
    """Turn raw images and their truth into shards for training.

    Either EXPERIMENT.yaml, whose data and split sections say everything (KEY=VALUE overrides them, for example
    data.format=npz), or SOURCE --layout LAYOUT --out DIR. The folder gets the shards, manifest.json, preview.png (look
    at it) and a commented experiment.yaml that cellseg-train runs as it is.
    """
    from cellseg import experiment as experiments
    from cellseg.workflow import ensure_shards
    from pipelines.errors import InputError

    if what is not None and what.suffix in (".yaml", ".yml"):
        given = {"--layout": layout, "--images": images, "--labels": labels, "--truth": truth, "--sequence": sequence}
        extra = [name for name, value in {**given, "--seed": seed}.items() if value is not None]
        if extra:
            raise InputError(f"{', '.join(extra)} cannot be given with {what}: set the keys in it, or as KEY=VALUE.")
        experiment = experiments.read(what, overrides)
        changes = {"format": shard_format} if shard_format else {}
        if out is not None:
            changes["shards"] = str(out.resolve())
        experiment = experiment.model_copy(update={"data": experiment.data.model_copy(update=changes)})
    else:
        experiment = _from_source(what, layout, out, images, labels, truth, sequence, shard_format, seed, overrides)
    if experiment.data.format == "tfrecord":
        shell.quiet_tensorflow()
    from pipelines.shards.manifest import Manifest

    progress = shell.progress("preparing")
    _, folder = ensure_shards(experiment, overwrite=overwrite, anew=True, workers=workers, progress=progress)
    manifest = Manifest.read(folder)
    counts = ", ".join(f"{len(names)} {split}" for split, names in manifest.splits.items())
    click.echo(f"{len(manifest.samples)} images ({counts}) in {len(manifest.shards)} shards.")
    for line in manifest.advice:
        click.echo(f"- {line}")
    # A starter that the user has edited is kept, and an experiment file is its own starter.
    starter = what if what is not None and what.suffix in (".yaml", ".yml") else folder / "experiment.yaml"
    click.echo(f"Look at {folder / 'preview.png'}, then run: cellseg-train {starter}")
    if (folder / "experiment.new.yaml").exists():
        click.echo(f"Your edited experiment.yaml was kept; a fresh one is {folder / 'experiment.new.yaml'}")


def _from_source(source, layout, out, images, labels, truth, sequence, shard_format, seed, overrides):
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
        "truth": truth or "gold",
        "sequence": sequence,
    }
    foreign = {"--images": images, "--labels": labels} if layout != "pairs" else {}
    foreign |= {"--truth": truth, "--sequence": sequence} if layout != "ctc" else {}
    unused = [name for name, value in foreign.items() if value is not None]
    if unused:
        raise InputError(f"{', '.join(unused)} means nothing to the layout '{layout}'. Leave it out.")
    content = {"name": _name(source), "seed": seed or 0, "data": data}
    experiments.apply_overrides(content, overrides)
    return experiments.check(content, where="the command line")


def _name(source: Path) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in source.resolve().name)
    return name.strip("._-") or "experiment"


main = shell.entry(prepare)
