"""Placement: a training's network, trainer and batches on one device, several, or several machines.

Which of them an experiment wants is the business of `cellseg.distribution`; how devices take a step together lives in
`cellseg.lockstep`.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import keras
import numpy as np

from cellseg.lines import Line
from cellseg.sections import Phase
from cellseg.streams import stream
from cellseg.trainer import Trainer
from cellseg.workers import Cluster
from pipelines.dataset import Batches, training_dataset
from pipelines.errors import InterruptionError
from pipelines.shares import Share

OptimizerFor = Callable[..., keras.optimizers.Optimizer]


class Placement:
    """Where a training runs: here on one device, as Keras does it. The base of the others.

    Attributes:
        chief: Whether this process validates and writes; others follow it.
    """

    chief = True

    def after_chief(self) -> AbstractContextManager:
        """What stands in it is done by the chief first, and by the others when that is through."""
        return contextlib.nullcontext()

    def scope(self) -> AbstractContextManager:
        """In which the network is made."""
        return contextlib.nullcontext()

    def running(self) -> AbstractContextManager:
        """In which the network trains."""
        return contextlib.nullcontext()

    def trainer(self, network: keras.Model, objective: Callable, *, saved: keras.Model | None) -> Trainer:
        """See `Trainer`."""
        return Trainer(network, objective, saved=saved)

    def optimizer_for(self, make: OptimizerFor) -> OptimizerFor:
        """A function (phase, steps_per_epoch=) -> optimiser, whose optimisers fit the devices."""
        return make

    def stream(self, batches: Batches, *, first_step: int) -> Any:
        """What `fit` is given; see `cellseg.streams.stream`."""
        return stream(batches, first_step=first_step)

    def judged(self, network: keras.Model) -> Any:
        """The network with a `predict_on_batch` that runs in this process alone."""
        return network

    def follow(self, trainer: Trainer, compiled: Callable[[Phase, int], None], stream: Callable[[int], Any]) -> None:
        """Train as the chief says; for those who are not the chief. See `cellseg.lockstep.follow`."""

    def over(self) -> None:
        """Say that the training is over."""


class Mirrored(Placement):
    """Every device has the weights, and its share of each batch."""

    def __init__(self, strategy: Any, devices: tuple[int, ...], of: int):
        self._strategy, self._devices, self._of = strategy, devices, of

    def scope(self) -> AbstractContextManager:
        """The strategy's."""
        return self._strategy.scope()

    def trainer(self, network: keras.Model, objective: Callable, *, saved: keras.Model | None) -> Trainer:
        """A `LockstepTrainer`; batch normalisation takes its statistics from the whole batch."""
        from cellseg.lockstep import LockstepTrainer

        synchronise(network)
        with self.scope():
            return LockstepTrainer(network, objective, strategy=self._strategy, saved=saved, **self._others())

    def _others(self) -> dict[str, Any]:
        return {}

    def optimizer_for(self, make: OptimizerFor) -> OptimizerFor:
        """The same, in the strategy's scope."""

        def made(phase: Phase, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
            with self.scope():
                return make(phase, steps_per_epoch=steps_per_epoch)

        return made

    def stream(self, batches: Batches, *, first_step: int) -> Any:
        """One `tf.data.Dataset` for each device of this process; see `LockstepTrainer.fit`."""
        calls = max(1, (os.cpu_count() or 1) // len(self._devices))
        shares = [cast(Batches, Share(batches, device, of=self._of)) for device in self._devices]
        return [training_dataset(share, first_step=first_step, parallel_calls=calls) for share in shares]

    def judged(self, network: keras.Model) -> Any:
        """Keras' own would give every device the whole batch, and wait for other workers."""
        return _Here(network)


class MultiWorker(Mirrored):
    """A machine among several, each with all of its devices."""

    def __init__(self, strategy: Any, cluster: Cluster, lines: list[Line]):
        own = strategy.extended.worker_devices
        first = cluster.index * len(own)
        super().__init__(strategy, tuple(range(first, first + len(own))), strategy.num_replicas_in_sync)
        self.chief, self._cluster, self._lines = cluster.chief, cluster, lines
        self.drifted: Callable[[str], None] = lambda text: print(f"WARNING: {text}", file=sys.stderr)

    @contextlib.contextmanager
    def after_chief(self) -> Iterator[None]:
        """The others wait for a word of the chief."""
        if not self.chief:
            self._lines[0].receive()
        yield
        for line in self._lines if self.chief else []:
            line.send({"do": "go on"})

    def follow(self, trainer: Trainer, compiled: Callable[[Phase, int], None], stream: Callable[[int], Any]) -> None:
        """See `cellseg.lockstep.follow`."""
        from cellseg.lockstep import LockstepTrainer, follow

        assert isinstance(trainer, LockstepTrainer), "made by `trainer`"
        follow(
            trainer,
            self._lines[0],
            compiled=lambda told: compiled(Phase(**told["phase"]), told["steps"]),
            stream=stream,
        )

    def _others(self) -> dict[str, Any]:
        return {"lines": self._lines if self.chief else [], "drifted": lambda text: self.drifted(text)}

    def optimizer_for(self, make: OptimizerFor) -> OptimizerFor:
        """The chief's makes the others begin the phase, too: what has variables must be made by all at a time."""
        made = super().optimizer_for(make)

        def told(phase: Phase, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
            for line in self._lines if self.chief else []:
                line.send({"do": "compile", "phase": phase.model_dump(mode="json"), "steps": steps_per_epoch})
            return made(phase, steps_per_epoch=steps_per_epoch)

        return told

    def stream(self, batches: Batches, *, first_step: int) -> Any:
        """The chief's makes the others begin at the same step."""
        for line in self._lines if self.chief else []:
            line.send({"do": "stream", "first_step": first_step})
        return super().stream(batches, first_step=first_step)

    def over(self) -> None:
        """The chief lets the others go."""
        for line in self._lines if self.chief else []:
            with contextlib.suppress(InterruptionError):
                line.send({"do": "over"})
            line.close()


class DataParallel(Placement):
    """Keras' own on JAX: one program for all devices, which see one batch, so every number is that of one device."""

    def __init__(self, distribution: Any):
        self._distribution = distribution

    def scope(self) -> AbstractContextManager:
        """That of Keras."""
        return self._distribution.scope()

    def running(self) -> AbstractContextManager:
        """The same."""
        return self.scope()

    def trainer(self, network: keras.Model, objective: Callable, *, saved: keras.Model | None) -> Trainer:
        """See `Trainer`."""
        with self.scope():
            return super().trainer(network, objective, saved=saved)

    def judged(self, network: keras.Model) -> Any:
        """Keras' own would divide each tile among the devices."""
        return _Here(network)


class _Here:
    """A network whose weights live on several devices, answering on one.

    Args:
        network: With one output.
    """

    def __init__(self, network: keras.Model):
        self._network, self.outputs, self.inputs = network, network.outputs, network.inputs
        self._answer: Callable | None = None

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        """As Keras does."""
        if self._answer is None:
            self._answer = _compiled(self._network)
        return np.asarray(self._answer(batch))


def _compiled(network: keras.Model) -> Callable:
    if keras.backend.backend() == "jax":
        import jax

        program = jax.jit(lambda weights, others, batch: network.stateless_call(weights, others, batch)[0])
        return lambda batch: program(
            [variable.value for variable in network.trainable_variables],
            [variable.value for variable in network.non_trainable_variables],
            batch,
        )
    import tensorflow as tf

    return tf.function(lambda batch: network(batch, training=False), reduce_retracing=True, autograph=False)


def synchronise(network: keras.Model) -> None:
    """Let batch normalisation take mean and variance of the whole batch, over all devices.

    Keras gives every device statistics of its own share, and makes the moving ones with no rule for joining them
    (aggregation "none"): each worker would then keep, and save, others.
    """
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
