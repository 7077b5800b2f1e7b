"""Elastic deformation: control points -> displacement field -> deformed image and labels, and whether a field folds.

Plain functions of arrays and a generator. How an experiment asks for them is the business of `pipelines.transforms`.
"""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage

from pipelines.errors import InputError

# Our name -> OpenCV's border, scipy's mode. Mirrored pictures do not repeat their outermost pixel, reflected ones do.
BORDERS = {
    "mirror": (cv2.BORDER_REFLECT_101, "mirror"),
    "reflect": (cv2.BORDER_REFLECT, "reflect"),
    "constant": (cv2.BORDER_CONSTANT, "constant"),
}
INTERPOLATIONS = {0: cv2.INTER_NEAREST, 1: cv2.INTER_LINEAR, 3: cv2.INTER_CUBIC}
LONGEST = 32_766  # cv2.remap counts pixels in 16 bits


def grid_displacement(rng: np.random.Generator, *, points: int = 3, sigma: float = 10.0) -> np.ndarray:
    """Displacements of a coarse grid of control points, each from N(0, sigma).

    Args:
        rng: Where the randomness comes from.
        points: Control points along each axis.
        sigma: Standard deviation in pixels.

    Returns:
        float32 (2, points, points) in pixels, along rows then along columns.

    Reference:
        Ronneberger et al. 2015, sec. 3.1: a 3x3 grid, 10 pixels.
    """
    return rng.standard_normal((2, points, points), dtype=np.float32) * np.float32(sigma)


