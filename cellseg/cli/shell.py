"""How every command starts, fails and ends: version, exit status, one message, no traceback.

What a command does lives in its own module; parsing is click's.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from types import FrameType

import click

from cellseg import __version__
from pipelines.errors import InputError

BACKENDS = ("tensorflow", "jax", "torch")
OK, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def entry(command: click.Command) -> Callable[[], None]:
    """Console-script function for a click command.

    Exit status: 0 success; 2 wrong argument or input, with one message; 1 internal fault, with a traceback to send
    to the authors; 130 Ctrl-C.
    """
    command = click.version_option(__version__, prog_name=command.name)(command)

    def main() -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)
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
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{command.name}: interrupted. Nothing unfinished was left under a final name.", err=True)
        return INTERRUPTED
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
    except Exception:
        traceback.print_exc()
        click.echo(f"{command.name}: internal fault; the lines above say where. Please report them.", err=True)
        return FAULT


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: raise KeyboardInterrupt, or a moment later where Python would swallow it.

    JAX has a callback in the garbage collector, and TensorFlow imports JAX where it is installed; what is raised in
    there is printed and forgotten. Three of three trainings went on after Ctrl-C (TensorFlow 2.21, JAX 0.10).
    """
    collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code = frame.f_code
        if code in collecting or code.co_filename == weakref.__file__ or code.co_name == "__del__":
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


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
