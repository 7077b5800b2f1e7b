import itertools
import math

import cv2
import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG as END
from tensorboard.util import tensor_util

from cellseg import dashboard_pictures as pictures
from cellseg.callbacks import ValidationImage
from cellseg.dashboard import PICTURES, SHARE, SUMMARY, TRAIN, VALIDATION, Dashboard, is_due, parameters
from cellseg.dashboard_events import SAMPLE, buckets, precision_and_recall
from cellseg.thresholds import ThresholdCurve
from tests.dashboards import bad, good, patch, train
from tests.datasets import discs
from tests.runs import experiment


def read(folder, run):
    """{tag: [(step, array), ...]} of a run, and its metadata by tag."""
    events = EventAccumulator(str(folder / "runs" / "a" / "tensorboard" / run), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    found = {
        tag: [(one.step, tensor_util.make_ndarray(one.tensor_proto)) for one in events.Tensors(tag)] for tag in tags
    }
    return found, events.SummaryMetadata


def test_figures_after_every_epoch(tmp_path):
    train(tmp_path, [bad, good, bad], seconds=7.0)
    found, _ = read(tmp_path, TRAIN)
    assert [(step, float(value)) for step, value in found["epoch/loss"]] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    assert [float(value) for _, value in found["epoch/learning_rate"]] == [0.5, 0.5, 0.5]
    assert [float(value) for _, value in found["epoch/seconds"]] == [7.0, 7.0, 7.0]
    found, _ = read(tmp_path, VALIDATION)
    dice = [float(value) for _, value in found["epoch/dice"]]
    assert dice[1] == 1 > dice[0] == dice[2]
    # Every threshold above 0.2 and up to 0.8 is right; the one nearest to 0.5 is taken.
    assert float(found["epoch/threshold"][1][1]) == pytest.approx(0.5)
    assert {"epoch/dice_half", "epoch/foreground_ratio"} <= set(found)


def test_hparams_hold_the_experiment_and_the_best_so_far(tmp_path):
    train(tmp_path, [bad, good, bad])
    found, about = read(tmp_path, SUMMARY)
    assert [float(value) for _, value in found["run/best_val_dice"]][1:] == [1, 1]
    assert [float(value) for _, value in found["run/epoch_of_best"]] == [1, 2, 2]
    assert [float(value) for _, value in found["run/minutes"]] == pytest.approx([100 / 60, 200 / 60, 5])
    (tag,) = [tag for tag in found if about(tag).plugin_data.plugin_name == "hparams"]
    start = plugin_data_pb2.HParamsPluginData.FromString(about(tag).plugin_data.content).session_start_info
    assert start.group_name == "runs/a"
    assert (
        start.hparams["train.learning_rate"].number_value == 0.5 and start.hparams["model.name"].string_value == "unet"
    )
    assert not [name for name in start.hparams if "dashboard" in name or name.startswith("data")]


def test_a_training_that_is_over_is_a_success_and_another_is_not(tmp_path):
    board, _ = train(tmp_path, [good])
    assert END not in read(tmp_path, SUMMARY)[0]
    board.over()
    board.on_train_end()
    _, about = read(tmp_path, SUMMARY)
    end = plugin_data_pb2.HParamsPluginData.FromString(about(END).plugin_data.content).session_end_info
    assert end.status == api_pb2.STATUS_SUCCESS and end.end_time_secs > 0


def test_parameters_are_named_as_an_override_names_them():
    augment = [{"name": "HorizontalFlip", "p": 0.25}, {"name": "RandomGamma", "gamma_limit": [70, 140]}]
    found = parameters(experiment(augment=augment, seed=3))
    assert found["augment.0.p"] == 0.25 and found["augment.1.gamma_limit"] == "[70, 140]" and found["seed"] == 3
    assert "train.schedule" not in found and "train.phases" not in found and "weight_map" not in found


def test_the_resolved_experiment_is_a_code_block(tmp_path):
    board, _ = train(tmp_path, [good])
    found, about = read(tmp_path, SUMMARY)
    text = found["experiment.yaml"][0][1].item().decode()
    assert all(line.startswith("    ") for line in text.splitlines())
    assert "\n".join(line[4:] for line in text.splitlines()) + "\n" == board._experiment.to_yaml()
    assert about("experiment.yaml").plugin_data.plugin_name == "text"


def test_pictures_of_input_and_of_answers(tmp_path):
    # Patches 0 to 4 are empty: the first two with a cell are drawn.
    train(tmp_path, [good, bad], pictures=2, example=lambda place: patch(place, empty=range(5)))
    found, about = read(tmp_path, PICTURES)
    answers = {f"image, truth, probability/image{n}" for n in range(2)}
    assert set(found) == {"input/1 cell5", "input/2 cell6", "threshold curve/validation", *answers}
    assert [step for step, _ in found["input/1 cell5"]] == [0]
    for tag, values in found.items():
        for step, (width, height, content) in values:
            drawn = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert drawn.shape == (int(height), int(width), 3), (tag, step)
        assert about(tag).plugin_data.plugin_name == "images"
    assert [step for step, _ in found["image, truth, probability/image0"]] == [1, 2]


def test_without_a_cell_in_reach_empty_patches_are_drawn(tmp_path):
    train(tmp_path, [good], pictures=2, example=lambda place: patch(place, empty=range(99)))
    assert {"input/1 cell0", "input/2 cell1"} <= set(read(tmp_path, PICTURES)[0])


def test_what_is_switched_off_is_not_written(tmp_path):
    train(tmp_path, [good], pictures=0, histograms=False)
    assert not (tmp_path / "runs" / "a" / "tensorboard" / PICTURES).exists()
    assert not [tag for tag in read(tmp_path, TRAIN)[0] if "kernel" in tag]


def test_histograms_of_every_layer_after_every_epoch(tmp_path):
    board, _ = train(tmp_path, [good, good])
    found, about = read(tmp_path, TRAIN)
    kernel = np.asarray(board.model.get_layer("logits").kernel)
    assert [step for step, _ in found["weights logits/kernel"]] == [1, 2]
    values = found["weights logits/kernel"][0][1]
    assert values[:, 2].sum() == kernel.size == 18
    assert values[0, 0] == pytest.approx(kernel.min()) and values[-1, 1] == pytest.approx(kernel.max())
    assert "weights logits/bias" in found and about("weights logits/bias").plugin_data.plugin_name == "histograms"


def test_histograms_and_pictures_take_their_share_of_the_time_at_most(tmp_path, monkeypatch):
    drawn = []

    def slow(self):
        self._spent["pictures"] += 5.0
        drawn.append(self.epochs)
        self.drawn = self.epochs

    monkeypatch.setattr(Dashboard, "_pictures", slow)
    train(tmp_path, [good] * 12, seconds=100.0)
    # 5 s are a hundredth of 500 s: after the first epoch those follow by which 500 s more have passed.
    assert SHARE == 0.01 and drawn == [1, 5, 10, 12]  # the last is drawn when training ends
    assert [step for step, _ in read(tmp_path, TRAIN)[0]["weights logits/kernel"]] == list(range(1, 13))


def test_pictures_come_less_often_as_training_goes_on():
    due = [epoch for epoch in range(1, 1001) if is_due(epoch)]
    assert due[:12] == [*range(1, 13)] and 45 < len(due) < 60
    assert all(later <= earlier * 1.1 + 2 for earlier, later in itertools.pairwise(due))


def test_it_has_no_part_in_a_step():
    per_step = [name for name in vars(Dashboard) if "batch" in name]
    assert per_step == []
    assert all(
        getattr(Dashboard, name) is getattr(keras.callbacks.Callback, name)
        for name in ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    )


def test_a_score_that_is_not_a_number_is_not_the_best(tmp_path):
    board, _ = train(tmp_path, [good])
    validation = board._validation
    board.on_epoch_begin(1)
    board.on_epoch_end(1, {"loss": math.nan, validation.monitor: math.nan})
    assert (board.best, board.best_epoch) == (1.0, 1)


def test_precision_and_recall_by_hand():
    curve = ThresholdCurve()
    probability = np.array([[0.1, 0.3, 0.6, 0.9]], np.float32)
    curve.add(np.array([[False, True, False, True]]), probability)
    table = precision_and_recall(curve)
    at = {threshold: tuple(table[:, round(100 * threshold)]) for threshold in (0.0, 0.2, 0.5, 0.8, 1.0)}
    assert at[0.0] == (2, 2, 0, 0, 0.5, 1)
    assert at[0.2] == pytest.approx((2, 1, 1, 0, 2 / 3, 1))
    assert at[0.5] == (1, 1, 1, 1, 0.5, 0.5)
    assert at[0.8] == (1, 0, 2, 1, 1, 0.5)
    assert at[1.0] == (0, 0, 2, 2, 0, 0)


def test_the_pr_curve_of_the_validation_images(tmp_path):
    train(tmp_path, [bad, good])
    found, about = read(tmp_path, VALIDATION)
    (first, before), (second, after) = found["pixels"]
    assert (first, second) == (1, 2) and after.shape == (6, 101)
    assert tuple(after[4:, 50]) == (1, 1) and tuple(before[4:, 50]) == (0, 0)
    assert about("pixels").plugin_data.plugin_name == "pr_curves"


def test_buckets_by_hand():
    values = buckets(np.array([0.0, 0.1, 1.0, 1.0, 3.0, np.nan, np.inf]))
    assert values.shape == (30, 3) and values[:, 2].sum() == 5
    assert (
        values[0].tolist() == pytest.approx([0, 0.1, 1])
        and values[1, 2] == 1
        and values[-1].tolist() == pytest.approx([2.9, 3, 1])
    )
    assert values[10, 2] == 2  # 1.0 begins the eleventh of 0.1 each
    assert not buckets(np.full(4, np.nan)).any()
    assert buckets(np.array([1, np.nextafter(np.float32(1), np.float32(2))], np.float32))[:, 2].sum() == 2
    assert buckets(np.full(4, 2.0))[-1].tolist() == [2, 2, 4] and buckets(np.full(4, 2.0))[:, 2].sum() == 4


def test_of_a_large_array_a_sample_is_counted():
    values = buckets(np.linspace(-1, 1, 10 * SAMPLE))
    assert SAMPLE <= values[:, 2].sum() <= SAMPLE + 1
    assert np.ptp(values[:, 2]) <= 2  # as even as the array


def test_mistakes_have_their_colours():
    mask = np.array([[True, True, False, False]]).repeat(4, axis=0)
    probability = np.array([[0.9, 0.1, 0.9, 0.1]]).repeat(4, axis=0).astype(np.float32)
    ignore = np.zeros((4, 4), bool)
    ignore[3] = True
    image = ValidationImage("a", np.zeros((4, 4, 1), np.uint8), mask, (0, 255), ignore=ignore)
    page = pictures.answer(image, probability, 0.5)
    side, top = pictures.SIDE, 2 * pictures.HEAD + pictures.SIDE
    panel = page[top : top + side, side + pictures.GAP :]
    cell = side // 4
    colours = [tuple(int(value) for value in panel[5, column * cell + 5]) for column in range(4)]
    assert colours == [pictures.HIT, pictures.MISSED, pictures.EXTRA, (0, 0, 0)]
    assert tuple(panel[-5, 5]) == pictures.UNKNOWN
    grey = page[top + 5, 5::cell][:4]
    assert grey[:, 0].tolist() == [230, 26, 230, 26]  # 255 times the probability


@pytest.mark.parametrize("shape", [(300, 500), (20, 10)])
def test_panels_keep_the_shape_of_the_image(shape):
    mask = np.zeros(shape, bool)
    mask[: shape[0] // 2] = True
    image = ValidationImage("a", np.zeros((*shape, 3), np.uint16), mask, (0, 9))
    page = pictures.answer(image, mask.astype(np.float32), 0.5)
    scale = pictures.SIDE / max(shape)
    height, width = (round(side * scale) for side in shape)
    assert page.shape == (2 * (height + pictures.HEAD), 2 * width + pictures.GAP, 3)


def test_a_valid_networks_truth_lies_in_the_middle_of_its_patch():
    _, arrays = patch(0)
    arrays["image"] = np.pad(arrays["image"], ((8, 8), (8, 8), (0, 0)))
    page = pictures.patch(arrays)
    truth = page[pictures.HEAD : pictures.HEAD + pictures.SIDE, pictures.SIDE + pictures.GAP :]
    assert truth.shape == (pictures.SIDE, pictures.SIDE, 3) and truth[:8, :8].any()  # no black rim


def test_a_patch_with_boxes_shows_them_and_what_is_ignored():
    labels = np.zeros((64, 64), np.int32)
    labels[16:32, 32:48], labels[:, :8] = 1, -1
    arrays = {"image": np.zeros((64, 64, 1), np.float32), "labels": labels, "boxes": np.zeros((3, 4), np.float32)}
    arrays["boxes"][0] = 16, 32, 32, 48
    page = pictures.patch(arrays)
    top, side, scale = 2 * pictures.HEAD + pictures.SIDE, pictures.SIDE, pictures.SIDE // 64
    boxed, ignored = page[top : top + side, :side], page[top : top + side, side + pictures.GAP :]
    assert tuple(boxed[24 * scale, 32 * scale + 1]) == pictures.EXTRA and not boxed[24 * scale, 40 * scale].any()
    assert tuple(ignored[100, 3]) == (255, 255, 255) and not ignored[100, 100].any()


def test_the_threshold_curve_has_its_points():
    curve = ThresholdCurve()
    labels = discs(0) > 0
    curve.add(labels, np.where(labels, 0.8, 0.2))
    page = pictures.threshold_curve(curve, 0.5)
    height, width = pictures.PLOT
    area = page[2 * pictures.HEAD : 2 * pictures.HEAD + height, 44 : 44 + width]
    dice = np.abs(area.astype(int) - pictures.DICE).sum(axis=2) < 60
    rows = [np.flatnonzero(dice[:, round(threshold * width)]).mean() / height for threshold in (0.1, 0.15)]
    share = labels.mean()
    # Below 0.2 all is drawn: Dice = 2 share / (1 + share).
    assert rows == pytest.approx([1 - 2 * share / (1 + share)] * 2, abs=0.01)
    line = np.abs(area.astype(int) - pictures.INK).sum(axis=2) < 30
    assert line[height // 3 : height // 2, width // 2].all() and not line[height // 3, width // 3]


def test_without_any_truth_there_is_a_curve_without_points():
    curve = ThresholdCurve()
    curve.add(np.zeros((4, 4), bool), np.zeros((4, 4), np.float32))
    assert pictures.threshold_curve(curve, 0.5).any()


def test_targets_of_several_channels_are_drawn():
    one_hot = np.eye(3, dtype=np.float32)[np.array([[0, 1], [2, 1]])]
    drawn = pictures._target(one_hot)
    assert drawn[0, 0].tolist() == [0, 0, 0] and drawn[0, 1].tolist() == drawn[1, 1].tolist() != drawn[1, 0].tolist()
    foreground_distance = np.array([[[1.0, 0.5], [0.0, 0.0]]], np.float32)
    assert pictures._target(foreground_distance).tolist() == [[[255, 128, 0], [0, 0, 0]]]
