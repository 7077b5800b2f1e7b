"""Layout pairs: every image finds its labels, and every lonely file is named."""

import pickle

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from pipelines.errors import InputError
from pipelines.sources import SOURCES
from pipelines.sources.pairs import find, labels_of_mask

IMAGE = np.arange(30, dtype=np.uint8).reshape(5, 6)
LABELS = np.array([[0, 1, 1, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 7, 7]] * 3, np.uint16)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        imsave(path, array, check_contrast=False)


@pytest.mark.parametrize("label_name", ["a.tif", "a.png", "a_mask.tif", "a_masks.png", "a_label.tif", "a_labels.tif"])
@pytest.mark.parametrize("image_name", ["a.tif", "a.png", "a.bmp"])
def test_same_stem_whatever_type_and_suffix(tmp_path, image_name, label_name):
    save(tmp_path / "images" / image_name, IMAGE)
    save(tmp_path / "labels" / label_name, LABELS)
    (item,) = SOURCES["pairs"](tmp_path)
    assert (item.name, item.source, item.frame) == ("a", "", None)
    assert item.files == (str(tmp_path / "images" / image_name), str(tmp_path / "labels" / label_name))
    sample = pickle.loads(pickle.dumps(item)).load()
    assert sample.name == "a"
    assert np.array_equal(sample.image[..., 0], IMAGE)
    assert np.array_equal(sample.labels, LABELS)


def test_an_image_whose_own_name_ends_in_mask(tmp_path):
    for folder in ("images", "labels"):
        save(tmp_path / folder / "a_mask.tif", IMAGE)
    assert [item.name for item in find(tmp_path)] == ["a_mask"]


def test_folders_of_other_names(tmp_path):
    save(tmp_path / "raw" / "a.tif", IMAGE)
    save(tmp_path / "truth" / "a.tif", LABELS)
    for images, labels in (("raw", "truth"), (tmp_path / "raw", str(tmp_path / "truth"))):
        assert [item.name for item in find(tmp_path, images=images, labels=labels)] == ["a"]
    with pytest.raises(FileNotFoundError, match="There is no folder elsewhere, neither here nor in"):
        find(tmp_path, images="raw", labels="elsewhere")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere\. It should hold images/ and labels/"):
        find(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds neither labels/ nor masks/"):
        find(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*images\. The layout 'pairs' needs"):
        find(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"images holds no image"):
        find(tmp_path)
    save(tmp_path / "images" / "a.tif", IMAGE)
    with pytest.raises(InputError, match=r"labels holds no image"):
        find(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"holds both labels/ and masks/\. Say which is the truth with --labels DIR"):
        find(tmp_path)


def test_lonely_files_of_both_kinds_are_named_at_once(tmp_path):
    for i in range(8):
        save(tmp_path / "images" / f"image{i}.png", IMAGE)
    save(tmp_path / "labels" / "image0.tif", LABELS)
    save(tmp_path / "labels" / "other_mask.tif", LABELS)
    with pytest.raises(
        InputError,
        match=r"7 of 8 images have no labels in .*labels: image1\.png, image2\.png, .*image5\.png, \.\.\.; "
        r"1 of 2 label files have no image in .*images: other_mask\.tif\. An image and its labels",
    ):
        find(tmp_path)


@pytest.mark.parametrize(("images", "labels"), [(["a.tif", "a.png"], ["a.tif"]), (["a.tif"], ["a.tif", "a_mask.tif"])])
def test_two_files_for_one_stem(tmp_path, images, labels):
    for folder, names in {"images": images, "labels": labels}.items():
        for name in names:
            save(tmp_path / folder / name, IMAGE)
    doubled = "images" if len(images) == 2 else "labels"
    with pytest.raises(InputError, match=rf"a\.\w+ and a\w*\.tif in .*{doubled} are both for 'a'\. Keep one"):
        find(tmp_path)


def test_different_sizes_name_both_files(tmp_path):
    save(tmp_path / "images" / "a.png", IMAGE)
    save(tmp_path / "labels" / "a_mask.tif", LABELS[:4])
    (item,) = find(tmp_path)
    with pytest.raises(InputError, match=r"a: the image is 5x6 pixels, but its labels are 4x6.*a\.png, .*a_mask\.tif"):
        item.load()


def test_a_stack_gives_one_item_a_page(tmp_path):
    images = np.stack([IMAGE + i for i in range(3)])
    labels = np.stack([LABELS * i for i in range(3)])
    save(tmp_path / "images" / "s.tif", images)
    save(tmp_path / "labels" / "s.tif", labels)
    save(tmp_path / "images" / "a.png", IMAGE)
    save(tmp_path / "labels" / "a.png", IMAGE)
    items = find(tmp_path)
    assert [(item.name, item.source, item.frame) for item in items] == [
        ("a", "", None),
        ("s/000", "s", 0),
        ("s/001", "s", 1),
        ("s/002", "s", 2),
    ]
    sample = items[3].load()
    assert (sample.name, sample.source, sample.frame) == ("s/002", "s", 2)
    assert np.array_equal(sample.image[..., 0], images[2])
    assert np.array_equal(sample.labels, labels[2])


def test_stacks_of_different_lengths(tmp_path):
    save(tmp_path / "images" / "s.tif", np.stack([IMAGE] * 3))
    save(tmp_path / "labels" / "s.tif", np.stack([LABELS] * 2))
    with pytest.raises(InputError, match=r"images.s\.tif has 3 pages, but its labels .*s\.tif have 2"):
        find(tmp_path)


def test_no_pixels_are_read_to_find_pairs(tmp_path, monkeypatch):
    save(tmp_path / "images" / "s.tif", np.stack([IMAGE] * 3))
    save(tmp_path / "labels" / "s.tif", np.stack([LABELS] * 3))
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *_, **__: pytest.fail("pixels were read"))
    assert len(find(tmp_path)) == 3


# Masks: two blobs that touch by a corner, and one apart.
MASK = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1]], np.uint8)
COMPONENTS = [[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 2]]


