import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.mask_rcnn.detections import detect
from cellseg.models.mask_rcnn.proposals import propose
from pipelines.errors import InputError
from tests.oracles_boxes import truth_of

ROOT = Path(__file__).parents[3]
SMALL = {
    "channels": 1,
    "backbone": "resnet18",
    "width": 4,
    "fpn_channels": 8,
    "box_features": 16,
    "mask_channels": 8,
    "mask_layers": 1,
    "anchor_sizes": (8, 16),
    "training_proposals": (32, 32),
    "proposals": (32, 16),
    "anchor_samples": 32,
    "roi_samples": 16,
    "detections": 10,
}
PARTS = ["box_loss", "class_loss", "loss", "mask_loss", "proposal_box_loss", "proposal_score_loss"]


def small(**options):
    keras.utils.set_random_seed(0)
    return MaskRCNN(**{"classes": 1, **SMALL, **options})


def squares(side=32):
    """Two images of bright squares on dark ground, and their labels."""
    labels = np.zeros((2, side, side), np.int32)
    labels[0, 2:12, 3:11], labels[0, 16:28, 14:30] = 1, 2
    labels[1, 5:20, 8:22] = 1
    image = np.random.default_rng(0).normal(0.1, 0.02, labels.shape) + 0.7 * (labels > 0)
    return image[..., None].astype(np.float32), labels


def losses(network, image, truth):
    """The five losses, without a compiled graph, and without moving the batch statistics."""
    parts = network.loss_parts(image, truth, network(image, training=False), training=False)
    return {name: float(value) for name, value in parts.items()}


def num_weights(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def without_batch_norm(network):
    return [
        weight
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose | keras.layers.Dense)
        for weight in layer.weights
    ]


@pytest.fixture(scope="module")
def whole():
    """A network that trains on every anchor and region: nothing is left to chance. Tests leave it as it is."""
    return small(anchor_samples=2000, roi_samples=2000)


@pytest.fixture(scope="module")
def fitted():
    """A network after 30 steps, and its losses."""
    network = small(seed=3)
    network.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    image, labels = squares()
    image, labels = np.tile(image, (10, 1, 1, 1)), np.tile(labels, (10, 1, 1))
    history = network.fit(image, truth_of(labels, rows=3), batch_size=2, epochs=3, shuffle=False, verbose=0).history
    return network, history


def test_parameters_are_those_of_torchvision():
    assert num_weights(without_batch_norm(MaskRCNN(classes=1))) == 43_922_395


def test_frozen_batch_norm_learns_nothing(whole):
    frozen = small(batch_norm="frozen")
    assert num_weights(frozen.trainable_weights) == num_weights(without_batch_norm(frozen))
    assert num_weights(whole.trainable_weights) > num_weights(frozen.trainable_weights)
    before = frozen.get_weights()
    frozen(squares()[0], training=True)
    for old, new in zip(before, frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_finite_gradient_reaches_every_weight():
    import tensorflow as tf

    network = small(classes=2, anchor_sizes=(8, 16, 24, 32, 48), anchor_samples=2000)
    image, labels = squares(64)
    truth = truth_of(labels, rows=4, classes=(1, 2))
    with tf.GradientTape() as tape:
        parts = network.loss_parts(image, truth, network(image, training=True), training=True)
        loss = sum(parts.values())
    assert sorted([*parts, "loss"]) == PARTS and all(float(value) > 0 for value in parts.values())
    for weight, gradient in zip(network.trainable_weights, tape.gradient(loss, network.trainable_weights), strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all() and np.abs(np.asarray(gradient)).max() > 0, weight.path


def test_fitting_lowers_every_loss(fitted):
    _, history = fitted
    assert sorted(history) == PARTS
    np.testing.assert_allclose(
        history["loss"], sum(np.asarray(history[part]) for part in PARTS if part != "loss"), rtol=1e-4
    )
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert all(history[part][-1] < history[part][0] for part in ("class_loss", "mask_loss", "proposal_score_loss"))


def test_detections_have_fixed_shapes(fitted):
    network, _ = fitted
    image, _ = squares()
    found = network.detect(image)
    kinds = {"boxes": "float32", "scores": "float32", "classes": "int32", "masks": "float32", "found": "int32"}
    assert {name: str(array.dtype) for name, array in found.items()} == kinds
    shapes = [found[name].shape for name in kinds]
    assert shapes == [(2, 10, 4), (2, 10), (2, 10), (2, 10, 28, 28), (2,)]
    assert (np.diff(found["scores"], axis=1) <= 0).all()
    assert ((found["classes"] == 0) == (found["scores"] == 0)).all()
    assert found["masks"].min() >= 0 and found["masks"].max() <= 1
    wide = network.detect(np.zeros((1, 32, 64, 1), np.float32))  # another shape, in a graph of its own
    assert wide["boxes"].shape == (1, 10, 4)
    assert network.detect(image)["boxes"].shape == (2, 10, 4)


def test_a_loaded_network_detects_the_same(fitted, tmp_path):
    network, _ = fitted
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    assert loaded.get_config() == network.get_config() and loaded.get_config()["width"] == 4
    image, _ = squares()
    wanted, found = network.detector()(image), loaded.detector()(image)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_a_detector_takes_its_own_limits(fitted):
    network, _ = fitted
    image, _ = squares()
    usual = network.detector()(image)
    other = network.detector(detections=3, score_threshold=0.0, detection_iou=1.0)(image)
    assert other["boxes"].shape == (2, 3, 4) and (np.asarray(other["classes"]) > 0).all()
    assert (np.asarray(other["found"]) == 16).all() and (np.asarray(usual["found"]) < 16).all()  # every proposal
    with pytest.raises(InputError, match="model.detections must be >= 1, got 0"):
        network.detector(detections=0)


@pytest.mark.parametrize("rows", [1, 3])
def test_an_image_without_objects(whole, rows):
    image, labels = squares()
    parts = losses(whole, image, truth_of(0 * labels, rows=rows))
    assert parts["box_loss"] == parts["mask_loss"] == parts["proposal_box_loss"] == 0
    assert np.isfinite(list(parts.values())).all() and parts["class_loss"] > 0 and parts["proposal_score_loss"] > 0


def test_empty_rows_count_for_nothing_whatever_their_box(whole):
    image, labels = squares()
    wanted = losses(whole, image, truth_of(labels, rows=2))
    more = truth_of(labels, rows=5)
    more["boxes"][0, 2:] = more["boxes"][1, 1:] = [0, 0, 32, 32]
    more["boxes"][:, 3:] = np.nan
    assert losses(whole, image, more) == pytest.approx(wanted, rel=1e-5)


def test_objects_of_one_pixel(whole):
    import tensorflow as tf

    labels = np.zeros((1, 32, 32), np.int32)
    for label, place in enumerate(((0, 0), (31, 31), (9, 17)), 1):
        labels[0][place] = label
    truth, image = truth_of(labels, rows=3), np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    with tf.GradientTape() as tape:
        parts = whole.loss_parts(image, truth, whole(image, training=False), training=False)
        loss = sum(parts.values())
    assert all(float(value) > 0 for value in parts.values())
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, whole.trainable_weights))


