import json
from pathlib import Path

import pytest

from cellseg import experiment
from cellseg.evaluation import usual_measures
from experiments import result_tables
from experiments.make_results import stamped
from experiments.result_tables import (
    NOT_MEASURED,
    PAGE,
    STORED,
    definitions,
    experiment_table,
    filled,
    published_rows,
    stored,
    summary,
    tables,
    update,
)
from pipelines.errors import InputError
from pipelines.sample import Item
from pipelines.splits import assign

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FOUR = {"measures": {"dice": 0.9, "pixel_error": 0.05, "seg": None}, "images": 4}
BLANK = {"dice": 0.0, "pixel_error": 0.25, "seg": 0.0}
FULL = {"dice": 0.1, "pixel_error": 0.75, "seg": 0.0}


def result(dice=0.9, seed=0, **more):
    part = {"images": 1, "measures": {"dice": 0.7}, "baseline": {"dice": 0.0}, "baseline_foreground": {"dice": 0.5}}
    test = FOUR | {"measures": FOUR["measures"] | {"dice": dice}, "parts": {"A": part}, "probability": {"v_rand": 0.95}}
    scores = {"test": test, "validation": FOUR, "baseline": BLANK, "baseline_foreground": FULL}
    facts = {"command": "make results NAME=known", "date": "2026-11-22", "git": "abc", "hardware": "two cores"}
    chosen = {"threshold": 0.25, "tuned_for": "dice", "instances": {"min_size": 20}}
    return {"name": "known", "seed": seed, "scores": scores, **facts, **chosen, "training_minutes": 12.3, **more}


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]


def test_a_table_by_hand():
    wanted = {"table": "isbi_membrane", "method": "unet2", "title": "the report's"}
    columns = ["dice", "pixel_error", "A/dice", "probability/v_rand", "seg"]
    definition = {"name": "known", "columns": columns, "tuned": True, "published": [wanted]}
    table = experiment_table(definition, [result(parameters=8_600_000, peak_memory_mb=2048, epochs=7)])
    assert cells(table) == [
        ["", "dice", "pixel_error ↓", "dice, A", "v_rand, probability", "seg"],
        ["---"] * 6,
        ["**ours, test** (4 images)", "0.9000", "0.0500", "0.7000", "0.950", "–"],
        # The validation images have no such part, no probability and, here, no answers without a network.
        ["ours, validation (scored what it was tuned on), 4 images", "0.9000", "0.0500", "–", "–", "–"],
        ["published: the report's", "0.9556", "0.069", "–", "–", "–"],
        ["all background", "0.0000", "0.2500", "0.0000", "–", "0.000"],
        ["all foreground", "0.1000", "0.7500", "0.5000", "–", "0.000"],
    ]
    assert table.splitlines()[-1] == (
        "`make results NAME=known` on 2026-11-22, two cores, git abc: 8.60 million weights, 7 epochs, 12 min of "
        "training, peak memory 2.0 GB; threshold 0.25, min_size 20, tuned on the validation images for dice."
    )


def test_validation_images_have_trivial_answers_of_their_own():
    one = result()
    one["scores"]["validation"] = FOUR | {"baseline": {"dice": 0.02}, "baseline_foreground": {"dice": 0.3}}
    table = experiment_table({"name": "known", "columns": ["dice"], "tuned": True}, [one])
    assert cells(table)[-4:] == [
        ["all background", "0.0000"],
        ["all foreground", "0.1000"],
        ["all background, validation images", "0.0200"],
        ["all foreground, validation images", "0.3000"],
    ]
    assert "validation images |" not in experiment_table({"name": "known", "columns": ["dice"]}, [one])


def test_the_most_probable_channel_has_no_threshold():
    told = result_tables.facts([result(decision="argmax", instances={})])
    assert told.endswith("min of training; the most probable channel.")
    told = result_tables.facts([result(decision="argmax")])
    assert told.endswith("the most probable channel, min_size 20, tuned on the validation images for dice.")


