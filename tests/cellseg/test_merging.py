import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cellseg.instances import INSTANCES
from cellseg.merging import Limits, label_rows
from pipelines.errors import InputError

MASK = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))
PROPERTY = settings(max_examples=150, derandomize=True, deadline=None)
EVERYTHING = 10**9


def streamed(
    probability, folder, *, rows, name="components", piece=EVERYTHING, say=lambda text: None, inner=None, **options
):
    """Labels by strips, and from them again by other strips."""
    options = {"threshold": 0.5, **options}
    labelled = label_rows(
        lambda first, end: probability[first:end],
        probability.shape,
        folder,
        name=name,
        options=options,
        limits=Limits(rows, piece),
        inner=None if inner is None else lambda rows, columns: inner[rows, columns],
        say=say,
    )
    labels = np.concatenate([labelled.rows(first, first + 7) for first in range(0, len(probability), 7)])
    labelled.provisional.remove()
    (folder / "background").unlink(missing_ok=True)
    assert labels.dtype == np.int32 and labels.max() == labelled.num_cells
    return labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("merging")


@PROPERTY
@given(MASK, st.integers(1, 5), st.sampled_from([4, 8]), st.booleans(), st.sampled_from([0, 3]))
def test_components_by_strips_are_those_of_the_whole(folder, mask, rows, connectivity, fill_holes, min_size):
    options = {"connectivity": connectivity, "fill_holes": fill_holes, "min_size": min_size}
    probability = mask.astype(np.float32)
    expected = INSTANCES["components"](probability, **options)
    np.testing.assert_array_equal(streamed(probability, folder, rows=rows, **options), expected)


@PROPERTY
@given(MASK, st.integers(1, 5), st.booleans(), st.sampled_from([0, 3]), st.sampled_from([0.0, 1.0]))
def test_watershed_by_strips_is_that_of_the_whole(folder, mask, rows, fill_holes, min_size, sigma):
    options = {"fill_holes": fill_holes, "min_size": min_size, "sigma": sigma, "depth": 0.3}
    probability = mask.astype(np.float32)
    expected = INSTANCES["watershed"](probability, **options)
    np.testing.assert_array_equal(streamed(probability, folder, rows=rows, name="watershed", **options), expected)


@PROPERTY
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 8)),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from([0, 3]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from(["keep", "drop"]),
    st.integers(0, 4),
)
def test_seeded_by_strips_is_that_of_the_whole(folder, eighths, rows, fill_holes, min_size, sigma, border, margin):
    options = {"fill_holes": fill_holes, "min_size": min_size, "sigma": sigma, "border": border, "margin": margin}
    options["threshold"] = 0.3
    inner = (eighths / 8).astype(np.float32)
    expected = INSTANCES["seeded"](inner, inner, **options)
    np.testing.assert_array_equal(streamed(inner, folder, rows=rows, name="seeded", inner=inner, **options), expected)


@pytest.mark.parametrize("border", ["keep", "drop"])
@pytest.mark.parametrize("rows", [1, 7, 64, 300])
def test_touching_cells_with_their_insides_by_strips(tmp_path, rows, border):
    noise = ndimage.gaussian_filter(np.random.default_rng(5).random((300, 500)), 3)
    inner = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    options = {"threshold": 0.45, "sigma": 1.5, "min_size": 10, "border": border}
    expected = INSTANCES["seeded"](inner, inner, **options)
    assert expected.max() > INSTANCES["components"](inner, threshold=0.45, min_size=10, border=border).max() + 50
    found = streamed(inner, tmp_path, rows=rows, name="seeded", inner=inner, **options)
    np.testing.assert_array_equal(found, expected)


def discs(seed, shape=(300, 500)):
    """Discs that touch and overlap, some at the border."""
    rng, mask = np.random.default_rng(seed), np.zeros(shape, bool)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(150):
        row, column, radius = rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.integers(2, 14)
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return mask