def test_ignored_pixels_are_no_background(whole):
    image, labels = squares()
    parts = losses(whole, image, truth_of(0 * labels - 1, rows=2))
    assert parts["class_loss"] == 0
    labels[:, :, 16:] = -1
    some = losses(whole, image, truth_of(labels.clip(-1, 0), rows=2))
    assert 0 < some["proposal_score_loss"] < 1  # anchors that reach over the edge are not ignored


def test_half_precision_scales_its_loss():
    network = small(precision="mixed_float16")
    network.compile("sgd", jit_compile=False)
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    image, labels = squares()
    answer = network(image, training=True)
    kinds = {keras.backend.standardize_dtype(array.dtype) for array in answer["features"]}
    assert kinds == {"float16"} and keras.backend.standardize_dtype(answer["scores"][0].dtype) == "float32"
    assert np.isfinite(list(losses(network, image, truth_of(labels, rows=2)).values())).all()
    twin = MaskRCNN.from_config({**network.get_config(), "precision": "float32"})
    twin.set_weights(network.get_weights())
    assert keras.backend.standardize_dtype(twin(image)["features"][0].dtype) == "float32"
    np.testing.assert_allclose(twin(image)["scores"][0], network(image)["scores"][0], atol=0.01)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_steps_in_half_precision_are_finite_and_move_every_weight(precision):
    network = small(precision=precision, anchor_sizes=(8, 16, 24, 32, 48), anchor_samples=2000)
    network.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    image, labels = squares(64)
    truth = truth_of(labels, rows=3)
    answer = network(image, training=True)
    parts = network.loss_parts(image, truth, answer, training=True)
    assert {keras.backend.standardize_dtype(value.dtype) for value in parts.values()} == {"float32"}
    before = [np.asarray(weight) for weight in network.trainable_weights]
    # float16: a step whose scaled gradients overflow is left out, and the scale halved.
    history = network.fit(image, truth, batch_size=2, epochs=4, verbose=0).history
    assert np.isfinite(list(history.values())).all() and history["loss"][-1] < history["loss"][0]
    for weight, old in zip(network.trainable_weights, before, strict=True):
        assert keras.backend.standardize_dtype(weight.dtype) == "float32"
        assert np.isfinite(weight).all() and (np.asarray(weight) != old).any(), weight.path
    found = network.detect(image)
    assert {str(found[name].dtype) for name in ("boxes", "scores", "masks")} == {"float32"}


