import cv2
import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from pipelines.preview import COLOURS, contact_sheet, displayed, outline, resized, tinted, veiled
from pipelines.sample import Sample
from tests.cells import empty, one_cell, two_touching

pytestmark = pytest.mark.usefixtures("sharp_previews")


def sample(name="a", *, size=(40, 60), channels=1, dtype=np.uint8, labels=None):
    ramp = np.linspace(0, 200, size[0] * size[1] * channels).reshape(*size, channels).astype(dtype)
    if labels is None:
        labels = np.zeros(size, np.int32)
        labels[5:15, 5:15], labels[5:15, 15:30] = 1, 2
    return Sample(image=ramp, labels=labels, name=name)


def count(picture, colour):
    return int((picture == np.array(colour, np.uint8)).all(axis=-1).sum())


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def test_sheet_of_one_pair_shows_outlines_of_each_cell(tmp_path):
    contact_sheet([sample()], tmp_path / "preview.png", limits=[(0, 200)], splits=["train"])
    sheet = read(tmp_path / "preview.png")
    assert all(count(sheet, COLOURS[number]) > 100 for number in (1, 2))
    assert count(sheet, COLOURS[3]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]


def test_left_panel_is_the_image_alone(tmp_path):
    contact_sheet([sample()], tmp_path / "preview.png", limits=[(0, 200)])
    sheet = read(tmp_path / "preview.png")
    assert count(sheet[:, : sheet.shape[1] // 2], COLOURS[1]) == 0


def test_sheet_of_all_kinds_of_images(tmp_path):
    samples = [
        sample("grey"),
        sample("rgb", size=(30, 90), channels=3),
        sample("five", size=(90, 30), channels=5, dtype=np.uint16),
        sample("float", channels=2, dtype=np.float32),
        sample(
            "no cells $x_{1$ and a name that is much too long to be written over one picture",
            labels=empty(),
            size=(6, 8),
        ),
        Sample(image=np.zeros((7, 500, 1), np.uint8), labels=None, name="no labels, constant"),
    ]
    splits = ["train", "train", "train", "validation", "test", "test"]
    contact_sheet(samples, tmp_path / "preview.png", limits=[(0, 200)] * 5 + [(0, 0)], splits=splits)
    height, width, _ = read(tmp_path / "preview.png").shape
    assert width == pytest.approx(2058, abs=2)  # (2 * 0.2 + 2 * (2 * 3.2 + 0.06) + 0.4) inches at 150 dpi
    assert height > 1000


def test_of_many_samples_twelve_are_drawn_from_first_to_last(tmp_path):
    cells = np.where(np.arange(2400).reshape(40, 60) < 1200, 1, 0).astype(np.int32)
    many = [sample(str(i), labels=cells * {0: 1, 14: 2}.get(i, 0)) for i in range(15)]
    contact_sheet(many, tmp_path / "many.png", limits=[(0, 200)] * 15)
    contact_sheet(many[:12], tmp_path / "twelve.png", limits=[(0, 200)] * 12)
    sheet, twelve = read(tmp_path / "many.png"), read(tmp_path / "twelve.png")
    assert sheet.shape == twelve.shape
    assert count(sheet, COLOURS[1]) > 100 and count(sheet, COLOURS[2]) > 100
    assert count(twelve, COLOURS[2]) == 0  # the counting works: the last of the 15 is not there


def test_same_samples_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        contact_sheet([sample()], tmp_path / name, limits=[(0, 200)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("samples", "limits", "splits", "match"),
    [
        ([], [], None, "at least one sample.* got 0 samples"),
        ([sample()], [], None, "1 samples, 0 limits"),
        ([sample()], [(0, 1)], ["train", "test"], "1 limits and 2 splits"),
    ],
)
def test_numbers_that_differ_are_refused(tmp_path, samples, limits, splits, match):
    with pytest.raises(ValueError, match=match):
        contact_sheet(samples, tmp_path / "preview.png", limits=limits, splits=splits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_displayed_has_three_channels(channels):
    image = np.zeros((2, 2, channels), np.uint16)
    image[0, 0] = 1000
    shown = displayed(image, (0, 2000))
    assert shown.dtype == np.uint8
    # 1000 of 2000 is 127.5, rounded to even: 128. Two channels are red and green.
    assert shown[0, 0].tolist() == [128, 128, 0 if channels == 2 else 128]


def test_outline_keeps_a_line_for_each_touching_cell():
    # Cells of 4x3 pixels touch along columns 3 | 4: only the two inner pixels of the middle columns are no edge.
    labels = two_touching()
    inside = (labels > 0) & ~outline(labels)
    assert np.argwhere(inside).tolist() == [[2, 2], [2, 5], [3, 2], [3, 5]]


def test_the_outline_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    for _ in range(5):
        labels = np.kron(rng.integers(0, 4, (9, 11)), np.ones((3, 2), np.int32)).astype(np.int32)
        np.testing.assert_array_equal(outline(labels), find_boundaries(labels, mode="inner") & (labels > 0))


def test_thicker_outline_grows_inwards_only():
    labels = np.kron(one_cell(), np.ones((4, 4), np.int32))  # a square of 16x16
    edge = outline(labels, thickness=2)
    assert edge.sum() == 16**2 - 12**2
    assert not (edge & (labels == 0)).any()


def test_tinted_leaves_the_background_alone():
    picture = np.full((6, 8, 3), 100, np.uint8)
    labels = two_touching()
    out = tinted(picture, labels)
    assert (out[labels == 0] == 100).all()
    assert out[1, 1].tolist() == COLOURS[1].tolist()
    # Inside: 0.75 * 100 + 0.25 * colour of id 1, (86, 180, 233).
    assert out[2, 2].tolist() == [96, 120, 133]
    assert (picture == 100).all()


def test_tinted_without_cells_is_the_picture():
    picture = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    assert np.array_equal(tinted(picture, empty()), picture)


@pytest.mark.parametrize("size", [(12, 16), (3, 4), (6, 8)])
def test_resized_labels_invent_no_ids(size):
    labels = two_touching() * 70_000
    out = resized(labels, size)
    assert out.shape == size
    assert set(np.unique(out)) <= {0, 70_000, 140_000}
    if size == (12, 16):
        assert np.array_equal(out, np.kron(labels, np.ones((2, 2), np.int32)))


def test_resized_picture_keeps_its_mean_when_reduced():
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    assert resized(picture, (10, 10)).mean() == pytest.approx(picture.mean(), abs=1)


def test_unannotated_pixels_are_hatched_and_the_rest_is_left_alone():
    picture = np.full((16, 16, 3), 40, np.uint8)
    ignore = np.zeros((16, 16), bool)
    ignore[:8] = True
    out = veiled(picture, ignore)
    assert (out[8:] == 40).all() and set(np.unique(out[:8])) == {40, 100}  # half of 40, half of 160
    assert 0.4 < (out[:8] == 100).mean() < 0.6
