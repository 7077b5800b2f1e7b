import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage import segmentation
from skimage.morphology import h_maxima

from cellseg.instances import DETECTIONS, INSTANCES, components, seeded, watershed
from pipelines.errors import InputError
from tests import cells, oracles

MASK = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
PROPERTY = settings(max_examples=80, derandomize=True, deadline=None)


def test_threshold_is_included():
    probability = np.array([[0.5, 0.0, 0.49, 0.0, 0.51]], np.float32)
    assert components(probability, threshold=0.5).tolist() == [[1, 0, 0, 0, 2]]


def test_labels_are_int32():
    assert components(np.ones((2, 2), np.float32)).dtype == np.int32


def test_corner_joins_or_not():
    diagonal = np.eye(3, dtype=bool)
    assert components(diagonal).max() == 1
    assert components(diagonal, connectivity=4).tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]


def test_touching_cells_become_one():
    assert components(cells.two_touching() > 0).max() == 1


def test_min_size_is_kept():
    mask = np.array([[1, 0, 1, 1, 0, 1, 1, 1]], bool)
    assert components(mask, min_size=2).tolist() == [[0, 0, 1, 1, 0, 2, 2, 2]]
    assert components(mask, min_size=4).max() == 0


def test_ids_in_scan_order():
    # A block-wise labelling numbers the lower left piece before the upper right one.
    mask = np.array([[0, 0, 0, 1], [1, 1, 0, 0]], bool)
    assert components(mask).tolist() == [[0, 0, 0, 1], [2, 2, 0, 0]]


def test_hole_is_filled():
    ring = cells.nested() == 1
    filled = components(ring, fill_holes=True)
    # The ring of 6x5 with its hole of 4x3.
    assert np.count_nonzero(filled) == 30
    assert filled.max() == 1


def test_cell_in_a_hole_joins_its_ring():
    labels = cells.nested()
    assert components(labels > 0).max() == 2
    assert components(labels > 0, fill_holes=True).max() == 1


def test_hole_is_filled_before_the_size_is_taken():
    assert components(cells.nested() == 1, fill_holes=True, min_size=30).max() == 1
    assert components(cells.nested() == 1, min_size=30).max() == 0


@pytest.mark.parametrize("value", [0.0, 0.49])
def test_nothing_above_the_threshold(value):
    assert components(np.full((3, 4), value)).tolist() == np.zeros((3, 4)).tolist()


def test_everything_above_the_threshold():
    assert components(np.ones((3, 4)), fill_holes=True).tolist() == np.ones((3, 4)).tolist()


@PROPERTY
@given(MASK, st.sampled_from([4, 8]))
def test_equals_flood_fill(mask, connectivity):
    np.testing.assert_array_equal(components(mask, connectivity=connectivity), oracles.components(mask, connectivity))


@PROPERTY
@given(MASK, st.sampled_from([4, 8]))
def test_fill_holes_equals_flood_fill(mask, connectivity):
    found = components(mask, connectivity=connectivity, fill_holes=True)
    np.testing.assert_array_equal(found > 0, oracles.fill_holes(mask, connectivity))


@PROPERTY
@given(MASK, st.integers(0, 6))
def test_min_size_drops_the_small_alone(mask, min_size):
    everything = components(mask)
    areas = np.bincount(everything.ravel())
    kept = np.flatnonzero(areas[1:] >= min_size) + 1
    np.testing.assert_array_equal(components(mask, min_size=min_size) > 0, np.isin(everything, kept))


def test_input_is_not_changed():
    probability = np.linspace(0, 1, 20).reshape(4, 5)
    before = probability.copy()
    components(probability, fill_holes=True, min_size=3)
    np.testing.assert_array_equal(probability, before)


def test_named_for_yaml():
    assert INSTANCES["components"] is components


def test_nan_is_refused():
    with pytest.raises(InputError, match="2 pixels of the probability are NaN"):
        components(np.array([[np.nan, np.nan, 1.0]]))


