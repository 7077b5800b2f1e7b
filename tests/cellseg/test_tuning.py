from types import SimpleNamespace

import numpy as np
import pytest

import cellseg
from cellseg import runs, tuning
from cellseg.metrics import IMAGE_METRICS, score
from cellseg.thresholds import ThresholdCurve
from pipelines.errors import InputError
from tests.cells import empty, one_cell
from tests.runs import bright_pixels_run, experiment


class Validation:
    """A reader that knows validation images alone: pairs of truth and image, whose grey values are probabilities."""

    def __init__(self, *pairs, ignore=None):
        self.pairs, self.ignore, self.passes = pairs, ignore, 0
        self.manifest = SimpleNamespace(of_split=lambda split: [*self.check(split)])

    def check(self, split):
        assert split == "validation", f"tuning has read the {split} split"
        return self.pairs

    def split(self, split):
        self.passes += 1
        for number, (labels, image) in enumerate(self.check(split)):
            record = {"image": image[..., None], "labels": labels}
            if self.ignore is not None:
                record["ignore"] = self.ignore
            yield {"name": str(number), "contrast": [0, 255]}, record


def loaded(**sections):
    """A run whose probability is the image."""
    predictor = SimpleNamespace(probability=lambda image, limits: image)
    run = SimpleNamespace(experiment=experiment(**sections))
    return SimpleNamespace(
        run=run,
        predictor=predictor,
        foreground=lambda probability: probability[..., 0],
        evidence=lambda probability: probability[..., 0],
        inner=lambda probability: probability[..., 1] if probability.shape[2] > 1 else None,
    )


def scene():
    """Cells of 16 pixels at 0.9 and of 9 pixels at 0.55, and five false specks of one pixel at 0.7.

    Average precision with all sizes: 2 / 7 up to 0.55, then 1 / 7 up to 0.7, then 1 / 2 up to 0.9. From 4 pixels on:
    1 up to 0.55, then 1 / 2. From 10 pixels on: 1 / 2.
    """
    labels = np.zeros((12, 12), np.int32)
    labels[1:5, 1:5], labels[7:10, 1:4] = 1, 2
    probability = np.array([0, 0.9, 0.55], np.float32)[labels]
    probability[1:11:2, 8] = 0.7
    return labels, probability


def tuned(measure, *pairs, instances=None, **sections):
    section = {"measure": measure, "instances": instances or {}}
    return tuning.tune(loaded(tuning=section, **sections), Validation(*(pairs or [scene()])))


def test_the_best_size_and_threshold_by_arithmetic():
    said = []
    run = loaded(tuning={"measure": "average_precision", "instances": {"min_size": [0, 4, 10]}})
    found = tuning.tune(run, Validation(scene()), say=said.append)
    assert said == ["instance options in 3 combinations; labellings of an image: at most 96"]  # 3 * (13 + 19)
    assert found.search["labellings"] <= 96
    choice = found.choice
    assert (choice.threshold, choice.value, choice.instances) == (0.5, 1.0, {"min_size": 4})
    assert (choice.measure, choice.split) == ("average_precision", "validation")
    best = [(row["instances"]["min_size"], row["value"]) for row in found.search["best"]]
    assert best == [(4, 1.0), (0, 0.5), (10, 0.5)]
    values = dict(zip(found.search["threshold"], found.search["value"], strict=True))
    assert values[0.02] == values[0.5] == 1 and values[0.6] == 0.5 and values[0.95] == 0  # of the chosen options


def test_without_options_the_threshold_alone_and_more_finely():
    found = tuned("average_precision")
    # 1 / 2 lies above the specks' 0.7; of the thresholds that reach it, 0.71 is the finer one nearest to a half.
    assert (found.choice.threshold, found.choice.value, found.choice.instances) == (0.71, 0.5, {})


