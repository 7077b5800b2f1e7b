import numpy as np
import pytest

from pipelines.advice import advise, balanced_weights, suggest_depths, suggest_elastic_sigma, suggest_patch
from pipelines.sample import Sample
from pipelines.statistics import FLOATS_KEPT, Statistics, touching_ids
from tests.datasets import discs, picture


def statistics(fraction, diameter=14.0):
    quantiles = {"0.05": 0.7 * diameter, "0.25": diameter, "0.5": diameter, "0.75": diameter, "0.95": 1.5 * diameter}
    return {
        "foreground_fraction": fraction,
        "object_diameter": quantiles,
        "ignored_fraction": 0.0,
        "class_fractions": None,
    }


def test_sparse_foreground_weighs_more():
    # f = 0.04: 1/sqrt = 5 and 1.0206; mean 0.04 * 5 + 0.96 * 1.0206 = 1.1798
    weights = balanced_weights(0.04)
    assert weights["foreground_weight"] == pytest.approx(5 / 1.1798, abs=1e-3)
    assert weights["background_weight"] == pytest.approx(1.0206 / 1.1798, abs=1e-3)
    assert weights["beta"] == pytest.approx(0.684) and weights["alpha"] == pytest.approx(0.316)


def test_at_78_percent_foreground_the_background_weighs_more():
    weights = balanced_weights(0.78)
    assert weights["background_weight"] > 1 > weights["foreground_weight"]
    assert weights["alpha"] > 0.5 > weights["beta"]


def test_half_and_half_needs_no_weights():
    assert balanced_weights(0.5) == {"alpha": 0.5, "beta": 0.5, "foreground_weight": 1.0, "background_weight": 1.0}


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_one_class_alone_gives_finite_weights(fraction):
    assert all(0 < value < 100 for value in balanced_weights(fraction).values())


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.78])
def test_the_mean_pixel_weighs_one(fraction):
    weights = balanced_weights(fraction)
    mean = fraction * weights["foreground_weight"] + (1 - fraction) * weights["background_weight"]
    assert mean == pytest.approx(1, abs=1e-3)


def test_advice_names_the_trivial_answer_and_its_score():
    text = "\n".join(advise(statistics(0.042), smallest_side=576))
    assert "4.2 % of the pixels are foreground" in text
    assert "all background scores 95.8 % pixel accuracy" in text
    assert "would tear cells this small" in text


def test_advice_is_right_where_foreground_is_the_majority():
    text = "\n".join(advise(statistics(0.78, diameter=60), smallest_side=512))
    assert "Background is the rarer class" in text
    assert "all foreground scores 78.0 % pixel accuracy" in text
    assert "sigma up to 10 px suits" in text


def test_advice_where_cells_touch():
    text = "\n".join(advise({**statistics(0.1), "touching_fraction": 0.314}, smallest_side=512))
    assert "31 % of the cells touch another" in text and "watershed" in text
    assert "touch" not in "\n".join(advise({**statistics(0.1), "touching_fraction": 0.0199}, smallest_side=512))


def test_depths_follow_the_width_of_cells():
    assert suggest_depths(50) == [1.5, 3.0, 6.0]
    assert suggest_depths(5) == [0.5, 0.6]  # 3 and 6 % are below half a pixel


@pytest.mark.parametrize(
    ("labels", "ids"),
    [
        ([[1, 1, 0, 2]], []),
        ([[1, 1, 2, 0, 3]], [1, 2]),
        ([[1, 0], [0, 2]], [1, 2]),  # by a corner
        ([[0, 1], [2, 0]], [1, 2]),
        ([[7], [9], [0], [9]], [7, 9]),
        ([[0, 0]], []),
    ],
)
def test_cells_that_touch(labels, ids):
    assert touching_ids(np.array(labels, np.int32)).tolist() == ids


def test_cells_that_touch_are_counted_where_the_truth_is_known():
    labels = np.array([[1, 2, 0, 3, 4, 0, 5]], np.int32)
    ignore = labels == 4
    counted = Statistics()
    counted.add(Sample(picture(labels)[..., None], labels, "a", ignore=ignore), (0, 1))
    assert counted.result()["touching_fraction"] == 2 / 4
    assert Statistics().result()["touching_fraction"] is None


def test_advice_without_cells():
    empty = {**statistics(0.0), "object_diameter": None}
    assert "no labelled cells" in advise(empty, smallest_side=64)[-1]


def test_patch_fits_cells_and_images():
    assert suggest_patch(14, 576) == 112  # 8 * 14
    assert suggest_patch(60, 576) == 256  # the largest
    assert suggest_patch(60, 100) == 96  # inside the smallest image
    assert suggest_patch(3, 576) == 64  # the smallest


