import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipelines.dataset import ShardReader
from pipelines.errors import InputError, InterruptionError
from pipelines.prepare import _from_anywhere, prepare
from pipelines.shards.manifest import Manifest
from tests.datasets import config, discs, picture, write_ctc, write_pairs, write_shards

PAIRS = {"images": None, "labels": None}


def run(source, out, **options):
    prepare(source, out, config=options.pop("config", config()), options=PAIRS, **options)
    return Manifest.read(out)


def test_every_pixel_arrives(tmp_path):
    folder = write_shards(tmp_path, 10, dtype="uint16")
    reader = ShardReader(folder)
    seen = 0
    for split in ("train", "validation", "test"):
        for sample, record in reader.split(split):
            raw = tmp_path / "raw"
            np.testing.assert_array_equal(
                record["image"][..., 0], tifffile.imread(raw / f"images/{sample['name']}.tif")
            )
            np.testing.assert_array_equal(record["labels"], tifffile.imread(raw / f"labels/{sample['name']}.tif"))
            assert record["image"].dtype == np.uint16
            seen += 1
    assert seen == 10


def test_the_manifest_says_what_is_inside(tmp_path):
    folder = write_shards(tmp_path, 10)
    content = json.loads((folder / "manifest.json").read_text())
    assert content["version"] == 2 and len(content["config_hash"]) == 16
    assert {split: len(names) for split, names in content["splits"].items()} == {"train": 6, "validation": 2, "test": 2}
    for shard in content["shards"]:
        assert shard["samples"] > 0 and len(shard["sha256"]) == 64 and (folder / shard["file"]).is_file()
    train = content["statistics"]["train"]
    assert train["images"] == 6 and train["objects"] == 24
    sample = content["samples"][0]
    image = tifffile.imread(tmp_path / "raw" / "images" / f"{sample['name']}.tif")
    assert sample["shape"] == [64, 64, 1] and sample["dtype"] == "uint8" and sample["objects"] == 4
    assert sample["contrast"] == [float(np.percentile(image, 2)), float(np.percentile(image, 98))]
    assert "all background scores" in content["advice"][0]
    assert (folder / "preview.png").stat().st_size > 5000


def test_a_name_that_is_no_text_is_refused(tmp_path):
    source = write_pairs(tmp_path / "raw", 6)
    first = sorted(path.name for path in (source / "images").iterdir())[0]
    for folder in ("images", "labels"):
        os.rename(source / folder / first, os.fsencode(source / folder) + b"/a\xff.tif")
    with pytest.raises(InputError, match=r"images.a\\xff.tif' is no UTF-8 .*Rename"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["npz", "tfrecord"])
def test_several_workers_write_the_same_bytes(tmp_path, format):
    source = write_pairs(tmp_path / "raw", 6)
    for workers in (1, 2):
        run(source, tmp_path / str(workers), config=config(format=format), workers=workers)
    for path in (tmp_path / "1").glob("*.*"):
        if path.suffix != ".yaml":
            assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes(), path.name


def test_a_sequence_split_by_blocks_has_gaps(tmp_path):
    source = write_ctc(tmp_path / "raw", 20)
    settings = config(layout="ctc", by="block", train="0-9", validation="12-14", test="17-19", gap=2)
    options = {"truth": "silver", "sequence": None}
    prepare(source, tmp_path / "out", config=settings, options=options)
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.splits["validation"] == ["01/t012", "01/t013", "01/t014"]
    assert len(manifest.samples) == 16  # the frames of the gaps are in no shard


