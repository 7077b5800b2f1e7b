import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, time
from pipelines.loading import Task, loaded
from pipelines.sample import Item
from tests.datasets import call

if __name__ == "__main__":
    items = [Item(name=str(number), load=os.getpid) for number in range(4)]
    answers = loaded([Task(item, "train") for item in items], call, 2)
    print(next(answers), flush=True)
    time.sleep(60)
"""


def alive(pid):
    """Whether a process runs; one that has ended but that nobody has asked about yet does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_workers_end_with_a_parent_that_is_killed():
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=root)
    worker = int(parent.stdout.readline())
    assert worker != parent.pid and alive(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not alive(worker):
            return
        time.sleep(0.05)
    pytest.fail(f"worker {worker} is still there")