def test_lower_is_better_where_the_measure_says_so():
    # Wrong pixels of 144: 5 specks up to 0.55; 5 + 9 up to 0.7; 9 up to 0.9; all 25 above.
    choice = tuned("pixel_error").choice
    assert (choice.threshold, choice.value) == (0.5, pytest.approx(5 / 144))
    assert tuned("pixel_error", instances={"min_size": [0, 4]}).choice.instances == {"min_size": 4}


def test_among_equal_values_the_drawn_area_decides():
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 2:7] = 1
    probability = (0.9 * (labels > 0)).astype(np.float32)
    probability[6, 2:7] = 0.3  # without this row: IoU 20 / 25, found as well
    assert tuned("average_precision", (labels, probability)).choice.threshold == 0.3


def test_a_distance_does_not_become_small_by_drawing_nothing():
    labels = np.zeros((9, 9), np.int32)
    labels[2:6, 2:6] = 1
    sure = (0.9 * (labels > 0)).astype(np.float32)
    shifted = np.roll(sure, 1, axis=1) * np.float32(0.4 / 0.9)
    # Up to 0.4 the distances are 0 and 1, mean 0.5. Above, the second image has no outline: it costs the diagonal.
    choice = tuned("hausdorff", (labels, sure), (labels, shifted)).choice
    assert (choice.threshold, choice.value) == (0.4, 0.5)


@pytest.mark.parametrize("measure", IMAGE_METRICS)
def test_every_measure_says_something_of_drawing_nothing(measure):
    # Else a threshold that leaves the difficult images empty would win.
    assert not np.isnan(score(one_cell(), empty(), measure)[measure])


def test_dice_alone_is_chosen_by_the_curve_in_one_pass():
    labels, probability = scene()
    reader = Validation((labels, probability))
    found = tuning.tune(loaded(), reader)
    curve = ThresholdCurve()
    curve.add(labels > 0, probability)
    assert found.choice == curve.best() and found.search is None and reader.passes == 1
    assert set(found.as_dict()) == {"threshold", "measure", "value", "split", "instances", "curve"}


def test_dice_with_options_keeps_its_rule_for_areas():
    # With the rim Dice is 2 * 1050 / 2152 = 0.97584 at 1102 / 1050 = 1.0495 of the area, without it 2 * 1000 / 2050 =
    # 0.97561, less than 0.005 below, at 1000 / 1050 = 1 - 0.0476.
    labels, probability = np.zeros((1, 2000), np.int32), np.zeros((1, 2000), np.float32)
    labels[:, :1050], probability[:, :1000], probability[:, 1000:1102] = 1, 0.9, 0.6
    choice = tuned("dice", (labels, probability), instances={"fill_holes": [False]}).choice
    assert choice.threshold > 0.6 and choice.value == pytest.approx(2000 / 2050)


def test_what_tells_cells_apart_reaches_the_labelling():
    # Two cells that touch, and of whose insides the second rises 0.2 above the pass between them.
    labels = np.zeros((5, 13), np.int32)
    labels[1:4, 1:6], labels[1:4, 6:11] = 1, 2
    inner = np.array([0, 0.1, 0.5, 0.9, 0.5, 0.3, 0.3, 0.5, 0.5, 0.5, 0.1, 0, 0], np.float32) * (labels > 0)
    answer = np.stack([0.9 * (labels > 0), inner], axis=2).astype(np.float32)
    grid = {"depth": [0.3, 0.1], "seed_threshold": [0.6, 0.4]}
    run = loaded(
        target="foreground_distance",
        instances={"name": "seeded", "sigma": 0},
        tuning={"measure": "average_precision", "instances": grid},
    )
    reader = Validation((labels, answer))
    reader.split = lambda split: iter([({"name": "0", "contrast": [0, 1]}, {"image": answer, "labels": labels})])
    choice = tuning.tune(run, reader).choice
    assert choice.instances == {"depth": 0.1, "seed_threshold": 0.4} and choice.value == 1.0


def test_of_equal_combinations_the_first_wins():
    assert tuned("average_precision", instances={"min_size": [5, 4, 6]}).choice.instances == {"min_size": 5}