@pytest.mark.parametrize("folder", ["masks", "labels"])
@pytest.mark.parametrize("kind", ["255.png", "255.tif", "bool.tif", "1.tif"])
def test_a_mask_becomes_its_components(tmp_path, folder, kind):
    value, _, suffix = kind.partition(".")
    array = MASK.astype(bool) if value == "bool" else MASK * int(value)
    save(tmp_path / "images" / "a.png", MASK)
    (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / folder / "a.tif", array) if suffix == "tif" else save(
        tmp_path / folder / "a.png", array
    )
    labels = find(tmp_path)[0].load().labels
    assert labels.tolist() == COMPONENTS
    assert labels.dtype == np.int32


def test_ones_are_a_mask_where_they_are_in_several_pieces():
    # One cell is one piece, also where its parts touch by a corner only.
    one_cell = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]], np.int32)
    assert labels_of_mask(one_cell) is one_cell
    two_pieces = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 0]], np.int32)
    assert labels_of_mask(two_pieces).tolist() == [[1, 1, 0, 0, 2], [0, 0, 1, 0, 0]]
    # With another id about, the image holds cells: two pieces of id 1 are one cell cut in two.
    cells = np.array([[1, 0, 1, 0, 2]], np.int32)
    assert labels_of_mask(cells) is cells


@pytest.mark.parametrize("values", [(0,), (0, 7), (0, 1, 255), (0, 1, 2)])
def test_ids_are_left_as_they_are(values):
    labels = np.array([values, values[::-1]], np.int32)
    assert labels_of_mask(labels) is labels


