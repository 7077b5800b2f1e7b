import numpy as np
import pandas as pd
import pytest

from cellseg.measuring import measure_cells
from cellseg.motion import daughters, mean_squared_displacement, measure_tracks
from pipelines.errors import InputError
from pipelines.tracks import Track

UNITS = {"spacing_um": (2.0, 0.5), "interval_s": 10.0}


def walk(places, *, track=1, frames=None):
    """A table of cells with these places (row, column), one a frame."""
    frames = range(len(places)) if frames is None else frames
    return pd.DataFrame(
        {
            "frame": np.array(list(frames), np.int64),
            "track": track,
            "row": [float(row) for row, _ in places],
            "column": [float(column) for _, column in places],
            "area": 10,
        }
    )


def tracked(cells, parents=()):
    """The table of tracks of cells that are never lost."""
    parents = dict(parents)
    spans = cells.groupby("track")["frame"].agg(["min", "max"])
    return {
        int(label): Track(int(label), int(span["min"]), int(span["max"]), parents.get(label, 0))
        for label, span in spans.iterrows()
    }


def only(cells, **options):
    table = measure_tracks(cells, tracked(cells), **options)
    assert len(table) == 1
    return table.iloc[0]


def test_a_path_by_hand():
    # A triangle: 3 down, 4 to the right, then straight back (5).
    cell = only(walk([(0, 0), (3, 0), (3, 4), (0, 0)]))
    assert (cell["path_length"], cell["net_displacement"], cell["directionality"]) == (12, 0, 0)
    assert (cell["mean_speed"], cell["max_speed"]) == (4, 5)
    assert (cell["start"], cell["end"], cell["num_frames"], cell["duration"]) == (0, 3, 4, 3)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 160, 250])
