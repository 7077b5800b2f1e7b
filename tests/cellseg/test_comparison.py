import csv
import json

import keras
import numpy as np
import pytest
from keras import layers

from cellseg import experiment as experiments
from cellseg import runs
from cellseg.comparison import direction, ranked, sum_of_ranks, write_csv, write_html
from cellseg.contenders import compare, needs_network, read_runs
from cellseg.inference import load_run
from cellseg.metrics import score
from cellseg.published import TABLES, Column, Method, read
from pipelines.errors import InputError
from pipelines.images import read_image, read_labels
from pipelines.prepare import prepare
from tests.datasets import write_glas

DICE, ERROR = Column("dice", "dice", True), Column("pixel_error", "pixel_error", False)
GLAS = ("f1_a", "f1_b", "object_dice_a", "object_dice_b", "object_hausdorff_a", "object_hausdorff_b")


def make_run(folder, measures, *, images=("a", "b"), source="cells", layout="pairs", checksum="1", split="test"):
    """What a comparison reads of a run folder; returns the folder."""
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(f"name: one\ndata: {{source: {source}, layout: {layout}}}\n")
    scores = {split: {"images": 2, "measures": measures, "per_image": [{"name": name} for name in images]}}
    (folder / "scores.json").write_text(json.dumps({**scores, "baseline": {"dice": 0.0}}))
    checksums = {f"{split}-00000.npz": checksum, "train-00000.npz": str(folder)}
    (folder / "data.json").write_text(json.dumps({"checksums": checksums}))
    return folder


def table(path, text):
    path.write_text(text)
    return path


def by_name(comparison):
    return {row.method.name: row for row in comparison.rows}


def test_ranks_by_hand():
    # dice: a and b share rank 1, c is 3. pixel_error, lower is better: b 1, c 2, a 3.
    methods = [
        Method("a", {"dice": 0.9, "pixel_error": 0.3}),
        Method("b", {"dice": 0.9, "pixel_error": 0.1}),
        Method("c", {"dice": 0.8, "pixel_error": 0.2}),
    ]
    found = ranked([DICE, ERROR], methods)
    assert [(row.method.name, dict(row.ranks), row.rank_sum, row.place) for row in found.rows] == [
        ("b", {"dice": 1, "pixel_error": 1}, 2, 1),
        ("a", {"dice": 1, "pixel_error": 3}, 4, 2),
        ("c", {"dice": 3, "pixel_error": 2}, 5, 3),
    ]


def test_equal_sums_share_the_place():
    found = ranked([DICE], [Method("a", {"dice": 0.5}), Method("b", {"dice": 0.5}), Method("c", {"dice": 0.4})])
    assert [row.place for row in found.rows] == [1, 1, 3]


def test_a_missing_score_has_no_rank_and_its_method_no_place():
    methods = [
        Method("half", {"dice": 0.99}),
        Method("a", {"dice": 0.9, "pixel_error": 0.3}),
        Method("b", {"dice": 0.8, "pixel_error": 0.1}),
        Method("none", {}),
    ]
    found = ranked([DICE, ERROR], methods)
    rows = by_name(found)
    assert [row.method.name for row in found.rows] == ["a", "b", "half", "none"]
    assert (rows["half"].ranks, rows["half"].rank_sum, rows["half"].place) == ({"dice": 1}, 1, None)
    assert rows["a"].ranks == {"dice": 2, "pixel_error": 2}
    assert [sum_of_ranks(rows[name], found) for name in ("a", "half", "none")] == ["4", "1 over 1 of 2", "–"]


def test_there_is_no_first_among_one():
    methods = [
        Method("a", {"dice": 0.1, "pixel_error": 0.9}),
        Method("b", {"dice": 0.9}),
        Method("c", {"pixel_error": 0}),
    ]
    found = ranked([DICE, ERROR], methods)
    assert [(row.method.name, row.place) for row in found.rows] == [("b", None), ("c", None), ("a", None)]


def test_a_column_of_one_score_or_without_direction_is_not_ranked():
    size = Column("parameters_millions")
    methods = [Method("a", {"dice": 0.9, "parameters_millions": 3.0}), Method("b", {"parameters_millions": 2.0})]
    found = ranked([DICE, size], methods)
    assert (found.ranked, found.rows[0].place, found.rows[0].rank_sum) == ((), None, None)