def test_integers_are_refused():
    with pytest.raises(InputError, match=r"got uint8.*mask > 0"):
        components(np.full((2, 2), 255, np.uint8))


@pytest.mark.parametrize("shape", [(2, 2, 1), (0, 3)])
def test_not_an_image(shape):
    with pytest.raises(InputError, match=r"must be \(H, W\) and not empty"):
        components(np.zeros(shape))


def test_options_out_of_range():
    with pytest.raises(InputError, match="connectivity must be 4 or 8, got 6"):
        components(np.zeros((2, 2)), connectivity=6)
    with pytest.raises(InputError, match="min_size must be >= 0 pixels, got -1"):
        components(np.zeros((2, 2)), min_size=-1)


def two_discs(gap, radius=10):
    """Two discs whose centres are 2 * radius + gap apart."""
    rows, columns = np.mgrid[0:40, 0:80]
    centre = 40 - radius - gap / 2
    return [(rows - 20) ** 2 + (columns - c) ** 2 <= radius**2 for c in (centre, 80 - centre)]


def test_watershed_cuts_touching_discs_at_the_neck():
    one, two = two_discs(gap=-4)  # they overlap by 4 pixels
    labels = watershed(one | two)
    assert labels.max() == 2 and components(one | two).max() == 1
    left, right = labels[20, 25], labels[20, 55]
    assert (labels[one & ~two] == left).mean() > 0.99 and (labels[two & ~one] == right).mean() > 0.99
    np.testing.assert_array_equal(labels > 0, one | two)


def test_watershed_leaves_single_cells_whole():
    rows, columns = np.mgrid[0:60, 0:60]
    for mask in (
        (rows - 30) ** 2 + (columns - 30) ** 2 <= 15**2,
        ((rows - 30) / 10) ** 2 + ((columns - 30) / 25) ** 2 <= 1,
        (rows > 20) & (rows < 35) & (columns > 10) & (columns < 50),
        (rows < 12) & (columns < 12),  # cut by the image border
    ):
        np.testing.assert_array_equal(watershed(mask), components(mask))


def test_watershed_keeps_cells_of_few_pixels():
    mask = np.zeros((9, 12), bool)
    mask[1, 1] = mask[4, 4:6] = True
    mask[6:8, 9:11] = True
    np.testing.assert_array_equal(watershed(mask, depth=3.0), components(mask))


def test_watershed_drops_small_cells_and_numbers_by_rows():
    mask = np.zeros((20, 30), bool)
    mask[1:3, 1:3] = mask[5:12, 5:12] = mask[8:18, 18:28] = True
    labels = watershed(mask, min_size=10)
    assert labels[2, 2] == 0 and labels[6, 6] == 1 and labels[10, 20] == 2


def test_watershed_of_nothing_and_of_everything():
    assert not watershed(np.zeros((5, 5), np.float32)).any()
    assert (watershed(np.ones((5, 5), np.float32)) == 1).all()


@pytest.mark.parametrize("options", [{"sigma": -1.0}, {"depth": 0.0}])
def test_watershed_options(options):
    with pytest.raises(InputError, match="sigma must be >= 0 and depth > 0"):
        watershed(np.zeros((5, 5), np.float32), **options)


def test_watershed_numbers_have_no_gaps():
    one, two = two_discs(gap=-4)
    mask = np.pad(one | two, ((0, 20), (0, 0)))
    mask[50, 5::9] = True  # cells of one pixel, which have no hill
    labels = watershed(mask)
    assert np.unique(labels).tolist() == list(range(12))


def test_watershed_of_a_piece_does_not_see_its_neighbours():
    one, two = two_discs(gap=-4)
    mask = np.pad(one | two, ((0, 0), (0, 30)))
    beside = mask.copy()
    beside[:, 75:77] = True  # a bar, 2 px from the right disc; the smoothing reaches 4 px
    alone, both = watershed(mask), watershed(beside)
    np.testing.assert_array_equal(np.where(both == both[0, 75], 0, both) > 0, mask)
    pairs = np.unique(np.stack([alone[mask], both[mask]]), axis=1)
    assert pairs.shape[1] == 2


