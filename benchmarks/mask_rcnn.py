"""Mask R-CNN: a training step and a detection of 512x512 with ResNet-50, beside its bare backbone and pyramid.

`peer` is the same backbone and pyramid, forward (and backward, with a step of the same optimiser) to the mean of its
levels; with --gpu also torchvision's `maskrcnn_resnet50_fpn` on the same GPU, if it is installed. A step is measured
with few and with many objects: shapes are static, so both must take the same time. Each side is a process of its own
that waits while the others work. --overfit trains ResNet-18 with a narrow pyramid on four 128x128 images of nuclei
instead, and says how well it knows them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from side_by_side import REPEATS, parser, report, row

SIDE, THREADS = 512, 2
FEW, MANY = 5, 100
STEPS = {"train": 2, "detect": 2}  # of a measurement
NUCLEI = Path(__file__).parents[1] / "experiments/data/nuclei"
SMALL = {
    "channels": 1,
    "backbone": "resnet18",
    "width": 32,
    "fpn_channels": 64,
    "box_features": 256,
    "mask_channels": 64,
    "mask_layers": 2,
    "anchor_sizes": [[8, 12], [16, 24], [32, 48]],
    "training_proposals": [256, 256],
    "proposals": [512, 256],
    "anchor_samples": 128,
    "roi_samples": 128,
}
OVERFIT_SIDE, OVERFIT_STEPS, OVERFIT_GOAL, OVERFIT_S = 128, 150, 0.95, 180.0


def batch(side: int, objects: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One image of noise, and the truth of so many squares that do not overlap, in MANY rows."""
    columns = int(np.ceil(MANY**0.5))
    size = side // columns
    labels = np.zeros((1, side, side), np.int32)
    boxes, classes = np.zeros((1, MANY, 4), np.float32), np.zeros((1, MANY), np.int32)
    for number in range(objects):
        top, left = number // columns * size, number % columns * size
        box = (top + 1, left + 1, top + size - 1, left + size - 1)
        labels[0, box[0] : box[2], box[1] : box[3]] = number + 1
        boxes[0, number], classes[0, number] = box, 1
    image = np.random.default_rng(0).random((1, side, side, 3), np.float32)
    return image, {"boxes": boxes, "classes": classes, "labels": labels}


def our_side(kind: str, side: int, backbone: str, gpu: bool):
    """Function of a number of objects that does one step or detection."""
    import tensorflow as tf

    if not gpu:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)

    import keras

    from cellseg.models.mask_rcnn import MaskRCNN
    from pipelines.allocator import keep_freed_memory

    keep_freed_memory()  # as `cellseg.streams` does before training
    network = MaskRCNN(classes=1, backbone=backbone)
    image = batch(side, 0)[0]
    if kind == "detect":
        return lambda objects: network.detect(image)
    if kind == "detect-bare":
        # The means alone come back: to copy the pyramid from a GPU would take longer than to compute it.
        levels = tf.function(lambda given: network.network(given, training=False)[0])
        forward = tf.function(lambda given: [tf.reduce_mean(level) for level in levels(given)])
        given = tf.constant(image)
        return lambda objects: [level.numpy() for level in forward(given)]
    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    if kind == "train":
        network.compile(optimizer, jit_compile=gpu)
        network.make_train_function()
        stored = {n: iter(tf.data.Dataset.from_tensors(batch(side, n)).repeat()) for n in (FEW, MANY)}
        return lambda objects: float(network.train_function(stored[objects])["loss"])

    scoring = ("proposal_conv", "proposal_score", "proposal_code")
    layers = [layer for layer in network.network.layers if layer.name not in scoring]
    trained = [weight for layer in layers for weight in layer.trainable_variables]
    optimizer.build(trained)

    @tf.function(jit_compile=gpu)
    def step(given):
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_mean(level) for level in network.network(given, training=True)[0])
        optimizer.apply(tape.gradient(loss, [weight.value for weight in trained]), trained)
        return loss

    given = tf.constant(image)
    return lambda objects: float(step(given))


