import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg import evaluation, experiment, figures
from cellseg.error_analysis import ErrorAnalysis
from cellseg.metrics import IMAGE_METRICS
from cellseg.report import write_report
from cellseg.score_tables import MEANINGS, duration, number, percent
from pipelines.errors import InputError
from tests.cells import empty, merged_pair, missed_cell, one_cell, split_cell

STATISTICS = {
    "images": 24,
    "foreground_fraction": 0.1384,
    "objects": 731,
    "objects_per_image": {"min": 3, "mean": 30.458, "max": 125},
    "object_diameter": {"0.05": 5.1, "0.25": 9.0, "0.5": 14.25, "0.75": 19.0, "0.95": 31.7},
}


def analysed(*scenes):
    """Content of errors.json for pairs of truth and prediction."""
    analysis = ErrorAnalysis()
    for true, pred in scenes:
        analysis.add((true > 0)[..., None].astype(np.float32), true, pred)
    return analysis.result()


def make_run(folder, *, warnings=()):
    """A run folder as cellseg-train leaves it, without the model."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"image{i:02d}" for i in range(10)] + ["<script>alert(1)</script>"]
    per_image = [
        {"name": name, "dice": round(0.95 - 0.02 * i, 4), "average_precision": round(0.8 - 0.03 * i, 4)}
        for i, name in enumerate(names)
    ]
    per_image.append({"name": "empty frame", "dice": None, "average_precision": None})
    test = {"pixel_accuracy": 0.98612, "dice": 0.91234, "average_precision": 0.7321, "count_error": 0.0523, "seg": None}
    validation = {name: None if value is None else value - 0.003 for name, value in test.items()}
    zero = {"pixel_accuracy": 0.924, "dice": 0.0, "average_precision": 0.0, "count_error": 1.0, "seg": 0.0}
    one = {"pixel_accuracy": 0.076, "dice": 0.1413, "average_precision": 0.0, "count_error": 0.9, "seg": 0.0}
    thresholds = np.arange(1, 200) / 200
    curve = {
        "threshold": thresholds.tolist(),
        "dice": (0.92 - (thresholds - 0.45) ** 2).tolist(),
        "foreground_ratio": [None, *(2.1 - 2 * thresholds[1:]).tolist()],
    }
    files = {
        "scores.json": {
            "test": {"images": 12, "measures": test, "per_image": per_image},
            "validation": {"images": 6, "measures": validation, "per_image": []},
            "baseline": zero,
            "baseline_foreground": one,
        },
        "threshold.json": {"threshold": 0.45, "measure": "dice", "value": 0.92, "split": "validation", "curve": curve},
        "warnings.json": list(warnings),
        "errors.json": analysed(merged_pair(), missed_cell(), split_cell()),
        "data.json": {
            "splits": {"train": 24, "validation": 6, "test": 12},
            "statistics": {"train": STATISTICS, "validation": STATISTICS, "test": STATISTICS | {"objects": 1017}},
            "advice": ["Foreground is the rarer class: 13.8 % of the pixels."],
            "training_minutes": 4.25,
        },
        "pictures.json": [
            {"file": "pictures/test_best.png", "section": "test", "caption": "best by Dice (0.950): image00"},
            {
                "file": "pictures/test_worst.png",
                "section": "test",
                "caption": "worst by Dice: <script>alert(1)</script>",
            },
        ],
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "experiment.yaml").write_text("name: nuclei & friends\nseed: 1\nloss: {name: tversky_bce}\n")
    (folder / "environment.txt").write_text(
        "command: cellseg-train experiments/demo.yaml\ncellseg: 0.1.0, git 1234567\n"
    )
    epochs = np.arange(30)
    lines = ["epoch,learning_rate,loss,val_dice,val_foreground_ratio"]
    for epoch in epochs:
        dice = 0.92 - 0.6 * np.exp(-epoch / 5) + rng.normal(0, 0.005)
        lines.append(
            f"{epoch},{1e-3 if epoch < 20 else 2e-4},{1 / (epoch + 1):.4f},{dice:.4f},{1 + 0.5 / (epoch + 1):.4f}"
        )
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    (folder / "pictures").mkdir()
    true, pred = (np.kron(labels, np.ones((16, 16), np.int32)) for labels in merged_pair())
    image = (100 * (true > 0) + rng.integers(0, 60, true.shape)).astype(np.uint8)[..., None]
    probability = cv2.blur((pred > 0).astype(np.float32), (9, 9))
    for kind in ("best", "worst"):
        png = figures.outlines(image, true, pred, title=f"{kind} by Dice", probability=probability)
        (folder / "pictures" / f"test_{kind}.png").write_bytes(png)
    return folder


class Page(HTMLParser):
    """What the tests ask of the page: references, scripts, tables as rows of text, and all text."""

    def __init__(self, text):
        super().__init__()
        self.references, self.tags, self.tables, self.text, self.alerts = [], [], {}, "", ""
        self._table = self._alert = self._cell = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.references += [attrs[name] for name in ("src", "href", "srcset", "data", "action") if name in attrs]
        if tag == "table":
            self._table = self.tables.setdefault(attrs["id"], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._cell = True
        if attrs.get("role") == "alert":
            self._alert = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._table[-1][-1] = " ".join(self._table[-1][-1].split())
            self._cell = False
        if tag == "table":
            self._table = None
        if tag == "section":
            self._alert = None

    def handle_data(self, data):
        self.text += data
        if self._alert:
            self.alerts += data
        if self._cell:
            self._table[-1][-1] += data


def page_of(run):
    text = write_report(run).read_text(encoding="utf-8")
    return Page(text), text


def column(table, title):
    """{name of the row: cell below `title`}"""
    place = table[0].index(title)
    return {row[0]: row[place] for row in table[1:]}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(make_run(tmp_path_factory.mktemp("report") / "run"))


def test_one_file_that_loads_nothing(page):
    parsed, text = page
    assert len(parsed.references) == 7  # two pictures, five plots
    assert all(reference.startswith("data:image/png;base64,") for reference in parsed.references)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "script" not in parsed.tags and "link" not in parsed.tags


def test_names_are_escaped(page):
    parsed, text = page
    assert "<script>" not in text
    assert "worst by Dice: <script>alert(1)</script>" in parsed.text
    assert "nuclei & friends" in parsed.text


def test_scores_stand_beside_their_baselines(page):
    scores = page[0].tables["scores"]
    assert column(scores, "test")["dice"] == "0.9123"
    assert column(scores, "validation")["dice"] == "0.9093"
    assert column(scores, "all background") == {
        "pixel_accuracy": "0.9240",
        "dice": "0.0000",
        "average_precision": "0.0000",
        "count_error": "1.0000",
        "seg": "0.0000",
    }
    assert column(scores, "all foreground")["dice"] == "0.1413"
    assert column(scores, "better")["count_error"] == "lower"
    assert column(scores, "better")["dice"] == "higher"


def test_parts_and_measures_of_the_probability(tmp_path):
    run = make_run(tmp_path / "run")
    scores = json.loads((run / "scores.json").read_text())
    part = {"images": 20, "measures": {"dice": 0.8}, "baseline": {"dice": 0.0}, "baseline_foreground": {"dice": 0.25}}
    scores["test"] |= {"parts": {"frame 39": part}, "probability": {"v_rand": 0.9123}}
    (run / "scores.json").write_text(json.dumps(scores))
    parsed, _ = page_of(run)
    assert parsed.tables["part-frame-39"] == [
        ["measure", "test", "all background", "all foreground"],
        ["dice", "0.8000", "0.0000", "0.2500"],
    ]
    assert "Test images, part frame 39: 20 images" in parsed.text
    assert column(parsed.tables["scores"], "test")["v_rand, probability"] == "0.9123"
    assert column(parsed.tables["scores"], "validation")["v_rand, probability"] == "–"


def test_undefined_scores_are_dashes_with_a_note(page):
    assert column(page[0].tables["scores"], "test")["seg"] == "–"
    assert "– : undefined, or not measured" in page[0].text


def test_every_measure_that_an_experiment_asks_for_is_explained():
    files = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
    asked = {name for file in files for name in evaluation.usual_measures(experiment.read(file).evaluation)}
    assert {"dice", "rand_error", "aji"} <= asked <= set(MEANINGS) <= set(IMAGE_METRICS)


def test_lower_is_better_for_errors(tmp_path):
    run = make_run(tmp_path / "run")
    scores = json.loads((run / "scores.json").read_text())
    scores["test"]["measures"] |= {"pixel_error": 0.1, "of another version": 0.5}
    scores["test"]["probability"] = {"v_rand": 0.9}
    (run / "scores.json").write_text(json.dumps(scores))
    better = column(page_of(run)[0].tables["scores"], "better")
    assert (better["pixel_error"], better["of another version"]) == ("lower", "")
    assert better["v_rand, probability"] == "higher"


def test_images_are_listed_worst_first_and_undefined_last(page):
    rows = page[0].tables["images"]
    assert [row[0] for row in rows[1:3]] == ["<script>alert(1)</script>", "image09"]
    assert rows[1][1] == "0.7500"  # 0.95 - 10 * 0.02
    assert rows[-1] == ["empty frame", "–", "–"]


def test_data_section(page):
    rows = page[0].tables["data"]
    assert rows[1] == ["train", "24", "731", "30.46", "13.8 %", "14.25 (5.1 to 31.7)"]
    assert rows[3][:3] == ["test", "24", "1,017"]


def said(page):
    """The text of a page with single blanks."""
    return " ".join(page.text.split())


def test_says_where_it_goes_wrong(page):
    text = said(page[0])
    # Two cells each in merged_pair and missed_cell, one in split_cell. One of each scene is found (IoU 1/2, 1, 1/2).
    assert "Of 5 true cells of the test images 3 were found (60 %; 95 % interval 23.1 % to 88.2 %)." in text
    assert "of 2 pairs of neighbours, at most 20 pixels apart, 1 (50 %) was joined" in text
    assert "of 4 cells that were drawn (more than half of its pixels are foreground) 1 (25 %) was cut" in text
    assert "unannotated for more than half" not in text


@pytest.mark.parametrize(
    ("scenes", "told"),
    [
        ([(empty(), one_cell())], "The test images hold no true cell"),
        ([(one_cell(), empty())], "no true cell was drawn over more than half of its pixels"),
        ([(one_cell(), one_cell())], "no two true cells lie within 20 pixels of each other"),
        ([(one_cell(), one_cell())], "Of 1 true cell of the test images 1 was found (100 %;"),
    ],
)
def test_error_analysis_of_few_cells(tmp_path, scenes, told):
    run = make_run(tmp_path / "run")
    (run / "errors.json").write_text(json.dumps(analysed(*scenes)))
    assert told in said(page_of(run)[0])


def test_cells_left_out_of_the_analysis_are_counted(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "errors.json").write_text(json.dumps(analysed(merged_pair()) | {"left_out": 1}))
    assert "Another 1, unannotated for more than half, is left out here." in said(page_of(run)[0])


def test_threshold_is_said_to_come_from_validation(page):
    assert "from a probability of 0.45." in page[0].text
    assert "chosen on the validation images" in page[0].text


SEARCH = {
    "labellings": 83,
    "combinations": 2,
    "threshold": [0.1, 0.45, 0.9],
    "value": [2.0, 0.5, None],
    "best": [
        {"instances": {"min_size": 20, "fill_holes": True}, "threshold": 0.45, "value": 0.5},
        {"instances": {"min_size": 0, "fill_holes": True}, "threshold": 0.3, "value": 0.75},
    ],
}


def tuned_run(folder, **changes):
    """A run whose threshold and options were tuned for a distance."""
    run = make_run(folder)
    threshold = json.loads((run / "threshold.json").read_text())
    threshold |= {"measure": "hausdorff95", "value": 0.5, "instances": SEARCH["best"][0]["instances"], "search": SEARCH}
    (run / "threshold.json").write_text(json.dumps(threshold | changes))
    return run


def test_tuned_options_with_their_scores(tmp_path):
    page, _ = page_of(tuned_run(tmp_path / "run"))
    assert "(lowest hausdorff95: 0.5000)" in said(page)
    assert "2 combinations of options were tried on the validation images, in 83 labellings of each." in said(page)
    assert page.tables["tuning"] == [
        ["min_size", "fill_holes", "threshold", "hausdorff95"],
        ["20", "True", "0.45", "0.5000"],
        ["0", "True", "0.3", "0.7500"],
    ]
    assert "steps of 0.01" in said(page)


def test_without_tuned_options_there_is_no_table(page, tmp_path):
    assert "tuning" not in page[0].tables and "(highest dice: 0.9200)" in said(page[0])
    alone = {"combinations": 1, "best": [{"instances": {}, "threshold": 0.45, "value": 0.5}]}
    assert "tuning" not in page_of(tuned_run(tmp_path / "run", search=SEARCH | alone))[0].tables


def test_says_how_to_do_it_again(page):
    assert "cellseg-train experiments/demo.yaml" in page[0].text
    assert "loss: {name: tversky_bce}" in page[0].text
    assert "git 1234567" in page[0].text


def test_no_warning_box_without_warnings(page):
    assert page[0].alerts == ""


def test_warnings_are_loud(tmp_path):
    page, _ = page_of(make_run(tmp_path / "run", warnings=["Collapse: almost nothing but <background>."]))
    assert "Collapse: almost nothing but <background>." in page.alerts
    assert "Warning" in page.alerts


def test_missing_files_are_named(tmp_path):
    (tmp_path / "experiment.yaml").write_text("seed: 1\n")
    page, _ = page_of(tmp_path)
    for name in (
        "scores.json",
        "pictures.json",
        "history.csv",
        "threshold.json",
        "data.json",
        "environment.txt",
        "errors.json",
    ):
        assert f"{name} is missing" in page.text
    assert page.references == []
    assert tmp_path.name in page.text  # stands in for the name


def test_missing_picture_is_named_and_others_stay(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "pictures/test_best.png").unlink()
    page, _ = page_of(run)
    assert "pictures/test_best.png is missing" in page.text
    assert len(page.references) == 6


def test_picture_outside_the_run_is_not_read(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (run / "pictures.json").write_text(json.dumps([{"file": "../secret.png", "section": "test", "caption": "c"}]))
    page, text = page_of(run)
    assert "../secret.png is missing" in page.text
    assert "c2VjcmV0" not in text  # base64 of "secret"


def test_old_scores_without_all_foreground(tmp_path):
    run = make_run(tmp_path / "run")
    scores = json.loads((run / "scores.json").read_text())
    del scores["baseline_foreground"], scores["validation"]
    (run / "scores.json").write_text(json.dumps(scores))
    page, _ = page_of(run)
    assert page.tables["scores"][0][:4] == ["measure", "test", "validation", "all background"]
    assert set(column(page.tables["scores"], "validation").values()) == {"–"}


def test_many_images_are_cut(tmp_path):
    run = make_run(tmp_path / "run")
    scores = json.loads((run / "scores.json").read_text())
    scores["test"]["per_image"] = [{"name": f"i{i:03d}", "dice": i / 100} for i in range(70)]
    (run / "scores.json").write_text(json.dumps(scores))
    page, _ = page_of(run)
    assert len(page.tables["images"]) == 51
    assert "20 better images are not listed" in page.text


def test_report_is_replaced(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "report.html").write_text("old")
    assert write_report(str(run)) == run / "report.html"
    assert (run / "report.html").read_text() != "old"
    assert not list(run.glob(".*"))


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="There is no run folder .*nowhere"):
        write_report(tmp_path / "nowhere")


def test_not_a_run(tmp_path):
    with pytest.raises(InputError, match=r"is no run folder: experiment.yaml was looked for"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", "{"),
        ("scores.json", "[]"),
        ("history.csv", ""),
        ("experiment.yaml", "a: ["),
        ("errors.json", "[]"),
        ("threshold.json", "[]"),
        ("threshold.json", '{"threshold": 0.5, "curve": [1]}'),
        ("threshold.json", '{"threshold": "x", "curve": {"threshold": [0.5]}}'),
        ("threshold.json", '{"threshold": 0.5, "search": 3}'),
        ("threshold.json", '{"threshold": 0.5, "curve": {"threshold": [0.5]}, "search": {"value": []}}'),
        ("threshold.json", '{"threshold": 0.5, "search": {"best": [{"threshold": 0.5}]}}'),
        ("errors.json", '{"cells": 3}'),
        ("errors.json", '{"cells": 3, "by_fact": 1}'),
        ("scores.json", '{"test": {"measures": [1]}}'),
        ("scores.json", '{"test": [1]}'),
        ("scores.json", '{"test": {"per_image": [1]}}'),
        ("scores.json", '{"test": {"per_image": [{"dice": "x", "name": "a"}, {"dice": 1}]}}'),
        ("scores.json", '{"test": {"parts": {"a": 1}}}'),
        ("scores.json", '{"test": {"probability": 1, "measures": {"dice": 1}}}'),
        ("scores.json", '{"baseline": [1]}'),
        ("scores.json", "[" * 100_000),
        ("data.json", '{"statistics": [1]}'),
        ("data.json", '{"statistics": {"train": {"object_diameter": 3}}}'),
        ("data.json", '{"splits": 3}'),
        ("data.json", '{"advice": 3}'),
        ("environment.txt", b"\xff\xfe"),
        ("experiment.yaml", b"\xff\xfe"),
        ("history.csv", b"\xff\xfe"),
        ("threshold.json", '{"measure": ["x"]}'),
        ("threshold.json", '{"threshold": 0.5, "measure": "dice", "search": {"combinations": "x", "best": 3}}'),
        ("threshold.json", '{"threshold": 1' + "0" * 400 + "}"),
        ("pictures.json", "[1]"),
        ("pictures.json", '[{"file": 1}]'),
        ("errors.json", '{"cells": 3, "interval": 1}'),
    ],
)
def test_damaged_file_is_named(tmp_path, name, content):
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"{re.escape(name)} is damaged"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("transfer.json", '{"from": "a"}'),
        ("scores.json", '{"test": {"classification": {"classes": 1}}}'),
        ("threshold.json", '{"threshold": 0.5, "split": "validation", "tuned_again": {}}'),
    ],
)
def test_what_the_page_cannot_show_is_refused(tmp_path, name, content):
    run = make_run(tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(InputError, match=r"run: one of .*transfer\.json.* lacks what the report shows \(.*Train again"):
        write_report(run)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10**400, "–"),
        (0.912345, "0.9123"),
        (1.0, "1.0000"),
        (0, "0"),
        (0.00012345, "0.000123"),
        (30.4583, "30.46"),
        (1234.5, "1,234"),
        (1224, "1,224"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (True, "–"),
        ("0.9", "–"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0638, "6.38 %"), (0.78, "78 %"), (None, "–"), (float("nan"), "–")])
def test_percent(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(
    ("minutes", "told"), [(0.24, "14 s"), (1.99, "119 s"), (2, "2 minutes"), (61.3, "61.3 minutes")]
)
def test_a_duration_is_in_seconds_or_minutes(minutes, told):
    assert duration(minutes) == told
