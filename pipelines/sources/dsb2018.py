"""Layout `dsb2018`: the nuclei of the 2018 Data Science Bowl, a folder an image, one binary PNG a nucleus.

Which of the images are for training is not decided here but in `pipelines.splits`.
"""

from functools import partial
from pathlib import Path

import numpy as np

from pipelines import images
from pipelines.errors import InputError, nearest
from pipelines.sample import Item, Sample

KINDS = ("all", "fluorescence", "stained")
STAGE = "stage1_train"


def find(source: Path | str, *, kind: str = "all") -> list[Item]:
    """Images of SOURCE/(stage1_train/)ID/images/*.png with their masks/*.png; the name is ID.

    Args:
        source: The data-set folder, or stage1_train in it.
        kind: "fluorescence" (grey, dark ground), "stained" (the rest), or "all". Every kind but "all" reads the
            images once to tell them apart.

    Returns:
        Items sorted by name.

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: No id folder, an id without image or without masks, an unknown or absent kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind is '{kind}'.{nearest(str(kind), KINDS)} Known: {', '.join(KINDS)}.")
    source = Path(source)
    root = source / STAGE if (source / STAGE).is_dir() else source
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. It should hold {STAGE}/ID/images and .../masks.")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"{root} holds no folder. The layout 'dsb2018' has ID/images/ID.png and ID/masks/*.png in it.")
    items = [_item(folder) for folder in folders]
    if kind != "all":
        fluorescent = {item.name for item in items if is_fluorescence(_read_image(Path(item.files[0])))}
        items = [item for item in items if (item.name in fluorescent) == (kind == "fluorescence")]
    if not items:
        raise InputError(f"None of the {len(folders)} images in {root} is of kind '{kind}'.")
    return items


def is_fluorescence(image: np.ndarray) -> bool:
    """Whether an image (H, W, C) is grey on a dark ground: its median lies below half of what its dtype holds."""
    top = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1.0
    return image.shape[-1] == 1 and bool(np.median(image) < top / 2)


def load(image_file: Path, mask_files: tuple[Path, ...]) -> Sample:
    """One image, its nuclei numbered 1..n in the order of the mask files; a pixel of two masks goes to the first."""
    image = _read_image(image_file)
    labels = np.zeros_like(image[..., 0], dtype=np.int32)
    for number, path in enumerate(mask_files, start=1):
        mask = images.read_labels(path)[0] > 0
        if mask.shape != labels.shape:
            raise InputError(
                f"{path} is {mask.shape[0]}x{mask.shape[1]} pixels, but its image {image_file} is "
                f"{labels.shape[0]}x{labels.shape[1]}. They must be the same size."
            )
        labels[mask & (labels == 0)] = number
    return Sample(image=image, labels=labels, name=image_file.parent.parent.name)


def _read_image(path: Path) -> np.ndarray:
    # The files are RGBA throughout; three equal channels are a grey image.
    image = images.read_image(path)
    return image[..., :1] if (image == image[..., :1]).all() else image


def _item(folder: Path) -> Item:
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise InputError(f"{folder} has no folder {part}. Each id folder holds images/ID.png and masks/*.png.")
    pictures, masks = images.image_files(folder / "images"), tuple(images.image_files(folder / "masks"))
    if len(pictures) != 1:
        raise InputError(f"{folder / 'images'} holds {len(pictures)} images; exactly one was expected.")
    return Item(name=folder.name, load=partial(load, pictures[0], masks), files=(pictures[0], *masks))
