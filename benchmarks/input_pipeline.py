"""Input pipeline: images a second from shards to augmented batches, against a PyTorch DataLoader with albumentations.

256x256 crops of 512x512 uint16 images, two threads here and two worker processes there, the same shards, the same
transforms, one read of the shard a crop on both sides. Also what the pipeline costs a training step, and memory.
`ratio_to_pytorch` is the one without elastic deformation.
"""

import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from side_by_side import REPEATS, parser, report, row

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SIDE, PATCH, BATCH, IMAGES, WORKERS = 512, 256, 8, 40, 2
FLIPS = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "VerticalFlip", "p": 0.5},
    {"name": "RandomRotate90", "p": 1.0},
    {"name": "RandomBrightnessContrast", "p": 0.5},
]
OURS_ELASTIC = {"name": "elastic_grid", "sigma": 10.0}
# Their displacements are as large: 10 px for the grid; alpha 120 and sigma 10 move a pixel by 3 px on average.
SMOOTH_ELASTIC = {"name": "ElasticTransform", "alpha": 120, "sigma": 10, "p": 1.0}
GRID_ELASTIC = {"name": "GridElasticDeform", "num_grid_xy": [3, 3], "magnitude": 10, "p": 1.0}
STEPS = 12
MANY = 2000


def write_images(folder: Path) -> None:
    """Sixteen-bit images with about 60 bright cells each, and their labels."""
    import tifffile

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True)
    for number in range(IMAGES):
        labels = np.zeros((SIDE, SIDE), np.uint16)
        for cell in range(1, 61):
            row, column, radius = *rng.integers(0, SIDE, 2), rng.integers(8, 20)
            labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = cell
        image = 3000 + 20000 * (labels > 0) + rng.normal(0, 800, labels.shape)
        tifffile.imwrite(folder / "images" / f"{number:03d}.tif", np.clip(image, 0, 65535).astype(np.uint16))
        tifffile.imwrite(folder / "labels" / f"{number:03d}.tif", labels)


def prepare_shards(folder: Path) -> Path:
    """The images as .npz shards, which PyTorch users read with numpy."""
    from pipelines.prepare import prepare

    write_images(folder / "raw")
    data = {"layout": "pairs", "channels": None, "contrast": [2.0, 98.0], "spacing_um": None, "interval_s": None}
    split = {"by": "image", "train": 0.9, "validation": 0.05, "test": 0.05, "gap": 0, "seed": 0}
    prepare(folder / "raw", folder / "shards", config={"data": {**data, "format": "npz"}, "split": split}, options={})
    return folder / "shards"


def our_batches(shards: Path, augment: list[dict], *, batch: int = BATCH):
    """Our batches with their weight maps."""
    from pipelines.dataset import Batches, ShardReader

    return Batches(ShardReader(shards), patch=PATCH, batch_size=batch, augment=augment)


def our_stream(shards: Path, augment: list[dict]):
    """Endless iterator over our tf.data column."""
    from pipelines.dataset import training_dataset

    return iter(training_dataset(our_batches(shards, augment), parallel_calls=WORKERS))


