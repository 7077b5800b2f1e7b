"""Layout `pairs`: a folder of images and a folder of labels, masks or outlines, matched by stem.

Outlines are drawn by `pipelines.drawn_labels`, label images read by `pipelines.images`.
Data sets with their own folder trees have readers of their own beside this one.
"""

import os
import re
from collections.abc import Set
from functools import partial
from pathlib import Path

import numpy as np
from skimage.measure import label

from pipelines import images
from pipelines.drawn_labels import check_outlines, draw, is_outlines
from pipelines.errors import InputError
from pipelines.numbering import frame_number
from pipelines.sample import Item, Sample

LABEL_FOLDERS = ("labels", "masks")
LABEL_SUFFIXES = ("_masks", "_labels", "_mask", "_label")
OUTLINE_SUFFIX = "_rois"  # of what cellseg-predict writes
# Enough names to see the pattern, few enough to read.
SHOWN = 5


def find(
    source: Path | str,
    *,
    images: Path | str | None = None,
    labels: Path | str | None = None,
    series: bool = False,
) -> list[Item]:
    """Images with their labels: same stem, the label's optionally followed by `_mask(s)` or `_label(s)`.

    A stack with a stack of as many pages gives one item a page: name `STEM/000`, source `STEM`, frame = page.
    Masks, that is files of 0 and 255 or of 0 and 1, become one label a component (see `labels_of_mask`). ROI sets of
    ImageJ (`STEM.zip`, `STEM_rois.zip`, `STEM.roi`; of a stack, with positions) and GeoJSON of QuPath (`STEM.geojson`)
    are taken as well, one cell an outline, the later one on top where two overlap; those of other stems are passed
    over.

    Args:
        source: Holds `images/` and `labels/` or `masks/`.
        images: Folder of the images instead of `images/`; a relative one is looked for in `source`, then here.
        labels: Folder of the labels, likewise.
        series: Every stem ends in a number, and files with the same stem before it are frames or slices of one
            series: `well-3_007.png` has name `well-3/007`, source `well-3`, frame 7. Stems that are numbers alone are
            a series named as the data set's folder.

    Returns:
        Items sorted by name.

    Raises:
        FileNotFoundError: A folder is missing.
        InputError: An empty folder, an image without labels, labels without image, two files with one stem, or
            stacks of different lengths; with `series`, a stem without number, a stack, or two files for one frame.
    """
    source = Path(source)
    image_folder = _folder(source, images) if images is not None else source / "images"
    label_folder = _folder(source, labels) if labels is not None else _default_labels(source)
    if not image_folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {image_folder}. The layout 'pairs' needs {source / 'images'} and {source / 'labels'} "
            "(or masks), or both folders given with --images DIR --labels DIR."
        )
    matched = _match(image_folder, label_folder)
    if series:
        return _series_items(matched, source.resolve().name)
    items = [item for stem, files in matched.items() for item in _items(stem, *files)]
    items.sort(key=lambda item: item.name)
    return items


def labels_of_mask(labels: np.ndarray) -> np.ndarray:
    """One label a component if this is a mask, else the labels untouched.

    A mask holds no other values than 0 and 255, or than 0 and 1 with the ones in several pieces: a cell is one piece,
    so these ones are no cell's id. Of the image alone, a mask and one cell that was cut in two cannot be told apart;
    the mask is far more frequent. Components are 8-connected: pixels that touch by a corner belong to one cell.

    Args:
        labels: int32 (H, W), as stored.

    Returns:
        int32 (H, W).
    """
    highest = labels.max()
    if highest not in (1, 255) or not np.isin(labels, (0, highest)).all():
        return labels
    components, number = label(labels > 0, connectivity=2, return_num=True)
    return labels if highest == 1 and number == 1 else components.astype(np.int32)


def check_not_wrapped(labels: np.ndarray, path: Path | str) -> None:
    """Raise InputError if more cells were stored than the file's ids can number.

    The sign is that every id that 8 (or 16) bits offer is in use and some of them stand for several pieces: numbering
    started again at 0 or 1 after the highest.
    """
    highest = int(labels.max())
    if highest not in (2**8 - 1, 2**16 - 1) or len(np.unique(labels[labels > 0])) < highest:
        return
    stored = images.stored_dtype(path)
    if stored.kind not in "ui" or np.iinfo(stored).max != highest:
        return
    pieces = int(label(labels, connectivity=2, background=0).max())
    if pieces > highest:
        raise InputError(
            f"{path}: all {highest} ids that {highest.bit_length()} bits can number are in use, and they stand for "
            f"{pieces} separate pieces: there are more cells than ids. Save the labels with "
            f"{2 * highest.bit_length()} bits and number the cells again."
        )


def load(
    image_file: Path | str,
    label_file: Path | str,
    name: str,
    page: int | None,
    source: str = "",
    frame: int | None = None,
) -> Sample:
    """Read one pair; `page` is the page of two stacks, None for files of one page."""
    image = images.read_image(image_file) if page is None else images.read_page(image_file, page)
    if is_outlines(label_file):
        axes = () if page is None else images.page_axes(image_file)
        labels = draw(label_file, page, image.shape[:2], axes=axes)
    else:
        labels = images.read_labels(label_file, page=page or 0)
        check_not_wrapped(labels, label_file)
        labels = labels_of_mask(labels)
    spacing_um = images.read_spacing_um(image_file)
    try:
        return Sample(image=image, labels=labels, name=name, source=source, frame=frame, spacing_um=spacing_um)
    except InputError as error:
        raise InputError(f"{error} Files: {image_file}, {label_file}.") from error


def _folder(source: Path, given: Path | str) -> Path:
    for folder in (source / given, Path(given)):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"There is no folder {given}, neither here nor in {source}.")


