import pytest

from cellseg import experiment as experiments
from cellseg.measuring import check_spacing
from cellseg.sections import EPOCHS, Train
from pipelines.errors import InputError

DATA = {"name": "cells", "data": {"source": "cells", "layout": "pairs"}}


def train(**section):
    return experiments.check({**DATA, "train": section}).train


def test_without_phases_the_section_is_the_one_phase():
    (phase,) = train(epochs=7, learning_rate=0.01, l2=1e-4).all_phases()
    assert (phase.epochs, phase.learning_rate, phase.l2, phase.optimizer) == (7, 0.01, 1e-4, {"name": "adam"})
    assert Train().all_phases()[0].epochs == EPOCHS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.learning_rate", ".inf"),
        ("train.l2", ".inf"),
        ("train.max_hours", ".nan"),
        ("data.interval_s", ".inf"),
        ("data.spacing_um", "[.inf, 1]"),
        ("data.contrast", "[.nan, 98]"),
        ("inference.zoom", "[1, .nan]"),
    ],
)
def test_numbers_are_finite(key, value):
    content = {"name": "cells", "data": dict(DATA["data"])}
    experiments.apply_overrides(content, [f"{key}={value}"])
    with pytest.raises(InputError, match=rf"{key}.*finite number, got (inf|nan)"):
        experiments.check(content)


@pytest.mark.parametrize(("spacing", "allowed"), [([1e-300, 1], "0.000001"), ([1, 1e300], "1000000"), ([0, 1], "0.")])
def test_a_pixel_is_between_a_picometre_and_a_metre(spacing, allowed):
    with pytest.raises(InputError, match=rf"data.spacing_um.[01]: .*equal to {allowed}"):
        experiments.check({"name": "cells", "data": {**DATA["data"], "spacing_um": spacing}})
    with pytest.raises(InputError, match=r"spacing_um is .*from 1e-06 to 1e\+06"):
        check_spacing(spacing)
    for size in (1e-6, 0.5, 1e6):
        data = experiments.check({"name": "cells", "data": {**DATA["data"], "spacing_um": [size, size]}}).data
        assert data.spacing_um == check_spacing((size, size)) == (size, size)


def test_a_phase_takes_from_the_section_what_it_leaves_out():
    first = {"epochs": 900, "optimizer": {"name": "sgd"}, "learning_rate": 0.1, "l2": 1e-5}
    last = {"epochs": 50, "learning_rate": 1e-5, "l2": 1e-3, "ema": 0.99}
    section = train(phases=[first, last], early_stopping=99, plateau_factor=0.5, clip_norm=1.0)
    one, two = section.all_phases()
    assert (one.optimizer, one.learning_rate, one.l2, one.ema) == ({"name": "sgd"}, 0.1, 1e-5, None)
    assert (two.optimizer, two.learning_rate, two.l2, two.ema) == ({"name": "adam"}, 1e-5, 1e-3, 0.99)
    assert all((p.early_stopping, p.plateau_factor, p.clip_norm) == (99, 0.5, 1.0) for p in (one, two))
    assert section.total_epochs() == 950


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"epochs": 3, "phases": [{"epochs": 2}]}, "epochs stands beside phases"),
        ({"phases": [{"epochs": 2, "clip_value": 1}], "clip_norm": 1}, "clip_norm and clip_value exclude each other"),
        ({"phases": [{"learning_rate": 1}]}, "the key 'train.phases.0.epochs' is missing"),
        (
            {"phases": [{"epochs": 2, "learning_rat": 1}]},
            "unknown key 'train.phases.0.learning_rat'. Did you mean 'learning_rate'?",
        ),
        ({"ema": 1.0}, "train.ema: .*less than 1"),
        ({"precision": "float61"}, "train.precision: .*got 'float61'"),
    ],
)
def test_bad_training_sections_are_explained(section, message):
    with pytest.raises(InputError, match=message):
        train(**section)
