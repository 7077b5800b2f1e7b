"""Score files: what an evaluation leaves beside its printed table: CSV of scores, list of operations, pictures.

The scores themselves are made in `cellseg.evaluation`; how a picture is drawn is decided in `cellseg.figures`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg.evaluation import BASELINES
from cellseg.metrics.aogm import Operation
from cellseg.mistakes import KINDS, Mistakes
from cellseg.pairing import Pair, plain_stem, some
from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.images import image_files, read_pages

CTC_IMAGE = re.compile(r"t(\d+)$")


def scores_table(result: Mapping) -> pd.DataFrame:
    """Scores as a table.

    Args:
        result: As `cellseg.evaluation.Scores.result`, possibly with "baseline" and "baseline_foreground".

    Returns:
        Columns row, name, each measure, each kind of cell. `row` says what stands there: "image" (called `name`),
        "pooled", "interval low" and "interval high" (95 %), and of a run "all background" and "all foreground".
        Undefined values are missing (NaN); numbers of cells stand in the rows of images and "pooled".
    """
    kinds = {row["name"]: {kind: row[kind] for kind in KINDS} for row in result.get("mistakes_per_image", [])}
    rows = [{"row": "image", **scores, **kinds.get(scores["name"], {})} for scores in result["per_image"]]
    rows.append({"row": "pooled", **result["measures"], **(result.get("mistakes") or {})})
    for place, end in enumerate(("low", "high")):
        ends = {name: None if both is None else both[place] for name, both in result.get("intervals", {}).items()}
        rows.append({"row": f"interval {end}", **ends})
    rows += [{"row": title, **result[key]} for key, title in BASELINES.items() if key in result]
    columns = ["row", "name", *result["measures"], *(KINDS if result.get("mistakes") else ())]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({kind: "Int64" for kind in KINDS if kind in columns})


def operations_table(operations: list[Operation]) -> pd.DataFrame:
    """One row an operation: kind, frame, from_frame (links), labels_true, labels_pred (ids, a space between), count."""
    rows = [
        {
            "kind": one.kind,
            "frame": one.frame,
            "from_frame": one.from_frame,
            "labels_true": " ".join(map(str, one.labels_true)),
            "labels_pred": " ".join(map(str, one.labels_pred)),
            "count": one.count,
        }
        for one in operations
    ]
    columns = ["kind", "frame", "from_frame", "labels_true", "labels_pred", "count"]
    return pd.DataFrame(rows, columns=columns).astype({"from_frame": "Int64"})


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV; the file appears whole or not at all."""
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False)


class MistakePictures:
    """Draws every image that is scored: NAME_errors.png, one colour a kind of mistake.

    Args:
        folder: Where the pictures go; made if missing. An image `STEM/007` of a stack is `STEM/007_errors.png`.
        images: Folder of the images, which match by stem as labels do (a CTC frame NNN by tNNN); None draws on the
            true cells in grey.

    Raises:
        FileNotFoundError, InputError: no such folder, no image in it, or two of one name.
    """

    def __init__(self, folder: Path, images: Path | None = None) -> None:
        self.folder = folder
        self.images = images
        self._files: dict[str, Path] = {}
        self._pages: tuple[Path, np.ndarray] | None = None
        for file in image_files(images) if images is not None else []:
            number = CTC_IMAGE.fullmatch(file.stem)
            for name in {plain_stem(file), *([f"{int(number[1]):03d}"] if number else [])}:
                if name in self._files:
                    raise InputError(f"{self._files[name]} and {file} are both images of {name}. Keep one of them.")
                self._files[name] = file

    def check(self, pairs: list[Pair]) -> None:
        """Raise InputError if the image of a pair is missing."""
        missing = [pair.name for pair in pairs if pair.name not in self._files]
        if self.images is not None and missing:
            raise InputError(
                f"{len(missing)} of {len(pairs)} images were not found in {self.images}: {some(missing)}. "
                "Images match labels by file name without its ending; leave out --images to draw without them."
            )

    def watch(
        self, pair: Pair, name: str, labels_true: np.ndarray, labels_pred: np.ndarray, mistakes: Mistakes | None
    ) -> None:
        """Draw one image of a pair of files; see `cellseg.evaluation.Watch`."""
        if mistakes is None or labels_true.ndim != 2:
            what = "holds a probability" if mistakes is None else "is a volume"
            raise InputError(f"{pair.prediction} {what}; --overlay draws the cells of 2-D labels. Leave it out.")
        image = None
        if self.images is not None:
            pages = self._read(self._files[pair.name])
            page = int(name.removeprefix(f"{pair.name}/")) if name != pair.name else 0
            if page >= len(pages) or pages.shape[1:3] != labels_true.shape:
                raise InputError(
                    f"{self._files[pair.name]} holds {len(pages)} page(s) of {pages.shape[1]}x{pages.shape[2]} pixels, "
                    f"but {pair.truth} needs page {page + 1} of {labels_true.shape[0]}x{labels_true.shape[1]}. Give "
                    "the images that the labels were made from."
                )
            image = pages[page]
        self.draw(name, labels_true, labels_pred, mistakes, image)

    def draw(
        self,
        name: str,
        labels_true: np.ndarray,
        labels_pred: np.ndarray,
        mistakes: Mistakes,
        image: np.ndarray | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Draw one image; `limits` (low, high) of its contrast in its own values."""
        from cellseg import figures

        png = figures.mistake_outlines(labels_true, labels_pred, mistakes, image=image, limits=limits, title=name)
        with whole_file(self.folder / f"{name}_errors.png") as temporary:
            temporary.write_bytes(png)

    def _read(self, file: Path) -> np.ndarray:
        # The pages of a stack are drawn one after the other.
        if self._pages is None or self._pages[0] != file:
            self._pages = (file, read_pages(file))
        return self._pages[1]