def test_argmax_keeps_its_threshold():
    found = tuned("average_precision", instances={"min_size": [0, 4]}, inference={"decision": "argmax"})
    assert (found.choice.threshold, found.choice.instances) == (0.5, {"min_size": 4})
    assert found.search["labellings"] == 2 and found.search["threshold"] == [0.5]
    assert tuned("dice", inference={"decision": "argmax"}).choice.threshold == 0.5


@pytest.mark.parametrize("measure", ["average_precision", "seg", "aji", "v_rand", "average_precision_mean"])
def test_the_value_is_that_of_scoring_and_no_coarse_threshold_is_better(measure):
    rng = np.random.default_rng(3)
    pairs = []
    for _ in range(2):
        labels, probability = scene()
        pairs.append((labels, np.clip(probability + rng.normal(0, 0.15, labels.shape), 0, 1).astype(np.float32)))
    found = tuned(measure, *pairs, instances={"min_size": [0, 3]})
    from cellseg.instances import components

    def value(threshold, min_size):
        drawn = [components(p, threshold=threshold, min_size=min_size) for _, p in pairs]
        return score([labels for labels, _ in pairs], drawn, measure)[measure]

    choice = found.choice
    assert choice.value == value(choice.threshold, choice.instances["min_size"])
    assert choice.value >= max(value(step / 10, size) for step in range(1, 10) for size in (0, 3))
    assert found.search["labellings"] <= 2 * 13 + 2 * 19


def test_unannotated_pixels_do_not_count():
    labels, probability = scene()
    ignore = probability == np.float32(0.7)  # the specks
    run = loaded(tuning={"measure": "average_precision"})
    choice = tuning.tune(run, Validation((labels, probability), ignore=ignore)).choice
    assert (choice.threshold, choice.value) == (0.5, 1.0)


def test_nothing_to_choose_by():
    choice = tuned("average_precision", (empty(), np.zeros((6, 8), np.float32)), instances={"min_size": [3, 0]}).choice
    assert (choice.threshold, choice.value, choice.instances) == (0.5, None, {"min_size": 3})


def test_a_method_that_the_target_is_not_enough_for():
    from cellseg import training

    message = (
        "instances.name: 'seeded' needs .* foreground_border, distance, foreground_distance; the target is foreground. "
        "Set target, or take instances.name watershed"
    )
    with pytest.raises(InputError, match=message):
        training.check(experiment(instances={"name": "seeded"}))
    sections = {"instances": {"name": "seeded"}, "tuning": {"instances": {"depth": [0.1, 2]}}}
    with pytest.raises(InputError, match="tuning.instances: .* depth above 0 and at most 1, .* depth 2"):
        training.check(experiment(target="distance", **sections))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"measure": "averge_precision"}, "tuning.measure: 'averge_precision' is no measure. Did you mean 'average_p"),
        ({"measure": "tra"}, "tuning.measure: 'tra' measures a tracked sequence.*Known: .*seg"),
        ({"instances": {"min_sise": [3]}}, "tuning.instances.min_sise: 'watershed' takes no .*Did you mean 'min_size'"),
        ({"instances": {"min_size": ["few"]}}, "tuning.instances.min_size: .*got 'few'"),
        ({"instances": {"sigma": [1, -1]}}, "tuning.instances: sigma must be >= 0 .* got sigma -1"),
        ({"instances": {"threshold": [0.5]}}, "tuning.instances.threshold: 'watershed' takes no such key"),
        ({"instances": {"name": ["watershed"]}}, "tuning.instances.name: one method is tuned"),
        (
            {"instances": {"min_size": list(range(41)), "sigma": [0, 1, 2, 3, 4]}},
            "41 min_size x 5 sigma are 205 combinations; at most 200",
        ),
    ],
)
def test_bad_sections_are_refused_before_training(section, message):
    from cellseg import training

    with pytest.raises(InputError, match=message):
        training.check(experiment(tuning=section, instances={"name": "watershed"}))


