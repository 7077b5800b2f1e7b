"""Layout `ctc`: sequences of the Cell Tracking Challenge with gold, silver or marker truth.

The tracks in man_track.txt are only located here (`tracks_file`), not read.
"""

import difflib
import re
from functools import partial
from pathlib import Path

import numpy as np

from pipelines import images
from pipelines.errors import InputError
from pipelines.sample import Item, Sample

# Truth: folder after the name of the sequence, and what its files are called before the frame number.
TRUTHS = {
    "gold": ("_GT/SEG", "man_seg"),
    "silver": ("_ST/SEG", "man_seg"),
    "markers": ("_GT/TRA", "man_track"),
}
SEQUENCE = re.compile(r"\d+")


def find(source: Path | str, *, truth: str = "gold", sequence: str | int | None = None) -> list[Item]:
    """Frames that have a truth file; frames without one are left out.

    Args:
        source: Data-set folder, which holds 01/tNNN.tif and 01_GT/SEG, 01_GT/TRA or 01_ST/SEG.
        truth: "gold" (by hand, often few frames, and not every cell of them), "silver" (computed, every cell) or
            "markers" (01_GT/TRA: one blob a cell, not its outline).
        sequence: Only this one, "01" or 1; None takes all.

    Returns:
        Items sorted by name: name `01/t000`, source `01`, frame 0.

    Raises:
        FileNotFoundError: The data set, the sequence or its truth folder is missing.
        InputError: An unknown truth, a truth folder without files, a truth file without image.
    """
    if truth not in TRUTHS:
        near = difflib.get_close_matches(str(truth), TRUTHS, 1, 0.0)[0]
        raise InputError(f"data.truth is '{truth}'. Did you mean '{near}'? Known: {', '.join(TRUTHS)}.")
    source = Path(source)
    return [item for name in _sequences(source, sequence) for item in _items(source, name, truth)]


def tracks_file(source: Path | str, sequence: str) -> Path | None:
    """Path of the sequence's man_track.txt, None if it has none."""
    path = Path(source) / f"{sequence}_GT" / "TRA" / "man_track.txt"
    return path if path.is_file() else None


def load(image_file: Path, label_file: Path, name: str) -> Sample:
    """Read one frame and its truth."""
    sequence, frame = name.split("/t")
    try:
        return Sample(
            image=images.read_image(image_file),
            labels=_one_page(label_file),
            name=name,
            source=sequence,
            frame=int(frame),
            spacing_um=images.read_spacing_um(image_file),
        )
    except InputError as error:
        if str(image_file) in str(error) or str(label_file) in str(error):
            raise
        raise InputError(f"{error} Files: {image_file}, {label_file}.") from error


def _one_page(path: Path) -> np.ndarray:
    labels = images.read_labels(path)
    if len(labels) != 1:
        raise InputError(f"{path} holds {len(labels)} pages; 2-D truth with one page was expected.")
    return labels[0]


def _sequences(source: Path, wanted: str | int | None) -> list[str]:
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}. It should hold 01/tNNN.tif and 01_GT or 01_ST.")
    found = sorted(path.name for path in source.iterdir() if path.is_dir() and SEQUENCE.fullmatch(path.name))
    if not found:
        hint = f" Give its parent folder, {source.parent}." if SEQUENCE.fullmatch(source.name) else ""
        raise InputError(f"{source} holds no sequence: a folder such as 01 with t000.tif in it was expected.{hint}")
    if wanted is None:
        return found
    # YAML reads an unquoted 01 as the number 1.
    chosen = [name for name in found if name == str(wanted) or (str(wanted).isdigit() and int(name) == int(wanted))]
    if not chosen:
        raise FileNotFoundError(f"{source} has no sequence '{wanted}'. It has: {', '.join(found)}.")
    return chosen


def _items(source: Path, sequence: str, truth: str) -> list[Item]:
    suffix, prefix = TRUTHS[truth]
    folder = source / f"{sequence}{suffix}"
    if not folder.is_dir():
        present = [name for name, (other, _) in TRUTHS.items() if (source / f"{sequence}{other}").is_dir()]
        there = f"It has: {', '.join(present)}; set data.truth (--truth)." if present else "It has no truth at all."
        raise FileNotFoundError(f"There is no folder {folder}, so sequence {sequence} has no {truth} truth. {there}")
    labels, pictures = _frames(folder, prefix), _frames(source / sequence, "t")
    missing = [path.name for frame, path in labels.items() if frame not in pictures]
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        raise InputError(
            f"{len(missing)} of {len(labels)} truth files in {folder} have no image in {source / sequence}: "
            f"{', '.join(missing[:5])}{more}. Each needs the tNNN.tif of its number."
        )
    return [
        Item(
            name=(name := f"{sequence}/{pictures[frame].stem}"),
            load=partial(load, pictures[frame], path, name),
            source=sequence,
            frame=frame,
            files=(pictures[frame], path),
        )
        for frame, path in labels.items()
    ]


def _frames(folder: Path, prefix: str) -> dict[int, Path]:
    """Files PREFIX + number by their number, in its order."""
    found: dict[int, Path] = {}
    for path in images.image_files(folder):
        if match := re.fullmatch(rf"{prefix}(\d+)", path.stem):
            frame = int(match[1])
            if frame in found:
                raise InputError(f"{found[frame]} and {path} are both frame {frame}. Keep one of them.")
            found[frame] = path
        elif re.fullmatch(rf"{prefix}_\d+_\d+", path.stem):
            raise InputError(f"{path} is one slice of a 3-D volume; 2-D sequences ({prefix}NNN.tif) were expected.")
    if not found:
        raise InputError(f"{folder} holds no file {prefix}NNN.tif.")
    return dict(sorted(found.items()))
