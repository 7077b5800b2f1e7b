"""cellseg: from raw microscopy TIFFs to measured, tracked cells, one YAML file an experiment.

From batches to biology; files and batches themselves live in `pipelines`.
"""

__version__ = "0.1.0"


def load_run(path):
    """Load a finished run for prediction; see `cellseg.inference.load_run`.

    Keras is imported here and not with the package, so that the commands' --help is quick.
    """
    from cellseg.inference import load_run as load

    return load(path)
