"""cellseg-track: labels of a sequence to tracks."""

from pathlib import Path

import click

from cellseg.cli import shell


@click.command(name="cellseg-track")
@click.argument("labels", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Images of the sequence, to measure intensities and show tracks on.",
)
@click.option("--spacing-um", nargs=2, type=float, metavar="Y X", help="Size of a pixel in micrometres.")
@click.option("--interval-s", type=float, metavar="S", help="Seconds between two frames.")
@click.option(
    "--max-gap",
    type=click.IntRange(0, 20),
    default=3,
    show_default=True,
    metavar="N",
    help="Frames in which a cell may be missing and still be found again.",
)
@click.option(
    "--fill-gaps/--no-fill-gaps",
    default=True,
    show_default=True,
    help="Draw a cell in the frames in which it is missing, on background alone; cells.csv marks it as filled.",
)
@click.option("--no-divisions", is_flag=True, help="Cells do not divide.")
@click.option("--label-masks", is_flag=True, help="Take masks (0 and 255), and make a cell of every piece.")
@click.option("--no-report", is_flag=True, help="Leave out the movie, the pictures and report.html.")
@click.option("--overwrite", is_flag=True, help="Replace an older result.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that measure.")
def track(labels, out, max_gap, fill_gaps, no_divisions, no_report, workers, **options):
    """Follow cells through time.

    DIR holds one label file a frame (0 = background, an id for each cell): TIFF or PNG as cellseg-predict, Cellpose
    and StarDist write them, ROI sets of ImageJ, or GeoJSON of QuPath. It may also be one file of all frames: a TIFF of
    several pages, a .npy array, or a ROI set with positions. Ids need not agree from frame to frame.

    Writes maskNNN.tif, whose ids are tracks, res_track.txt (track, first frame, last frame, parent), cells.csv,
    tracks.csv, msd.csv, a movie, pictures and report.html, which shows all of it.
    """
    from cellseg.following import Wanted, track_folder
    from cellseg.tracking import Options

    followed = track_folder(
        labels,
        out,
        options=Options(max_gap=max_gap, divisions=not no_divisions, fill_gaps=fill_gaps),
        wanted=Wanted(report=not no_report, workers=workers),
        **options,
        progress=shell.progress("frames"),
        say=lambda text: click.echo(f"cellseg-track: {text}", err=True),
    )
    lineage = followed.lineage
    shell.say(
        f"{followed.num_frames} frames, {len(followed.cells)} cells, {len(lineage.tracks)} tracks, "
        f"{lineage.num_divisions} divisions, {lineage.num_gaps} gaps, {lineage.num_filled} cells drawn in filled gaps"
    )
    click.echo(str(out))


main = shell.entry(track)