class Cells:
    """Random crops for a PyTorch DataLoader, as its users write them."""

    def __init__(self, shards: Path, augment: list[dict]):
        from pipelines.shards.manifest import Manifest

        manifest = Manifest.read(shards)
        file = next(shard["file"] for shard in manifest.shards if shard["split"] == "train")
        self.path, self.num = shards / file, len(manifest.of_split("train"))
        self.augment, self.archive = augment, None

    def __len__(self):
        return 10**7

    def __getitem__(self, index):
        import torch

        if self.archive is None:
            self.open()
        member = f"{index % self.num:06d}"
        row, column = np.random.randint(0, SIDE - PATCH + 1, 2)
        crop = np.s_[row : row + PATCH, column : column + PATCH]
        low, high = self.archive[f"{member}/contrast"]
        image = np.clip((self.archive[f"{member}/image"][crop].astype(np.float32) - low) / (high - low), 0, 1)
        answer = self.transform(image=image, mask=self.archive[f"{member}/labels"][crop])
        target = (answer["mask"] > 0).astype(np.float32)
        image = np.ascontiguousarray(answer["image"].transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(target[None])

    def open(self):
        """One open file and one Compose a worker."""
        import albumentations

        steps = [{**step} for step in self.augment]
        self.transform = albumentations.Compose([getattr(albumentations, s.pop("name"))(**s) for s in steps])
        self.archive = np.load(self.path)


def start_worker(number: int) -> None:
    """The peer's workers get what our process has: one OpenCV thread each, and freed memory that is kept."""
    import cv2

    from pipelines.allocator import keep_freed_memory

    cv2.setNumThreads(1)
    keep_freed_memory()


def peer_stream(shards: Path, augment: list[dict]):
    """Endless iterator over a PyTorch DataLoader that does the same."""
    import torch

    return iter(
        torch.utils.data.DataLoader(
            Cells(shards, augment),
            batch_size=BATCH,
            num_workers=WORKERS,
            worker_init_fn=start_worker,
            multiprocessing_context="spawn",  # a fork of a process with OpenCV's threads hangs
        )
    )


def images_per_second(*streams, images: int = 1600) -> list[float]:
    """Median rate of each stream; they take turns, and rest so that the other's workers are idle."""
    rates: list[list[float]] = [[] for _ in streams]
    for stream in streams:
        for _ in range(10):
            next(stream)
    for _ in range(REPEATS):
        for stream, found in zip(streams, rates, strict=True):
            time.sleep(1.0)
            begin = time.perf_counter()
            for _ in range(images // BATCH):
                next(stream)
            found.append(images / (time.perf_counter() - begin))
    return [float(np.median(found)) for found in rates]


def seconds_per_step(shards: Path) -> list[float]:
    """Median seconds of a training step of the base-16 U-Net, from the pipeline and on one constant batch."""
    import tensorflow as tf

    from cellseg.losses import LOSSES
    from cellseg.models import MODELS
    from cellseg.training import Trainer
    from pipelines.dataset import training_dataset

    network = MODELS["unet"](
        (None, None, 1), outputs=1, filters=16, padding="same", up="bilinear", batch_norm=True, dropout=0.1
    )
    trainer = Trainer(network, LOSSES["tversky_bce"]())
    trainer.compile("adam")
    batches = our_batches(shards, [OURS_ELASTIC, *FLIPS], batch=4)
    fed = training_dataset(batches, parallel_calls=WORKERS)
    constant = tf.data.Dataset.from_tensors(batches.batch(0)).repeat()
    for dataset in (fed, constant):
        trainer.fit(dataset, steps_per_epoch=2, verbose=0, shuffle=False)
    times: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for dataset, taken in zip((fed, constant), times, strict=True):
            begin = time.perf_counter()
            trainer.fit(dataset, steps_per_epoch=STEPS, verbose=0, shuffle=False)
            taken.append((time.perf_counter() - begin) / STEPS)
    return [float(np.median(taken)) for taken in times]


def resident_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory(shards: Path) -> tuple[float, float]:
    """Resident MB after a tenth of the batches and after all of them."""
    stream = our_stream(shards, [OURS_ELASTIC, *FLIPS])
    for _ in range(MANY // 10):
        next(stream)
    early = resident_mb()
    for _ in range(MANY - MANY // 10):
        next(stream)
    return early, resident_mb()


def main():
    """Measure and print."""
    options = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = prepare_shards(Path(folder))
        plain = images_per_second(our_stream(shards, FLIPS), peer_stream(shards, FLIPS))
        elastic = images_per_second(
            our_stream(shards, [OURS_ELASTIC, *FLIPS]),
            peer_stream(shards, [SMOOTH_ELASTIC, *FLIPS]),
            peer_stream(shards, [GRID_ELASTIC, *FLIPS]),
        )
        early, late = memory(shards)
        fed, constant = seconds_per_step(shards)
    rows = [
        row("without elastic, images/s", *plain),
        row("elastic, peer ElasticTransform, images/s", elastic[0], elastic[1]),
        row("elastic, peer GridElasticDeform, images/s", elastic[0], elastic[2]),
        row("train step from the pipeline, peer = one constant batch, s", fed, constant),
        row(f"resident memory after {MANY} batches, peer = after {MANY // 10}, MB", late, early),
    ]
    report("Input pipeline: ours, peer = PyTorch DataLoader", rows, options.json, ratio_to_pytorch=plain[0] / plain[1])


if __name__ == "__main__":
    main()
