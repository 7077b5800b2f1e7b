"""Environment: where and with what this program runs; every run notes it in its `environment.txt`."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from cellseg.experiment import DATA_ROOT

PACKAGES = (
    "tensorflow",
    "keras",
    "openvino",
    "numpy",
    "albumentations",
    "opencv-python-headless",
    "scikit-image",
    "scipy",
)
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # by the flag in /proc/cpuinfo, the wider first


def now() -> dict[str, str]:
    """The date, the command and the git revision of what is being done."""
    return {
        "date": f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %z}",
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": _revision(),
    }


def described() -> str:
    """Where and with what this program runs: command, versions, processor, git revision."""
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    this = now()
    lines = [
        f"date: {this['date']}",
        f"command: {this['command']}",
        f"cellseg: {_version('cellseg')}, git {this['git']}",
        f"python: {platform.python_version()} on {platform.platform()}",
        f"processor: {_processor()}, {os.cpu_count()} cores",
        f"CELLSEG_DATA: {os.environ.get(DATA_ROOT, 'not set')}",
        f"backend: {os.environ.get('KERAS_BACKEND', 'tensorflow')}",
        *versions,
    ]
    return "\n".join(lines) + "\n"


def peak_memory_mb() -> int | None:
    """The most memory that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, kB elsewhere
    return round(most / (2**20 if sys.platform == "darwin" else 2**10))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its name and the widest vectors that it knows: virtual machines of one name may differ threefold by them."""
    if not cpuinfo.exists():
        return platform.processor() or "unknown processor"
    fields = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    known = {key.strip(): value.strip() for key, _, value in reversed(list(fields))}  # the first processor's
    name = known.get("model name") or platform.processor() or "unknown processor"
    flags = known.get("flags", "").split()
    widest = next((told for flag, told in VECTORS.items() if flag in flags), None)
    return f"{name} with {widest}" if widest else name
