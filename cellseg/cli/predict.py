"""cellseg-predict: images to label files with a trained run."""

import re
from pathlib import Path

import click

from cellseg.cli import shell
from pipelines.errors import InputError
from pipelines.files import readable

DTYPES = ("float32", "float16", "uint8")
METHODS = ("auto", "join", "link")
CHOICES = {"--probability": DTYPES, "--volume": METHODS}
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
        """Click's, with the value put where it was left out."""
        pairs = zip(args, [*args[1:], ""], strict=True)
        known = [(word, CHOICES.get(word, ()), after) for word, after in pairs]
        args = [f"{word}={values[0]}" if values and after not in values else word for word, values, after in known]
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
    "--diameter",
    metavar="PX",
    type=float,
    help="Width of your cells in pixels: images are zoomed so that they look as large as those of the training.",
)
@click.option("--zoom", metavar="FACTOR", type=float, help="Zoom images by this factor; labels keep the file's pixels.")
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
    "without --overlay, --roi, --geojson and --measure.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster do it, tcp://host:8786; they need the same file system.",
)
@click.option("--track", is_flag=True, help="The images are one sequence: follow the cells through it.")
@click.option(
    "--measure",
    is_flag=True,
    help="Also write cells.csv; with --track also tracks.csv, msd.csv, a movie, pictures and report.html.",
)
@click.option(
    "--volume",
    type=click.Choice(METHODS),
    metavar=f"[{'|'.join(METHODS)}]",
    help="The images are the sections of one volume: make 3-D objects, meshes, objects.csv and report.html. join: what "
    "touches is one object; link: touching cells stay apart; auto, if nothing is named: link if the run cuts touching "
    "cells apart.",
)
@click.option("--spacing-um", nargs=2, type=float, metavar="Y X", help="Size of a pixel, if the files do not know it.")
@click.option("--interval-s", type=float, metavar="S", help="Seconds between two frames, for --track.")
@click.option("--section-um", type=float, metavar="Z", help="Distance of two sections, for --volume.")
@click.option(
    "--min-voxels",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="Leave out smaller objects of a --volume.",
)
@click.option(
    "--mesh",
    "meshes",
    type=click.Choice(["glb", "ply", "obj"]),
    multiple=True,
    default=["glb"],
    show_default=True,
    help="Format of the meshes of a --volume; may be repeated.",
)
@click.option("--no-report", is_flag=True, help="With --track or --volume: no movie, no pictures, no report.html.")
@click.option("--keep-going", is_flag=True, help="Skip files that fail; they are listed, and the exit status is 2.")
@click.option("--overwrite", is_flag=True, help="Replace results that are already in the folder.")
@click.option("--resume", is_flag=True, help="Go on after an interruption: predict only images without labels.")
@click.pass_context
def predict(ctx, run, inputs, out, others, memory, scheduler, track, volume, no_report, **given):
    """Find the cells in images with a trained RUN, or one that comes with cellseg (nuclei).

    INPUT is an image, a stack, an OME-Zarr or a folder of them, of any size. Each gives a label file STEM.tif
    (0 = background, 1..n = one cell each) that opens in ImageJ; a stack gives one multi-page file; tNNN.tif gives
    maskNNN.tif. A run that was trained on classes also writes STEM_classes.tif: the class of the cell that each pixel
    lies in. One that finds cells one by one writes STEM_scores.csv.

    With --track INPUT is one sequence, a folder of numbered images or a stack, and the results are maskNNN.tif, whose
    ids are tracks, and res_track.txt; cellseg-track has more options for labels that are there already. With --volume
    it is the sections of one volume.
    """
    _check_together(ctx, track=track, volume=volume)
    shell.quiet_tensorflow()
    from cellseg.magnification import Magnification
    from cellseg.results import Options

    magnification = Magnification(given.pop("zoom"), given.pop("diameter"))
    sizes = {name: given.pop(name) for name in ("spacing_um", "interval_s", "section_um", "min_voxels", "meshes")}
    options = Options(**given)
    common = {
        "magnification": magnification,
        "progress": shell.progress("images"),
        "say": lambda text: click.echo(f"cellseg-predict: {text}", err=True),
    }
    refused = [name for name, value in (("--memory", memory), ("--scheduler", scheduler)) if value is not None]
    if track:
        failed = _track([run, *others], inputs, out, options, sizes, not no_report, refused, common)
    elif volume:
        _volume([run, *others], inputs, out, options, sizes, volume, not no_report, refused, common)
        failed = []
    else:
        from cellseg.prediction import predict_files

        how = {"memory": memory, "scheduler": scheduler} | common
        failed = predict_files([run, *others], inputs, out, options=options, spacing_um=sizes["spacing_um"], **how)
    click.echo(str(out))
    if failed:
        click.echo(f"cellseg-predict: {len(failed)} files failed: {', '.join(map(readable, failed))}", err=True)
        return shell.BAD_INPUT
    return shell.OK


def _track(runs, inputs, out, options, sizes, report, refused, common):
    from cellseg.following import Wanted, track_images

    followed = track_images(
        runs,
        inputs,
        out,
        spacing_um=sizes["spacing_um"],
        interval_s=sizes["interval_s"],
        options=options,
        wanted=Wanted(tables=options.measure, report=report),
        refused=refused,
        **common,
    )
    lineage = followed.lineage
    shell.say(f"{followed.num_frames} frames, {len(lineage.tracks)} tracks, {lineage.num_divisions} divisions")
    return followed.failed


def _volume(runs, inputs, out, options, sizes, method, report, refused, common):
    from cellseg import volumes

    kept = {name: sizes[name] for name in ("spacing_um", "section_um", "min_voxels", "meshes")}
    volume = volumes.Options(method=method, **kept)
    table = volumes.predict_volume(
        runs, inputs, out, volume=volume, options=options, report=report, refused=refused, **common
    )
    shell.say(f"{len(table)} objects")


def _check_together(ctx, *, track, volume):
    """Options that would change nothing are a mistake of whoever gave them."""
    if track and volume:
        raise InputError("--track is for a sequence and --volume for a volume. Pass one of them.")
    for name, option, meant, needed in (
        ("interval_s", "--interval-s", track, "--track"),
        ("section_um", "--section-um", volume, "--volume"),
        ("min_voxels", "--min-voxels", volume, "--volume"),
        ("meshes", "--mesh", volume, "--volume"),
        ("no_report", "--no-report", track or volume, "--track or --volume"),
        ("spacing_um", "--spacing-um", track or volume or ctx.params["measure"], "--track, --measure or --volume"),
    ):
        if not meant and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise InputError(f"{option} means nothing without {needed}. Pass that as well, or leave {option} out.")


main = shell.entry(predict)
