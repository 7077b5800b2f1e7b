import functools
import json
import subprocess

import pytest
import yaml

from cellseg import experiment, runs, training
from experiments import make_ablations
from experiments.make_ablations import (
    FOLDER,
    PAGE,
    claims,
    collect,
    store,
    stored,
    tables,
    train,
    variants_table,
    verdict,
    wanted,
)
from experiments.result_tables import NOT_MEASURED, update
from pipelines.errors import InputError
from tests.runs import bright_pixels_run

CLAIM = {"name": "a", "claim": "A beats base", "better": "a", "than": "base", "measure": "dice"}
DEFINED = {
    "bases": ["psc", "isbi"],
    "noise": ["base", "seed1"],
    "variants": {"base": [], "seed1": ["seed=1"], "a": ["name=x-{data}"], "b": []},
    "claims": [CLAIM, CLAIM | {"name": "b", "better": "b"}],
}


def result(dice, **more):
    scores = {"dice": dice, "pixel_accuracy": 0.95, "average_precision": None, "seg": 0.5}
    trivial = {"baseline": {"dice": 0.0, "pixel_accuracy": 0.75}, "baseline_foreground": {"dice": 0.4}}
    facts = {"date": "2026-11-22", "git": "abc", "hardware": "two cores"}
    took = {"minutes": 5.0, "steps": 300, "parameters": 2e6}
    return {"scores": {"test": scores, "validation": scores, **trivial}, **took, **facts, **more}


def read(base, variant):
    overrides = [override.replace("{data}", base) for override in claims()["variants"][variant]]
    return experiment.read(FOLDER / f"{base}.yaml", overrides)


@pytest.mark.parametrize("variant", claims()["variants"])
def test_every_variant_can_be_trained_and_differs(variant):
    one = read("isbi", variant)
    if variant not in ("filters-32", "filters-64", *claims()["noise"][1:]):  # only numbers, and dear to build
        training.check(one)
    for base in ("psc", "gowt1"):
        assert read(base, variant).name.startswith(f"ablation-{base}")
    if variant != "base":
        assert one != read("isbi", "base")


def test_variants_of_other_data_have_shards_of_their_own():
    base = read("psc", "base")
    for variant in claims()["variants"]:
        one = read("psc", variant)
        assert (one.data_config() == base.data_config()) == (one.shards() == base.shards()), variant


def test_the_bases_split_as_the_experiments_do():
    for base, name in (("psc", "pancreatic"), ("gowt1", "gowt1"), ("isbi", "isbi2012-unet2")):
        whole = experiment.read(FOLDER.parent / f"{name}.yaml")
        assert read(base, "base").split == whole.split


def test_claims_come_one_after_the_other_and_what_is_shared_once():
    assert wanted(DEFINED, "psc") == [("psc", "base"), ("psc", "seed1"), ("psc", "a"), ("psc", "b")]
    assert wanted(DEFINED)[:4] == [("psc", "base"), ("isbi", "base"), ("psc", "seed1"), ("isbi", "seed1")]
    assert wanted(DEFINED, "isbi/b") == [("isbi", "base"), ("isbi", "seed1"), ("isbi", "b")]


def test_names_that_are_not_known(tmp_path):
    with pytest.raises(InputError, match=r"--only pcs: there is no pcs\. Known: psc, isbi"):
        wanted(DEFINED, "pcs")
    with pytest.raises(InputError, match=r"--only psc/c: there is no c\. Known: a, b"):
        wanted(DEFINED, "psc/c")
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(DEFINED | {"claims": [CLAIM | {"than": "c"}]}, sort_keys=False))
    with pytest.raises(InputError, match=r"claims.yaml: there is no variant c\. Known: base, seed1, a, b"):
        claims(path)
    path.write_text(yaml.safe_dump(DEFINED | {"claims": [CLAIM | {"expected": "worse"}]}, sort_keys=False))
    with pytest.raises(InputError, match=r"claims.yaml: a expects 'worse'\. Known: better, not worse, equal"):
        claims(path)


@pytest.mark.parametrize(
    ("a", "told"),
    # The seeds' standard deviation is 0.02 / sqrt(2), twice that of a difference is 0.04.
    [(0.95, "yes (+0.0500)"), (0.93, "not seen (+0.0300)"), (0.85, "no (-0.0500)"), (None, "not measured yet")],
)
def test_verdicts(a, told):
    found = {"base": result(0.9), "seed1": result(0.92), "a": result(a)}
    assert verdict(CLAIM, found, DEFINED["noise"]) == told


@pytest.mark.parametrize(
    ("expected", "a", "told"),
    [
        ("equal", 0.93, "yes (+0.0300)"),
        ("equal", 0.95, "no (+0.0500)"),
        ("equal", 0.85, "no (-0.0500)"),
        ("not worse", 0.95, "yes (+0.0500)"),
        ("not worse", 0.87, "yes (-0.0300)"),
        ("not worse", 0.85, "no (-0.0500)"),
    ],
)
def test_verdicts_of_what_should_be_alike(expected, a, told):
    found = {"base": result(0.9), "seed1": result(0.92), "a": result(a)}
    assert verdict(CLAIM | {"expected": expected}, found, DEFINED["noise"]) == told


