"""Files of outlines that other programs have written; those that we write are tested in `test_interchange`."""

import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import roifile

from cellseg.interchange import write_rois
from pipelines import outline_files
from pipelines.errors import InputError
from pipelines.outline_files import filled, read_geojson, read_outlines, read_rois


def cells():
    """Three cells, numbered in the order of a file; the last one reaches the far corner."""
    labels = np.zeros((12, 17), np.int32)
    labels[1:4, 1:6] = 1
    labels[5:11, 2:9] = 2
    labels[11, 16] = 3
    return labels


def corners(top, left, bottom, right):
    """A rectangle as ImageJ and QuPath say it: x before y."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def polygon(*box, position=0, name="", **options):
    roi = roifile.ImagejRoi.frompoints(corners(*box), name=name)
    roi.position = position
    for option, value in options.items():
        setattr(roi, option, value)
    return roi


def save(path, rois):
    """A ROI set whose entries are called by their number."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, roi in enumerate(rois):
            archive.writestr(f"{number}.roi", roi.tobytes())


def test_positions_are_pages(tmp_path):
    write_rois(tmp_path / "a.zip", np.array([cells(), 0 * cells(), cells()]))
    read = read_rois(tmp_path / "a.zip")
    assert list(read.pages) == [0, 2]
    np.testing.assert_array_equal(read.labels(2, (12, 17))[0], cells())
    assert read.labels(1, (12, 17))[0].max() == 0


def test_rectangles_and_ovals_are_areas_and_points_are_not(tmp_path):
    box = dict(top=2, left=3, bottom=8, right=11)
    rois = [
        roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, name="box", **box),
        roifile.ImagejRoi.frompoints([[1, 1]], name="spot"),
        roifile.ImagejRoi(roitype=roifile.ROI_TYPE.OVAL, name="oval", top=20, left=20, bottom=40, right=50),
    ]
    rois[1].roitype = roifile.ROI_TYPE.POINT
    save(tmp_path / "a.zip", rois)
    read = read_rois(tmp_path / "a.zip")
    assert read.passed_over == [("spot", "point")]
    labels, _, _ = read.labels(0, (60, 60))
    assert (labels[2:8, 3:11] == 1).all() and np.count_nonzero(labels == 1) == 6 * 8
    # The area of an ellipse with half axes 10 and 15, to a few pixels of its outline.
    assert np.count_nonzero(labels == 2) == pytest.approx(np.pi * 10 * 15, abs=8)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": [{"geometry": 3}]}')
    with pytest.raises(InputError, match="a.zip is no ROI set of ImageJ"):
        read_rois(tmp_path / "a.zip")
    with pytest.raises(InputError, match="a.geojson is no GeoJSON of cells"):
        read_geojson(tmp_path / "a.geojson")
    with pytest.raises(FileNotFoundError, match="b.zip"):
        read_rois(tmp_path / "b.zip")
    with pytest.raises(FileNotFoundError, match="b.geojson"):
        read_geojson(tmp_path / "b.geojson")


def square(t, z, **options):
    return polygon(0, 0, 4, 4, t_position=t, z_position=z, **options)


def test_positions_where_one_axis_counts(tmp_path):
    save(tmp_path / "t.zip", [square(3, 1), square(1, 1)])
    save(tmp_path / "z.zip", [square(1, 2), square(1, 4), polygon(0, 0, 4, 4, position=5)])
    assert list(read_rois(tmp_path / "t.zip").pages) == [0, 2]
    read = read_rois(tmp_path / "z.zip")
    assert (list(read.pages), read.unplaced, read.unclear) == ([1, 3, 4], 0, "")
    # In ImageJ frames of a file may have been sections: the one axis that there is counts.
    assert list(read_rois(tmp_path / "z.zip", axes=(("T", 6),)).pages) == [1, 3, 4]
    save(tmp_path / "b.zip", [polygon(0, 0, 4, 4)])
    assert (list(read_rois(tmp_path / "b.zip").pages), read_rois(tmp_path / "b.zip").unplaced) == ([0], 1)


def test_positions_where_frames_and_sections_count(tmp_path):
    rois = [square(t, z) for t, z in ((2, 1), (1, 3), (2, 3), (1, 1))]
    save(tmp_path / "a.zip", [*rois, polygon(0, 0, 4, 4, position=5)])
    # Page = (T - 1) * 3 + Z - 1 of two frames of three sections; the other way round (Z - 1) * 2 + T - 1.
    assert list(read_rois(tmp_path / "a.zip", axes=(("T", 2), ("Z", 3))).pages) == [0, 2, 3, 4, 5]
    save(tmp_path / "a.zip", rois)
    assert list(read_rois(tmp_path / "a.zip", axes=(("Z", 3), ("T", 2))).pages) == [0, 1, 4, 5]
    save(tmp_path / "b.zip", [square(2, 0)])  # on all sections of a frame
    read = read_rois(tmp_path / "b.zip", axes=(("T", 2), ("Z", 3)))
    assert (list(read.pages), read.unplaced) == ([0], 1)
    save(tmp_path / "c.zip", [square(1, 1), square(2, 4, name="far")])
    message = (
        r"c\.zip: 'far' is at frame 2 and section 4, but its image has 2 frames of 3 sections. Are they of another"
    )
    with pytest.raises(InputError, match=message):
        read_rois(tmp_path / "c.zip", axes=(("T", 2), ("Z", 3)))


