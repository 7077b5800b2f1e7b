import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cellseg.figures import populations
from cellseg.figures.tracks import track_colours
from pipelines.tracks import Track

FAMILY = {1: Track(1, 0, 4, 0), 2: Track(2, 5, 9, 1), 3: Track(3, 5, 9, 1), 4: Track(4, 2, 7, 0), 5: Track(5, 9, 9, 4)}


@pytest.fixture
def drawn(monkeypatch):
    """The figure of the last plot: its axes can be asked what they show."""
    figures: list[Figure] = []
    real = populations.png

    def keep(figure):
        figures.append(figure)
        return real(figure)

    monkeypatch.setattr(populations, "png", keep)
    return figures


def cells():
    return pd.DataFrame({"frame": [0, 0, 2, 2, 2], "area": [10, 20, 30, 40, 50], "area_um2": [1.0, 2, 3, 4, 5]})


def tracks():
    return pd.DataFrame({"mean_speed": [1.0, 2.0, np.nan], "division_time": [np.nan, 30.0, np.nan]})


def read(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize(
    ("numbers", "points"),
    [
        ([0, 0, 2, 2, 2], [(0, 2), (1, 0), (2, 3)]),
        # Between frames far apart the line lies at 0, and not every one of them is a point of it.
        ([5, 2_000_000_000, 2_000_000_000], [(5, 1), (6, 0), (1_999_999_999, 0), (2_000_000_000, 2)]),
    ],
)
def test_frames_without_cells_count_as_none(drawn, numbers, points):
    populations.population(pd.DataFrame({"frame": numbers, "area": [10] * len(numbers)}), tracks())
    (line,) = drawn[0].axes[0].lines
    assert list(zip(*(values.tolist() for values in line.get_data()), strict=True)) == points


def test_every_track_of_the_tree_has_its_line_from_begin_to_end(drawn):
    picture = read(populations.lineage_tree(FAMILY))
    lines = [line for line in drawn[0].axes[0].lines if line.get_linewidth() == 1.6]
    assert [tuple(line.get_xdata()) for line in lines] == [(0, 4), (5, 9), (5, 9), (2, 7), (9, 9)]
    levels = [level for line in lines for level in line.get_ydata()]
    # The parent stands in the middle of its daughters; 4 and its only daughter on one line, in a family of their own.
    assert levels == [0.5, 0.5, 0, 0, 1, 1, 3, 3, 3, 3]
    for label in (1, 4):
        assert (picture == np.array(track_colours(FAMILY)[label], np.uint8)).all(axis=2).sum() > 100


def test_only_divisions_have_a_dot(drawn):
    populations.lineage_tree(FAMILY)
    dots = [line for line in drawn[0].axes[0].lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [(4, 0.5)]
    assert drawn[0].axes[0].get_title(loc="left") == "5 tracks, 1 divisions; shown: 2 families"


def test_a_tree_too_large_shows_the_largest_families(drawn):
    many = {label: Track(label, 0, 3, 0) for label in range(1, 400)}
    many |= {label: Track(label, 4, 5, 7) for label in (400, 401)}
    populations.lineage_tree(many, interval_s=60)
    # 13 inches hold 152 lines: the family of two daughters takes 3, every other one 2.
    assert "the 75 largest of 399 families" in drawn[0].axes[0].get_title(loc="left")
    first = drawn[0].axes[0].lines[0]
    assert tuple(first.get_ydata()) == (0.5, 0.5)
    assert drawn[0].get_size_inches()[1] <= populations.TALLEST


def test_cells_are_counted_in_every_frame_also_where_there_are_none(drawn):
    populations.population(cells())
    counts = drawn[0].axes[0].lines[0]
    assert list(counts.get_xdata()) == [0, 1, 2]
    assert list(counts.get_ydata()) == [2, 0, 3]


def test_distributions_say_their_unit_and_median(drawn):
    populations.population(cells(), tracks().assign(division_time_s=[np.nan, 7200.0, np.nan]))
    said = [" ".join(text.get_text() for text in axis.texts) for axis in drawn[0].axes]
    assert said[1:] == ["median 3 µm²", "median 1.5 pixels/frame", "median 2 h"]
    assert drawn[0].axes[2].get_title(loc="left") == "mean speed of the tracks (2)"
    populations.population(cells().drop(columns="area_um2"), tracks())
    said = [" ".join(text.get_text() for text in axis.texts) for axis in drawn[1].axes]
    assert said[1:] == ["median 30 pixels", "median 1.5 pixels/frame", "median 30 frames"]


def test_displacement_draws_all_together_and_both_slopes(drawn):
    lags = np.arange(1, 9)
    msd = pd.concat(
        [pd.DataFrame({"track": one, "lag": lags, "num_pairs": 9 - lags, "msd": 2.0 * lags}) for one in (0, 4)]
    )
    populations.displacement(msd)
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    np.testing.assert_allclose(lines["all tracks together"].get_ydata(), 2 * lags)
    np.testing.assert_allclose(lines["slope 2: straight"].get_ydata(), [2, 2 * 64])
    np.testing.assert_allclose(lines["slope 1: random"].get_ydata(), [2, 16])
    # Of a track of lags up to 8, those up to 2.
    (single,) = drawn[0].axes[0].collections
    assert [one.vertices.tolist() for one in single.get_paths()] == [[[1, 2], [2, 4]]]


def test_tables_without_lines_are_said_to_be_empty(drawn):
    populations.lineage_tree({})
    populations.population(cells().iloc[:0], tracks().iloc[:0], interval_s=3)
    populations.displacement(pd.DataFrame({"track": [], "lag": [], "num_pairs": [], "msd": []}))
    said = [[text.get_text() for text in axis.texts] for figure in drawn[1:] for axis in figure.axes]
    assert said == [["no values"]] * 5
