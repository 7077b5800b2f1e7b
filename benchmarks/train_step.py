"""Train step: seconds a step of the U-Net of the pancreatic recipe, against a PyTorch U-Net of the same shape, eager.

Batch 4 of 256x256, float32, two 3x3 convolutions + batch norm + ReLU a level, bilinear up, Tversky + cross-entropy,
Adam. Ours is the compiled function that `fit` runs, on a constant batch. Each side is a process of its own that waits
while the others step. `peer` is the faster of PyTorch's two memory formats; `ratio_to_pytorch` is the one of base 16.
What `fit` costs on top of a step is measured in `fit_overhead.py`.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from side_by_side import REPEATS, parser, report, row

SIDE, BATCH, STEPS, THREADS = 256, 4, 3, 2
RATE = 1e-3


def data() -> list[np.ndarray]:
    """Image, target and weight map of one batch, channels last."""
    rng = np.random.default_rng(0)
    image = rng.random((BATCH, SIDE, SIDE, 1), np.float32)
    target = (rng.random(image.shape) < 0.2).astype(np.float32)
    return [image, target, np.ones_like(image)]


def our_step(filters: int, dropout: float, variant: str):
    """Function of one step, and the number of parameters. Variants: `` as trained, `xla`, `keras` = Keras' layers."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)

    import keras

    from cellseg.losses import LOSSES
    from cellseg.models import MODELS, blocks
    from cellseg.trainer import Trainer
    from pipelines.allocator import keep_freed_memory

    keep_freed_memory()  # as `cellseg.streams` does before training
    if variant == "keras":
        blocks.BatchNormalization, blocks.Dropout = keras.layers.BatchNormalization, keras.layers.Dropout
        blocks.BilinearUpsampling = lambda name: keras.layers.UpSampling2D(interpolation="bilinear", name=name)
    options = {"padding": "same", "up": "bilinear", "batch_norm": True, "dropout_at": "every"}
    network = MODELS["unet"]((None, None, 1), filters=filters, dropout=dropout, **options)
    trainer = Trainer(network, LOSSES["tversky_bce"]())
    trainer.compile(keras.optimizers.Adam(RATE), jit_compile=variant == "xla")
    batches = iter(tf.data.Dataset.from_tensors(tuple(data())).repeat())
    trainer.make_train_function()
    return lambda: float(trainer.train_function(batches)["loss"]), sum(
        int(np.prod(w.shape)) for w in network.trainable_weights
    )


def peer_network(filters: int, dropout: float):
    """The same U-Net in PyTorch, batch -> logits, channels first."""
    import torch
    from torch import nn

    def block(channels: int, outputs: int) -> nn.Sequential:
        steps: list[nn.Module] = []
        for inputs in (channels, outputs):
            steps += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            steps += [nn.Dropout(dropout)] if dropout else []
        return nn.Sequential(*steps)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [filters * 2**level for level in range(5)]
            self.down = nn.ModuleList(block(*pair) for pair in zip([1, *sizes], sizes, strict=False))
            self.up = nn.ModuleList(block(small + large, small) for small, large in itertools.pairwise(sizes))
            self.pool, self.twice = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")
            self.logits = nn.Conv2d(filters, 1, 1)

        def forward(self, x):
            skips = []
            for level in self.down[:-1]:
                skips.append(level(x))
                x = self.pool(skips[-1])
            x = self.down[-1](x)
            for level, skip in zip(reversed(self.up), reversed(skips), strict=True):
                x = level(torch.cat([skip, self.twice(x)], dim=1))
            return self.logits(x)

    return UNet()


def peer_step(filters: int, dropout: float, variant: str):
    """Function of one step, and the number of parameters. Variants: contiguous, channels_last, either with `+kept`."""
    import torch
    from torch import nn

    torch.set_num_threads(THREADS)
    layout, _, kept = variant.partition("+")
    if kept:
        keep_all_memory()

    def loss(logits, target, weight_map):
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, target, weight_map)
        probability = torch.sigmoid(logits)
        hit, said, true = (v.sum((1, 2, 3)) for v in (target * probability, probability, target))
        return entropy + (1 - (hit + 1e-7) / (0.5 * (said + true) + 1e-7)).mean()

    network = peer_network(filters, dropout)
    batch = [torch.from_numpy(array.transpose(0, 3, 1, 2).copy()) for array in data()]
    if layout == "channels_last":
        network = network.to(memory_format=torch.channels_last)
        batch = [array.to(memory_format=torch.channels_last) for array in batch]
    optimizer = torch.optim.Adam(network.parameters(), RATE)

    def step() -> float:
        optimizer.zero_grad()
        value = loss(network(batch[0]), *batch[1:])
        value.backward()
        optimizer.step()
        return value.item()

    return step, sum(parameter.numel() for parameter in network.parameters())