@pytest.mark.parametrize("axes", [(), (("T", 6),)])
def test_positions_in_frames_and_sections_of_an_image_without_them(tmp_path, axes):
    for places in ([(2, 3)], [(2, 1), (1, 3)]):
        save(tmp_path / "a.zip", [square(t, z, name=f"{t}-{z}") for t, z in places])
        read = read_rois(tmp_path / "a.zip", axes=axes)
        assert (len(read.pages), read.unclear) == (len(places), f"{places[0][0]}-{places[0][1]}")  # none fall together


def test_names_in_a_zip_are_no_paths(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    content = polygon(2, 3, 8, 11).tobytes()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("../outside.roi", content)
        archive.writestr("/absolute.roi", content)
        archive.writestr("__MACOSX/._outside.roi", b"not a ROI")  # macOS puts such files in
        archive.writestr("empty/", b"")
    read = read_rois(folder / "a.zip")
    assert len(read.pages[0]) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "inner"]


def test_the_suffix_says_what_a_file_is(tmp_path):
    (tmp_path / "a.roi").write_bytes(polygon(2, 3, 8, 11).tobytes())
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners(2, 3, 8, 11)]}}
    (tmp_path / "a.geojson").write_text(json.dumps(feature))
    (tmp_path / "A.JSON").write_text(json.dumps([feature]))
    for name in ("a.roi", "a.geojson", "A.JSON"):
        labels, _, _ = read_outlines(tmp_path / name).labels(0, (12, 17))
        assert (labels[2:8, 3:11] == 1).all() and np.count_nonzero(labels) == 6 * 8


def test_a_zip_of_other_things_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"x" * 100)
    with pytest.raises(InputError, match="a.zip is no ROI set of ImageJ .*not an ImageJ ROI.*More > Save"):
        read_rois(tmp_path / "a.zip")


def test_a_polygon_of_many_sides_takes_bounded_memory():
    rows = np.where(np.arange(4000) % 2, 1500.0, 0.0)
    zigzag = np.stack([rows, np.random.default_rng(3).uniform(0, 1000, 4000)], axis=1)
    tracemalloc.start()
    labels = filled({1: [[zigzag]]}, (1500, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # six million crossings of rows; all at once they take 480 MB
    # A row is crossed 4000 times anywhere in it: half of its pixels have an odd number to their left.
    assert 0.4 < labels.mean() < 0.6


def test_blocks_of_sides_are_as_all_at_once(monkeypatch):
    rng = np.random.default_rng(5)
    polygons = {cell: [[rng.uniform(-5, 45, (30, 2)), rng.uniform(5, 20, (8, 2))]] for cell in range(1, 9)}
    whole = filled(polygons, (40, 37))
    for most in (1, 17, 200):
        monkeypatch.setattr(outline_files, "MOST_CROSSINGS", most)
        np.testing.assert_array_equal(filled(polygons, (40, 37)), whole)


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        ('{"type": "MultiPolygon", "coordinates": [[[[1,1],[5,1],[5,5],[1,1]]],[]]}', "a polygon has no ring"),
        ('{"type": "Polygon", "coordinates": []}', "a polygon has no ring"),
        ('{"type": "Polygon", "coordinates": [[]]}', r"a ring is no list of \[x, y\]"),
        ('{"type": "Polygon", "coordinates": [[[1]]]}', r"a ring is no list of \[x, y\]"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', r"a ring is no list of \[x, y\]"),
        ('{"type": "Polygon", "coordinates": [[[[1, 2]]]]}', r"a ring is no list of \[x, y\]"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3]]]}', "ValueError"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, null], [4, 5]]]}', "a corner lies beyond any image"),
        (f'{{"type": "Polygon", "coordinates": [[[1, 2], [{"9" * 400}, 5], [3, 4]]]}}', "OverflowError"),
    ],
)
def test_a_polygon_that_is_none_is_refused(tmp_path, geometry, reason):
    (tmp_path / "a.geojson").write_text(geometry)
    with pytest.raises(InputError, match=rf"a\.geojson is no GeoJSON of cells \(.*{reason}.*Export it from QuPath"):
        read_geojson(tmp_path / "a.geojson")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners(2, 3, 8, 11)]}}
    (tmp_path / "a.geojson").write_text(json.dumps(feature), encoding="utf-8-sig")
    assert read_geojson(tmp_path / "a.geojson").labels(0, (12, 17))[0].sum() == 6 * 8


@pytest.mark.parametrize("corner", [np.nan, 1e30, -np.inf, 2.0**20])
def test_a_roi_beyond_any_image_is_refused(tmp_path, corner):
    points = np.array([[1, 1], [9, 1], [9, 9]], np.float32)
    roi = roifile.ImagejRoi.frompoints(points + np.float32(0.25))
    roi.subpixel_coordinates[1, 0] = corner
    (tmp_path / "a.roi").write_bytes(roi.tobytes())
    with pytest.raises(
        InputError, match=r"a\.roi is no ROI set of ImageJ \(ValueError: a corner lies beyond any image"
    ):
        read_rois(tmp_path / "a.roi")
    path = np.array([0, 1, 1, 1, corner, 1, 1, 9, 9, 4], np.float32)  # of a composite one
    composite = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, multi_coordinates=path, shape_roi_size=len(path))
    save(tmp_path / "b.zip", [composite])
    with pytest.raises(
        InputError, match=r"b\.zip is no ROI set of ImageJ \(ValueError: a corner lies beyond any image"
    ):
        read_rois(tmp_path / "b.zip")
