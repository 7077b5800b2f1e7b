"""Run folders made by the tests, with networks whose answers are known."""

import keras
from keras import layers

from cellseg import experiment as experiments
from cellseg import runs


def experiment(**sections):
    """A checked experiment of small, known settings."""
    model = {"name": "unet", "padding": "same", "depth": 2}
    content = {"name": "known", "data": {"source": "cells", "layout": "pairs", "contrast": [0, 100]}, "model": model}
    return experiments.check({**content, **sections})


def identity():
    """A network whose probability is its image."""
    inputs = layers.Input((None, None, 1))
    kernel = keras.initializers.Constant(1.0)
    return keras.Model(inputs, layers.Conv2D(1, 1, kernel_initializer=kernel, name="probability")(inputs))


def bright_pixels_run(folder):
    """A finished run folder whose network calls bright pixels cells; returns the folder."""
    folder = folder / "run"
    folder.mkdir()
    identity().save(folder / runs.MODEL)
    runs.write_text(folder, runs.EXPERIMENT, experiment(inference={"tile": 32, "overlap": 8}).to_yaml())
    data = {"channels": 1, "shapes": [[64, 64]], "minimum_range": {}, "shards": "nowhere"}
    runs.write_json(folder, runs.DATA, data)
    threshold = {"threshold": 0.5, "measure": "dice", "value": 1.0, "split": "validation"}
    runs.write_json(folder, runs.THRESHOLD, threshold)
    return folder


def instead_of_training(experiment, run, *, tested=True, **options):
    """Make a finished run whose probability is its image, in place of `cellseg.workflow.train`; returns the folder."""
    from pipelines.dataset import ShardReader

    reader = ShardReader(experiment.shards())
    run.mkdir(parents=True)
    identity().save(run / runs.MODEL)
    runs.write_text(run, runs.EXPERIMENT, experiment.to_yaml())
    runs.write_text(run, runs.ENVIRONMENT, "date: 2026-11-21 22:10 +0000\ncellseg: 0.1.0, git abc123\n")
    data = {"channels": 1, "shapes": [[64, 64]], "minimum_range": {}, "shards": str(reader.folder)}
    runs.write_json(run, runs.DATA, data)
    threshold = {"threshold": 0.3, "measure": "dice", "value": 1.0, "split": "validation"}
    runs.write_json(run, runs.THRESHOLD, threshold)
    runs.write_json(run, runs.WARNINGS, [])
    scores = {"validation": {"measures": {"dice": 0.9}}}
    if tested:
        scores |= {"test": {"measures": {"dice": 0.8}}, "baseline": {"dice": 0.0}}
    runs.write_json(run, runs.SCORES, scores)
    return run
