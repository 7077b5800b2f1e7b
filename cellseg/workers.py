"""Workers: who trains together, and how they find each other.

Their connections live in `cellseg.lines`, what they do together in `cellseg.lockstep`. Nothing here knows Keras.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellseg.experiment import Experiment
from cellseg.lines import Line
from pipelines.errors import InputError, InterruptionError, TerminationError

WHO = "CELLSEG_WORKER"  # number of this worker, from 0, where the YAML lists them
TF_CONFIG = "TF_CONFIG"
KNOCK_S = 5.0  # for one attempt to connect
AGAIN_S = 0.2  # between two attempts


@dataclass(frozen=True)
class Cluster:
    """The workers of a training.

    Args:
        addresses: host:port of each; the first is the chief, which alone validates and writes.
        index: Which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this process is the first worker."""
        return self.index == 0

    def name(self, index: int) -> str:
        """How messages call a worker."""
        return f"worker {index} ({self.addresses[index]})"


def cluster_of(workers: Sequence[str], environment: Mapping[str, str] | None = None) -> Cluster:
    """The cluster that TF_CONFIG describes, else the workers of the YAML; which one this is says CELLSEG_WORKER.

    Args:
        workers: `distribution.workers` of the experiment.
        environment: None = that of the process. SLURM_PROCID counts where CELLSEG_WORKER is not set.

    Raises:
        InputError: a description that is wrong, or none.
    """
    environment = os.environ if environment is None else environment
    if environment.get(TF_CONFIG):
        return _from_tf_config(environment[TF_CONFIG])
    if not workers:
        raise InputError(
            "distribution: multi_worker, but neither distribution.workers nor TF_CONFIG says who they are. List "
            "host:port of each in distribution.workers, the same list on every machine, or set TF_CONFIG."
        )
    name = next((name for name in (WHO, "SLURM_PROCID") if environment.get(name)), None)
    number = environment[name] if name else ""
    if not number.isdigit() or int(number) >= len(workers):
        what = f"{name} is {number!r}" if name else f"{WHO} is not set"
        raise InputError(
            f"distribution.workers lists {len(workers)} workers, but {what}. Set {WHO} to the number of this one, "
            f"0 to {len(workers) - 1}, in the order of the list."
        )
    return _checked(Cluster(tuple(workers), int(number)), "distribution.workers")


def _from_tf_config(text: str) -> Cluster:
    expected = (
        f"{TF_CONFIG} must be JSON such as "
        '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}'
    )
    try:
        content = json.loads(text)
        jobs, task = dict(content["cluster"]), content["task"]
        kind, index = str(task["type"]), int(task["index"])
        chiefs, others = list(jobs.pop("chief", [])), list(jobs.pop("worker", []))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{expected}, and it cannot be read ({type(error).__name__}: {error}).") from error
    own = {"chief": chiefs, "worker": others}.get(kind, [])
    if jobs or not 0 <= index < len(own):
        odd = f"knows the jobs {', '.join(jobs)}, too" if jobs else f"says that this is {kind} {index}"
        raise InputError(f"{expected}; chief and worker are the jobs known here, and this one {odd}.")
    addresses = tuple(str(address) for address in [*chiefs, *others])
    return _checked(Cluster(addresses, index + (len(chiefs) if kind == "worker" else 0)), TF_CONFIG)


def _checked(cluster: Cluster, where: str) -> Cluster:
    for address in cluster.addresses:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 2**16):
            raise InputError(
                f"{where}: '{address}' is no address of a worker. Write host:port, for example node1:12345."
            )
    twice = {address for address in cluster.addresses if cluster.addresses.count(address) > 1}
    if twice:
        raise InputError(f"{where}: {', '.join(sorted(twice))} stands twice. Every worker needs an address of its own.")
    if len(cluster.addresses) < 2:
        raise InputError(
            f"{where} has one worker. Leave the distribution section out, or use name: mirrored for the GPUs of one "
            "machine."
        )
    return cluster


def check_alone(experiment: Experiment, command: str) -> None:
    """Raise InputError if an experiment wants several workers for something that is done by one."""
    if experiment.distribution is not None and experiment.distribution.name == "multi_worker":
        raise InputError(
            f"{command} trains on one machine, and the experiment says distribution: multi_worker. Leave it out "
            "(distribution=null), or use name: mirrored."
        )


@contextlib.contextmanager
def met(cluster: Cluster, about: Mapping[str, Any], *, wait_s: float) -> Iterator[list[Line]]:
    """Meet the other workers: the chief calls each at its address, and each checks that all mean the same training.

    Args:
        cluster: Who they are.
        about: What must be equal on all of them, for JSON.
        wait_s: How long to wait for the others.

    Yields:
        The chief's lines to the others in their order; another worker's line to the chief.

    Raises:
        InputError: a port in use, a worker that cannot be reached or means another training; the message says which.
    """
    listener = _listening(cluster)
    told = {"cluster": list(cluster.addresses), **about}
    with contextlib.ExitStack() as lines:
        try:
            with listener:
                found = _call(cluster, told, wait_s) if cluster.chief else [_answer(cluster, listener, told, wait_s)]
        finally:
            listener.close()
        for line in found:
            lines.callback(line.close)
        try:
            yield found
        except BaseException as error:
            known = isinstance(error, InputError | OSError | TerminationError)
            reason = str(error) if known else type(error).__name__
            for line in found:
                with contextlib.suppress(InterruptionError):
                    line.send({"error": reason})
            raise


def _listening(cluster: Cluster) -> socket.socket:
    """A socket at this worker's port. TensorFlow will want it after us, so nobody else may have it."""
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port))
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise InputError(
            f"Port {port} of {cluster.name(cluster.index)}, which is this process, cannot be used ({error.strerror}). "
            "Choose a free one in the list of workers, on all of them; another training may be running at it."
        ) from error
    return listener


