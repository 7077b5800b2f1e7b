import threading
from pathlib import Path

import pytest

from cellseg.conveyor import IN_FLIGHT, Outcome, conveyed
from pipelines.errors import InputError

FILES = [Path(name) for name in "abcdefgh"]


def same(file):
    return file


def outcomes(files=FILES, *, read=same, look=same, write=Outcome):
    return list(conveyed(files, read=read, look=look, write=write))


def failing(name, error):
    def stage(file):
        if file.name == name:
            raise error
        return file

    return stage


def test_the_outcomes_are_those_of_one_file_after_the_other():
    done = conveyed(
        FILES,
        read=lambda file: (file, "read"),
        look=lambda picture: (*picture, "looked"),
        write=lambda picture: Outcome(picture[0], said=picture[1:]),
    )
    assert list(done) == [Outcome(file, ("read", "looked")) for file in FILES]
    assert outcomes([]) == []


@pytest.mark.parametrize("stage", ["read", "look", "write"])
@pytest.mark.parametrize("error", [InputError("damaged"), OSError(5, "broken"), MemoryError()])
def test_an_error_of_one_file_is_its_own(stage, error):
    done = (
        outcomes(**{"write": lambda file: Outcome(file), stage: failing("c", error)})
        if stage != "write"
        else outcomes(write=lambda file: Outcome(failing("c", error)(file)))
    )
    assert [one.file for one in done if one.error is None] == [file for file in FILES if file.name != "c"]
    assert [one.error for one in done if one.error is not None] == [error]


def test_reading_and_writing_go_on_while_the_network_looks():
    # The network's look at `b` ends only when `c` has been read and `a` written.
    seen = {name: threading.Event() for name in ("c read", "a written")}

    def read(file):
        if file.name == "c":
            seen["c read"].set()
        return file

    def look(file):
        if file.name == "b":
            assert all(event.wait(timeout=10) for event in seen.values())
        return file

    def write(file):
        if file.name == "a":
            seen["a written"].set()
        return Outcome(file)

    assert [outcome.file for outcome in outcomes(FILES[:4], read=read, look=look, write=write)] == FILES[:4]


def test_no_more_files_are_in_memory_than_said():
    # The writer holds `a` until the network waits for it: then `b` and `c` wait for the writer and `d` for the network.
    held, most, lock = set(), 0, threading.Lock()
    seen = {name: threading.Event() for name in ("d read", "c looked at")}

    def read(file):
        nonlocal most
        with lock:
            held.add(file)
            most = max(most, len(held))
        if file.name == "d":
            seen["d read"].set()
        return file

    def look(file):
        if file.name == "c":
            seen["c looked at"].set()
        return file

    def write(file):
        assert all(event.wait(timeout=10) for event in seen.values())
        with lock:
            held.remove(file)
        return Outcome(file)

    outcomes(read=read, look=look, write=write)
    assert most == IN_FLIGHT == 4


@pytest.mark.parametrize("stage", ["read", "look", "write"])
@pytest.mark.parametrize("error", [InputError("c is bad"), OSError(5, "gone", "c")])
def test_an_error_is_that_of_its_file_and_the_others_go_on(stage, error):
    after = {"write": lambda file: Outcome(failing("c", error)(file))}.get(stage, failing("c", error))
    found = outcomes(**{stage: after})
    assert [outcome.file for outcome in found] == FILES
    assert [outcome.error for outcome in found] == [None, None, error, None, None, None, None, None]


@pytest.mark.parametrize("stage", ["read", "look"])
def test_who_stops_at_a_bad_file_has_all_before_it_and_none_behind(stage):
    written = []

    def write(file):
        written.append(file.name)
        return Outcome(file)

    chain = conveyed(FILES, **{"read": same, "look": same, "write": write, stage: failing("d", InputError("bad"))})
    for outcome in chain:
        if outcome.error:
            break
    chain.close()
    assert written == ["a", "b", "c"]


def test_an_interruption_leaves_no_thread_and_finishes_what_is_being_written():
    written = []

    def look(file):
        if file.name == "c":
            raise KeyboardInterrupt
        return file

    def write(file):
        written.append(file.name)
        return Outcome(file)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        outcomes(look=look, write=write)
    assert written == ["a", "b"] and threading.active_count() == before


def test_a_fault_of_ours_is_no_bad_file():
    with pytest.raises(ZeroDivisionError):
        outcomes(read=lambda file: 1 / 0)
