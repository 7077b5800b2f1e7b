import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cellseg import distribution, placement
from cellseg import experiment as experiments
from pipelines.errors import InputError
from tests.runs import experiment

WORKERS = ["one:1000", "two:1000"]
ROOT = Path(__file__).parents[2]
# Steps of a small network on two logical CPU devices and on one, from the same weights.
PROGRAM = """
import sys, json
import numpy as np, keras
from cellseg import distribution
from cellseg.losses import TverskyBCE
from cellseg.networks import network_for
from cellseg.optimizers import adam
from pipelines.dataset import ArraySpec
from tests.runs import experiment

class Noise:
    shapes = ((4, 16, 16, 1),) * 3
    specs = (ArraySpec((4, 16, 16, 1), "float32"),) * 3

    def batch(self, step, *, first=0, every=1):
        image = np.random.default_rng(step).random(self.shapes[0]).astype(np.float32)
        arrays = image, (image > 0.7).astype(np.float32), np.ones_like(image)
        return tuple(np.ascontiguousarray(array[first::every]) for array in arrays)

def losses(section):
    unet = {"name": "unet", "padding": "same", "filters": 4, "depth": 1, "up": "bilinear", "batch_norm": True}
    checked = experiment(model={**unet, "dropout": 0.0}, train={"batch_size": 4}, distribution=section)
    with distribution.placed(checked) as placement:
        keras.utils.set_random_seed(0)
        with placement.scope():
            network = network_for(checked, channels=1, prior=[0.7, 0.3])
        for number, variable in enumerate(network.trainable_variables):
            variable.assign(np.random.default_rng(number).normal(0, 0.3, variable.shape))
        with placement.running():
            trainer = placement.trainer(network, TverskyBCE(), saved=None)
            make = lambda phase, steps_per_epoch: adam(
                learning_rate=0.01, shared={"global_clipnorm": 0.05, "use_ema": True, "ema_momentum": 0.9}
            )
            trainer.compile(placement.optimizer_for(make)(None, steps_per_epoch=3))
            given = {"epochs": 2, "steps_per_epoch": 3, "verbose": 0, "shuffle": False}
            history = trainer.fit(placement.stream(Noise(), first_step=2), **given)
            answer = placement.judged(network).predict_on_batch(Noise().batch(9)[0][:1])
    weights = [float(np.abs(keras.ops.convert_to_numpy(variable)).sum()) for variable in network.variables]
    found = {"loss": history.history["loss"], "weights": weights, "answer": answer.tolist()}
    return {**found, "type": type(trainer).__name__}

print(json.dumps([losses(json.loads(sys.argv[1])), losses(None)]))
"""


def both(name, backend):
    """What two logical devices come to, and what one does."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"XLA_FLAGS": "--xla_backend_optimization_level=0"} if backend == "jax" else {}
    section = json.dumps({"name": name, "devices": 2})
    command = [sys.executable, "-c", PROGRAM, section]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param("mirrored", "tensorflow", marks=pytest.mark.workers),  # two workers go the same way in make test
        pytest.param("data_parallel", "jax", marks=pytest.mark.workers),
    ],
)
def test_two_devices_train_as_one(name, backend):
    two, one = both(name, backend)
    assert two["type"] == ("LockstepTrainer" if name == "mirrored" else "Trainer")
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5)
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-4)
    np.testing.assert_allclose(two["answer"], one["answer"], atol=1e-5)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "mirored"}, "distribution.name: .*'mirored'.* Did you mean 'mirrored'"),
        ({"name": "mirrored", "workers": WORKERS}, "workers are for name: multi_worker, and this is mirrored"),
        ({"name": "multi_worker", "devices": 2}, "devices are for one machine"),
        ({"name": "mirrored", "devices": 0}, "distribution.devices: .*greater than 0"),
        ({"name": "mirrored", "gpus": 2}, "unknown key 'distribution.gpus'"),
    ],
)
def test_the_section_is_checked(section, message):
    with pytest.raises(InputError, match=message):
        experiment(distribution=section)


@pytest.mark.parametrize(
    ("section", "train", "message"),
    [
        (
            {"name": "data_parallel"},
            {},
            "data_parallel needs the Keras backend jax, and this is tensorflow. .*mirrored",
        ),
        ({"name": "mirrored"}, {"jit_compile": True}, "mirrored does not go with train.jit_compile: true"),
        ({"name": "mirrored", "devices": 3}, {"batch_size": 4}, "batch_size is 4, which 3 devices .* take 3 or 6"),
        (
            {"name": "multi_worker", "workers": WORKERS},
            {"batch_size": 1},
            "batch_size is 1, which 2 workers cannot share equally. .* take 2",
        ),
        ({"name": "multi_worker"}, {}, "neither distribution.workers nor TF_CONFIG"),
    ],
)
def test_what_does_not_go_together_is_said_before_any_work(monkeypatch, section, train, message):
    monkeypatch.setenv("CELLSEG_WORKER", "0")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if keras.backend.backend() != "tensorflow":
        pytest.skip("messages of the TensorFlow backend")
    with pytest.raises(InputError, match=message):
        distribution.check(experiment(distribution=section, train=train))


@pytest.mark.parametrize(
    "loss",
    [
        {"name": "dice", "pooled": True},
        {"name": "sum", "terms": [{"name": "bce"}, {"name": "tversky", "pooled": True, "weight": 0.5}]},
    ],
)
def test_a_loss_of_the_whole_batch_is_not_divided_among_devices(monkeypatch, loss):
    checked = experiment(distribution={"name": "mirrored"}, loss=loss)
    with pytest.raises(InputError, match="pooled: true counts a whole batch .* mirrored each device sees its share"):
        distribution.check(checked)
    distribution.check(experiment(distribution={"name": "mirrored"}, loss={**loss, "pooled": False, "terms": []}))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")  # one program sees all of it
    distribution.check(experiment(distribution={"name": "data_parallel"}, loss=loss))


def test_more_devices_than_there_are():
    assert distribution._first(["a", "b"], None) == ["a", "b"] and distribution._first(["a", "b"], 1) == ["a"]
    with pytest.raises(InputError, match="distribution.devices is 3, and this machine has 2: a, b"):
        distribution._first(["a", "b"], 3)


def test_without_the_section_nothing_changes():
    checked = experiment()
    distribution.check(checked)
    with distribution.placed(checked) as place, place.scope(), place.running(), place.after_chief():
        assert type(place) is placement.Placement and place.chief
        network = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        assert place.judged(network) is network


def test_batch_normalisation_looks_at_the_whole_batch_wherever_it_stands():
    inner = keras.Sequential([keras.layers.Input((2,)), keras.layers.BatchNormalization(name="deep")])
    outer = keras.Sequential([keras.layers.Input((2,)), inner, keras.layers.Dense(1)])
    placement.synchronise(outer)
    assert inner.get_layer("deep").synchronized


def test_workers_compare_all_but_paths():
    one = experiment(distribution={"name": "multi_worker", "workers": WORKERS})
    content = {**one.model_dump(mode="json"), "distribution": {"name": "multi_worker", "workers": ["x:1", "y:2"]}}
    content["data"] = {**content["data"], "source": "elsewhere", "shards": "/there"}
    other = experiments.check(content)
    assert distribution._about(one) == distribution._about(other)
    faster = experiments.check({**content, "train": {**content["train"], "learning_rate": 0.5}})
    assert distribution._about(one) != distribution._about(faster)
