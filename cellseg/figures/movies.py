"""Movies: pictures of a sequence as MP4 or GIF, written one by one.

The pictures themselves are drawn in `cellseg.figures.tracks`.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipelines.errors import InputError
from pipelines.files import whole_file

MOVIE_SUFFIXES = (".mp4", ".gif")
GIF_SIDE = 640  # pixels of the longer side: a GIF is large and held in memory
QUALITY = 23  # x264's constant rate factor; thin coloured lines stay clear
# A quarter of the time of x264's own choice, for files about as large.
PRESET = "veryfast"
FRAMES_PER_SECOND = 8


def best_suffix() -> str:
    """`.mp4` where ffmpeg is installed, else `.gif`."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return ".gif"
    return ".mp4"


def write_movie(path: Path | str, pictures: Iterable[np.ndarray], *, rate: float = FRAMES_PER_SECOND) -> int:
    """Write a movie, by the suffix MP4 (H.264, plays in browsers and slides) or GIF; it appears whole or not at all.

    An MP4 holds one picture at a time in memory; a GIF is reduced to 640 pixels and 256 colours and held as a whole.

    Args:
        path: Final name, `.mp4` or `.gif`.
        pictures: uint8 RGB (H, W, 3), all of one size, at least one.
        rate: Pictures a second.

    Returns:
        How many pictures were written.

    Raises:
        InputError: Another suffix, MP4 without ffmpeg, no picture, or one of another size.
    """
    path = Path(path)
    if path.suffix not in MOVIE_SUFFIXES:
        raise InputError(f"{path}: a movie is written as .mp4 or .gif, not as '{path.suffix}'.")
    if path.suffix == ".mp4" and best_suffix() != ".mp4":
        raise InputError(
            f"{path}: MP4 needs ffmpeg, which is not installed. Install it (pip install 'cellseg[movies]'), or write a "
            ".gif."
        )
    checked = _Checked(pictures, path)
    first = next(checked, None)
    if first is None:
        raise InputError(f"{path}: there is no picture. A movie has at least one.")
    with whole_file(path) as temporary:
        (_write_mp4 if path.suffix == ".mp4" else _write_gif)(temporary, first, checked, rate)
    return checked.count


class _Checked(Iterator[np.ndarray]):
    """Pictures, counted, each checked against the first."""

    def __init__(self, pictures: Iterable[np.ndarray], path: Path):
        self.pictures, self.path, self.count = iter(pictures), path, 0
        self.shape: tuple[int, ...] | None = None

    def __next__(self) -> np.ndarray:
        picture = next(self.pictures)
        self.shape = self.shape or picture.shape
        if picture.shape != self.shape:
            raise InputError(
                f"{self.path}: picture {self.count} has shape {picture.shape}, those before {self.shape}. The pictures "
                "of a movie must have one size."
            )
        self.count += 1
        return picture


def _write_mp4(path: Path, first: np.ndarray, others: Iterable[np.ndarray], rate: float) -> None:
    import imageio_ffmpeg

    # H.264 wants even sides; a line of black pixels is added, nothing is stretched.
    height, width = first.shape[:2]
    rim = ((0, height % 2), (0, width % 2), (0, 0))
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width + width % 2, height + height % 2),
        fps=rate,
        codec="libx264",
        macro_block_size=1,
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv420p",
        output_params=["-crf", str(QUALITY), "-preset", PRESET, "-movflags", "+faststart", "-f", "mp4"],
        quality=None,
        ffmpeg_log_level="error",
    )
    try:
        writer.send(None)
        for picture in chain([first], others):
            writer.send(np.ascontiguousarray(np.pad(picture, rim)))
    finally:
        writer.close()


def _write_gif(path: Path, first: np.ndarray, others: Iterable[np.ndarray], rate: float) -> None:
    shrink = min(1.0, GIF_SIDE / max(first.shape[:2]))
    size = max(1, round(first.shape[1] * shrink)), max(1, round(first.shape[0] * shrink))

    def reduced(picture: np.ndarray) -> Image.Image:
        small = picture if shrink == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return Image.fromarray(small).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)

    rest = (reduced(picture) for picture in others)
    reduced(first).save(path, save_all=True, append_images=rest, duration=round(1000 / rate), loop=0)