def test_scores_are_compared_with_the_printed_decimals():
    printed = Column("dice", "dice", True, decimals=3)
    methods = [Method("printed", {"dice": 0.891}), Method("run", {"dice": 0.8914}, is_run=True)]
    assert [row.place for row in ranked([printed], methods).rows] == [1, 1]
    assert [row.place for row in ranked([DICE], methods).rows] == [1, 2]


def test_direction_is_said():
    assert direction([DICE, ERROR, Column("size")]) == (
        "Higher is better, but lower for pixel_error. Not ranked: size."
    )
    assert direction([DICE]) == "Higher is better."


def test_the_contest_by_rule():
    # The printed sums (arXiv 1603.00275 and two later entries), but 32 where 33 is printed: README.md says why.
    found = compare([], read("glas2015"))
    assert {row.method.name: row.rank_sum for row in found.rows} == {
        "DTU-MASKRCNN": 6,
        "CIMedVision2": 26,
        "ExB1": 30,
        "ExB3": 31,
        "Freiburg2": 32,
        "CIMedVision1": 34,
        "DTU-UNET": 38,
        "ExB2": 38,
        "Freiburg1": 39,
        "LIB": 63,
        "CVML": 64,
        "vision4GlaS": 66,
    }
    assert tuple(column.name for column in found.columns) == GLAS
    assert [row.method.name for row in found.rows if row.marks] == ["Freiburg2"]
    assert found.notes == ("printed rank sum 33; the printed scores give 32 (without runs)",)


@pytest.mark.parametrize("name", TABLES)
def test_shipped_tables_are_read(name):
    found = read(name)
    assert found.name == name and found.methods and found.columns


def test_isbi_rand_error_is_that_of_pixels():
    # As the shipped README.md says, 2 e (1 - e) of the pixel error; a mean over images lies a little below.
    for method in read("isbi_membrane").methods:
        error = method.scores["pixel_error"]
        assert method.scores["rand_error"] == pytest.approx(2 * error * (1 - error), abs=3e-4)
    columns = {column.name: column for column in read("isbi_membrane").columns}
    assert columns["rand_error"].measure == "pixel_rand_error"
    assert columns["parameters_millions"].higher_is_better is None


def test_a_copy_of_a_shipped_table_is_known_by_its_header(tmp_path):
    copy = table(tmp_path / "mine.csv", f"method,{','.join(GLAS)}\na,.9,.9,.9,.9,40,50\nb,.8,.8,.8,.8,50,60\n")
    found = read(copy)
    assert (found.name, found.contest) == ("glas2015", {"testA": 60, "testB": 20})
    assert {(column.measure, column.part) for column in found.columns} == {
        (measure, part) for measure in ("glas_f1", "object_dice", "object_hausdorff") for part in ("testA", "testB")
    }


def test_runs_are_compared_by_all_their_measures(tmp_path):
    paths = [
        make_run(tmp_path / "one", {"dice": 0.8, "count_error": 0.1, "seg": None}),
        make_run(tmp_path / "two", {"dice": 0.9, "count_error": 0.2, "novel": 3.0}),
    ]
    found = compare(read_runs(paths))
    assert [column.name for column in found.columns] == ["dice", "count_error", "novel"]
    assert {name: dict(row.ranks) for name, row in by_name(found).items()} == {
        "one": {"dice": 2, "count_error": 1},
        "two": {"dice": 1, "count_error": 2},
    }
    assert found.warnings == ()


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [make_run(tmp_path / folder / "run", {"dice": 0.5}) for folder in ("one", "two")]
    assert [run.name for run in read_runs(paths)] == [str(path) for path in paths]


def test_other_images_are_warned_of(tmp_path):
    paths = [
        make_run(tmp_path / "one", {"dice": 0.8}),
        make_run(tmp_path / "same", {"dice": 0.8}),
        make_run(tmp_path / "names", {"dice": 0.9}, images=("b", "c", "d")),
        make_run(tmp_path / "shards", {"dice": 0.9}, checksum="2"),
    ]
    names, shards = compare(read_runs(paths)).warnings
    assert names == ("one and names do not compare: they were scored on different images (2 and 3, 1 names in common).")
    assert "one and shards may not compare: the names of their images are the same, but not their shards" in shards


