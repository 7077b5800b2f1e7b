import concurrent.futures
import re
import sys
import threading

import numpy as np
import pytest

from pipelines.augment import Augmenter, folding_warnings
from pipelines.errors import InputError

STEPS = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "RandomRotate90", "p": 1.0}]
MIXED = [
    {"name": "elastic_grid", "sigma": 3.0, "p": 0.8},
    {"name": "Affine", "rotate": [-20, 20], "scale": [0.8, 1.2], "p": 0.7},
    {"name": "elastic_simard", "alpha": 20.0, "sigma": 3.0},
    {"name": "GaussNoise", "std_range": [0.01, 0.05]},
]


def scene():
    labels = np.arange(1, 101, dtype=np.int32).reshape(10, 10) * 700  # ids beyond 16 bits
    return (labels / labels.max()).astype(np.float32)[..., None], labels


def blocks(side=96, size=12, seed=0, ids=(0, 1, 255, 300, 70_000)):
    """Labels of square blocks, and an image whose grey value stands for the label; 0 for label 0."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, len(ids), (side // size,) * 2).repeat(size, 0).repeat(size, 1)
    return (places / len(ids)).astype(np.float32)[..., None], np.array(ids, np.int32)[places]


def grey_of(labels, ids=(0, 1, 255, 300, 70_000)):
    return np.searchsorted(ids, labels) / len(ids)


def test_image_and_labels_move_together_and_ids_keep_their_meaning():
    image, labels = scene()
    augment = Augmenter(STEPS)
    moved = 0
    for seed in range(20):
        new_image, maps = augment(image, {"labels": labels}, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(new_image[..., 0] * labels.max(), maps["labels"], rtol=1e-6)
        assert maps["labels"].dtype == np.int32
        moved += not np.array_equal(maps["labels"], labels)
    assert moved > 10


def test_the_answer_depends_on_the_seed_alone():
    image, labels = scene()
    augment = Augmenter(STEPS)

    def run(seed):
        return augment(image, {"labels": labels}, rng=np.random.default_rng(seed))[1]["labels"].tobytes()

    alone = [run(seed) for seed in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(40))) == alone
    assert len(set(alone)) == 8  # the symmetries of a square


def test_threads_do_not_disturb_each_other():
    """As above, but threads take turns after every few instructions."""
    image, labels = scene()
    augment = Augmenter([{"name": "Affine", "rotate": [-90, 90], "p": 0.5}] * 3)

    def run(seed):
        return augment(image, {"labels": labels}, rng=np.random.default_rng(seed))[1]["labels"].tobytes()

    alone = [run(seed) for seed in range(60)]
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(run, range(60))) == alone
    finally:
        sys.setswitchinterval(interval)


def test_our_steps_and_theirs_depend_on_the_seed_alone_too():
    image, labels = blocks()
    augment = Augmenter(MIXED)

    def run(seed):
        new_image, maps = augment(image, {"labels": labels}, rng=np.random.default_rng(seed))
        return new_image.tobytes() + maps["labels"].tobytes()

    alone = [run(seed) for seed in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(20))) == alone
    other = Augmenter(MIXED)(image, {"labels": labels}, rng=np.random.default_rng(7))
    assert other[0].tobytes() + other[1]["labels"].tobytes() == alone[7]
    assert len(set(alone)) == 20


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64"])
def test_labels_keep_dtype_and_ids(dtype):
    ids = [number for number in (0, 1, 200, 65_535, 65_536, 70_000, 2**31 - 1) if number <= np.iinfo(dtype).max]
    labels = np.array(ids, dtype)[np.random.default_rng(0).integers(0, len(ids), (8, 8))].repeat(8, 0).repeat(8, 1)
    steps = [{"name": "elastic_grid", "sigma": 2.0, "order": 0}, {"name": "Rotate", "limit": [30, 30], "p": 1.0}]
    maps = {"labels": labels, "ignore": labels == 200}
    maps = Augmenter(steps)(np.zeros((64, 64, 1), np.float32), maps, rng=np.random.default_rng(0))[1]
    assert maps["labels"].dtype == dtype and set(np.unique(maps["labels"])) == set(ids)
    assert maps["ignore"].dtype == bool
    np.testing.assert_array_equal(maps["ignore"], maps["labels"] == 200)


def test_bool_maps_stay_bool():
    image, labels = scene()
    _, maps = Augmenter(STEPS)(image, {"ignore": labels > 700}, rng=np.random.default_rng(0))
    assert maps["ignore"].dtype == bool and maps["ignore"].sum() == 99


@pytest.mark.parametrize("steps", [MIXED, MIXED[1:]])
def test_classes_ignore_and_weight_map_move_with_the_labels(steps):
    image, labels = blocks()
    maps = {
        "labels": labels,
        "classes": (labels % 7).astype(np.int32),
        "weight_map": (labels / 3).astype(np.float32),
        "ignore": labels == 300,
    }
    for array in maps.values():
        array.flags.writeable = False
    _, moved = Augmenter(steps)(image, maps, rng=np.random.default_rng(1))
    assert not np.array_equal(moved["labels"], labels)
    assert {name: array.dtype for name, array in moved.items()} == {name: array.dtype for name, array in maps.items()}
    np.testing.assert_array_equal(moved["classes"], moved["labels"] % 7)
    np.testing.assert_array_equal(moved["weight_map"], (moved["labels"] / 3).astype(np.float32))
    np.testing.assert_array_equal(moved["ignore"], moved["labels"] == 300)


def test_too_many_ids_for_16_bits():
    labels = np.arange(1, 70_001, dtype=np.int32).reshape(250, 280)
    with pytest.raises(InputError, match="holds 70001 label ids; augmentation takes at most 65536"):
        Augmenter(STEPS)(np.zeros((250, 280, 1), np.float32), {"labels": labels}, rng=np.random.default_rng(0))


def test_nothing_to_do():
    image, labels = scene()
    new_image, maps = Augmenter([])(image, {"labels": labels}, rng=np.random.default_rng(0))
    assert new_image is image and maps["labels"] is labels
    assert not Augmenter([]).resizes and Augmenter([]).margin == 0


# Chains of spatial steps: (a step with nearest neighbour for the image too, the key that says so).
SPATIAL = [
    lambda draw: {"name": "elastic_grid", "sigma": draw(1, 6), "points": int(draw(2, 6)), "order": 0},
    lambda draw: {"name": "elastic_simard", "alpha": draw(5, 40), "sigma": draw(2, 6), "order": 0},
    lambda draw: {"name": "Affine", "rotate": draw(-90, 90), "scale": draw(0.5, 2), "interpolation": 0},
    lambda draw: {"name": "Rotate", "limit": draw(1, 180), "interpolation": 0},
    lambda draw: {"name": "Perspective", "scale": draw(0.05, 0.2), "interpolation": 0},
    lambda draw: {"name": "ElasticTransform", "alpha": draw(1, 60), "sigma": draw(3, 9), "interpolation": 0},
    lambda draw: {"name": "GridDistortion", "distort_limit": draw(0.1, 0.4), "interpolation": 0},
    lambda draw: {"name": "OpticalDistortion", "distort_limit": draw(0.1, 0.4), "interpolation": 0},
    lambda draw: {"name": "RandomScale", "scale_limit": draw(0.1, 0.4), "interpolation": 0},
    lambda draw: {"name": "Resize", "height": int(draw(60, 150)), "width": int(draw(60, 150)), "interpolation": 0},
    lambda draw: {"name": "RandomCrop", "height": int(draw(40, 60)), "width": int(draw(40, 60))},
    lambda draw: {"name": "PadIfNeeded", "min_height": int(draw(90, 150)), "min_width": int(draw(90, 150))},
    lambda draw: {"name": "D4"},
    lambda draw: {"name": "HorizontalFlip"},
    lambda draw: {"name": "RandomGridShuffle"},
]


@pytest.mark.parametrize("seed", range(40))
def test_random_chains_keep_image_and_labels_together(seed):
    rng = np.random.default_rng(seed)
    steps = [{**SPATIAL[n](rng.uniform), "p": 1.0} for n in rng.choice(len(SPATIAL), 3, replace=False)]
    while [step["name"] for step in steps].count("RandomCrop") and steps[-1]["name"] != "RandomCrop":
        steps = [*steps[1:], steps[0]]  # the crop comes last: the others make the image no smaller than it
    image, labels = blocks(seed=seed)
    new_image, maps = Augmenter(steps)(image, {"labels": labels}, rng=rng)
    assert set(np.unique(maps["labels"])) <= {0, *np.unique(labels)}, steps
    # Read by the nearest neighbour both, they agree in every pixel.
    np.testing.assert_allclose(new_image[..., 0], grey_of(maps["labels"]), atol=1e-6, err_msg=str(steps))


@pytest.mark.parametrize("seed", range(20))
def test_random_interpolated_chains_agree_inside_the_blocks(seed):
    rng = np.random.default_rng(seed)
    steps = [{**SPATIAL[n](rng.uniform), "p": 1.0} for n in rng.choice(8, 2, replace=False)]
    for step in steps:
        step.pop("interpolation", None)
        step.pop("order", None)
    image, labels = blocks(seed=seed, size=24)
    new_image, maps = Augmenter(steps)(image, {"labels": labels}, rng=rng)
    new = maps["labels"]
    # The interpolated band along the edges of the blocks, wider where they are enlarged, is left out.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(new, 3, constant_values=-1), (7, 7))
    inside = windows.min((2, 3)) == windows.max((2, 3))
    assert inside.mean() > 0.2, steps
    difference = np.abs(new_image[..., 0] - grey_of(new))[inside]
    assert np.mean(difference > 1e-3) < 0.01, steps  # strong distortion squeezes a few edges out of their band


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_our_steps_take_any_number_of_channels(channels):
    image = np.repeat(blocks()[0], channels, axis=2)
    for order in (0, 1, 3):
        steps = [{"name": "elastic_grid", "order": order}, {"name": "elastic_simard", "order": order}]
        new, _ = Augmenter(steps)(image, {}, rng=np.random.default_rng(0))
        assert new.shape == image.shape and new.dtype == np.float32
        assert new.min() >= 0 and new.max() <= image.max() + 1e-6
        np.testing.assert_array_equal(new, np.repeat(new[..., :1], channels, axis=2))


def test_the_first_step_reads_real_surroundings():
    """The rows outside of the patch hold values that no pixel of the patch has."""
    augment = Augmenter([{"name": "elastic_grid", "sigma": 5.0, "p": 0.5, "order": 0}])
    assert augment.margin == 15
    image = np.tile(np.arange(94, dtype=np.float32)[:, None, None] / 94, (1, 94, 1))
    labels = np.tile(np.arange(94, dtype=np.int32)[:, None], (1, 94))
    centre = slice(15, -15)
    outside, untouched = 0, 0
    for seed in range(30):
        new, maps = augment(image, {"labels": labels}, rng=np.random.default_rng(seed), margin=15)
        assert new.shape == (64, 64, 1) and maps["labels"].shape == (64, 64)
        np.testing.assert_allclose(new[..., 0] * 94, maps["labels"], atol=1e-4)
        outside += maps["labels"].min() < 15 or maps["labels"].max() > 78
        untouched += np.array_equal(maps["labels"], labels[centre, centre])
    assert 5 < untouched < 25 and outside > 5


def test_a_still_field_gives_the_centre_and_later_steps_have_no_margin():
    image, labels = blocks()
    steps = [{"name": "elastic_grid", "sigma": 0.01, "order": 0}, {"name": "VerticalFlip", "p": 1.0}]
    new, maps = Augmenter(steps)(image, {"labels": labels}, rng=np.random.default_rng(0), margin=10)
    np.testing.assert_array_equal(new, image[10:-10, 10:-10][::-1])
    np.testing.assert_array_equal(maps["labels"], labels[10:-10, 10:-10][::-1])


def test_the_margin_is_cut_off_before_a_step_of_albumentations():
    image, labels = scene()
    new, maps = Augmenter(STEPS[:1])(image, {"labels": labels}, rng=np.random.default_rng(0), margin=2)
    inner = labels[2:-2, 2:-2]
    assert new.shape == (6, 6, 1)
    assert any(np.array_equal(maps["labels"], one) for one in (inner, inner[:, ::-1]))
    assert Augmenter([])(image, {"labels": labels}, rng=np.random.default_rng(0), margin=3)[0].shape == (4, 4, 1)


def test_margin_is_three_standard_deviations():
    assert Augmenter([{"name": "elastic_grid"}]).margin == 30
    # 34 / (2 * sqrt(3 * pi) * 4) = 1.3844 pixels
    assert Augmenter([{"name": "elastic_simard"}]).margin == 5
    assert Augmenter([{"name": "HorizontalFlip"}, {"name": "elastic_grid"}]).margin == 0


def test_folding_is_reported_with_what_was_measured():
    steps = [
        {"name": "HorizontalFlip"},
        {"name": "elastic_grid"},
        {"name": "elastic_grid", "sigma": 40},
        {"name": "elastic_simard", "alpha": 60, "sigma": 3},
        {"name": "ElasticTransform", "alpha": 300, "sigma": 5},
        {"name": "ElasticTransform", "alpha": 1, "sigma": 8},
    ]
    warnings = folding_warnings(steps, (256, 256), trials=16)
    assert len(warnings) == 3
    start = r"augment\[2\]: elastic_grid \(sigma=40, points=3\) folds \d+% of 16 patches of 256x256"
    assert_matches(warnings[0], start + r" \(smallest determinant of the Jacobian -\d.*Lower sigma\.")
    assert_matches(warnings[1], r"augment\[3\]: elastic_simard \(alpha=60, sigma=3\).*Lower alpha or raise sigma\.")
    assert_matches(warnings[2], r"augment\[4\]: ElasticTransform \(alpha=300, sigma=5\) folds 100% of 16")
    assert folding_warnings(steps, (256, 256), trials=16) == warnings


def assert_matches(text, pattern):
    assert re.match(pattern, text), text


def test_an_image_that_a_step_cannot_take_names_the_step():
    augment = Augmenter([{"name": "HorizontalFlip"}, {"name": "HEStain", "p": 1.0}])
    with pytest.raises(InputError, match=r"augment\[1\]: HEStain does not work on an image of 10x10x1: .*3-channel"):
        augment(*with_labels(scene()), rng=np.random.default_rng(0))


def test_a_crop_larger_than_the_image_names_the_step():
    augment = Augmenter([{"name": "RandomCrop", "height": 32, "width": 32}])
    with pytest.raises(InputError, match=r"augment\[0\]: RandomCrop does not work on an image of 10x10x1: .*32"):
        augment(*with_labels(scene()), rng=np.random.default_rng(0))


def with_labels(pair):
    return pair[0], {"labels": pair[1]}


def test_new_threads_use_the_same_copies_of_the_transforms():
    # TensorFlow's threads are new ones to Python at every call: a copy for each would cost more than the transforms.
    augmenter = Augmenter([{"name": "HorizontalFlip", "p": 0.5}])
    image, labels = np.zeros((8, 8, 1), np.float32), np.zeros((8, 8), np.uint8)

    def call():
        augmenter(image, {"labels": labels}, rng=np.random.default_rng(0))

    for _ in range(5):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert len(augmenter._free) == 1