def test_an_existing_folder_is_kept_unless_asked(tmp_path):
    source = write_pairs(tmp_path / "raw", 6)
    run(source, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="out exists already.*--overwrite"):
        run(source, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    run(source, tmp_path / "out", overwrite=True)


def test_overwrite_does_not_replace_a_folder_of_something_else(tmp_path):
    source = write_pairs(tmp_path / "raw", 6)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"will not replace .*thesis: it holds no manifest.json"):
        run(source, tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def failing(tmp_path, break_it, message, **options):
    """Break a data set, prepare it, and see that the message is right and nothing is left."""
    source = write_pairs(tmp_path / "raw", 6)
    break_it(source)
    with pytest.raises((InputError, FileNotFoundError), match=message):
        run(source, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_a_truncated_image_is_named(tmp_path):
    def cut(source):
        path = source / "images" / "cell03.tif"
        path.write_bytes(path.read_bytes()[:1000])

    failing(tmp_path, cut, "cell03.tif")


def test_different_sizes_are_named(tmp_path):
    def shrink(source):
        tifffile.imwrite(source / "labels" / "cell03.tif", np.zeros((32, 64), np.uint16))

    failing(tmp_path, shrink, "cell03.*64x64.*32x64")


def test_nan_is_named(tmp_path):
    def poison(source):
        image = np.zeros((64, 64), np.float32)
        image[3, 4] = np.nan
        tifffile.imwrite(source / "images" / "cell03.tif", image)

    failing(tmp_path, poison, "cell03.*1 pixels are NaN")


def test_channels_that_differ_are_named(tmp_path):
    def colour(source):
        image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        tifffile.imwrite(source / "images" / "cell03.tif", image, photometric="rgb")

    failing(tmp_path, colour, r"channels, but .* has \d.*data.channels")


def test_duplicates_in_two_splits_are_refused(tmp_path):
    source = write_ctc(tmp_path / "raw", 20)
    (source / "01" / "t018.tif").write_bytes((source / "01" / "t002.tif").read_bytes())
    settings = config(layout="ctc", by="block", train="0-9", validation="12-14", test="17-19", gap=2)
    with pytest.raises(InputError, match="01/t002.*01/t018"):
        prepare(source, tmp_path / "out", config=settings, options={"truth": "silver", "sequence": None})


def test_a_random_split_keeps_copies_together(tmp_path):
    source = write_pairs(tmp_path / "raw", 9)
    for number in range(1, 5):
        for sub in ("images", "labels"):
            (source / sub / f"cell{number:02d}.tif").write_bytes((source / sub / "cell00.tif").read_bytes())
    for seed in range(3):
        manifest = run(source, tmp_path / str(seed), config=config(seed=seed))
        copies = {sample["split"] for sample in manifest.samples if sample["name"] <= "cell04"}
        assert len(copies) == 1


def test_empty_frames_are_no_duplicates(tmp_path):
    source = write_ctc(tmp_path / "raw", 20)
    for frame in (2, 18):
        tifffile.imwrite(source / "01" / f"t{frame:03d}.tif", np.zeros((64, 64), np.uint8))
    settings = config(layout="ctc", by="block", train="0-9", validation="12-14", test="17-19", gap=2)
    prepare(source, tmp_path / "out", config=settings, options={"truth": "silver", "sequence": None})


def test_an_empty_split_is_named(tmp_path):
    failing(tmp_path, lambda source: None, "validation", config=config(train=1.0, validation=0.0, test=0.0))


def test_shards_of_another_configuration_name_the_keys(tmp_path):
    folder = write_shards(tmp_path, 6)
    with pytest.raises(InputError, match=r"another configuration \(split.seed was 0, is 5\).*--overwrite"):
        Manifest.read(folder).check_config(config(seed=5), folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 2', '"version": 9', "is of version 9"),
        ('"seed": 0', '"seed": 1', "its content was changed"),
        ('"format"', '"farmat"', "damaged"),
        ("{", "", "damaged"),
        ("train-00000.npz", "../train-00000.npz", "lies outside its folder"),
    ],
)
def test_a_damaged_manifest_is_explained(tmp_path, old, new, message):
    folder = write_shards(tmp_path, 6)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        Manifest.read(folder)


def test_a_folder_without_manifest(tmp_path):
    with pytest.raises(InputError, match=r"holds no manifest.json.*cellseg-prepare"):
        Manifest.read(tmp_path)


def test_the_starter_is_valid_and_has_values_from_the_data(tmp_path):
    from cellseg import experiment as experiments

    folder = write_shards(tmp_path, 10)
    experiment = experiments.read(folder / "experiment.yaml")
    assert experiment.shards().resolve() == folder
    assert experiment.train.patch == 64 and experiment.sources() == [tmp_path / "raw"]
    assert experiment.data_config()["split"]["train"] == 0.6
    text = (folder / "experiment.yaml").read_text()
    assert "all background scores" in text and "6 training, 2 validation and 2 test images" in text


def test_the_starter_cuts_cells_that_touch(tmp_path):
    from cellseg import experiment as experiments

    source = write_pairs(tmp_path / "raw", 6)
    for path in (source / "labels").iterdir():
        labels = discs(0)
        tifffile.imwrite(path, np.where(labels == 1, 1 + 9 * (np.indices(labels.shape)[0] % 12 > 5), labels))
    run(source, tmp_path / "out")
    experiment = experiments.read(tmp_path / "out" / "experiment.yaml")
    assert experiment.instances["name"] == "watershed" and experiment.tuning.measure == "average_precision_mean"
    assert experiment.tuning.instances["depth"] == sorted(experiment.tuning.instances["depth"])
    assert "of the cells touch another" in (tmp_path / "out" / "experiment.yaml").read_text()
    whole = experiments.read(write_shards(tmp_path / "apart", 6) / "experiment.yaml")
    assert whole.instances["name"] == "components" and not whole.tuning.instances


def test_no_space_left_leaves_nothing(tmp_path):
    # A limit on the size of a file stands for a full disk: the write call fails in the same place.
    source = write_pairs(tmp_path / "raw", 6, side=256)
    program = (
        "import resource, sys\n"
        "from cellseg.cli import prepare, shell\n"
        "import tensorflow\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for format in ('npz', 'tfrecord'):\n"
        f"    arguments = [{str(source)!r}, '--layout', 'pairs', '--format', format, '--out', "
        f"{str(tmp_path)!r} + '/' + format]\n"
        "    print(format, shell.run(prepare.prepare, arguments))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.stdout == "npz 2\ntfrecord 2\n", done.stderr
    assert done.stderr.count("File too large") == 2 and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_labels_beyond_16_bits_keep_their_ids(tmp_path):
    source = write_pairs(tmp_path / "raw", 6)
    labels = discs(0)
    for number in range(6):
        tifffile.imwrite(source / "labels" / f"cell{number:02d}.tif", (labels * 100_000).astype(np.uint32))
        tifffile.imwrite(source / "images" / f"cell{number:02d}.tif", picture(labels, number))
    run(source, tmp_path / "out")
    for _, record in ShardReader(tmp_path / "out").split("train"):
        np.testing.assert_array_equal(record["labels"], labels * 100_000)


def test_a_stack_is_not_torn_between_splits(tmp_path):
    source = tmp_path / "raw"
    for sub in ("images", "labels"):
        (source / sub).mkdir(parents=True)
    for number in range(6):
        stack = np.stack([np.roll(discs(number), page, axis=1) for page in range(3)])
        images = np.stack([picture(one, number) for one in stack])
        tifffile.imwrite(source / "images" / f"s{number}.tif", images, photometric="minisblack")
        tifffile.imwrite(source / "labels" / f"s{number}.tif", stack.astype(np.uint16), photometric="minisblack")
    manifest = run(source, tmp_path / "out")
    assert len(manifest.samples) == 18
    for number in range(6):
        assert len({sample["split"] for sample in manifest.samples if sample["source"] == f"s{number}"}) == 1


def test_mixed_bit_depths_are_refused(tmp_path):
    def deepen(source):
        path = source / "images" / "cell03.tif"
        tifffile.imwrite(path, tifffile.imread(path).astype(np.uint16) * 257)

    failing(tmp_path, deepen, r"is uint\d+, but cell\d\d is uint\d+: images of different bit depth")


class Stop(BaseException):
    """Stands for a kill: no handler of the program catches it."""


def stopped(source, out, after, monkeypatch, **options):
    """Prepare with one sample a shard, and stop when `after` samples have been written."""
    monkeypatch.setattr("pipelines.shards.writing.SHARD_BYTES", 1)

    def progress(items, total):
        for number, item in enumerate(items):
            if number == after:
                raise Stop
            yield item

    with pytest.raises(Stop):
        run(source, out, progress=progress, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".yaml"}


@pytest.mark.parametrize(("address", "error"), [("tcp://127.0.0.1:1", "No Dask scheduler"), (None, "gone for lunch")])
def test_what_was_prepared_outlives_a_cluster_that_has_gone(tmp_path, monkeypatch, address, error):
    source = write_pairs(tmp_path / "raw", 10)
    stopped(source, tmp_path / "out", 4, monkeypatch)

    def lost(*arguments):
        raise InterruptionError("gone for lunch")

    with monkeypatch.context() as patch, pytest.raises(InputError, match=error):
        patch.setattr("pipelines.prepare.loaded", lost)
        run(source, tmp_path / "out", scheduler=address)
    totals = []
    run(source, tmp_path / "out", progress=lambda items, total: totals.append(total) or items)
    assert totals == [7]


def test_places_for_a_cluster_hold_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(write_pairs(tmp_path / "raw", 1).parent)
    given = {"images": Path("images"), "labels": Path("raw/labels"), "series": False, "truth": None}
    sources, options = _from_anywhere([Path("raw")], given)
    assert sources == [tmp_path / "raw"]
    # `images` lies in the source, where a relative name is looked for first.
    assert options == {**given, "labels": tmp_path / "raw" / "labels"}


@pytest.mark.parametrize("format", ["npz", "tfrecord"])
def test_a_restart_continues_behind_the_whole_shards(tmp_path, monkeypatch, format):
    source = write_pairs(tmp_path / "raw", 10)
    settings = config(format=format)
    stopped(source, tmp_path / "out", 4, monkeypatch, config=settings)
    partial = tmp_path / ".out.partial"
    assert not (tmp_path / "out").exists() and len(list(partial.glob("train-*"))) == 4
    before = {path.name: path.stat().st_mtime_ns for path in sorted(partial.glob("train-*"))[:3]}
    totals = []
    run(source, tmp_path / "out", config=settings, progress=lambda items, total: totals.append(total) or items)
    assert totals == [7]  # the fourth shard was not known to be whole
    for name, time in before.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == time
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]
    run(source, tmp_path / "again", config=settings)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


@pytest.mark.parametrize(("settings", "expected"), [(config(seed=1), 10), (config(), 9)])
def test_a_restart_does_not_trust_other_settings_or_changed_images(tmp_path, monkeypatch, settings, expected):
    source = write_pairs(tmp_path / "raw", 10)
    stopped(source, tmp_path / "out", 4, monkeypatch)
    if expected == 9:  # the second whole shard is of an image that has changed
        second = json.loads((tmp_path / ".out.partial" / "journal.jsonl").read_text().splitlines()[2])
        path = source / next(name for name in second["files"] if name.startswith("images/"))
        image = tifffile.imread(path)
        image[0, 0] += 1
        tifffile.imwrite(path, image)
    totals = []
    run(source, tmp_path / "out", config=settings, progress=lambda items, total: totals.append(total) or items)
    assert totals == [expected]
    run(source, tmp_path / "again", config=settings)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_two_processes_do_not_write_one_folder(tmp_path):
    source = write_pairs(tmp_path / "raw", 6)

    def progress(items, total):
        with pytest.raises(InputError, match="Another process is writing .*out"):
            run(source, tmp_path / "out")
        return items

    run(source, tmp_path / "out", progress=progress)


FLIPS = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "RandomRotate90", "p": 1.0}]


