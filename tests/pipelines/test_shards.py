import concurrent.futures
import json
import os

import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.files import sha256
from pipelines.shards import FORMATS, arrays
from pipelines.shards.journal import Journal
from pipelines.shards.record import centres


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
        places = [writer.write(record) for record in records()]
    for number in (2, 0, 3, 1, 2):
        back = arrays.read(path, json.loads(json.dumps(places[number])))
        assert back.keys() == records()[number].keys()
        for field, array in records()[number].items():
            assert back[field].dtype == array.dtype
            np.testing.assert_array_equal(back[field], array)


@pytest.mark.parametrize("name", FORMATS)
def test_some_rows_are_those_of_the_whole(tmp_path, name):
    with FORMATS[name].Writer(tmp_path / "shard") as writer:
        places = [writer.write(record) for record in records()]
    back = arrays.read(tmp_path / "shard", places[1], rows=(2, 5))
    for field in ("image", "labels", "ignore"):
        np.testing.assert_array_equal(back[field], records()[1][field][2:5])
    np.testing.assert_array_equal(back["contrast"], records()[1]["contrast"])


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
        places = [writer.write(record) for record in records()]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        backs = list(pool.map(lambda n: arrays.read(path, places[n % 4]), range(64)))
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
        for record in records():
            writer.write(record)
    with np.load(tmp_path / "shard.npz", allow_pickle=False) as archive:
        for number, record in enumerate(records()):
            for field, array in record.items():
                np.testing.assert_array_equal(archive[f"{number:06d}/{field}"], array)


@pytest.mark.parametrize("name", FORMATS)
def test_a_short_shard_is_an_error(tmp_path, name):
    path = tmp_path / f"shard{FORMATS[name].SUFFIX}"
    with FORMATS[name].Writer(path) as writer:
        places = writer.write(records()[0])
    path.write_bytes(path.read_bytes()[: places["image"][0] + 50])
    with pytest.raises(InputError, match=f"{path.name}: 'image' at byte .* is cut short"):
        arrays.read(path, places)


def test_an_array_that_the_system_reads_in_pieces_is_whole(tmp_path, monkeypatch):
    """Linux reads no more than 2 GiB at once."""
    with FORMATS["npz"].Writer(tmp_path / "shard.npz") as writer:
        places = writer.write(records()[0])
    whole, real = arrays.read(tmp_path / "shard.npz", places), os.pread
    monkeypatch.setattr(os, "pread", lambda handle, count, offset: real(handle, min(count, 7), offset))
    for name, array in arrays.read(tmp_path / "shard.npz", places).items():
        np.testing.assert_array_equal(array, whole[name])


def plan_and_journal(folder, plan=1, unchanged=lambda name, before: True):
    return Journal(folder, {"plan": plan}, unchanged)


def shard(folder, number, files=None):
    path = folder / f"train-{number}.npz"
    path.write_bytes(b"x" * (100 + number))
    return {"file": path.name, "sha256": sha256(path), "samples": 2}, [{"name": "a"}, {"name": "b"}], files or {}


def test_a_journal_keeps_whole_shards_and_removes_the_rest(tmp_path):
    first = plan_and_journal(tmp_path)
    for number in range(2):
        first.add(*shard(tmp_path, number))
    (tmp_path / "train-2.npz").write_bytes(b"half a shard")
    again = plan_and_journal(tmp_path)
    assert again.num_samples == 4
    assert [line["shard"]["file"] for line in again.lines()] == ["train-0.npz", "train-1.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "train-0.npz", "train-1.npz"]


def break_shard(folder):
    (folder / "train-1.npz").write_bytes(b"y" * 101)


def tear_line(folder):
    path = folder / "journal.jsonl"
    path.write_text(path.read_text()[:-5])


@pytest.mark.parametrize(
    ("damage", "options", "kept"),
    [
        (break_shard, {}, 2),
        (tear_line, {}, 2),
        (lambda folder: None, {"plan": 2}, 0),
        (lambda folder: None, {"unchanged": lambda name, before: name != "b.tif"}, 2),
    ],
)
def test_a_journal_ends_before_what_is_not_whole(tmp_path, damage, options, kept):
    first = plan_and_journal(tmp_path)
    first.add(*shard(tmp_path, 0, {"a.tif": {}}))
    first.add(*shard(tmp_path, 1, {"b.tif": {}}))
    damage(tmp_path)
    again = plan_and_journal(tmp_path, **options)
    assert again.num_samples == kept and len(list(again.lines())) == kept // 2
    assert len(list(tmp_path.glob("*.npz"))) == kept // 2


def test_centres_lie_inside_their_objects():
    labels = np.zeros((9, 9), np.int32)
    labels[1:4, 1:4] = 7  # centroid (2, 2)
    labels[5:9, 2:9] = 3
    labels[5:8, 3:8] = 0  # a U: its centroid is in the hole, so a pixel of it nearby is taken
    found = centres(labels, np.where(labels == 7, 2, 1))
    assert found.tolist()[1] == [2, 2, 2] and labels[tuple(found[0, :2])] == 3 and found[0, 2] == 1
    assert centres(np.zeros((4, 4), np.int32)).shape == (0, 3)


def test_a_journal_ends_before_what_a_power_failure_left(tmp_path):
    first = plan_and_journal(tmp_path)
    first.add(*shard(tmp_path, 0))
    for rubbish in (b"\0\0\0\0\n", b"\xff\xfe\n", b"[1]\n", b'{"shard": {}}\n'):
        path = tmp_path / "journal.jsonl"
        path.write_bytes(path.read_bytes() + rubbish)
        again = plan_and_journal(tmp_path)
        assert again.num_samples == 2 and len(list(again.lines())) == 1
