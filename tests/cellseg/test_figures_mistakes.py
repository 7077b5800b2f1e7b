import cv2
import numpy as np
import pytest

from cellseg.figures.mistakes import COLOURS, TRUTH_GREY, mistake_outlines
from cellseg.mistakes import KINDS, find_mistakes
from tests.cells import empty, extra_cell, merged_pair, missed_cell, one_cell, shifted_cell, split_cell


def draw(labels_true, labels_pred, **options):
    """The picture without its legend."""
    png = mistake_outlines(labels_true, labels_pred, find_mistakes(labels_true, labels_pred), **options)
    assert png.startswith(b"\x89PNG")
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return picture[: picture.shape[0] - 45]


def kinds_in(picture):
    return {kind for kind, colour in COLOURS.items() if (picture == np.array(colour, np.uint8)).all(axis=-1).any()}


@pytest.mark.parametrize(
    ("pair", "kinds"),
    [
        (lambda: (one_cell(), one_cell()), {"found"}),
        (missed_cell, {"found", "missed"}),
        (extra_cell, {"found", "spurious"}),
        (merged_pair, {"merged"}),
        (split_cell, {"split"}),
        (shifted_cell, {"found"}),
        (lambda: (empty(), empty()), set()),
    ],
)
def test_each_kind_has_its_colour(pair, kinds):
    labels_true, labels_pred = (np.kron(labels, np.ones((8, 8), np.int32)) for labels in pair())
    assert kinds_in(draw(labels_true, labels_pred)) == kinds


def test_cells_lie_where_they_are():
    # 48 x 64 pixels become 585 x 780: the missed cell has columns 32 to 55 of 64.
    labels_true, labels_pred = (np.kron(labels, np.ones((8, 8), np.int32)) for labels in missed_cell())
    picture = draw(labels_true, labels_pred)
    columns = np.flatnonzero((picture == np.array(COLOURS["missed"], np.uint8)).all(axis=-1).any(axis=0)) - 7.5
    assert (columns.min(), columns.max()) == pytest.approx((32 / 64 * 780, 56 / 64 * 780), abs=4)


def test_the_fragments_of_a_split_cell_are_outlined():
    labels_true, labels_pred = (np.kron(labels, np.ones((8, 8), np.int32)) for labels in split_cell())
    picture = draw(labels_true, labels_pred)
    middle = (picture[:, picture.shape[1] // 2 - 40 : picture.shape[1] // 2 + 40] == COLOURS["split"]).all(axis=-1)
    assert middle[picture.shape[0] // 2].any()


def test_a_bad_outline_shows_both_sides():
    labels_true = np.zeros((40, 40), np.int32)
    labels_true[10:30, 10:30] = 1
    labels_pred = np.zeros_like(labels_true)
    labels_pred[14:20, 14:20] = 1
    assert kinds_in(draw(labels_true, labels_pred)) == {"missed", "spurious"}


def test_drawn_on_the_image_or_on_the_truth():
    labels = np.kron(one_cell(), np.ones((8, 8), np.int32))
    grey = draw(labels, labels)
    assert (grey == TRUTH_GREY).all(axis=-1).sum() > 10_000
    image = np.where(labels[..., None] > 0, 20, 10).astype(np.uint8)
    shown = draw(labels, labels, image=image, limits=(0, 20))
    # 0.7 of white inside the cell, 0.7 of a half outside.
    assert (shown == 178).all(axis=-1).sum() > 10_000
    assert (shown == 89).all(axis=-1).sum() > 10_000


@pytest.mark.parametrize(
    ("shape", "size"), [((6, 8), 780), ((1000, 700), 1000), ((3000, 20), 2100), ((20, 3000), 2100), ((1, 1), 780)]
)
def test_any_shape(shape, size):
    labels = np.zeros(shape, np.int32)
    labels[0, 0] = 1
    picture = draw(labels, np.zeros_like(labels), title="$x_{1$ <b>")
    assert max(picture.shape[:2]) == pytest.approx(max(size, 780), abs=50)


def test_colours_differ_in_brightness_or_blue():
    # What the two common kinds of colour blindness keep: brightness, and blue against yellow.
    def seen(colour):
        red, green, blue = colour
        return np.array([0.3 * red + 0.59 * green + 0.11 * blue, blue - (red + green) / 2])

    for one in KINDS:
        for other in KINDS:
            assert one == other or np.abs(seen(COLOURS[one]) - seen(COLOURS[other])).max() > 30, (one, other)
