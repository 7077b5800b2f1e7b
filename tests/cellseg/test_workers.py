import json
import re
import socket
import threading
import time

import pytest

from cellseg import lines, workers
from cellseg.lines import last_words, watched
from cellseg.workers import Cluster, cluster_of, met
from pipelines.errors import InputError, InterruptionError
from tests.runs import experiment
from tests.worker_processes import free_ports, joined_lines

TWO = ["one:1000", "two:1000"]


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize(
    ("listed", "environment", "expected"),
    [
        (TWO, {"CELLSEG_WORKER": "1"}, Cluster(("one:1000", "two:1000"), 1)),
        (TWO, {"SLURM_PROCID": "0"}, Cluster(("one:1000", "two:1000"), 0)),
        (TWO, {"CELLSEG_WORKER": "1", "SLURM_PROCID": "0"}, Cluster(("one:1000", "two:1000"), 1)),
        (TWO, tf_config({"worker": ["a:1", "b:2"]}, index=1), Cluster(("a:1", "b:2"), 1)),
        ([], tf_config({"chief": ["c:1"], "worker": ["a:1"]}, index=0), Cluster(("c:1", "a:1"), 1)),
        ([], tf_config({"chief": ["c:1"], "worker": ["a:1"]}, kind="chief"), Cluster(("c:1", "a:1"), 0)),
    ],
)
def test_who_trains_together(listed, environment, expected):
    assert cluster_of(listed, environment) == expected


@pytest.mark.parametrize(
    ("listed", "environment", "message"),
    [
        ([], {}, "neither distribution.workers nor TF_CONFIG says who they are"),
        (TWO, {}, "lists 2 workers, but CELLSEG_WORKER is not set. Set CELLSEG_WORKER .* 0 to 1"),
        (TWO, {"CELLSEG_WORKER": "2"}, "lists 2 workers, but CELLSEG_WORKER is '2'"),
        (TWO, {"SLURM_PROCID": "x"}, "SLURM_PROCID is 'x'"),
        (["one", "two:1"], {"CELLSEG_WORKER": "0"}, "'one' is no address of a worker. Write host:port"),
        (["one:70000", "two:1"], {"CELLSEG_WORKER": "0"}, "'one:70000' is no address"),
        (["one:1", "one:1"], {"CELLSEG_WORKER": "0"}, "one:1 stands twice"),
        (["one:1"], {"CELLSEG_WORKER": "0"}, "distribution.workers has one worker"),
        ([], {"TF_CONFIG": "{"}, "TF_CONFIG must be JSON such as .*cannot be read"),
        ([], {"TF_CONFIG": "{}"}, "KeyError: 'cluster'"),
        ([], tf_config({"worker": ["a:1", "b:1"]}, index=2), "says that this is worker 2"),
        ([], tf_config({"worker": ["a:1", "b:1"]}, kind="chief"), "says that this is chief 0"),
        ([], tf_config({"worker": ["a:1"], "ps": ["b:1"]}), "knows the jobs ps, too"),
    ],
)
def test_a_wrong_description_is_said(listed, environment, message):
    with pytest.raises(InputError, match=message):
        cluster_of(listed, environment)


def test_what_one_machine_does_refuses_several():
    workers.check_alone(experiment(distribution={"name": "mirrored"}), "--folds")
    with pytest.raises(InputError, match="--folds trains on one machine, .* distribution: multi_worker"):
        workers.check_alone(experiment(distribution={"name": "multi_worker", "workers": TWO}), "--folds")


def addresses(number=2):
    return tuple(f"127.0.0.1:{port}" for port in free_ports(number))


