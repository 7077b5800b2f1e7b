"""Fit overhead: seconds a step of `cellseg.training.fit` on real batches, against its bare compiled step.

The pancreatic recipe (base 16, dropout 0.1, batch 4 of 256x256, flips and quarter turns) on synthetic shards, and the
same with elastic deformation. Both sides are the one compiled function of one process; it is called on a constant
batch before each epoch, so they take turns. What an epoch adds (validation, checkpoint) is a row of its own. The step
itself is compared with PyTorch in `train_step.py`.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from side_by_side import REPEATS, parser, report, row

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

PATCH, BATCH, STEPS = 256, 4, 10
FLIPS = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "VerticalFlip", "p": 0.5},
    {"name": "RandomRotate90", "p": 1.0},
]
ELASTIC = {"name": "elastic_grid", "sigma": 10.0}
UNET = {"name": "unet", "filters": 16, "depth": 4, "padding": "same", "up": "bilinear", "batch_norm": True}


def measured(shards: Path, augment: list[dict], repeats: int) -> tuple[float, float, float]:
    """Median seconds of a step of fit and of a bare step, and what an epoch takes besides its steps."""
    import keras
    import tensorflow as tf

    from cellseg import callbacks, experiment, placement, training
    from cellseg.inference import Tiling
    from cellseg.networks import network_for
    from pipelines.dataset import ShardReader

    fed: list[float] = []
    bare: list[float] = []
    whole: list[float] = []

    class Clock(keras.callbacks.Callback):
        """Last of the callbacks, so that a step's time holds what the others do in it."""

        def on_epoch_begin(self, epoch, logs=None):
            constant = iter(tf.data.Dataset.from_tensors(self.batch).repeat())
            if epoch:  # in the first there is nothing compiled yet
                begin = time.perf_counter()
                for _ in range(STEPS):
                    float(self.model.train_function(constant)["loss"])
                bare.append((time.perf_counter() - begin) / STEPS)
            self.begin = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.last = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            if epoch:
                fed.append((self.last - self.begin) / STEPS)
                whole.append(time.perf_counter() - self.last)

    class Timed(placement.Trainer):
        """The trainer with a clock."""

        def fit(self, stream, callbacks, **options):
            """As the trainer's own."""
            clock = Clock()
            clock.batch = next(iter(stream))
            return super().fit(stream, callbacks=[*callbacks, clock], **options)

    placement.Trainer, usual = Timed, placement.Trainer
    checked = experiment.check(
        {
            "name": "overhead",
            "data": {"source": str(shards), "layout": "pairs", "shards": str(shards)},
            "augment": augment,
            "model": {**UNET, "dropout": 0.1, "dropout_at": "every"},
            "train": {
                "batch_size": BATCH,
                "patch": PATCH,
                "epochs": repeats + 1,
                "steps_per_epoch": STEPS,
                "early_stopping": repeats + 1,
            },
        }
    )
    prior = [0.9, 0.1]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        try:
            training.fit(
                checked,
                ShardReader(shards),
                network_for(checked, channels=1, prior=prior),
                training.objective_for(checked, prior=prior)[0],
                geometry=Tiling(PATCH, PATCH, 32),
                patch_output=PATCH,
                minimum_range={},
                work=work,
                tensorboard=Path(folder) / "tensorboard",
                warnings=callbacks.Warnings(),
            )
        finally:
            placement.Trainer = usual
    return statistics.median(fed), statistics.median(bare), statistics.median(whole)


def main() -> None:
    """Measure and print."""
    from input_pipeline import prepare_shards

    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shards = prepare_shards(Path(folder))
        for words, augment in (("flips and turns", FLIPS), ("elastic too", [ELASTIC, *FLIPS])):
            fed, bare, epoch = measured(shards, augment, options.repeats)
            rows.append(row(f"step of fit, {words}, peer = bare step, s", fed, bare))
            rows.append(row(f"validation of two 512x512 images and checkpoint, {words}, s", epoch, None))
    report("Fit overhead: ours = fit, peer = the bare compiled step", rows, options.json, overhead=rows[0].ratio - 1)


if __name__ == "__main__":
    main()
