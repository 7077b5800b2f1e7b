import json

import numpy as np
import pytest
import roifile

from cellseg.interchange import write_geojson, write_rois
from pipelines.outline_files import filled, read_geojson, read_rois
from pipelines.preview import COLOURS


def cells():
    """A plain cell, one with another in its hole, one in two pieces, and one of a single pixel in the corner."""
    labels = np.zeros((12, 17), np.int32)
    labels[1:4, 1:6] = 2
    labels[5:11, 2:9] = 7
    labels[7:9, 4:7] = 300
    labels[2:4, 10:13] = labels[6, 12] = 9
    labels[11, 16] = 4
    return labels


def from_rois(rois, shape):
    """Labels of ROIs as roifile reads them: (x, y) corners."""
    rings = {int(roi.name.split("-")[-1]): np_list(roi.coordinates(multi=True)) for roi in rois}
    return filled({cell: [[ring[:, ::-1] for ring in parts]] for cell, parts in rings.items()}, shape)


def np_list(coordinates):
    return coordinates if isinstance(coordinates, list) else [coordinates]


def from_geojson(path, shape):
    """Labels of a FeatureCollection as RFC 7946 says: (x, y), first corner repeated."""
    found = {}
    for feature in json.loads(path.read_text())["features"]:
        geometry = feature["geometry"]
        parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        assert all(ring[0] == ring[-1] for rings in parts for ring in rings)
        corners = [[np.array(ring)[:, ::-1] for ring in rings] for rings in parts]
        found[int(feature["properties"]["name"])] = corners
    return filled(found, shape)


def test_rois_select_the_pixels_of_the_cells(tmp_path):
    write_rois(tmp_path / "a.zip", cells())
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [roi.name for roi in rois] == ["2", "4", "7", "9", "300"]
    assert [roi.position for roi in rois] == [0] * 5
    traced, rectangle = roifile.ROI_TYPE.TRACED, roifile.ROI_TYPE.RECT
    assert [roi.roitype for roi in rois] == [traced, traced, rectangle, rectangle, traced]
    assert [roi.composite for roi in rois] == [False, False, True, True, False]
    np.testing.assert_array_equal(from_rois(rois, (12, 17)), cells())


def test_a_rois_box_is_that_of_its_pixels(tmp_path):
    write_rois(tmp_path / "a.zip", cells())
    boxes = {roi.name: (roi.top, roi.left, roi.bottom, roi.right) for roi in roifile.roiread(tmp_path / "a.zip")}
    assert boxes["2"] == (1, 1, 4, 6) and boxes["7"] == (5, 2, 11, 9) and boxes["4"] == (11, 16, 12, 17)


def test_the_path_of_a_composite_roi_is_imagejs(tmp_path):
    labels = np.array([[3, 0], [0, 3]], np.int32)
    write_rois(tmp_path / "a.zip", labels)
    (roi,) = roifile.roiread(tmp_path / "a.zip")
    first = [0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 4]  # move to (0, 0), lines to (1, 0), (1, 1), (0, 1), close
    second = [0, 1, 1, 1, 2, 1, 1, 2, 2, 1, 1, 2, 4]
    assert roi.multi_coordinates.tolist() == first + second
    assert roi.shape_roi_size == 26


def test_rois_of_a_stack_carry_their_page(tmp_path):
    stack = np.stack([cells(), np.zeros_like(cells()), np.where(cells() == 7, 7, 0)])
    write_rois(tmp_path / "s.zip", stack)
    rois = roifile.roiread(tmp_path / "s.zip")
    assert [roi.name for roi in rois] == ["0001-2", "0001-4", "0001-7", "0001-9", "0001-300", "0003-7"]
    assert [roi.position for roi in rois] == [1, 1, 1, 1, 1, 3]
    for page, labels in enumerate(stack, start=1):
        np.testing.assert_array_equal(from_rois([roi for roi in rois if roi.position == page], (12, 17)), labels)


def test_far_corners_are_kept(tmp_path):
    # ImageJ stores 16-bit corners; they go up to 60535 since the format's negative ones end at -5000.
    labels = np.zeros((2, 50_000), np.int32)
    labels[:, -3:] = 1
    write_rois(tmp_path / "a.zip", labels)
    (roi,) = roifile.roiread(tmp_path / "a.zip")
    assert sorted(map(tuple, roi.coordinates().tolist())) == [(49997, 0), (49997, 2), (50000, 0), (50000, 2)]


def test_geojson_polygons_are_the_cells(tmp_path):
    path = tmp_path / "a.geojson"
    write_geojson(path, cells())
    np.testing.assert_array_equal(from_geojson(path, (12, 17)), cells())
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    features = {feature["properties"]["name"]: feature for feature in collection["features"]}
    assert all(feature["type"] == "Feature" for feature in features.values())
    kinds = {name: feature["geometry"]["type"] for name, feature in features.items()}
    assert kinds == {"2": "Polygon", "4": "Polygon", "7": "Polygon", "9": "MultiPolygon", "300": "Polygon"}
    assert len(features["7"]["geometry"]["coordinates"]) == 2  # the outer ring and the hole
    assert features["4"]["geometry"]["coordinates"] == [[[16, 11], [17, 11], [17, 12], [16, 12], [16, 11]]]
    assert features["4"]["properties"] == {"objectType": "detection", "name": "4"}


def test_geojson_names_and_colours_the_classes(tmp_path):
    labels = cells()
    classes = np.select([labels == 2, labels == 9], [1, 2], 0).astype(np.int32)
    write_geojson(tmp_path / "a.geojson", labels, classes=classes, class_names=("round", "spindle-shaped"))
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    found = {f["properties"]["name"]: f["properties"].get("classification") for f in features}
    assert found["2"] == {"name": "round", "color": COLOURS[0].tolist()}
    assert found["9"] == {"name": "spindle-shaped", "color": COLOURS[1].tolist()}
    assert found["4"] is found["7"] is None


@pytest.mark.parametrize("write", [write_rois, write_geojson])
def test_the_same_labels_give_the_same_bytes(tmp_path, write):
    paths = [tmp_path / name for name in ("a.zip", "b.zip")]
    for path in paths:
        write(path, cells())
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_no_cells_give_empty_files(tmp_path):
    nothing = np.zeros((3, 4), np.int32)
    write_rois(tmp_path / "a.zip", nothing)
    write_geojson(tmp_path / "a.geojson", nothing)
    assert roifile.roiread(tmp_path / "a.zip") == []
    assert json.loads((tmp_path / "a.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


def renumbered(labels):
    return np.searchsorted(np.unique(labels), labels)


def test_rois_and_geojson_come_back_as_the_same_cells(tmp_path):
    write_rois(tmp_path / "a.zip", cells())
    write_geojson(tmp_path / "a.geojson", cells())
    for read in (read_rois(tmp_path / "a.zip"), read_geojson(tmp_path / "a.geojson")):
        labels, covered, hidden = read.labels(0, (12, 17))
        np.testing.assert_array_equal(labels, renumbered(cells()))
        assert (covered, hidden, read.passed_over, read.shape) == (0, 0, [], (12, 17))
        # A smaller image cuts cells off: the last pixel's cell is not there.
        assert read.labels(0, (10, 16))[2] == 1
