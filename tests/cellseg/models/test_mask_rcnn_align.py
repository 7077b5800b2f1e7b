import numpy as np
import pytest

from cellseg.models.mask_rcnn.align import crop_ids, roi_align, roi_levels
from tests.oracles_boxes import onnx_roi_align


def regions(rng, number, side, *, smallest=0.5, largest):
    """Boxes inside of an image, some along its edges."""
    size = rng.uniform(smallest, largest, (number, 2))
    first = rng.uniform(0, 1, (number, 2)) * (side - size)
    boxes = np.concatenate([first, first + size], axis=1).astype(np.float32)
    boxes[0], boxes[1] = (0, 0, 3, side), (side - 1, side - 1, side, side)
    return boxes


@pytest.mark.parametrize("size", [7, 14])
def test_regions_are_those_of_onnx_runtime(size):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    boxes = np.stack([regions(rng, 20, 64, largest=64) for _ in range(2)])
    cut = np.asarray(roi_align([features], boxes, size=size))
    assert cut.shape == (2, 20, size, size, 3)
    for image in range(2):
        wanted = onnx_roi_align(features[image], boxes[image], size=size, stride=4, samples=2)
        np.testing.assert_allclose(cut[image], wanted, atol=1e-5)


def test_the_level_follows_the_side():
    # 224 is cut from P4, half of it from P3; one pixel from P2, an image of a thousand from the last there is.
    sides = np.asarray([1, 111.9, 112, 223.9, 224, 447.9, 448, 1000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
    assert np.asarray(roi_levels(boxes, 4)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert np.asarray(roi_levels(boxes, 2)).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    long = np.asarray([[0, 0, 56, 224]], np.float32)  # the root of the area counts: 112
    assert np.asarray(roi_levels(long, 4)).tolist() == [1]


def test_each_region_is_cut_from_its_own_level_of_its_own_image():
    rng = np.random.default_rng(1)
    features = [rng.normal(size=(2, 128 // stride, 256 // stride, 2)).astype(np.float32) for stride in (4, 8)]
    boxes = np.asarray([[[5, 9, 40, 61], [3.5, 20.25, 127, 230]]], np.float32)
    boxes = np.concatenate([boxes, boxes[:, ::-1] - 2])  # the second image holds them the other way round
    cut = np.asarray(roi_align(features, boxes, size=7))
    for image, levels in enumerate(((0, 1), (1, 0))):
        for place, level in enumerate(levels):
            box, stride = boxes[image, place : place + 1], (4, 8)[level]
            wanted = onnx_roi_align(features[level][image], box, size=7, stride=stride, samples=2)
            np.testing.assert_allclose(cut[image, place : place + 1], wanted, atol=1e-5)


def test_in_half_precision_gradients_of_many_regions_add_up():
    import tensorflow as tf

    # Every bin of 300 equal regions is the one cell that there is; float16 counts in ones to 2048, and stays there.
    feature = tf.ones((1, 1, 1, 1), "float16")
    with tf.GradientTape() as tape:
        tape.watch(feature)
        cut = roi_align([feature], np.tile(np.asarray([0, 0, 4, 4], np.float32), (1, 300, 1)), size=7)
        total = tf.reduce_sum(tf.cast(cut, "float32"))
    assert cut.dtype == tf.float16 and float(total) == 300 * 49
    assert float(tape.gradient(total, feature)[0, 0, 0, 0]) == pytest.approx(300 * 49, rel=1e-3)


def test_mask_targets_are_those_of_onnx_runtime():
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 4, (2, 40, 32)).astype(np.int32)
    boxes = np.stack([regions(rng, 12, 32, largest=30) for _ in range(2)])
    ids = rng.integers(1, 4, (2, 12)).astype(np.int32)
    share = np.asarray(crop_ids(labels, ids, boxes, size=28))
    for image in range(2):
        for place in range(12):
            mask = (labels[image] == ids[image, place])[..., None].astype(np.float32)
            wanted = onnx_roi_align(mask, boxes[image, place : place + 1], size=28, stride=1, samples=1)
            np.testing.assert_allclose(share[image, place], wanted[0, ..., 0], atol=1e-4)


def test_a_pixel_fills_its_own_box():
    labels = np.zeros((1, 8, 8), np.int32)
    labels[0, 3, 5] = 2
    box = np.asarray([[[3, 5, 4, 6], [2, 4, 5, 7]]], np.float32)
    one, three = np.asarray(crop_ids(labels, np.asarray([[2, 2]], np.int32), box, size=6))[0]
    # Linear between centres: over its own box 1 in the middle, falling to 1/2 at the edges.
    line = 1 - np.abs((np.arange(6) + 0.5) / 6 - 0.5)
    np.testing.assert_allclose(one, np.outer(line, line), atol=1e-6)
    line = np.maximum(1 - np.abs((np.arange(6) + 0.5) / 2 - 1.5), 0)
    np.testing.assert_allclose(three, np.outer(line, line), atol=1e-6)
    assert (np.asarray(crop_ids(labels, np.asarray([[1, 3]], np.int32), box, size=6)) == 0).all()
