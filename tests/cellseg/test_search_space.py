import numpy as np
import pytest

from cellseg import experiment as experiments
from cellseg import search_space, study
from cellseg.search_space import Choice, Range
from pipelines.errors import InputError
from tests.runs import experiment

SMALL = {"name": "unet", "padding": "same", "filters": 2, "depth": 1}


def test_the_yaml_says_what_is_drawn():
    space = search_space.read_space(
        {
            "train.learning_rate": {"name": "log_uniform", "low": 1e-5, "high": 1e-1},
            "loss.beta": {"name": "uniform", "low": 0.3, "high": 0.9},
            "model.filters": {"name": "int", "low": 8, "high": 32, "step": 8},
            "model.padding": {"name": "choice", "values": ["same", "valid"]},
        }
    )
    assert space == {
        "train.learning_rate": Range(1e-5, 1e-1, log=True),
        "loss.beta": Range(0.3, 0.9),
        "model.filters": Range(8, 32, step=8),
        "model.padding": Choice(("same", "valid")),
    }


@pytest.mark.parametrize(
    ("key", "named", "message"),
    [
        ("loss.beta", {"name": "unifrom", "low": 0, "high": 1}, "search.space.loss.beta.name: 'unifrom' .*'uniform'"),
        ("loss.beta", {"name": "uniform", "low": 0, "hi": 1}, "search.space.loss.beta.hi: 'uniform' takes no such key"),
        ("loss.beta", {"name": "uniform", "low": 0.5, "high": 0.5}, "search.space.loss.beta: low is 0.5 and high is"),
        ("loss.beta", {"name": "log_uniform", "low": 0, "high": 1}, "low is 0; a range by its logarithm begins above"),
        ("model.depth", {"name": "int", "low": 1, "high": 4, "step": 2}, "high is 4, which is no multiple of step 2"),
        ("model.depth", {"name": "int", "low": 1, "high": 4, "step": 2, "log": True}, "step is 2; .* none beside log"),
        ("model.depth", {"name": "choice", "values": [3]}, r"values are \[3\]; a list of two or more different"),
        (
            "split.seed",
            {"name": "int", "low": 1, "high": 4},
            "search.space.split.seed cannot be searched: with another",
        ),
        ("data.source", {"name": "choice", "values": ["a", "b"]}, "search.space.data.source cannot be searched"),
    ],
)
def test_what_cannot_be_drawn_is_refused(key, named, message):
    with pytest.raises(InputError, match=message):
        search_space.read_space({key: named})


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("train.learning_rat", [1e-3, 1e-2], "unknown key 'train.learning_rat'. Did you mean 'learning_rate'"),
        ("learning_rate", [1e-3, 1e-2], "unknown key 'learning_rate'.*Did you mean 'train.learning_rate'"),
        ("loss.bta", [0.1, 0.2], "search.space.loss.bta = 0.1: loss.bta: 'tversky_bce' takes no such key. Did you"),
        ("model.padding", ["same", "sam"], 'search.space.model.padding = "sam": model.padding: .*Did you mean .same'),
        ("train.patch", [32, 31], "search.space.train.patch = 31: .*cannot take a 31x31 tile"),
        ("augment.1.p", [0.1, 0.2], "augment.1.p: a list stands before '1', so the number of one of its 1 entries"),
        ("augment.p", [0.1, 0.2], "a list stands before 'p'"),
        ("seed.x", [0.1, 0.2], "seed is a value, not a section"),
    ],
)
def test_a_key_that_does_not_exist_or_fit_is_named_with_the_nearest(key, values, message):
    checked = experiment(model=SMALL, train={"patch": 32}, augment=[{"name": "HorizontalFlip", "p": 0.5}])
    with pytest.raises(InputError, match=message) as caught:
        search_space.check(checked, {key: Choice(tuple(values))})
    assert str(caught.value).count("Did you mean") <= 1  # two would contradict each other