def expanded(size, seed=0):
    settings = config()
    settings["data"]["expand"] = size
    return {**settings, "expansion": {"augment": FLIPS, "seed": seed}}


def test_expanding_adds_augmented_copies_to_the_training_split_alone(tmp_path):
    source = write_pairs(tmp_path / "raw", 10, dtype="uint16")
    manifest = run(source, tmp_path / "out", config=expanded(20))
    assert {split: len(names) for split, names in manifest.splits.items()} == {"train": 20, "validation": 2, "test": 2}
    assert manifest.statistics["train"]["images"] == 6  # copies are no new images
    copies = [name for name in manifest.splits["train"] if "+" in name]
    assert len(copies) == 14 and {name.split("+")[1] for name in copies} == {"0001", "0002", "0003"}
    reader = ShardReader(tmp_path / "out")
    records = {sample["name"]: record for sample, record in reader.split("train")}
    for name in copies:
        original, copy = records[name.split("+")[0]], records[name]
        assert copy["image"].dtype == np.uint16
        low, high = original["contrast"]
        clipped = np.rint(np.clip(original["image"], low, high)).astype(int)
        turned = [np.rot90(one, k) for one in (clipped, clipped[:, ::-1]) for k in range(4)]
        # One of the eight ways to flip and turn, to a grey value; and the labels went the same way.
        ways = [k for k, one in enumerate(turned) if abs(one - copy["image"].astype(int)).max() <= 1]
        labels = [np.rot90(one, k) for one in (original["labels"], original["labels"][:, ::-1]) for k in range(4)]
        assert len(ways) == 1
        np.testing.assert_array_equal(labels[ways[0]], copy["labels"])


