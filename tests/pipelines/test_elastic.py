import numpy as np
import pytest
from scipy import ndimage

from pipelines.elastic import (
    deform,
    folding,
    grid_displacement,
    grid_field,
    minimum_jacobian,
    positions,
    read_at,
    simard_field,
)
from pipelines.errors import InputError

PADS = {"mirror": "reflect", "reflect": "symmetric", "constant": "constant"}  # our border -> numpy's
IDS = np.array([0, 1, 255, 300, 70_000, 2**31 - 1])


def shifted(image, rows, columns, border, pad=6):
    """The image read `rows` lower and `columns` further right, by plain indexing of a padded copy."""
    padded = np.pad(image, [(pad, pad)] * 2 + [(0, 0)] * (image.ndim - 2), mode=PADS[border])
    height, width = image.shape[:2]
    return padded[pad + rows : pad + rows + height, pad + columns : pad + columns + width]


def picture(dtype, channels=None, shape=(13, 17)):
    values = np.random.default_rng(0).random(shape if channels is None else (*shape, channels))
    return (values if np.dtype(dtype).kind == "f" else values * np.iinfo(dtype).max).astype(dtype)


def test_displacement_is_normal_and_repeats():
    draws = np.stack([grid_displacement(np.random.default_rng(seed), points=4, sigma=7) for seed in range(500)])
    assert draws.shape == (500, 2, 4, 4) and draws.dtype == np.float32
    # 16000 values: the standard error of the mean is 0.055, of the standard deviation 0.04.
    assert abs(draws.mean()) < 0.2 and abs(draws.std() - 7) < 0.2
    np.testing.assert_array_equal(grid_displacement(np.random.default_rng(3), points=4, sigma=7), draws[3])
    assert grid_displacement(np.random.default_rng(0)).shape == (2, 3, 3)


def test_the_field_takes_the_values_of_the_control_points():
    displacement = grid_displacement(np.random.default_rng(0))
    field = grid_field(displacement, (65, 129))
    assert field.dtype == np.float32 and field.shape == (2, 65, 129)
    np.testing.assert_allclose(field[:, ::32, ::64], displacement, atol=1e-5)


def test_the_field_between_control_points_by_hand():
    # Along a column of 0, 1, 0 the coefficients of the mirrored cubic spline are -1, 2, -1: (4 * -1 + 2 * 2) / 6 = 0
    # and (-1 + 4 * 2 - 1) / 6 = 1. Midway it is (2 + 23 * -1 + 23 * 2 - 1) / 48 = 0.5.
    displacement = np.zeros((2, 3, 3), np.float32)
    displacement[0, 1] = 1
    field = grid_field(displacement, (5, 7))
    np.testing.assert_allclose(field[0], np.tile([[0], [0.5], [1], [0.5], [0]], 7), atol=1e-6)
    assert not field[1].any()


@pytest.mark.parametrize("points", [2, 3, 5])
def test_the_field_equals_scipys_spline(points):
    displacement = grid_displacement(np.random.default_rng(points), points=points)
    places = np.stack(np.meshgrid(np.linspace(0, points - 1, 40), np.linspace(0, points - 1, 56), indexing="ij"))
    expected = [ndimage.map_coordinates(plane.astype(float), places, order=3, mode="mirror") for plane in displacement]
    np.testing.assert_allclose(grid_field(displacement, (40, 56)), expected, atol=2e-5)


@pytest.mark.parametrize(("alpha", "sigma"), [(34, 4), (10, 1.5)])
def test_simards_field_is_as_strong_at_the_rim_as_inside(alpha, sigma):
    fields = np.stack([simard_field(np.random.default_rng(n), (60, 80), alpha=alpha, sigma=sigma) for n in range(60)])
    assert fields.shape == (60, 2, 60, 80) and fields.dtype == np.float32
    expected = alpha / (2 * np.sqrt(3 * np.pi) * sigma)
    for part in (fields, fields[:, :, 0], fields[..., -1]):
        assert abs(part.std() / expected - 1) < 0.05
    assert abs(np.mean(fields[:, 0] * fields[:, 1])) < 0.05 * expected**2  # the two axes are independent
    other = simard_field(np.random.default_rng(0), (60, 80), alpha=2 * alpha, sigma=sigma)
    np.testing.assert_allclose(other, 2 * fields[0], rtol=1e-5)