def test_every_kind_of_key_can_be_searched():
    checked = experiment(
        model=SMALL,
        train={"patch": 32, "phases": [{"epochs": 1}, {"epochs": 1}]},
        augment=[{"name": "HorizontalFlip", "p": 0.5}],
        loss={"name": "sum", "terms": [{"name": "dice"}, {"name": "bce", "weight": 0.5}]},
    )
    space = {
        "train.phases.1.learning_rate": Range(1e-4, 1e-2, log=True),
        "augment.0.p": Range(0.1, 0.9),
        "loss.terms.1.weight": Range(0.1, 2.0),
        "model": Choice((SMALL, {**SMALL, "depth": 2})),
        "data.contrast": Choice(([2, 98], [0.1, 99.9])),
    }
    search_space.check(checked, space)
    values = {key: drawn.tried()[1] for key, drawn in space.items()}
    other = search_space.with_values(checked, values, where="trial")
    assert other.train.phases[1].learning_rate == 1e-2 and checked.train.phases[1].learning_rate is None
    assert other.augment == [{"name": "HorizontalFlip", "p": 0.9}] and other.loss["terms"][1]["weight"] == 2.0
    assert other.model["depth"] == 2 and other.data.contrast == (0.1, 99.9)


def test_an_override_reaches_into_a_list():
    content = {"augment": [{"name": "HorizontalFlip", "p": 0.5}]}
    experiments.apply_overrides(content, ["augment.0.p=1.0"])
    assert content == {"augment": [{"name": "HorizontalFlip", "p": 1.0}]}
    with pytest.raises(InputError, match="'augment.2.p=1': a list stands before '2', .*one of its 1 entries"):
        experiments.apply_overrides(content, ["augment.2.p=1"])


def drawn(space, number, *, seed=0):
    import optuna

    shared = optuna.create_study(sampler=study.Draws(space, seed))
    while True:
        trial = shared.ask({key: one.distribution() for key, one in space.items()})
        if trial.number == number:
            return study.values_of(shared.trials[number], space)


def test_numbers_follow_from_seed_and_trial_alone():
    space = {"a": Range(0.0, 1.0), "b": Choice(("x", [1, 2], None))}
    assert drawn(space, 2) == drawn(space, 2) != drawn(space, 1)
    assert drawn(space, 2) != drawn(space, 2, seed=1)
    assert {str(drawn(space, number)["b"]) for number in range(12)} == {"x", "[1, 2]", "None"}


def test_each_power_of_ten_is_drawn_as_often():
    space = {"rate": Range(1e-4, 1.0, log=True)}
    powers = np.floor(np.log10([drawn(space, 0, seed=seed)["rate"] for seed in range(200)]))
    # 50 of 200 expected for each of -4..-1, standard deviation sqrt(200 / 4 * 3 / 4) = 6.1
    assert [abs((powers == power).sum() - 50) < 25 for power in (-4, -3, -2, -1)] == [True] * 4


def test_what_is_written_has_few_digits_and_lies_in_the_range():
    assert Range(0.0, 1.0).value(0.123456789) == 0.1235
    assert Range(0.12344, 0.2).value(0.123441) == 0.12344  # and not 0.1234
    assert Range(1.0, 1.99996).value(1.99995) == 1.99996
    assert Range(2, 10, step=4).value(6) == 6


def test_the_narrow_range_lies_around_the_best():
    assert Range(0.0, 8.0).narrowed([4.0, 5.0]) == Range(3.0, 6.0)  # an eighth of 8 on either side
    assert Range(0.0, 8.0).narrowed([0.5]) == Range(0.0, 1.5)  # not beyond the broad range
    narrow = Range(1e-8, 1.0, log=True).narrowed([1e-4, 1e-3])
    assert (narrow.low, narrow.high) == (pytest.approx(1e-5), pytest.approx(1e-2))
    assert Range(0, 16, step=4).narrowed([8]) == Range(4, 12, step=4)  # 6 to 10, on the grid
    assert Choice(("a", "b", "c")).narrowed(['"c"', '"a"', '"c"']) == Choice(("a", "c"))
