"""OME-Zarr: images and labels of the Next-Generation File Format 0.4 and 0.5, read and written window by window.

What becomes of the pixels is the work of `pipelines.rasters`; TIFF lives in `pipelines.decoding`.

Reference:
    https://ngff.openmicroscopy.org/0.5
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.damage import HARDLY_LABELS, LARGEST_TILE, LARGEST_UNASKED, check_claim, damaged
from pipelines.decoding import plausible_spacing
from pipelines.errors import InputError

SUFFIX = ".zarr"
VERSION = "0.4"  # that is written; the one that most viewers know
CHUNK = 512
DESCRIPTIONS = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")  # every other file of an array is a chunk
MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
MICROMETRES |= {"angstrom": 1e-4, "picometer": 1e-6}


def is_zarr(path: Path) -> bool:
    """Whether a path is that of an OME-Zarr, a folder that holds one image."""
    return path.suffix.lower() == SUFFIX and path.is_dir()


class ZarrImage:
    """Level 0 of an OME-Zarr image.

    Attributes:
        pages: Product of all axes but y, x and c.
        shape: (H, W, C).
        dtype: Of the stored numbers.
        block: (rows, columns) of a chunk.
        spacing_um: (row, column) pixel size, where known, as of `pipelines.decoding.plausible_spacing`.

    A chunk without a file is made of the fill value, as the specification says. So would be an image that was copied
    without its chunks: where there is not one, it is refused, unless it is one of labels, which may have no cell.

    Raises:
        InputError: a folder that is no OME-Zarr image, one whose pixels lie elsewhere, or that claims far more pixels
            than it holds (`pipelines.damage.check_claim`).
    """

    def __init__(self, path: Path):
        import zarr

        metadata = _metadata(path)
        scales = metadata.get("multiscales")
        if not scales or not scales[0].get("datasets"):
            raise InputError(
                f"{path} is no OME-Zarr image: its metadata have no 'multiscales'. Of a plate or a collection, give "
                "the folder of one image."
            )
        first = scales[0]["datasets"][0]
        folder = _inside(path, first["path"])
        self._array = zarr.open_array(str(folder), mode="r")
        names = [axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", list("tczyx"))]
        if len(names) != self._array.ndim or {"y", "x"} - set(names):
            raise InputError(f"{path}: its axes are {', '.join(names)} for {self._array.ndim} dimensions.")
        sides = dict(zip(names, self._array.shape, strict=True))
        if 0 in self._array.shape:
            raise InputError(f"{path} holds no pixels: its shape is {self._array.shape}.")
        _check_chunks(path, folder, self._array, labels="image-label" in metadata)
        self._names, self.dtype = names, self._array.dtype
        self.shape = sides["y"], sides["x"], sides.get("c", 1)
        self._counts = [side for name, side in sides.items() if name not in "yxc"]
        self.pages = math.prod(self._counts)
        chunks = dict(zip(names, self._array.chunks, strict=True))
        self.block = min(chunks["y"], sides["y"]), min(chunks["x"], sides["x"])
        self.spacing_um = _spacing_um(scales[0], first, names)

    def read(self, page: int, rows: slice, columns: slice) -> np.ndarray:
        """(h, w, C) of a page, in the dtype of the file."""
        numbers = iter(np.unravel_index(page, self._counts)) if self._counts else iter(())
        places = {"y": rows, "x": columns, "c": slice(None)}
        index = tuple(places[name] if name in places else int(next(numbers)) for name in self._names)
        window = np.asarray(self._array[index])
        kept = [name for name in self._names if name in "yxc"]
        window = window if "c" in kept else window[..., np.newaxis]
        return window.transpose([[*kept, "c"].index(name) for name in "yxc"])


def create_zarr(
    folder: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype | type,
    *,
    name: str,
    spacing_um: tuple[float, float] | None = None,
    labels: bool = False,
) -> Any:
    """Make an OME-Zarr image of one level in `folder`, and give its array to be filled.

    Args:
        folder: Exists, and is empty.
        shape: (N, H, W); axes are y and x for one page, else t, y and x.
        dtype: Of the values.
        name: Of the image.
        spacing_um: (row, column) pixel size, where known.
        labels: Mark it as a label image.

    Returns:
        zarr array, (H, W) for one page, else (N, H, W), in chunks of 512 px.
    """
    import zarr

    short = shape[1:] if shape[0] == 1 else shape
    unit = {"unit": "micrometer"} if spacing_um else {}
    axes: list[dict[str, str]] = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    axes = axes if len(short) == 2 else [{"name": "t", "type": "time"}, *axes]
    scale = [1.0] * (len(short) - 2) + list(spacing_um or (1.0, 1.0))
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    attributes: dict[str, Any] = {
        "multiscales": [{"version": VERSION, "name": name, "axes": axes, "datasets": [dataset]}]
    }
    if labels:
        attributes["image-label"] = {"version": VERSION}
    group = zarr.open_group(str(folder), mode="a", zarr_format=2, attributes=attributes)
    chunks = tuple([1] * (len(short) - 2) + [min(CHUNK, side) for side in short[-2:]])
    return group.create_array(
        "0", shape=short, dtype=dtype, chunks=chunks, chunk_key_encoding={"name": "v2", "separator": "/"}
    )


def _metadata(path: Path) -> dict[str, Any]:
    """What the group says of itself: under `ome` since version 0.5."""
    new, old = path / "zarr.json", path / ".zattrs"
    if new.is_file():
        attributes = json.loads(new.read_text()).get("attributes", {})
        return attributes.get("ome", attributes)
    if old.is_file():
        return json.loads(old.read_text())
    raise InputError(f"{path} is no OME-Zarr image: it holds neither .zattrs nor zarr.json.")


def _inside(path: Path, name: str) -> Path:
    """The folder of an array; one that somebody else's metadata name must not be read elsewhere on this disk."""
    folder = path / name
    if Path(name).is_absolute() or not folder.resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"{path} names the array '{name}', which lies outside its folder. Its 'multiscales' should name a folder "
            "within, such as 0; copy the array there."
        )
    return folder


