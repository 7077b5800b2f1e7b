"""Dashboards made by the tests: a training without one, whose answers are known."""

import keras
import numpy as np

from cellseg.callbacks import ValidationImage, WholeImageValidation
from cellseg.dashboard import Dashboard
from tests.datasets import discs, picture
from tests.runs import experiment


class Clock:
    """Seconds that pass as the test says."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def patch(place, *, empty=()):
    labels = np.zeros((32, 32), np.int32) if place in empty else discs(place, side=32, num=1)
    arrays = {
        "image": (picture(labels) / 255).astype(np.float32)[..., None],
        "labels": labels,
        "target": (labels > 0).astype(np.float32)[..., None],
        "weight_map": (1 + 3 * (labels > 0)).astype(np.float32)[..., None],
    }
    return {"name": f"cell{place}"}, arrays


def network():
    inputs = keras.layers.Input((None, None, 1))
    return keras.Model(inputs, keras.layers.Conv2D(2, 3, name="logits")(inputs))


def train(folder, answers, *, name="a", rate=0.5, seconds=100.0, example=patch, **section):
    """A dashboard after an epoch for each of the answers mask -> probability; each takes so many seconds."""
    labels = [discs(seed) for seed in range(2)]
    images = [ValidationImage(f"image{n}", picture(one)[..., None], one > 0, (0, 255)) for n, one in enumerate(labels)]
    checked = experiment(train={"dashboard": {"pictures": 0, **section}, "learning_rate": rate})
    current = []
    validation = WholeImageValidation(
        lambda: images, lambda image: current[-1](image.mask).astype(np.float32)[..., None], examples=2
    )
    clock = Clock()
    board = Dashboard(
        validation, folder / "runs" / name / "tensorboard", experiment=checked, example=example, clock=clock
    )
    board.set_model(network())
    board.on_train_begin()
    for epoch, answer in enumerate(answers):
        current.append(answer)
        board.on_epoch_begin(epoch)
        clock.now += seconds
        figures = {"loss": 1 / (epoch + 1), "learning_rate": rate}
        validation.on_epoch_end(epoch, figures)
        board.on_epoch_end(epoch, figures)
    board.on_train_end()
    return board, clock


def good(mask):
    return 0.2 + 0.6 * mask


def bad(mask):
    return np.full(mask.shape, 0.4)
