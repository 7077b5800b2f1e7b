import keras
import numpy as np
import pytest

from cellseg.named import build
from cellseg.optimizers import OPTIMIZERS, SCHEDULES, cosine, exponential, polynomial
from pipelines.errors import InputError

RUN = {"learning_rate": 0.1, "epochs": 10, "steps_per_epoch": 5}


def rate(schedule, step):
    return float(keras.ops.convert_to_numpy(schedule(step)))


def test_cosine_by_hand():
    schedule = cosine(**RUN)
    # half way: 0.5 (1 + cos(pi / 2)) = 0.5
    assert [rate(schedule, step) for step in (0, 25, 50)] == pytest.approx([0.1, 0.05, 0.0], abs=1e-8)
    assert rate(cosine(**RUN, end=0.2), 50) == pytest.approx(0.02)


def test_cosine_warms_up():
    schedule = cosine(**RUN, warmup_epochs=2)
    assert [rate(schedule, step) for step in (0, 5, 10, 50)] == pytest.approx([0.0, 0.05, 0.1, 0.0], abs=1e-8)


def test_polynomial_by_hand():
    schedule = polynomial(**RUN, power=2.0, end=0.1)
    # (1 - 25/50)^2 = 0.25 of the way between 0.01 and 0.1
    assert [rate(schedule, step) for step in (0, 25, 50)] == pytest.approx([0.1, 0.01 + 0.09 * 0.25, 0.01])


def test_exponential_by_hand():
    assert rate(exponential(**RUN, factor=0.5), 10) == pytest.approx(0.1 * 0.25)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "cosin"}, "schedule.name: 'cosin' is not known. Did you mean 'cosine'?"),
        ({"name": "cosine", "warmup_epochs": 10}, r"schedule.warmup_epochs must be in \[0, 10\), got 10"),
        ({"name": "cosine", "end": 2}, r"schedule.end must be in \[0, 1\].* got 2"),
        ({"name": "polynomial", "power": 0}, "schedule.power must be above 0, got 0"),
        ({"name": "exponential", "factor": 1.5}, r"schedule.factor must be in \(0, 1\], got 1.5"),
    ],
)
def test_bad_schedules_are_explained(section, message):
    with pytest.raises(InputError, match=message):
        build(SCHEDULES, section, key="schedule", given=RUN)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill_and_takes_what_is_shared(name):
    shared = {"global_clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.5}
    optimizer = OPTIMIZERS[name](learning_rate=0.1, shared=shared)
    weight = keras.Variable(np.float32(3.0))
    optimizer.build([weight])
    optimizer.apply([keras.ops.convert_to_tensor(np.float32(2.0))], [weight])
    assert float(keras.ops.convert_to_numpy(weight)) < 3.0
    assert optimizer.use_ema and optimizer.global_clipnorm == 1.0


def test_sgd_clips_the_gradient():
    optimizer = OPTIMIZERS["sgd"](learning_rate=1.0, shared={"global_clipnorm": 0.5})
    weight = keras.Variable(np.float32(3.0))
    optimizer.build([weight])
    optimizer.apply([keras.ops.convert_to_tensor(np.float32(100.0))], [weight])
    assert float(keras.ops.convert_to_numpy(weight)) == pytest.approx(2.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_average_of_the_weights_by_hand(name):
    optimizer = OPTIMIZERS[name](learning_rate=0.5, shared={"use_ema": True, "ema_momentum": 0.25})
    weight = keras.Variable(np.float32(3.0))
    optimizer.build([weight])
    average = 0.0
    for step in range(6):
        optimizer.apply([keras.ops.convert_to_tensor(np.float32(1.0 + step))], [weight])
        momentum = 0.0 if step == 0 else min(0.25, (1 + step) / (10 + step))  # 2/11, 3/12, then 0.25
        average = momentum * average + (1 - momentum) * float(keras.ops.convert_to_numpy(weight))
    (kept,) = optimizer._model_variables_moving_average
    assert float(keras.ops.convert_to_numpy(kept)) == pytest.approx(average, rel=1e-5)
