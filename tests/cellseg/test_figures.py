import cv2
import numpy as np
import pandas as pd
import pytest

from cellseg import figures
from cellseg.figures import pictures
from pipelines.errors import InputError
from tests.cells import empty, extra_cell, merged_pair, missed_cell, one_cell, sparse_ids, two_touching


def read(png):
    assert png.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def count(picture, colour):
    return int((picture == np.array(colour, np.uint8)).all(axis=-1).sum())


def large(labels):
    return np.kron(labels, np.ones((16, 16), np.int32))


def image_of(labels, channels=1):
    return np.where(labels[..., None] > 0, 90, 10).repeat(channels, axis=2).astype(np.uint8)


def lines(labels_true, labels_pred, **options):
    """Pixels of the truth's, the prediction's and the common outline in the large picture."""
    picture = read(figures.outlines(image_of(labels_true), labels_true, labels_pred, limits=(0, 200), **options))
    # Left of the small pictures and above the legend.
    part = picture[: round(0.9 * picture.shape[0]), : picture.shape[1] // 2]
    return tuple(count(part, colour) for colour in (pictures.TRUTH, pictures.PREDICTION, pictures.BOTH))


def test_perfect_prediction_has_common_outlines_alone():
    labels = large(two_touching())
    true, pred, _ = lines(labels, labels)
    assert (true, pred) == (0, 0)


def test_missed_cell_is_outlined_as_truth_alone():
    true, pred, _ = lines(*map(large, missed_cell()))
    assert true > 500
    assert pred == 0


def test_invented_cell_is_outlined_as_prediction_alone():
    true, pred, _ = lines(large(empty()), large(one_cell()))
    assert true == 0
    assert pred > 500


def test_a_cell_where_the_truth_is_unknown_is_neither_found_nor_false():
    truth, prediction = map(large, extra_cell())
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 5 * 16 :] = True  # two of three columns of the false cell
    _, false, _ = lines(truth, prediction)
    true, pred, _ = lines(truth, prediction, ignore=ignore)
    assert false > 500 and (true, pred) == (0, 0)
    assert lines(truth, prediction, ignore=np.zeros_like(ignore)) == lines(truth, prediction)


def test_merged_pair_shows_the_line_that_is_missing():
    true, pred, _ = lines(*map(large, merged_pair()))
    assert true > 100
    assert pred == 0


def test_matching_cells_get_the_same_number():
    # Predicted ids in the other order: the left cell is 2, the right one 1.
    labels = two_touching()
    swapped = np.array([0, 2, 1], np.int32)[labels]
    true, pred, found = pictures._matched(labels, swapped)
    assert found == 2
    assert np.array_equal(true, pred)


def test_unmatched_cells_are_numbered_after_the_matched_ones():
    labels, prediction = missed_cell()
    true, pred, found = pictures._matched(labels, prediction)
    assert found == 1
    assert np.array_equal(true, labels)  # the left cell is matched: 1; the right one is not: 2
    assert pred.max() == 1


def test_sparse_ids_are_drawn_as_dense_ones():
    image = image_of(large(two_touching()))
    dense, sparse = large(two_touching()), large(sparse_ids())
    assert figures.outlines(image, dense, dense) == figures.outlines(image, sparse, sparse)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (1, 300), (1400, 700)])
def test_any_shape_and_number_of_channels(shape, channels):
    labels = np.zeros(shape, np.int32)
    labels[0, 0] = 1
    picture = read(figures.outlines(image_of(labels, channels), labels, np.zeros_like(labels)))
    assert 900 <= picture.shape[1] <= 1700
    assert picture.shape[0] <= 900


def test_probability_is_drawn_where_given():
    labels = large(one_cell())
    without = read(figures.outlines(image_of(labels), labels, labels, limits=(0, 200)))
    probability = np.full(labels.shape, 0.6, np.float32)  # 0.6 * 255 = 153
    given = read(figures.outlines(image_of(labels), labels, labels, limits=(0, 200), probability=probability))
    assert count(without, (153, 153, 153)) < 100
    assert count(given, (153, 153, 153)) > 50_000


def test_names_with_dollars_are_no_formulas():
    labels = one_cell()
    read(figures.outlines(image_of(labels), labels, labels, title="$x_{1$ <b>"))
    read(figures.per_image_scores([{"name": "$x_{1$", "dice": 0.5}, {"name": "b", "dice": 0.7}]))


def test_labels_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(6, 8\), labels_pred \(8, 6\)"):
        figures.outlines(image_of(empty()), empty(), empty().T)


HISTORY = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "loss": [1.0, 0.5, 0.4],
        "val_dice": [0.2, 0.8, 0.7],
        "learning_rate": [1e-3, 1e-3, 1e-4],
        "val_foreground_ratio": [2.0, 1.1, 1.0],
    }
)


@pytest.mark.parametrize(
    "history",
    [
        HISTORY,
        HISTORY.drop(columns=["val_dice", "learning_rate"]),
        HISTORY.drop(columns="epoch"),
        HISTORY[:1],
        HISTORY[:0],
        HISTORY.assign(val_dice=np.nan),
        HISTORY.assign(loss=["nan", "inf", "oops"], learning_rate=0.0),
    ],
    ids=["whole", "missing", "no epoch", "one epoch", "no epoch yet", "nan", "no numbers"],
)
def test_training_curves_of_any_history(history):
    assert read(figures.training_curves(history)).shape == (585, 1440, 3)


def test_training_curves_mark_the_best_epoch():
    shifted = HISTORY.assign(val_dice=[0.8, 0.2, 0.7])
    assert figures.training_curves(HISTORY) != figures.training_curves(shifted)