def test_expanding_is_reproducible_and_follows_the_seed(tmp_path):
    source = write_pairs(tmp_path / "raw", 10)
    for name, seed, workers in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        run(source, tmp_path / name, config=expanded(12, seed), workers=workers)
    shards = [(tmp_path / name / "train-00000.npz").read_bytes() for name in "abc"]
    assert shards[0] == shards[1] != shards[2]


def test_expanding_to_fewer_is_an_error(tmp_path):
    failing(tmp_path, lambda source: None, "data.expand is 3, but the training split holds 4", config=expanded(3))


def test_several_folders_are_one_data_set(tmp_path):
    sources = [write_pairs(tmp_path / name, 5) for name in ("a", "b")]
    # The same discs lie in both, so the pixels of one folder are changed.
    for path in (tmp_path / "b" / "images").iterdir():
        tifffile.imwrite(path, tifffile.imread(path)[::-1])
    for path in (tmp_path / "b" / "labels").iterdir():
        tifffile.imwrite(path, tifffile.imread(path)[::-1])
    manifest = run(sources, tmp_path / "out")
    assert sorted(sample["name"] for sample in manifest.samples)[4:6] == ["a/cell04", "b/cell00"]
    assert {sample["source"] for sample in manifest.samples} == {"a", "b"}
    assert "a/images/cell00.tif" in manifest.files


def test_two_folders_of_one_name_are_refused(tmp_path):
    sources = [write_pairs(tmp_path / place / "cells", 4) for place in ("x", "y")]
    with pytest.raises(InputError, match="x/cells and .*y/cells have the same name, 'cells'"):
        run(sources, tmp_path / "out")
