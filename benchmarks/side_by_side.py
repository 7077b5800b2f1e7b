"""Side by side: how every benchmark measures, compares with a peer in one run, prints and stores its figures.

What is compared stands in the other files of this folder, one a subject.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` = ours / peer, in the unit that the case names."""

    case: str
    ours: float
    peer: float | None
    ratio: float | None


def row(case: str, ours: float, peer: float | None) -> Row:
    """A row with its ratio; without a peer (None) the figure stands alone, and a peer of 0 has no ratio."""
    return Row(case, ours, peer, ours / peer if peer else None)


def alternate(*functions: Callable[[], object], repeats: int = REPEATS, warm_up: int = 1) -> list[float]:
    """Median seconds of each function; they take turns, so that a slow minute of the machine hits all of them."""
    for function in functions:
        for _ in range(warm_up):
            function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken) for taken in times]


def parser(description: str) -> argparse.ArgumentParser:
    """A parser that knows --json."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return made


def report(title: str, rows: Sequence[Row], path: Path | None = None, **extra: object) -> None:
    """Print a table, and write it as JSON."""
    print(f"{title}\n{machine()}\n")
    wide = max(len(one.case) for one in rows)
    print(f"{'case':{wide}}  {'ours':>10}  {'peer':>10}  {'ratio':>7}")
    for one in rows:
        peer, ratio = ("-" if value is None else f"{value:.4g}" for value in (one.peer, one.ratio))
        print(f"{one.case:{wide}}  {one.ours:>10.4g}  {peer:>10}  {ratio:>7}")
    for name, value in extra.items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}")
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), "rows": [asdict(one) for one in rows], **extra}, indent=1))


def machine() -> str:
    """Processor, cores and Python, in a line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, Python {platform.python_version()}"