def keep_all_memory() -> None:
    """Let glibc give no memory back, whatever the size: what TensorFlow's own pool does for TensorFlow."""
    import ctypes

    libc = ctypes.CDLL(None)
    assert libc.mallopt(-4, 0) and libc.mallopt(-1, 2**31 - 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD


def serve(side: str, filters: int, dropout: float, variant: str) -> None:
    """Step when told to: a number of steps a line on stdin, an answer in JSON a line on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    step, parameters = (our_step if side == "ours" else peer_step)(filters, dropout, variant)
    rested = time.process_time()
    for line in sys.stdin:
        idle, begin = time.process_time() - rested, time.perf_counter()
        for _ in range(int(line)):
            loss = step()
        seconds = (time.perf_counter() - begin) / int(line)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"s": seconds, "mb": peak, "idle_cpu_s": idle, "loss": loss, "parameters": parameters}
        rested = time.process_time()
        print(json.dumps(answer), file=answers, flush=True)


class Side:
    """One side of a comparison, in a process of its own."""

    def __init__(self, side: str, filters: int, dropout: float, variant: str):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        environment |= {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": str(THREADS)}
        arguments = [sys.executable, __file__, "--serve", side, str(filters), str(dropout), variant]
        self.process = subprocess.Popen(
            arguments, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.times: list[float] = []
        self.idle = 0.0

    def run(self, steps: int) -> dict:
        """The answer to `steps` steps."""
        print(steps, file=self.process.stdin, flush=True)
        self.answer = json.loads(self.process.stdout.readline() or "null")
        if self.answer is None:
            raise SystemExit("A side of the comparison ended; see its message above.")
        return self.answer

    def median(self) -> float:
        """Median seconds a step."""
        return statistics.median(self.times)


def compare(filters: int, dropout: float, ours: list[str], peers: list[str], repeats: int) -> dict[str, Side]:
    """Every variant of both sides, measured in turns."""
    sides = {name: Side("ours", filters, dropout, name) for name in ours}
    sides |= {name: Side("peer", filters, dropout, name) for name in peers}
    for side in sides.values():
        side.run(2)  # traces, and chooses kernels
    assert len({side.answer["parameters"] for side in sides.values()}) == 1, "not the same network"
    for _ in range(repeats):
        for side in sides.values():
            time.sleep(0.5)  # thread pools spin for a moment before they sleep
            answer = side.run(STEPS)
            side.times.append(answer["s"])
            side.idle = max(side.idle, answer["idle_cpu_s"])
    for side in sides.values():
        side.process.stdin.close()
        side.process.wait()
    return sides


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    arguments.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        side, filters, dropout, variant = options.serve
        return serve(side, int(filters), float(dropout), variant)

    formats = ["contiguous", "channels_last"]
    rows, idle, ratios = [], 0.0, {}
    for filters, dropout in ((16, 0.0), (16, 0.1), (32, 0.0)):
        first = filters == 16 and not dropout
        ours = ["", "xla", "keras"] if first else [""]
        sides = compare(filters, dropout, ours, formats + (["channels_last+kept"] if first else []), options.repeats)
        name = f"base {filters}" + (f", dropout {dropout}" if dropout else "")
        best = min(formats, key=lambda layout: sides[layout].median())
        rows.append(row(f"{name}, peer {best}, s", sides[""].median(), sides[best].median()))
        ratios[name] = rows[-1].ratio
        rows.append(row(f"{name}, peak, MB", sides[""].answer["mb"], sides[best].answer["mb"]))
        if first:
            kept = "channels_last+kept"
            rows.append(
                row(f"{name}, peer {kept[:-5]} without page faults, s", sides[""].median(), sides[kept].median())
            )
            for variant, words in (("xla", "ours with jit_compile"), ("keras", "ours of Keras' layers")):
                rows.append(row(f"{name}, {words}, s", sides[variant].median(), sides[best].median()))
        idle = max([idle, *(side.idle for side in sides.values())])
    title = "Train step: ours, peer = PyTorch eager in its better memory format"
    report(title, rows, options.json, ratio_to_pytorch=ratios["base 16"], most_cpu_s_of_a_waiting_side=idle)
    return None


if __name__ == "__main__":
    main()