def test_missing_column_is_not_drawn_as_a_curve():
    blue = (0, 0x72, 0xB2)
    assert count(read(figures.training_curves(HISTORY)), blue) > 100
    assert count(read(figures.training_curves(HISTORY.drop(columns="loss"))), blue) == 0


CURVE = {"threshold": [0.25, 0.5, 0.75], "dice": [0.5, 0.9, 0.6], "foreground_ratio": [2.0, 1.0, None]}


@pytest.mark.parametrize(
    ("curve", "chosen"),
    [(CURVE, 0.5), (CURVE, 0.99), (CURVE | {"dice": [None] * 3}, 0.5), ({"threshold": [0.5]}, 0.5), ({}, 0.5)],
)
def test_threshold_curve_of_any_curve(curve, chosen):
    assert read(figures.threshold_curve(curve, chosen)).shape == (435, 1440, 3)


def test_threshold_curve_shows_what_was_tuned():
    plain = figures.threshold_curve(CURVE, 0.5)
    for values in ([0.1, 0.7], [None, 0.7], [None, None]):
        drawn = figures.threshold_curve(CURVE, 0.5, tuned={"threshold": [0.2, 0.5], "value": values}, measure="seg")
        assert read(drawn).shape == (435, 1440, 3) and drawn != plain


def test_threshold_curve_shows_the_choice():
    assert figures.threshold_curve(CURVE, 0.3) != figures.threshold_curve(CURVE, 0.6)


def test_the_least_score_of_a_cell_is_no_threshold_of_the_pixels():
    low, high = (read(figures.threshold_curve(CURVE, chosen, cells=True)) for chosen in (0.3, 0.6))
    np.testing.assert_array_equal(low, high)
    tuned = {"threshold": [0.3, 0.6], "value": [0.5, 0.7]}
    low, high = (read(figures.threshold_curve(CURVE, chosen, tuned=tuned, cells=True)) for chosen in (0.3, 0.6))
    assert (low != high).any()


def test_the_foreground_ratio_of_a_detector_is_that_at_its_best_score():
    scores = HISTORY["val_dice"].to_numpy()
    assert figures.training_curves(HISTORY.assign(val_average_precision=scores)) != figures.training_curves(HISTORY)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"name": "a", "dice": None}],
        [{"name": "a", "dice": 0.5}],
        [{"name": "a", "dice": 0.5}, {"name": "b" * 300, "dice": 0.1}, {"name": "c"}],
    ],
)
def test_per_image_scores_of_any_rows(rows):
    assert read(figures.per_image_scores(rows)).shape == (435, 1440, 3)


def test_per_image_scores_do_not_depend_on_the_order():
    rows = [{"name": name, "dice": value} for name, value in (("a", 0.5), ("b", 0.9), ("c", 0.7))]
    assert figures.per_image_scores(rows) == figures.per_image_scores(rows[::-1])


def test_answers_stand_side_by_side():
    labels = large(one_cell())
    dark, bright = np.zeros(labels.shape, np.float32), np.ones(labels.shape, np.float32)
    picture = read(figures.answers(image_of(labels), labels, {"dark": dark, "bright": bright}, limits=(0, 200)))
    panel = picture.shape[1] // 3
    shown = [picture[60:-20, start + 30 : start + panel - 60] for start in (0, panel, 2 * panel)]
    assert count(shown[0], pictures.TRUTH) > 100
    assert (shown[1] == 0).all() and (shown[2] == 255).all()


def test_every_figure_is_in_the_table():
    assert list(figures.FIGURES) == [
        "outlines",
        "class_outlines",
        "overlay",
        "answers",
        "mistake_outlines",
        "training_curves",
        "threshold_curve",
        "per_image_scores",
        "recall_by_fact",
        "merges_and_membranes",
        "lineage_tree",
        "population",
        "displacement",
        "rendered_objects",
    ]
    assert all(getattr(figures, name) is function for name, function in figures.FIGURES.items())


def test_pyplot_is_not_touched():
    # Its global state is not safe in threads and picks a display.
    import subprocess
    import sys

    code = "import sys, cellseg.figures, pipelines.preview; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_overlay_has_the_images_own_pixels():
    labels = two_touching()
    image = np.random.default_rng(0).integers(0, 255, (*labels.shape, 1), dtype=np.uint8)
    picture = cv2.imdecode(np.frombuffer(figures.overlay(image, labels), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (*labels.shape, 3)
    grey = (picture[..., 0] == picture[..., 1]) & (picture[..., 1] == picture[..., 2])
    assert grey[labels == 0].all() and not grey[labels > 0].any()


def test_classes_have_a_colour_each_on_both_sides():
    labels = large(two_touching())
    kinds = np.where(labels == 1, 1, np.where(labels == 2, 2, 0))
    names = ("round", "long")
    same = read(figures.class_outlines(image_of(labels), kinds, labels, kinds, labels, names=names, limits=(0, 200)))
    other = np.where(kinds == 2, 1, kinds)
    wrong = read(figures.class_outlines(image_of(labels), kinds, labels, other, labels, names=names, limits=(0, 200)))
    body = round(0.85 * same.shape[0])
    for picture, alike in ((same, True), (wrong, False)):
        left, right = np.array_split(picture[:body], 2, axis=1)
        counts = [[count(side, pictures.COLOURS[place]) for place in (0, 1)] for side in (left, right)]
        assert min(counts[0]) > 50
        assert (counts[0] == counts[1]) is alike and (counts[1][1] == 0) is not alike


def test_a_cell_of_unknown_class_is_grey():
    labels = large(one_cell())
    nothing = np.zeros_like(labels)
    picture = read(figures.class_outlines(image_of(labels), nothing, labels, nothing, nothing, names=("a",)))
    assert count(picture, pictures.UNMATCHED) > 50
