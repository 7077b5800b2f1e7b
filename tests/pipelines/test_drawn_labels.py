"""Truth that was drawn in Fiji or QuPath: the layout `pairs` takes it as it stands."""

import json
import pickle

import numpy as np
import pytest
import roifile
import tifffile

from cellseg.interchange import write_geojson, write_rois
from pipelines.drawn_labels import draw
from pipelines.errors import InputError
from pipelines.images import write_image, write_labels
from pipelines.sources.pairs import find
from tests.pipelines.test_outline_files import polygon, save


def cells(shape=(20, 30)):
    """Two cells, the first in two pieces, and numbered as a file of outlines has them."""
    labels = np.zeros(shape, np.int32)
    labels[1:4, 1:6] = labels[8:10, 20:25] = 1
    labels[12:18, 2:9] = 2
    return labels


def save_image(folder, name="a", pages=1):
    image = np.zeros((20, 30), np.uint8) if pages == 1 else np.zeros((pages, 20, 30, 1), np.uint8)
    write_image(folder / "images" / f"{name}.tif", image[..., None] if pages == 1 else image)
    (folder / "labels").mkdir(exist_ok=True)
    return folder / "labels"


@pytest.mark.parametrize("name", ["a_rois.zip", "a.zip", "a.geojson", "a_rois.geojson"])
def test_outlines_are_labels(tmp_path, name):
    labels = save_image(tmp_path)
    (write_geojson if name.endswith("json") else write_rois)(labels / name, cells())
    (item,) = find(tmp_path)
    assert item.name == "a" and item.files[1] == str(labels / name)
    # A cell in two pieces stays one, though ids of 1 alone would be a mask in a label image.
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(item)).load().labels, cells())
    (write_geojson if name.endswith("json") else write_rois)(labels / name, np.minimum(cells(), 1) * (cells() == 1))
    (item,) = find(tmp_path)
    np.testing.assert_array_equal(item.load().labels, cells() == 1)


def test_outlines_and_label_images_side_by_side(tmp_path):
    for name in "ab":
        labels = save_image(tmp_path, name)
    write_rois(labels / "a_rois.zip", cells())
    write_labels(labels / "b.tif", cells())
    (labels / "notes.zip").write_bytes(b"no image is called so")
    (labels / "b.json").write_text("{}")
    for item in find(tmp_path):
        np.testing.assert_array_equal(item.load().labels, cells())
    write_rois(labels / "b_rois.zip", cells())
    with pytest.raises(InputError, match=r"b.tif and b_rois.zip in .*labels are both for 'b'. Keep one"):
        find(tmp_path)
    (labels / "b.tif").unlink()
    write_geojson(labels / "b.geojson", cells())
    with pytest.raises(InputError, match=r"b.geojson and b_rois.zip in .*labels are both for 'b'"):
        find(tmp_path)
    (labels / "b.geojson").unlink()
    (labels / "a_rois.zip").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images have no labels in .*labels: a.tif"):
        find(tmp_path)


def test_a_stack_takes_outlines_by_position(tmp_path):
    labels = save_image(tmp_path, pages=3)
    stack = np.stack([cells(), 0 * cells(), np.where(cells() == 2, 1, 0)])
    write_rois(labels / "a.zip", stack)
    items = find(tmp_path)
    assert [item.name for item in items] == ["a/000", "a/001", "a/002"]
    for item, true in zip(items, stack, strict=True):
        np.testing.assert_array_equal(item.load().labels, true)


def test_which_page_an_outline_is_on_must_be_clear(tmp_path):
    labels = save_image(tmp_path, pages=3)
    save(labels / "a.zip", [polygon(1, 1, 5, 5, position=1), polygon(9, 9, 15, 15)])
    with pytest.raises(InputError, match=r"a.tif has 3 pages, and 1 outlines of .*a.zip do not say which of them"):
        find(tmp_path)
    save(labels / "a.zip", [polygon(1, 1, 5, 5, position=4)])
    with pytest.raises(InputError, match=r"a.zip holds outlines at position 4, but .*a.tif has 3 pages"):
        find(tmp_path)
    save_image(tmp_path)
    # Drawn on page 4 of a stack, of which this image was taken.
    np.testing.assert_array_equal(np.argwhere(find(tmp_path)[0].load().labels).min(axis=0), [1, 1])
    save(labels / "a.zip", [polygon(1, 1, 5, 5, position=page) for page in (1, 2)])
    with pytest.raises(InputError, match=r"a.zip holds outlines at 2 positions of a stack, but .*a.tif is one image"):
        find(tmp_path)


