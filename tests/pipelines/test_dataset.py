import hashlib

import numpy as np
import pytest

from pipelines.dataset import Batches, ShardReader, minimum_ranges, training_dataset
from pipelines.errors import InputError
from pipelines.targets import foreground
from tests.datasets import write_shards

FLIPS = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}, {"name": "RandomRotate90", "p": 1.0}]


@pytest.fixture(scope="module", params=["npz", "tfrecord"])
def shards(request, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"), format=request.param)


@pytest.fixture
def reader(shards):
    return ShardReader(shards)


def digest(batches):
    return [hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in batch)).hexdigest() for batch in batches]


def test_the_same_seed_gives_the_same_batches_for_any_number_of_threads(reader):
    batches = Batches(reader, patch=32, batch_size=4, augment=FLIPS, seed=3)
    expected = digest(batches.batch(step) for step in range(20))
    for calls in (1, 2, 8):
        fresh = Batches(reader, patch=32, batch_size=4, augment=FLIPS, seed=3)
        assert digest(training_dataset(fresh, parallel_calls=calls).take(20)) == expected
    other = Batches(reader, patch=32, batch_size=4, augment=FLIPS, seed=4)
    assert digest([other.batch(0)]) != expected[:1]


def test_a_resumed_stream_continues_the_uninterrupted_one(reader):
    batches = Batches(reader, patch=32, batch_size=4, augment=FLIPS)
    whole = digest(training_dataset(batches).take(9))
    assert digest(training_dataset(batches, first_step=5).take(4)) == whole[5:]


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
