import signal
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from cellseg import callbacks, termination, training
from cellseg.checkpoints import NAME, Checkpoint
from cellseg.fitting import Fitting
from cellseg.inference import Tiling
from cellseg.networks import network_for
from pipelines.dataset import Batches, ShardReader
from pipelines.errors import InputError, TerminationError
from pipelines.objects import ObjectBatches
from tests.backends import on_backends
from tests.datasets import write_shards
from tests.runs import experiment

QUICK = {"steps_per_epoch": 3, "batch_size": 2, "patch": 16, "checkpoint_minutes": 0}


class Killed(BaseException):
    """As SIGKILL: nothing that the program does comes after it."""


class Kill(keras.callbacks.Callback):
    """Ends a training at a step, or behind an epoch's end before its checkpoint is written."""

    def __init__(self, *, batches=None, epoch=None):
        super().__init__()
        self._left, self._epoch = batches, epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self._epoch:
            raise Killed


class Seen(keras.callbacks.Callback):
    """Keeps the weights, and states of random generators, as they are in the end."""

    def on_train_end(self, logs=None):
        self.weights = [np.array(variable) for variable in self.model.variables]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return ShardReader(write_shards(tmp_path_factory.mktemp("data"), 10))


def tiny():
    """A network with all that has a state, and little to trace."""
    inputs = keras.layers.Input((None, None, 1))
    x = keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.Dropout(0.2)(keras.layers.ReLU()(keras.layers.BatchNormalization()(x)))
    logits = keras.layers.Conv2D(1, 1, name="logits")(x)
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(logits))


def train(folder, reader, section, *, go_on=False, listen=None, hours=None, warnings=None, **sections):
    """Train as the workflow does, in a process that knows nothing of earlier ones; the seconds spent."""
    checked = experiment(train={**QUICK, **section}, **sections)
    (folder / "work").mkdir(exist_ok=True, parents=True)
    keras.utils.set_random_seed(99 if go_on else 0)
    objective, _ = training.objective_for(checked, prior=[0.9, 0.1])
    network = network_for(checked, channels=1) if checked.detects else tiny()
    return training.fit(
        checked,
        reader,
        network,
        objective,
        geometry=Tiling(64, 64, 0),
        patch_output=checked.train.patch,
        minimum_range={},
        work=folder / "work",
        tensorboard=folder / "tensorboard",
        warnings=warnings or callbacks.Warnings(),
        listen=None if listen is None else lambda monitor: listen,
        checkpoint=Checkpoint.read(folder / "work" / NAME) if go_on else None,
        hours=hours,
    )


def kept(folder):
    """Best weights and history of a training, as bytes of numbers."""
    model = keras.saving.load_model(folder / "work" / "model.keras", compile=False)
    return [weight.tobytes() for weight in model.get_weights()], (folder / "work" / "history.csv").read_text()


PHASES = [
    {"epochs": 2, "optimizer": {"name": "sgd", "momentum": 0.9}, "learning_rate": 0.05, "ema": 0.9, "plateau": 1},
    {"epochs": 2, "learning_rate": 0.01, "schedule": {"name": "cosine"}, "l2": 1e-3},
]