@PROPERTY
@given(arrays(bool, st.tuples(st.integers(5, 30), st.integers(5, 30))), st.sampled_from([0.0, 1.0]))
def test_watershed_of_all_pieces_is_that_of_each(mask, sigma):
    options = {"sigma": sigma, "depth": 0.3}
    pieces = components(mask)
    cuts = [watershed(pieces == number, **options) for number in range(1, pieces.max() + 1)]
    labels = watershed(mask, **options)
    for number, cut in enumerate(cuts, 1):
        inside = pieces == number
        pairs = np.unique(np.stack([cut[inside], labels[inside]]), axis=1)
        assert pairs.shape[1] == cut.max() == len(np.unique(labels[inside]))


def plain_watershed(mask, sigma, depth):
    """The definition for one piece, without short cuts."""
    distance = ndimage.distance_transform_edt(mask)
    distance = np.where(mask, ndimage.gaussian_filter(distance, sigma), 0) if sigma else distance
    hills, count = ndimage.label(mask & (h_maxima(distance, depth) > 0), structure=np.ones((3, 3)))
    return segmentation.watershed(-distance, hills, mask=mask, connectivity=2) if count else mask.astype(int)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 12)), min_size=1, max_size=9))
def test_watershed_of_one_piece_equals_the_definition(discs):
    rows, columns = np.mgrid[0:51, 0:51]
    mask = np.zeros((51, 51), bool)
    for row, column, radius in discs:
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    pieces = components(mask)
    piece = pieces == 1
    expected = plain_watershed(piece, 1.0, 0.75)
    labels = watershed(piece)
    pairs = np.unique(np.stack([expected[piece], labels[piece]]), axis=1)
    assert pairs.shape[1] == expected.max() == labels.max()