def torchvision_side(kind: str, side: int):
    """torchvision's network on the same GPU, from random weights, its own resizing switched off."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2, min_size=side, max_size=side)
    network.cuda()
    torch.backends.cudnn.benchmark = True  # as TensorFlow does: the fastest kernels, in TF32
    torch.set_float32_matmul_precision("high")
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
    image = torch.from_numpy(batch(side, 0)[0][0].transpose(2, 0, 1).copy()).cuda()

    def target(objects: int) -> dict:
        truth = batch(side, objects)[1]
        ids = np.arange(1, objects + 1)
        masks = (truth["labels"][0][None] == ids[:, None, None]).astype(np.uint8)
        given = {"boxes": truth["boxes"][0, :objects, [1, 0, 3, 2]].T.copy(), "masks": masks}
        given["labels"] = np.ones(objects, np.int64)
        return {name: torch.from_numpy(array).cuda() for name, array in given.items()}

    targets = {n: target(n) for n in (FEW, MANY)}

    def train(objects: int) -> float:
        network.train()
        loss = sum(network([image], [targets[objects]]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def detect(objects: int):
        network.eval()
        with torch.inference_mode():
            return {name: array.cpu() for name, array in network([image])[0].items()}

    return train if kind.startswith("train") else detect


def peak_mb(kind: str, gpu: bool) -> float:
    """Most memory so far: of the GPU, or else of the process."""
    if not gpu:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if kind.endswith("torchvision"):
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


def serve(kind: str, side: str, backbone: str, gpu: bool) -> None:
    """Work when told to: a number of objects a line on stdin, an answer in JSON a line on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    theirs = kind.endswith("torchvision")
    work = torchvision_side(kind, int(side)) if theirs else our_side(kind, int(side), backbone, gpu)
    for line in sys.stdin:
        number = STEPS[kind.partition("-")[0]]
        begin = time.perf_counter()
        for _ in range(number):
            work(int(line))
        seconds = (time.perf_counter() - begin) / number
        print(json.dumps({"s": seconds, "mb": peak_mb(kind, gpu)}), file=answers, flush=True)