def _check_chunks(path: Path, folder: Path, array: Any, *, labels: bool) -> None:
    """Raise InputError if an array has no chunk, chunks far larger than itself, or far too few for what it claims."""
    claimed = math.prod(array.shape) * array.dtype.itemsize
    chunk = math.prod(array.shards or array.chunks) * array.dtype.itemsize
    if chunk > max(LARGEST_TILE, 4 * claimed):
        raise damaged(path, f"it claims chunks of {chunk} bytes, far larger than its image")
    stored, found = 0, False
    for size in _chunk_sizes(folder):
        stored, found = stored + size, True
        if claimed <= max(LARGEST_UNASKED, stored * HARDLY_LABELS):
            break  # enough is known: a large image has millions of chunks
    if not found and not labels:
        raise InputError(
            f"{path} holds no pixels: there is no chunk of its {'x'.join(map(str, array.shape))} values in {folder}. "
            "Copy it again from where it came, with all that is in it."
        )
    check_claim(path, claimed, stored, labels=True)


def _chunk_sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            if name not in DESCRIPTIONS:
                yield (Path(place) / name).stat().st_size


def _spacing_um(scale: dict[str, Any], dataset: dict[str, Any], names: list[str]) -> tuple[float, float] | None:
    units = {axis["name"]: str(axis.get("unit")) for axis in scale.get("axes", []) if isinstance(axis, dict)}
    factors = np.ones(len(names))
    for one in [*dataset.get("coordinateTransformations", []), *scale.get("coordinateTransformations", [])]:
        if one.get("type") == "scale":
            with np.errstate(all="ignore"):  # infinity and NaN are no pixel sizes, see below
                factors = factors * np.asarray(one["scale"], float)
    if any(units.get(axis) not in MICROMETRES for axis in "yx"):
        return None
    rows, columns = (float(factors[names.index(axis)]) * MICROMETRES[units[axis]] for axis in "yx")
    return plausible_spacing(rows, columns)