def test_proposals_are_the_best_of_all_levels():
    first, second = (
        np.asarray([[0, 0, 8, 8], [0, 1, 8, 9], [20, 20, 40, 30]]),
        np.asarray([[0, 0, 8, 8], [-9, -9, 0, 0]]),
    )
    anchors = [first.astype(np.float32), second.astype(np.float32)]
    scores = [np.asarray([[1.0, 2.0, 0.0]], np.float32), np.asarray([[5.0, 9.0]], np.float32)]
    codes = [np.zeros((1, len(level), 4), np.float32) for level in anchors]
    boxes, valid = propose(scores, codes, anchors, height=32, width=32, each=3, total=4, iou=0.5)
    # The box at the corner has no area inside of the image; the first overlaps the second by 7/9; levels do not
    # suppress each other.
    assert np.asarray(valid).tolist() == [[True, True, True, False]]
    assert np.asarray(boxes)[0, :3].tolist() == [[0, 0, 8, 8], [0, 1, 8, 9], [20, 20, 32, 30]]


def test_found_objects_by_hand():
    regions = np.asarray([[[0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 30, 30], [5, 5, 6, 6]]], np.float32)
    share = np.asarray([[[0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.2, 0.04, 0.76], [0, 0.5, 0.5]]])
    logits = np.log(share + 1e-9).astype(np.float32)
    codes = np.zeros((1, 4, 3, 4), np.float32)
    codes[0, 2, 2, 0] = 5  # class 2 moves the third region down by 5 / 10 of its height
    valid = np.asarray([[True, True, True, False]])
    options = {"height": 32, "width": 32, "score_threshold": 0.05, "iou": 0.5}
    boxes, scores, classes, found = (
        np.asarray(array) for array in detect(regions, valid, logits, codes, number=6, **options)
    )
    # Class 1: the second region drops the first (9/11); the third is too unsure. Class 2: the third, then the first,
    # which drops the second.
    assert classes.tolist() == [[1, 2, 2, 0, 0, 0]] and found.tolist() == [3]
    np.testing.assert_allclose(scores, [[0.8, 0.76, 0.3, 0, 0, 0]], atol=1e-6)
    wanted = [[0, 1, 10, 11], [25, 20, 32, 30], [0, 0, 10, 10], [0, 0, 0, 0]]
    np.testing.assert_allclose(boxes[0, :4], wanted, atol=1e-5)
    cut = detect(regions, valid, logits, codes, number=2, **options)
    assert np.asarray(cut[2]).tolist() == [[1, 2]] and np.asarray(cut[3]).tolist() == [3]  # the third is not forgotten


def test_sizes(whole):
    with pytest.raises(InputError, match="cannot take a 40x64 image.*Nearest to 40 that fit: 32 and 64"):
        whole(np.zeros((1, 40, 64, 1), np.float32))
    with pytest.raises(InputError, match=r"Nearest to 7 that fit: 32 \(the smallest\)"):
        whole.detector()(np.zeros((1, 7, 32, 1), np.float32))
    with pytest.raises(InputError, match=r"one known shape, got \(None, 32, 32, 1\).*drop_remainder"):
        whole(keras.Input((32, 32, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg"}, "model.backbone: 'vgg' is not known. Known: resnet18, resnet50"),
        ({"batch_norm": "on"}, "model.batch_norm: 'on' is not known. Known: trainable, frozen"),
        ({"width": 0}, "model.width must be >= 1, got 0"),
        ({"detection_iou": 1.5}, "model.detection_iou must be between 0 and 1, got 1.5"),
        ({"proposals": [10]}, r"model.proposals must be two numbers, .* got \[10\]"),
        ({"proposals": [10, 0]}, r"model.proposals must be numbers > 0, got \[10, 0\]"),
        ({"anchor_sizes": []}, "model.anchor_sizes must have 1 to 5 entries, .* got 0"),
        ({"anchor_sizes": [[8, 16], [32]]}, "equally many sizes for each level.*8, 16.*32"),
        ({"anchor_ratios": [0.5, -1]}, r"model.anchor_ratios must be numbers > 0, got \[0.5, -1\]"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


ELSEWHERE = """
import sys
import keras, numpy as np
from tests.cellseg.models.test_mask_rcnn import losses, small, squares
from tests.oracles_boxes import truth_of

network = small(anchor_samples=2000, roi_samples=2000)
network.load_weights(sys.argv[1])
image, labels = squares()
truth = truth_of(labels, rows=3)
found, wanted = losses(network, image, truth), np.load(sys.argv[2])
np.testing.assert_allclose([found[name] for name in sorted(found)], wanted, rtol=1e-3)
network.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
history = network.fit(image, truth, batch_size=2, epochs=1, verbose=0).history
assert np.isfinite(list(history.values())).all() and len(history) == 6, history
print(keras.backend.backend())
"""


@pytest.mark.torch  # JAX needs a minute to compile
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_other_backends_the_losses_are_the_same(whole, backend, tmp_path):
    image, labels = squares()
    found = losses(whole, image, truth_of(labels, rows=3))
    np.save(tmp_path / "losses.npy", [found[name] for name in sorted(found)])
    whole.save_weights(tmp_path / "network.weights.h5")
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    files = [str(tmp_path / "network.weights.h5"), str(tmp_path / "losses.npy")]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *files], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == backend
