"""cellseg-predict: images to label files with a trained run."""

from pathlib import Path

import click

from cellseg.cli import shell


@click.command(name="cellseg-predict")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--probability", is_flag=True, help="Also write STEM_probability.tif (float32).")
@click.option("--overlay", is_flag=True, help="Also write STEM_overlay.png: outlines on the image.")
@click.option("--keep-going", is_flag=True, help="Skip files that fail; they are listed, and the exit status is 2.")
@click.option("--overwrite", is_flag=True, help="Replace results that are already in the folder.")
def predict(run, inputs, out, probability, overlay, keep_going, overwrite):
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
        options=Options(probability=probability, overlay=overlay, keep_going=keep_going, overwrite=overwrite),
        progress=shell.progress("images"),
        say=lambda text: click.echo(f"cellseg-predict: {text}", err=True),
    )
    click.echo(str(out))
    if failed:
        click.echo(f"cellseg-predict: {len(failed)} files failed: {', '.join(map(str, failed))}", err=True)
        return shell.BAD_INPUT
    return shell.OK


main = shell.entry(predict)
