import re

import numpy as np
import pytest

from pipelines.alignment import shift_of
from tests.datasets import discs, picture, write_shards


def pairs(shift=(0, 0), *, num=4, side=160, noise=0.0):
    """Discs, and their truth moved by `shift` (rows, columns)."""
    rng = np.random.default_rng(0)
    for seed in range(num):
        labels = discs(seed, side=side, num=8, radius=9)
        image = picture(labels, seed).astype(np.float32) + noise * rng.normal(size=labels.shape)
        yield image[..., None], np.roll(labels, shift, (0, 1))


@pytest.mark.parametrize("shift", [(0, 0), (1, -1), (2, 0)])
def test_truth_in_its_place_is_not_suspicious(shift):
    assert not shift_of(pairs(shift)).suspicious


@pytest.mark.parametrize("shift", [(4, 0), (-3, 5), (0, -20)])
def test_a_shift_is_found_with_its_way_back(shift):
    found = shift_of(pairs(shift))
    assert found.suspicious and (found.rows, found.columns) == pytest.approx((-shift[0], -shift[1]), abs=1)
    assert found.images == 4 and found.agree == 4 and found.after > 1.3 * found.before
    assert f"moved by {found.rows} rows and {found.columns} columns" in found.told()


def test_truth_of_other_images_is_no_shift():
    image, labels = zip(*pairs(num=6), strict=True)
    assert not shift_of(zip(image, labels[1:] + labels[:1], strict=True)).suspicious


def test_noise_is_no_shift():
    rng = np.random.default_rng(1)
    assert not shift_of((rng.random((160, 160)), labels) for _, labels in pairs(num=8)).suspicious


def test_two_images_are_too_few():
    found = shift_of(pairs((0, 9), num=2))
    assert found.columns == -9 and not found.suspicious


def test_empty_and_small_images_are_passed_over():
    empty = ((image, 0 * labels) for image, labels in pairs())
    assert shift_of(empty) is None
    assert shift_of(pairs(side=95)) is None
    assert shift_of(pairs(side=96, num=1)).images == 1


def test_the_middle_of_a_large_image_is_looked_at():
    image, labels = np.full((3000, 1100), 20, np.uint8), np.zeros((3000, 1100), np.int32)
    small = next(pairs((6, 0), side=160))
    image[1400:1560, 500:660], labels[1400:1560, 500:660] = small[0][..., 0], small[1]
    assert shift_of([(image, labels)]).rows == pytest.approx(-6, abs=1)


def test_training_says_it(tmp_path, capsys):
    from cellseg.callbacks import Warnings
    from cellseg.guards import check_alignment
    from pipelines.dataset import ShardReader

    reader = ShardReader(write_shards(tmp_path, 10, side=128))
    warnings = Warnings()
    check_alignment(reader, warnings)
    assert not warnings.messages
    whole = reader.read
    reader.read = lambda sample: {**whole(sample), "labels": np.roll(whole(sample)["labels"], 7, 0)}
    check_alignment(reader, warnings)
    assert re.search("moved by -[678] rows and (-1|0|1) columns", warnings.messages[0])
    assert warnings.messages[0] in capsys.readouterr().err
