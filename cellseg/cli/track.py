"""cellseg-track: labels of a sequence to tracks."""

from pathlib import Path

import click

from cellseg.cli import shell


@click.command(name="cellseg-track")
@click.argument("labels", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--images", type=click.Path(path_type=Path), help="Images of the sequence, to measure intensities on.")
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
@click.option("--fill-gaps", is_flag=True, help="Draw missing cells in the frames of a gap, on background.")
@click.option("--no-divisions", is_flag=True, help="Cells do not divide.")
@click.option("--label-masks", is_flag=True, help="Take masks (0 and 255), and make a cell of every piece.")
@click.option("--overwrite", is_flag=True, help="Replace an older result.")
def track(labels, out, images, spacing_um, interval_s, max_gap, fill_gaps, no_divisions, label_masks, overwrite):
    """Follow cells through time.

    DIR holds one label file a frame (0 = background, an id for each cell): TIFF or PNG as cellseg-predict, Cellpose
    and StarDist write them, ROI sets of ImageJ, or GeoJSON of QuPath. It may also be one file of all frames: a TIFF of
    several pages, a .npy array, or a ROI set with positions. Ids need not agree from frame to frame.

    Writes maskNNN.tif, whose ids are tracks, res_track.txt (track, first frame, last frame, parent), cells.csv and
    tracks.csv.
    """
    from cellseg.following import track_folder
    from cellseg.tracking import Options

    followed = track_folder(
        labels,
        out,
        images=images,
        spacing_um=spacing_um,
        interval_s=interval_s,
        options=Options(max_gap=max_gap, divisions=not no_divisions, fill_gaps=fill_gaps),
        label_masks=label_masks,
        overwrite=overwrite,
        progress=shell.progress("frames"),
        say=lambda text: click.echo(f"cellseg-track: {text}", err=True),
    )
    lineage = followed.lineage
    shell.say(
        f"{followed.num_frames} frames, {len(followed.cells)} cells, {len(lineage.tracks)} tracks, "
        f"{lineage.num_divisions} divisions, {lineage.num_gaps} gaps"
    )
    click.echo(str(out))


main = shell.entry(track)
