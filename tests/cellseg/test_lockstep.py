import threading

import keras
import numpy as np
import pytest

from pipelines.errors import InterruptionError
from tests.worker_processes import joined_lines

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")


@pytest.fixture
def pair():
    with joined_lines("worker 1 (two:1)", "the chief, worker 0,") as lines:
        yield lines


def trainer(start, *, lines=(), said=None):
    """A trainer on one device whose only kernel begins with `start`."""
    import tensorflow as tf

    from cellseg.lockstep import LockstepTrainer

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        inputs = keras.layers.Input((4, 4, 1))
        kernel = keras.initializers.Constant(start)
        logits = keras.layers.Conv2D(1, 1, kernel_initializer=kernel, name="logits")(inputs)
        network = keras.Model(inputs, logits)
        made = LockstepTrainer(
            network,
            lambda truth, answer, weights: keras.ops.mean((truth - answer) ** 2),
            strategy=strategy,
            lines=lines,
            drifted=(said if said is not None else []).append,
        )
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.01)
    made.compile(optimizer)
    return made


def following(follower, line, streams=lambda first: []):
    """A thread in which a trainer follows; its errors are in the list."""
    from cellseg.lockstep import follow

    errors = []

    def run():
        try:
            follow(follower, line, compiled=lambda message: None, stream=streams)
        except InterruptionError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def values(one):
    return [keras.ops.convert_to_numpy(variable) for variable in one.state()]


def test_what_differs_is_said_and_made_equal(pair):
    said = []
    chief, follower = trainer(1.0, lines=[pair[0]], said=said), trainer(2.0)
    thread, errors = following(follower, pair[1])
    chief.compare()
    names = chief.level()
    assert len(names) == 1 and "kernel" in names[0]
    assert f"1 of {len(chief.state())} variables of worker 1 (two:1) differ from the chief's, first" in said[0]
    chief.compare()
    assert chief.level() == [] and len(said) == 1
    chief.optimizer.learning_rate = 0.05  # as a callback does
    assert [name for name in chief.level() if "learning_rate" in name]
    chief.tell({"do": "over"})
    thread.join()
    assert not errors
    for one, other in zip(values(chief), values(follower), strict=True):
        np.testing.assert_array_equal(one, other)


def test_who_follows_ends_with_the_reason_of_the_chief(pair):
    thread, errors = following(trainer(1.0), pair[1])
    pair[0].send({"error": "the disk is full"})
    thread.join()
    assert errors == ["The chief, worker 0, has stopped: the disk is full"]


def test_a_step_is_that_of_keras_with_the_clipped_gradient():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    batch = [rng.random((2, 4, 4, 1)).astype(np.float32) for _ in range(3)]
    chief = trainer(1.0)
    stream = tf.data.Dataset.from_tensors(tuple(batch)).repeat()
    history = chief.fit([stream], epochs=2, steps_per_epoch=2, verbose=0, shuffle=False).history["loss"]
    # The same by hand: a 1x1 convolution is kernel * image + bias; momentum 0.9, gradient cut to a norm of 0.01.
    kernel, bias, speed, losses = 1.0, 0.0, np.zeros(2), []
    for _ in range(4):
        error = kernel * batch[0] + bias - batch[1]
        losses.append(np.mean(error**2))
        gradient = np.array([np.mean(2 * error * batch[0]), np.mean(2 * error)])
        speed = 0.9 * speed - 0.1 * gradient * 0.01 / np.linalg.norm(gradient)
        kernel, bias = kernel + speed[0], bias + speed[1]
    np.testing.assert_allclose(history, [np.mean(losses[:2]), np.mean(losses[2:])], rtol=1e-5)
    np.testing.assert_allclose(chief.network.get_layer("logits").kernel.numpy().item(), kernel, rtol=1e-5)
