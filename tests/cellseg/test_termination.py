import signal
import threading

import pytest

from cellseg import termination
from pipelines.errors import TerminationError


def test_sigterm_raises_where_nothing_postpones_it():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TerminationError, match="asked to end"), termination.heeded():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")
    assert signal.getsignal(signal.SIGTERM) is before and not termination.asked()


def test_a_training_ends_itself_and_a_second_one_ends_it_at_once():
    with termination.heeded():
        with termination.postponed():
            termination.check()
            signal.raise_signal(signal.SIGTERM)
            assert termination.asked()
            with pytest.raises(TerminationError):
                termination.check()
        with pytest.raises(TerminationError), termination.postponed():
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it went on")
    assert not termination.asked()


def test_a_training_that_does_not_end_itself_is_ended(monkeypatch):
    monkeypatch.setattr(termination, "GRACE_S", 0.01)
    with pytest.raises(TerminationError), termination.heeded(), termination.postponed():
        signal.raise_signal(signal.SIGTERM)
        threading.Event().wait(5)
        pytest.fail("it went on")


def test_a_signal_that_a_library_has_taken_is_taken_back():
    with termination.heeded():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(TerminationError), termination.postponed():
            signal.raise_signal(signal.SIGTERM)
            termination.check()
    before = signal.getsignal(signal.SIGTERM)
    termination.reclaim()  # where no command heeds it, nothing changes
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_leaves_the_signal_alone():
    seen = []

    def look():
        with termination.heeded():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
