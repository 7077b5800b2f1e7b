import concurrent.futures

import numpy as np
import pytest

from pipelines.augment import Augmenter
from pipelines.errors import InputError

STEPS = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "RandomRotate90", "p": 1.0}]


def scene():
    labels = np.arange(1, 101, dtype=np.int32).reshape(10, 10) * 700  # ids beyond 16 bits
    return (labels / labels.max()).astype(np.float32)[..., None], labels


def test_image_and_labels_move_together_and_ids_keep_their_meaning():
    image, labels = scene()
    augment = Augmenter(STEPS)
    moved = 0
    for seed in range(20):
        new_image, maps = augment(image, {"labels": labels}, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(new_image[..., 0] * labels.max(), maps["labels"], rtol=1e-6)
        assert maps["labels"].dtype == np.int32
        moved += not np.array_equal(maps["labels"], labels)
    assert moved > 10


def test_the_answer_depends_on_the_seed_alone():
    image, labels = scene()
    augment = Augmenter(STEPS)

    def run(seed):
        return augment(image, {"labels": labels}, rng=np.random.default_rng(seed))[1]["labels"].tobytes()

    alone = [run(seed) for seed in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(40))) == alone
    assert len(set(alone)) == 8  # the symmetries of a square


def test_bool_maps_stay_bool():
    image, labels = scene()
    _, maps = Augmenter(STEPS)(image, {"ignore": labels > 700}, rng=np.random.default_rng(0))
    assert maps["ignore"].dtype == bool and maps["ignore"].sum() == 99


def test_nothing_to_do():
    image, labels = scene()
    new_image, maps = Augmenter([])(image, {"labels": labels}, rng=np.random.default_rng(0))
    assert new_image is image and maps["labels"] is labels


def test_an_unknown_transform_names_the_nearest():
    with pytest.raises(
        InputError, match=r"augment\[1\]: albumentations has no transform 'HorizontalFlop'.*'HorizontalFlip'"
    ):
        Augmenter([STEPS[0], {"name": "HorizontalFlop"}])


def test_an_unknown_keyword_names_the_known_ones():
    with pytest.raises(InputError, match=r"augment\[0\]: HorizontalFlip takes no 'probability'.*It takes: p"):
        Augmenter([{"name": "HorizontalFlip", "probability": 0.5}])