def test_simards_field_is_as_smooth_as_it_says():
    # The Gaussian's autocorrelation is a Gaussian of twice the variance: exp(-d^2 / (4 sigma^2)).
    fields = np.stack([simard_field(np.random.default_rng(n), (90, 90), alpha=30, sigma=4) for n in range(30)])
    correlation = np.mean(fields[..., 4:] * fields[..., :-4]) / np.mean(fields**2)
    assert abs(correlation - np.exp(-0.25)) < 0.03


@pytest.mark.parametrize("border", PADS)
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("channels", [None, 1, 3, 5])
def test_whole_pixels_move_as_they_are(dtype, order, border, channels):
    image = picture(dtype, channels)
    field = np.empty((2, 13, 17), np.float32)
    field[0], field[1] = 2, -3
    moved = deform(image, field, order=order, border=border)
    assert moved.dtype == image.dtype
    np.testing.assert_allclose(moved, shifted(image, 2, -3, border), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bilinear_by_hand(dtype):
    image = np.array([[0, 1], [2, 4]], dtype)
    field = np.zeros((2, 2, 2), np.float32)
    field[:, 0, 0] = 0.5, 0.25  # halfway down, a quarter to the right
    # 0.5 * (0.75 * 0 + 0.25 * 1) + 0.5 * (0.75 * 2 + 0.25 * 4) = 1.375
    np.testing.assert_array_equal(deform(image, field), np.array([[1.375, 1], [2, 4]], dtype))


@pytest.mark.parametrize("order", [1, 3])
def test_smooth_images_as_scipy_reads_them(order):
    rows, columns = np.mgrid[:40, :56] / 10
    image = 0.5 + 0.2 * np.sin(rows)[..., None] * np.cos(columns[..., None] + np.arange(3))
    field = simard_field(np.random.default_rng(0), (40, 56), alpha=60, sigma=6)
    places = np.mgrid[:40, :56] + field
    expected = np.stack(
        [ndimage.map_coordinates(image[..., n], places, order=order, mode="mirror") for n in range(3)], axis=-1
    )
    np.testing.assert_allclose(deform(image, field, order=order), expected, atol=1e-6)
    # The grey value changes by at most 0.02 a pixel and axis; OpenCV 4 rounds to 1/32 pixel: up to 0.02 / 32 is lost.
    tolerance = 7e-4 if order == 1 else 2e-3
    inner = slice(5, -5)  # at the kink of the mirrored rim, scipy's spline and OpenCV's cubic differ by up to 0.0014
    for dtype, scale in ((np.float32, 1), (np.uint16, 60_000)):
        found = deform((image * scale).astype(dtype), field, order=order) / scale
        np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=tolerance)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32"])
def test_labels_of_any_dtype_are_copied_by_the_nearest_neighbour(dtype):
    rng = np.random.default_rng(0)
    labels = IDS[rng.integers(0, len(IDS), (20, 24))].astype(dtype)
    steps = rng.integers(-5, 6, (2, 20, 24))
    field = (steps + rng.uniform(-0.4, 0.4, steps.shape)).astype(np.float32)  # never halfway between two pixels
    padded = np.pad(labels, 6, mode="reflect")
    rows, columns = np.indices(labels.shape) + 6 + steps
    moved = deform(labels, field, order=0)
    assert moved.dtype == labels.dtype
    np.testing.assert_array_equal(moved, padded[rows, columns])


