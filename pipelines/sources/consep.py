"""Layout `consep`: nuclei of colorectal tissue (CoNSeP), every nucleus of one of four classes.

Which images are for training is decided in `pipelines.splits`; the data set's own parts are only passed on.
"""

from functools import partial
from pathlib import Path

import numpy as np

from pipelines import images
from pipelines.errors import InputError
from pipelines.sample import Item, Sample

# The seven types of the original files as merged by Graham et al. 2019 (HoVer-Net),
# https://doi.org/10.1016/j.media.2019.101563
CLASSES = ("miscellaneous", "inflammatory", "epithelial", "spindle-shaped")
PARTS = {"Train": "train", "Test": "test"}
IMAGES, INSTANCES, TYPES = "Images", "Inst", "Class"
SHOWN = 5


def find(source: Path | str) -> list[Item]:
    """Images of Train/Images and Test/Images with the ids of their nuclei in Inst and the class of each pixel in Class.

    Files of one image have one stem, whatever their type. One of the two parts may be missing.

    Returns:
        Items sorted by name within a part, Train first: name `Train/train_1`, source `Train`, published "train" or
        "test".

    Raises:
        FileNotFoundError: The folder is missing, both parts are, or a folder of a part is.
        InputError: An empty folder, a file without its counterpart in the other folders, two files with one stem.
    """
    source = Path(source)
    parts = [part for part in PARTS if (source / part).is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"{source} holds neither Train nor Test. The layout 'consep' needs Train/{IMAGES}, Train/{INSTANCES} and "
            f"Train/{TYPES}, or those of Test."
        )
    return [item for part in parts for item in _items(source / part, part)]


def load(image_file: Path, instance_file: Path, class_file: Path, name: str) -> Sample:
    """Read one image, its nuclei and their classes."""
    files = (image_file, instance_file, class_file)
    try:
        labels, types = _one_page(instance_file), _one_page(class_file)
        if labels.shape != types.shape:
            raise InputError(
                f"{name}: the nuclei are {labels.shape[0]}x{labels.shape[1]} pixels, but their classes "
                f"{types.shape[0]}x{types.shape[1]}. They must be the same size."
            )
        return Sample(
            image=images.read_image(image_file),
            labels=labels,
            name=name,
            source=name.split("/")[0],
            classes=class_of_each_nucleus(labels, types, class_file),
        )
    except InputError as error:
        if any(str(file) in str(error) for file in files):
            raise
        raise InputError(f"{error} Files: {', '.join(map(str, files))}.") from error


def class_of_each_nucleus(labels: np.ndarray, types: np.ndarray, where: Path) -> np.ndarray:
    """Class of each pixel, such that a nucleus has one class and everything else none.

    The nuclei are the truth about where cells are: classes beside them are dropped, and a nucleus takes the class of
    most of its pixels (of those with a class), the lower one where two are even. In the published files the two agree.

    Args:
        labels: int32 (H, W).
        types: int32 (H, W), 0 = no class.
        where: File of the classes, for messages.

    Returns:
        int32 (H, W), 0 exactly where `labels` is.

    Raises:
        InputError: A class above 4, or a nucleus no pixel of which has a class.
    """
    if types.size and types.max() > len(CLASSES):
        raise InputError(
            f"{where} holds class {types.max()}; 0 to {len(CLASSES)} were expected: {', '.join(CLASSES)}. The original "
            "files have seven types: merge 3 and 4 into 3 (epithelial), and 5, 6 and 7 into 4 (spindle-shaped)."
        )
    cells = labels > 0
    ids, nucleus = np.unique(labels[cells], return_inverse=True)
    kinds = len(CLASSES) + 1
    votes = np.bincount(nucleus * kinds + types[cells], minlength=len(ids) * kinds).reshape(-1, kinds)[:, 1:]
    bare = ids[votes.sum(axis=1) == 0]
    if len(bare):
        more = ", ..." if len(bare) > SHOWN else ""
        raise InputError(
            f"{where} gives no class to {len(bare)} of {len(ids)} nuclei: "
            f"id {', '.join(map(str, bare[:SHOWN]))}{more}. Every nucleus needs a class."
        )
    classes = np.zeros_like(labels)
    classes[cells] = 1 + votes.argmax(axis=1)[nucleus]
    return classes


def _one_page(path: Path) -> np.ndarray:
    pages = images.read_labels(path)
    if len(pages) != 1:
        raise InputError(f"{path} holds {len(pages)} pages; one was expected.")
    return pages[0]


def _items(folder: Path, part: str) -> list[Item]:
    for name in (IMAGES, INSTANCES, TYPES):
        if not (folder / name).is_dir():
            raise FileNotFoundError(
                f"There is no folder {folder / name}. The layout 'consep' needs {IMAGES} (pictures), {INSTANCES} (ids "
                f"of the nuclei) and {TYPES} (class of each pixel) in {folder}."
                + (" Labels/*.mat must be exported to the last two." if (folder / "Labels").is_dir() else "")
            )
    kinds = {name: _by_stem(folder / name) for name in (IMAGES, INSTANCES, TYPES)}
    for name, files in kinds.items():
        for other, others in kinds.items():
            if alone := sorted(files.keys() - others.keys()):
                more = ", ..." if len(alone) > SHOWN else ""
                raise InputError(
                    f"{len(alone)} of {len(files)} files in {folder / name} have no file of their name in "
                    f"{folder / other}: {', '.join(files[stem].name for stem in alone[:SHOWN])}{more}. Add the missing "
                    "files, or move the others away."
                )
    pictures, instances, types = kinds.values()
    return [_item(part, stem, pictures[stem], instances[stem], types[stem]) for stem in sorted(pictures)]


def _item(part: str, stem: str, image: Path, instances: Path, types: Path) -> Item:
    name, files = f"{part}/{stem}", (image, instances, types)
    return Item(name=name, load=partial(load, *files, name), source=part, files=files, published=PARTS[part])


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in images.image_files(folder):
        if path.stem in found:
            raise InputError(f"{found[path.stem]} and {path} have the same stem. Keep one of them there.")
        found[path.stem] = path
    return found