def test_killed_trainings_end_with_the_weights_of_one_that_was_not(tmp_path, reader):
    seen = Seen()
    train(tmp_path / "whole", reader, {"phases": PHASES}, listen=seen)
    cut = tmp_path / "cut"
    # Within the first epoch; behind the last epoch of a phase, before its checkpoint; at a phase's first step; within
    # an epoch that follows a whole one.
    moments = [Kill(batches=2), Kill(epoch=1), Kill(batches=1), Kill(batches=4)]
    for number, moment in enumerate(moments):
        with pytest.raises(Killed):
            train(cut, reader, {"phases": PHASES}, go_on=number > 0, listen=moment)
    again = Seen()
    train(cut, reader, {"phases": PHASES}, go_on=True, listen=again)
    assert kept(cut) == kept(tmp_path / "whole")
    for one, other in zip(seen.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert pd.read_csv(cut / "work" / "history.csv")["epoch"].tolist() == [0, 1, 2, 3]
    events = EventAccumulator(str(cut / "tensorboard" / "train"))
    events.Reload()
    assert [event.step for event in events.Tensors("epoch/loss")] == [1, 2, 3, 4]  # each once
    events = EventAccumulator(str(cut / "tensorboard" / "experiment"))
    events.Reload()
    assert "_hparams_/session_end_info" in events.Tags()["tensors"]


@on_backends
def test_averaged_weights_go_on_exactly_on_other_backends(answer_of, backend):
    # What failed in a first step was told as "NoneType is not callable": Keras' own clearing up failed behind it.
    compiled = backend == "jax"  # operation by operation it would be many times slower
    assert answer_of(backend, "averaged_training") == {
        "backend": backend,
        "same": True,
        "compiled": compiled,
        "error": "MemoryError('none is left')",
    }


DETECTOR = {
    "name": "mask_rcnn",
    "backbone": "resnet18",
    "width": 8,
    "fpn_channels": 8,
    "box_features": 8,
    "mask_channels": 8,
    "mask_layers": 1,
    "anchor_sizes": [12],
    "training_proposals": [16, 8],
    "proposals": [16, 8],
    "anchor_samples": 16,
    "roi_samples": 8,
    "detections": 8,
}


def test_a_network_that_finds_cells_one_by_one_goes_on_as_exactly(tmp_path, reader):
    section, seen = {"epochs": 2, "patch": 64, "learning_rate": 0.01, "ema": 0.9}, {}
    for name, moments in {"whole": [], "cut": [Kill(batches=4)]}.items():
        for moment in moments:  # within the second epoch
            with pytest.raises(Killed):
                train(tmp_path / name, reader, section, listen=moment, model=DETECTOR)
        seen[name] = Seen()
        train(tmp_path / name, reader, section, go_on=bool(moments), listen=seen[name], model=DETECTOR)
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
    for one, other in zip(seen["whole"].weights, seen["cut"].weights, strict=True):
        np.testing.assert_array_equal(one, other)
    history = pd.read_csv(tmp_path / "cut" / "work" / "history.csv")
    assert history["epoch"].tolist() == [0, 1] and history["val_average_precision"].notna().all()


class Terminate(keras.callbacks.Callback):
    """SIGTERM in a step, or in what follows an epoch's last one."""

    def __init__(self, step=None, *, epoch=None):
        super().__init__()
        self._left, self._epoch = step, epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                signal.raise_signal(signal.SIGTERM)

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self._epoch:
            signal.raise_signal(signal.SIGTERM)


def test_sigterm_ends_a_training_with_a_checkpoint_of_that_step(tmp_path, reader):
    section, seen, places = {"epochs": 3, "checkpoint_minutes": None}, {}, []
    for name, moments in {"whole": [], "cut": [Terminate(2), Terminate(epoch=1), Terminate(epoch=2)]}.items():
        for number, moment in enumerate(moments):
            with pytest.raises(TerminationError), termination.heeded():
                train(tmp_path / name, reader, section, go_on=number > 0, listen=moment)
            place = Checkpoint.read(tmp_path / name / "work" / NAME).place
            places.append((place.epoch, place.step, place.over))
        seen[name] = Seen()
        if not moments:
            train(tmp_path / name, reader, section, listen=seen[name])
    assert places == [(0, 2, False), (2, 0, False), (3, 0, True)]
    train(tmp_path / "cut", reader, section, go_on=True)  # only the best weights are put in their place
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")


def test_an_early_end_and_lower_rates_are_as_without_an_interruption(tmp_path, reader):
    section = {"epochs": 12, "learning_rate": 1e-5, "plateau": 1, "early_stopping": 3}
    for name, moments in {"whole": [], "cut": [Kill(epoch=1), Kill(batches=4)]}.items():
        for number, moment in enumerate(moments):
            with pytest.raises(Killed):
                train(tmp_path / name, reader, section, go_on=number > 0, listen=moment)
        train(tmp_path / name, reader, section, go_on=bool(moments))
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
    history = pd.read_csv(tmp_path / "cut" / "work" / "history.csv")
    assert 4 <= len(history) < 12 and history["learning_rate"].iloc[-1] < 1e-5


def poisoned(monkeypatch, step, *, times):
    """Let the batch of a step hold a NaN, the first few times that it is made."""
    whole, left = Batches.batch, [times]

    def batch(self, number):
        image, target, weight_map = whole(self, number)
        if number == step and left[0]:
            left[0] -= 1
            image = image.copy()
            image[0, 3, 5, 0] = np.nan
        return image, target, weight_map

    monkeypatch.setattr(Batches, "batch", batch)


def test_a_loss_of_nan_stops_and_leaves_the_batch(tmp_path, reader, monkeypatch):
    poisoned(monkeypatch, 4, times=9)
    said = r"NaN in step 2 of epoch 2\..*not-finite.npz.*learning_rate.*on_nan=restore goes on from the last checkpoint"
    with pytest.raises(callbacks.NotFiniteError, match=said):
        train(tmp_path, reader, {"epochs": 3})
    with np.load(tmp_path / "not-finite.npz") as saved:
        assert saved["step"] == 4 and np.isnan(saved["image"][0, 3, 5, 0])
        assert saved["image"].shape == (2, 16, 16, 1) and np.isfinite(saved["before_image"]).all()
        assert saved["samples"][0].startswith("cell")
    checkpoint = Checkpoint.read(tmp_path / "work" / NAME)
    assert (checkpoint.place.epoch, checkpoint.place.step) == (1, 1)  # the last step before
    assert all(np.isfinite(value).all() for value in checkpoint.values["model"])


def test_a_suspected_batch_of_boxes_is_saved_by_name(tmp_path, reader):
    batches = ObjectBatches(reader, max_objects=3, patch=16, batch_size=2)
    watchers = SimpleNamespace(position=SimpleNamespace(total=3))
    stub: Any = SimpleNamespace(folder=tmp_path / "work", batches=batches, watchers=watchers)
    with np.load(Fitting._save_suspects(stub)) as saved:
        assert saved["step"] == 2 and saved["samples"].tolist() == batches.names(2)
        np.testing.assert_array_equal(saved["boxes"], batches.batch(2)[1]["boxes"])
        np.testing.assert_array_equal(saved["before_image"], batches.batch(1)[0])


def test_a_loss_of_nan_goes_back_and_on_with_half_the_learning_rate(tmp_path, reader, monkeypatch):
    poisoned(monkeypatch, 4, times=1)
    warnings = callbacks.Warnings()
    train(tmp_path, reader, {"epochs": 3, "on_nan": "restore", "checkpoint_minutes": None}, warnings=warnings)
    history = pd.read_csv(tmp_path / "work" / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2] and np.isfinite(history["loss"]).all()
    np.testing.assert_allclose(history["learning_rate"], [1e-3, 5e-4, 5e-4], rtol=1e-6)
    assert "back to step 0 of epoch 2 and on with half the learning rate (1 of 3 times)" in warnings.messages[-1]


def test_going_back_ends_after_three_times(tmp_path, reader, monkeypatch):
    poisoned(monkeypatch, 1, times=99)
    section = {"epochs": 1, "on_nan": "restore", "schedule": {"name": "cosine"}}
    with pytest.raises(callbacks.NotFiniteError, match="went back to good weights 3 times") as caught:
        train(tmp_path, reader, section)
    assert "on_nan" not in str(caught.value)  # that is what has not helped
    checkpoint = Checkpoint.read(tmp_path / "work" / NAME)
    assert checkpoint.restores == 3 and checkpoint.rate == 1 / 8


def test_the_hours_of_a_sitting_end_it_within_an_epoch_with_its_best_weights(tmp_path, reader):
    warnings = callbacks.Warnings()
    seconds = train(tmp_path, reader, {"epochs": 50, "steps_per_epoch": 500}, hours=1e-9, warnings=warnings)
    history = pd.read_csv(tmp_path / "work" / "history.csv")
    assert len(history) == 1 and seconds > 0
    assert (tmp_path / "work" / "model.keras").exists()
    assert Checkpoint.read(tmp_path / "work" / NAME).place.over
    assert "ended in epoch 1 of 50: its time was spent" in warnings.messages[-1]
    again = callbacks.Warnings()  # killed behind the last epoch, and resumed
    train(tmp_path, reader, {"epochs": 50, "steps_per_epoch": 500}, go_on=True, warnings=again)
    assert again.messages == warnings.messages
    whole = callbacks.Warnings()
    train(tmp_path / "whole", reader, {"epochs": 1}, warnings=whole)
    assert not any("its time was spent" in message for message in whole.messages)


def test_a_checkpoint_of_another_network_is_refused(tmp_path, reader):
    train(tmp_path, reader, {"epochs": 1})
    path = tmp_path / "work" / NAME
    before = Checkpoint.read(path)
    before.values["model"].pop()
    before.write(path)
    with pytest.raises(InputError, match=r"does not fit the model: it holds \d+ arrays"):
        train(tmp_path, reader, {"epochs": 1}, go_on=True)


def test_only_the_best_weights_are_left(tmp_path, reader):
    train(tmp_path, reader, {"epochs": 3, "learning_rate": 0.05})
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"model.keras", "history.csv", NAME}
