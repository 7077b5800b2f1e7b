"""Optimisers and learning-rate schedules by name, as `train` and its phases name them; Keras does the work.

What they minimise lives in `cellseg.losses`; the phases themselves in `cellseg.training`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from pipelines.errors import InputError

AVERAGE_WARM_UP = 10  # steps, as in TensorFlow's ExponentialMovingAverage with num_updates
Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def adam(
    *,
    learning_rate: Rate,
    shared: dict[str, Any],
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
) -> keras.optimizers.Optimizer:
    """Adam (Kingma, Ba 2015, https://arxiv.org/abs/1412.6980)."""
    return _kind(keras.optimizers.Adam, shared)(
        learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, amsgrad=amsgrad, **shared
    )


def adamw(
    *,
    learning_rate: Rate,
    shared: dict[str, Any],
    weight_decay: float = 0.004,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> keras.optimizers.Optimizer:
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019, https://arxiv.org/abs/1711.05101)."""
    return _kind(keras.optimizers.AdamW, shared)(
        learning_rate, weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, **shared
    )


def sgd(
    *, learning_rate: Rate, shared: dict[str, Any], momentum: float = 0.0, nesterov: bool = False
) -> keras.optimizers.Optimizer:
    """Stochastic gradient descent, with momentum if asked."""
    return _kind(keras.optimizers.SGD, shared)(learning_rate, momentum=momentum, nesterov=nesterov, **shared)


def rmsprop(
    *, learning_rate: Rate, shared: dict[str, Any], rho: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-7
) -> keras.optimizers.Optimizer:
    """RMSprop (Tieleman, Hinton 2012)."""
    return _kind(keras.optimizers.RMSprop, shared)(learning_rate, rho=rho, momentum=momentum, epsilon=epsilon, **shared)


def cosine(
    *, learning_rate: float, epochs: int, steps_per_epoch: int, warmup_epochs: float = 0.0, end: float = 0.0
) -> Rate:
    """Half a cosine from `learning_rate` down to `end` times it, after a linear rise from 0 over `warmup_epochs`.

    Reference:
        Loshchilov, Hutter 2017, https://arxiv.org/abs/1608.03983
    """
    _check_share("end", end)
    if not 0 <= warmup_epochs < epochs:
        raise InputError(f"schedule.warmup_epochs must be in [0, {epochs}), got {warmup_epochs}.")
    warmup = round(warmup_epochs * steps_per_epoch)
    decay = max(1, epochs * steps_per_epoch - warmup)
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(learning_rate, decay, alpha=end)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay, alpha=end, warmup_target=learning_rate, warmup_steps=warmup
    )


def polynomial(
    *, learning_rate: float, epochs: int, steps_per_epoch: int, power: float = 0.9, end: float = 0.0
) -> Rate:
    """(1 - step / steps) ** power, from `learning_rate` down to `end` times it; nnU-Net's with the defaults."""
    _check_share("end", end)
    if power <= 0:
        raise InputError(f"schedule.power must be above 0, got {power}.")
    return keras.optimizers.schedules.PolynomialDecay(
        learning_rate, epochs * steps_per_epoch, end_learning_rate=end * learning_rate, power=power
    )


def exponential(*, learning_rate: float, epochs: int, steps_per_epoch: int, factor: float = 0.95) -> Rate:
    """`learning_rate` times `factor` ** epoch, step by step."""
    if not 0 < factor <= 1:
        raise InputError(f"schedule.factor must be in (0, 1], got {factor}.")
    return keras.optimizers.schedules.ExponentialDecay(learning_rate, steps_per_epoch, factor)


def warmed_up(momentum: float, step: Any) -> Any:
    """The momentum of an average at a step (a float32 tensor, from 0): min(momentum, (1 + step) / (10 + step))."""
    return keras.ops.minimum(momentum, (1.0 + step) / (AVERAGE_WARM_UP + step))


def final_momentum(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The momentum with which an optimiser averages the weights, when it has warmed up; None if it does not."""
    if not optimizer.use_ema:
        return None
    return optimizer._final_momentum if hasattr(optimizer, "_final_momentum") else optimizer.ema_momentum


def _kind(kind: type, shared: dict[str, Any]) -> type:
    """The optimiser's class; with an average of the weights, one whose average follows closely at first.

    At step n the momentum is min(momentum, (1 + n) / (10 + n)): with a fixed 0.999 the first thousand steps would be
    judged on weights near the start.
    """
    if not shared.get("use_ema"):
        return kind

    class Averaging(kind):
        @property
        def ema_momentum(self):
            return warmed_up(self._final_momentum, keras.ops.cast(self.iterations, "float32"))

        @ema_momentum.setter
        def ema_momentum(self, value):
            self._final_momentum = value

        def finalize_variable_values(self, var_list):
            """Nothing: `cellseg.callbacks.AverageWeights` has put the average in.

            Keras' own would take what it has put aside. On JAX it also fails behind an error of an epoch's first step,
            whose variables are empty then, and hides that error (Keras 3.15).
            """

    return Averaging


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"schedule.{name} must be in [0, 1], a share of the learning rate, got {value}.")


OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
    "rmsprop": rmsprop,
}
SCHEDULES: dict[str, Callable[..., Rate]] = {"cosine": cosine, "polynomial": polynomial, "exponential": exponential}