def test_several_seeds_have_a_spread():
    definition = {"name": "known", "columns": ["dice"]}
    table = experiment_table(definition, [result(0.9), result(0.92, seed=1)])
    # Mean 0.91, standard deviation 0.02 / sqrt(2).
    assert cells(table)[2] == ["**ours, test** (4 images)", "0.9100 ± 0.0141"]
    assert "Mean ± standard deviation over the seeds 0, 1." in table and "12 and 12 min" in table


def test_a_seed_without_a_value_is_told():
    table = experiment_table({"name": "known", "columns": ["dice"]}, [result(0.9), result(None, 1), result(0.92, 2)])
    assert cells(table)[2] == ["**ours, test** (4 images)", "0.9100 ± 0.0141 (2 of 3)"]
    table = experiment_table({"name": "known", "columns": ["dice"]}, [result(None), result(None, 1)])
    assert cells(table)[2] == ["**ours, test** (4 images)", "–"]


def test_without_a_result():
    assert experiment_table({"name": "known", "columns": ["dice"]}, []) == NOT_MEASURED


def test_changed_keys_are_told():
    table = experiment_table({"name": "known", "columns": ["dice"]}, [result(changed=["train.epochs: 40 -> 3"])])
    assert table.endswith("for dice. With train.epochs: 40 -> 3.")


def test_a_later_tuning_is_told():
    later = {"date": "2026-11-23 10:00 +0000", "git": "def", "command": "cellseg-evaluate RUN --tune dice"}
    told = result_tables.facts([result(tuned_again=later)])
    assert "for dice (again on 2026-11-23, git def)." in told and "again" not in result_tables.facts([result()])


@pytest.mark.parametrize(
    ("dice", "more", "verdict"),
    [
        (0.96, {}, "yes"),
        (0.96, {"remarks": {"dice": "theirs is rounded"}}, "yes, but theirs is rounded"),
        (0.9, {}, "no"),
        (0.9, {"reason": "few images"}, "no: few images"),
        (None, {}, "undefined"),
    ],
)
def test_reached_or_not(dice, more, verdict):
    wanted = {"table": "isbi_membrane", "method": "unet2", "title": "theirs"}
    definition = {"name": "known", "columns": ["pixel_error", "dice"], "tuned": True, "published": [wanted], **more}
    rows = cells(summary([definition], {"known": [result(dice)]}))[2:]
    # A pixel error of 0.05 is below the published 0.0690: lower is better.
    assert rows == [
        ["[known](#known)", "pixel_error ↓, theirs", "0.069", "0.2500", "0.0500", "0.0500", "yes"],
        ["[known](#known)", "dice, theirs", "0.9556", "0.1000", f"{dice:.4f}" if dice else "–", "0.9000", verdict],
    ]


def test_an_error_above_the_published_one_is_not_reached():
    wanted = {"table": "isbi_membrane", "method": "unet1", "title": "theirs"}
    definition = {"name": "known", "columns": ["pixel_error"], "published": [wanted]}
    # Published 0.0578; the two seeds' mean is 0.06, though one of them is below.
    pair = [result(), result(seed=1)]
    for one, error in zip(pair, (0.05, 0.07), strict=True):
        one["scores"]["test"] = one["scores"]["test"] | {"measures": {"pixel_error": error}}
    assert cells(summary([definition], {"known": pair}))[2][4:] == ["0.0600 ± 0.0141", "–", "no"]


def test_what_has_not_been_trained_is_not_measured():
    wanted = {"table": "isbi_membrane", "method": "unet2", "title": "theirs"}
    definition = {"name": "known", "columns": ["dice"], "tuned": True, "published": [wanted]}
    assert cells(summary([definition], {"known": []}))[2][2:] == ["0.9556", "–", "–", "–", "not measured yet"]


def test_what_is_only_printed_beside_need_not_be_reached():
    wanted = {"table": "isbi_membrane", "method": "unet2", "beside": True}
    assert cells(summary([{"name": "known", "columns": ["dice"], "published": [wanted]}], {"known": []}))[2:] == []


