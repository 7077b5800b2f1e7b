"""Tracks over the images: cells outlined in the colour of their track, their paths, and where they divide.

Movies of these pictures are written in `cellseg.figures.movies`; plots of tracks live in `cellseg.figures.populations`.
"""

import colorsys
import math
from collections.abc import Iterable, Mapping

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cellseg.figures.canvas import DPI, pixels, png, put
from pipelines.preview import displayed, outline, resized
from pipelines.tracks import Track

Colour = tuple[int, int, int]
GOLDEN = 0.6180339887  # of a turn: hues of families that follow each other lie far apart
SHADES = (0.62, 0.50, 0.74)  # lightness of a founder, of the first daughter, of the next
DIMMED = 0.75
LARGE, HEAD = 7.2, 0.3  # inches
READABLE = 1000  # pixels that the longer side of a movie has at least
BEFORE, MARKED = 2, 4  # frames for which the parent of a division is marked, and then its daughters
RING = 4  # pixels of the image between a cell and its ring
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def track_colours(tracks: Mapping[int, Track]) -> dict[int, Colour]:
    """(R, G, B) of 255 for every track: a hue for each family, and a shade for the daughters of it.

    Args:
        tracks: Tracks by label.

    Returns:
        Track to colour, the same in every picture of the sequence.
    """
    hues: dict[int, float] = {}
    shades: dict[int, int] = {}
    founders = 0
    for label in sorted(tracks, key=lambda one: (tracks[one].begin, one)):
        parent = tracks[label].parent
        if parent in hues:
            # A little aside of the parent's hue, so that granddaughters differ as well.
            sisters = [other for other in shades if tracks[other].parent == parent]
            shades[label] = (shades[parent] + 1 + len(sisters)) % len(SHADES)
            hues[label] = hues[parent] + (0.025 if len(sisters) % 2 else -0.025)
        else:
            hues[label], shades[label] = founders * GOLDEN, 0
            founders += 1
    return {label: _rgb(hue, SHADES[shades[label]]) for label, hue in hues.items()}


