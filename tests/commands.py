"""The blocks of the documentation, run as they stand there: commands of cellseg in this process, others by bash."""

import contextlib
import importlib
import os
import re
import shlex
import subprocess

from cellseg.cli import shell


def blocks(text, language):
    """The fenced blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(block, folder, *, also=""):
    """Run a block in `folder`; `also` is appended to its cellseg-train.

    A process of its own for each command would load TensorFlow again, which is most of the time of a short one.
    """
    with contextlib.chdir(folder):
        for line in block.strip().splitlines():
            name, *arguments = shlex.split(line, comments=True) or [""]
            if not name.startswith("cellseg-"):
                subprocess.run(["bash", "-ec", line], check=True, env=os.environ)
                continue
            command = importlib.import_module(f"cellseg.cli.{name.removeprefix('cellseg-')}").main.command
            if name == "cellseg-train":
                arguments += shlex.split(also)
            assert shell.run(command, arguments) == shell.OK, line