def test_published_rows_find_the_part_that_ours_are_of():
    wanted = {"table": "other_reports", "method": "pancreatic", "data": "Fluo-N2DH-GOWT1"}
    (row,) = published_rows({"columns": ["frame 39/pixel_accuracy", "seg"], "published": [wanted]})
    assert row.figures == {"frame 39/pixel_accuracy": 0.9843} and row.title == "pancreatic (validation)"
    (glands,) = published_rows({"columns": [], "published": [{"table": "glas2015", "method": "DTU-UNET"}]})
    assert glands.figures["A/glas_f1"] == 0.822 and glands.figures["B/object_hausdorff"] == 138.294


def test_a_method_that_no_table_has():
    with pytest.raises(InputError, match=r"the table isbi_membrane has no row of unet9, any data"):
        published_rows({"columns": [], "published": [{"table": "isbi_membrane", "method": "unet9"}]})


def test_the_contest_with_our_place():
    ours = {"name": "run", "ours": True, "scores": {"f1_a": 0.9}, "rank_sum": 3, "place": 2}
    other = {"name": "A-team", "ours": False, "scores": {"f1_a": 0.912}, "rank_sum": 1, "place": 1}
    contest = {"columns": ["f1_a"], "rows": [other, ours], "notes": ["run: scored on 20 of the 60 images"]}
    table = experiment_table({"name": "known", "columns": ["dice"]}, [result(contest=contest)])
    assert "| 1 | A-team | 0.912 | 1 |\n| 2 | **run (ours)** | 0.9 | 3 |" in table
    assert "run: scored on 20 of the 60 images." in table


def test_the_reports_own_protocol_is_a_row(tmp_path):
    scores = {"validation": {"images": 7, "measures": {"dice": 0.95}}, "test": FOUR}
    (tmp_path / "known-report.json").write_text(json.dumps({"seed": 0, "scores": scores}))
    other = {"seed": 1, "scores": scores | {"validation": {"images": 7, "measures": {"dice": 0.97}}}}
    definition = {"name": "known", "columns": ["dice"], "protocol": {"title": "the report's protocol"}}
    table = experiment_table(definition, [result()], folder=tmp_path)
    assert cells(table)[3] == ["ours, the report's protocol", "0.9500"]
    (tmp_path / "known-report-seed1.json").write_text(json.dumps(other))
    table = experiment_table(definition, [result()], folder=tmp_path)
    assert cells(table)[3] == ["ours, the report's protocol", "0.9600 ± 0.0141"]


@pytest.mark.parametrize("definition", [one for one in definitions() if "protocol" in one], ids=lambda one: one["name"])
def test_the_reports_own_protocol_can_be_trained(definition):
    path = EXPERIMENTS / f"{definition['name']}.yaml"
    one = experiment.read(path, definition["protocol"]["overrides"])
    assert one.shards() != experiment.read(path).shards()
    parts = {"train": one.split.train, "validation": one.split.validation, "test": one.split.test}
    items = [Item(str(place), Path, "01", place) for place in range(30)]
    split = assign(items, by=one.split.by, **parts, gap=one.split.gap, seed=one.seed)
    assert [split[str(place)] for place in range(30)] == ["train"] * 22 + ["test"] + ["validation"] * 7


def test_tracks_and_pictures_below_the_table(tmp_path):
    row = dict.fromkeys(("tra", "seg", "det", "lnk", "ct"), 0.9378) | {"division_f1": None, "tracker": "ours"}
    (tmp_path / "known-worst.png").write_bytes(b"")
    (tmp_path / "known-curves.png").write_bytes(b"")
    one = result(tracking={"frames": "37-47", "rows": [row]})
    table = experiment_table({"name": "known", "columns": ["dice"]}, [one], folder=tmp_path)
    assert "| frames 37-47, tracked | tra | seg | det | lnk | division_f1 | ct |" in table
    assert "| ours | 0.938 | 0.938 | 0.938 | 0.938 | – | 0.938 |" in table
    pictures = "![known-curves](results/known-curves.png)\n\n![known-worst](results/known-worst.png)"
    assert table.endswith(f"for dice.\n\n{pictures}")


