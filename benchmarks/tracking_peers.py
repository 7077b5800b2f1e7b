"""Trackers of others, for `tracking.py`: laptrack and btrack, where they are installed.

Both see centres and areas of the cells; a setting is the largest distance of a link in usual diameters of a cell.
"""

import contextlib
import importlib.util
import io
import logging
import warnings

import numpy as np
import pandas as pd

from cellseg.tracking.cells import find_cells, usual_diameter
from pipelines.tracks import Track


def _table(frames):
    cells = [find_cells(labels, number) for number, labels in enumerate(frames)]
    rows = [
        pd.DataFrame({"frame": one.frame, "id": one.ids, "row": one.centres[:, 0], "column": one.centres[:, 1]})
        for one in cells
    ]
    return pd.concat(rows, ignore_index=True), usual_diameter(*cells)


def _finished(frames, cells, children):
    """(labels, table) of `cells`: columns frame, id, track; a track with missing frames goes on as its own child."""
    names = [dict(zip(part["id"], part["track"], strict=True)) for _, part in cells.groupby("frame")]
    by_frame = dict(zip(cells["frame"].unique().tolist(), names, strict=True))
    made, renumbered, first, last = {}, {}, {}, {}
    for track, part in cells.sort_values("frame").groupby("track"):
        numbers = part["frame"].to_numpy()
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            label = len(made) + 1
            made[label] = [int(run[0]), int(run[-1]), last.get(track, 0)]
            renumbered |= {(int(number), track): label for number in run}
            first.setdefault(track, label)
            last[track] = label
    for parent, child in children:
        if parent in last and child in first and made[last[parent]][1] < made[first[child]][0]:
            made[first[child]][2] = last[parent]
    labels = []
    for number, one in enumerate(frames):
        table = np.zeros(int(one.max()) + 1, np.int32)
        for cell, track in by_frame.get(number, {}).items():
            table[cell] = renumbered[number, track]
        labels.append(table[one])
    return labels, {label: Track(label, *row) for label, row in made.items()}


def laptrack(frames, reach):
    """Jaqaman's two assignments: frame to frame, then gaps and divisions."""
    from laptrack import LapTrack

    cells, diameter = _table(frames)
    far = (reach * diameter) ** 2
    tracker = LapTrack(cutoff=far, splitting_cutoff=far, gap_closing_cutoff=far, gap_closing_max_frame_count=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracks, splits, _ = tracker.predict_dataframe(cells, ["row", "column"], only_coordinate_cols=False)
    cells = tracks.reset_index()[["frame", "id", "track_id"]].rename(columns={"track_id": "track"})
    children = splits[["parent_track_id", "child_track_id"]].to_numpy().tolist() if len(splits) else []
    return _finished(frames, cells, children)


def btrack(frames, reach):
    """Bayesian tracking with Kalman filters, and integer programming over hypotheses of what tracks do.

    The weights are those of its example for cells, with lengths in diameters: the example's cells measure 20 pixels.
    """
    import btrack as package
    from btrack.btypes import PyTrackObject
    from btrack.config import TrackerConfig
    from btrack.models import HypothesisModel, MotionModel

    cells, diameter = _table(frames)
    scale = diameter / 20
    objects = []
    for number, (frame, row, column) in enumerate(cells[["frame", "row", "column"]].itertuples(index=False)):
        place = {"ID": number, "t": int(frame), "x": float(column), "y": float(row), "z": 0.0}
        objects.append(PyTrackObject.from_dict({**place, "label": 5, "prob": 0.0, "dummy": False}))
    still = np.eye(6)
    still[:3, 3:] = np.eye(3)
    motion = MotionModel(
        name="cells",
        measurements=3,
        states=6,
        A=still,
        H=np.eye(3, 6),
        P=150 * scale**2 * np.diag([0.1, 0.1, 0.1, 1, 1, 1]),
        G=15 * scale * np.array([[0.5, 0.5, 0.5, 1, 1, 1]]),
        R=5 * scale**2 * np.eye(3),
        accuracy=7.5,
        prob_not_assign=0.1,
        max_lost=3,
    )
    names = ["P_FP", "P_init", "P_term", "P_link", "P_branch", "P_dead"]
    hypotheses = HypothesisModel(
        name="cells",
        hypotheses=names,
        lambda_time=5.0,
        lambda_dist=3.0 * scale,
        lambda_link=10.0 * scale,
        lambda_branch=50.0 * scale,
        eta=1e-10,
        theta_dist=20.0 * scale,
        theta_time=5.0,
        dist_thresh=2 * reach * diameter,
        time_thresh=3.0,
        apop_thresh=5,
        segmentation_miss_rate=0.1,
        apoptosis_rate=0.001,
        relax=True,
    )
    height, width = frames[0].shape
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()), package.BayesianTracker(verbose=False) as tracker:
        tracker.configure(TrackerConfig(name="cells", motion_model=motion, hypothesis_model=hypotheses))
        tracker.max_search_radius = reach * diameter
        tracker.append(objects)
        tracker.volume = ((0, width), (0, height), (-1e5, 1e5))
        tracker.track(step_size=100)
        tracker.optimize()
        found = [(one.ID, one.parent, [ref for ref in one.refs if ref >= 0]) for one in tracker.tracks]
    logging.disable(logging.NOTSET)
    track = np.zeros(len(cells), int)
    for name, _, members in found:
        track[members] = name
    # What it takes for false keeps a track of its own: every mask is a cell here.
    alone = track == 0
    track[alone] = track.max() + 1 + np.arange(np.count_nonzero(alone))
    return _finished(frames, cells.assign(track=track), [(parent, name) for name, parent, _ in found if parent != name])


PEERS = {name: peer for name, peer in (("laptrack", laptrack), ("btrack", btrack)) if importlib.util.find_spec(name)}
