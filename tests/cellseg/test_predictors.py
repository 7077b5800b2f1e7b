"""Detectors: networks that find cells one by one, brought to images of any size. Predictors: test_inference.py."""

import cv2
import numpy as np
import pytest

from cellseg.detections import draw
from cellseg.geometry import Tiling, tiling
from cellseg.predictors import Detector, LowContrastWarning, ManyCellsWarning
from pipelines.errors import InputError
from tests.runs import experiment


class Pieces:
    """A network that finds every connected bright piece of a tile, in its first channel; `rows` at most."""

    def __init__(self, rows=20):
        self.rows, self.tiles = rows, []

    def detect(self, tiles):
        """As Mask R-CNN's: masks of 28 x 28, the largest piece first."""
        assert tiles.shape[0] == 1
        self.tiles.append(tiles[0])
        count, pieces, found, _ = cv2.connectedComponentsWithStats((tiles[0, ..., 0] > 0.5).astype(np.uint8))
        order = np.argsort(-found[1:, cv2.CC_STAT_AREA]) + 1
        rows = self.rows
        boxes, masks = np.zeros((1, rows, 4), np.float32), np.zeros((1, rows, 28, 28), np.float32)
        scores, classes = np.zeros((1, rows), np.float32), np.zeros((1, rows), np.int32)
        for row, piece in enumerate(order[:rows]):
            left, top, width, height, _ = found[piece]
            boxes[0, row] = top, left, top + height, left + width
            own = (pieces[top : top + height, left : left + width] == piece).astype(np.float32)
            masks[0, row] = cv2.resize(own, (28, 28), interpolation=cv2.INTER_NEAREST)
            scores[0, row], classes[0, row] = 0.9 - row / 100, 1
        total = np.array([count - 1], np.int32)
        return {"boxes": boxes, "scores": scores, "classes": classes, "masks": masks, "found": total}


def detector(network=None, *, tile=32, overlap=16, **options):
    settings = {"channels": 1, "contrast": (0, 100), "minimum_range": {}} | options
    return Detector(network or Pieces(), tiling=Tiling(tile, tile, overlap), **settings)


def squares(height=70, width=90, *, side=6, step=13):
    """Labels and an image of bright squares, 7 px apart."""
    labels = np.zeros((height, width), np.int32)
    for row in range(2, height - side, step):
        for column in range(3, width - side, step):
            labels[row : row + side, column : column + side] = labels.max() + 1
    return labels, np.where(labels > 0, 200, 10).astype(np.uint8)[..., None]


@pytest.mark.parametrize("shape", [(32, 32), (70, 90), (33, 100), (20, 25), (7, 200)])
def test_every_cell_of_an_image_of_any_size_is_found_once(shape):
    labels, image = squares(*shape)
    found = detector().probability(image)
    np.testing.assert_array_equal(draw(found) > 0, labels > 0)
    assert draw(found).max() == labels.max() == len(found)


def test_all_tiles_have_one_shape_and_small_images_are_filled_up_with_their_mean():
    network = Pieces()
    _, image = squares(20, 25)
    detector(network).probability(image)
    (tile,) = network.tiles
    assert tile.shape == (32, 32, 1)
    np.testing.assert_allclose(tile[20:], tile[:20, :25].mean(), rtol=1e-5)


class Corner(Pieces):
    """Finds nothing but a cell in the lower left corner."""

    def detect(self, tiles):
        """See `Pieces`."""
        answer = super().detect(tiles)
        answer["classes"][:] = 0
        answer["boxes"][0, 0], answer["classes"][0, 0] = (22, 4, 30, 10), 1
        return answer


@pytest.mark.parametrize(("height", "cells"), [(20, 0), (32, 1)])
def test_what_is_found_in_the_filling_is_no_cell(height, cells):
    assert len(detector(Corner()).probability(squares(height, 25)[1])) == cells


def test_a_run_that_zooms_finds_the_same_cells_in_the_images_own_pixels():
    labels, image = squares(40, 40)
    found = detector(tile=96, zoom=(2.0,)).probability(image)
    np.testing.assert_array_equal(draw(found), labels)


def test_more_cells_than_a_tile_can_hold_are_told():
    _, image = squares(32, 32)
    with pytest.warns(ManyCellsWarning, match="4 cells were found in a tile of 32 px, and the 2 with the best scores"):
        found = detector(Pieces(rows=2)).probability(image)
    assert len(found) == 2


def test_dim_images_and_wrong_channels():
    image = np.random.default_rng(0).integers(0, 9, (20, 20, 1), dtype=np.uint8)
    with pytest.warns(LowContrastWarning, match="far below that of the training images"):
        detector(minimum_range={"uint8": 40.0}).probability(image)
    with pytest.raises(InputError, match="the image has 3 channels; this run was trained on 1"):
        detector().probability(np.zeros((8, 8, 3), np.uint8))


MODEL = {"name": "mask_rcnn"}


@pytest.mark.parametrize(
    ("inference", "shapes", "expected"),
    [
        ({}, [(64, 64)], Tiling(64, 64, 16)),
        ({}, [(250, 250)], Tiling(256, 256, 64)),
        ({"zoom": 2}, [(250, 250)], Tiling(512, 512, 64)),
        ({"tile": 128, "overlap": 50}, [(250, 250)], Tiling(128, 128, 50)),
    ],
)
def test_tiles_hold_the_image_where_they_can(inference, shapes, expected):
    assert tiling(experiment(model=MODEL, inference=inference), shapes=shapes) == expected


def test_a_tile_that_the_network_cannot_take():
    with pytest.raises(InputError, match="Mask R-CNN cannot take a 100x100 tile.*96 and 128"):
        tiling(experiment(model=MODEL, inference={"tile": 100}), shapes=[(250, 250)])
