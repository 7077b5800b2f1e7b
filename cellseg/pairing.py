"""Pairs: which predicted file belongs to which true one, and what the two hold.

Scoring them lives in `cellseg.evaluation`; which image a pair was made of in `cellseg.score_files`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.drawn_labels import check_outlines, draw, is_outlines
from pipelines.errors import InputError
from pipelines.files import check_name
from pipelines.images import image_stem, page_axes, read_labels, read_pages, stored_dtype
from pipelines.sources.pairs import labels_of_mask

LABEL_SUFFIXES = (".tif", ".tiff", ".png", ".bmp")
CTC_TRUTH = re.compile(r"man_(?:seg|track)(\d+)$")
CTC_RESULT = re.compile(r"mask(\d+)(?:_probability)?$")
PROBABILITY = "_probability"
# What cellseg-predict and cellseg-evaluate write beside STEM.tif on request is no label file.
EXTRAS = ("_overlay", "_classes", "_errors")
SHOWN = 5  # names that a message lists before it says how many more there are


@dataclass(frozen=True)
class Pair:
    """A file of true labels and the file of predicted ones.

    Args:
        name: What both are called in the scores: the truth's stem without `_mask` or `_label`, or the frame number.
        truth: File of true labels, or of outlines (see `pipelines.drawn_labels`).
        prediction: File of predicted labels, or of a probability.
    """

    name: str
    truth: Path
    prediction: Path

    @property
    def is_ctc(self) -> bool:
        """Whether the truth is named as the Cell Tracking Challenge does."""
        return CTC_TRUTH.match(self.truth.stem) is not None

    def read(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Each image of the two files: its name, true labels int32 (H, W), predicted ones or a probability float32.

        The pages of a stack are images named `STEM/000`, `STEM/001`, ...; under CTC names they are one volume,
        (Z, H, W). An image that holds 0 and 255 alone (0 and 1 in several pieces) is a mask, whose connected pieces
        become its labels, as in the layout `pairs`; not so under CTC names, where 255 is a cell's id.

        Raises:
            InputError: a truth that is not made of whole numbers, a float prediction outside [0, 1], sizes or numbers
                of pages that differ.
        """
        stack_pred = self._prediction()
        stack_true = self._drawn(stack_pred) if is_outlines(self.truth) else self._labels(read_labels(self.truth))
        if stack_true.shape != stack_pred.shape:
            raise InputError(
                f"{self.truth} holds {_size(stack_true)}, but {self.prediction} holds {_size(stack_pred)}. "
                "Truth and prediction must be the same image, at the same size."
            )
        if self.is_ctc and len(stack_true) > 1:
            yield self.name, stack_true, stack_pred
            return
        for page, (one_true, one_pred) in enumerate(zip(stack_true, stack_pred, strict=True)):
            yield self.name if len(stack_true) == 1 else f"{self.name}/{page:03d}", one_true, one_pred

    def _drawn(self, stack_pred: np.ndarray) -> np.ndarray:
        pages, *shape = stack_pred.shape
        axes = page_axes(self.prediction)
        check_outlines(self.prediction, self.truth, pages, axes=axes)
        numbers = range(pages) if pages > 1 else [None]
        return np.stack([draw(self.truth, page, tuple(shape), axes=axes) for page in numbers])

    def _prediction(self) -> np.ndarray:
        try:
            stack = read_labels(self.prediction)
            # Of 0 and 1 alone, floats are a probability only where cellseg-predict has named them so.
            named = plain_stem(self.prediction).endswith(PROBABILITY) and stack.max() <= 1
            if not (named and stored_dtype(self.prediction).kind == "f"):
                return self._labels(stack)
        except InputError:
            # What the file holds is asked only after it was refused: the question decodes it again.
            if stored_dtype(self.prediction).kind != "f":
                raise
        pages = read_pages(self.prediction)
        if pages.shape[-1] > 1 or not (pages.min() >= 0 and pages.max() <= 1):
            raise InputError(
                f"{self.prediction} holds fractions from {pages.min():g} to {pages.max():g} in {pages.shape[-1]} "
                "channel(s). Expected labels (whole numbers), or a probability of being a cell: one channel in [0, 1]."
            )
        return pages[..., 0]

    def _labels(self, stack: np.ndarray) -> np.ndarray:
        return stack if self.is_ctc else np.stack([labels_of_mask(page) for page in stack])