def _default_labels(source: Path) -> Path:
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}. It should hold images/ and labels/ or masks/.")
    found = [source / name for name in LABEL_FOLDERS if (source / name).is_dir()]
    if len(found) == 2:
        raise InputError(f"{source} holds both labels/ and masks/. Say which is the truth with --labels DIR.")
    if not found:
        raise FileNotFoundError(
            f"{source} holds neither labels/ nor masks/. The layout 'pairs' needs one of them beside images/, or "
            "--labels DIR."
        )
    return found[0]


def _match(image_folder: Path, label_folder: Path) -> dict[str, tuple[str, str]]:
    """Paths by stem, as text: most large data sets have this layout, and a `Path` weighs five times as much."""
    image_files = _by_stem(image_folder, set())
    label_files = _label_files(label_folder, image_files.keys())
    alone = [name for stem, name in image_files.items() if stem not in label_files]
    unwanted = [name for stem, name in label_files.items() if stem not in image_files]
    if alone or unwanted:
        sides = []
        if alone:
            sides.append(f"{len(alone)} of {len(image_files)} images have no labels in {label_folder}: {_few(alone)}")
        if unwanted:
            sides.append(
                f"{len(unwanted)} of {len(label_files)} label files have no image in {image_folder}: {_few(unwanted)}"
            )
        raise InputError(
            f"{'; '.join(sides)}. An image and its labels have the same name, the labels' optionally ending in "
            "_mask or _label. Add the missing files, or move the others away."
        )
    return {
        stem: (os.path.join(image_folder, name), os.path.join(label_folder, label_files[stem]))
        for stem, name in image_files.items()
    }


def _label_files(folder: Path, known: Set[str]) -> dict[str, str]:
    """`_by_stem` of label images, and of outlines that have an image."""
    drawn: dict[str, str] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        stem = os.path.splitext(name)[0]
        stem = stem if stem in known else stem.removesuffix(OUTLINE_SUFFIX)
        if is_outlines(name) and stem in known:
            if stem in drawn:
                raise InputError(f"{drawn[stem]} and {name} in {folder} are both for '{stem}'. Keep one of them there.")
            drawn[stem] = name
    try:
        found = _by_stem(folder, known)
    except InputError:
        if not drawn or any(name.lower().endswith(images.OPEN_SUFFIXES) for name in os.listdir(folder)):
            raise
        found = {}
    for stem in sorted(found.keys() & drawn.keys()):
        raise InputError(f"{found[stem]} and {drawn[stem]} in {folder} are both for '{stem}'. Keep one of them there.")
    return found | drawn


def _by_stem(folder: Path, known: Set[str]) -> dict[str, str]:
    """Names of files by stem; a suffix such as _mask is taken off where the stem is not a known one as it stands."""
    found: dict[str, str] = {}
    for name in images.image_names(folder):
        stem = images.image_stem(name)  # the labels of a.ome.tif are often written as plain a.tif
        suffix = next((end for end in LABEL_SUFFIXES if stem.endswith(end)), "")
        if known and stem not in known and suffix:
            stem = stem.removesuffix(suffix)
        if stem in found:
            raise InputError(f"{found[stem]} and {name} in {folder} are both for '{stem}'. Keep one of them there.")
        found[stem] = name
    return found


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _items(stem: str, image_file: str, label_file: str) -> list[Item]:
    files = (image_file, label_file)
    pages = _checked_pages(*files)
    if pages == 1:
        return [Item(name=stem, load=partial(load, *files, stem, None), files=files)]
    width = max(3, len(str(pages - 1)))
    names = [f"{stem}/{page:0{width}d}" for page in range(pages)]
    return [
        Item(name=name, load=partial(load, *files, name, page, stem, page), source=stem, frame=page, files=files)
        for page, name in enumerate(names)
    ]


def _series_items(matched: dict[str, tuple[str, str]], folder: str) -> list[Item]:
    frames: dict[tuple[str, int], tuple[str, str]] = {}
    for stem, files in matched.items():
        match = re.fullmatch(r"(.*?)(\d+)", stem)
        if not match:
            raise InputError(
                f"{files[0]} has no number at the end of its name. With series: true every file is one frame or slice, "
                "such as cell_007.tif. Rename it, or leave series out."
            )
        if (pages := _checked_pages(*files)) > 1:
            raise InputError(
                f"{files[0]} holds {pages} pages. With series: true every file is one frame or slice. Leave series "
                "out, or split the stack into files."
            )
        place = (match[1].rstrip("_-. ") or folder, frame_number(match[2], files[0]))
        if place in frames:
            raise InputError(
                f"{frames[place][0]} and {files[0]} are both frame {place[1]} of the series '{place[0]}'. Rename one."
            )
        frames[place] = files
    width = max(3, *(len(str(frame)) for _, frame in frames))
    items = []
    for (series, frame), files in sorted(frames.items()):
        name = f"{series}/{frame:0{width}d}"
        items.append(
            Item(
                name=name,
                load=partial(load, *files, name, None, series, frame),
                source=series,
                frame=frame,
                files=files,
            )
        )
    return items


def _checked_pages(image_file: str, label_file: str) -> int:
    """Number of pages of an image file, which is that of its labels."""
    pages = images.count_pages(image_file)
    if is_outlines(label_file):
        check_outlines(image_file, label_file, pages, axes=images.page_axes(image_file))
        return pages
    label_pages = images.count_pages(label_file)
    if pages != label_pages:
        raise InputError(
            f"{image_file} has {pages} pages, but its labels {label_file} have {label_pages}. "
            "Each page needs one page of labels."
        )
    return pages