def test_disks_of_known_speed(degrees):
    speed, radius, frames = 3.0, 6.0, 8
    step = speed * np.array([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
    rows, columns = np.indices((80, 80))
    labels = [
        (np.hypot(rows - 40 - step[0] * (t - 4), columns - 40 - step[1] * (t - 4)) <= radius).astype(np.int32)
        for t in range(frames)
    ]
    cells = measure_cells(enumerate(labels), **UNITS)
    cell = measure_tracks(cells, tracked(cells), **UNITS).iloc[0]
    # The centroid of a digitised disk lies within a twentieth of a pixel or so of its middle.
    assert cell["mean_speed"] == pytest.approx(speed, abs=0.05)
    assert cell["net_displacement"] == pytest.approx(speed * 7, abs=0.2)
    assert cell["directionality"] == pytest.approx(1, abs=0.01)
    um_per_s = np.hypot(step[0] * 2.0, step[1] * 0.5) / 10
    assert cell["mean_speed_um_per_s"] == pytest.approx(um_per_s, rel=0.04)
    assert cell["duration_s"] == 70


def test_a_gap_counts_with_its_true_time():
    # 2 pixels a frame throughout; frames 2 and 3 are missing.
    cell = only(walk([(0, 0), (0, 2), (0, 8), (0, 10)], frames=[0, 1, 4, 5]))
    assert (cell["num_frames"], cell["duration"], cell["path_length"]) == (4, 5, 10)
    assert (cell["mean_speed"], cell["max_speed"]) == (2, 2)


def test_a_filled_cell_is_not_seen():
    cells = walk([(0, 0), (9, 9), (0, 6)])
    cells["filled"] = [False, True, False]
    table = measure_tracks(cells, {1: Track(1, 0, 2, 0)}).iloc[0]
    assert (table["num_frames"], table["path_length"], table["mean_speed"], table["duration"]) == (2, 6, 3, 2)
    assert mean_squared_displacement(cells)[["track", "lag", "num_pairs", "msd"]].to_numpy().tolist() == [
        [0, 2, 1, 36],
        [1, 2, 1, 36],
    ]


def test_units_by_hand():
    # 3 pixels down (6 um), then 16 to the right (8 um), 10 s each; the ends are 10 um apart.
    cell = only(walk([(0, 0), (3, 0), (3, 16)]), **UNITS)
    assert (cell["path_length"], cell["path_length_um"]) == (19, 14)
    assert cell["net_displacement_um"] == pytest.approx(10)
    assert cell["directionality"] == pytest.approx(10 / 14)
    assert (cell["mean_speed_um_per_s"], cell["max_speed_um_per_s"]) == (0.7, 0.8)
    assert (cell["mean_area"], cell["mean_area_um2"]) == (10, 10)


def test_the_nucleus_is_followed_where_it_was_measured():
    cells = walk([(0, 0), (0, 1), (0, 2)])
    cells["nucleus_row"], cells["nucleus_column"] = [0.0, 5.0, 0.0], 0.0
    assert only(cells)["path_length"] == 10
    assert mean_squared_displacement(cells)["msd"].tolist() == [25, 0, 25, 0]


def test_a_cell_seen_once_has_no_speed():
    cell = only(walk([(5, 5)]), **UNITS)
    assert (cell["path_length"], cell["net_displacement"], cell["duration_s"]) == (0, 0, 0)
    assert cell[["mean_speed", "max_speed", "directionality", "max_speed_um_per_s"]].isna().all()


def test_a_cell_that_rests_has_speed_0_and_no_direction():
    cell = only(walk([(5, 5)] * 3))
    assert (cell["mean_speed"], cell["max_speed"]) == (0, 0)
    assert np.isnan(cell["directionality"])


def test_a_track_that_no_cell_belongs_to():
    table = measure_tracks(walk([(0, 0)]), {1: Track(1, 0, 0, 0), 2: Track(2, 3, 5, 0)})
    assert table["num_frames"].tolist() == [1, 0]
    assert table.iloc[1][["path_length", "mean_speed", "mean_area"]].isna().all()


def test_families_and_division_times():
    tracks = {
        1: Track(1, 0, 9, 0),  # not born here: no division time
        2: Track(2, 10, 19, 1),
        3: Track(3, 12, 29, 1),  # no end by division
        4: Track(4, 22, 25, 2),  # an only daughter: track 2 after a gap
        5: Track(5, 26, 30, 4),
        6: Track(6, 27, 30, 4),
        7: Track(7, 0, 3, 0),
    }
    assert daughters(tracks) == {1: [2, 3], 2: [4], 4: [5, 6]}
    cells = pd.concat([walk([(0, 0)], track=label, frames=[one.begin]) for label, one in tracks.items()])
    table = measure_tracks(cells, tracks, interval_s=60).set_index("track")
    assert table["parent"].tolist() == [0, 1, 1, 2, 4, 4, 0]
    assert table["daughters"].tolist() == ["2 3", "4", "", "5 6", "", "", ""]
    assert table["num_daughters"].tolist() == [2, 1, 0, 2, 0, 0, 0]
    # Track 4 is track 2 after its gap: born in 10, its daughters are first seen in 26.
    assert table["division_time"].dropna().to_dict() == {4: 16}
    assert table["division_time_s"].dropna().to_dict() == {4: 960}


def test_columns_stand_as_documented():
    table = measure_tracks(walk([(0, 0)]), {1: Track(1, 0, 0, 0)}, **UNITS)
    assert list(table) == [
        "track",
        "parent",
        "start",
        "end",
        "num_frames",
        "path_length",
        "net_displacement",
        "mean_speed",
        "max_speed",
        "directionality",
        "duration",
        "daughters",
        "num_daughters",
        "division_time",
        "mean_area",
        "path_length_um",
        "net_displacement_um",
        "mean_area_um2",
        "duration_s",
        "division_time_s",
        "mean_speed_um_per_s",
        "max_speed_um_per_s",
    ]


def test_a_straight_walk_has_msd_v2_t2():
    places = [(2 * t, 3 * t) for t in range(6)]
    table = mean_squared_displacement(walk(places), spacing_um=(2.0, 1.0), interval_s=5)
    single = table[table["track"] == 1]
    lags = np.arange(1, 6)
    assert single["lag"].tolist() == lags.tolist()
    assert single["num_pairs"].tolist() == [5, 4, 3, 2, 1]
    np.testing.assert_allclose(single["msd"], 13 * lags**2)
    np.testing.assert_allclose(single["msd_um2"], (16 + 9) * lags**2)
    np.testing.assert_allclose(single["lag_s"], 5 * lags)


def test_a_random_walk_has_msd_4_d_t():
    # Steps of variance s**2 along each axis: D = s**2 / 2, so the MSD is 2 * s**2 * lag.
    rng = np.random.default_rng(3)
    walks = [
        walk(np.cumsum(rng.normal(scale=1.5, size=(200, 2)), axis=0).tolist(), track=number + 1) for number in range(60)
    ]
    table = mean_squared_displacement(pd.concat(walks), max_lag=10)
    pooled = table[table["track"] == 0]
    assert pooled["lag"].tolist() == list(range(1, 11))
    np.testing.assert_allclose(pooled["msd"], 4 * (1.5**2 / 2) * pooled["lag"], rtol=0.06)
    assert pooled["num_pairs"].iloc[2] == 60 * 197


def test_all_together_weighs_every_pair_the_same_and_gaps_have_no_pairs():
    cells = pd.concat([walk([(0, 0), (0, 1), (0, 2), (0, 3)]), walk([(0, 0), (0, 9)], track=5, frames=[10, 12])])
    table = mean_squared_displacement(cells).set_index(["track", "lag"])
    # Lag 1: three times 1; lag 2: twice 4 of track 1, 81 of track 5, together 89 / 3.
    msd = {(0, 1): 1, (0, 2): 89 / 3, (0, 3): 9, (1, 1): 1, (1, 2): 4, (1, 3): 9, (5, 2): 81}
    assert table["msd"].to_dict() == pytest.approx(msd)
    assert table["num_pairs"].tolist() == [3, 3, 1, 3, 2, 1, 1]


def test_untracked_cells_do_not_move():
    assert len(mean_squared_displacement(walk([(0, 0), (0, 5)], track=0))) == 0
    assert len(measure_tracks(walk([(0, 0), (0, 5)], track=0), {})) == 0


def test_without_cells_there_are_columns_and_no_lines():
    nothing, cells = measure_cells([]), walk([(0, 0), (1, 1)])
    for function in (lambda table: measure_tracks(table, tracked(table), **UNITS),
                     lambda table: mean_squared_displacement(table, **UNITS)):  # fmt: skip
        assert len(function(nothing)) == 0
        assert function(nothing).dtypes.to_dict() == function(cells).dtypes.to_dict()


@pytest.mark.parametrize(
    ("cells", "tracks", "message"),
    [
        (walk([(0, 0)], track=4), {}, "The cells have a track 4, but the table of tracks does not"),
        (
            walk([(0, 0)] * 3),
            {1: Track(1, 1, 2, 0)},
            "from frame 1 to 2, but it has cells from frame 0",
        ),
        (walk([(0, 0)] * 2, frames=[3, 3]), {1: Track(1, 3, 3, 0)}, "Track 1 has two cells in frame 3"),
    ],
)
def test_tables_that_disagree_are_named(cells, tracks, message):
    with pytest.raises(InputError, match=message):
        measure_tracks(cells, tracks)
