"""Same seed, same batches: one hash of 200 augmented batches for each way to stream them, on the embedded nuclei.

Ways: 1, 2 and 8 parallel calls of tf.data, a stream taken up again in the middle of an epoch, `keras.utils.PyDataset`,
and TFRecord shards instead of .npz. Exit status 1 if two of the hashes differ.
"""

import hashlib
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import machine, parser

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

NUCLEI = Path(__file__).parents[1] / "experiments" / "data" / "nuclei"
STEPS, MIDDLE = 200, 77
AUGMENT = [
    {"name": "elastic_grid", "sigma": 4.0},
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "RandomRotate90", "p": 1.0},
    {"name": "RandomBrightnessContrast", "p": 0.5},
    {"name": "GaussNoise", "p": 0.5},
]


def batches(folder: Path, format: str):
    """Batches from shards of a format, which are made first."""
    from pipelines.dataset import Batches, ShardReader
    from pipelines.prepare import prepare
    from pipelines.weight_maps import border

    data = {"layout": "pairs", "channels": None, "contrast": [2.0, 98.0], "spacing_um": None, "interval_s": None}
    split = {"by": "image", "train": 0.7, "validation": 0.15, "test": 0.15, "gap": 0, "seed": 0}
    shards = folder / format
    if not shards.exists():
        prepare(NUCLEI, shards, config={"data": {**data, "format": format}, "split": split}, options={})
    reader = ShardReader(shards)
    return Batches(reader, patch=128, batch_size=4, augment=AUGMENT, oversample=0.3, weight_map=border, seed=7)


def digest(stream, before=()) -> str:
    """Hash of the batches in `before` and of those of a stream that follow, STEPS in all."""
    total = hashlib.sha256()
    for batch in itertools.islice(itertools.chain(before, stream), STEPS):
        for array in batch:
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def main():
    """Hash and print."""
    from cellseg.streams import BatchStream
    from pipelines.dataset import training_dataset

    options = parser(__doc__).parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for calls in (1, 2, 8):
            stream = training_dataset(batches(Path(folder), "npz"), parallel_calls=calls)
            found[f"tf.data, {calls} parallel calls"] = digest(stream.as_numpy_iterator())
        first = itertools.islice(training_dataset(batches(Path(folder), "npz")).as_numpy_iterator(), MIDDLE)
        rest = training_dataset(batches(Path(folder), "npz"), first_step=MIDDLE).as_numpy_iterator()
        found[f"tf.data, stopped and taken up again at step {MIDDLE}"] = digest(rest, before=first)
        dataset = BatchStream(batches(Path(folder), "npz"))
        found["keras.utils.PyDataset"] = digest(dataset[step] for step in range(STEPS))
        stream = training_dataset(batches(Path(folder), "tfrecord"))
        found["tf.data, TFRecord shards"] = digest(stream.as_numpy_iterator())
    print(f"SHA-256 of {STEPS} batches\n{machine()}\n")
    for case, value in found.items():
        print(f"{case:50}  {value[:32]}")
    if options.json:
        rows = [{"case": case, "ours": value, "peer": None, "ratio": None} for case, value in found.items()]
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    sys.exit(len(set(found.values())) != 1)


if __name__ == "__main__":
    main()
