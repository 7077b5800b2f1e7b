"""Files of outlines that other programs have written; those that we write are tested in `test_interchange`."""

import json
import zipfile

import numpy as np
import pytest
import roifile

from cellseg.interchange import write_rois
from pipelines.errors import InputError
from pipelines.outline_files import read_geojson, read_outlines, read_rois


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


def test_positions_of_a_hyperstack_are_frames_or_sections(tmp_path):
    rois = [polygon(0, 0, 4, 4, t_position=3, z_position=1), polygon(0, 0, 4, 4, t_position=1, z_position=2)]
    rois.append(polygon(0, 0, 4, 4, position=5))
    save(tmp_path / "a.zip", rois)
    read = read_rois(tmp_path / "a.zip")
    assert list(read.pages) == [1, 2, 4] and read.unplaced == 0
    save(tmp_path / "b.zip", [polygon(0, 0, 4, 4)])
    assert (list(read_rois(tmp_path / "b.zip").pages), read_rois(tmp_path / "b.zip").unplaced) == ([0], 1)


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