def test_verdicts_without_seeds_or_results():
    assert verdict(CLAIM, {"base": result(0.9), "a": result(0.95)}, DEFINED["noise"]) == "+0.0500 (one seed)"
    assert verdict(CLAIM, {}, DEFINED["noise"]) == "not measured yet"


def test_variants_in_a_table():
    lines = variants_table(DEFINED, {"a": result(0.95, date="2026-11-23"), "base": result(0.9)}).splitlines()
    assert lines[2] == "| base | 0.9000 | 0.9500 | – | 0.500 | 0.9000 | 1.00 | 2.00 |"
    assert lines[3].startswith("| a | 0.9500 |")
    assert lines[4] == "| all background | 0.0000 | 0.7500 | – | – | – | – | – |"
    assert lines[5] == "| all foreground | 0.4000 | – | – | – | – | – | – |"
    assert lines[-1] == "two cores, 2026-11-22 to 2026-11-23; validation is part of a step's time."
    assert variants_table(DEFINED, {}) == NOT_MEASURED


def test_results_are_added_to_what_is_there(tmp_path):
    assert stored(tmp_path) == {}
    store("psc", "base", result(0.9), folder=tmp_path)
    store("psc", "a", result(0.95), folder=tmp_path)
    assert list(stored(tmp_path)["psc"]) == ["base", "a"]
    made = tables(DEFINED, tmp_path)
    assert list(made) == ["claims", "helped", "variants-psc", "variants-isbi"]
    assert "| A beats base | a > base, dice | +0.0500 (one seed) | not measured yet |" in made["claims"]
    assert "A beats base" not in made["helped"]
    own = DEFINED | {"claims": [CLAIM | {"ours": True, "expected": "not worse"}]}
    made = tables(own, tmp_path)
    assert "| A beats base | a ≥ base, dice |" in made["helped"] and "A beats base" not in made["claims"]


def test_what_is_stored_of_a_run(tmp_path):
    run = bright_pixels_run(tmp_path)
    runs.write_json(run, runs.DATA, runs.read_json(run, runs.DATA) | {"training_minutes": 2.5})
    part = {"measures": {"dice": 0.9, "seg": None, "rand_error": 0.1}}
    baselines = {"baseline": {"dice": 0.0, "rand_error": 0.2}, "baseline_foreground": {"dice": 0.25}}
    runs.write_json(run, runs.SCORES, {"test": part, "validation": part, **baselines})
    runs.write_text(run, runs.ENVIRONMENT, "date: 2026-11-22 02:00 +0000\nprocessor: two cores\n")
    runs.write_text(run, runs.HISTORY, "epoch,loss\n0,1\n1,1\n")
    found = json.loads(json.dumps(collect(run)))
    assert found["scores"]["test"] == {"dice": 0.9, "pixel_accuracy": None, "average_precision": None, "seg": None}
    assert found["scores"]["baseline_foreground"]["dice"] == 0.25
    assert (found["minutes"], found["parameters"]) == (2.5, 2)
    assert (found["date"], found["hardware"]) == ("2026-11-22", "two cores")


def test_a_variant_is_its_base_with_overrides(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command[3:]))
    run = train(DEFINED, "psc", "a", into=tmp_path)
    assert run == tmp_path / "psc" / "a"
    assert commands == [[str(FOLDER / "psc.yaml"), "name=x-psc", "--out", str(run)]]


def test_the_command_trains_what_is_asked_for(tmp_path, monkeypatch, capsys):
    page, trained = tmp_path / "ablations.md", []
    page.write_text("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in tables(DEFINED, tmp_path)))
    monkeypatch.setattr(make_ablations, "PAGE", page)
    monkeypatch.setattr(make_ablations, "claims", lambda: DEFINED)
    monkeypatch.setattr(make_ablations, "train", lambda defined, base, variant: trained.append((base, variant)))
    monkeypatch.setattr(make_ablations, "collect", lambda run: result(0.9))
    monkeypatch.setattr(make_ablations, "store", functools.partial(store, folder=tmp_path))
    monkeypatch.setattr(make_ablations, "tables", lambda: tables(DEFINED, tmp_path))
    make_ablations.main(["--tables"])
    assert not trained and NOT_MEASURED in page.read_text()
    make_ablations.main(["--only", "psc/a"])
    assert trained == [("psc", "base"), ("psc", "seed1"), ("psc", "a")]
    assert "| a | 0.9000 |" in page.read_text()
    with pytest.raises(SystemExit):
        make_ablations.main(["--only", "nothing"])
    assert "there is no nothing" in capsys.readouterr().err


def test_the_page_agrees_with_the_stored_results():
    assert update(PAGE, tables, check=True), "docs/ablations.md was not made from the stored results: make tables"
