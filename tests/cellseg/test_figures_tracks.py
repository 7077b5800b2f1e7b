import cv2
import numpy as np
import pandas as pd

from cellseg.figures.tracks import WHITE, TrackPainter, track_colours
from pipelines.tracks import Track

SHAPE = (600, 800)
FAMILY = {1: Track(1, 0, 4, 0), 2: Track(2, 5, 9, 1), 3: Track(3, 5, 9, 1), 8: Track(8, 0, 9, 0)}


def scene():
    """Cells of the family: 1 rests at (100, 100), its daughters go apart; 8 goes along row 400."""
    rows = [(frame, 1, 100.0, 100.0) for frame in range(5)]
    for frame in range(5, 10):
        rows += [(frame, 2, 100.0 + 10 * (frame - 4), 100.0), (frame, 3, 100.0, 100.0 + 20 * (frame - 4))]
    rows += [(frame, 8, 400.0, 200.0 + 30 * frame) for frame in range(10)]
    return pd.DataFrame(rows, columns=["frame", "track", "row", "column"]).assign(area=80)


def painted(number, labels=None, **options):
    black = np.zeros((*SHAPE, 1), np.uint8)
    return TrackPainter(scene(), FAMILY, limits=(0, 255), **options).frame(number, black, labels)


def places(picture, colour):
    """Rows and columns of the image (not of the enlarged picture) with nearly this colour: lines are smoothed."""
    factor = picture.shape[0] / SHAPE[0]
    return np.argwhere((abs(picture.astype(int) - colour) <= 60).all(axis=2)) / factor


def hue(colour):
    return cv2.cvtColor(np.uint8([[colour]]), cv2.COLOR_RGB2HSV)[0, 0, 0] * 2.0


def test_daughters_have_the_hue_of_their_parent_in_other_shades():
    colours = track_colours(FAMILY)
    assert len(set(colours.values())) == 4
    for daughter in (2, 3):
        assert abs((hue(colours[daughter]) - hue(colours[1]) + 180) % 360 - 180) < 15
    assert abs((hue(colours[8]) - hue(colours[1]) + 180) % 360 - 180) > 60


def test_a_colour_does_not_depend_on_what_comes_later():
    later = FAMILY | {9: Track(9, 7, 9, 0), 10: Track(10, 10, 11, 2), 11: Track(11, 10, 11, 2)}
    colours = track_colours(later)
    assert {label: colours[label] for label in FAMILY} == track_colours(FAMILY)
    assert track_colours({}) == {}


def test_a_small_image_is_enlarged_and_a_large_one_is_not():
    assert painted(0).shape == (1200, 1600, 3)
    large = np.zeros((10, 1500, 1), np.uint8)
    assert TrackPainter(scene(), FAMILY).frame(0, large).shape == (10, 1500, 3)


def test_the_path_is_drawn_behind_the_cell_in_its_colour():
    own = places(painted(9), track_colours(FAMILY)[8])
    assert abs(own[:, 0] - 400.5).max() <= 1.5
    assert abs(own[:, 1].min() - 200.5) <= 1.5
    assert abs(own[:, 1].max() - 470.5) <= 1.5
    shorter = places(painted(9, tail=3), track_colours(FAMILY)[8])
    assert abs(shorter[:, 1].min() - 380.5) <= 1.5


def test_a_track_that_has_ended_is_drawn_no_more():
    assert len(places(painted(3), track_colours(FAMILY)[2])) == 0
    assert len(places(painted(9), track_colours(FAMILY)[2])) > 0


def test_outlines_have_the_colours_of_the_tracks():
    labels = np.zeros(SHAPE, np.int32)
    labels[300:320, 50:90], labels[500:520, 500:530] = 8, 70_000
    picture = painted(0, labels)
    own = places(picture, track_colours(FAMILY)[8])
    inside = own[own[:, 0] < 350]
    assert (inside.min(axis=0) >= (300, 50)).all()
    assert (inside.max(axis=0) < (320, 90)).all()
    assert len(inside) > 200
    # An id that is no track.
    unknown = places(picture, WHITE)
    assert (((unknown[:, 0] >= 500) & (unknown[:, 0] < 520)).sum()) > 100


def test_the_parent_is_ringed_for_two_frames_and_its_daughters_for_four():
    def white(number):
        found = places(painted(number), WHITE)
        return found[(found[:, 0] > 60) & (found[:, 1] < 250)]

    assert [len(white(number)) > 50 for number in range(10)] == [False] * 3 + [True] * 6 + [False]
    # Four pixels around the parent, whose 80 pixels make a disk of radius 5.05; later around the daughters.
    radii = np.hypot(*(white(4) - 100.5).T)
    assert abs(radii - 9.05).max() <= 1.5
    assert abs(white(8).max(axis=0) - (140.5 + 9.05, 180.5 + 9.05)).max() <= 1.5


def test_lines_lead_from_the_parent_to_its_daughters():
    # From (100, 100) to the daughters at (100, 160) and (130, 100), as far as the rings; over their coloured paths.
    picture = painted(7)
    assert (picture[200:203, 206:300].max(axis=0) > 200).all()
    assert (picture[206:240, 200:203].max(axis=1) > 200).all()


def test_a_filled_cell_is_marked_with_the_size_that_it_had():
    filled = scene().assign(area=80.0)
    filled.loc[(filled["track"] == 2) & (filled["frame"] == 6), "area"] = np.nan
    black = np.zeros((*SHAPE, 1), np.uint8)
    picture = TrackPainter(filled, FAMILY, limits=(0, 255)).frame(6, black)
    np.testing.assert_array_equal(picture, painted(6))


def test_the_clock_says_frame_and_time():
    plain, timed = painted(9), painted(9, interval_s=600.0)
    head = slice(0, 40)
    assert (plain[head] != timed[head]).any()
    np.testing.assert_array_equal(plain[40:], timed[40:])
    assert plain[head, :200].any()


def test_all_paths_are_one_picture():
    painter = TrackPainter(scene(), FAMILY, limits=(0, 255))
    png = painter.all_paths(np.zeros((*SHAPE, 1), np.uint8), title="scene")
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for label, colour in painter.colours.items():
        if label != 1:  # it rests: its dot lies under the ring and its daughters' paths
            assert (picture == np.array(colour, np.uint8)).all(axis=2).sum() > 20, label


def test_without_tracks_the_image_stays():
    painter = TrackPainter(scene().iloc[:0], {})
    grey = np.full((1200, 1000, 1), 200, np.uint8)
    grey[0] = 0
    picture = painter.frame(0, grey)
    assert len(np.unique(picture[50:])) == 1
    assert painter.all_paths(grey).startswith(b"\x89PNG")
