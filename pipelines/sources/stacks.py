"""Stacks: the slices of a volume of 0/255 masks and of its images, each one TIFF or a folder of numbered files.

What the stacks of a data set are called, and what their masks mean, is known by its own reader beside this one.
"""

import itertools
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from skimage.measure import label

from pipelines import images
from pipelines.errors import InputError
from pipelines.images import TIFF_SUFFIXES
from pipelines.numbering import frame_number, gaps
from pipelines.sample import Item, Sample

# Where a slice lies: a file, and the page in it.
Place = tuple[Path, int]
SHOWN = 5


@dataclass(frozen=True)
class Stack:
    """Slices of one volume, in order.

    Args:
        path: The TIFF, or the folder of files.
        places: Where each slice lies.
        first: Number of the first file of a folder; None for a TIFF.
    """

    path: Path
    places: tuple[Place, ...]
    first: int | None


def open_stack(source: Path, name: str) -> Stack | None:
    """The stack `source`/NAME.tif, .tiff, or folder `source`/NAME with a file a slice; None if there is neither.

    Only headers are read. The files of a folder are ordered by the number at the end of their stem.

    Raises:
        InputError: Both are there; a file of the folder without number, of another series or with several pages, a
            number that is missing or there twice.
    """
    found = [source / name] if (source / name).is_dir() else []
    found += [path for suffix in TIFF_SUFFIXES if (path := source / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1]} are both the stack '{name}'. Keep one of them there.")
    if not found:
        return None
    if found[0].is_file():
        return Stack(found[0], tuple((found[0], page) for page in range(images.count_pages(found[0]))), None)
    numbered = _numbered(found[0])
    return Stack(found[0], tuple((path, 0) for path in numbered.values()), next(iter(numbered)))


def check_folder(source: Path, expected: str) -> None:
    """Raise FileNotFoundError or InputError unless `source` is a folder."""
    if not source.exists():
        raise FileNotFoundError(f"There is no folder {source}. It should hold {expected}.")
    if not source.is_dir():
        raise InputError(f"{source} is a file; a folder was expected, which holds {expected}.")


def slice_items(
    stack: Stack,
    truth: Stack,
    *,
    source: str,
    digits: int,
    connectivity: int,
    spacing_um: tuple[float, float],
    published: str = "",
) -> list[Item]:
    """One item a slice: name `SOURCE/000`, source, frame = position in the stack, from 0.

    Args:
        stack, truth: Images and their masks.
        source: What the volume is called.
        digits: Least number of digits of the slice in the name.
        connectivity, spacing_um: See `load_slice`.
        published: See `Item`.

    Raises:
        InputError: The two have different numbers of slices, or their folders count from different numbers.
    """
    if len(stack.places) != len(truth.places):
        raise InputError(
            f"{stack.path} has {len(stack.places)} slices, but its labels {truth.path} have {len(truth.places)}. "
            "Each slice needs one slice of labels."
        )
    if None not in (stack.first, truth.first) and stack.first != truth.first:
        raise InputError(
            f"{stack.path} counts its slices from {stack.first}, its labels {truth.path} from {truth.first}: which "
            "belong together is not certain. Give a slice and its labels the same number."
        )
    digits = max(digits, len(str(len(stack.places) - 1)))
    items = []
    for frame, (image, labels) in enumerate(zip(stack.places, truth.places, strict=True)):
        name = f"{source}/{frame:0{digits}d}"
        load = partial(load_slice, image, labels, name, connectivity=connectivity, spacing_um=spacing_um)
        files = (image[0], labels[0])
        items.append(Item(name=name, load=load, source=source, frame=frame, files=files, published=published))
    return items


def load_slice(image: Place, labels: Place, name: str, *, connectivity: int, spacing_um: tuple[float, float]) -> Sample:
    """Read one slice and number the connected components of its mask.

    Args:
        image, labels: Where the two lie.
        name: `SOURCE/FRAME`.
        connectivity: 1: pixels are connected by their sides (4 neighbours); 2: by corners as well (8).
        spacing_um: (row, column) pixel size where the image file says none.

    Raises:
        InputError: The mask holds other values than 0 and 255 (or 0 and 1), or has another size than the image.
    """
    source, frame = name.rsplit("/", 1)
    mask = images.read_labels(labels[0], page=labels[1])
    values = np.unique(mask)
    if not (np.isin(values, (0, 255)).all() or np.isin(values, (0, 1)).all()):
        odd = [str(value) for value in values if value not in (0, 255)]
        raise InputError(
            f"{labels[0]}: a mask of 0 and 255 was expected, but slice {int(frame)} holds {', '.join(odd[:SHOWN])}"
            f"{', ...' if len(odd) > SHOWN else ''}. Save the mask as 0 and 255."
        )
    try:
        return Sample(
            image=images.read_page(*image),
            labels=label(mask > 0, connectivity=connectivity).astype(np.int32),
            name=name,
            source=source,
            frame=int(frame),
            spacing_um=images.read_spacing_um(image[0]) or spacing_um,
        )
    except InputError as error:
        if str(image[0]) in str(error):
            raise
        raise InputError(f"{error} Files: {image[0]}, {labels[0]}.") from error


def _numbered(folder: Path) -> dict[int, Path]:
    """Files of a series by number, in its order."""
    found: dict[int, Path] = {}
    prefixes: dict[str, Path] = {}
    for path in images.image_files(folder):
        match = re.fullmatch(r"(.*?)(\d+)", path.stem)
        if not match:
            raise InputError(f"{path} has no number at the end of its name, which would tell the place of its slice.")
        prefixes.setdefault(match[1], path)
        if len(prefixes) > 1:
            first, second = prefixes.values()
            raise InputError(f"{folder} holds more than one series: {first.name} and {second.name} are named apart.")
        number = frame_number(match[2], path)
        if number in found:
            raise InputError(f"{found[number]} and {path} are both slice {number}. Keep one of them.")
        if (pages := images.count_pages(path)) > 1:
            raise InputError(f"{path} holds {pages} pages; in a folder of slices each file holds one.")
        found[number] = path
    missing = [str(number) for number in itertools.islice(itertools.chain.from_iterable(gaps(found)), SHOWN + 1)]
    if missing:
        more = ", ..." if len(missing) > SHOWN else ""
        raise InputError(
            f"{folder} holds slices {min(found)} to {max(found)}, but lacks {', '.join(missing[:SHOWN])}{more}. "
            "Neighbouring slices must have neighbouring numbers."
        )
    return dict(sorted(found.items()))