def _call(cluster: Cluster, told: Mapping[str, Any], wait_s: float) -> list[Line]:
    """The chief's part: call every worker until all have answered."""
    deadline = time.monotonic() + wait_s
    lines: list[Line] = []
    try:
        for index in range(1, len(cluster.addresses)):
            lines.append(_reach(cluster, index, deadline, wait_s))
            lines[-1].send({"hello": told, "index": index})
        for line in lines:
            line.receive(max(deadline - time.monotonic(), KNOCK_S))
    except BaseException as error:
        for line in lines:
            with contextlib.suppress(InterruptionError):
                line.send({"error": str(error)})
            line.close()
        raise
    return lines


def _reach(cluster: Cluster, index: int, deadline: float, wait_s: float) -> Line:
    host, _, port = cluster.addresses[index].rpartition(":")
    while True:
        try:
            return Line(socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S), cluster.name(index))
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"{cluster.name(index).capitalize()} did not answer within {wait_s:g} s ({error}). Start it, or "
                    "correct its address; no firewall may stand between the workers. distribution.wait_s says how "
                    "long to wait."
                ) from error
        time.sleep(AGAIN_S)


def _answer(cluster: Cluster, listener: socket.socket, told: Mapping[str, Any], wait_s: float) -> Line:
    """Another worker's part: wait for the chief's call and compare what it says."""
    deadline = time.monotonic() + wait_s
    while True:
        listener.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            connection, _ = listener.accept()
        except TimeoutError as error:
            raise InputError(
                f"The chief, {cluster.name(0)}, did not call within {wait_s:g} s. Start it; it calls this process at "
                f"{cluster.addresses[cluster.index]}, which must be its address as the others see it."
            ) from error
        line = Line(connection, f"the chief, {cluster.name(0)},")
        try:
            message, _ = line.receive(KNOCK_S)
        except InterruptionError:  # somebody else has knocked
            line.close()
            continue
        difference = _difference(message, told, cluster.index)
        if difference:
            line.send({"error": difference})
            line.close()
            raise InputError(difference)
        line.send({"hello": True})
        return line


def _difference(message: Mapping[str, Any], told: Mapping[str, Any], index: int) -> str:
    """What the chief and this worker do not agree on; nothing if they do."""
    theirs = message.get("hello")
    if not isinstance(theirs, dict):
        return "What called is no chief of cellseg."
    there, here = _flat(theirs), _flat(told)
    differing = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    if differing:
        listed = "; ".join(
            f"{name} is {there.get(name)} for the chief, {here.get(name)} here" for name in differing[:4]
        )
        return (
            f"Worker {index} and the chief mean different trainings: {listed}. Start all workers with the same "
            "experiment, the same overrides and the same list of workers."
        )
    if message.get("index") != index:
        return (
            f"The process at the address of worker {message.get('index')} says that it is worker {index}. "
            f"{WHO}, or the index in {TF_CONFIG}, must be the place in the list of workers."
        )
    return ""


def _flat(content: Any, name: str = "") -> dict[str, Any]:
    """{"train.epochs": 3, ...} of nested dicts."""
    if not isinstance(content, dict):
        return {name: content}
    inner = [_flat(value, f"{name}.{key}" if name else key) for key, value in content.items()]
    return {key: value for one in inner for key, value in one.items()}
