"""Motion: what is measured on tracks: paths, speeds, mean squared displacement, divisions.

The table of cells that it starts from lives in `cellseg.measuring`; tracks are found in `cellseg.tracking`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cellseg.measuring import check_interval, check_spacing
from pipelines.errors import InputError
from pipelines.tracks import Track


def measure_tracks(
    cells: pd.DataFrame,
    tracks: Mapping[int, Track],
    *,
    spacing_um: Sequence[float] | None = None,
    interval_s: float | None = None,
) -> pd.DataFrame:
    """Measure every track: how long it lives, how far and how fast its cell moves, and when it divides.

    The place of a cell is its nucleus where the cells were measured with one, else its centroid. Where a track has a
    gap, its path is straight and its speed the distance over the true time; cells that were drawn to fill one do not
    count as seen.

    Args:
        cells: `measure_cells`; lines with track 0, and filled ones, are passed over.
        tracks: Tracks by label, as `pipelines.tracks.read_tracks` gives them.
        spacing_um: (row, column) size of a pixel in micrometres, where known.
        interval_s: Seconds between frames, where known.

    Returns:
        One line a track, labels ascending; without tracks no line, but all columns:

        - track, parent (0 = none), start, end (first and last frame), num_frames (in which the cell is seen)
        - path_length, net_displacement (first place to last): pixels
        - mean_speed = path_length / frames between first and last place, max_speed (of the steps): pixels a frame
        - directionality = net_displacement / path_length, 1 = straight; NaN for a cell that has not moved
        - duration = end - start, in frames; a track of one frame has 0
        - daughters: labels with a blank between them; num_daughters
        - division_time: frames from the cell's first to its daughters' first, where it was born by a division and ends
          in one, else NaN. A division has two or more daughters; an only daughter is the same cell after a gap, and
          the time runs through.
        - mean_area: pixels
        - the same in units: path_length_um, net_displacement_um, mean_area_um2 with `spacing_um`; duration_s and
          division_time_s with `interval_s`; mean_speed_um_per_s, max_speed_um_per_s with both

        Speeds and displacements of a track that is seen in one frame are NaN and 0; all places are NaN in none.

    Raises:
        InputError: A cell whose track is not in the table or does not live in its frame, or twice in one frame.
    """
    spacing = check_spacing(spacing_um)
    check_interval(interval_s)
    places = _places(cells)
    _check(places, tracks)
    table = _family(tracks)
    seen = places.groupby("track", sort=True)
    count = seen.size().reindex(table["track"], fill_value=0).to_numpy()
    table.insert(4, "num_frames", count)
    moved = _moved(places, table["track"], (1.0, 1.0))
    for name in ("path_length", "net_displacement", "mean_speed", "max_speed", "directionality"):
        table.insert(len(table.columns) - 4, name, moved[name])
    table["mean_area"] = seen["area"].mean().reindex(table["track"]).to_numpy(np.float64)
    if spacing is not None:
        moved_um = _moved(places, table["track"], spacing)
        table["path_length_um"] = moved_um["path_length"]
        table["net_displacement_um"] = moved_um["net_displacement"]
        # Of square pixels it is the same number.
        table["directionality"] = moved_um["directionality"]
        table["mean_area_um2"] = table["mean_area"] * spacing[0] * spacing[1]
    if interval_s is not None:
        table["duration_s"] = table["duration"] * float(interval_s)
        table["division_time_s"] = table["division_time"] * float(interval_s)
    if spacing is not None and interval_s is not None:
        table["mean_speed_um_per_s"] = moved_um["mean_speed"] / interval_s
        table["max_speed_um_per_s"] = moved_um["max_speed"] / interval_s
    return table


def mean_squared_displacement(
    cells: pd.DataFrame,
    *,
    spacing_um: Sequence[float] | None = None,
    interval_s: float | None = None,
    max_lag: int | None = None,
) -> pd.DataFrame:
    """Mean squared displacement of each track and of all together, over every pair of frames `lag` apart.

    A straight walk at speed v has (v * lag)**2, a random walk with diffusion coefficient D has 4 * D * lag. Pairs
    overlap, and there are few of the largest lags: above a quarter of a track's length the value says little.

    Args:
        cells: `measure_cells`; lines with track 0, and filled ones, are passed over. Places as in `measure_tracks`.
        spacing_um: (row, column) size of a pixel in micrometres, where known.
        interval_s: Seconds between frames, where known.
        max_lag: Largest lag, in frames; None = as long as the longest track.

    Returns:
        track (0 = all tracks together, every pair counting the same), lag (frames, from 1), num_pairs, msd (pixels
        squared); with `spacing_um` msd_um2, with `interval_s` lag_s. Tracks ascending, then lags; a lag without a pair
        has no line.
    """
    spacing = check_spacing(spacing_um)
    check_interval(interval_s)
    places = _places(cells)
    ids, track = np.unique(places["track"].to_numpy(np.int64), return_inverse=True)
    frame = places["frame"].to_numpy(np.int64)
    frame = frame - frame.min(initial=0)
    row, column = places["row"].to_numpy(), places["column"].to_numpy()
    longest = int(frame.max(initial=0))
    # Frames of one track are neighbours in the key, and those of different tracks lie further apart than any lag.
    key = track * (2 * longest + 2) + frame
    parts = []
    for lag in range(1, min(longest, longest if max_lag is None else max_lag) + 1):
        later = np.minimum(np.searchsorted(key, key + lag), len(key) - 1)
        first = np.flatnonzero(key[later] == key + lag)
        if len(first):
            steps = np.stack([row[later[first]] - row[first], column[later[first]] - column[first]])
            parts.append(_squares(ids, track[first], lag, steps, spacing))
    columns = ["track", "lag", "num_pairs", "msd"] + (["msd_um2"] if spacing is not None else [])
    table = pd.concat(parts) if parts else pd.DataFrame({name: _blank(name) for name in columns})
    table = table.sort_values(["track", "lag"], ignore_index=True)
    if interval_s is not None:
        table["lag_s"] = table["lag"] * float(interval_s)
    return table


def daughters(tracks: Mapping[int, Track]) -> dict[int, list[int]]:
    """Labels of the tracks that name a track as their parent, ascending; tracks without any are left out."""
    found = defaultdict(list)
    for label in sorted(tracks):
        if tracks[label].parent:
            found[tracks[label].parent].append(label)
    return dict(found)


def _places(cells: pd.DataFrame) -> pd.DataFrame:
    names = ("nucleus_row", "nucleus_column") if "nucleus_row" in cells else ("row", "column")
    seen = cells["track"] > 0
    if "filled" in cells:
        seen &= ~cells["filled"]
    kept = cells.loc[seen, ["track", "frame", *names, "area"]]
    kept = kept.rename(columns=dict(zip(names, ("row", "column"), strict=True)))
    return kept.sort_values(["track", "frame"], ignore_index=True)


def _check(places: pd.DataFrame, tracks: Mapping[int, Track]) -> None:
    twice = places.duplicated(["track", "frame"])
    if twice.any():
        where = places[twice].iloc[0]
        raise InputError(f"Track {where['track']:.0f} has two cells in frame {where['frame']:.0f}. Keep one.")
    for label, ends in places.groupby("track")["frame"].agg(["min", "max"]).iterrows():
        track = tracks.get(int(label))  # type: ignore[call-overload]
        if track is None:
            raise InputError(f"The cells have a track {label}, but the table of tracks does not. Add it there.")
        if ends["min"] < track.begin or ends["max"] > track.end:
            raise InputError(
                f"Track {label} lives from frame {track.begin} to {track.end}, but it has cells from frame "
                f"{ends['min']} to {ends['max']}. Correct the table of tracks."
            )


def _family(tracks: Mapping[int, Track]) -> pd.DataFrame:
    labels = sorted(tracks)
    children = daughters(tracks)
    own = [children.get(label, []) for label in labels]
    return pd.DataFrame(
        {
            "track": np.array(labels, np.int64),
            "parent": np.array([tracks[label].parent for label in labels], np.int64),
            "start": np.array([tracks[label].begin for label in labels], np.int64),
            "end": np.array([tracks[label].end for label in labels], np.int64),
            "duration": np.array([tracks[label].end - tracks[label].begin for label in labels], np.int64),
            "daughters": pd.Series([" ".join(map(str, ones)) for ones in own], dtype="str"),
            "num_daughters": np.array([len(ones) for ones in own], np.int64),
            "division_time": np.array([_division_time(label, tracks, children) for label in labels], np.float64),
        }
    )


def _division_time(label: int, tracks: Mapping[int, Track], children: Mapping[int, list[int]]) -> float:
    if len(children.get(label, ())) < 2:
        return np.nan
    first = tracks[label]
    while first.parent and len(children[first.parent]) == 1:
        first = tracks[first.parent]
    if not first.parent:
        return np.nan
    return min(tracks[daughter].begin for daughter in children[label]) - first.begin


def _moved(places: pd.DataFrame, labels: pd.Series, spacing: tuple) -> dict[str, np.ndarray]:
    """Paths and speeds in the unit of the spacing, a frame; one number a label."""
    track, frame = places["track"].to_numpy(), places["frame"].to_numpy()
    place = places[["row", "column"]].to_numpy() * spacing
    joined = track[1:] == track[:-1]
    step = np.linalg.norm(np.diff(place, axis=0), axis=1)[joined]
    time = np.diff(frame)[joined]
    steps = pd.DataFrame({"track": track[1:][joined], "step": step, "time": time, "speed": step / time})
    grouped = steps.groupby("track")
    ends = places.groupby("track").agg({"row": ["first", "last"], "column": ["first", "last"]})
    net = np.hypot(
        (ends["row"]["last"] - ends["row"]["first"]) * spacing[0],
        (ends["column"]["last"] - ends["column"]["first"]) * spacing[1],
    )
    path = grouped["step"].sum().reindex(ends.index, fill_value=0.0)
    found = {
        "path_length": path,
        "net_displacement": net,
        "mean_speed": grouped["step"].sum() / grouped["time"].sum(),
        "max_speed": grouped["speed"].max(),
        # Rounding alone must not make a straight path shorter than its ends are apart.
        "directionality": np.minimum(net / path.where(path > 0), 1.0),
    }
    return {name: values.reindex(labels).to_numpy(np.float64) for name, values in found.items()}


def _squares(ids: np.ndarray, track: np.ndarray, lag: int, steps: np.ndarray, spacing: tuple | None) -> pd.DataFrame:
    count = np.bincount(track, minlength=len(ids))
    used = count > 0
    columns = {
        "track": np.append(0, ids[used]),
        "lag": np.full(used.sum() + 1, lag),
        "num_pairs": np.append(len(track), count[used]),
    }
    units = {"msd": (1.0, 1.0)} | ({"msd_um2": spacing} if spacing is not None else {})
    for name, size in units.items():
        square = (steps[0] * size[0]) ** 2 + (steps[1] * size[1]) ** 2
        of_each = np.bincount(track, weights=square, minlength=len(ids))[used] / count[used]
        columns[name] = np.append(square.mean(), of_each)
    return pd.DataFrame(columns)


def _blank(name: str) -> np.ndarray:
    return np.zeros(0, np.float64 if name.startswith("msd") else np.int64)
