"""TensorBoard's server: started beside a training in a process of its own, and ended with it.

What that process does is `cellseg.tensorboard_process`; what it shows is written by `cellseg.dashboard`.
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import InputError

PROGRAM = Path(__file__).with_name("tensorboard_process.py")
REFUSED = 3  # exit status of the process where the port cannot be had
PATIENCE_S = 10  # for its end


@contextlib.contextmanager
def serving(folder: Path, *, port: int = 0) -> Iterator[str]:
    """Serve a folder of logs on 127.0.0.1, reachable from this machine alone, while the block runs.

    The process ends with this one, however that ends. It shares nothing with it, so that no step waits for a browser.

    Args:
        folder: Need not be there yet.
        port: 0 = any free one.

    Yields:
        The address.

    Raises:
        InputError: the port cannot be had, or tensorboard does not start.
    """
    # -P: neither our own modules nor the files of the working folder may pass for those of a library.
    command = [sys.executable, "-P", str(PROGRAM), str(folder.resolve()), str(port)]
    with tempfile.TemporaryFile() as complaints:
        # A session of its own: Ctrl-C reaches the training alone, which then ends the server.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, start_new_session=True
        )
        assert process.stdin and process.stdout
        with process.stdin, process.stdout:
            try:
                said = process.stdout.readline().decode().strip()
                if not said.startswith("http"):
                    status = process.wait()
                    complaints.seek(0)
                    raise InputError(_refusal(port, status, said, complaints.read().decode(errors="replace")))
                yield said
            finally:
                with contextlib.suppress(OSError):
                    process.stdin.close()  # is what it waits for
                try:
                    process.wait(PATIENCE_S)
                except BaseException:
                    process.kill()
                    process.wait()
                    raise


def _refusal(port: int, status: int, said: str, complaints: str) -> str:
    if status == REFUSED:
        return (
            f"The dashboard cannot have port {port} of 127.0.0.1 ({said}). Choose another with --dashboard-port, or "
            "leave that option out, and --dashboard takes a free one."
        )
    last = (complaints.strip().splitlines() or ["it gave no reason"])[-1]
    return f"The dashboard did not start; tensorboard says: {last}. Train without --dashboard, or install it anew."
