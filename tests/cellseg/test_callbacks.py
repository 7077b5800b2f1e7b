import keras
import numpy as np
import pytest

from cellseg.callbacks import AuxiliaryWeight, ValidationImage, WholeImageValidation
from pipelines.errors import InputError
from tests.datasets import discs


def judge(answer, *, num=2):
    """A validation whose network gives `answer(mask)`, and its logs after one epoch."""
    masks = [discs(seed) > 0 for seed in range(num)]
    images = [ValidationImage(str(n), np.zeros((64, 64, 1)), mask, (0, 1)) for n, mask in enumerate(masks)]
    validation = WholeImageValidation(lambda: images, lambda image: answer(image.mask).astype(np.float32)[..., None])
    logs = {}
    validation.on_epoch_end(0, logs)
    return validation, logs


def test_whole_images_are_judged_at_the_best_threshold_and_at_a_half():
    # 0.3 on every cell: perfect at threshold 0.3, nothing at 0.5.
    _, logs = judge(lambda mask: 0.3 * mask)
    assert logs["val_dice"] == 1 and logs["val_dice_half"] == 0 and logs["val_foreground_ratio"] == 0


def test_unannotated_pixels_are_not_judged():
    mask = discs(0) > 0
    image = ValidationImage("a", np.zeros((64, 64, 1)), mask, (0, 1), ignore=mask)
    validation = WholeImageValidation(lambda: [image], lambda image: np.zeros((64, 64, 1), np.float32))
    logs = {}
    validation.on_epoch_end(0, logs)
    assert np.isnan(logs["val_dice"])  # nothing annotated is foreground


def test_an_answer_of_nan_stops_the_training():
    with pytest.raises(InputError, match=r"answers NaN after epoch 1.*train.learning_rate"):
        judge(lambda mask: np.full(mask.shape, np.nan))


def test_classes_are_judged_by_the_mean_of_their_dice():
    mask = np.array([[True, True, True, False, True]])
    kinds = np.array([[1, 1, 2, 0, 0]])  # the last cell's class is not known
    answer = np.zeros((1, 5, 3), np.float32)
    for column, kind in enumerate([1, 2, 2, 0, 2]):
        answer[0, column, kind] = 1
    image = ValidationImage("a", np.zeros((1, 5, 1)), mask, (0, 1), classes=kinds)
    validation = WholeImageValidation(lambda: [image], lambda image: answer, num_classes=2)
    logs = {}
    validation.on_epoch_end(0, logs)
    # class 1: 2 * 1 / (2 + 1); class 2: 2 * 1 / (1 + 2), the cell of unknown class left out
    assert logs["val_class_dice"] == pytest.approx(2 / 3)
    assert validation.monitor == "val_class_dice" and logs["val_dice"] == 1.0


def test_a_class_that_validation_lacks_does_not_count():
    mask, kinds = np.array([[True, False]]), np.array([[1, 0]])
    answer = np.array([[[0, 1, 0], [0, 0, 1]]], np.float32)
    image = ValidationImage("a", np.zeros((1, 2, 1)), mask, (0, 1), classes=kinds)
    validation = WholeImageValidation(lambda: [image], lambda image: answer, num_classes=2)
    logs = {}
    validation.on_epoch_end(0, logs)
    assert logs["val_class_dice"] == 1.0


@pytest.mark.parametrize(("decay", "expected"), [(0.5, [2.0, 1.0, 0.5]), (None, [2.0, 0.2, 0.02])])
def test_the_auxiliary_weight_falls(decay, expected):
    class Model:
        auxiliary_weight = keras.Variable(9.0)

    falling = AuxiliaryWeight(2.0, decay, 3)
    falling.set_model(Model())
    seen = []
    for epoch in range(3):
        falling.on_epoch_begin(epoch)
        logs = {}
        falling.on_epoch_end(epoch, logs)
        seen.append(float(Model.auxiliary_weight))
        assert logs["auxiliary_weight"] == pytest.approx(seen[-1])
    assert seen == pytest.approx(expected)