def pair_files(truth: Path | str, prediction: Path | str, *, probability: bool = False) -> list[Pair]:
    """Find which predicted file belongs to which true one, sorted by name; nothing is read.

    Files match by stem, with or without `_mask`, `_masks`, `_label` or `_labels` at its end. If every truth is called
    `man_segNNN` (or `man_trackNNN`) and every prediction `maskNNN`, they match by number, and predictions of frames
    without truth are left out: the Cell Tracking Challenge annotates some frames only. A truth folder with a `SEG`
    folder in it (`01_GT`, `01_ST`) stands for that one. Truth may also be outlines, `STEM_rois.zip`, `STEM.zip` or
    `STEM.geojson`, where there is no label image of that stem.

    Args:
        truth: Folder or file.
        prediction: Folder or file.
        probability: Of STEM.tif and STEM_probability.tif, which cellseg-predict writes beside it, take the latter.

    Raises:
        FileNotFoundError: a folder or file does not exist.
        InputError: no label files, two files of one name, a name that is no text, or a file without a partner.
    """
    truth, prediction = Path(truth), Path(prediction)
    for path in (truth, prediction):
        check_name(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist. A folder of label TIFFs or PNGs was expected, or a file.")
    if truth.is_file() and prediction.is_file():
        return [Pair(plain_stem(truth), truth, prediction)]
    for path, other in ((truth, prediction), (prediction, truth)):
        if path.is_file():
            raise InputError(f"{path} is a file, but {other} is a folder. Give two folders or two files.")
    if (truth / "SEG").is_dir():
        truth = truth / "SEG"
    files_true, files_pred = _label_files(truth, outlines=True), _label_files(prediction, probability=probability)
    numbers_true, numbers_pred = _numbers(files_true, CTC_TRUTH), _numbers(files_pred, CTC_RESULT)
    is_ctc = numbers_true is not None and numbers_pred is not None
    named_true = _by_name(files_true, numbers_true if is_ctc else [plain_stem(file) for file in files_true])
    named_pred = _by_name(
        files_pred, numbers_pred if is_ctc else [plain_stem(file).removesuffix(PROBABILITY) for file in files_pred]
    )
    lonely_true = sorted(set(named_true) - set(named_pred))
    lonely_pred = [] if is_ctc else sorted(set(named_pred) - set(named_true))
    if lonely_true or lonely_pred:
        missing = [
            f"{len(names)} of {len(named)} files in {folder} have no partner: "
            f"{some(named[name].name for name in names)}."
            for names, named, folder in ((lonely_true, named_true, truth), (lonely_pred, named_pred, prediction))
            if names
        ]
        raise InputError(
            " ".join(missing) + " Truth and prediction match by file name without its ending (and without _mask or "
            "_label); rename or remove the files that stand alone."
        )
    return [Pair(name, named_true[name], named_pred[name]) for name in sorted(named_true)]


def plain_stem(file: Path) -> str:
    """What an image is called in the scores: its stem without `_mask` or `_label` at the end."""
    return re.sub(r"_(?:mask|label|roi)s?$", "", image_stem(file)) or file.stem


def some(names: Iterable[str]) -> str:
    """The first names of a list, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _label_files(folder: Path, *, probability: bool = False, outlines: bool = False) -> list[Path]:
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in LABEL_SUFFIXES and not path.name.startswith(".")
    )
    stems = {path.stem for path in files}
    extras = {f"{stem}{ending}" for stem in stems for ending in EXTRAS}
    twice = {stem for stem in stems if f"{stem}{PROBABILITY}" in stems}
    extras |= twice if probability else {f"{stem}{PROBABILITY}" for stem in twice}
    files = [path for path in files if path.stem not in extras]
    if outlines:
        stems = {plain_stem(path) for path in files}
        drawn = sorted(path for path in folder.iterdir() if is_outlines(path) and not path.name.startswith("."))
        files += [path for path in drawn if plain_stem(path) not in stems]
    for path in files:
        check_name(path)
    if not files:
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
        hint = f" It holds the folders {some(inside)}: did you mean one of them?" if inside else ""
        raise InputError(f"{folder} holds no label file ({', '.join(LABEL_SUFFIXES)}).{hint}")
    return files


def _numbers(files: list[Path], pattern: re.Pattern) -> list[str] | None:
    """Frame numbers as names, or None if a file is called otherwise."""
    found = [pattern.match(file.stem) for file in files]
    return [f"{int(one[1]):03d}" for one in found if one] if all(found) else None


def _by_name(files: list[Path], names: list[str] | None) -> dict[str, Path]:
    names = names or []
    for name, times in Counter(names).items():
        if times > 1:
            same = [str(file) for file, other in zip(files, names, strict=True) if other == name]
            raise InputError(f"These files stand for one image, {name}: {some(same)}. Keep one of them in the folder.")
    return dict(zip(names, files, strict=True))


def _size(stack: np.ndarray) -> str:
    pages, height, width = stack.shape
    return f"{pages} page{'s' if pages > 1 else ''} of {height}x{width} pixels"
