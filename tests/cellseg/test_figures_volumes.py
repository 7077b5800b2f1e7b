import cv2
import numpy as np
import pytest

from cellseg.figures.volumes import rendered_objects
from cellseg.meshes import object_meshes
from pipelines.preview import COLOURS


def drawn(boxes, *, shape=(20, 40, 40), **options):
    labels = np.zeros(shape, np.int32)
    for number, box in boxes.items():
        labels[box] = number
    png = rendered_objects(object_meshes(labels), extent=shape, unit="voxels", **options)
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def hues(picture):
    """How many coloured pixels have the hue of each of the palette's colours."""
    kinds = cv2.cvtColor(np.uint8([COLOURS]), cv2.COLOR_RGB2HSV)[0, :, 0].astype(int)
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(int)
    coloured = hsv[..., 0][hsv[..., 1] > 60]
    return [int((abs(coloured - kind) <= 3).sum()) for kind in kinds]


def block(z, row, column, side=10):
    return tuple(slice(start, start + side) for start in (z, row, column))


def test_an_object_has_its_colour_and_its_size():
    # Straight along z: 10 of 40 columns, of a picture 7.2 inches wide... 6 inches where the volume is as high as wide.
    picture = drawn({2: block(5, 5, 5)}, turn=0, tilt=0)
    counts = hues(picture)
    assert counts[2] == pytest.approx((10 / 40 * 6.0 * 150) ** 2, rel=0.1)
    assert sum(counts) == counts[2]


def test_the_nearer_object_hides_the_one_behind_it():
    front, behind = block(0, 10, 10, 8), block(12, 10, 10, 8)
    counts = hues(drawn({1: front, 2: behind}, turn=0, tilt=0))
    assert counts[1] > 1000
    assert counts[2] == 0
    # Seen from the side both show.
    assert min(hues(drawn({1: front, 2: behind}, turn=0, tilt=60))[1:3]) > 1000


def test_the_side_that_is_seen_is_the_lit_front():
    # The light comes from before the picture: the front is brighter than the shaded colour, the back not.
    picture = drawn({1: block(2, 10, 10, 16)}, turn=0, tilt=0)
    middle = picture[picture.shape[0] // 2 - 50 : picture.shape[0] // 2, picture.shape[1] // 2 - 150 :][:, :50]
    assert np.median(middle[..., 2]) > 0.75 * COLOURS[1][2]


def test_directions_are_those_of_the_sections():
    rows, columns = np.nonzero(drawn({1: block(5, 2, 28)}, turn=0, tilt=0)[60:-60, 10:-10].min(axis=2) < 100)
    # Row 2 is up, column 28 is right.
    assert rows.mean() < 400
    assert columns.mean() > 500


def test_an_empty_volume_is_a_frame():
    picture = drawn({})
    assert sum(hues(picture)) == 0
    assert (picture < 200).any()
