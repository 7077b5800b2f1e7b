import csv
import json

import pytest

from cellseg.cli.compare import compare, table
from cellseg.comparison import ranked
from cellseg.published import Column, Method
from pipelines.errors import InputError


def make_run(folder, measures, *, images=("a", "b")):
    folder.mkdir()
    (folder / "experiment.yaml").write_text("name: one\ndata: {source: cells, layout: pairs}\n")
    per_image = [{"name": name} for name in images]
    scores = {split: {"images": 2, "measures": measures, "per_image": per_image} for split in ("test", "validation")}
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def test_prints_runs_best_first(tmp_path, capsys):
    paths = (
        make_run(tmp_path / "slow", {"dice": 0.8, "count_error": 0.125}),
        make_run(tmp_path / "quick", {"dice": 0.91, "count_error": 0.125}),
    )
    compare(paths, published=None, csv_file=None, html_file=None, split="validation")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "place  method         dice  count_error  rank sum",
        "    1  quick   *0.9100 (1)  *0.1250 (1)         2",
        "    2  slow     0.8000 (2)  *0.1250 (1)         3",
        "",
        "* best of its column; (rank in its column). Higher is better, but lower for count_error.",
    ]
    assert captured.err == ""


def test_writes_csv_and_html(tmp_path, capsys):
    reported = tmp_path / "reported.csv"
    reported.write_text("method,dice,note\nA,0.90,\nB,0.70,from a poster\n")
    run = make_run(tmp_path / "run", {"dice": 0.80123})
    files = {"csv_file": tmp_path / "out" / "t.csv", "html_file": tmp_path / "out" / "t.html"}
    compare((run,), published=reported, split="test", **files)
    assert capsys.readouterr().out.splitlines() == [
        "place  method        dice  rank sum",
        "    1    A      *0.90 (1)         1",
        "    2  > run     0.80 (2)         2",
        "    3    B [1]   0.70 (3)         3",
        "",
        "> run of cellseg; * best of its column; (rank in its column). Higher is better.",
        "[1] from a poster",
        "The runs' scores were ranked with as many decimals as are printed; the CSV file has them all.",
    ]
    with open(files["csv_file"], newline="") as file:
        assert [(row["method"], row["dice"]) for row in csv.DictReader(file)] == [
            ("A", "0.9"),
            ("run", "0.80123"),
            ("B", "0.7"),
        ]
    assert "Comparison of 3 methods" in files["html_file"].read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["t.csv", "t.html"]


def test_published_table_by_its_name(capsys):
    compare((), published="isbi_membrane", csv_file=None, html_file=None, split="test")
    lines = capsys.readouterr().out.splitlines()
    # iou, dice, pixel_error, rand_error: weighted_unet 1, 2, 2, 2; unet1 2, 1, 1, 1; the size has no rank.
    first, second = (" ".join(line.split()) for line in lines[1:3])
    assert first == "1 unet1 0.8980 (2) *0.9623 (1) *0.0578 (1) *0.1087 (1) 31.0 5"
    assert second == "2 weighted_unet *0.9020 (1) 0.9617 (2) 0.0599 (2) 0.1124 (2) 31.0 7"
    assert any(line.endswith("Not ranked: parameters_millions.") for line in lines)


def test_warning_comes_first(tmp_path, capsys):
    paths = (make_run(tmp_path / "one", {"dice": 0.8}), make_run(tmp_path / "two", {"dice": 0.9}, images=("c",)))
    compare(paths, published=None, csv_file=None, html_file=None, split="test")
    assert capsys.readouterr().out.startswith(
        "Warning: one and two do not compare: they were scored on different images (2 and 1, 0 names in common).\n\n"
    )


def test_missing_scores_are_dashes():
    columns = [Column("dice", "dice", True), Column("iou", "iou", True)]
    methods = [Method("a", {"dice": 0.5, "iou": 0.25}), Method("b", {"dice": 0.75}), Method("c", {"iou": 0.5})]
    lines = table(ranked(columns, methods)).splitlines()
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "– b *0.7500 (1) – 1 over 1 of 2",
        "– c – *0.5000 (1) 1 over 1 of 2",
        "– a 0.5000 (2) 0.2500 (2) 4",  # the only one with both scores: first among one says nothing
    ]


def test_bad_input_writes_nothing(tmp_path, capsys):
    target = tmp_path / "t.csv"
    with pytest.raises(InputError, match="only one method to compare: run"):
        compare((make_run(tmp_path / "run", {}),), published=None, csv_file=target, html_file=None, split="test")
    with pytest.raises(InputError, match="no published table 'isbi_membran'.*Did you mean 'isbi_membrane'"):
        compare((), published="isbi_membran", csv_file=target, html_file=None, split="test")
    assert not target.exists() and capsys.readouterr().out == ""
