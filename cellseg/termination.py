"""Termination: SIGTERM, which Slurm and Kubernetes send some time before they kill, ends a training with a checkpoint.

The commands install the handler (`heeded`); a training that is under way (`postponed`) ends itself where its state is
whole, in `cellseg.fitting`. Resuming is as after any other end: `cellseg.resuming`.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from pipelines.errors import TerminationError

GRACE_S = 20.0  # that a training may take to end itself; Slurm and Kubernetes kill after 30 s by themselves

_asked = threading.Event()
_postponed: list[bool] = []
_timers: list[threading.Timer] = []
_handlers: list[Callable[[int, object], None]] = []


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Let SIGTERM raise TerminationError in this block; in a thread other than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    again = threading.Timer(GRACE_S, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    _timers.append(again)

    def handle(number: int, frame: object) -> None:
        if _postponed and not _asked.is_set():
            _asked.set()
            again.start()
            return
        _asked.set()
        raise TerminationError

    before = signal.signal(signal.SIGTERM, handle)
    _handlers.append(handle)
    try:
        yield
    finally:
        again.cancel()
        _handlers.remove(handle)
        _timers.remove(again)
        signal.signal(signal.SIGTERM, before)
        _asked.clear()


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """What stands in it looks at `check` itself; a second SIGTERM, or GRACE_S seconds, end it all the same."""
    reclaim()
    _postponed.append(True)
    try:
        yield
    finally:
        _postponed.pop()


def reclaim() -> None:
    """Take SIGTERM back from a library, where it is heeded.

    TensorFlow's strategy for several workers makes a handler of its own, in C++, which keeps the signal to itself: both
    of two workers went on after SIGTERM (TensorFlow 2.21).
    """
    if _handlers and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _handlers[-1])


def asked() -> bool:
    """Whether SIGTERM has come."""
    return _asked.is_set()


def check() -> None:
    """Raise TerminationError if SIGTERM has come."""
    if asked():
        for again in _timers:
            again.cancel()
        raise TerminationError
