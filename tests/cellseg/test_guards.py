import keras
import numpy as np
import pytest

from cellseg.callbacks import NotFiniteError, Position, Warnings
from cellseg.guards import (
    CollapseGuard,
    DiskSpace,
    Divergence,
    FiniteLoss,
    SmallValidation,
    TimeBudget,
    check_disk,
    check_held_out,
    jackknife_error,
)
from cellseg.thresholds import ThresholdCurve
from pipelines.errors import InputError
from tests.cellseg.test_callbacks import judge


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda mask: 0.2 * mask, "almost nothing but background"),
        (lambda mask: 0.6 + 0.3 * mask, "almost everything foreground"),
        (lambda mask: np.full(mask.shape, 0.4), "the same everywhere"),
    ],
)
def test_a_collapse_is_said_loudly_after_three_epochs(capsys, answer, said):
    validation, _ = judge(answer)
    warnings = Warnings()
    guard = CollapseGuard(validation, warnings, patience=3)
    for epoch in range(2):
        guard.on_epoch_end(epoch)
    assert not warnings.messages
    guard.on_epoch_end(2)
    assert len(warnings.messages) == 1 and said in warnings.messages[0]
    assert "train.learning_rate" in warnings.messages[0]
    assert said in capsys.readouterr().err
    guard.on_epoch_end(3)
    assert len(warnings.messages) == 1  # said once


def test_a_healthy_network_is_left_alone(capsys):
    validation, _ = judge(lambda mask: 0.1 + 0.8 * mask)
    warnings = Warnings()
    guard = CollapseGuard(validation, warnings)
    for epoch in range(10):
        guard.on_epoch_end(epoch)
    assert not warnings.messages and not capsys.readouterr().err


def test_two_bad_epochs_with_a_good_one_between_are_no_collapse():
    bad, _ = judge(lambda mask: 0 * mask)
    good, _ = judge(lambda mask: 0.9 * mask)
    warnings = Warnings()
    guard = CollapseGuard(bad, warnings, patience=3)
    for epoch, validation in enumerate([bad, bad, good, bad, bad]):
        guard._validation = validation
        guard.on_epoch_end(epoch)
    assert not warnings.messages


def test_recovery_is_said():
    bad, _ = judge(lambda mask: 0 * mask)
    good, _ = judge(lambda mask: 0.9 * mask)
    warnings = Warnings()
    guard = CollapseGuard(bad, warnings, patience=1)
    guard.on_epoch_end(0)
    guard._validation = good
    guard.on_epoch_end(1)
    assert "recovered" in warnings.messages[1]


class Model:
    """What guards ask of a model."""

    stop_training = False


def budget_of(hours, times, monkeypatch):
    clock = iter(times)
    monkeypatch.setattr("cellseg.guards.time.monotonic", lambda: next(clock))
    budget = TimeBudget(hours)
    budget.set_model(Model())
    budget.on_train_begin()
    return budget


def test_the_time_budget_stops_before_an_epoch_that_would_not_fit(monkeypatch):
    budget = budget_of(390 / 3600, [0.0, 100.0, 200.0, 300.0], monkeypatch)
    stops = []
    for epoch in range(3):
        budget.on_epoch_end(epoch)
        stops.append(budget.model.stop_training)
    assert stops == [False, False, True]  # after 300 s another 100 s would end at 400


def test_a_time_budget_spans_several_phases_and_not_what_lies_between(monkeypatch):
    budget = budget_of(300 / 3600, [0.0, 100.0, 950.0, 1060.0], monkeypatch)
    budget.on_epoch_end(0)
    assert not budget.spent
    budget.on_train_begin()  # at 950
    budget.on_epoch_end(1)  # 110 s later: 210 s of training, and an epoch takes 110
    assert budget.spent and budget.seconds == 210


def test_an_epoch_is_cut_short_where_only_its_end_still_fits(monkeypatch):
    # Steps at 10, 20, 30; the epoch's end takes until 50; then steps at 60, 70, 75.
    budget = budget_of(94 / 3600, [0.0, 10.0, 20.0, 30.0, 50.0, 60.0, 70.0, 75.0], monkeypatch)
    for step in range(3):
        budget.on_train_batch_end(step)
    budget._longest = 0.0  # as if another epoch would fit
    budget.limit = None
    budget.on_epoch_end(0)
    budget.limit = 94.0
    stops = []
    for step in range(3):
        budget.on_train_batch_end(step)
        stops.append(budget.model.stop_training)
    assert stops == [False, False, True]  # at 75 s the end, 20 s, would be over at 95