def test_run_takes_its_place_from_its_scores(tmp_path):
    published = read(table(tmp_path / "t.csv", "method,dice,pixel_error\nA,0.90,0.05\nB,0.80,0.10\n"))
    (run,) = read_runs([make_run(tmp_path / "run", {"dice": 0.851, "pixel_error": 0.2, "iou": 0.7})])
    assert not needs_network(run, published)
    found = compare([run], published)
    assert [(row.method.name, row.rank_sum) for row in found.rows] == [("A", 2), ("run", 5), ("B", 5)]
    assert "The runs' scores were ranked with as many decimals as are printed" in found.remarks[-1]


def test_reports_are_compared_on_the_data_of_the_run(tmp_path):
    measures = {"pixel_accuracy": 0.99, "iou": 0.5, "dice": 0.6}
    run = make_run(tmp_path / "run", measures, source="data/PhC-C2DL-PSC", layout="ctc")
    found = compare(read_runs([run]), read("other_reports"))
    assert [column.name for column in found.columns] == ["pixel_accuracy (PhC-C2DL-PSC)"]
    assert [(row.method.name, row.place) for row in found.rows] == [("run", 1), ("pancreatic", 2)]
    stack = make_run(tmp_path / "stack", measures, layout="epfl")
    found = compare(read_runs([stack]), read("other_reports"))
    rows = [(row.method.name, row.ranks.get("iou (EPFL hippocampus)")) for row in found.rows]
    assert rows == [("mitochondria", 1), ("mitochondria", None), ("mitochondria", 2), ("stack", 3)]
    assert [row.place for row in found.rows] == [None] * 4  # none but the run has both scores
    assert "EPFL hippocampus, training data; no validation set" in found.notes


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    """(raw folder, run folder with its split as published, the same by image) on three images of each test part."""
    folder = tmp_path_factory.mktemp("contest")
    raw = write_glas(folder / "glas", test_a=3, test_b=3)
    inputs = layers.Input((None, None, 3))
    # The first channel alone, and so faint an answer that noise changes the outlines.
    kernel = np.array([1, 0, 0], np.float32).reshape(1, 1, 3, 1)
    head = layers.Conv2D(1, 1, kernel_initializer=keras.initializers.Constant(kernel), name="probability")
    network = keras.Model(inputs, head(inputs))
    made = []
    for by in ("published", "image"):
        parts = {"train": 0.5, "validation": 0.2, "test": 0.3} if by == "image" else {}
        checked = experiments.check(
            {
                "name": "known",
                "data": {"source": str(raw), "layout": "glas", "format": "npz", "contrast": [0, 100]},
                "split": {"by": by, **parts},
                "model": {"name": "unet", "padding": "same", "depth": 2},
                "inference": {"tile": 32, "overlap": 8},
            }
        )
        run, shards = folder / by, folder / f"shards-{by}"
        prepare(raw, shards, config=checked.data_config(), options=checked.data.options())
        splits = json.loads((shards / "manifest.json").read_text())["splits"]
        make_run(run, {"dice": 0.5}, images=splits["test"], layout="glas")
        network.save(run / runs.MODEL)
        runs.write_text(run, runs.EXPERIMENT, checked.to_yaml())
        data = {"channels": 3, "shapes": [[64, 64]], "minimum_range": {}, "shards": str(shards)}
        runs.write_json(run, runs.DATA, data)
        runs.write_json(run, runs.THRESHOLD, {"threshold": 0.87, "measure": "dice", "value": 1, "split": "validation"})
        made.append(run)
    return raw, *made


def test_contest_is_scored_by_part_from_labels(contest):
    raw, run, _ = contest
    (scored,) = read_runs([run])
    assert needs_network(scored, read("glas2015"))
    row = by_name(compare([scored], read("glas2015")))["published"]
    loaded = load_run(run)
    for part in ("a", "b"):
        stems = [f"test{part.upper()}_{number}" for number in (1, 2, 3)]
        truth = [read_labels(raw / f"{stem}_anno.png")[0] for stem in stems]
        drawn = [loaded.predict(read_image(raw / f"{stem}.png")).labels for stem in stems]
        expected = score(truth, drawn, ["glas_f1", "object_dice", "object_hausdorff"])
        for name, measure in (("f1", "glas_f1"), ("object_dice", "object_dice")):
            assert 0 < expected[measure] < 1
            assert row.method.scores[f"{name}_{part}"] == pytest.approx(expected[measure], abs=1e-12)
        assert row.method.scores[f"object_hausdorff_{part}"] == pytest.approx(expected["object_hausdorff"], abs=1e-9)
    assert row.method.scores["f1_a"] != row.method.scores["f1_b"]


