"""How to store images: random 256x256 crops a second and size on disk, for the ways that shards could be written.

Whole image raw and read by its rows is what `pipelines.shards` does; the others are what it was chosen over.
"""

import functools
import gzip
import io
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
from side_by_side import alternate, parser, report, row

from pipelines.shards import arrays, npz

PATCH, CROPS = 256, 200
TILE = 256


def picture(side: int) -> np.ndarray:
    """Sixteen bits of bright cells and noise, as a camera gives them."""
    rng = np.random.default_rng(0)
    image = rng.normal(800, 30, (side, side))
    for _ in range(side * side // 4000):
        row, column = rng.integers(0, side, 2)
        image[row : row + 25, column : column + 25] += 2500
    return image.astype(np.uint16)[..., None]


def coded(image: np.ndarray, folder: Path):
    """Name -> (bytes on disk, function that reads the window at a corner)."""
    side = len(image)
    with npz.Writer(folder / "raw.npz") as writer:
        places = writer.write({"image": image})
    raw = image.tobytes()

    def shard(row, column):
        return arrays.read(folder / "raw.npz", places, rows=(row, row + PATCH))["image"][:, column : column + PATCH]

    def whole(name, decode):
        def read(row, column):
            return decode((folder / name).read_bytes())[row : row + PATCH, column : column + PATCH]

        return read

    codecs = {
        "numpy .npz, whole image": (_npz(image), lambda data: np.load(io.BytesIO(data))["image"]),
        "zlib 1": (zlib.compress(raw, 1), lambda data: np.frombuffer(zlib.decompress(data), "<u2").reshape(side, side)),
        "zlib 6": (zlib.compress(raw, 6), lambda data: np.frombuffer(zlib.decompress(data), "<u2").reshape(side, side)),
        "gzip": (gzip.compress(raw), lambda data: np.frombuffer(gzip.decompress(data), "<u2").reshape(side, side)),
        "PNG": (
            cv2.imencode(".png", image)[1].tobytes(),
            lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED),
        ),
    }
    found = {"raw, the crop's rows": (len(raw), shard)}
    for name, (data, decode) in codecs.items():
        (folder / name).write_bytes(data)
        found[name] = (len(data), whole(name, decode))
    found[f"zlib 1 in {TILE} px tiles"] = _tiled(image, folder)
    return found


def _npz(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, image=image)
    return stream.getvalue()


def _tiled(image: np.ndarray, folder: Path):
    (folder / "tiles").mkdir()
    size = 0
    for top in range(0, len(image), TILE):
        for left in range(0, len(image), TILE):
            data = zlib.compress(image[top : top + TILE, left : left + TILE].tobytes(), 1)
            (folder / "tiles" / f"{top}-{left}").write_bytes(data)
            size += len(data)

    def read(row, column):
        first = row // TILE * TILE, column // TILE * TILE
        tiles = [
            [
                np.frombuffer(zlib.decompress((folder / "tiles" / f"{r}-{c}").read_bytes()), "<u2").reshape(TILE, TILE)
                for c in range(first[1], min(column + PATCH, len(image)), TILE)
            ]
            for r in range(first[0], min(row + PATCH, len(image)), TILE)
        ]
        top, left = row - first[0], column - first[1]
        return np.block(tiles)[top : top + PATCH, left : left + PATCH]

    return size, read


def read_all(read, corners: np.ndarray) -> None:
    """Read the window at every corner."""
    for corner in corners:
        read(*corner)


def main():
    """Measure and print."""
    options = parser(__doc__).parse_args()
    rows = []
    for side in (512, 2048):
        image = picture(side)
        with tempfile.TemporaryDirectory() as folder:
            ways = coded(image, Path(folder))
            corners = np.random.default_rng(1).integers(0, side - PATCH + 1, (CROPS, 2))
            for name, (_, read) in ways.items():
                row_, column = corners[0]
                expected = image[row_ : row_ + PATCH, column : column + PATCH, 0]
                assert (np.squeeze(read(*corners[0])) == expected).all(), name
            times = alternate(*(functools.partial(read_all, read, corners) for _, read in ways.values()))
            first = CROPS / times[0]
            for (name, (size, _)), seconds in zip(ways.items(), times, strict=True):
                case = f"{side} px: {name} ({100 * size / image.nbytes:.0f} % of raw), crops/s; ours = raw by rows"
                rows.append(row(case, first, CROPS / seconds))
    report("Shards: random crops a second on one core", rows, options.json)


if __name__ == "__main__":
    main()
