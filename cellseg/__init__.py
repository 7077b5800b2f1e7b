"""cellseg: from raw microscopy TIFFs to measured, tracked cells, one YAML file an experiment.

From batches to biology; files and batches themselves live in `pipelines`.
"""

import importlib
import os
from types import ModuleType

__version__ = "0.1.0"

# TensorFlow, which reads this when it is imported, leaves oneDNN's kernels off where a CPU lacks AVX-512: a training
# step took 2.1 s instead of 1.2 s there (docs/performance.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_ROOMS = ("evaluation", "inference", "instances", "losses", "metrics", "models", "thresholds", "tuning")


def __getattr__(name: str) -> ModuleType:
    """`cellseg.metrics` and other rooms, imported when they are first asked for: the commands' --help is quick."""
    if name in _ROOMS:
        return importlib.import_module(f"cellseg.{name}")
    raise AttributeError(f"module 'cellseg' has no attribute '{name}'")


def load_run(path, *, zoom=None, diameter=None):
    """Load a finished run for prediction; see `cellseg.inference.load_run` and `cellseg.magnification.Magnification`.

    Keras is imported here and not with the package, so that the commands' --help is quick.
    """
    from cellseg.inference import load_run as load
    from cellseg.magnification import Magnification

    return load(path, Magnification(zoom, diameter))
