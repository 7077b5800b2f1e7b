import hashlib

import numpy as np
import pytest
import tifffile

from pipelines.dataset import Batches, ShardReader, minimum_ranges, training_dataset
from pipelines.errors import InputError
from pipelines.prepare import prepare
from pipelines.targets import foreground
from pipelines.weight_maps import border
from tests.datasets import config, write_consep, write_ctc, write_shards

FLIPS = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}, {"name": "RandomRotate90", "p": 1.0}]

# Every kind of step: ours, with surroundings; geometric ones, and ones that change grey values.
ELASTIC = [
    {"name": "elastic_grid", "sigma": 3.0},
    *FLIPS,
    {"name": "Affine", "scale": [0.8, 1.2], "rotate": [-20, 20], "p": 0.5},
    {"name": "RandomBrightnessContrast", "p": 0.5},
    {"name": "GaussNoise", "p": 0.5},
    {"name": "elastic_simard", "alpha": 20.0, "sigma": 5.0, "p": 0.3},
]


@pytest.fixture(scope="module", params=["npz", "tfrecord"])
def shards(request, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"), format=request.param)


@pytest.fixture
def reader(shards):
    return ShardReader(shards)


def digest(batches):
    return [hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in batch)).hexdigest() for batch in batches]


def test_the_same_seed_gives_the_same_200_batches_for_any_number_of_threads(reader):
    batches = Batches(reader, patch=32, batch_size=4, augment=ELASTIC, oversample=0.5, seed=3)
    expected = digest(batches.batch(step) for step in range(200))
    for calls in (1, 2, 8):
        fresh = Batches(reader, patch=32, batch_size=4, augment=ELASTIC, oversample=0.5, seed=3)
        assert digest(training_dataset(fresh, parallel_calls=calls).take(200)) == expected
    other = Batches(reader, patch=32, batch_size=4, augment=ELASTIC, oversample=0.5, seed=4)
    assert digest([other.batch(0)]) != expected[:1]


def test_a_resumed_stream_continues_the_uninterrupted_one(reader):
    # Six training images make epochs of 6 steps here: the stream stops in the middle of one.
    batches = Batches(reader, patch=32, batch_size=4, augment=ELASTIC)
    assert batches.steps_per_epoch() == 6
    whole = digest(training_dataset(batches).take(20))
    fresh = Batches(reader, patch=32, batch_size=4, augment=ELASTIC)
    assert digest(training_dataset(fresh, first_step=9).take(11)) == whole[9:]


def test_both_formats_give_the_same_batches(tmp_path):
    digests = [
        digest([Batches(ShardReader(write_shards(tmp_path / name, 6, format=name)), patch=32, batch_size=4).batch(1)])
        for name in ("npz", "tfrecord")
    ]
    assert digests[0] == digests[1]


def test_shapes_and_ranges(reader):
    batches = Batches(reader, patch=32, batch_size=3, augment=FLIPS)
    dataset = training_dataset(batches)
    assert [tuple(spec.shape) for spec in dataset.element_spec] == [(3, 32, 32, 1)] * 3
    image, target, weight_map = batches.batch(0)
    assert image.dtype == target.dtype == weight_map.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1
    assert set(np.unique(target)) <= {0, 1} and (weight_map == 1).all()


def test_image_and_labels_move_together(reader):
    # The cells are bright: where the target says cell, the image must be bright, after any crop, flip or turn.
    batches = Batches(reader, patch=48, batch_size=4, augment=FLIPS)
    for step in range(5):
        image, target, _ = batches.batch(step)
        assert ((image > 0.5) == (target > 0)).mean() > 0.99


def test_every_pass_sees_every_sample_once(reader):
    batches = Batches(reader, patch=64, batch_size=1)
    num = len(reader.manifest.of_split("train"))
    seen = [digest([batches.batch(step)])[0] for step in range(2 * num)]
    assert len(set(seen[:num])) == num
    assert sorted(seen[:num]) == sorted(seen[num:])  # the patch is the whole image, so a sample is its content
    assert seen[:num] != seen[num:]


