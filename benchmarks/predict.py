"""Predict: seconds to predict an image with a run's U-Net, against PyTorch eager, whole-image Keras and StarDist.

Base 16, batch norm, bilinear up, depth 4, random weights, float32, two cores; 8-bit images of 1024x1024 and 4096x4096.
Ours is `LoadedRun.predictor.probability` of a run folder as training leaves it. PyTorch has the same network, the same
normalisation and the same overlap of 64 px; its tile and memory format are searched first, by the time of one tile
times the number of tiles. Keras predicts the whole image with `model.predict`. StarDist is `Config2D()` as it comes,
normalised likewise and predicted in one piece, its polygons not drawn; ours gets the same image. The last row is
everything that `cellseg-predict` does to an image of a folder (the folder of more images less that of fewer, so that
loading the run is left out), against the network alone on the same tiles. Each side is a process of its own that waits
while the others compute.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from side_by_side import REPEATS, parser, report, row

THREADS, FILTERS, OVERLAP = 2, 16, 64
SMALL, LARGE = 1024, 4096
TILES, LAYOUTS = (256, 384, 512, 640, 768, 1024), ("contiguous", "channels_last")
FEW, MANY = 2, 8  # images of the two folders
MODEL = {"name": "unet", "padding": "same", "depth": 4, "filters": FILTERS, "up": "bilinear", "batch_norm": True}


def picture(side: int) -> np.ndarray:
    """Blurred bright discs on noise, uint8 (side, side, 1)."""
    import cv2

    rng = np.random.default_rng(0)
    image = np.full((side, side), 20.0, np.float32)
    for row_, column in rng.integers(0, side, (side * side // 2500, 2)):
        cv2.circle(image, (int(column), int(row_)), int(rng.integers(5, 13)), float(rng.integers(120, 200)), -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.5) + rng.normal(0, 8, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)[..., None]


def make_run(folder: Path, side: int, *, engine: str = "auto", finds_cells: bool = False) -> Path:
    """A finished run trained on images of this side, with random weights.

    With `finds_cells` the image's own brightness outweighs the network in the answer, so that there is something to
    label; it costs one addition.
    """
    import keras

    from cellseg import experiment, runs
    from cellseg.networks import network_for

    content = {"name": "predict", "data": {"source": "nowhere", "layout": "pairs"}, "model": MODEL}
    checked = experiment.check({**content, "inference": {"engine": engine}})
    keras.utils.set_random_seed(0)
    network = network_for(checked, channels=1)
    if finds_cells:
        image, logits = network.inputs[0], network.get_layer("logits").output
        brightness = keras.layers.Rescaling(20.0, offset=-10.0)(image)
        answer = keras.layers.Activation("sigmoid", name="probability")(keras.layers.add([logits, brightness]))
        network = keras.Model(image, answer)
    folder.mkdir()
    network.save(folder / runs.MODEL)
    runs.write_text(folder, runs.EXPERIMENT, checked.to_yaml())
    runs.write_json(
        folder, runs.DATA, {"channels": 1, "shapes": [[side, side]], "minimum_range": {}, "shards": "nowhere"}
    )
    runs.write_json(folder, runs.THRESHOLD, {"threshold": 0.5, "measure": "dice", "value": 1.0, "split": "validation"})
    return folder


def ours(folder: Path, side: int, engine: str):
    """Function that predicts once, and what to say of it: the real path."""
    from cellseg.inference import load_run

    loaded = load_run(make_run(folder / "run", side, engine=engine or "auto"))
    member, image = loaded.predictor.members[0], picture(side)
    engine = type(member._network).__name__
    return lambda: loaded.predictor.probability(image), {"tile": member.tiling.tile, "engine": engine}


def peer_tile(tile: int, layout: str):
    """What answers tiles of this size in PyTorch, as `Predictor` asks."""
    import torch
    from train_step import peer_network

    torch.set_num_threads(THREADS)
    network = peer_network(FILTERS, 0.0).eval()
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    network = network.to(memory_format=formats[layout])

    class Peer:
        outputs = (None,)

        @torch.inference_mode()
        def predict_on_batch(self, tiles: np.ndarray) -> np.ndarray:
            batch = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous(memory_format=formats[layout])
            return torch.sigmoid(network(batch)).permute(0, 2, 3, 1).numpy()

    return Peer()


def num_tiles(side: int, tile: int) -> int:
    """Tiles that an image takes with the overlap."""
    return max(1, -(-(side - OVERLAP) // (tile - OVERLAP))) ** 2


def peer(folder: Path, side: int, choice: str):
    """PyTorch in the tiling of ours; `choice` is LAYOUT,TILE or empty: the best one is searched."""
    from cellseg.geometry import Tiling
    from cellseg.inference import Predictor

    found = {}
    for layout in LAYOUTS if not choice else []:
        for tile in (tile for tile in TILES if tile <= side):
            network, tiles = peer_tile(tile, layout), np.random.default_rng(0).random((1, tile, tile, 1), np.float32)
            network.predict_on_batch(tiles)
            seconds = []
            for _ in range(3):
                begin = time.perf_counter()
                network.predict_on_batch(tiles)
                seconds.append(time.perf_counter() - begin)
            found[layout, tile] = num_tiles(side, tile) * min(seconds)
    layout, tile = choice.split(",") if choice else min(found, key=lambda one: found[one])
    geometry = Tiling(int(tile), int(tile), OVERLAP, stride=16)
    network = peer_tile(int(tile), layout)
    predictor = Predictor(network, tiling=geometry, channels=1, contrast=(2.0, 98.0), minimum_range={})
    image = picture(side)
    searched = {f"{layout} {tile}": round(seconds, 3) for (layout, tile), seconds in found.items()}
    return lambda: predictor.probability(image), {"tile": int(tile), "layout": layout, "searched_s": searched}


def whole(folder: Path, side: int, _: str):
    """`model.predict` of Keras on the whole image, normalised already."""
    from cellseg import runs

    network = runs.load_model(make_run(folder / "run", side) / runs.MODEL)
    image = (picture(side)[None] / 255).astype(np.float32)
    return lambda: network.predict(image, verbose=0), {}


def plain(folder: Path, side: int, _: str):
    """As `whole`, of the same network with Keras' own layers where ours has quicker ones (`cellseg.models.fast`)."""
    import keras

    from cellseg import runs
    from cellseg.models import fast

    network = runs.load_model(make_run(folder / "run", side) / runs.MODEL)

    def own(layer):
        if isinstance(layer, fast.BatchNormalization):
            return keras.layers.BatchNormalization.from_config(layer.get_config())
        if isinstance(layer, fast.BilinearUpsampling):
            return keras.layers.UpSampling2D(2, interpolation="bilinear", name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    image = (picture(side)[None] / 255).astype(np.float32)
    copy = keras.models.clone_model(network, keras.Input(image.shape[1:]), clone_function=own)
    copy.set_weights(network.get_weights())
    gap = np.abs(copy.predict(image, verbose=0) - network.predict(image, verbose=0)).max()
    assert gap < 1e-5, gap
    return lambda: copy.predict(image, verbose=0), {}


def pipeline(folder: Path, side: int, count: str):
    """`predict_files` on a folder of `count` images."""
    from cellseg.prediction import Options, predict_files
    from pipelines.images import write_image

    run = make_run(folder / "run", side, finds_cells=True)
    for number in range(int(count)):
        write_image(folder / "images" / f"{number}.tif", np.roll(picture(side), 37 * number, axis=0))

    def predict() -> None:
        failed = predict_files(run, [folder / "images"], folder / "out", options=Options(overwrite=True))
        assert not failed

    return predict, {}


def bare(folder: Path, side: int, _: str):
    """The network of `pipeline` on the tiles of one image, and nothing else."""
    from cellseg.inference import load_run

    member = load_run(make_run(folder / "run", side, finds_cells=True)).predictor.members[0]
    tiles = []
    network = member._network
    member._network = Recorder(network, tiles)
    member.probability(picture(side))
    return lambda: [network.predict_on_batch(tile) for tile in tiles], {"num_tiles": len(tiles)}


class Recorder:
    """A network that keeps the tiles that it is asked for."""

    def __init__(self, network, tiles: list):
        self.network, self.tiles = network, tiles

    def predict_on_batch(self, tiles):
        """Answer."""
        self.tiles.append(tiles)
        return self.network.predict_on_batch(tiles)


def stardist(folder: Path, side: int, _: str):
    """StarDist's network of `Config2D()` with its random weights, on the whole image, normalised already."""
    from stardist.models import Config2D, StarDist2D

    network = StarDist2D(Config2D(), name=None, basedir=None)
    image = (picture(side)[..., 0] / 255).astype(np.float32)
    return lambda: network.predict(image), {}


SIDES = {
    "ours": ours,
    "peer": peer,
    "whole": whole,
    "plain": plain,
    "pipeline": pipeline,
    "bare": bare,
    "stardist": stardist,
}


def serve(kind: str, side: str, option: str) -> None:
    """Predict when told to: a line on stdin, an answer in JSON a line on stdout."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    with tempfile.TemporaryDirectory() as folder:
        predict, said = SIDES[kind](Path(folder), int(side), option)
        for _ in sys.stdin:
            begin = time.perf_counter()
            predict()
            seconds = time.perf_counter() - begin
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"s": seconds, "mb": peak, **said}), file=answers, flush=True)


class Side:
    """One side of a comparison, in a process of its own."""

    def __init__(self, kind: str, side: int, option: str = ""):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        environment |= {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": str(THREADS)}
        environment |= {f"TF_NUM_{which}OP_THREADS": str(THREADS) for which in ("INTRA", "INTER")}
        arguments = [sys.executable, __file__, "--serve", kind, str(side), option]
        self.process = subprocess.Popen(
            arguments, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.times: list[float] = []
        self.answer: dict = {}
        self.run()  # before another side starts: it traces, and chooses kernels or a tile

    def run(self) -> float:
        """Seconds of one prediction."""
        try:
            print(file=self.process.stdin, flush=True)
            self.answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise SystemExit("A side of the comparison ended; see its message above.") from None
        return self.answer["s"]

    def median(self) -> float:
        """Median seconds a prediction."""
        return statistics.median(self.times)


def compare(sides: dict[str, Side], repeats: int) -> dict[str, Side]:
    """Measure in turns, then end the processes."""
    for _ in range(repeats):
        for side in sides.values():
            time.sleep(0.5)  # thread pools spin for a moment before they sleep
            side.times.append(side.run())
    for side in sides.values():
        side.process.stdin.close()
        side.process.wait()
    return sides


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    arguments.add_argument("--sides", type=int, nargs=2, default=[SMALL, LARGE], metavar="PX", help="of the images")
    arguments.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        return serve(*options.serve)

    small, large = options.sides
    sides = {name: Side(name, small) for name in ("ours", "peer", "whole", "plain")}
    sides["keras"] = Side("ours", small, "keras")
    if importlib.util.find_spec("stardist"):
        sides["stardist"] = Side("stardist", small)
    sides = compare(sides, options.repeats)
    mine, torch = sides["ours"], sides["peer"]
    label = f"{small}x{small}"
    rows = [
        row(f"{label}, peer PyTorch, s", mine.median(), torch.median()),
        row(f"{label}, peer Keras on the whole image, s", mine.median(), sides["whole"].median()),
        row(f"{label}, peer Keras' own layers on the whole image, s", mine.median(), sides["plain"].median()),
        row(f"{label}, ours with engine keras, peer PyTorch, s", sides["keras"].median(), torch.median()),
        row(f"{label}, peak, peer PyTorch, MB", mine.answer["mb"], torch.answer["mb"]),
    ]
    extra = {"ours": f"{mine.answer['engine']}, tile {mine.answer['tile']}", "searched_s": torch.answer["searched_s"]}
    extra["pytorch"] = f"{torch.answer['layout']}, tile {torch.answer['tile']}"
    if "stardist" in sides:
        rows.append(row(f"{label}, peer StarDist, s", mine.median(), sides["stardist"].median()))
    else:
        extra["stardist"] = "not measured: not installed"

    big = compare({"ours": Side("ours", large), "peer": Side("peer", large)}, options.repeats)
    rows.append(row(f"{large}x{large}, peer PyTorch, s", big["ours"].median(), big["peer"].median()))
    rows.append(row(f"{large}x{large}, peak, peer PyTorch, MB", big["ours"].answer["mb"], big["peer"].answer["mb"]))
    extra |= {f"{name} at {large}": f"tile {side.answer['tile']}" for name, side in big.items()}

    folders = {str(count): Side("pipeline", small, str(count)) for count in (FEW, MANY)}
    folders = compare({**folders, "bare": Side("bare", small)}, options.repeats)
    image = (folders[str(MANY)].median() - folders[str(FEW)].median()) / (MANY - FEW)
    rows.append(row(f"{label}, an image of a folder, peer the network alone, s", image, folders["bare"].median()))
    worst = max(mine.median() / torch.median(), big["ours"].median() / big["peer"].median())
    title = "Predict: ours, peer = as the case says"
    report(title, rows, options.json, ratio_to_pytorch=worst, **extra)
    return None


if __name__ == "__main__":
    main()
