"""Label series: anyone's labels of a sequence, whatever program has written them, one frame at a time.

Outlines are turned into labels by `pipelines.outline_files`, files of labels read by `pipelines.images`; what is done
with a series is ordered in `cellseg.following`.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from cellseg.shapes import number_cells
from pipelines.errors import InputError
from pipelines.files import check_name
from pipelines.images import OPEN_SUFFIXES, check_ids, count_pages, image_stem, read_labels
from pipelines.numbering import frame_number, gaps
from pipelines.outline_files import OUTLINE_SUFFIXES, Outlined, read_outlines
from pipelines.sources.pairs import labels_of_mask

# Files of labels among others in one folder: where some are called so, the others are no labels.
LABEL_NAMES = tuple(map(re.compile, (r"mask\d+", r"man_(seg|track)\d+", r".*_cp_masks", r".*_(labels?|masks?)")))
# What cellseg-predict writes beside its labels.
OTHER_NAMES = re.compile(r".*_(probability|overlay|classes)")
SHOWN = 5
SPREAD = 3.0
MOST_PAGES = 2**20  # of a sequence in one ROI set: every page up to the last is a frame, with outlines or without
LARGEST_UNTOLD = 2**28  # pixels of an image whose size outlines alone tell

Say = Callable[[str], None]


@dataclass
class Series:
    """Labels of a sequence.

    Args:
        load: Frame -> function that reads its labels, int32 (H, W); ascending.
        where: Frame -> the file, for messages.
        label_masks: Make a cell of every piece of a mask.
    """

    load: dict[int, Callable[[], np.ndarray]]
    where: dict[int, str]
    label_masks: bool = False
    masks: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return ((frame, self.read(frame)) for frame in self.load)

    def __len__(self) -> int:
        return len(self.load)

    def read(self, frame: int) -> np.ndarray:
        """Labels of a frame, int32 (H, W).

        Raises:
            InputError: A file that cannot be read or holds no labels, or a mask where `label_masks` is not set.
        """
        labels = self.load[frame]()
        pieces = labels_of_mask(labels)
        if pieces is labels or (labels.max() == 1 and pieces.max() == 1):
            return labels
        if not self.label_masks:
            raise InputError(
                f"{self.where[frame]} is a mask, not labels: it holds no other values than 0 and {labels.max()}, in "
                f"{pieces.max()} piece{'s' if pieces.max() > 1 else ''}. Labels have an id for each cell. Pass "
                "--label-masks to make a cell of every piece; cells that touch each other then count as one. If it is "
                f"one cell in pieces, give it another id than {labels.max()}."
            )
        return pieces

    def missing(self) -> list[range]:
        """Frames between the first and the last that have no file; see `pipelines.numbering.gaps`."""
        return gaps(self.load)


def find_series(
    path: Path | str, *, shape: tuple[int, int] | None = None, label_masks: bool = False, say: Say = lambda text: None
) -> Series:
    """The labels of a folder or file.

    A folder holds one file a frame, and the names differ in one number, that of the frame: label images (TIFF, PNG;
    `mask000.tif` of the Cell Tracking Challenge, `a_000_cp_masks.png` of Cellpose), ROI sets of ImageJ (.zip) or
    GeoJSON of QuPath. A file holds all frames: a TIFF of several pages, a .npy array (T, H, W), or a ROI set whose ROIs
    have positions. Frames without ROIs are empty.

    Args:
        path: The folder or file.
        shape: (H, W) of the images, for outlines; None takes the smallest that holds all outlines.
        label_masks: See `Series`.
        say: Told of what was passed over, cut or covered.

    Raises:
        FileNotFoundError: There is no such file or folder.
        InputError: No labels in it, names that are no series, two files of one frame, fractions instead of ids, ids
            that are negative or beyond int32, an array without pixels, a name that is no text.
    """
    path = Path(path)
    check_name(path)
    if path.is_dir():
        return _folder(path, shape, label_masks, say)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}. Labels of a sequence were looked for there.")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        stack = _read_array(path)
        pages: dict[int, Callable] = {page: partial(stack.__getitem__, page) for page in range(len(stack))}
    elif suffix in OUTLINE_SUFFIXES:
        outlined = read_outlines(path)
        if outlined.unclear and len(outlined.pages) > 1:
            what = f"{path} holds outlines in frames and in sections, such as '{outlined.unclear}'"
            raise InputError(f"{what}; volumes are not tracked. Keep those of one section.")
        last = max(outlined.pages, default=0)
        if last >= MOST_PAGES:
            raise InputError(
                f"{path} has an outline at position {last + 1}, which is hardly a frame: at most {MOST_PAGES} were "
                "expected. Delete it, or save the ROI set anew from the stack."
            )
        size = shape or _bounds({path: outlined}, say)
        pages = {page: partial(_drawn, outlined, page, size, str(path), say) for page in range(last + 1)}
        _tell_passed_over(outlined, path, say)
    else:
        pages = {page: partial(read_labels, path, page=page) for page in range(count_pages(path))}
    where = {page: f"{path}, page {page}" if len(pages) > 1 else str(path) for page in pages}
    return Series(pages, where, label_masks)


def frame_numbers(paths: Iterable[Path]) -> dict[int, Path]:
    """Files by the number in which their names differ, ascending; a single file has its last number, or 0.

    Raises:
        InputError: Names without number, that differ in more than it, two of one number, also with different suffixes,
            or a number that is none of a frame (see `pipelines.numbering.frame_number`).
    """
    # Words and numbers in turn: 'a1_t07_x' -> a, 1, _t, 07, _x
    parts = {path: re.split(r"(\d+)", image_stem(path)) for path in sorted(paths)}
    start, first = next(iter(parts.items()))
    changing = {
        place
        for words in parts.values()
        if len(words) == len(first)
        for place, (one, other) in enumerate(zip(first, words, strict=True))
        if one != other
    }
    odd = [path for path, words in parts.items() if len(words) != len(first)]
    if odd or len(changing) > 1 or not all(place % 2 for place in changing):
        other = odd[0] if odd else list(parts)[-1]
        raise InputError(
            f"The files in {start.parent} are no series: the names {image_stem(start)} and {image_stem(other)} differ "
            "in more than one number. Names of a sequence differ in the number of the frame alone, such as "
            "mask000.tif, mask001.tif; move other files away."
        )
    place = max(changing, default=len(first) - 2)
    found: dict[int, Path] = {}
    for path, words in parts.items():
        number = frame_number(words[place], path) if len(words) > 1 else 0
        if number in found:
            raise InputError(f"{found[number]} and {path} are both frame {number}. Keep one of them.")
        found[number] = path
    return dict(sorted(found.items()))


def scattered_id(labels: np.ndarray) -> int | None:
    """The first id whose pieces are spread over more than `SPREAD` diameters of a disk of its area; None = no such.

    Args:
        labels: int (H, W), 0 = background.
    """
    ids, numbered = number_cells(labels)
    areas = np.bincount(numbered.ravel())[1:]
    boxes = ndimage.find_objects(numbered)
    for cell in range(len(ids)):
        rows, columns = boxes[cell]
        length = np.hypot(rows.stop - rows.start, columns.stop - columns.start)
        if length > SPREAD * 2 * np.sqrt(areas[cell] / np.pi):
            _, pieces = ndimage.label(numbered[boxes[cell]] == cell + 1, np.ones((3, 3)))
            if pieces > 1:
                return int(ids[cell])
    return None


def same_size(frames: Iterable[int], series: Series) -> Iterator[tuple[int, np.ndarray]]:
    """Read the labels of some frames; InputError, which names two files, unless all have one size."""
    first: tuple[int, tuple[int, ...]] | None = None
    for frame in frames:
        labels = series.read(frame)
        first = first or (frame, labels.shape)
        if labels.shape != first[1]:
            sizes = ["x".join(map(str, shape)) for shape in (first[1], labels.shape)]
            raise InputError(
                f"{series.where[first[0]]} is {sizes[0]} pixels, but {series.where[frame]} is {sizes[1]}. All frames "
                "of a sequence must have one size; crop or segment them alike."
            )
        yield frame, labels


def in_pieces_told(
    frames: Iterable[tuple[int, np.ndarray]], series: Series, say: Callable[[str], None]
) -> Iterator[tuple[int, np.ndarray]]:
    """The frames as they are; the first `scattered_id` is told, once."""
    told = False
    for frame, labels in frames:
        if not told and (found := scattered_id(labels)) is not None:
            told = True
            say(
                f"{series.where[frame]}: the pieces of id {found} lie far apart; they are taken for one cell. This is "
                "said once; other ids may be in pieces, too."
            )
        yield frame, labels


def few(numbers: Iterable[object], count: int | None = None) -> str:
    """'3, 4, 5, 6, 7 and 12 more'; with their `count` given, no more numbers are looked at than are shown."""
    if count is None:
        numbers = list(numbers)
        count = len(numbers)
    shown = ", ".join(map(str, itertools.islice(numbers, SHOWN)))
    return shown + (f" and {count - SHOWN} more" if count > SHOWN else "")


def lacking(missing: Sequence[range], noun: str) -> str:
    """'2 frames have no file: 4, 5'; of `Series.missing` or its like, and what its numbers count."""
    count = sum(map(len, missing))
    have = f"{noun}s have" if count > 1 else f"{noun} has"
    return f"{count} {have} no file: {few(itertools.chain.from_iterable(missing), count)}"


def _folder(folder: Path, shape: tuple[int, int] | None, label_masks: bool, say: Say) -> Series:
    there = [path for path in folder.iterdir() if not path.name.startswith(".")]
    # What is called an image and is none (a folder, a link to nothing) is an error, not a frame without file.
    pictures = [path for path in there if path.name.lower().endswith(OPEN_SUFFIXES)]
    pictures = [path for path in pictures if not OTHER_NAMES.fullmatch(image_stem(path))]
    for path in pictures:
        check_name(path)
    called = (([path for path in pictures if pattern.fullmatch(image_stem(path))]) for pattern in LABEL_NAMES)
    named = next(filter(None, called), pictures)
    if named:
        found = frame_numbers(named)
        _tell_called_otherwise(sorted({*pictures} - {*named}), found, say)
        if len(found) == 1 and count_pages(next(iter(found.values()))) > 1:
            return find_series(next(iter(found.values())), label_masks=label_masks, say=say)
        where = {frame: str(path) for frame, path in found.items()}
        return Series({frame: partial(_one_page, path) for frame, path in found.items()}, where, label_masks)
    outlines = [path for path in there if path.is_file() and path.suffix.lower() in OUTLINE_SUFFIXES]
    if not outlines:
        raise InputError(
            f"{folder} holds no labels: no file there ends in {', '.join((*OPEN_SUFFIXES, *OUTLINE_SUFFIXES))}."
        )
    for path in outlines:
        check_name(path)
    found = frame_numbers(outlines)
    read = {frame: _single(read_outlines(path), path) for frame, path in found.items()}
    for frame, path in found.items():
        _tell_passed_over(read[frame], path, say)
    size = shape or _bounds({path: read[frame] for frame, path in found.items()}, say)
    where = {frame: str(path) for frame, path in found.items()}
    load: Mapping = {frame: partial(_drawn, read[frame], 0, size, where[frame], say) for frame in found}
    return Series(dict(load), where, label_masks)


def _tell_called_otherwise(others: Sequence[Path], found: Mapping[int, Path], say: Say) -> None:
    """Tell of pictures that were not taken for labels, but the images of frames that have labels."""
    stems = [image_stem(path) for path in found.values()]
    alone = [
        path
        for path in others
        if not any(stem.startswith(f"{image_stem(path)}_") for stem in stems) and _last_number(path) not in found
    ]
    if alone:
        example = next(iter(found.values()))
        say(
            f"{example.parent}: {len(alone)} files are called otherwise than {example.name} and were passed over: "
            f"{few(path.name for path in alone)}. If they are labels of this sequence, name them like the others."
        )


def _last_number(path: Path) -> int | None:
    digits = re.findall(r"\d+", image_stem(path))
    return int(digits[-1]) if digits else None


def _one_page(path: Path) -> np.ndarray:
    pages = read_labels(path)
    if len(pages) > 1:
        raise InputError(
            f"{path} holds {len(pages)} pages, and the folder several files. Give one file with a page a frame, or a "
            "folder with a file a frame; volumes are not tracked."
        )
    return pages[0]


def _read_array(path: Path) -> np.ndarray:
    try:
        stack = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is no array of numpy: {error}. Save the labels with numpy.save.") from error
    if stack.dtype.kind not in "iub" or stack.ndim not in (2, 3) or stack.size == 0:
        raise InputError(
            f"{path} holds {stack.dtype} of shape {stack.shape}: labels (T, H, W) of whole numbers, with at least one "
            "pixel, were expected. A probability becomes labels by a threshold first."
        )
    check_ids(stack, path)
    return (stack if stack.ndim == 3 else stack[np.newaxis]).astype(np.int32, copy=stack.dtype != np.int32)


def _single(outlined: Outlined, path: Path) -> Outlined:
    """The cells of a file that is one frame: all of them, unless they lie on several positions."""
    if len(outlined.pages) > 1:
        raise InputError(
            f"{path} holds ROIs at {len(outlined.pages)} positions, and the folder several files. Give one ROI set of "
            "the whole sequence, or a folder with a set a frame."
        )
    return Outlined(dict(enumerate(outlined.pages.values())), outlined.passed_over)


def _bounds(read: Mapping[Path, Outlined], say: Say) -> tuple[int, int]:
    """(H, W) of the smallest image that holds the outlines of all files."""
    shapes = {path: one.shape for path, one in read.items()}
    shape = max(height for height, _ in shapes.values()), max(width for _, width in shapes.values())
    if shape[0] * shape[1] > LARGEST_UNTOLD:
        farthest = max(shapes, key=lambda path: max(shapes[path]))
        raise InputError(
            f"Outlines, those in {farthest} the farthest, reach as far as row {shape[0]} and column {shape[1]}, which "
            "is hardly an image. Pass --images to have the images' own size, or delete the outlines that lie too far "
            "out."
        )
    say(
        f"Outlines do not tell the size of the images; the labels are {shape[0]}x{shape[1]} pixels, as far as the "
        "outlines reach. Pass --images to have the images' own size."
    )
    return shape


def _tell_passed_over(outlined: Outlined, path: Path, say: Say) -> None:
    if outlined.passed_over:
        names = ", ".join(f"{name or 'without name'} ({kind})" for name, kind in outlined.passed_over[:SHOWN])
        say(f"{path}: {len(outlined.passed_over)} outlines are no areas and were passed over: {names}.")


def _drawn(outlined: Outlined, page: int, shape: tuple[int, int], where: str, say: Say) -> np.ndarray:
    labels, covered, hidden = outlined.labels(page, shape)
    if covered or hidden:
        lost = f"; {hidden} cells have no pixel left" if hidden else ""
        say(f"{where}: cells overlap in {covered} pixels, which the later one has got{lost}.")
    return labels