def snake(shape=(300, 500)):
    """One path of 3 px through the whole image."""
    mask = np.zeros(shape, bool)
    for number, row in enumerate(range(2, shape[0] - 12, 10)):
        mask[row : row + 3, 2:-2] = True
        end = slice(2, 5) if number % 2 else slice(-5, -2)
        mask[row : row + 13, end] = True
    return mask


def rings(shape=(300, 500)):
    """Rings inside rings, with a cell in the middle: holes of holes."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    distance = np.maximum(abs(rows - shape[0] // 2), abs(columns - shape[1] // 2))
    return (distance // 9 % 2 == 0) & (distance < 140)


def comb(shape=(300, 500)):
    """Teeth that are joined in the last row alone: one piece, known only at the end."""
    mask = np.zeros(shape, bool)
    mask[:, ::4] = mask[-1] = True
    return mask


SCENES = {
    "discs": discs(0),
    "more discs": discs(1),
    "snake": snake(),
    "rings": rings(),
    "comb": comb(),
    "noise": np.random.default_rng(2).random((300, 500)) > 0.6,
    "nothing": np.zeros((300, 500), bool),
    "everything": np.ones((300, 500), bool),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("components", {}),
        ("components", {"connectivity": 4, "fill_holes": True, "min_size": 20}),
        ("components", {"border": "drop"}),
        ("components", {"margin": 70}),  # more than a strip
        ("watershed", {"min_size": 20}),
        ("watershed", {"fill_holes": True, "sigma": 2.0, "border": "drop"}),
    ],
)
def test_scenes_by_strips_are_those_of_the_whole(tmp_path, scene, name, options):
    probability = SCENES[scene].astype(np.float32)
    expected = INSTANCES[name](probability, **options)
    np.testing.assert_array_equal(streamed(probability, tmp_path, rows=64, name=name, **options), expected)


def test_the_threshold_is_included(tmp_path):
    probability = np.array([[0.5, 0.0], [0.0, 0.0], [0.49, 0.51]], np.float32)
    assert streamed(probability, tmp_path, rows=1, threshold=0.5).tolist() == [[1, 0], [0, 0], [0, 2]]


def test_a_piece_too_large_for_the_memory_stays_whole_and_is_told(tmp_path):
    mask = np.zeros((60, 90), np.float32)
    rows, columns = np.mgrid[:60, :90]
    for row, column in ((12, 12), (12, 28), (45, 20), (45, 45), (45, 70)):
        mask[(rows - row) ** 2 + (columns - column) ** 2 <= 100] = 1
    mask[44:47, 20:70] = 1
    said = []
    labels = streamed(mask, tmp_path, rows=16, name="watershed", piece=2000, say=said.append)
    whole = INSTANCES["watershed"](mask)
    assert whole.max() == 5 and labels.max() == 3  # the pair of discs is cut; the three in a row are 79 px long
    np.testing.assert_array_equal(labels[:30], whole[:30])
    assert said == [
        "1 of 2 connected pieces of foreground are too large to be cut into cells within --memory (more than 2000 "
        "pixels with their surroundings); each was left as one cell."
    ]


def test_nan_and_options_are_refused(tmp_path):
    with pytest.raises(InputError, match="2 pixels of the probability are NaN"):
        streamed(np.array([[0.0, 0.0], [np.nan, np.nan]], np.float32), tmp_path, rows=1)
    with pytest.raises(InputError, match="connectivity must be 4 or 8, got 6"):
        streamed(np.zeros((2, 2), np.float32), tmp_path, rows=1, connectivity=6)
    with pytest.raises(InputError, match="'seeded' needs `inner`"):
        streamed(np.zeros((2, 2), np.float32), tmp_path, rows=1, name="seeded")
    ones, inner = np.ones((2, 2), np.float32), np.full((2, 2), np.nan, np.float32)
    with pytest.raises(InputError, match="pixels of inner are NaN"):
        streamed(ones, tmp_path, rows=1, name="seeded", inner=inner)
