"""Errors that a user can act on: the exception type, and the hint that names the closest known word.

The messages live where the input is checked. Every command turns an
`InputError` or an `OSError` into one message and exit status 2; anything else is an internal fault, status 1.
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave cannot be used: a file, a folder, a YAML key, an argument.

    The message says what happened, what was expected and how to fix it, and names the file or key.
    """


class InterruptionError(InputError):
    """What the work needs has gone, such as a cluster; the same command goes on where it was when that is back."""


class TerminationError(KeyboardInterrupt):
    """SIGTERM has come: this process is to end, as by Ctrl-C, and may go on later."""

    def __str__(self) -> str:
        return "it was asked to end (SIGTERM)"


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
