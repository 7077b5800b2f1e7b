"""Scores of a data set: measures pooled and per image, baselines, and two folders of labels compared.

The measures live in `cellseg.metrics`; scoring the split of a run is ordered by `cellseg.workflow`.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg.metrics import IMAGE_METRICS, SEQUENCE_METRICS, check_measures, count_image, evaluate_sequence
from pipelines.errors import InputError
from pipelines.images import image_stem, read_labels
from pipelines.sources.pairs import labels_of_mask

DEFAULT_MEASURES = (
    "pixel_accuracy",
    "iou",
    "dice",
    "average_precision",
    "average_precision_75",
    "average_precision_90",
    "seg",
    "count_error",
)
LABEL_SUFFIXES = (".tif", ".tiff", ".png", ".bmp")
CTC_TRUTH = re.compile(r"man_(?:seg|track)(\d+)$")
CTC_RESULT = re.compile(r"mask(\d+)$")
SHOWN = 5  # names that a message lists before it says how many more there are


class Scores:
    """Scores of a data set, one image at a time, in memory that does not grow with the images' size.

    Args:
        measures: Names from `cellseg.metrics.IMAGE_METRICS`.

    Raises:
        InputError: an unknown measure.
    """

    def __init__(self, measures: Sequence[str] = DEFAULT_MEASURES) -> None:
        self.measures = check_measures(measures)
        self._totals: dict[str, np.ndarray] = {}
        self._per_image: list[dict] = []

    def add(
        self, name: str, labels_true: np.ndarray, labels_pred: np.ndarray, ignore: np.ndarray | None = None
    ) -> dict:
        """Count one image, (H, W), and return its own scores: {"name": name, measure: value or None}."""
        row: dict = {"name": name}
        for measure, counts in count_image(self.measures, labels_true, labels_pred, ignore).items():
            self._totals[measure] = self._totals.get(measure, 0) + counts
            row[measure] = _or_none(IMAGE_METRICS[measure].value(counts))
        self._per_image.append(row)
        return row

    def result(self) -> dict:
        """What has been added so far, ready for JSON: an undefined value (NaN) is None.

        Returns:
            {"images": n, "measures": {measure: pooled value}, "undefined": {measure: images in which it is
            undefined}, "per_image": [{"name": ..., measure: value}]}. Without images every measure is None.
        """
        pooled = {
            name: _or_none(IMAGE_METRICS[name].value(self._totals[name])) if name in self._totals else None
            for name in self.measures
        }
        undefined = {name: sum(row[name] is None for row in self._per_image) for name in self.measures}
        return {
            "images": len(self._per_image),
            "measures": pooled,
            "undefined": undefined,
            "per_image": list(self._per_image),
        }


class Baselines:
    """What two answers that need no network score: all background, and all foreground (one object).

    A score means something only beside these: with 8 % foreground, all background has a pixel accuracy of 0.92.

    Args:
        measures: Names from `cellseg.metrics.IMAGE_METRICS`.
    """

    def __init__(self, measures: Sequence[str] = DEFAULT_MEASURES) -> None:
        self._background, self._foreground = Scores(measures), Scores(measures)

    def add(self, labels_true: np.ndarray, ignore: np.ndarray | None = None) -> None:
        """Count one image's truth, (H, W)."""
        self._background.add("", labels_true, np.zeros(labels_true.shape, np.int32), ignore)
        self._foreground.add("", labels_true, np.ones(labels_true.shape, np.int32), ignore)

    def result(self) -> dict:
        """{"baseline": {measure: pooled value of all background}, "baseline_foreground": {the same}}."""
        return {
            "baseline": self._background.result()["measures"],
            "baseline_foreground": self._foreground.result()["measures"],
        }


@dataclass(frozen=True)
class Pair:
    """A file of true labels and the file of predicted ones.

    Args:
        name: What both are called in the scores: the truth's stem without `_mask` or `_label`, or the frame number.
        truth: File of true labels.
        prediction: File of predicted labels.
    """

    name: str
    truth: Path
    prediction: Path

    @property
    def is_ctc(self) -> bool:
        """Whether the truth is named as the Cell Tracking Challenge does."""
        return CTC_TRUTH.match(self.truth.stem) is not None


