import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import logit

from cellseg import metrics
from cellseg.metrics.streaming import CARRY, STREAMING
from tests.backends import on_backends

ROOT = Path(__file__).resolve().parents[2]


def batches(num=3):
    """Truth, probability and weight map of a few batches of two images; about a fifth of the pixels unannotated."""
    rng = np.random.default_rng(7)
    for _ in range(num):
        truth = (rng.random((2, 9, 11, 1)) < 0.3).astype(np.float32)
        probability = np.clip(0.6 * truth + 0.4 * rng.random(truth.shape), 0.01, 0.99).astype(np.float32)
        yield truth, probability, (rng.integers(0, 5, truth.shape)).astype(np.float32)


def offline(name, threshold, weighted=True):
    pairs = [(truth[..., 0], probability[..., 0], weight[..., 0]) for truth, probability, weight in batches()]
    truth, probability, weight = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    prediction = (probability > threshold).astype(int)
    return metrics.score(truth.astype(int), prediction, name, weight == 0 if weighted else None)[name]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", STREAMING)
def test_agrees_with_the_offline_measure(name, threshold):
    from_logits = STREAMING[name](threshold=threshold)
    from_probability = STREAMING[name](threshold=threshold, from_logits=False)
    everything = STREAMING[name](threshold=threshold)
    for truth, probability, weight in batches():
        from_logits.update_state(truth, logit(probability), weight)
        from_probability.update_state(truth, probability, weight)
        everything.update_state(truth, logit(probability))
    expected = offline(name, threshold)
    assert float(from_logits.result()) == pytest.approx(expected, abs=1e-6)
    assert float(from_probability.result()) == pytest.approx(expected, abs=1e-6)
    assert float(everything.result()) == pytest.approx(offline(name, threshold, weighted=False), abs=1e-6)


@pytest.mark.parametrize("name", STREAMING)
def test_one_hot_classes_are_foreground_together(name):
    metric = STREAMING[name](threshold=0.4, from_logits=False)
    for truth, probability, weight in batches():
        # Two classes share the foreground.
        one_hot = np.concatenate([1 - truth, truth, 0 * truth], axis=-1)
        classes = np.concatenate([1 - probability, 0.25 * probability, 0.75 * probability], axis=-1)
        metric.update_state(one_hot, classes, weight)
    assert float(metric.result()) == pytest.approx(offline(name, 0.4), abs=1e-6)


def test_weights_other_than_zero_do_not_matter():
    metric, weighted = STREAMING["dice"](), STREAMING["dice"]()
    for truth, probability, weight in batches():
        metric.update_state(truth, logit(probability), weight > 0)
        weighted.update_state(truth, logit(probability), weight[..., 0])
    assert float(metric.result()) == float(weighted.result())


@pytest.mark.parametrize("name", STREAMING)
def test_without_foreground_and_without_pixels(name):
    metric = STREAMING[name]()
    assert math.isnan(float(metric.result()))
    nothing = np.zeros((1, 4, 4, 1), np.float32)
    metric.update_state(nothing, nothing - 5, nothing)
    assert math.isnan(float(metric.result()))
    metric.update_state(nothing, nothing - 5)
    assert float(metric.result()) == 1
    metric.reset_state()
    assert math.isnan(float(metric.result()))


def test_counts_stay_exact_above_float32():
    metric = STREAMING["pixel_accuracy"]()
    metric._carried.assign(np.array([0, 40, 0, 0], np.float32))
    metric._ones.assign(np.array([0, 1, 0, 0], np.float32))
    # 40 * 2**20 + 1 pixels so far: adding 1 to float32 at this size would change nothing.
    pixel = np.ones((1, 1, 1, 1), np.float32)
    for _ in range(3):
        metric.update_state(0 * pixel, 5 * pixel)
    assert np.array(metric._ones).tolist() == [0, 4, 0, 0]
    many = np.ones((1, 1024, 1024, 1), np.float32)
    metric.update_state(0 * many, 5 * many)
    assert np.array(metric._ones)[1] + CARRY * np.array(metric._carried)[1] == 41 * 2**20 + 4


def test_made_again_from_its_config():
    metric = STREAMING["iou"](threshold=0.3, from_logits=False, name="val_iou")
    again = STREAMING["iou"].from_config(metric.get_config())
    assert (again.threshold, again.from_logits, again.name) == (0.3, False, "val_iou")


def test_in_fit():
    model = keras.Sequential([keras.Input((9, 11, 1)), keras.layers.Conv2D(1, 1)])
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.0), weighted_metrics=[STREAMING["dice"](name="dice")])
    truth, probability, weight = next(batches(1))
    model.layers[-1].set_weights([np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)])
    history = model.fit(logit(probability), truth, sample_weight=weight, epochs=1, batch_size=1, verbose=0)
    expected = metrics.dice(truth.astype(int), (probability > 0.5).astype(int), weight == 0)
    assert history.history["dice"][0] == pytest.approx(expected, abs=1e-6)


@on_backends
def test_on_the_other_backends(answer_of, backend):
    expected = {name: offline(name, 0.3) for name in STREAMING}
    assert answer_of(backend, "streaming_measures") == pytest.approx(expected, abs=1e-6)


def test_the_measures_import_no_keras():
    program = "import sys, cellseg.metrics; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode == 0