def test_more_cells_than_8_bits_can_number_are_found(tmp_path):
    # 300 single-pixel cells, numbered modulo 256: id 0 is lost and 1 to 43 stand for two cells each.
    labels = np.zeros((60, 60), np.uint8)
    labels[::2, ::2].flat[:300] = np.arange(1, 301) % 256
    for folder, array in (("images", np.zeros((60, 60), np.uint8)), ("labels", labels)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", array)
    (item,) = find(tmp_path)
    with pytest.raises(InputError, match=r"a.tif: all 255 ids that 8 bits.*299 separate pieces.*with 16 bits"):
        item.load()


def test_255_cells_in_floats_are_255_cells(tmp_path):
    labels = np.zeros((60, 60), np.float32)
    labels[::2, ::2].flat[:256] = [*range(1, 256), 255]
    for folder, array in (("images", np.zeros((60, 60), np.uint8)), ("labels", labels)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", array)
    (item,) = find(tmp_path)
    assert np.array_equal(item.load().labels, labels)


def test_exactly_255_cells_fit_8_bits(tmp_path):
    labels = np.zeros((60, 60), np.uint8)
    labels[::2, ::2].flat[:255] = np.arange(1, 256)
    for folder, array in (("images", np.zeros((60, 60), np.uint8)), ("labels", labels)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", array)
    (item,) = find(tmp_path)
    np.testing.assert_array_equal(item.load().labels, labels)


def test_255_cells_in_16_bits_may_be_in_pieces(tmp_path):
    labels = np.zeros((60, 60), np.uint16)
    labels[::2, ::2].flat[:255] = np.arange(1, 256)
    labels[59, 59] = 7
    for folder, array in (("images", np.zeros((60, 60), np.uint8)), ("labels", labels)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", array)
    (item,) = find(tmp_path)
    np.testing.assert_array_equal(item.load().labels, labels)


def test_a_relative_folder_lies_in_the_source_first(tmp_path, monkeypatch):
    for root in (tmp_path / "source", tmp_path / "here"):
        for folder in ("pictures", "labels"):
            save(root / folder / f"{root.name}.tif", IMAGE if folder == "pictures" else LABELS)
    monkeypatch.chdir(tmp_path / "here")
    (item,) = find(tmp_path / "source", images="pictures")
    assert item.name == "source"


def write_series(root, names, shape=(5, 6)):
    for value, name in enumerate(names):
        save(root / "images" / name, np.full(shape, value, np.uint8))
        save(root / "labels" / name, np.full(shape, value + 1, np.uint8))


def test_numbered_files_are_frames_of_a_series(tmp_path):
    write_series(tmp_path, ["b-10.png", "b-9.png", "well 3_007.tif", "004.png", "5.png"])
    items = find(tmp_path, series=True)
    assert [(item.name, item.source, item.frame) for item in items] == [
        ("b/009", "b", 9),
        ("b/010", "b", 10),
        (f"{tmp_path.name}/004", tmp_path.name, 4),
        (f"{tmp_path.name}/005", tmp_path.name, 5),
        ("well 3/007", "well 3", 7),
    ]
    sample = pickle.loads(pickle.dumps(items[1])).load()
    assert (sample.name, sample.source, sample.frame) == ("b/010", "b", 10)
    assert (sample.image[0, 0, 0], sample.labels[0, 0]) == (0, 1)
    assert items[1].files == (str(tmp_path / "images" / "b-10.png"), str(tmp_path / "labels" / "b-10.png"))
    # Without the option every file stands for itself.
    assert [(item.name, item.source, item.frame) for item in find(tmp_path)][-1] == ("well 3_007", "", None)


def test_labels_of_a_series_may_have_their_suffix(tmp_path):
    write_series(tmp_path, ["a1.png", "a2.png"])
    for number in (1, 2):
        (tmp_path / "labels" / f"a{number}.png").rename(tmp_path / "labels" / f"a{number}_mask.png")
    assert [(item.source, item.frame) for item in find(tmp_path, series=True)] == [("a", 1), ("a", 2)]


def test_frames_above_999_sort_by_name(tmp_path):
    write_series(tmp_path, ["a7.png", "a1000.png"], (2, 2))
    assert [item.name for item in find(tmp_path, series=True)] == ["a/0007", "a/1000"]


def test_times_are_no_frames_of_a_series(tmp_path):
    write_series(tmp_path, ["a_20240101120000.png"])
    with pytest.raises(InputError, match=r"a_20240101120000\.png: 20240101120000 in its name is no number of a frame"):
        find(tmp_path, series=True)


def test_files_that_are_no_series(tmp_path):
    write_series(tmp_path, ["a_1.png", "a_2.png"])
    save(tmp_path / "images" / "b.png", IMAGE)
    save(tmp_path / "labels" / "b.png", LABELS)
    with pytest.raises(
        InputError, match=r"images.b\.png has no number at the end of its name\. With series: true every"
    ):
        find(tmp_path, series=True)
    for folder in ("images", "labels"):
        (tmp_path / folder / "b.png").rename(tmp_path / folder / "a-02.png")
    with pytest.raises(InputError, match=r"a-02\.png and .*a_2\.png are both frame 2 of the series 'a'\. Rename one"):
        find(tmp_path, series=True)
    for folder in ("images", "labels"):
        (tmp_path / folder / "a-02.png").unlink()
        save(tmp_path / folder / "a_3.tif", np.stack([IMAGE] * 2))
    with pytest.raises(InputError, match=r"images.a_3\.tif holds 2 pages\. With series: true every file is one frame"):
        find(tmp_path, series=True)


# OME-TIFF: axes, number of pages, channels, and which of the values 0, 1, 2, ... lies at the first pixel of which.
OME = {
    "TCYX": ((3, 2), 3, lambda page, channel: 2 * page + channel),
    "CTYX": ((2, 3), 3, lambda page, channel: 3 * channel + page),
    "TZCYX": ((2, 2, 2), 4, lambda page, channel: 2 * page + channel),
    "ZYX": ((4,), 4, lambda page, channel: page),
    "CYX": ((5,), 1, lambda page, channel: channel),
    "YX": ((), 1, lambda page, channel: 0),
}


@pytest.mark.parametrize("axes", OME)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_axes_are_pages_and_channels(tmp_path, axes, compression):
    sides, pages, value = OME[axes]
    planes = np.arange(np.prod(sides, dtype=int), dtype=np.uint16).reshape(*sides, 1, 1)
    array = (planes * 100 + np.zeros((5, 6), np.uint16)).astype(np.uint16)
    (tmp_path / "images").mkdir()
    options = {"photometric": "minisblack", "compression": compression, "metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "images" / "a.ome.tif", array.reshape(*sides, 5, 6), ome=True, **options)
    save(tmp_path / "labels" / "a.tif", np.stack([LABELS] * pages))
    samples = [item.load() for item in find(tmp_path)]
    channels = sides[axes.index("C")] if "C" in axes else 1
    assert [sample.frame for sample in samples] == ([None] if pages == 1 else list(range(pages)))
    for page, sample in enumerate(samples):
        assert sample.image.shape == (5, 6, channels) and sample.image.dtype == np.uint16
        assert sample.image[0, 0].tolist() == [100 * value(page, channel) for channel in range(channels)]


@pytest.mark.parametrize(
    ("sizes", "spacing_um"),
    [
        (
            {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"},
            (0.5, 0.25),
        ),
        (
            {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"},
            (0.5, 0.25),
        ),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}, (0.5, 0.25)),  # OME's unit is µm where none is given
        ({}, None),
    ],
)
@pytest.mark.parametrize("axes", ["ZYX", "CYX"])
def test_ome_pixel_size(tmp_path, axes, sizes, spacing_um):
    stack = np.stack([IMAGE] * 3)
    (tmp_path / "images").mkdir()
    metadata = {"axes": axes, **sizes}
    tifffile.imwrite(tmp_path / "images" / "a.ome.tif", stack, ome=True, photometric="minisblack", metadata=metadata)
    save(tmp_path / "labels" / "a.tif", np.stack([LABELS] * (3 if axes == "ZYX" else 1)))
    assert find(tmp_path)[-1].load().spacing_um == (spacing_um and pytest.approx(spacing_um))


@pytest.mark.parametrize("label_name", ["a.tif", "a_mask.tif", "a.ome.tif", "a_labels.ome.tif", "a_mask.OME.TIF"])
def test_ome_is_no_part_of_the_name(tmp_path, label_name):
    for path in (tmp_path / "images" / "a.ome.tif", tmp_path / "labels" / label_name):
        path.parent.mkdir()
        tifffile.imwrite(path, LABELS, photometric="minisblack")
    assert [item.name for item in find(tmp_path)] == ["a"]
    save(tmp_path / "images" / "a.tif", IMAGE)
    with pytest.raises(InputError, match=r"a\.ome\.tif and a\.tif in .*images are both for 'a'"):
        find(tmp_path)