def bumps(*centres, shape=(40, 60), radius=8.0):
    """Foreground and inside of round cells that run into each other: 1 in the middle, 0 at the rim."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    depth = [1 - np.hypot(rows - row, columns - column) / radius for row, column in centres]
    inner = np.max(depth, axis=0).clip(0, 1).astype(np.float32)
    return (inner > 0).astype(np.float32), inner


def test_seeded_cuts_where_the_network_says_so():
    foreground, inner = bumps((20, 20), (20, 32))
    labels = seeded(foreground, inner)
    assert labels.max() == 2 and labels[20, 20] == 1 and labels[20, 32] == 2 and components(foreground).max() == 1
    np.testing.assert_array_equal(labels > 0, foreground > 0)
    # The cells are mirror images of each other: each gets its half, but for the middle column.
    assert (labels[:, :26][foreground[:, :26] > 0] == 1).all() and (labels[:, 27:][foreground[:, 27:] > 0] == 2).all()


def test_seeded_leaves_a_piece_without_a_seed_as_one_cell():
    foreground, inner = bumps((20, 20), (20, 32))
    np.testing.assert_array_equal(seeded(foreground, 0.2 * inner), components(foreground))
    np.testing.assert_array_equal(seeded(foreground, np.zeros_like(inner)), components(foreground))


def test_seeded_with_size_and_holes():
    foreground, inner = bumps((20, 20), (20, 32), (3, 55))
    foreground[20, 20] = 0
    assert seeded(foreground, inner, fill_holes=True)[20, 20] > 0 and seeded(foreground, inner)[20, 20] == 0
    areas = np.bincount(seeded(foreground, inner).ravel())[1:]
    assert len(areas) == 3
    assert seeded(foreground, inner, min_size=int(areas.min()) + 1).max() == 2


def plain_seeded(mask, inner, sigma, depth, least):
    """The definition, on the whole image at once, for heights without ties."""
    height = ndimage.gaussian_filter(inner, sigma)
    labels, first = np.zeros(mask.shape, int), 0
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    for number in range(1, count + 1):
        piece = pieces == number
        own = np.where(piece, height, 0)
        hills, found = ndimage.label(piece & (own >= least) & (h_maxima(own, depth) > 0), structure=np.ones((3, 3)))
        cut = segmentation.watershed(-own, hills, mask=piece, connectivity=2) if found else piece.astype(int)
        labels[piece], first = cut[piece] + first, first + cut.max()
    return labels


def test_seeded_equals_the_definition():
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(12):
        noise = ndimage.gaussian_filter(rng.random((90, 110)), 3)
        inner = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
        foreground = np.clip(inner + 0.1, 0, 1)
        labels = seeded(foreground, inner, threshold=0.5, sigma=1.5, depth=0.05, seed_threshold=0.55)
        expected = plain_seeded(foreground >= 0.5, inner, 1.5, 0.05, 0.55)
        pairs = np.unique(np.stack([expected.ravel(), labels.ravel()]), axis=1)
        assert pairs.shape[1] == expected.max() + 1 == labels.max() + 1
        counts.add(labels.max() - components(foreground, threshold=0.5).max())
    assert max(counts) > 5  # there is something to cut


def test_seeded_complains_of_its_inputs():
    foreground, inner = bumps((20, 20))
    with pytest.raises(InputError, match="'seeded' needs `inner`.*'watershed'"):
        seeded(foreground)
    with pytest.raises(InputError, match=r"inner must be float \(40, 60\) as .*, got float32 \(40, 59\)"):
        seeded(foreground, inner[:, 1:])
    inner[0, :3] = np.nan
    with pytest.raises(InputError, match="3 pixels of inner are NaN"):
        seeded(foreground, inner)
    with pytest.raises(InputError, match=r"seed_threshold in \[0, 1\], got sigma 1.0, depth 0.05 and seed_threshold 2"):
        seeded(foreground, foreground, seed_threshold=2)


@pytest.mark.parametrize("name", [name for name in INSTANCES if name not in DETECTIONS])
def test_cells_at_the_border_are_kept_or_dropped(name):
    mask = np.zeros((12, 14), np.float32)
    mask[0:3, 4:6] = mask[9:12, 4:6] = mask[5:7, 0:2] = mask[5:7, 12:14] = 1  # one at each side
    mask[1:3, 9:11] = mask[5:7, 5:7] = 1  # one pixel away from it, and in the middle
    kept = INSTANCES[name](mask, mask)
    assert kept.max() == 6
    np.testing.assert_array_equal(INSTANCES[name](mask, mask, border="keep"), kept)
    dropped = INSTANCES[name](mask, mask, border="drop")
    assert dropped.max() == 2 and dropped[1, 9] == 1 and dropped[5, 5] == 2 and np.count_nonzero(dropped) == 8


@pytest.mark.parametrize("name", [name for name in INSTANCES if name not in DETECTIONS])
def test_cells_wholly_in_the_margin_are_left_out(name):
    mask = np.zeros((20, 24), np.float32)
    mask[1:3, 8:10] = mask[17:19, 8:10] = mask[8:10, 1:3] = mask[8:10, 21:23] = 1  # within 3 px of each side
    mask[1:4, 14:16] = 1  # its last row is the fourth of the image
    mask[8:10, 8:10] = 1
    assert [INSTANCES[name](mask, mask, margin=margin).max() for margin in (0, 1, 2, 3, 4, 9, 10)] == [
        6,
        6,
        6,
        2,
        1,
        1,
        0,
    ]
    labels = INSTANCES[name](mask, mask, margin=3)
    assert labels[3, 14] == 1 and labels[8, 8] == 2 and np.count_nonzero(labels) == 10
    with pytest.raises(InputError, match="margin must be >= 0 pixels, got -1"):
        INSTANCES[name](mask, mask, margin=-1)


def test_of_a_cut_piece_the_cell_at_the_border_alone_is_dropped():
    foreground, inner = bumps((20, 5), (20, 17))
    assert seeded(foreground, inner).max() == 2 and components(foreground, border="drop").max() == 0
    labels = seeded(foreground, inner, border="drop")
    assert labels.max() == 1 and labels[20, 17] == 1 and labels[20, 5] == 0