def test_a_valid_network_gets_mirrored_surroundings_and_the_inner_target(reader):
    batches = Batches(reader, patch=84, output=64, batch_size=1)  # 64 px images: 10 px around them are mirrored
    image, target, weight_map = batches.batch(0)
    assert image.shape == (1, 84, 84, 1) and target.shape == weight_map.shape == (1, 64, 64, 1)
    inner = image[0, 10:-10, 10:-10, 0]
    np.testing.assert_array_equal(np.pad(inner, 10, mode="reflect"), image[0, ..., 0])
    assert ((inner > 0.5) == (target[0, ..., 0] > 0)).mean() > 0.99


def test_a_window_is_the_mirrored_image_cut_there(reader):
    sample = reader.manifest.of_split("train")[0]
    whole = reader.read(sample)
    padded = np.pad(whole["image"][..., 0], 50, mode="reflect")
    for row, column in ((0, 0), (-20, 5), (30, -40), (40, 44), (-50, -50), (50, 20)):
        window = reader.window(sample, row, column, 60)
        expected = padded[row + 50 : row + 110, column + 50 : column + 110]
        np.testing.assert_array_equal(window["image"][..., 0], expected)
        assert window["labels"].shape == (60, 60) and window.keys() == {"image", "labels"}


def test_an_elastic_first_step_pulls_in_the_real_surroundings(reader):
    # Where the field is a shift, the patch must be a piece of the real image, not of a mirrored one.
    class Shift:
        margin, resizes = 8, False

        def __call__(self, image, maps, *, rng, margin):
            assert margin == 8 and image.shape == (48, 48, 1)
            return image[:32, :32], {name: array[:32, :32] for name, array in maps.items()}

    batches = Batches(reader, patch=32, batch_size=1)
    batches._augment = Shift()
    sample = reader.manifest.of_split("train")[0]
    row, column = batches._corner(sample, np.random.default_rng(5))
    labels = np.pad(reader.read(sample)["labels"], 8, mode="reflect")
    patch = batches.patch(sample, np.random.default_rng(5))
    np.testing.assert_array_equal(patch["labels"], labels[row : row + 32, column : column + 32])


def test_the_weight_map_describes_the_deformed_labels(reader):
    batches = Batches(reader, patch=48, batch_size=1, augment=ELASTIC, weight_map=border)
    for place in range(5):
        _, patch = batches.example(place)
        np.testing.assert_array_equal(patch["weight_map"][..., 0], border(patch["labels"]))
        np.testing.assert_array_equal(patch["target"][..., 0], patch["labels"] > 0)


def test_oversampling_puts_a_cell_into_the_middle_half(tmp_path):
    reader = ShardReader(write_shards(tmp_path, 8, side=128, cells=1))
    shares = {}
    for share in (0.0, 1.0):
        batches = Batches(reader, patch=32, batch_size=1, oversample=share)
        labels = [batches.example(place)[1]["labels"] for place in range(60)]
        shares[share] = np.mean([(one > 0).any() for one in labels])
        if share:
            centres = np.array([np.argwhere(one).mean(axis=0) for one in labels])
            assert np.ptp(centres, axis=0).min() > 6  # jitter: not always in the same place
    # A cell of radius 6 in an image of 128: a patch of 32 px that lies anywhere meets it in about one case in five.
    assert shares[1.0] == 1 and shares[0.0] < 0.5


def test_steps_that_resize_get_whole_images(reader):
    steps = [{"name": "RandomCrop", "height": 40, "width": 40}, {"name": "Resize", "height": 32, "width": 32}]
    batches = Batches(reader, patch=32, batch_size=2, augment=steps)
    image, target, _ = batches.batch(0)
    assert image.shape == (2, 32, 32, 1) and set(np.unique(target)) <= {0, 1}
    assert batches.steps_per_epoch() == 3  # six images, two a batch
    with pytest.raises(InputError, match=r"the steps make 32x32 pixels of cell\d\d, but train.patch is 48"):
        Batches(reader, patch=48, batch_size=2, augment=steps)
    with pytest.raises(InputError, match="train.oversample cuts patches around cells, but a step of augment"):
        Batches(reader, patch=32, batch_size=2, augment=steps, oversample=0.5)