def evaluate_folders(
    truth: Path | str,
    prediction: Path | str,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    progress: Callable[[list[Pair]], Iterable[Pair]] = iter,
) -> dict:
    """Score the label files of one folder against those of another, or one file against one.

    A multi-page file is a stack; its pages are images named `STEM/000`, `STEM/001`, ... An image that holds 0 and 255
    alone (0 and 1 in a folder called masks) is a mask, whose connected pieces become its labels, as in the layout
    `pairs`; not so under CTC names, where 255 is a cell's id.

    Args:
        truth: Folder of label TIFFs or PNGs, a CTC folder (`01_GT`), or a file.
        prediction: The same for the prediction (`01_RES`).
        measures: Names from `cellseg.metrics.IMAGE_METRICS`.
        progress: Wraps the list of pairs, to show how far it is.

    Returns:
        As `Scores.result`.

    Raises:
        FileNotFoundError: a folder or file does not exist.
        InputError: no label files, a file without a partner, sizes or numbers of pages that differ.
    """
    over_time = [name for name in measures if name in SEQUENCE_METRICS and name not in IMAGE_METRICS]
    found = evaluate_sequence(truth, prediction, over_time) if over_time else {}
    single = [name for name in measures if name not in over_time]
    if not single:
        return {"images": found["images"], "measures": found["measures"], "undefined": {}, "per_image": []}
    scores = Scores(single)
    for pair in progress(pair_files(truth, prediction)):
        stack_true, stack_pred = (_read(path, pair.is_ctc) for path in (pair.truth, pair.prediction))
        if stack_true.shape != stack_pred.shape:
            raise InputError(
                f"{pair.truth} holds {_size(stack_true)}, but {pair.prediction} holds {_size(stack_pred)}. "
                "Truth and prediction must be the same image, at the same size."
            )
        for page, (labels_true, labels_pred) in enumerate(zip(stack_true, stack_pred, strict=True)):
            scores.add(pair.name if len(stack_true) == 1 else f"{pair.name}/{page:03d}", labels_true, labels_pred)
    result = scores.result()
    pooled = result["measures"] | found.get("measures", {})
    return result | {"measures": {name: pooled[name] for name in dict.fromkeys(measures)}}


def pair_files(truth: Path | str, prediction: Path | str) -> list[Pair]:
    """Find which predicted file belongs to which true one, sorted by name; nothing is read.

    Files match by stem, with or without `_mask`, `_masks`, `_label` or `_labels` at its end. If every truth is called
    `man_segNNN` (or `man_trackNNN`) and every prediction `maskNNN`, they match by number, and predictions of frames
    without truth are left out: the Cell Tracking Challenge annotates some frames only. A truth folder with a `SEG`
    folder in it (`01_GT`, `01_ST`) stands for that one.

    Raises:
        FileNotFoundError: a folder or file does not exist.
        InputError: no label files, two files of one name, or a file without a partner.
    """
    truth, prediction = Path(truth), Path(prediction)
    for path in (truth, prediction):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist. A folder of label TIFFs or PNGs was expected, or a file.")
    if truth.is_file() and prediction.is_file():
        return [Pair(_plain(truth), truth, prediction)]
    for path, other in ((truth, prediction), (prediction, truth)):
        if path.is_file():
            raise InputError(f"{path} is a file, but {other} is a folder. Give two folders or two files.")
    if (truth / "SEG").is_dir():
        truth = truth / "SEG"
    files_true, files_pred = _label_files(truth), _label_files(prediction)
    numbers_true, numbers_pred = _numbers(files_true, CTC_TRUTH), _numbers(files_pred, CTC_RESULT)
    is_ctc = numbers_true is not None and numbers_pred is not None
    named_true = _by_name(files_true, numbers_true if is_ctc else None)
    named_pred = _by_name(files_pred, numbers_pred if is_ctc else None)
    lonely_true = sorted(set(named_true) - set(named_pred))
    lonely_pred = [] if is_ctc else sorted(set(named_pred) - set(named_true))
    if lonely_true or lonely_pred:
        missing = [
            f"{len(names)} of {len(named)} files in {folder} have no partner: "
            f"{_some(named[name].name for name in names)}."
            for names, named, folder in ((lonely_true, named_true, truth), (lonely_pred, named_pred, prediction))
            if names
        ]
        raise InputError(
            " ".join(missing) + " Truth and prediction match by file name without its ending (and without _mask or "
            "_label); rename or remove the files that stand alone."
        )
    return [Pair(name, named_true[name], named_pred[name]) for name in sorted(named_true)]


def _label_files(folder: Path) -> list[Path]:
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in LABEL_SUFFIXES and not path.name.startswith(".")
    )
    stems = {path.stem for path in files}
    # What cellseg-predict writes beside STEM.tif on request is not a label file.
    extras = {f"{stem}{ending}" for stem in stems for ending in ("_probability", "_overlay", "_classes")}
    files = [path for path in files if path.stem not in extras]
    if not files:
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
        hint = f" It holds the folders {_some(inside)}: did you mean one of them?" if inside else ""
        raise InputError(f"{folder} holds no label file ({', '.join(LABEL_SUFFIXES)}).{hint}")
    return files


def _numbers(files: list[Path], pattern: re.Pattern) -> list[str] | None:
    """Frame numbers as names, or None if a file is called otherwise."""
    found = [pattern.match(file.stem) for file in files]
    return [f"{int(one[1]):03d}" for one in found if one] if all(found) else None


def _by_name(files: list[Path], names: list[str] | None) -> dict[str, Path]:
    names = names or [_plain(file) for file in files]
    for name, times in Counter(names).items():
        if times > 1:
            same = [str(file) for file, other in zip(files, names, strict=True) if other == name]
            raise InputError(f"These files stand for one image, {name}: {_some(same)}. Keep one of them in the folder.")
    return dict(zip(names, files, strict=True))


def _plain(file: Path) -> str:
    return re.sub(r"_(?:mask|label)s?$", "", image_stem(file)) or file.stem


def _read(path: Path, is_ctc: bool) -> np.ndarray:
    stack = read_labels(path)
    if is_ctc:
        return stack
    return np.stack([labels_of_mask(page) for page in stack])


def _size(stack: np.ndarray) -> str:
    pages, height, width = stack.shape
    return f"{pages} page{'s' if pages > 1 else ''} of {height}x{width} pixels"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