class Side:
    """One side of a comparison, in a process of its own."""

    def __init__(self, kind: str, side: int, backbone: str, gpu: bool):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        if not gpu:
            environment |= {"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": str(THREADS)}
        arguments = [sys.executable, __file__, "--serve", kind, str(side), backbone, *(["--gpu"] if gpu else [])]
        environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # the sides share the GPU
        self.process = subprocess.Popen(
            arguments, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.times: dict[int, list[float]] = {FEW: [], MANY: []}

    def run(self, objects: int) -> dict:
        """Seconds of a step, and megabytes."""
        print(objects, file=self.process.stdin, flush=True)
        self.answer = json.loads(self.process.stdout.readline() or "null")
        if self.answer is None:
            raise SystemExit("A side of the comparison ended; see its message above.")
        return self.answer

    def median(self, objects: int = MANY) -> float:
        """Median seconds of a step."""
        return statistics.median(self.times[objects])


def compare(kinds: list[str], options: argparse.Namespace) -> dict[str, Side]:
    """Every side, measured in turns with few and with many objects."""
    sides = {kind: Side(kind, options.side, options.backbone, options.gpu) for kind in kinds}
    for side in sides.values():
        for objects in (FEW, MANY):
            side.run(objects)  # traces, and chooses kernels
    for _ in range(options.repeats):
        for kind, side in sides.items():
            for objects in (FEW, MANY) if kind in ("train", "train-torchvision") else (MANY,):
                time.sleep(0.5)  # thread pools spin for a moment before they sleep
                side.times[objects].append(side.run(objects)["s"])
    for side in sides.values():
        side.process.stdin.close()
        side.process.wait()
    return sides


def measure(options: argparse.Namespace) -> None:
    """Time and memory, as a table."""
    import importlib.util

    peer = options.gpu and options.backbone == "resnet50" and importlib.util.find_spec("torchvision")
    rows, extra = [], {"device": "GPU" if options.gpu else "CPU"}
    for word, what in (("train", "a training step"), ("detect", "a detection")):
        kinds = [word, f"{word}-bare", *([f"{word}-torchvision"] if peer else [])]
        sides = compare(kinds, options)
        name = f"{options.side}x{options.side}, {options.backbone}, {what}"
        ours, bare = sides[word], sides[f"{word}-bare"]
        rows.append(row(f"{name}, peer the bare backbone and pyramid, s", ours.median(), bare.median()))
        rows.append(row(f"{name}, peak, peer the same, MB", ours.answer["mb"], bare.answer["mb"]))
        if word == "train":
            rows.append(row(f"{name}, {MANY} objects, peer {FEW} objects, s", ours.median(MANY), ours.median(FEW)))
        if peer:
            theirs = sides[f"{word}-torchvision"]
            rows.append(row(f"{name}, peer torchvision, s", ours.median(), theirs.median()))
            rows.append(row(f"{name}, peak, peer torchvision, MB", ours.answer["mb"], theirs.answer["mb"]))
    if not peer:
        extra["torchvision"] = "not measured: needs --gpu and torchvision"
    report("Mask R-CNN: ours, peer = as the case says", rows, options.json, **extra)


def nuclei() -> tuple[np.ndarray, np.ndarray]:
    """Four crops of nuclei, float32 (4, 128, 128, 1), and their labels."""
    from pipelines.contrast import stretch_contrast
    from pipelines.images import read_image, read_labels

    images, labels = [], []
    for path in sorted((NUCLEI / "images").glob("*.tif")):
        image, label = read_image(path), read_labels(NUCLEI / "labels" / path.name)[0]
        crop = (slice(0, OVERFIT_SIDE), slice(0, OVERFIT_SIDE))
        if min(image.shape[:2]) >= OVERFIT_SIDE and 6 <= len(np.unique(label[crop])) <= 30:
            images.append(stretch_contrast(image)[crop].mean(axis=-1, keepdims=True))
            labels.append(label[crop])
    return np.stack(images[:4]).astype(np.float32), np.stack(labels[:4])


def overfit(options: argparse.Namespace) -> None:
    """Train on four images until they are known by heart; a failure if they are not."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from cellseg.detections import Detections, draw
    from cellseg.metrics.objects import average_precision
    from cellseg.models.mask_rcnn import MaskRCNN
    from pipelines.objects import find_objects

    images, labels = nuclei()
    found = [find_objects(label, max_objects=64) for label in labels]
    truth = {name: np.stack([getattr(one, name) for one in found]) for name in ("boxes", "classes", "labels")}
    keras.utils.set_random_seed(0)
    network = MaskRCNN(classes=1, **SMALL)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, OVERFIT_STEPS, alpha=0.05)
    network.compile(keras.optimizers.Adam(rate), jit_compile=False)
    many = [np.tile(array, (OVERFIT_STEPS, *[1] * (array.ndim - 1))) for array in (images, *truth.values())]
    begin, processor = time.perf_counter(), time.process_time()
    history = network.fit(many[0], dict(zip(truth, many[1:], strict=True)), batch_size=4, shuffle=False, verbose=0)
    seconds, of_processor = time.perf_counter() - begin, time.process_time() - processor
    answer = network.detect(images)
    scores = []
    for place, one in enumerate(found):
        there = answer["classes"][place] > 0
        parts = [answer[name][place][there] for name in ("boxes", "scores", "classes", "masks")]
        drawn = draw(Detections(images.shape[1:3], *parts), threshold=0.5)
        scores.append(average_precision(one.labels, drawn))
    score = float(np.mean(scores))
    rows = [
        row(f"average precision at IoU 0.5 after {OVERFIT_STEPS} steps, peer the goal", score, OVERFIT_GOAL),
        row("training, tracing included, peer the limit, s", seconds, OVERFIT_S),
        row("training, of the processor, s", of_processor, None),
    ]
    report("Mask R-CNN: four images known by heart", rows, options.json, loss=history.history["loss"][-1])
    if score < OVERFIT_GOAL:
        raise SystemExit(1)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    arguments.add_argument("--side", type=int, default=SIDE, metavar="PX")
    arguments.add_argument("--backbone", default="resnet50", choices=["resnet18", "resnet50"])
    arguments.add_argument("--gpu", action="store_true", help="on a GPU, and beside torchvision if it is installed")
    arguments.add_argument("--overfit", action="store_true", help="learn four images by heart instead")
    arguments.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        return serve(*options.serve, gpu=options.gpu)
    return overfit(options) if options.overfit else measure(options)


if __name__ == "__main__":
    main()