def meeting(*members, wait_s=20.0):
    """What each (cluster, about) gets out of meeting the others: its lines' names, or its error."""
    found = {}

    def meet(place, cluster, about):
        try:
            with met(cluster, about, wait_s=wait_s) as those:
                found[place] = [line.name for line in those]
        except InputError as error:
            found[place] = str(error)

    threads = [threading.Thread(target=meet, args=(place, *member)) for place, member in enumerate(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_three_workers_meet():
    names = addresses(3)
    found = meeting(*((Cluster(names, index), {"seed": 1}) for index in (2, 0, 1)))
    assert found[1] == [f"worker 1 ({names[1]})", f"worker 2 ({names[2]})"]
    assert found[0] == found[2] == [f"the chief, worker 0 ({names[0]}),"]


def test_workers_of_different_trainings_part_with_the_key_that_differs():
    names = addresses()
    found = meeting((Cluster(names, 0), {"train": {"a": 1, "b": 2}}), (Cluster(names, 1), {"train": {"a": 1, "b": 3}}))
    assert "train.b is 2 for the chief, 3 here" in found[1] and "train.a" not in found[1]
    assert f"Worker 1 ({names[1]}) has stopped: Worker 1 and the chief mean different trainings" in found[0]


def test_a_worker_at_the_address_of_another_is_told():
    names = addresses(3)
    told = {}
    # Both say that they are worker 2; the one at the address of worker 1 is called as worker 1.
    second = Cluster(names, 2)
    listener = workers._listening(Cluster(names, 1))

    def answer():
        try:
            workers._answer(second, listener, {"cluster": list(names)}, 20.0)
        except InputError as error:
            told["said"] = str(error)

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(InputError, match="the address of worker 1 says that it is worker 2"):
        line = workers._reach(Cluster(names, 0), 1, time.monotonic() + 20, 20.0)
        line.send({"hello": {"cluster": list(names)}, "index": 1})
        line.receive()
    thread.join()
    line.close()
    listener.close()
    assert "says that it is worker 2" in told["said"]


def test_who_does_not_come_is_named():
    names = addresses()
    found = meeting((Cluster(names, 0), {}), wait_s=0.1)[0]
    assert re.match(rf"Worker 1 \({names[1]}\) did not answer within 0.1 s .*refused", found)
    found = meeting((Cluster(names, 1), {}), wait_s=0.1)[0]
    assert found.startswith(f"The chief, worker 0 ({names[0]}), did not call within 0.1 s")


def test_a_port_in_use_is_named():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        names = (f"127.0.0.1:{port}", "127.0.0.1:1")
        found = meeting((Cluster(names, 0), {}), wait_s=0.1)[0]
    assert re.match(rf"Port {port} of worker 0 .* cannot be used \(Address already in use\)", found)


def test_somebody_who_knocks_at_the_port_is_not_taken_for_the_chief():
    names = addresses()
    listener = workers._listening(Cluster(names, 1))
    socket.create_connection(("127.0.0.1", int(names[1].rpartition(":")[2]))).close()
    with pytest.raises(InputError, match="did not call within 0.3 s"):
        workers._answer(Cluster(names, 1), listener, {}, 0.3)
    listener.close()


@pytest.fixture
def pair():
    with joined_lines("the chief, worker 0,", "worker 1 (two:1)") as lines:
        yield lines


def test_messages_come_in_order_with_their_bytes(pair):
    pair[0].send({"do": "take"}, b"\x00\n" * 100_000)
    pair[0].send({"do": "step"})
    assert pair[1].receive() == ({"do": "take"}, b"\x00\n" * 100_000)
    assert pair[1].receive() == ({"do": "step"}, b"")


def test_the_end_of_a_line_is_said_with_a_way_to_go_on(pair):
    pair[0].close()
    with pytest.raises(InterruptionError, match=r"Worker 1 \(two:1\) has gone: it was killed, .* --resume RUN"):
        pair[1].receive()


def test_silence_is_said(pair):
    with pytest.raises(InterruptionError, match=r"Worker 1 \(two:1\) has not answered for 0.05 s"):
        pair[1].receive(0.05)


def test_the_last_words_of_a_worker_go_before_its_end(pair):
    assert not pair[1].ended(0.01)
    pair[0].send({"digests": []})
    pair[0].send({"error": "images/a.tif is damaged"})
    pair[0].close()
    assert pair[1].ended(1.0)
    assert str(last_words([pair[1]])) == "Worker 1 (two:1) has stopped: images/a.tif is damaged"


def test_who_waits_for_a_worker_that_has_gone_is_ended(pair, monkeypatch):
    monkeypatch.setattr(lines, "GRACE_S", 0.05)
    failed = threading.Event()
    with watched([pair[1]], fail=lambda error: failed.set()):
        assert not failed.wait(0.2)
        pair[0].close()
        assert failed.wait(20)


def test_who_leaves_in_time_is_not_ended(pair, monkeypatch):
    monkeypatch.setattr(lines, "GRACE_S", 0.2)
    failed = threading.Event()
    with watched([pair[1]], fail=lambda error: failed.set()):
        pair[0].close()
    assert not failed.wait(0.5)