def test_the_section_itself():
    assert experiment(tuning={"instances": {"min_size": 3}}).tuning.instances == {"min_size": [3]}
    with pytest.raises(InputError, match=r"tuning.instances.min_size: .*at least 1 item"):
        experiment(tuning={"instances": {"min_size": []}})
    with pytest.raises(InputError, match="unknown key 'tuning.mesure'. Did you mean 'measure'"):
        experiment(tuning={"mesure": "dice"})


@pytest.fixture
def two_runs(tmp_path):
    """Two runs whose probability is the image's brightness, with thresholds 0.4 and 0.8."""
    folders = []
    for name, threshold in (("a", 0.4), ("b", 0.8)):
        (tmp_path / name).mkdir()
        folder = bright_pixels_run(tmp_path / name)
        content = runs.read_json(folder, runs.THRESHOLD) | {"threshold": threshold}
        runs.write_json(folder, runs.THRESHOLD, content)
        sums = {"train-00000.npz": name, "validation-00000.npz": "the same"}
        runs.write_json(folder, runs.DATA, runs.read_json(folder, runs.DATA) | {"checksums": sums})
        folders.append(folder)
    return folders


def test_an_ensemble_tuned_together(two_runs):
    ensemble = cellseg.load_run(two_runs)
    labels = scene()[0]
    image = np.array([0, 255, 120], np.uint8)[labels]  # the second cell has 0.47, below the mean of the thresholds
    assert ensemble.threshold == pytest.approx(0.6) and ensemble.predict(image).labels.max() == 1
    section = ensemble.run.experiment.tuning.model_copy(
        update={"measure": "average_precision", "instances": {"min_size": [0, 10]}}
    )
    choice = tuning.tune_together(ensemble, Validation((labels, image)), section)
    assert (choice.value, choice.threshold, choice.instances) == (1, 0.47, {"min_size": 0})  # 120 / 255 = 0.4706
    ensemble.use(choice.threshold, choice.instances)
    assert ensemble.predict(image).labels.max() == 2
    ensemble.use(choice.threshold, {"min_size": 10})
    assert ensemble.predict(image).labels.max() == 1  # the second cell has 9 pixels


def test_members_that_validate_on_other_images_are_not_tuned_together(two_runs):
    sums = {"validation-00000.npz": "another"}
    runs.write_json(two_runs[1], runs.DATA, runs.read_json(two_runs[1], runs.DATA) | {"checksums": sums})
    with pytest.raises(InputError, match=r"a/run and .*b/run have other validation images"):
        tuning.tune_together(cellseg.load_run(two_runs), Validation(scene()))


def test_a_run_uses_its_tuned_options(two_runs):
    folder = two_runs[0]
    runs.write_json(folder, runs.THRESHOLD, {"threshold": 0.4, "instances": {"min_size": 10}})
    image = np.where(scene()[0] > 0, 200, 0).astype(np.uint8)
    image[0, 0] = 255
    assert cellseg.load_run(folder).predict(image).labels.max() == 1
    assert runs.Run.read(folder).experiment.instances["min_size"] == 10
    assert "min_size" not in runs.Run.read(folder, tuned=False).experiment.instances


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged .*Choose it anew: cellseg-evaluate .*a/run --tune dice"),
        ("[0.5]", r"is damaged: it holds \[0.5\], and an object was expected"),
        ('{"measure": "dice"}', "is damaged: it has no key 'threshold', and a number from 0 to 1"),
        ('{"threshold": "high"}', "is damaged: its threshold is 'high'"),
        ('{"threshold": NaN}', "is damaged: its threshold is nan"),
        ('{"threshold": 40}', "is damaged: its threshold is 40"),
        ('{"threshold": 0.5, "instances": 3}', "is damaged: its instances are 3"),
        ('{"threshold": 0.5, "instances": {"min_sise": 3}}', "is damaged: instances.min_sise: 'components' takes no"),
    ],
)
def test_a_damaged_threshold_is_explained(two_runs, content, message):
    (two_runs[0] / runs.THRESHOLD).write_text(content)
    with pytest.raises(InputError, match=r"threshold.json " + message):
        cellseg.load_run(two_runs[0])
