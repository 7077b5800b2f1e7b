import json
import subprocess
import sys

import pytest

from cellseg.cli import shell
from cellseg.cli.evaluate import evaluate, table
from pipelines.images import write_labels
from tests import cells


@pytest.fixture
def folders(tmp_path):
    """Four images: perfect, shifted, missed, empty."""
    scenes = {
        "perfect": (cells.one_cell(), cells.one_cell()),
        "shifted": cells.shifted_cell(),
        "missed": cells.missed_cell(),
        "none": (cells.empty(), cells.empty()),
    }
    for name, pair in scenes.items():
        for folder, labels in zip(("truth", "result"), pair, strict=True):
            write_labels(tmp_path / folder / f"{name}.tif", labels)
    return [str(tmp_path / "truth"), str(tmp_path / "result")]


@pytest.fixture
def run_folder(tmp_path):
    for name in ("experiment.yaml", "model.keras"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("")
    return str(tmp_path / "run")


def test_prints_measures_and_the_worst_images(folders, capsys):
    assert shell.run(evaluate, folders) == shell.OK
    captured = capsys.readouterr()
    # TP 16 + 12 + 12, FP 4, FN 4 + 12: 80 / 100.
    assert captured.out.splitlines() == [
        "4 images",
        "",
        "pixel_accuracy        0.8958",
        "iou                   0.6667",
        "dice                  0.8000",
        "average_precision     0.7500  (undefined in 1)",
        "average_precision_75  0.4000  (undefined in 1)",
        "average_precision_90  0.4000  (undefined in 1)",
        "seg                   0.6500  (undefined in 1)",
        "count_error           0.1667  (undefined in 1)",
        "",
        "Lowest dice",
        "missed   0.6667",
        "shifted  0.7500",
        "none     1.0000",
    ]
    assert captured.err == ""


def test_json(folders, tmp_path):
    target = tmp_path / "new" / "scores.json"
    assert shell.run(evaluate, [*folders, "--json", str(target)]) == shell.OK
    found = json.loads(target.read_text())
    assert found["images"] == 4
    assert found["measures"]["dice"] == 0.8
    assert found["per_image"][1] == {
        "name": "none",
        "pixel_accuracy": 1.0,
        "iou": 1.0,
        "dice": 1.0,
        "average_precision": None,
        "average_precision_75": None,
        "average_precision_90": None,
        "seg": None,
        "count_error": None,
    }
    assert [path.name for path in target.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    "options",
    [
        ["--measure", "seg", "--measure", "iou"],
        ["--measure", "seg", "iou"],
        ["--measure=seg", "--measure=iou"],
        ["--measure", "seg", "--measure", "iou", "seg"],
    ],
)
def test_measures_can_be_chosen(folders, tmp_path, options):
    target = tmp_path / "scores.json"
    for arguments in ([*folders, *options], [*options, *folders]):
        assert shell.run(evaluate, [*arguments, "--json", str(target)]) == shell.OK
        assert list(json.loads(target.read_text())["measures"]) == ["seg", "iou"]


def test_table_without_dice_lists_no_images(folders, capsys):
    assert shell.run(evaluate, [*folders, "--measure", "seg"]) == shell.OK
    assert capsys.readouterr().out.splitlines() == ["4 images", "", "seg  0.6500  (undefined in 1)"]


def test_undefined_measure_is_called_so():
    assert "seg  undefined" in table(
        {"images": 1, "measures": {"seg": None}, "per_image": [{"name": "a", "seg": None}]}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{truth}", "nowhere"], "nowhere does not exist"),
        (["{truth}", "{result}", "--measure", "dicee"], "Did you mean 'dice'"),
        (["{truth}", "{result}", "{result}"], "got 3 paths"),
        (["{truth}", "{result}", "--split", "test"], "--split chooses images of a run"),
        (["{truth}"], "is not a run folder: it holds no experiment.yaml and no model.keras"),
        (["nowhere"], "nowhere does not exist"),
        (["{run}", "--measure", "dicee"], "Did you mean 'dice'"),
        (["{run}", "--split", "tset"], "'tset' is not one of 'train', 'validation', 'test'"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_message_and_no_file(folders, run_folder, tmp_path, capsys, arguments, message):
    places = {"truth": folders[0], "result": folders[1], "run": run_folder}
    target = tmp_path / "scores.json"
    arguments = [argument.format(**places) for argument in arguments]
    assert shell.run(evaluate, [*arguments, "--json", str(target)]) == shell.BAD_INPUT
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert not target.exists()


def test_help_and_scoring_import_no_network_library():
    code = (
        "import sys; from cellseg.cli import evaluate; from cellseg import evaluation; "
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