def test_classes_border_and_distance_targets_reach_the_batch(tmp_path):
    source = write_consep(tmp_path / "raw")
    prepare(source, tmp_path / "out", config=config(layout="consep", by="published"), options={})
    reader = ShardReader(tmp_path / "out")
    assert reader.manifest.classes == ["miscellaneous", "inflammatory", "epithelial", "spindle-shaped"]
    for target, channels in (("classes", 5), ({"name": "foreground_border", "width": 1}, 3), ("distance", 1)):
        batches = Batches(reader, patch=32, batch_size=2, target=target, augment=FLIPS)
        _, answer, _ = batches.batch(0)
        assert answer.shape == (2, 32, 32, channels) == batches.shapes[1]
        assert channels == 1 or (answer.sum(axis=-1) == 1).all()


def test_unannotated_pixels_have_weight_zero_after_augmentation(tmp_path):
    source = write_ctc(tmp_path / "raw", 10, truth="GT")
    for frame in range(10):  # gold truth of two of the four cells
        path = source / "01_GT" / "SEG" / f"man_seg{frame:03d}.tif"
        labels = tifffile.imread(path)
        tifffile.imwrite(path, np.where(labels <= 2, labels, 0).astype(np.uint16))
    settings = config(layout="ctc", by="block", gap=1)
    prepare(source, tmp_path / "out", config=settings, options={"truth": "gold", "sequence": None})
    reader = ShardReader(tmp_path / "out")
    ignored = reader.manifest.statistics["train"]["ignored_fraction"]
    assert 0.05 < ignored < 0.2
    batches = Batches(reader, patch=64, batch_size=1, augment=FLIPS)
    for place in range(5):
        _, patch = batches.example(place)
        zero = patch["weight_map"][..., 0] == 0
        assert abs(zero.mean() - ignored) < 0.05 and not (zero & (patch["labels"] > 0)).any()
        # The unannotated cells are bright: they lie under the zeros.
        assert (patch["image"][..., 0][~zero & (patch["labels"] == 0)] < 0.7).mean() > 0.99


def test_an_image_smaller_than_the_patch_is_named(reader):
    with pytest.raises(
        InputError, match=r"cell\d\d is 64x64 pixels, smaller than a patch of 80x80. Set train.patch to a smaller"
    ):
        Batches(reader, patch=80, batch_size=2)


def test_a_flipped_byte_is_found_and_named(tmp_path):
    folder = write_shards(tmp_path)
    shard = next(folder.glob("train-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=f"{shard.name} is damaged: its checksum"):
        ShardReader(folder)


def test_a_missing_shard_is_named(tmp_path):
    folder = write_shards(tmp_path)
    next(folder.glob("test-*")).unlink()
    with pytest.raises(InputError, match="test-00000.npz is missing"):
        ShardReader(folder)


def test_minimum_range_is_a_quarter_of_the_dimmest_usual_range():
    samples = [{"dtype": "uint8", "contrast": [10, 10 + 100]}] * 50 + [{"dtype": "uint16", "contrast": [0, 4000]}]
    assert minimum_ranges(samples) == {"uint8": 25.0, "uint16": 1000.0}


def test_foreground_target():
    labels = np.array([[0, 1], [7, 0]], np.int32)
    np.testing.assert_array_equal(foreground(labels)[..., 0], [[0, 1], [1, 0]])
    assert foreground(labels).dtype == np.float32 and not foreground(0 * labels).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"augment": [{"name": "RandomFog", "p": 0.01}]},
            r"augment\[0\]: RandomFog does not work on an image of 64x64x1",
        ),
        ({"augment": [{"name": "RandomCrop", "height": 32, "width": 32, "p": 0.5}]}, "but train.patch is 32"),
        ({"target": "distanc"}, "target: 'distanc' is not known. Did you mean 'distance'"),
        ({"target": "classes"}, "the images of this data set have no classes"),
        ({"output": 40}, "A patch of 32 px, a target of 40 px"),
        ({"output": 31}, "A patch of 32 px, a target of 31 px"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_batch(reader, options, message):
    with pytest.raises(InputError, match=message):
        Batches(reader, patch=32, batch_size=2, **options)