def test_a_window_of_a_larger_image_sees_its_surroundings():
    image, labels = picture("float32", 1, (50, 60)), picture("uint16", None, (50, 60)).astype(np.int32)
    field = simard_field(np.random.default_rng(0), (50, 60), alpha=60, sigma=4)
    for array, order in ((image, 1), (labels, 0)):
        whole = deform(array, field, order=order)
        window = deform(array, field[:, 7:40, 11:50], order=order, origin=(7, 11))
        np.testing.assert_array_equal(window, whole[7:40, 11:50])


def test_inputs_are_left_alone_and_positions_can_be_shared():
    image, labels = picture("float32", 2), picture("uint16")
    field = simard_field(np.random.default_rng(0), (13, 17), alpha=20, sigma=3)
    for array in (image, labels, field):
        array.flags.writeable = False
    places = positions(field, origin=(1, 2))
    np.testing.assert_array_equal(read_at(image, places), deform(image, field, origin=(1, 2)))
    np.testing.assert_array_equal(read_at(labels, places, order=0), deform(labels, field, order=0, origin=(1, 2)))
    memory = field.copy()
    assert positions(memory, origin=(1, 2), out=memory) is memory
    np.testing.assert_array_equal(memory, places)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("order", [0, 1])
def test_images_longer_than_opencv_counts(dtype, order):
    image = picture(dtype, None, (3, 40_000))
    field = np.zeros((2, 3, 40_000), np.float32)
    field[1] = -2
    np.testing.assert_allclose(deform(image, field, order=order), shifted(image, 0, -2, "mirror", pad=2), rtol=1e-6)


def test_jacobian_by_hand():
    rows, columns = np.indices((6, 9)).astype(np.float32)
    assert minimum_jacobian(np.zeros((2, 6, 9), np.float32)) == 1
    assert minimum_jacobian(np.stack([0.5 * rows, columns])) == pytest.approx(1.5 * 2)  # stretched 1.5 x 2
    assert minimum_jacobian(np.stack([-2 * rows, 0 * rows])) == pytest.approx(-1)  # turned upside down
    angle = np.deg2rad(30)
    turned = np.stack(
        [
            np.cos(angle) * rows - np.sin(angle) * columns - rows,
            np.sin(angle) * rows + np.cos(angle) * columns - columns,
        ]
    )
    assert minimum_jacobian(turned) == pytest.approx(1, abs=1e-5)
    dent = np.zeros((2, 6, 9), np.float32)
    dent[0, 3, 4] = 1.5  # reads beyond the pixel below: 1 - 1.5
    assert minimum_jacobian(dent) == pytest.approx(-0.5)


def test_folding_counts_the_fields_that_fold():
    def draw(rng):
        field = np.zeros((2, 4, 4), np.float32)
        field[0, 2, 2] = rng.choice([0, 2], p=[0.75, 0.25])
        return field

    share, smallest = folding(draw, trials=400)
    assert 0.18 < share < 0.32 and smallest == -1
    assert folding(draw, trials=400) == (share, smallest)
    assert folding(lambda rng: np.zeros((2, 4, 4)), trials=3) == (0, 1)


def test_the_published_grid_folds_small_patches_only():
    def share(side):
        return folding(lambda rng: grid_field(grid_displacement(rng), (side, side)))[0]

    assert share(64) > 0.3 and share(256) == 0


def test_what_cannot_be_done_is_said():
    field = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(InputError, match=r"order must be 0 \(nearest\), 1 \(bilinear\) or 3 \(bicubic\), got 2"):
        deform(np.zeros((3, 3)), field, order=2)
    with pytest.raises(InputError, match="border must be one of mirror, reflect, constant, got 'wrap'"):
        deform(np.zeros((3, 3)), field, border="wrap")
    with pytest.raises(InputError, match="int32 cannot be interpolated: .* Labels take order 0"):
        deform(np.zeros((3, 3), np.int32), field)
