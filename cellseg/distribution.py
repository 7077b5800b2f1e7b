"""Distribution: on which devices, and with which other machines, a training runs; the `distribution` section.

What that means for it lives in `cellseg.placement`, how machines meet in `cellseg.workers`.
"""

import atexit
import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from cellseg import detecting, termination
from cellseg.experiment import Experiment
from cellseg.lines import watched
from cellseg.placement import DataParallel, Mirrored, MultiWorker, Placement
from cellseg.sections import Distribution
from cellseg.workers import Cluster, cluster_of, met
from pipelines.errors import InputError, InterruptionError, TerminationError

BACKENDS = {"mirrored": "tensorflow", "multi_worker": "tensorflow", "data_parallel": "jax"}
COLLECTIVE_S = 600.0  # that one exchange of gradients may take; the first includes building the other one's graph


def check(experiment: Experiment) -> None:
    """Check the distribution section before any work is done. Raises InputError."""
    section = experiment.distribution
    if section is None:
        return
    if experiment.detects:
        detecting.check(experiment)  # before machines wait for each other
    needed, backend = BACKENDS[section.name], keras.backend.backend()
    if backend != needed:
        fitting = next((name for name, one in BACKENDS.items() if one == backend), None)
        other = f", or use name: {fitting}, which is for {backend}" if fitting else ""
        raise InputError(
            f"distribution: {section.name} needs the Keras backend {needed}, and this is {backend}. Set "
            f"KERAS_BACKEND={needed}{other}."
        )
    if section.name != "data_parallel" and experiment.train.jit_compile:
        raise InputError(f"distribution: {section.name} does not go with train.jit_compile: true. Drop one of them.")
    if section.name != "data_parallel" and _pools(experiment.loss):
        raise InputError(
            f"loss: pooled: true counts a whole batch as one image, and with distribution: {section.name} each device "
            "sees its share of a batch alone. Leave pooled out, or use name: data_parallel on the JAX backend."
        )
    if section.name == "multi_worker":
        cluster = cluster_of(section.workers)
        _check_batch(experiment, len(cluster.addresses), "workers")
    elif section.devices is not None:
        _check_batch(experiment, section.devices, "devices")


def _pools(loss: Mapping[str, Any]) -> bool:
    """Whether a loss, or a term of it, is pooled over the batch."""
    return bool(loss.get("pooled")) or any(_pools(term) for term in loss.get("terms", ()))


def _check_batch(experiment: Experiment, number: int, what: str) -> None:
    size = experiment.train.batch_size
    if size % number:
        lower, upper = size // number * number, (size // number + 1) * number
        nearest = f"{lower} or {upper}" if lower else f"{upper}"
        raise InputError(
            f"train.batch_size is {size}, which {number} {what} cannot share equally. It is the size of the whole "
            f"batch, over all of them; take {nearest}."
        )


@contextlib.contextmanager
def placed(experiment: Experiment) -> Iterator[Placement]:
    """The placement of an experiment, for the time of its training. Comes before TensorFlow or JAX computes anything.

    Raises:
        InputError: the section does not fit the experiment; too few devices; other workers that cannot be reached, or
            that mean another training.
        InterruptionError: another worker has gone.
    """
    check(experiment)
    section = experiment.distribution
    if section is None or section.name != "multi_worker":
        yield _of_one_machine(experiment, section)
        return
    cluster = cluster_of(section.workers)
    with met(cluster, _about(experiment), wait_s=section.wait_s) as lines, watched(lines, fail=_end):
        try:
            strategy = _multi_worker(cluster)
            _check_batch(experiment, strategy.num_replicas_in_sync, "devices")
            yield MultiWorker(strategy, cluster, lines)
        except BaseException as error:
            # TensorFlow would wait half a minute for the others before it lets a process go.
            atexit.register(_leave, _status(error))
            raise


def _of_one_machine(experiment: Experiment, section: Distribution | None) -> Placement:
    if section is None:
        return Placement()
    if section.name == "data_parallel":
        names = _jax_devices(section.devices)
        _check_batch(experiment, len(names), "devices")
        return DataParallel(keras.distribution.DataParallel(devices=names))
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(_tensorflow_devices(section.devices))
    number = strategy.num_replicas_in_sync
    _check_batch(experiment, number, "devices")
    return Mirrored(strategy, tuple(range(number)), number)


def _multi_worker(cluster: Cluster) -> Any:
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=COLLECTIVE_S)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    termination.reclaim()
    return strategy


def _tensorflow_devices(number: int | None) -> list[str]:
    """Names of the first GPUs, all if no number is given; without a GPU, of as many logical CPU devices."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and number is not None:
        cpu = tf.config.list_physical_devices("CPU")[0]
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already: it has as many as it has
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * number)
    names = [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    return _first(names, number)


def _jax_devices(number: int | None) -> list[str]:
    """As `_tensorflow_devices`."""
    import jax

    if number is not None:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", number)
    return _first(keras.distribution.list_devices(), number)


def _first(names: list[str], number: int | None) -> list[str]:
    if number is not None and number > len(names):
        raise InputError(
            f"distribution.devices is {number}, and this machine has {len(names)}: {', '.join(names)}. Leave devices "
            "out to use them all."
        )
    return names[:number]


def _about(experiment: Experiment) -> Mapping[str, Any]:
    """What must be equal on all workers: the experiment but for paths, and what computes."""
    content = experiment.model_dump(mode="json", exclude={"distribution": {"workers"}, "data": {"source", "shards"}})
    versions = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "cellseg")}
    return {**content, "versions": versions}


def _end(error: InterruptionError) -> None:
    """End this process, which waits inside of TensorFlow for a worker that has gone."""
    print(f"\ncellseg-train: {error}", file=sys.stderr)
    _leave(2)


def _status(error: BaseException) -> int:
    """The exit status that a command gives this error."""
    known = {InputError: 2, OSError: 2, TerminationError: 143, KeyboardInterrupt: 130}
    return next((status for kind, status in known.items() if isinstance(error, kind)), 1)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