def save_hyperstack(folder, axes="TZYX"):
    """Two frames of three sections, as ImageJ saves them; without T and Z in `axes`, six pages."""
    sides = {"T": 2, "Z": 3, "C": 2, "I": 6, "Y": 20, "X": 30}
    image = np.zeros([sides[axis] for axis in axes], np.uint8)
    (folder / "images").mkdir()
    tifffile.imwrite(folder / "images" / "a.tif", image, imagej="I" not in axes, metadata={"axes": axes})
    (folder / "labels").mkdir()
    return folder / "labels"


@pytest.mark.parametrize("axes", ["TZYX", "TZCYX"])
def test_a_hyperstack_takes_outlines_by_frame_and_section(tmp_path, axes):
    labels = save_hyperstack(tmp_path, axes)
    places = [(1, 1), (1, 3), (2, 1), (2, 3)]
    save(labels / "a.zip", [polygon(t, z, 9, 9, t_position=t, z_position=z) for t, z in places])
    items = find(tmp_path)
    corners = [np.argwhere(item.load().labels).min(axis=0, initial=99).tolist() for item in items]
    nothing = [99, 99]
    assert corners == [[1, 1], nothing, [1, 3], [2, 1], nothing, [2, 3]]  # page (T - 1) * 3 + Z - 1


def test_frames_and_sections_that_an_image_does_not_have_are_refused(tmp_path):
    labels = save_hyperstack(tmp_path, "IYX")
    message = r"a\.tif has 6 pages, and its axes do not say which of them are frames and which sections, .*a\.zip .*'x'"
    for places in ([(2, 3)], [(2, 1), (1, 3)]):
        save(labels / "a.zip", [polygon(1, 1, 9, 9, t_position=t, z_position=z, name="x") for t, z in places])
        with pytest.raises(InputError, match=message):
            find(tmp_path)


def test_an_image_without_cells_and_one_without_areas(tmp_path):
    labels = save_image(tmp_path)
    write_rois(labels / "a.zip", 0 * cells())
    assert not find(tmp_path)[0].load().labels.any()
    spot = polygon(1, 1, 5, 5, name="spot", roitype=roifile.ROI_TYPE.POINT)
    save(labels / "a.zip", [spot])
    with pytest.raises(InputError, match=r"a.zip holds no area: 1 of its .* others, such as 'spot' \(point\)"):
        find(tmp_path)


@pytest.mark.parametrize("lost", [(30, 2, 40, 9), (5, 5, 9, 9), (15, 15, 15, 15.2)])
def test_a_cell_without_pixels_is_an_error(tmp_path, lost):
    # Outside of the image; drawn twice; a slip of the mouse.
    labels = save_image(tmp_path)
    rois = [polygon(0, 0, 3, 3), polygon(*lost), polygon(5, 5, 9, 9)]
    save(labels / "a.zip", rois)
    with pytest.raises(InputError, match=r"a.zip: 1 of 3 outlines have no pixel .* 20x30 pixels \(number 2 of the"):
        find(tmp_path)[0].load()


def test_the_later_one_is_on_top(tmp_path):
    save(tmp_path / "a.zip", [polygon(0, 0, 4, 4), polygon(2, 0, 6, 4)])
    labels = draw(tmp_path / "a.zip", None, (8, 8))
    assert (labels[:2, :4] == 1).all() and (labels[2:6, :4] == 2).all() and np.count_nonzero(labels) == 24


def test_a_file_that_was_written_again_is_read_again(tmp_path):
    write_rois(tmp_path / "a.zip", np.stack([cells(), cells()]))
    assert draw(tmp_path / "a.zip", 1, (20, 30)).max() == 2
    write_rois(tmp_path / "a.zip", np.stack([cells(), (cells() == 1).astype(np.int32)]))
    assert draw(tmp_path / "a.zip", 1, (20, 30)).max() == 1


def test_damage_names_the_file(tmp_path):
    labels = save_image(tmp_path)
    (labels / "a.geojson").write_text(json.dumps({"features": [{"geometry": 3}]}))
    with pytest.raises(InputError, match=r"a.geojson is no GeoJSON of cells"):
        find(tmp_path)
