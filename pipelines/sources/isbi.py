"""Layout `isbi`: the neuron stack of the ISBI 2012 challenge, cell interiors against membranes.

Reading stacks of slices lives in `pipelines.sources.stacks`.
"""

from pathlib import Path

from pipelines.sample import Item
from pipelines.sources.stacks import check_folder, open_stack, slice_items

IMAGES, LABELS = "train-volume", "train-labels"
SPACING_UM = (
    0.004,
    0.004,
)  # 4 x 4 x 50 nm voxels: Arganda-Carreras et al. 2015, https://doi.org/10.3389/fnana.2015.00142


def find(source: Path | str) -> list[Item]:
    """Slices of train-volume.tif with their truth in train-labels.tif: 255 = inside of a cell, 0 = membrane.

    Either stack may be a folder of that name with one PNG or TIFF a slice instead. The labels of test-volume were
    never published, so its slices are no items.

    Labels are the 4-connected components of the interior of each slice: membranes are lines that may go on by a
    corner, so interiors that touch by a corner only are two cells; with 8 neighbours they would leak through.

    Returns:
        Items in the order of the stack: name `train/00`, source `train`, frame = slice. The pixel size is that of the
        challenge, 4 nm, where the file says none.

    Raises:
        FileNotFoundError: The folder or one of the two stacks is missing.
        InputError: See `open_stack` and `slice_items`.
    """
    source = Path(source)
    check_folder(source, f"{IMAGES}.tif and {LABELS}.tif")
    stack, truth = open_stack(source, IMAGES), open_stack(source, LABELS)
    if stack is None or truth is None:
        missing = IMAGES if stack is None else LABELS
        raise FileNotFoundError(
            f"{source} holds no {missing}.tif and no folder {missing}. The layout 'isbi' needs {IMAGES} and {LABELS}."
        )
    return slice_items(stack, truth, source="train", digits=2, connectivity=1, spacing_um=SPACING_UM)
