"""Lockstep: Keras' `fit` over several devices or machines, whose weights stay equal bit for bit.

Which devices those are is the business of `cellseg.distribution`, how machines find each other that of
`cellseg.workers`. TensorFlow alone; JAX does this by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from cellseg.lines import AGAIN, Line, digest, last_words
from cellseg.trainer import Trainer
from pipelines.errors import InterruptionError

ANSWER_S = 120.0  # that another worker may take to look at its weights


class LockstepTrainer(Trainer):
    """A `Trainer` for the replicas of a `tf.distribute` strategy; make it, and its network, in the strategy's scope.

    One step gives the weights that one device would have after the same batch: gradients and loss are summed over the
    replicas before they are clipped. Where there are other workers, this one leads: it says each step before it takes
    it.

    Keras' own `fit` clips before summing, and fails with several workers (Keras 3.15): it looks at a first batch to
    build what here is built already, and takes means of losses over an axis that they do not have.

    Args:
        network, objective, saved: As of `Trainer`.
        strategy: The strategy.
        lines: To the other workers.
        drifted: Told when weights of another worker were found to differ.
    """

    def __init__(
        self,
        network: keras.Model,
        objective: Callable,
        *,
        strategy: Any,
        lines: Sequence[Line] = (),
        drifted: Callable[[str], None] = lambda text: None,
        saved: keras.Model | None = None,
    ):
        super().__init__(network, objective, saved=saved)
        self._strategy, self._lines, self._drifted = strategy, tuple(lines), drifted
        self._streams: list[Any] = []
        self.train_function: Callable | None = None

    def compile(self, optimizer, **options):
        """As Keras does, and the optimiser is built at once; it must have been made in the strategy's scope."""
        super().compile(optimizer, **options)
        with self._strategy.scope():
            self.optimizer.build(self.trainable_variables)
        # The gradients are summed before Keras clips them, so it must not sum them again.
        inner: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        inner._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing is left to build."""

    def make_train_function(self, force=False):
        """One step of all replicas; the other workers are told to take it, too."""
        if self.train_function is not None and not force:
            return
        step = self.step_function()

        def train(iterator):
            self.tell({"do": "step"})
            try:
                return step(self._streams)
            except Exception as error:
                raise explained(error, self._lines) from error

        self.train_function = train

    def step_function(self) -> Callable:
        """Streams, one for each of this worker's replicas -> logs, after one step of them."""
        import tensorflow as tf

        @tf.function(autograph=False)
        def step(batch):
            losses = self._strategy.run(self._step_of_replica, args=(batch,))
            loss = self._strategy.experimental_local_results(losses)[0]  # they are all the same
            self._loss_tracker.update_state(loss)
            return {"loss": self._loss_tracker.result()}

        def taken(streams):
            shares = [next(stream) for stream in streams]
            parts = zip(*shares, strict=True)  # the images of all devices, their targets, their weight maps
            return step(tuple(self._of_replicas(part) for part in parts))

        return taken

    def _of_replicas(self, values):
        """One value for each of this worker's replicas, as `tf.distribute` wants them."""
        every = len(values)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group % every]
        )

    def _step_of_replica(self, batch):
        import tensorflow as tf

        image, target, weight_map = batch
        variables = self.trainable_weights
        with tf.GradientTape() as tape:
            answer = self(image, training=True)
            loss = self.compute_loss(image, target, answer, weight_map) / self._strategy.num_replicas_in_sync
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        learned = [place for place, gradient in enumerate(gradients) if gradient is not None]
        replica = tf.distribute.get_replica_context()
        *summed, loss = replica.all_reduce(tf.distribute.ReduceOp.SUM, [*(gradients[n] for n in learned), loss])
        self.optimizer.apply(summed, [variables[n] for n in learned])
        return loss

    def fit(self, x, *, callbacks=(), **options):
        """As Keras does; weights of all workers are compared after each epoch, and made equal before the next one.

        Args:
            x: A `tf.data.Dataset` for each device of this process.
            callbacks, options: As of Keras.
        """
        import tensorflow as tf

        # Not a distributed dataset: the end of one whose batches are made in Python waits for them with the GIL held,
        # and so for ever, in about one training of two (TensorFlow 2.21).
        self._streams = [iter(stream) for stream in x]
        clock = tf.data.Dataset.from_tensors(np.zeros(self._strategy.num_replicas_in_sync, np.float32)).repeat()
        return super().fit(clock, callbacks=[_Comparing(self), *callbacks, _Levelling(self)], **options)

    def tell(self, message: dict[str, Any]) -> None:
        """Say something to all other workers."""
        for line in self._lines:
            line.send(message)

    def state(self) -> list[keras.Variable]:
        """All that must be equal on all workers."""
        return [*self.variables, *self.optimizer.variables]

    def level(self) -> list[str]:
        """Give the other workers what they have otherwise than this one; names of what one of them had so."""
        variables, names = self.state(), []
        contents = [_bytes(variable) for variable in variables]
        digests = [digest(content) for content in contents]
        for line in self._lines:
            line.send({"do": "level", "digests": digests})
            wanted = line.receive(ANSWER_S)[0]["wanted"]
            names += [variables[n].path for n in wanted]
            line.send({"do": "take"}, b"".join(contents[n] for n in wanted))
        return names

    def compare(self) -> None:
        """Say it where another worker's weights have drifted away from this one's."""
        variables = self.state()
        digests = [digest(_bytes(variable)) for variable in variables]
        self.tell({"do": "digests"})
        for line in self._lines:
            theirs = line.receive(ANSWER_S)[0]["digests"]
            drifted = [one.path for one, own, other in zip(variables, digests, theirs, strict=True) if own != other]
            if drifted:
                self._drifted(
                    f"{len(drifted)} of {len(variables)} variables of {line.name} differ from the chief's, first "
                    f"{drifted[0]}. They are made equal again before the next epoch, but the training is not that of "
                    "one machine with the whole batch. Please report this with the experiment."
                )


