"""Volumes: the sections of a stack and a run in; 3-D objects, their meshes, table and report out.

The workflow of cellseg-predict --volume. Sections become objects in `cellseg.reconstruction`, objects meshes in
`cellseg.meshes`, and the report is made in `cellseg.volume_report`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cellseg import results, series_prediction
from cellseg.image_series import ImageSeries, find_images
from cellseg.label_series import lacking
from cellseg.magnification import AS_IT_IS, Magnification
from cellseg.measuring import check_spacing, write_table
from cellseg.meshes import MESH_SUFFIXES, object_meshes, write_meshes
from cellseg.reconstruction import AXES, RECONSTRUCTIONS, clean, measure_objects, write_volume
from cellseg.volume_report import Volume, write_volume_report
from pipelines.errors import InputError
from pipelines.files import check_free
from pipelines.prepare import Progress

OBJECTS_TABLE, MESHES = "objects.csv", "objects"
AUTO = "auto"
MESH_KINDS = tuple(suffix[1:] for suffix in MESH_SUFFIXES)


@dataclass(frozen=True)
class Options:
    """How sections become objects.

    Args:
        method: `join` takes what touches as one object, `link` gives a cell of a section at most one partner in the
            next; `auto` joins where the run cuts no touching cells apart (components), and links where it does.
        min_voxels: Smaller objects are dropped.
        meshes: Formats of the meshes: obj, ply, glb.
        spacing_um: (row, column) size of a pixel; None takes that of the images, or else of the run's experiment.
        section_um: Distance of two sections; None takes that of the images.
    """

    method: str = AUTO
    min_voxels: int = 64
    meshes: Sequence[str] = ("glb",)
    spacing_um: tuple[float, float] | None = None
    section_um: float | None = None


def predict_volume(
    run: Path | str | Sequence[Path],
    inputs: Path | str | Sequence[Path],
    out: Path | str,
    *,
    volume: Options,
    options: results.Options,
    magnification: Magnification = AS_IT_IS,
    report: bool = True,
    refused: Sequence[str] = (),
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Find the objects in the sections of a volume.

    The folder holds `NAME.tif`, the objects as a labelled z-stack, `objects.csv`, `objects.glb` or other meshes,
    pictures and `report.html`. It appears whole or not at all; the labels of single sections are kept until then, and
    the same call with `options.resume` goes on with them.

    Args:
        run: A run folder, or several whose probabilities are averaged.
        inputs: See `image_series.find_images`.
        out: The result folder.
        volume: See `Options`.
        options: overwrite and resume are taken; what else is asked for is refused.
        magnification: By what images are zoomed for the run; see `inference.load_run`.
        report: Whether pictures and report are made.
        refused: Further options of the call that do not go with a volume.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user of warnings and what was left out.

    Returns:
        The table of the objects.

    Raises:
        InputError: No volume, sections that are missing or of different size, a folder that may not be replaced,
            options that do not go together.
    """
    out, notes = Path(out), series_prediction.Notes(say)
    refused = [*refused, *(["--keep-going"] if options.keep_going else [])]
    series_prediction.check_options(options, "--volume", refused)
    if volume.min_voxels < 0 or volume.method not in (AUTO, *RECONSTRUCTIONS):
        raise InputError(f"--volume {volume.method} with at least {volume.min_voxels} voxels is not known.")
    images = _sections(inputs)
    runs = series_prediction.read_runs(run)
    spacing = _voxel(volume, images, runs[0].experiment.data.spacing_um, notes.say)
    if options.resume and (out / OBJECTS_TABLE).is_file():
        raise InputError(f"{out} is whole already. Nothing is left to --resume; pass --overwrite to make it anew.")
    check_free(out, marker=OBJECTS_TABLE, overwrite=options.overwrite)
    if runs[0].data.get("classes"):
        notes.say("The classes that the run knows are not kept: objects of a volume have none.")
    method = volume.method
    if method == AUTO:
        method = "join" if runs[0].experiment.instances["name"] == "components" else "link"
    unfinished = series_prediction.unfinished(
        out, runs, images, marker=OBJECTS_TABLE, options=options, magnification=magnification
    )
    with unfinished as (folder, labels):
        series_prediction.predict_series(
            runs, images, labels, magnification=magnification, progress=progress, say=notes.say
        )
        found = RECONSTRUCTIONS[method](labels.read(number) for number in images.places)
        objects = clean(found, min_voxels=volume.min_voxels)
        dropped = int(found.max(initial=0) - objects.max(initial=0))
        if dropped:
            some = f"1 object of less than {volume.min_voxels} voxels was"
            many = f"{dropped} objects of less than {volume.min_voxels} voxels were"
            notes.say(f"{many if dropped > 1 else some} left out (--min-voxels).")
        write_volume(folder / f"{images.name}.tif", objects, spacing_um=spacing)
        meshes = object_meshes(objects, spacing_um=spacing or (1.0, 1.0, 1.0))
        if meshes:
            for kind in dict.fromkeys(volume.meshes):
                write_meshes(folder / f"{MESHES}.{kind}", meshes)
        else:
            notes.say("There is no object, so there is no mesh. Is it the right run for these images?")
        table = measure_objects(objects, spacing_um=spacing, meshes=meshes)
        if report:
            told = Volume(images, objects, meshes, table, spacing, method, runs[0].folder, notes.told)
            write_volume_report(folder, told)
        write_table(folder / OBJECTS_TABLE, table)
    return table


def _sections(inputs: Path | str | Sequence[Path]) -> ImageSeries:
    images = find_images(inputs)
    if len(images) < 2:
        raise InputError(
            f"{images.name} is one image; --volume needs the sections of a volume: a stack of several pages, or a "
            "folder of numbered images."
        )
    if missing := images.missing():
        raise InputError(
            f"{lacking(missing, 'section')}. Objects cannot be followed through a hole; add the files, or number the "
            "sections without gaps."
        )
    images.check_sizes()
    return images


def _voxel(
    volume: Options, images: ImageSeries, otherwise: tuple[float, float] | None, say: Callable[[str], None]
) -> tuple[float, float, float] | None:
    """(z, row, column) size of a voxel, where both are known; half of it is told and not used."""
    check_spacing(volume.spacing_um)
    if volume.section_um is not None:
        check_spacing((volume.section_um, 1.0, 1.0), AXES)
    pixel = volume.spacing_um or images.spacing_um or otherwise
    section = volume.section_um or images.section_um
    if pixel is not None and section is not None:
        return section, *pixel
    if pixel is not None or section is not None:
        lacking = (
            "the distance of the sections is (--section-um Z)" if pixel else "the pixel size is (--spacing-um Y X)"
        )
        say(f"Everything is measured in voxels, since {lacking} not known.")
    return None
