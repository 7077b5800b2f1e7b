"""How every command starts, fails and ends: version, exit status, one message, no traceback.

What a command does lives in its own module; parsing is click's.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import click

from cellseg import __version__
from pipelines.errors import InputError, TerminationError

BACKENDS = ("tensorflow", "jax", "torch")
CIRCLE = "Symlink loop from"  # how Path.resolve begins, before Python 3.13
OK, FAULT, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def entry(command: click.Command) -> Callable[[], None]:
    """Console-script function for a click command.

    Exit status: 0 success; 2 wrong argument or input, with one message; 1 internal fault, with a traceback to send
    to the authors; 130 Ctrl-C; 143 SIGTERM, where the command ends cleanly by it (`cellseg.termination`).
    """
    command = click.version_option(__version__, prog_name=command.name)(command)

    def main() -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        sys.unraisablehook = interrupt_again
        sys.exit(run(command))

    main.command = command  # type: ignore[attr-defined]  # for tests, which run it in their own process
    return main


def run(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status (see `entry`); messages go to stderr."""
    try:
        return command.main(args=arguments, standalone_mode=False) or OK
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return BAD_INPUT
    except (click.Abort, KeyboardInterrupt) as error:
        terminated = isinstance(error.__cause__ or error, TerminationError)  # click makes its Abort of it
        how = "ended by SIGTERM" if terminated else "interrupted"
        click.echo(f"{command.name}: {how}. Nothing unfinished was left under a final name.", err=True)
        return TERMINATED if terminated else INTERRUPTED
    except ModuleNotFoundError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        if error.name not in (backend, "tensorflow"):
            traceback.print_exc()
            return FAULT
        click.echo(
            f"{command.name}: the Keras backend '{backend}' needs {error.name}, which is not installed. "
            f"Install it (pip install 'cellseg[{backend}]'), or unset KERAS_BACKEND.",
            err=True,
        )
        return BAD_INPUT
    except (InputError, OSError) as error:
        click.echo(f"{command.name}: {message(error)}", err=True)
        return BAD_INPUT
    except MemoryError as error:
        click.echo(
            f"{command.name}: there is not enough memory ({str(error) or 'no more is to be had'}). Use smaller images, "
            "or a machine with more.",
            err=True,
        )
        return BAD_INPUT
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error).startswith(CIRCLE):
            click.echo(f"{command.name}: {str(error).replace(CIRCLE, 'links form a circle:')}. Remove it.", err=True)
            return BAD_INPUT
        traceback.print_exc()
        click.echo(f"{command.name}: internal fault; the lines above say where. Please report them.", err=True)
        return FAULT


def interrupt_again(swallowed: Any) -> None:
    """`sys.unraisablehook`: a Ctrl-C whose exception Python had to swallow comes again, until it is seen.

    What is raised in a finaliser or a callback of the garbage collector is printed and forgotten. JAX has such a
    callback, and TensorFlow imports JAX where it is installed: three of three trainings went on after Ctrl-C
    (TensorFlow 2.21, JAX 0.10).

    Args:
        swallowed: What Python says of the exception; its `exc_type` is read.
    """
    if not issubclass(swallowed.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(swallowed)
        return
    number = signal.SIGTERM if issubclass(swallowed.exc_type, TerminationError) else signal.SIGINT
    again = threading.Timer(0.02, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def check_backend() -> None:
    """Raise InputError if KERAS_BACKEND names no backend of Keras."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend not in BACKENDS:
        raise InputError(f"KERAS_BACKEND is '{backend}'. Known: {', '.join(BACKENDS)}. Set one of them, or unset it.")


def progress(label: str):
    """(items, total) -> the same items, with a bar on stderr if that is a terminal."""

    def wrap(items, total):
        from tqdm import tqdm

        return tqdm(items, total=total, desc=label, disable=None, leave=False)

    return wrap


def quiet_tensorflow() -> None:
    """Import TensorFlow without its start-up messages, which no setting silences; nothing where it is missing."""
    check_backend()
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        # Where TensorFlow is missing, the chosen backend says what it lacks.
        with open(os.devnull, "w") as nowhere, contextlib.suppress(ImportError):
            os.dup2(nowhere.fileno(), 2)
            import tensorflow

            tensorflow.config.list_physical_devices("GPU")
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def say(text: str) -> None:
    """Tell which step is going on: on stderr, and only on a terminal."""
    if sys.stderr.isatty():
        click.echo(text, err=True)


def message(error: Exception) -> str:
    """The text of an error for a user: an OSError names its file."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}."
    return str(error)