class TrackPainter:
    """Draws frames of one sequence: outlines and paths in the colours of the tracks, divisions in white.

    A parent is ringed in the last two frames before it divides, so that the eye is there in time; then its daughters
    are, for four frames, with lines from where it was last seen.

    Args:
        cells: `cellseg.measuring.measure_cells`: frame, track, row, column, area.
        tracks: Tracks by label.
        limits: (low, high) of the contrast in the images' own values, the same for all frames; None = of each image.
        interval_s: Seconds between frames, for the clock.
        tail: Frames over which a cell's path is drawn behind it.
    """

    def __init__(
        self,
        cells: pd.DataFrame,
        tracks: Mapping[int, Track],
        *,
        limits: tuple[float, float] | None = None,
        interval_s: float | None = None,
        tail: int = 20,
    ):
        self.tracks, self.limits, self.interval_s, self.tail = tracks, limits, interval_s, tail
        self.colours = track_colours(tracks)
        kept = cells[cells["track"].isin(list(tracks))].sort_values(["track", "frame"])
        # A filled cell has none; a track begins with one that was seen.
        kept = kept.assign(area=kept["area"].ffill())
        labels, starts = np.unique(kept["track"].to_numpy(np.int64), return_index=True)
        parts = np.split(kept[["frame", "row", "column", "area"]].to_numpy(np.float64), starts[1:])
        self.paths: dict[int, np.ndarray] = dict(zip(labels.tolist(), parts, strict=False))
        families: dict[int, list[int]] = {}
        for label in self.paths:
            if tracks[label].parent in self.paths:
                families.setdefault(tracks[label].parent, []).append(label)
        self.divisions = {parent: ones for parent, ones in families.items() if len(ones) > 1}

    def frame(self, number: int, image: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """One frame.

        Args:
            number: Of the frame.
            image: (H, W, C), any dtype.
            labels: int (H, W), ids = tracks; None draws no outlines. Ids that are no track are drawn white.

        Returns:
            uint8 RGB, H x W times a whole number that makes small images readable.
        """
        height, width = image.shape[:2]
        factor = max(1, math.ceil(READABLE / max(height, width)))
        size = height * factor, width * factor
        picture = (DIMMED * resized(displayed(image, self.limits), size)).astype(np.uint8)
        if labels is not None:
            self._outline(picture, resized(labels.astype(np.int32), size))
        for label, path in self.paths.items():
            track = self.tracks[label]
            if track.begin <= number <= track.end:
                recent = path[(path[:, 0] <= number) & (path[:, 0] >= number - self.tail)]
                if track.parent in self.paths and track.begin > number - self.tail:
                    recent = np.concatenate([self.paths[track.parent][-1:], recent])
                _line(picture, recent[:, 1:3], self.colours[label], factor)
        self._mark_divisions(picture, number, factor)
        self._clock(picture, number)
        return picture

    def all_paths(self, image: np.ndarray, *, title: str = "") -> bytes:
        """The paths of all tracks on one image, a dot where each begins and a white ring where it divides.

        Args:
            image: (H, W, C), any dtype; usually the last frame.
            title: Stands above the picture.

        Returns:
            PNG.
        """
        height, width = image.shape[:2]
        scale = LARGE / max(height, width)
        size = pixels(height * scale, width * scale)
        picture = (DIMMED * resized(displayed(image, self.limits), size)).astype(np.uint8)
        factor = size[0] / height
        for label, path in self.paths.items():
            track = self.tracks[label]
            if track.parent in self.paths:
                path = np.concatenate([self.paths[track.parent][-1:], path])
            _line(picture, path[:, 1:3], self.colours[label], factor, thickness=2)
            if track.parent not in self.paths:
                cv2.circle(picture, _point(path[0, 1:3], factor), 4, self.colours[label], -1, cv2.LINE_AA)
        for parent in self.divisions:
            cv2.circle(picture, _point(self.paths[parent][-1, 1:3], factor), 6, WHITE, 1, cv2.LINE_AA)
        figure = Figure(figsize=(width * scale + 0.1, height * scale + HEAD + 0.05), dpi=DPI, facecolor="white")
        told = f"{len(self.paths)} tracks, {len(self.divisions)} divisions (white rings); dots: where cells appear"
        put(figure, picture, f"{title}: {told}" if title else told, 0.05, HEAD)
        return png(figure)

    def _outline(self, picture: np.ndarray, labels: np.ndarray) -> None:
        edge = outline(labels, thickness=2 if labels.size > 4e5 else 1)
        ids, places = np.unique(labels[edge], return_inverse=True)
        palette = np.array([self.colours.get(int(one), WHITE) for one in ids], np.uint8).reshape(-1, 3)
        picture[edge] = palette[places]

    def _mark_divisions(self, picture: np.ndarray, number: int, factor: float) -> None:
        for parent, ones in self.divisions.items():
            path, begins = self.paths[parent], [self.tracks[label].begin for label in ones]
            if min(begins) - BEFORE <= number < min(begins):
                self._ring(picture, path[path[:, 0] <= number][-1:], factor)
            born = [label for label, begin in zip(ones, begins, strict=True) if 0 <= number - begin < MARKED]
            places = [now[-1] for one in born if len(now := self.paths[one][self.paths[one][:, 0] <= number])]
            self._ring(picture, places, factor)
            for place in places:
                _line(picture, np.stack([path[-1], place])[:, 1:3], WHITE, factor)

    def _ring(self, picture: np.ndarray, places: Iterable[np.ndarray], factor: float) -> None:
        for place in places:
            radius = round(factor * (np.sqrt(place[3] / np.pi) + RING))
            cv2.circle(picture, _point(place[1:3], factor), radius, WHITE, 1, cv2.LINE_AA)

    def _clock(self, picture: np.ndarray, number: int) -> None:
        text = f"frame {number}"
        if self.interval_s is not None:
            minutes, seconds = divmod(round(number * self.interval_s), 60)
            hours, minutes = divmod(minutes, 60)
            text += (
                f"   {hours}:{minutes:02d} h"
                if self.interval_s >= 60
                else f"   {60 * hours + minutes}:{seconds:02d} min"
            )
        for colour, thickness in ((BLACK, 4), (WHITE, 1)):
            cv2.putText(picture, text, (10, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, thickness, cv2.LINE_AA)


def _rgb(hue: float, lightness: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _point(place: np.ndarray, factor: float) -> tuple[int, int]:
    return round((place[1] + 0.5) * factor), round((place[0] + 0.5) * factor)


def _line(picture: np.ndarray, places: np.ndarray, colour: Colour, factor: float, *, thickness: int = 1) -> None:
    if len(places) > 1:
        corners = np.rint((places[:, ::-1] + 0.5) * factor).astype(np.int32)
        cv2.polylines(picture, [corners], False, colour, thickness, cv2.LINE_AA)
