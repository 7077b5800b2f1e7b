"""cellseg-predict: images to label files with a trained run."""

from pathlib import Path

import click

from cellseg.cli import shell

DTYPES = ("float32", "float16", "uint8")


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
    "--probability",
    type=click.Choice(DTYPES),
    metavar=f"[{'|'.join(DTYPES)}]",
    help="Also write STEM_probability.tif: float32 if no type is named; uint8 holds round(255 p).",
)
@click.option("--overlay", is_flag=True, help="Also write STEM_overlay.png: outlines on the image.")
@click.option("--roi", is_flag=True, help="Also write STEM_rois.zip: outlines for ImageJ's ROI manager.")
@click.option("--geojson", is_flag=True, help="Also write STEM.geojson: outlines for QuPath; one a page of a stack.")
@click.option("--keep-going", is_flag=True, help="Skip files that fail; they are listed, and the exit status is 2.")
@click.option("--overwrite", is_flag=True, help="Replace results that are already in the folder.")
@click.option("--resume", is_flag=True, help="Go on after an interruption: predict only images without labels.")
def predict(run, inputs, out, **options):
    """Find the cells in images with a trained RUN.

    INPUT is an image, a stack or a folder of them, of any size. Each gives a label file STEM.tif (0 = background,
    1..n = one cell each) that opens in ImageJ; a stack gives one multi-page file; tNNN.tif gives maskNNN.tif. A
    run that was trained on classes also writes STEM_classes.tif: the class of the cell that each pixel lies in.
    """
    shell.quiet_tensorflow()
    from cellseg.prediction import Options, predict_files

    failed = predict_files(
        run,
        inputs,
        out,
        options=Options(**options),
        progress=shell.progress("images"),
        say=lambda text: click.echo(f"cellseg-predict: {text}", err=True),
    )
    click.echo(str(out))
    if failed:
        click.echo(f"cellseg-predict: {len(failed)} files failed: {', '.join(map(str, failed))}", err=True)
        return shell.BAD_INPUT
    return shell.OK


main = shell.entry(predict)
