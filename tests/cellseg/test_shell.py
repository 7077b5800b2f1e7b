import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from cellseg import __version__, termination
from cellseg.cli import shell
from pipelines.errors import InputError, TerminationError

COMMANDS = ("prepare", "train", "predict", "track", "evaluate", "report", "search", "runs")


def failing(error):
    @click.command(name="cellseg-test")
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("a.tif is damaged."), 2, "cellseg-test: a.tif is damaged.\n"),
        (FileNotFoundError("There is no folder x."), 2, "cellseg-test: There is no folder x.\n"),
        (OSError(28, "No space left on device", "/x/y"), 2, "cellseg-test: /x/y: No space left on device.\n"),
        (MemoryError(), 2, "cellseg-test: there is not enough memory (no more is to be had). Use smaller images"),
        (RuntimeError("Symlink loop from '/x/y'"), 2, "cellseg-test: links form a circle: '/x/y'. Remove it.\n"),
        (KeyboardInterrupt(), 130, "cellseg-test: interrupted. Nothing"),
        (TerminationError(), 143, "cellseg-test: ended by SIGTERM. Nothing"),
        (ValueError("a bug"), 1, "internal fault"),
    ],
)
def test_how_a_command_fails(capsys, error, status, text):
    assert shell.run(failing(error), []) == status
    printed = capsys.readouterr()
    assert text in printed.err and not printed.out
    assert ("Traceback" in printed.err) == (status == 1)


def test_a_wrong_argument_exits_2(capsys):
    assert shell.run(failing(InputError("")), ["--nonsense"]) == 2
    assert "No such option" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_version(name):
    script = Path(sys.executable).with_name(f"cellseg-{name}")
    help_text = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert help_text.returncode == 0 and help_text.stdout.startswith(f"Usage: cellseg-{name}")
    version = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert version.returncode == 0 and __version__ in version.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name):
    program = (
        f"import sys\nfrom cellseg.cli import {name}, shell\n"
        f"shell.run({name}.main.command, ['--help'])\n"
        "heavy = {'keras', 'tensorflow', 'albumentations', 'cv2', 'scipy', 'skimage', 'matplotlib', 'pandas'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == "set()", done.stderr


def test_a_backend_that_is_not_installed_is_explained(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert shell.run(failing(ModuleNotFoundError("No module named 'jax'", name="jax")), []) == 2
    assert "the Keras backend 'jax' needs jax, which is not installed" in capsys.readouterr().err
    assert shell.run(failing(ModuleNotFoundError("No module named 'typo'", name="typo")), []) == 1


def test_an_unknown_backend_is_explained(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "thano")
    with pytest.raises(InputError, match="KERAS_BACKEND is 'thano'. Known: tensorflow, jax, torch"):
        shell.quiet_tensorflow()


@pytest.mark.parametrize(("given", "then"), [({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")])
def test_onednn_is_on_unless_somebody_has_switched_it_off(given, then):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"} | given
    program = "import os, cellseg; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == f"{then}\n"


def test_rooms_are_there_after_importing_the_package():
    program = (
        "import cellseg, numpy\n"
        "labels = numpy.eye(2, dtype=int)\n"
        "print(cellseg.metrics.score(labels, labels, ['dice']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "{'dice': 1.0}", done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_are_not_lost_in_the_garbage_collector(monkeypatch, number):
    """What a callback of the collector raises is forgotten; the signal comes again when the callback has ended."""

    def callback(phase, info):
        if phase == "start" and not sent:
            sent.append(True)
            signal.raise_signal(number)

    sent = []
    monkeypatch.setattr(sys, "unraisablehook", shell.interrupt_again)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.callbacks.append(callback)
    try:
        expected = TerminationError if number == signal.SIGTERM else KeyboardInterrupt
        with pytest.raises(expected), termination.heeded():
            gc.collect()
            threading.Event().wait(5)
    finally:
        gc.callbacks.remove(callback)
        signal.signal(signal.SIGINT, before)
    assert sent


def test_other_swallowed_exceptions_are_told_as_ever(monkeypatch, capsys):
    class Broken:
        def __del__(self):
            raise ValueError("told")

    monkeypatch.setattr(sys, "unraisablehook", shell.interrupt_again)
    thing = Broken()
    del thing
    assert "ValueError: told" in capsys.readouterr().err
