import re

import cv2
import numpy as np
import pandas as pd
import pytest

from cellseg import pages, sequence_pictures
from cellseg.cli import shell
from cellseg.cli.track import track
from cellseg.following import track_folder
from cellseg.sequence_report import mean_speed
from pipelines.images import write_image, write_labels
from tests.cellseg.test_tracking import dividing, moving


def write(tmp_path, labels, images=True):
    for frame, one in enumerate(labels):
        write_labels(tmp_path / "labels" / f"mask{frame:03d}.tif", one)
        if images:
            write_image(tmp_path / "images" / f"t{frame:03d}.tif", np.where(one > 0, 3000, 1000).astype(np.uint16))
    return tmp_path / "labels"


def fact(text, name):
    return re.search(rf'<th scope="row">{re.escape(name)}</th><td class="n">([^<]*)</td>', text)[1]


def tile(text, name):
    return re.search(rf'<div class="tile">{name}<b>([^<]*)</b>', text)[1]


def test_numbers_pictures_and_movie_of_a_dividing_cell(tmp_path):
    labels = write(tmp_path, dividing())
    out = tmp_path / "out"
    track_folder(labels, out, images=tmp_path / "images", spacing_um=(0.5, 0.5), interval_s=120)
    text = (out / "report.html").read_text()
    tracks = pd.read_csv(out / "tracks.csv")
    speed = tracks["path_length_um"].sum() / tracks["duration_s"].sum()
    names = ("Frames", "Cells, all frames", "Tracks", "Divisions", "Mean speed")
    counts = [len(dividing()), len(pd.read_csv(out / "cells.csv")), len(tracks), 1]
    assert [tile(text, name) for name in names] == [*map(str, counts), f"{60 * speed:.3g} µm/min"]
    assert fact(text, "Divisions") == "1" and fact(text, "Pixel size") == "0.5 µm, as given"
    assert fact(text, "Area of a cell").endswith("µm²") and fact(text, "Fastest step of a track").endswith("µm/s")
    # Nothing comes from elsewhere.
    assert not re.findall(r'(?:src|href)="(?!data:)', text) and "<script" not in text
    movie = next(path for path in out.iterdir() if path.name.startswith("tracks.") and path.suffix != ".csv")
    if movie.suffix == ".mp4":
        assert '<video controls loop muted playsinline preload="metadata" src="data:video/mp4;base64,' in text
        read = cv2.VideoCapture(str(movie))
        assert int(read.get(cv2.CAP_PROP_FRAME_COUNT)) == len(dividing())
        read.release()
    # The first and the last frame, and that of the division.
    stills = sorted(path.name for path in (out / "pictures").glob("frame_*"))
    assert stills == ["frame_000.png", "frame_003.png", f"frame_{len(dividing()) - 1:03d}.png"]
    assert text.count("<img src=") == 4 + len(stills) + (movie.suffix == ".gif")


def test_all_frames_have_one_contrast(tmp_path, monkeypatch):
    seen = []

    class Painter(sequence_pictures.TrackPainter):
        def __init__(self, *arguments, **options):
            seen.append(options["limits"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(sequence_pictures, "TrackPainter", Painter)
    labels = write(tmp_path, moving())
    write_image(tmp_path / "images" / "t002.tif", np.full(moving()[0].shape, 1000, np.uint16))
    track_folder(labels, tmp_path / "out", images=tmp_path / "images")
    assert seen == [(1000, 3000)]


def test_a_large_movie_lies_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "EMBEDDED", 100)
    track_folder(write(tmp_path, moving(), images=False), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    movie = next(path.name for path in (tmp_path / "out").glob("tracks.*") if path.suffix in (".mp4", ".gif"))
    assert f'src="{movie}"' in text and f"Send it together with {movie}" in text
    assert "The images were not given, so the ground is black" in text
    assert "Pass --spacing-um Y X and --interval-s S to have micrometres and seconds" in text
    assert tile(text, "Mean speed").endswith("pixels/frame")


def test_without_ffmpeg_the_movie_is_a_gif(tmp_path, monkeypatch):
    monkeypatch.setattr(sequence_pictures, "best_suffix", lambda: ".gif")
    track_folder(write(tmp_path, moving(), images=False), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "tracks.gif").exists()
    assert '<img src="data:image/gif;base64,' in text and "<video" not in text


def test_names_cannot_become_markup(tmp_path):
    folder = tmp_path / "<script>alert(1)</script>"
    for frame in range(2):
        write_labels(folder / f"mask{frame:03d}.tif", np.zeros((9, 9), np.int32))
    track_folder(folder, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert tile(text, "Mean speed") == "–" and fact(text, "Frames without cells") == "2"


def test_the_command_without_a_report(tmp_path):
    arguments = [str(write(tmp_path, moving(), images=False)), "--out", str(tmp_path / "out"), "--no-report"]
    assert shell.run(track, arguments) == 0
    assert not {"report.html", "pictures", "tracks.mp4", "tracks.gif"} & {p.name for p in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out" / "msd.csv").exists()


def test_the_command_is_told_as_it_was_given(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/cellseg-track", "my labels", "--out", "x"])
    assert pages.command() == "cellseg-track 'my labels' --out x"
    monkeypatch.setattr("sys.argv", ["pytest"])
    assert pages.command() == ""


def test_mean_speed_is_path_over_time():
    table = pd.DataFrame({"path_length": [6.0, 0.0, 4.0], "duration": [3, 0, 1]})
    assert mean_speed(table) == (10 / 4, "pixels/frame")
    assert mean_speed(table.assign(path_length_um=table["path_length"] / 2, duration_s=table["duration"] * 10)) == (
        5 / 40,
        "µm/s",
    )
    assert np.isnan(mean_speed(table.iloc[1:2])[0])


@pytest.mark.parametrize("kind", [b"\x89PNG", "gif"])
def test_embedding(tmp_path, kind):
    if kind == "gif":
        kind = tmp_path / "a.gif"
        kind.write_bytes(b"GIF")
        assert pages.embedded(kind) == "data:image/gif;base64,R0lG"
    else:
        assert pages.embedded(kind) == "data:image/png;base64,iVBORw=="