@pytest.mark.parametrize(("loss", "said"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_a_loss_that_is_not_finite_ends_the_training(loss, said):
    position = Position(5)
    guard = FiniteLoss(position)
    guard.set_model(Model())
    position.begin(2, 3)
    guard.on_train_batch_end(0, {"loss": 0.4})
    position.on_train_batch_end(0)
    with pytest.raises(NotFiniteError, match=f"The loss is {said} in step 4 of epoch 3"):
        guard.on_train_batch_end(1, {"loss": loss})


def diverge(losses, *, patience=3):
    warnings = Warnings()
    guard = Divergence(warnings, patience=patience)
    for epoch, loss in enumerate(losses):
        guard.on_epoch_end(epoch, {"loss": loss})
    return warnings.messages


def test_a_rising_loss_is_said_with_its_numbers(capsys):
    # First 1, lowest 0.2: above (1 + 0.2) / 2 = 0.6 counts.
    (message,) = diverge([1.0, 0.5, 0.2, 0.61, 0.7, 0.9, 1.5])
    assert "up to epoch 6" in message and "now 0.9" in message and "lowest was 0.2" in message
    assert "first epoch's 1" in message and "train.learning_rate" in message


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 0.5, 0.2, 0.59, 0.59, 0.59, 0.59],  # half of the gain is left
        [1.0, 0.5, 0.2, 0.7, 0.7, 0.3, 0.7, 0.7],  # never three in a row
        [0.5, 0.52, 0.55, 0.5, 0.58, 0.59, 0.59],  # learns nothing, by less than a fifth
    ],
)
def test_a_loss_that_goes_up_and_down_is_no_divergence(losses):
    assert not diverge(losses)


def curve(mask, probability):
    one = ThresholdCurve()
    one.add(np.asarray(mask, bool), np.asarray(probability, float))
    return one


def test_the_jackknife_error_is_that_of_leaving_images_out():
    # Hits, drawn and true pixels at every threshold: (4, 4, 4) and (0, 4, 4), so without one image Dice is 0 or 1.
    curves = [curve([[1] * 4], [[1.0] * 4]), curve([[1] * 4 + [0] * 4], [[0.0] * 4 + [1.0] * 4])]
    # sqrt(1 / 2 * (0.5**2 + 0.5**2)) = 0.5
    assert jackknife_error(curves) == pytest.approx(0.5, abs=0.01)
    assert jackknife_error([curves[0]] * 3) == 0
    assert jackknife_error(curves[:1]) == 0  # nothing is known


def test_a_validation_split_of_few_different_images_is_said_once():
    validation, _ = judge(lambda mask: 0.9 * mask)
    validation.curves = [curve([[1] * 4], [[1.0] * 4]), curve([[1] * 4 + [0] * 4], [[0.0] * 4 + [1.0] * 4])]
    warnings = Warnings()
    guard = SmallValidation(validation, warnings)
    for epoch in range(4):
        guard.on_epoch_end(epoch)
    assert not warnings.messages
    guard.on_epoch_end(4)
    guard.on_training_over()
    (message,) = warnings.messages
    assert "standard error of 0.5" in message and "(2 images, jackknife)" in message and "split.validation" in message


def test_a_short_training_that_was_resumed_at_its_end_still_says_so():
    validation, _ = judge(lambda mask: 0.9 * mask)
    validation.curves = [curve([[1] * 4], [[1.0] * 4]), curve([[1] * 4 + [0] * 4], [[0.0] * 4 + [1.0] * 4])]
    before, after = SmallValidation(validation, Warnings()), SmallValidation(None, Warnings())
    before.on_epoch_end(0)
    for name in SmallValidation.kept:
        setattr(after, name, getattr(before, name))
    before.on_training_over()
    after.on_training_over()
    assert after._warnings.messages == before._warnings.messages != []


def test_alike_validation_images_are_enough():
    validation, _ = judge(lambda mask: 0.9 * mask)
    warnings = Warnings()
    guard = SmallValidation(validation, warnings)
    guard.on_epoch_end(0)
    guard.on_training_over()
    assert not warnings.messages


@pytest.mark.parametrize(("split", "advice"), [("validation", "are chosen by them"), ("test", "--folds 5 tests")])
@pytest.mark.parametrize(
    ("images", "cells", "said"), [(1, 40, "1 image with 40 cells"), (3, 1, "3 images with 1 cell;"), (2, 5, "")]
)
def test_a_split_too_small_for_its_purpose_is_said(split, advice, images, cells, said):
    warnings = Warnings()
    check_held_out(split, {"images": images, "objects": cells}, warnings)
    assert len(warnings.messages) == bool(said)
    assert all(f"The {split} split has {said}" in one and advice in one for one in warnings.messages)


def full_disk(monkeypatch, free):
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr("cellseg.guards.shutil.disk_usage", lambda folder: usage)


def network():
    inputs = keras.layers.Input((8, 8, 1))
    return keras.Model(inputs, keras.layers.Conv2D(4, 5)(inputs))  # 104 weights of 4 bytes


def test_a_training_does_not_begin_on_a_full_disk(tmp_path, monkeypatch):
    needed = 10 * 104 * 4 + 100 * 2**20
    full_disk(monkeypatch, needed)
    check_disk(tmp_path / "not" / "there", network())
    full_disk(monkeypatch, needed - 1)
    with pytest.raises(InputError, match=r"has 105 MB free.* may need 105 MB.*--out"):
        check_disk(tmp_path / "not" / "there", network())


def test_a_training_ends_before_its_disk_is_full(tmp_path, monkeypatch):
    model = network()
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    guard = DiskSpace(tmp_path)
    guard.set_model(model)
    # Weights twice, momentum-free SGD: an int32 count and the learning rate.
    needed = 2 * 104 * 4 + sum(variable.value.numpy().nbytes for variable in model.optimizer.variables) + 100 * 2**20
    full_disk(monkeypatch, needed)
    guard.on_epoch_end(0)
    full_disk(monkeypatch, needed - 1)
    with pytest.raises(InputError, match=r"nearly full: 105 MB are free.*cellseg-train --resume"):
        guard.on_epoch_end(0)
