import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from cellseg.figures.movies import best_suffix, write_movie
from pipelines.errors import InputError


def pictures(count, shape=(48, 64), channel=0):
    for number in range(count):
        picture = np.zeros((*shape, 3), np.uint8)
        picture[:, : 8 * (number + 1), channel] = 250
        yield picture


def test_a_gif_has_every_picture_and_its_pace(tmp_path):
    path = tmp_path / "movies" / "cells.gif"
    assert write_movie(path, pictures(5), rate=5) == 5
    with Image.open(path) as movie:
        assert (movie.n_frames, movie.size, movie.info["duration"]) == (5, (64, 48), 200)
        for number in range(5):
            movie.seek(number)
            red = np.asarray(movie.convert("RGB"))[20, :, 0]
            assert (red > 200).sum() == 8 * (number + 1)
    assert [one.name for one in path.parent.iterdir()] == ["cells.gif"]


def test_a_large_gif_is_reduced(tmp_path):
    write_movie(tmp_path / "cells.gif", pictures(2, shape=(1000, 1280)))
    with Image.open(tmp_path / "cells.gif") as movie:
        assert movie.size == (640, 500)


@pytest.mark.parametrize("shape", [(48, 64), (47, 63)])
def test_an_mp4_has_every_picture(tmp_path, shape):
    pytest.importorskip("imageio_ffmpeg", reason="MP4 needs ffmpeg")
    path = tmp_path / "cells.mp4"
    assert write_movie(path, pictures(6, shape), rate=10) == 6
    movie = cv2.VideoCapture(str(path))
    assert (movie.get(cv2.CAP_PROP_FPS), int(movie.get(cv2.CAP_PROP_FOURCC))) == (10, cv2.VideoWriter.fourcc(*"h264"))
    frames = []
    while (read := movie.read())[0]:
        frames.append(read[1])
    movie.release()
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 6
    for number, frame in enumerate(frames):
        assert abs((frame[20, :, 2] > 125).sum() - 8 * (number + 1)) <= 1
    assert [one.name for one in tmp_path.iterdir()] == ["cells.mp4"]


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_an_interrupted_movie_leaves_no_file(tmp_path, suffix):
    def broken():
        yield from pictures(2)
        raise RuntimeError("the disk is full")

    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="MP4 needs ffmpeg")
    with pytest.raises(RuntimeError, match="the disk is full"):
        write_movie(tmp_path / f"cells{suffix}", broken())
    assert not list(tmp_path.iterdir())


def test_without_ffmpeg_there_are_gifs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert best_suffix() == ".gif"
    with pytest.raises(InputError, match=r"cells.mp4: MP4 needs ffmpeg.*pip install 'cellseg\[movies\]'"):
        write_movie(tmp_path / "cells.mp4", pictures(1))


def test_what_is_no_movie_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cells.avi: a movie is written as .mp4 or .gif, not as '.avi'"):
        write_movie(tmp_path / "cells.avi", pictures(1))
    with pytest.raises(InputError, match=r"cells.gif: there is no picture"):
        write_movie(tmp_path / "cells.gif", [])
    mixed = [*pictures(2), np.zeros((4, 5, 3), np.uint8)]
    with pytest.raises(InputError, match=r"picture 2 has shape \(4, 5, 3\), those before \(48, 64, 3\)"):
        write_movie(tmp_path / "cells.gif", mixed)
    assert not list(tmp_path.iterdir())