class _Comparing(keras.callbacks.Callback):
    """Comes first of all: callbacks may change the weights."""

    def __init__(self, trainer: LockstepTrainer):
        super().__init__()
        self._trainer = trainer

    def on_epoch_end(self, epoch, logs=None):
        self._trainer.compare()


class _Levelling(keras.callbacks.Callback):
    """Comes last of all, for the same reason."""

    def __init__(self, trainer: LockstepTrainer):
        super().__init__()
        self._trainer = trainer

    def on_epoch_begin(self, epoch, logs=None):
        self._trainer.level()


def follow(
    trainer: LockstepTrainer,
    line: Line,
    *,
    compiled: Callable[[dict[str, Any]], None],
    stream: Callable[[int], Any],
) -> None:
    """What a worker that is not the chief does: whatever the chief says, until it says that the training is over.

    Args:
        trainer: Of this worker.
        line: To the chief.
        compiled: Compiles the trainer for a phase, as the chief has just begun to do.
        stream: First step -> this worker's part of the batches.

    Raises:
        InterruptionError: the chief has gone, or stopped with an error.
    """
    step, streams = None, None
    while True:
        message, _ = line.receive()
        task = message["do"]
        if task == "over":
            return
        if task == "compile":
            compiled(message)
            step = trainer.step_function()
        elif task == "stream":
            streams = [iter(one) for one in stream(message["first_step"])]
        elif task == "step":
            assert step is not None and streams is not None, "the chief begins with compile and stream"
            try:
                step(streams)
            except Exception as error:
                raise explained(error, [line]) from error
        elif task == "digests":
            line.send({"digests": [digest(_bytes(variable)) for variable in trainer.state()]})
        elif task == "level":
            _take(trainer, line, message["digests"])


def explained(error: Exception, lines: Sequence[Line]) -> Exception:
    """What TensorFlow's error in a step comes from: another worker that has gone, or itself."""
    import tensorflow as tf

    apart = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError)
    if not lines or not isinstance(error, tf.errors.OpError):
        return error
    why: Exception | None = last_words(lines)
    if why is None and isinstance(error, apart):
        reason = " ".join(error.message.rpartition("}}")[2].split())
        why = InterruptionError(f"Another worker no longer answers TensorFlow ({reason:.200}). {AGAIN}")
    return why or error


def _take(trainer: LockstepTrainer, line: Line, digests: Sequence[str]) -> None:
    """Ask the chief for the variables whose digests differ, and take them."""
    variables = trainer.state()
    if len(variables) != len(digests):
        raise InterruptionError(f"The chief has {len(digests)} variables, and this worker {len(variables)}.")
    wanted = [n for n, variable in enumerate(variables) if digest(_bytes(variable)) != digests[n]]
    line.send({"wanted": wanted})
    _, content = line.receive()
    place = 0
    for n in wanted:
        value = np.asarray(keras.ops.convert_to_numpy(variables[n]))
        variables[n].assign(np.frombuffer(content, value.dtype, value.size, place).reshape(value.shape))
        place += value.nbytes


def _bytes(variable: keras.Variable) -> bytes:
    return np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes()