def grid_field(displacement: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bring the displacements of control points to every pixel by bicubic spline interpolation.

    The control points are spread evenly from the centre of the first pixel to the centre of the last one along each
    axis, so that the outer ones sit on the corners and edges; there the field takes their values. The spline is
    mirrored at the outer points, which makes it the field of the package elasticdeform (0.5.1), to rounding.

    Args:
        displacement: (2, points, points), pixels, along rows then along columns.
        shape: Height and width of the field.

    Returns:
        float32 (2, height, width), pixels.
    """
    rows, columns = (_spline(side, points) for side, points in zip(shape, displacement.shape[1:], strict=True))
    # Not a matrix product: two of them at once on 512x512 waited for the threads of BLAS, 13 ms instead of 0.2.
    return np.einsum("aik,kj->aij", rows @ displacement.astype(np.float32, copy=False), columns.T.copy())


def simard_field(rng: np.random.Generator, shape: tuple[int, int], *, alpha: float, sigma: float) -> np.ndarray:
    """Noise from uniform(-1, 1) at each pixel, smoothed with a Gaussian, times alpha.

    Each displacement has the standard deviation alpha / (2 * sqrt(3 * pi) * sigma), at the rim too: the noise goes on
    outside. Simard scaled the smooth field to a norm of 1 first; we follow the public implementations, which do not.

    Args:
        rng: Where the randomness comes from.
        shape: Height and width of the field.
        alpha: Strength.
        sigma: Width of the Gaussian in pixels, > 0.

    Returns:
        float32 (2, height, width), pixels, along rows then along columns.

    Reference:
        Simard et al. 2003, sec. 2, doi:10.1109/ICDAR.2003.1227801
    """
    radius = int(4 * sigma + 0.5)
    noise = rng.random((2, shape[0] + 2 * radius, shape[1] + 2 * radius), dtype=np.float32)
    field = np.empty((2, *shape), np.float32)
    for axis in range(2):
        smooth = cv2.GaussianBlur(2 * noise[axis] - 1, (2 * radius + 1,) * 2, sigma)
        np.multiply(smooth[radius : radius + shape[0], radius : radius + shape[1]], np.float32(alpha), out=field[axis])
    return field


def deform(
    image: np.ndarray,
    field: np.ndarray,
    *,
    order: int = 1,
    border: str = "mirror",
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Move pixels: the answer's pixel (r, c) is read at `origin + (r, c) + field[:, r, c]`.

    Args:
        image: (H, W) or (H, W, C); any dtype for order 0, else uint8, uint16, float32 or float64.
        field: (2, h, w), pixels, along rows then along columns.
        order: 0 nearest (values are kept exactly: labels), 1 bilinear, 3 bicubic (may overshoot the range a little).
        border: What lies outside of the image: "mirror" (the outermost pixel is not repeated), "reflect" (it is),
            "constant" (0; OpenCV fades the outermost pixel into it, scipy does not).
        origin: Where the window of the answer begins in the image: of a larger image the pixels that the field pulls
            in from outside of the window are real ones.

    Returns:
        (h, w) or (h, w, C), same dtype. OpenCV reads float32 and integers, at positions that older versions round to
        1/32 pixel; float64 is read in double precision by scipy, bicubic by a spline there.

    Raises:
        InputError: an unknown order or border, or a dtype that cannot be interpolated.
    """
    return read_at(image, positions(field, origin=origin), order=order, border=border)


def positions(field: np.ndarray, *, origin: tuple[int, int] = (0, 0), out: np.ndarray | None = None) -> np.ndarray:
    """Where `deform` reads: `origin + (r, c) + field[:, r, c]`, in the field's dtype (2, h, w).

    Computed once for an image and its maps; `out` may be the field itself, whose memory is then used again.
    """
    height, width = field.shape[1:]
    out = np.empty_like(field) if out is None else out
    np.add(field[0], np.arange(origin[0], origin[0] + height, dtype=field.dtype)[:, None], out=out[0])
    np.add(field[1], np.arange(origin[1], origin[1] + width, dtype=field.dtype), out=out[1])
    return out


def read_at(image: np.ndarray, places: np.ndarray, *, order: int = 1, border: str = "mirror") -> np.ndarray:
    """Read an image at places (2, h, w), rows then columns; all else as in `deform`."""
    if order not in INTERPOLATIONS:
        raise InputError(f"order must be 0 (nearest), 1 (bilinear) or 3 (bicubic), got {order}.")
    if border not in BORDERS:
        raise InputError(f"border must be one of {', '.join(BORDERS)}, got '{border}'.")
    kind = image.dtype
    if order and kind not in (np.uint8, np.uint16, np.float32, np.float64):
        raise InputError(
            f"{kind} cannot be interpolated: an image is uint8, uint16, float32 or float64. Labels take order 0."
        )
    if (order and kind == np.float64) or max(*image.shape[:2], *places.shape[1:]) > LONGEST:
        return _read_exactly(image, places, order, border)
    rows, columns = places.astype(np.float32, copy=False)
    source = np.ascontiguousarray(image) if order else _as_bits(image)
    remap = functools.partial(
        cv2.remap, map1=columns, map2=rows, interpolation=INTERPOLATIONS[order], borderMode=BORDERS[border][0]
    )
    if order == 3 and source.ndim == 3 and source.shape[2] > 4:  # more is not in OpenCV
        answer = np.stack([remap(np.ascontiguousarray(plane)) for plane in np.moveaxis(source, 2, 0)], axis=-1)
    else:
        answer = remap(source)
    return answer.view(kind).reshape(*places.shape[1:], *image.shape[2:])


def minimum_jacobian(field: np.ndarray) -> float:
    """Smallest determinant of I + grad u over the pixels, by forward differences.

    1 where nothing is stretched; at 0 or below the field folds: the picture is turned over there.

    Args:
        field: (2, h, w) with at least two rows and columns, pixels.
    """
    along_rows, along_columns = np.diff(field, axis=1)[:, :, :-1], np.diff(field, axis=2)[:, :-1]
    determinant = (1 + along_rows[0]) * (1 + along_columns[1]) - along_rows[1] * along_columns[0]
    return float(determinant.min())


def folding(
    draw: Callable[[np.random.Generator], np.ndarray], *, trials: int = 64, seed: int = 0
) -> tuple[float, float]:
    """How often the fields of a setting fold.

    Args:
        draw: Makes a random field.
        trials: Number of fields.
        seed: Of the fields.

    Returns:
        The share of the fields that fold, in [0, 1], and the smallest determinant of all, see `minimum_jacobian`.
    """
    rng = np.random.default_rng(seed)
    smallest = np.array([minimum_jacobian(draw(rng)) for _ in range(trials)])
    return float(np.mean(smallest <= 0)), float(smallest.min())


@functools.lru_cache(maxsize=64)
def _spline(side: int, points: int) -> np.ndarray:
    """float32 (side, points): how much of each control point each pixel takes."""
    places = np.linspace(0, points - 1, side)[None]
    columns = [ndimage.map_coordinates(unit, places, order=3, mode="mirror") for unit in np.eye(points)]
    basis = np.stack(columns, axis=1).astype(np.float32)
    basis.flags.writeable = False  # threads share it
    return basis


def _as_bits(labels: np.ndarray) -> np.ndarray:
    # Nearest neighbour only copies, so 32-bit labels travel as two channels of 16 bits, which every OpenCV takes.
    labels = np.ascontiguousarray(labels)
    if labels.itemsize <= 2:
        return labels.view(np.uint8 if labels.itemsize == 1 else np.uint16)
    return labels[..., None].view(np.uint16).reshape(*labels.shape[:2], -1)


def _read_exactly(image: np.ndarray, places: np.ndarray, order: int, border: str) -> np.ndarray:
    planes = image.reshape(*image.shape[:2], -1)
    answer = np.empty((*places.shape[1:], planes.shape[2]), image.dtype)
    for channel in range(planes.shape[2]):
        plane = planes[..., channel]
        # Integers are interpolated as numbers and rounded; order 0 copies them.
        source = plane.astype(np.float64) if order else plane
        values = ndimage.map_coordinates(source, places, order=order, mode=BORDERS[border][1])
        if order and image.dtype.kind == "u":
            values = np.clip(np.rint(values), 0, np.iinfo(image.dtype).max)
        answer[..., channel] = values
    return answer.reshape(*places.shape[1:], *image.shape[2:])
