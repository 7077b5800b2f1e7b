"""Networks: how many weights each has, and how long it takes to build, save and load; no peer.

`python benchmarks/networks.py [--json FILE]`. Building must stay under 3 s.
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from side_by_side import parser, report, row

REPEATS = 3
STEPS = ("build", "save", "load")
SHAPE = (None, None, 1)
PANCREATIC = {"name": "unet", "filters": 16, "padding": "same", "up": "bilinear", "batch_norm": True, "dropout": 0.1}
RANDOM = {"name": "pretrained", "weights": "random"}
NETWORKS = {
    "unet, that of 2015 (isbi2012-unet1 without dropout)": {"name": "unet"},
    "unet, 3x3 up-convolutions, 32 filters (isbi2012-unet2)": {
        "name": "unet",
        "filters": 32,
        "padding": "same",
        "up": "transposed3",
    },
    "unet, pancreatic": {**PANCREATIC, "dropout_at": "every"},
    "dmcn": {"name": "dmcn"},
    "pretrained unet, resnet34": RANDOM,
    "pretrained fpn, efficientnetb0": {**RANDOM, "architecture": "fpn", "backbone": "efficientnetb0"},
    "pretrained linknet, mobilenetv2": {**RANDOM, "architecture": "linknet", "backbone": "mobilenetv2"},
}


def measured(options: dict) -> tuple[int, float, float, float]:
    """Number of weights, and the best of REPEATS times to build, save and load, in seconds."""
    from cellseg.models import MODELS
    from cellseg.runs import load_model

    keywords = {key: value for key, value in options.items() if key != "name"}
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        for _ in range(REPEATS):
            begin = time.perf_counter()
            network = MODELS[options["name"]](SHAPE, **keywords)
            built = time.perf_counter()
            network.save(path)
            saved = time.perf_counter()
            load_model(path)
            times.append((built - begin, saved - built, time.perf_counter() - saved))
    build, save, load = (min(column) for column in zip(*times, strict=True))
    return network.count_params(), build, save, load


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    rows = []
    for name, network in NETWORKS.items():
        weights, *seconds = measured(network)
        rows.append(row(f"{name}: weights", weights, None))
        rows += [row(f"{name}: {what}, s", taken, None) for what, taken in zip(STEPS, seconds, strict=True)]
    report("Networks: size, and time to build, save and load", rows, options.json)


if __name__ == "__main__":
    main()