def test_elastic_sigma_never_exceeds_the_papers():
    assert suggest_elastic_sigma(12) == 4
    assert suggest_elastic_sigma(90) == 10


def test_statistics_of_hand_made_images():
    labels = discs(0, side=40, num=2, radius=4)  # a disc of radius 4 has 45 pixels
    area = int((labels == 1).sum())
    counted = Statistics()
    counted.add(Sample(picture(labels)[..., None], labels, "a"), (10, 110))
    counted.add(Sample(picture(labels)[..., None], 0 * labels, "b"), (10, 60))
    result = counted.result()
    assert result["images"] == 2
    assert result["foreground_fraction"] == pytest.approx(2 * area / (2 * 1600))
    assert result["objects"] == 2
    assert result["objects_per_image"] == {"min": 0, "mean": 1.0, "max": 2}
    assert result["object_area"]["0.5"] == area
    assert result["contrast_range"]["0.5"] == 75


def test_percentiles_are_those_of_the_pixels():
    image = np.arange(1000, dtype=np.uint16).reshape(20, 50, 1)
    counted = Statistics()
    counted.add(Sample(image, np.zeros((20, 50), np.int32), "a"), (0, 1))
    assert counted.result()["intensity_percentiles"]["50"] == 499
    assert counted.result()["intensity_percentiles"]["98"] == 979


def test_statistics_of_nothing():
    assert Statistics().result()["foreground_fraction"] is None


def test_sparse_ids_cost_no_memory():
    labels = np.where(discs(0) > 0, 2**31 - 1, 0).astype(np.int32)
    counted = Statistics()
    counted.add(Sample(picture(labels)[..., None], labels, "a"), (0, 1))
    assert counted.result()["objects"] == 1


def intensities(*images):
    counted = Statistics()
    for image in images:
        counted.add(Sample(image, np.zeros(image.shape[:2], np.int32), "a"), (0, 1))
    return counted.result()["intensity_percentiles"]


def test_percentiles_of_float_images_come_from_every_column_and_channel():
    # Equally spaced pixels would all lie in the first column: 1024 of 1024 x 1024.
    ramp = np.tile(np.arange(1024, dtype=np.float32), (1024, 1))
    percentiles = intensities(np.stack([ramp, ramp - 5000], axis=-1))
    assert percentiles["25"] == pytest.approx(512 - 5000, abs=20)
    assert percentiles["75"] == pytest.approx(512, abs=20)


def test_percentiles_of_few_float_pixels_are_exact():
    values = np.linspace(-3, 7, 1001, dtype=np.float32)
    percentiles = intensities(values[:300].reshape(20, 15, 1), values[300:].reshape(1, 701, 1))
    assert percentiles["0.1"] == values[1] and percentiles["50"] == values[500] and percentiles["99.9"] == values[999]


def test_percentiles_count_every_pixel_of_small_and_large_images_of_any_type():
    # 10,000 pixels of -1, 30,000 of 5 and 60,000 of 8: the last are whole numbers.
    minus = np.full((100, 100, 1), -1, np.float32)
    percentiles = intensities(minus, np.full((100, 300, 1), 5, np.float32), np.full((100, 600, 1), 8, np.uint16))
    assert [percentiles[p] for p in ("2", "25", "50")] == [-1, 5, 8]


def test_memory_for_float_percentiles_is_bounded():
    counted = Statistics()
    for number in range(3):
        image = np.full((300, 300, 1), number, np.float32)
        counted.add(Sample(image, np.zeros((300, 300), np.int32), "a"), (0, 1))
        assert len(counted._floats) <= FLOATS_KEPT
    percentiles = counted.result()["intensity_percentiles"]
    assert [percentiles[p] for p in ("25", "50", "75")] == [0, 1, 2]


def test_percentiles_of_float_images_of_any_range():
    rng = np.random.default_rng(0)
    counted = Statistics()
    for shift in (0.0, 10.0):
        image = rng.normal(shift, 1, (64, 64, 1)).astype(np.float32)
        counted.add(Sample(image, np.zeros((64, 64), np.int32), "a"), (0, 1))
    percentiles = counted.result()["intensity_percentiles"]
    assert percentiles["25"] == pytest.approx(0, abs=0.15) and percentiles["75"] == pytest.approx(10, abs=0.15)
    assert percentiles["2"] < -1.5 and percentiles["98"] > 11.5


def test_advice_tells_of_classes_and_unannotated_pixels():
    known = {**statistics(0.2), "ignored_fraction": 0.112, "class_fractions": [0.8, 0.05, 0.15]}
    lines = advise(known, smallest_side=512, classes=("benign", "malignant"))
    assert "11.2 % of the training pixels are unannotated: they count in no loss and in no score." in lines
    assert "Classes, in pixels of all: benign 5.0 %, malignant 15.0 %." in lines