def test_places_of_a_page_are_filled_and_nothing_else():
    page = "above\n<!-- begin a -->\nold\n<!-- end a -->\nbelow"
    assert filled(page, {"a": "new"}) == "above\n<!-- begin a -->\nnew\n<!-- end a -->\nbelow"
    assert filled(filled(page, {"a": "new"}), {"a": "old"}) == page


def test_a_page_without_a_place_or_with_one_too_many():
    page = "<!-- begin a -->\n<!-- end a -->"
    with pytest.raises(InputError, match=r"page.md has no place for b: write <!-- begin b --> and <!-- end b -->"):
        filled(page, {"a": "", "b": ""}, where="page.md")
    with pytest.raises(InputError, match="marks a place for a, which has no table"):
        filled(page, {})


def test_checking_changes_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- begin a -->\n<!-- end a -->")
    assert not update(page, lambda: {"a": "1"}, check=True) and "1" not in page.read_text()
    assert not update(page, lambda: {"a": "1"}) and "1" in page.read_text()
    assert update(page, lambda: {"a": "1"}, check=True)


def test_results_are_read_in_the_order_of_their_seeds(tmp_path):
    for file, seed in (("known-seed10", 10), ("known-seed2", 2), ("known", 0), ("known-not", 5)):
        (tmp_path / f"{file}.json").write_text(json.dumps({"seed": seed}))
    assert [one["seed"] for one in stored("known", tmp_path)] == [0, 2, 10]


def test_the_page_agrees_with_the_stored_results():
    assert update(PAGE, tables, check=True), "docs/results.md was not made from docs/results/*.json: make tables"


def test_what_is_not_reached_has_its_reason():
    bare = [row[:2] for row in cells(tables()["summary"])[2:] if row[-1] == "no"]
    assert not bare, "docs/results/tables.yaml: give these experiments a reason"


@pytest.mark.parametrize("definition", definitions(), ids=lambda one: one["name"])
def test_the_headers_agree_with_the_stored_results(definition):
    text = (EXPERIMENTS / f"{definition['name']}.yaml").read_text()
    for one in stored(definition["name"]):
        if one["seed"] == 0 and not one["changed"]:
            assert stamped(text, definition, one) == text, "make results NAME=... RUN=... writes the header"


def test_every_stored_result_has_a_table():
    names = {one["name"] for one in definitions()}
    stems = [path.stem for path in STORED.glob("*.json") if not path.stem.startswith("ablation")]
    files = [stem.partition("-seed")[0].removesuffix("-report") for stem in stems]
    assert set(files) <= names


@pytest.mark.parametrize("definition", definitions(), ids=lambda one: one["name"])
def test_the_experiment_measures_what_its_table_shows(definition):
    section = experiment.read(EXPERIMENTS / f"{definition['name']}.yaml").evaluation
    published_rows(definition)
    for column in definition["columns"]:
        part, _, measure = column.rpartition("/")
        assert measure in (section.probability if part == "probability" else usual_measures(section)), column
        assert part in ("", "probability", *section.parts)


def test_a_check_that_fails_says_what_to_do(tmp_path, monkeypatch, capsys):
    page = tmp_path / "results.md"
    page.write_text("<!-- begin a -->\nold\n<!-- end a -->")
    monkeypatch.setattr(result_tables, "PAGE", page)
    monkeypatch.setattr(result_tables, "tables", lambda: {"a": "new"})
    with pytest.raises(SystemExit):
        result_tables.main(["--check"])
    assert "does not agree with results/*.json: make tables" in capsys.readouterr().err
    result_tables.main([])
    result_tables.main(["--check"])
    assert "new" in page.read_text()
