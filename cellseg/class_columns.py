"""Class columns: what kind of cell each one is, by name, in the table of cells and in that of tracks.

Pixels vote for the class of a cell in `cellseg.answers`; all other columns are measured in `cellseg.measuring` and
`cellseg.motion`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

COLUMN = "class"


class ClassColumns:
    """Classes of the cells of a sequence, or of an image with its pages, noted down frame by frame.

    Args:
        names: Of the classes, class 1 first.
        read: Frame -> class map int32 (H, W), one class a cell, 0 where no cell was found.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], np.ndarray]):
        self._names, self._read = np.array(["", *names], object), read
        self._noted: dict[tuple[int, int], str] = {}

    def note(self, frame: int, tracked: np.ndarray) -> None:
        """Take the classes of a frame by the ids of its cells; a cell drawn where none was found has none."""
        classes = self._read(frame)
        ids, places = np.unique(tracked, return_index=True)
        kinds = self._names[classes.ravel()[places]]
        self._noted |= {(frame, cell): kind for cell, kind in zip(ids.tolist(), kinds, strict=True) if cell}

    def cells(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table of `measuring.measure_cells` with the class of each cell after its track; empty = none."""
        keys = zip(table["frame"].tolist(), table["label"].tolist(), strict=True)
        found = pd.Series([self._noted.get(key, "") for key in keys], index=table.index, dtype="str")
        return _with(table, found, after="track")

    def tracks(self, table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
        """The table of `motion.measure_tracks` with the class that most of a track's cells have.

        Args:
            table: With column `track`.
            cells: From `cells`.

        Returns:
            The first class among equals, in the run's order; empty for a track none of whose cells has a class.
        """
        order = {name: place for place, name in enumerate(self._names)}
        counted = cells[cells[COLUMN] != ""].groupby(["track", COLUMN]).size().reset_index(name="count")
        counted["order"] = counted[COLUMN].map(order)
        best = counted.sort_values(["count", "order"], ascending=[False, True]).drop_duplicates("track")
        most = dict(zip(best["track"].tolist(), best[COLUMN], strict=True))
        found = pd.Series([most.get(track, "") for track in table["track"].tolist()], index=table.index, dtype="str")
        return _with(table, found, after="parent")


def _with(table: pd.DataFrame, column: pd.Series, *, after: str) -> pd.DataFrame:
    table = table.copy()
    table.insert(list(table).index(after) + 1, COLUMN, column)
    return table
