"""Real worker processes of one training on this machine, made by the tests: `python -m tests.worker_processes PLAN`.

One process imports TensorFlow, which takes longer than the trainings themselves, and is then forked for each worker.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE_S = 240
EXPERIMENT = """
name: cells
data: {source: raw, layout: pairs, format: npz, shards: shards}
inference: {engine: keras}
model: {name: unet, filters: 4, depth: 1, padding: same, up: bilinear, batch_norm: true, dropout: 0.0}
train:
  {patch: 32, batch_size: 4, steps_per_epoch: 2, epochs: 2, optimizer: {name: sgd, momentum: 0.9}, learning_rate: 0.1,
   clip_norm: 0.5, checkpoint_minutes: null, dashboard: {pictures: 0, histograms: false}}
"""


@contextlib.contextmanager
def joined_lines(*peers):
    """The two ends of a line between two workers of one process; each end calls the other by the name given."""
    from cellseg.lines import Line

    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    lines = Line(one, peers[0]), Line(other, peers[1])
    try:
        yield lines
    finally:
        for line in lines:
            line.close()


def free_ports(number):
    """Ports that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def trained(folder, *stages, workers=2):
    """Train what `folder`/cells.yaml says with worker processes, in one stage after the other.

    Args:
        folder: Worker N writes its run, if it makes one, to `runN`, what it has to say to `N.log`, its exit status to
            `N.status`, and its weights after each epoch to `N.npz`, in the folder of the stage.
        stages: `out`: folder for the logs, below `folder`; `resume`: go on with the chief's run; `dies`: {worker: step
            at which it kills itself}; `by`: with another signal than SIGKILL; `drift`: leave batch normalisation as
            Keras makes it; `overrides`.
    """
    plan = json.dumps({"folder": str(folder), "stages": stages, "workers": workers})
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CELLSEG_DATA": str(folder),
        "KERAS_BACKEND": "tensorflow",
    }
    command = [sys.executable, "-m", "tests.worker_processes", plan]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=5 * PATIENCE_S)
    assert done.returncode == 0, done.stderr


def main(plan):
    import cellseg.lockstep
    import cellseg.training
    import cellseg.workflow  # noqa: F401  each process would import it for itself

    folder = Path(plan["folder"])
    for stage in plan["stages"]:
        (folder / stage["out"]).mkdir(exist_ok=True)
        ports = free_ports(plan["workers"])
        processes = {}
        for number in range(plan["workers"]):
            process = os.fork()
            if not process:
                worker(number, folder, ports, stage)
            processes[process] = number
        deadline = time.monotonic() + PATIENCE_S
        while processes:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process:
                code = os.waitstatus_to_exitcode(status)
                (folder / stage["out"] / f"{processes.pop(process)}.status").write_text(str(code))
            elif time.monotonic() > deadline:
                for process in processes:
                    os.kill(process, signal.SIGKILL)
                sys.exit("the workers hung")
            else:
                time.sleep(0.02)


def worker(number, folder, ports, stage):
    """The whole life of a worker process."""
    import click

    from cellseg import experiment, resuming, termination, workflow
    from cellseg.cli import shell

    log = os.open(folder / stage["out"] / f"{number}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["CELLSEG_WORKER"] = str(number)
    _prepare(number, folder / stage["out"], stage)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    section = json.dumps({"name": "multi_worker", "workers": addresses, "wait_s": 60})
    overrides = [f"distribution={section}", *stage.get("overrides", ())]

    @click.command()
    @termination.heeded()
    def command():
        if stage.get("resume"):
            run = folder / "run0"
            interrupted = resuming.read(run, None, tuple(overrides[:1]))
            workflow.train(interrupted.experiment, run, interrupted=interrupted, tested=False)
        else:
            checked = experiment.read(folder / "cells.yaml", overrides)
            workflow.train(checked, folder / f"run{number}", tested=False, overwrite=True)

    status = shell.run(command, [])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _prepare(number, out, stage):
    """Have the process note its weights, and die or drift where the stage says so."""
    import keras
    import numpy as np

    from cellseg import lockstep, placement

    state, run = lockstep.LockstepTrainer.state, lockstep.LockstepTrainer.step_function

    def noted(self):
        variables = state(self)
        np.savez(out / f"{number}.npz", *(keras.ops.convert_to_numpy(variable) for variable in variables))
        return variables

    def dying(self):
        step, steps = run(self), iter(range(stage["dies"][str(number)]))

        def one(batch):
            if next(steps, None) is None:
                os.kill(os.getpid(), stage.get("by", signal.SIGKILL))
            return step(batch)

        return one

    lockstep.LockstepTrainer.state = noted
    if str(number) in stage.get("dies", {}):
        lockstep.LockstepTrainer.step_function = dying
    if stage.get("drift"):
        placement.synchronise = lambda network: None


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
