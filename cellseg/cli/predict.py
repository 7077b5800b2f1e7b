"""cellseg-predict: images to label files with a trained run."""

import re
from pathlib import Path

import click

from cellseg.cli import shell

DTYPES = ("float32", "float16", "uint8")
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class Bytes(click.ParamType):
    """An amount of memory: 500MB, 2GB, 1.5 GiB, or plain bytes."""

    name = "memory"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes, or click's error with what is understood."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*?)b?\s*", value.lower())
        unit = found and next((unit for unit in UNITS if unit.lower().removesuffix("b") == found[2]), None)
        if not found or unit is None or float(found[1]) == 0:
            self.fail(f"'{value}' is no amount of memory. Write for example 500MB, 2GB, 2GiB, or a number of bytes.")
        return int(float(found[1]) * UNITS[unit])


class Command(click.Command):
    """`--probability` alone means float32, also before an INPUT: the next word is its value only if it is a dtype."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Click's, with the dtype put where it was left out."""
        following = [*args[1:], ""]
        alone = [word == "--probability" and after not in DTYPES for word, after in zip(args, following, strict=True)]
        args = [f"{word}={DTYPES[0]}" if bare else word for word, bare in zip(args, alone, strict=True)]
        return super().parse_args(ctx, args)


@click.command(name="cellseg-predict", cls=Command)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option(
    "--with",
    "others",
    metavar="RUN",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Average the probabilities with those of another run; may be repeated.",
)
@click.option(
    "--probability",
    type=click.Choice(DTYPES),
    metavar=f"[{'|'.join(DTYPES)}]",
    help="Also write STEM_probability.tif: float32 if no type is named; uint8 holds round(255 p).",
)
@click.option("--overlay", is_flag=True, help="Also write STEM_overlay.png: outlines on the image.")
@click.option("--roi", is_flag=True, help="Also write STEM_rois.zip: outlines for ImageJ's ROI manager.")
@click.option("--geojson", is_flag=True, help="Also write STEM.geojson: outlines for QuPath; one a page of a stack.")
@click.option(
    "--format",
    type=click.Choice(["tiff", "zarr"]),
    default="tiff",
    show_default=True,
    help="Labels, probability and classes as TIFF, or as OME-Zarr folders STEM.zarr.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    type=Bytes(),
    help="Memory for images and results, for example 500MB or 2GiB; images that need more are streamed in pieces, "
    "without --overlay, --roi and --geojson.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster do it, tcp://host:8786; they need the same file system.",
)
@click.option("--keep-going", is_flag=True, help="Skip files that fail; they are listed, and the exit status is 2.")
@click.option("--overwrite", is_flag=True, help="Replace results that are already in the folder.")
@click.option("--resume", is_flag=True, help="Go on after an interruption: predict only images without labels.")
def predict(run, inputs, out, others, memory, scheduler, **options):
    """Find the cells in images with a trained RUN.

    INPUT is an image, a stack, an OME-Zarr or a folder of them, of any size. Each gives a label file STEM.tif
    (0 = background, 1..n = one cell each) that opens in ImageJ; a stack gives one multi-page file; tNNN.tif gives
    maskNNN.tif. A run that was trained on classes also writes STEM_classes.tif: the class of the cell that each pixel
    lies in.
    """
    shell.quiet_tensorflow()
    from cellseg.prediction import Options, predict_files

    failed = predict_files(
        [run, *others],
        inputs,
        out,
        options=Options(**options),
        memory=memory,
        scheduler=scheduler,
        progress=shell.progress("images"),
        say=lambda text: click.echo(f"cellseg-predict: {text}", err=True),
    )
    click.echo(str(out))
    if failed:
        click.echo(f"cellseg-predict: {len(failed)} files failed: {', '.join(map(str, failed))}", err=True)
        return shell.BAD_INPUT
    return shell.OK


main = shell.entry(predict)
