"""Allocator: keeps freed memory with the process, since a pipeline asks for the same arrays again a moment later.

Which arrays those are is the business of `pipelines.dataset`.
"""

import ctypes
import math
import sys
from collections.abc import Sequence

import numpy as np

# From malloc.h of glibc.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 * 2**20
LARGEST_BYTES = 32 * 2**20
ALIGNMENT = 64


def aligned(shape: Sequence[int]) -> np.ndarray:
    """An empty float32 array that begins at a multiple of ALIGNMENT bytes: TensorFlow takes it without copying it."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(np.float32).reshape(shape)


def keep_freed_memory() -> bool:
    """Let glibc keep up to 256 MiB of freed memory, and serve arrays of up to 32 MiB from it.

    By default it gives every array of more than some 100 kB back at once, so that each patch is paid for page by page
    again: batches with augmentation came 1.5 to 3 times as fast with this. Holds for the whole process.

    Returns:
        Whether it was done: False where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES))
