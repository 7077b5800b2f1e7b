import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import numpy as np
from pipelines.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()


def batch():
    return [np.ones(2**18, np.float32) for _ in range(16)]  # 1 MiB each: 256 pages


batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_arrays_that_are_made_again_cost_no_page_faults():
    faults = {}
    for way in ("given back", "kept"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True)
        faults[way] = int(done.stdout)
    assert faults["kept"] < 300, faults
    assert faults["given back"] > 10 * max(faults["kept"], 1), faults
