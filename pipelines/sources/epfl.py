"""Layout `epfl`: mitochondria in the EPFL hippocampus stacks, also as re-annotated in Lucchi++.

Reading stacks of slices lives in `pipelines.sources.stacks`; giving a mitochondrion one identity through all its
slices is not done here but from the labels later.
"""

from pathlib import Path

from pipelines.sample import Item
from pipelines.sources.stacks import Stack, check_folder, open_stack, slice_items

PARTS = {"training": "train", "testing": "test"}  # name of the stack: the split that it is published as
SPACING_UM = (0.005, 0.005)  # 5 x 5 x 5 nm voxels: https://www.epfl.ch/labs/cvlab/data/data-em/


def find(source: Path | str) -> list[Item]:
    """Slices of training.tif and testing.tif with training_groundtruth.tif and testing_groundtruth.tif.

    Any of the stacks may be a folder of that name with one PNG or TIFF a slice instead. One of the two parts may be
    missing. Labels are the 8-connected components of the 0/255 mask, slice by slice: ids of different slices have
    nothing to do with each other.

    Returns:
        Items in the order of the stacks, training first: name `training/000`, source `training`, frame = slice,
        published as `train` or `test`. The pixel size is that of the data set, 5 nm, where the file says none.

    Raises:
        FileNotFoundError: The folder is missing, both parts are, or a stack without its ground truth (or the reverse).
        InputError: See `open_stack` and `slice_items`.
    """
    source = Path(source)
    check_folder(source, "training.tif and training_groundtruth.tif")
    items: list[Item] = []
    for part, published in PARTS.items():
        stack, truth = open_stack(source, part), open_stack(source, f"{part}_groundtruth")
        if stack is not None and truth is not None:
            items += slice_items(
                stack, truth, source=part, digits=3, connectivity=2, spacing_um=SPACING_UM, published=published
            )
        elif stack is not None:
            raise _alone(stack, f"{part}_groundtruth")
        elif truth is not None:
            raise _alone(truth, part)
    if not items:
        raise FileNotFoundError(
            f"{source} holds neither training.tif nor testing.tif. The layout 'epfl' needs training.tif with "
            "training_groundtruth.tif, or the two of testing, or folders of these names."
        )
    return items


def _alone(stack: Stack, missing: str) -> FileNotFoundError:
    folder = stack.path.parent
    return FileNotFoundError(f"{stack.path} is alone: {folder} holds no {missing}.tif and no folder {missing}.")
