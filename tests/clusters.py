"""A Dask cluster of real processes on this machine, made by the tests."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60


class Cluster:
    """A scheduler, and workers that run in a folder of their own and are not started again when they die.

    Args:
        folder: Where the processes run and write what they have to say.
    """

    def __init__(self, folder):
        self._folder, self._processes = folder, {}
        folder.mkdir()
        self._start("scheduler", "--port", "0", "--scheduler-file", "scheduler.json")
        file = folder / "scheduler.json"
        until(lambda: file.exists() and file.read_text().endswith("}"))
        self.address = json.loads(file.read_text())["address"]

    def add_worker(self, name, *, threads=1):
        """Start a worker process; `num_workers` counts it when it is ready."""
        self._start("worker", self.address, "--name", name, "--nthreads", str(threads), "--no-nanny", called=name)

    def busy(self):
        """Names of the workers that have a task or hold an answer, with the number of both."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            names = {address: worker["name"] for address, worker in client.scheduler_info(-1)["workers"].items()}
            has, does = client.has_what(), client.processing()
            return {
                name: len(has[where]) + len(does[where]) for where, name in names.items() if has[where] or does[where]
            }

    def num_workers(self):
        """How many workers the scheduler knows."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return len(client.nthreads())

    def kill(self, name):
        """SIGKILL: the worker says no good-bye. Gives the number that its process had."""
        self._processes[name].kill()
        self._processes[name].wait()
        return self._processes[name].pid

    def close(self):
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _start(self, command, *arguments, called="scheduler"):
        program = [sys.executable, "-m", "dask", command, *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        paths = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with open(self._folder / f"{called}.log", "wb") as log:
            self._processes[called] = subprocess.Popen(
                program, cwd=self._folder, env={**os.environ, **paths}, stdout=log, stderr=log
            )


@contextlib.contextmanager
def cluster(folder, *workers, threads=1):
    """A scheduler and workers of these names; all are killed at the end."""
    made = Cluster(folder)
    try:
        for name in workers:
            made.add_worker(name, threads=threads)
        yield made
    finally:
        made.close()


def until(true):
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
