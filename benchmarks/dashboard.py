"""Dashboard: seconds that an epoch's end takes for TensorBoard, against Keras' own callback with histograms.

Figures, histograms and pictures of the pancreatic U-Net (2 M weights) and of the one of 2015 (31 M), with three
validation images of 512 x 512. The peer, `keras.callbacks.TensorBoard(histogram_freq=1)`, writes figures and histograms
alone. In a training histograms and pictures are limited to 1 % of its time each (`cellseg.dashboard.SHARE`); here they
are always written. What a step takes is measured in `fit_overhead.py`: the dashboard has no part in it.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import REPEATS, alternate, parser, report, row

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SIDE, IMAGES = 512, 3
NETWORKS = {
    "U-Net of 2 M weights": {"filters": 16, "padding": "same", "up": "bilinear", "batch_norm": True},
    "U-Net of 31 M weights": {},
}


def measured(options: dict, *, pictures: int, repeats: int) -> tuple[float, float]:
    """Median seconds of an epoch's end, ours and Keras'."""
    import keras

    from cellseg import dashboard, experiment
    from cellseg.callbacks import ValidationImage, WholeImageValidation
    from cellseg.networks import network_for

    section = {"dashboard": {"pictures": pictures}}
    data = {"source": "nowhere", "layout": "pairs"}
    checked = experiment.check(
        {"name": "dashboard", "data": data, "model": {"name": "unet", **options}, "train": section}
    )
    network = network_for(checked, channels=1, prior=[0.9, 0.1])
    rng = np.random.default_rng(0)
    images, answers = [], {}
    for number in range(IMAGES):
        rows, columns = np.indices((SIDE, SIDE)) // 32
        mask = (rows + columns + number) % 3 == 0
        grey = (60 + 100 * mask + rng.normal(0, 6, mask.shape)).astype(np.uint8)
        images.append(ValidationImage(str(number), grey[..., None], mask, (0, 255)))
        answers[str(number)] = np.clip(0.2 + 0.6 * mask + rng.normal(0, 0.02, mask.shape), 0, 1)[..., None]
    validation = WholeImageValidation(lambda: images, lambda image: answers[image.name].astype(np.float32))
    logs: dict[str, float] = {"loss": 0.5, "learning_rate": 1e-3}
    validation.on_epoch_end(0, logs)
    with tempfile.TemporaryDirectory() as folder:
        ours = dashboard.Dashboard(validation, Path(folder) / "run" / "tensorboard", experiment=checked)
        peer = keras.callbacks.TensorBoard(folder, histogram_freq=1, write_graph=False)
        for callback in (ours, peer):
            callback.set_model(network)
            callback.on_train_begin()
            callback.on_epoch_begin(0)
        dashboard.SHARE = float("inf")
        network.compile("sgd")  # Keras' callback asks for the optimiser
        times = alternate(lambda: ours.on_epoch_end(0, logs), lambda: peer.on_epoch_end(0, dict(logs)), repeats=repeats)
        for callback in (ours, peer):
            callback.on_train_end()
    return times[0], times[1]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    options = arguments.parse_args()
    rows = []
    for name, network in NETWORKS.items():
        for words, pictures in (("figures and histograms", 0), ("pictures too", IMAGES)):
            ours, peer = measured(network, pictures=pictures, repeats=options.repeats)
            rows.append(row(f"{name}, {words}, s", ours, peer))
    report("An epoch's end for TensorBoard: peer = keras.callbacks.TensorBoard(histogram_freq=1)", rows, options.json)


if __name__ == "__main__":
    main()
