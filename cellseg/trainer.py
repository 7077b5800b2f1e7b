"""Trainer: a network with its loss, as Keras' `fit` wants it.

What surrounds it (phases, callbacks, data) is put together in `cellseg.training`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import keras

from cellseg.losses import DeepSupervision
from cellseg.moving_statistics import MovingStatistics
from cellseg.optimizers import final_momentum
from pipelines.files import whole_file

AUXILIARY = re.compile(r"auxiliary\d+_logits$")


class Trainer(keras.Model):
    """A network with its loss on logits; saving it saves the network alone.

    The weight map arrives as Keras' `sample_weight` and goes to the loss itself, which sends it to its pixel-wise
    terms: Keras would multiply a region loss by the map's mean.

    Args:
        network: Model with a layer `logits`; auxiliary classifiers are its layers `auxiliaryN_logits`.
        objective: (y_true, logits, weight_map) -> scalar.
        saved: The same network in another precision, that is written to disk instead; None = the network itself.
    """

    def __init__(self, network: keras.Model, objective: Callable, *, saved: keras.Model | None = None):
        super().__init__(name="trainer")
        self.network = network
        auxiliary = [layer.name for layer in network.layers if AUXILIARY.match(layer.name)]
        self.objective = DeepSupervision(objective) if auxiliary else objective
        # A variable, so that a compiled step sees the change from epoch to epoch.
        self.auxiliary_weight = keras.Variable(1.0, trainable=False, name="auxiliary_weight") if auxiliary else None
        outputs = [network.get_layer(name).output for name in ("logits", *auxiliary)]
        # Of the input itself, and not of a list with it: Keras would warn of every other structure that it is given.
        self._logits = keras.Model(network.inputs[0], outputs if auxiliary else outputs[0])
        self.statistics = MovingStatistics(network)
        self._saved = lambda: saved  # as an attribute, its weights would count as the trainer's own
        self._average: float | None = None
        # All layers are built. Else `fit` takes a batch to build this one: on JAX, with threads, the first one is lost.
        self.built = True

    def call(self, inputs, training=None):
        """Logits of a batch; with auxiliary classifiers a list, the network's own first."""
        return self._logits(inputs, training=training)

    def compile(self, optimizer, **options):
        """As Keras does; float16 gradients are scaled, or small ones would become 0."""
        # Keras looks at the trainer's own policy, which is float32: a half-precision one would cast the images.
        if any(layer.compute_dtype == "float16" for layer in self.network.layers):
            optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.get(optimizer))
        super().compile(optimizer, **options)
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        self._average = final_momentum(inner)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The objective, plus the layers' own losses (L2); in a step, moving statistics are averaged as weights are."""
        if training and self._average is not None:
            self.statistics.update(self._average)
        if self.auxiliary_weight is None:
            loss = self.objective(y, y_pred, sample_weight)
        else:
            loss = self.objective(y, y_pred, sample_weight, auxiliary_weight=self.auxiliary_weight)
        for penalty in self.losses:
            loss = loss + keras.ops.cast(penalty, loss.dtype)
        return loss

    def save(self, filepath, overwrite=True, **options):
        """Save the network, whole or not at all."""
        save_network(self.network, filepath, saved=self._saved(), **options)


def save_network(network: keras.Model, filepath: Path | str, *, saved: keras.Model | None = None, **options) -> None:
    """Save a network, whole or not at all; where `saved`, the same one in another precision, is given, as that."""
    if saved is not None:
        saved.set_weights(network.get_weights())
        network = saved
    with whole_file(Path(filepath)) as path:
        network.save(path, **options)


def set_l2(network: keras.Model, l2: float) -> None:
    """Let the loss grow by l2 * (sum of the squared kernels) of every convolution, whatever it was built with."""
    for variable in network.trainable_variables:
        if "kernel" in variable.name:
            variable.regularizer = keras.regularizers.L2(l2) if l2 > 0 else None