def test_part_of_the_contest_has_a_footnote(contest):
    found = compare(read_runs([contest[1]]), read("glas2015"))
    row = by_name(found)["published"]
    (mark,) = row.marks
    assert found.notes[mark - 1] == (
        "scored on 3 of the 60 images of testA and 3 of the 20 images of testB; the printed scores are of all of them"
    )


def test_training_on_test_images_has_a_footnote(contest):
    found = compare(read_runs([contest[2]]), read("glas2015"))
    names = [row["name"] for row in json.loads((contest[2] / "scores.json").read_text())["test"]["per_image"]]
    seen = 6 - sum(name.startswith("test") for name in names)
    row = by_name(found)["image"]
    assert 0 < seen < 6
    assert f"trained or tuned on {seen} of the contest's test images" in row.method.notes[1]


def test_other_measures_are_taken_from_the_shards(contest, tmp_path):
    published = read(table(tmp_path / "t.csv", "method,dice,aji,parameters_millions\nA,0.9,0.9,7.7\n"))
    row = by_name(compare(read_runs([contest[1]]), published))["published"]
    assert 0 < row.method.scores["aji"] < 1
    assert row.method.scores["parameters_millions"] == 4e-6  # three weights and a bias


def test_isbi_table_says_that_the_data_are_others(contest):
    found = compare(read_runs([contest[1]]), read("isbi_membrane"))
    row = by_name(found)["published"]
    error = row.method.scores["pixel_error"]
    assert row.method.scores["rand_error"] == pytest.approx(2 * error * (1 - error))
    assert row.method.notes == ("on other data than the table: layout glas",)
    assert "a split of their report's own" in found.remarks[0]


def test_shards_that_are_gone(contest, tmp_path):
    run = make_run(tmp_path / "moved", {"dice": 0.5}, images=("testA_1",))
    for name in (runs.MODEL, runs.EXPERIMENT, runs.THRESHOLD):
        (run / name).write_bytes((contest[1] / name).read_bytes())
    runs.write_json(run, runs.DATA, json.loads((contest[1] / runs.DATA).read_text()) | {"shards": "nowhere"})
    with pytest.raises(InputError, match=r"moved must be scored again .* nowhere holds no manifest.json"):
        compare(read_runs([run]), read("glas2015"))


def test_csv_has_all_digits(tmp_path):
    methods = [
        Method("a, b", {"dice": 1 / 3}, ("odd",), is_run=True),
        Method("c", {"pixel_error": 0.5}),
        Method("d", {}),
    ]
    write_csv(
        ranked([Column("dice", "dice", True, decimals=2), ERROR], [*methods[:2], Method("d", {"dice": 0.3})]),
        tmp_path / "new" / "t.csv",
    )
    with open(tmp_path / "new" / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "place": "1",
        "method": "a, b",
        "kind": "run",
        "dice": "0.3333333333333333",
        "pixel_error": "",
        "rank_dice": "1",
        "rank_sum": "1",
        "ranked_columns": "1",
        "note": "odd",
    }
    assert [(row["method"], row["kind"], row["place"]) for row in rows[1:]] == [
        ("d", "published", "2"),
        ("c", "published", ""),
    ]


