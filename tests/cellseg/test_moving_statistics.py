import keras
import numpy as np
import pytest

from cellseg.callbacks import AverageWeights
from cellseg.checkpoints import fetch_state
from cellseg.moving_statistics import MovingStatistics
from cellseg.optimizers import OPTIMIZERS, final_momentum
from cellseg.trainer import Trainer

STEPS, EPOCHS = 4, 2


def network(*, norm=True):
    inputs = keras.layers.Input((8, 8, 1))
    x = keras.layers.Conv2D(3, 3, padding="same")(inputs)
    if norm:
        inner = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.BatchNormalization(momentum=0.5)])
        x = inner(x)  # of a network within the network, too
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, name="logits")(x))


def objective(truth, logits, weight_map):
    return keras.ops.mean(keras.ops.square(truth - logits))


def trained(seen, *, ema, norm=True):
    """A trainer after two epochs; `seen` gets the moving statistics after each step, and those between epochs."""
    keras.utils.set_random_seed(0)
    trainer = Trainer(network(norm=norm), objective)
    shared = {} if ema is None else {"use_ema": True, "ema_momentum": ema}
    trainer.compile(OPTIMIZERS["sgd"](learning_rate=0.1, shared=shared))
    trainer.optimizer.build(trainer.trainable_variables)
    trainer.statistics.begin()

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            fetch_state(trainer)  # on JAX the variables are empty within an epoch
            seen["steps"].append(moving(trainer))

        def on_epoch_end(self, epoch, logs=None):
            seen["between"].append(moving(trainer))

    generator = np.random.default_rng(1)
    images = generator.normal(3.0, 2.0, (2 * STEPS, 8, 8, 1)).astype(np.float32)
    callbacks = [*([] if ema is None else [AverageWeights()]), Watch()]
    weights = np.ones_like(images)
    trainer.fit(images, images, sample_weight=weights, batch_size=2, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    return trainer


def moving(trainer):
    wanted = [one for one in trainer.network.non_trainable_variables if "moving" in one.path]
    return np.concatenate([keras.ops.convert_to_numpy(one).ravel() for one in wanted]) if wanted else np.zeros(0)


@pytest.mark.parametrize("ema", [0.2, 0.9])  # warmed up after two steps, and never
def test_moving_statistics_are_averaged_over_the_steps_as_weights_are(ema):
    seen = {"steps": [], "between": []}
    trained(seen, ema=ema)
    assert len(seen["steps"]) == EPOCHS * STEPS
    average = None
    for number, statistics in enumerate(seen["steps"]):  # by hand
        share = min(ema, (1 + number) / (10 + number)) if number else 0.0
        average = statistics if average is None else share * average + (1 - share) * statistics
        if (number + 1) % STEPS == 0:
            np.testing.assert_allclose(seen["between"][number // STEPS], average, rtol=1e-5)
    # Training goes on with its own: a step of momentum 0.5 moves them from there.
    assert np.abs(seen["between"][0] - seen["steps"][STEPS - 1]).max() > 1e-3


def test_without_an_average_of_the_weights_there_is_none_of_the_statistics():
    seen = {"steps": [], "between": []}
    trainer = trained(seen, ema=None)
    np.testing.assert_array_equal(seen["between"][-1], seen["steps"][-1])
    assert float(keras.ops.convert_to_numpy(trainer.statistics._steps)) == 0.0


def test_the_steps_do_not_depend_on_the_average():
    seen = [{"steps": [], "between": []} for _ in range(2)]
    trained(seen[0], ema=0.9)
    trained(seen[1], ema=None)
    np.testing.assert_allclose(seen[0]["steps"], seen[1]["steps"], rtol=1e-4)


def test_a_network_without_batch_normalisation_has_nothing_to_average():
    seen = {"steps": [], "between": []}
    trainer = trained(seen, ema=0.9, norm=False)
    assert len(trainer.statistics.variables) == 1  # the count of steps


def test_a_phase_begins_with_the_statistics_as_they_are():
    seen = {"steps": [], "between": []}
    trainer = trained(seen, ema=0.9)
    before = moving(trainer)
    trainer.statistics.begin()
    trainer.statistics.swap()
    np.testing.assert_array_equal(moving(trainer), before)
    assert float(keras.ops.convert_to_numpy(trainer.statistics._steps)) == 0.0


def test_the_average_is_no_part_of_the_saved_network(tmp_path):
    seen = {"steps": [], "between": []}
    trainer = trained(seen, ema=0.9)
    trainer.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for own, other in zip(trainer.network.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)


def test_momentum_of_optimisers():
    assert final_momentum(keras.optimizers.SGD()) is None
    assert final_momentum(keras.optimizers.SGD(use_ema=True, ema_momentum=0.75)) == 0.75
    assert final_momentum(OPTIMIZERS["adam"](learning_rate=1.0, shared={"use_ema": True, "ema_momentum": 0.5})) == 0.5


def test_statistics_of_a_network_alone():
    """Two steps by hand: the first is taken as it is."""
    layer = keras.layers.BatchNormalization()
    layer.build((None, 4, 4, 2))
    inputs = keras.layers.Input((4, 4, 2))
    statistics = MovingStatistics(keras.Model(inputs, layer(inputs)))
    statistics.begin()
    layer.moving_mean.assign([1.0, 2.0])
    statistics.update(0.9)
    layer.moving_mean.assign([3.0, 6.0])
    statistics.update(0.9)
    statistics.swap()
    share = 2 / 11
    np.testing.assert_allclose(layer.moving_mean, [share * 1 + (1 - share) * 3, share * 2 + (1 - share) * 6], rtol=1e-6)
    statistics.swap()
    np.testing.assert_array_equal(layer.moving_mean, [3.0, 6.0])
