"""What the tests ask of Keras' other backends: one process answers all of it, since loading a backend is dear.

`answer_of` in tests/conftest.py asks. Whole trainings without TensorFlow live in tests/end_to_end/test_backends.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_OPTIMISATION = "--xla_backend_optimization_level=0"  # compiling takes a quarter of the time
on_backends = pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.torch)])


def layers_of_ours():
    """They are Keras' layers there."""
    import keras
    import numpy as np
    from keras import layers, ops

    from cellseg.models import fast

    x = np.random.default_rng(0).normal(2, 3, (2, 4, 6, 3)).astype("float32")
    pair = [kind(momentum=0.9) for kind in (fast.BatchNormalization, layers.BatchNormalization)]
    for training in (True, False):
        ours, plain = (ops.convert_to_numpy(layer(x, training=training)) for layer in pair)
        np.testing.assert_array_equal(ours, plain)
    pair = [kind(0.5, seed=1) for kind in (fast.Dropout, layers.Dropout)]
    ours, plain = (ops.convert_to_numpy(layer(x, training=True)) for layer in pair)
    np.testing.assert_array_equal(ours, plain)
    ours, plain = (kind(x) for kind in (fast.BilinearUpsampling(), layers.UpSampling2D(interpolation="bilinear")))
    np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(plain), atol=2e-6)
    return keras.backend.backend()


def streaming_measures():
    """Each measure of the batches of its test."""
    from scipy.special import logit

    from cellseg.metrics.streaming import STREAMING
    from tests.cellseg.test_metrics_streaming import batches

    values = {}
    for name, kind in STREAMING.items():
        metric = kind(threshold=0.3)
        for truth, probability, weight in batches():
            metric.update_state(truth, logit(probability), weight)
        values[name] = float(metric.result())
    return values


def gradients_of_dmcn():
    """The largest gradient of every trainable weight, by its path."""
    import keras

    from tests.cellseg.test_dmcn import small, spots, supervised_loss

    keras.utils.set_random_seed(0)
    x, y = spots(16)
    network = small()
    if keras.backend.backend() == "jax":
        import jax

        fixed = [variable.value for variable in network.non_trainable_variables]

        def loss(weights):
            return supervised_loss(network.stateless_call(weights, fixed, x)[0], y)

        gradients = jax.jit(jax.grad(loss))([variable.value for variable in network.trainable_variables])
    else:
        supervised_loss(network(x), y).backward()
        gradients = [variable.value.grad for variable in network.trainable_variables]
    pairs = zip(network.trainable_variables, gradients, strict=True)
    return {variable.path: float(abs(gradient).max()) for variable, gradient in pairs}


def step_of_pretrained():
    """How far a training step moves the first kernel of an encoder."""
    import numpy as np

    from tests.cellseg.test_pretrained import images, smallest

    network = smallest(backbone="resnet18")
    x = images(2, 48, 48, 1)
    network.compile("sgd", "binary_crossentropy")
    before = network.get_layer("conv0").get_weights()[0]
    network.train_on_batch(x, (x > 0.5).astype("float32"))
    return float(np.abs(network.get_layer("conv0").get_weights()[0] - before).max())


def averaged_training():
    """Whether a training with averaged weights goes on exactly after a kill, and is compiled; errors of a first step.

    Warnings of Keras are errors, as they are in the tests of TensorFlow.
    """
    import tempfile
    import warnings

    import keras
    import numpy as np

    from pipelines.dataset import ShardReader
    from tests.cellseg import test_fitting as fitting
    from tests.datasets import write_shards

    class Broken(fitting.Seen):
        def on_train_batch_begin(self, batch, logs=None):
            def fails(*arguments, **options):
                raise MemoryError("none is left")

            self.model.objective = fails

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        place = Path(folder)
        reader = ShardReader(write_shards(place / "data", 10))
        section = {"epochs": 2, "ema": 0.9, "optimizer": {"name": "sgd", "momentum": 0.9}, "learning_rate": 0.05}
        whole, cut = fitting.Seen(), fitting.Seen()
        fitting.train(place / "whole", reader, section, listen=whole)
        with contextlib.suppress(fitting.Killed):
            fitting.train(place / "cut", reader, section, listen=fitting.Kill(batches=4))
        fitting.train(place / "cut", reader, section, go_on=True, listen=cut)
        same = all(np.array_equal(one, other) for one, other in zip(whole.weights, cut.weights, strict=True))
        try:
            fitting.train(place / "broken", reader, section, listen=Broken())
            error = ""
        except Exception as caught:
            error = repr(caught)
        compiled = whole.model.jit_compile
    return {"backend": keras.backend.backend(), "same": same, "compiled": compiled, "error": error}


# The last one brings TensorFlow with it.
QUESTIONS = (layers_of_ours, streaming_measures, gradients_of_dmcn, averaged_training, step_of_pretrained)


def ask(backend):
    """Every answer of a backend by its question's name: [answer, None], or [None, what failed]."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": NO_OPTIMISATION}
    program = [sys.executable, "-m", "tests.backends"]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _answered(question):
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return question(), None
    except Exception:
        return None, traceback.format_exc()


if __name__ == "__main__":
    print(json.dumps({question.__name__: _answered(question) for question in QUESTIONS}))
