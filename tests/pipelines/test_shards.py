import concurrent.futures

import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.shards import FORMATS


def records():
    rng = np.random.default_rng(0)
    return [
        {
            "image": rng.integers(0, 65536, (5 + n, 7, 2), dtype=np.uint16),
            "labels": rng.integers(0, 9, (5 + n, 7), dtype=np.uint8),
            "contrast": np.array([3.5, 60000.25], np.float32),
            "ignore": rng.random((5 + n, 7)) > 0.5,
        }
        for n in range(4)
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_records_come_back_bit_for_bit_in_any_order(tmp_path, name):
    path = tmp_path / f"shard{FORMATS[name].SUFFIX}"
    with FORMATS[name].Writer(path) as writer:
        positions = [writer.write(record) for record in records()]
    for number in (2, 0, 3, 1, 2):
        back = FORMATS[name].read(path, positions[number])
        assert back.keys() == records()[number].keys()
        for field, array in records()[number].items():
            assert back[field].dtype == array.dtype
            np.testing.assert_array_equal(back[field], array)


def test_both_formats_hold_the_same(tmp_path):
    backs = []
    for name, shards in FORMATS.items():
        with shards.Writer(tmp_path / name) as writer:
            position = writer.write(records()[0])
        backs.append(shards.read(tmp_path / name, position))
    for field in backs[0]:
        assert backs[0][field].tobytes() == backs[1][field].tobytes()


@pytest.mark.parametrize("name", FORMATS)
def test_equal_records_make_equal_bytes(tmp_path, name):
    for file in ("a", "b"):
        with FORMATS[name].Writer(tmp_path / file) as writer:
            writer.write(records()[0])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_several_threads_may_read(tmp_path, name):
    path = tmp_path / "shard"
    with FORMATS[name].Writer(path) as writer:
        positions = [writer.write(record) for record in records()]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        backs = list(pool.map(lambda n: FORMATS[name].read(path, positions[n % 4]), range(64)))
    for number, back in enumerate(backs):
        np.testing.assert_array_equal(back["image"], records()[number % 4]["image"])


def test_tfrecord_is_what_tensorflow_reads(tmp_path):
    import tensorflow as tf

    with FORMATS["tfrecord"].Writer(tmp_path / "shard") as writer:
        for record in records():
            writer.write(record)
    examples = [tf.train.Example.FromString(e.numpy()) for e in tf.data.TFRecordDataset(str(tmp_path / "shard"))]
    assert [list(e.features.feature["image/shape"].int64_list.value) for e in examples] == [
        [5 + n, 7, 2] for n in range(4)
    ]
    raw = examples[1].features.feature["labels"].bytes_list.value[0]
    assert raw == records()[1]["labels"].tobytes()


def test_npz_is_what_numpy_reads(tmp_path):
    with FORMATS["npz"].Writer(tmp_path / "shard.npz") as writer:
        writer.write(records()[0])
    with np.load(tmp_path / "shard.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["000000/image"], records()[0]["image"])


def test_a_short_tfrecord_is_an_error(tmp_path):
    path = tmp_path / "shard.tfrecord"
    with FORMATS["tfrecord"].Writer(path) as writer:
        writer.write(records()[0])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="shard.tfrecord: the record at byte 0 is cut short"):
        FORMATS["tfrecord"].read(path, 0)