def test_page_is_safe_and_marks_the_best(tmp_path):
    methods = [
        Method("<script>alert(1)</script>", {"dice": 0.9}, ("a <b> note",), is_run=True),
        Method("B", {"dice": 0.8}),
    ]
    write_html(ranked([DICE], methods, warnings=["<i>do not compare"]), tmp_path / "t.html")
    page = (tmp_path / "t.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "a &lt;b&gt; note" in page and "&lt;i&gt;do not compare" in page
    assert "<b>0.9000</b>" in page and "<b>0.8000</b>" not in page
    assert "http" not in page and "src=" not in page
    assert page.count('<tr class="run">') == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,dice\na,0.9\n", r"t.csv has no column 'method'.*it is 'name,dice'"),
        ("method,dice,iou\na,0.9,0.8\nb,high,0.7\n", r"t.csv, line 3, column 'dice': 'high' is no number"),
        ("method,dice\na,inf\n", r"line 2, column 'dice': 'inf' is no number"),
        ("method,dice\na,0.9\na,0.8\n", r"line 3: 'a' has a line already"),
        ("method,dice\n,0.9\n", r"line 2: the cell of column 'method' is empty"),
        ("method,dice\na,0.9,1\n", r"line 2: it has 3 cells, but the first line has 2"),
        ("method,dice,dice\na,1,1\n", r"the name 'dice' in the first line is empty or stands there twice"),
        ("method,dice\n", r"t.csv lists no method"),
        ("", r"t.csv has no column 'method'"),
        ("report,data,measure,value,note\na,b,iou,x,\n", r"line 2, column 'value': 'x' is no number"),
        ("report,data,measure,value,note\na,b,iou,1,\na,b,iou,2,\n", r"line 3: this report's iou \(b\) has a line"),
        ("report,data,measure,value,note\n", r"t.csv lists no figure"),
        ('method,dice,note\na,0.9,"x\nb,0.8,y\n', r"t.csv, line 3: not a CSV: .*Close every quote"),
        ('method,dice,note\na,0.9,"x\n' + "b,0.8,y\n" * 20_000, r"t.csv, line \d+: not a CSV: .*Close every quote"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(table(tmp_path / "t.csv", text))


def test_table_with_gaps_notes_and_other_columns(tmp_path):
    found = read(table(tmp_path / "t.csv", "\ufeffmethod,dise,note\n\na,,from a poster\nb,0.25,\n"))
    assert [(method.name, dict(method.scores), method.notes) for method in found.methods] == [
        ("a", {}, ("from a poster",)),
        ("b", {"dise": 0.25}, ()),
    ]
    assert found.notes == ("dise is not ranked: it is no measure that cellseg knows. Did you mean 'dice'?",)


def test_unknown_table():
    with pytest.raises(InputError, match="no published table 'glas2051'.*Did you mean 'glas2015'.*isbi_membrane"):
        read("glas2051")


def test_bad_runs(tmp_path):
    good = make_run(tmp_path / "good", {"dice": 0.5})
    bare = make_run(tmp_path / "bare", {})
    (bare / "scores.json").unlink()
    (tmp_path / "folder").mkdir()
    damaged = make_run(tmp_path / "damaged", {})
    (damaged / "scores.json").write_text('{"test": {"measures": {"dice": "x"}}}')
    for path, message in (
        (tmp_path / "nowhere", "There is no run folder .*nowhere"),
        (tmp_path / "folder", "folder is no run folder: experiment.yaml was looked for"),
        (bare, "bare has no scores: scores.json was looked for in it"),
        (damaged, "damaged is damaged: scores.json or experiment.yaml"),
        (good, "good was given twice"),
    ):
        with pytest.raises(InputError, match=message):
            read_runs([good, path])
    with pytest.raises(InputError, match="good has no scores of the split 'train'. It has those of: test"):
        read_runs([good], "train")


def test_too_few_to_compare(tmp_path):
    with pytest.raises(InputError, match="only one method to compare: good. Give another run, or a table"):
        compare(read_runs([make_run(tmp_path / "good", {"dice": 0.5})]))
    with pytest.raises(InputError, match="nothing to compare. Give two runs"):
        compare([])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glas2015", r"run \(layout pairs, cells\) .* glas2015: images like testA_1 and testB_1 were expected"),
        ("other_reports", "a run on one of these was expected: Fluo-N2DH-GOWT1, EM stacks"),
    ],
)
def test_run_on_other_data(tmp_path, name, message):
    run = make_run(tmp_path / "run", {"iou": 0.5})
    with pytest.raises(InputError, match=message):
        compare(read_runs([run]), read(name))


def test_table_without_a_measure(tmp_path):
    published = read(table(tmp_path / "t.csv", "method,beauty\na,1\n"))
    with pytest.raises(InputError, match="t: a column with the name of a measure was expected in it"):
        compare(read_runs([make_run(tmp_path / "run", {"iou": 0.5})]), published)
