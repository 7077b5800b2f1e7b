import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellseg import experiment as experiments
from cellseg import figures, reproduction, runs
from cellseg.cli import shell
from cellseg.cli.evaluate import evaluate, table
from cellseg.mistakes import find_mistakes
from cellseg.preparation import ensure_shards
from pipelines.images import read_image, write_image, write_labels
from tests import cells, datasets, sequences
from tests.runs import experiment, identity


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
    # Intervals: one draw in 16 holds none but "missed" and "none", one in 16 none but "perfect" and "none".
    assert captured.out.splitlines() == [
        "4 images",
        "",
        "                      score   95 % interval",
        "pixel_accuracy        0.8958  0.7917 to 1.0000",
        "iou                   0.6667  0.5000 to 1.0000",
        "dice                  0.8000  0.6667 to 1.0000",
        "average_precision     0.7500  0.5000 to 1.0000  (undefined in 1)",
        "average_precision_75  0.4000  0.0000 to 1.0000  (undefined in 1)",
        "average_precision_90  0.4000  0.0000 to 1.0000  (undefined in 1)",
        "seg                   0.6500  0.5000 to 1.0000  (undefined in 1)",
        "count_error           0.1667  0.0000 to 0.5000  (lower is better; undefined in 1)",
        "",
        "4 true cells: 3 found, 1 missed, 0 split, 0 merged; and 0 spurious",
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


@pytest.mark.parametrize(
    ("measure", "worst"),
    [
        ("seg", ["Lowest seg", "missed   0.5000", "shifted  0.6000", "perfect  1.0000"]),
        ("count_error", ["Highest count_error", "missed   0.5000", "perfect  0.0000", "shifted  0.0000"]),
    ],
)
def test_worst_images_by_the_first_measure_where_dice_was_not_taken(folders, capsys, measure, worst):
    assert shell.run(evaluate, [*folders, "--measure", measure]) == shell.OK
    assert capsys.readouterr().out.splitlines()[-4:] == worst


def test_one_image_has_no_interval(folders, capsys):
    files = [f"{folder}/missed.tif" for folder in folders]
    assert shell.run(evaluate, [*files, "--measure", "seg"]) == shell.OK
    true_cells = "2 true cells: 1 found, 1 missed, 0 split, 0 merged; and 0 spurious"
    assert capsys.readouterr().out.splitlines() == ["1 image", "", "seg  0.5000", "", true_cells]


def test_csv(folders, tmp_path):
    target = tmp_path / "new" / "scores.csv"
    assert shell.run(evaluate, [*folders, "--measure", "dice", "seg", "--csv", str(target)]) == shell.OK
    found = pd.read_csv(target)
    kinds = ["found", "missed", "spurious", "split", "merged"]
    assert list(found.columns) == ["row", "name", "dice", "seg", *kinds]
    assert found["row"].tolist() == ["image"] * 4 + ["pooled", "interval low", "interval high"]
    assert found["name"].tolist()[:4] == ["missed", "none", "perfect", "shifted"]
    images, pooled = found[:4], found.iloc[4]
    assert images["seg"].tolist()[::2] == [0.5, 1.0] and np.isnan(images["seg"][1])
    assert pooled["dice"] == 0.8 and pooled[kinds].tolist() == images[kinds].sum().tolist() == [3, 1, 0, 0, 0]
    assert found["dice"][5] < 0.8 < found["dice"][6]
    assert target.read_text().splitlines()[4].endswith(",1,0,0,0,0")  # whole numbers


def test_json_has_intervals_and_mistakes(folders, tmp_path):
    target = tmp_path / "scores.json"
    assert shell.run(evaluate, [*folders, "--measure", "dice", "--json", str(target)]) == shell.OK
    found = json.loads(target.read_text())
    low, high = found["intervals"]["dice"]
    assert low < 0.8 < high
    assert found["mistakes"] == {"found": 3, "missed": 1, "spurious": 0, "split": 0, "merged": 0}
    assert found["mistakes_per_image"][0] == {"name": "missed"} | found["mistakes"] | {"found": 1}
    assert found["per_image"][0] == {"name": "missed", "dice": pytest.approx(2 / 3)}


def test_overlay_on_the_truth_and_on_images(folders, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("missed", "none", "perfect", "shifted", "another"):
        write_image(tmp_path / "images" / f"{name}.png", np.full((6, 8, 3), 200, np.uint8))
    names = [f"{name}_errors.png" for name in ("missed", "none", "perfect", "shifted")]
    for target, options in (("grey", []), ("drawn", ["--images", str(tmp_path / "images")])):
        assert shell.run(evaluate, [*folders, "--overlay", str(tmp_path / target), *options]) == shell.OK
        assert sorted(path.name for path in (tmp_path / target).iterdir()) == names
    grey, drawn = (read_image(tmp_path / target / names[0]) for target in ("grey", "drawn"))
    assert grey.shape == drawn.shape and (grey != drawn).any()
    missed = np.array(figures.mistakes.COLOURS["missed"], np.uint8)
    assert all((picture[..., :3] == missed).all(axis=-1).sum() > 1000 for picture in (grey, drawn))


def test_overlay_of_a_stack_on_its_pages(tmp_path):
    truths, predictions = (np.stack(side) for side in zip(cells.shifted_cell(), cells.missed_cell(), strict=True))
    write_labels(tmp_path / "truth" / "movie.tif", truths)
    write_labels(tmp_path / "result" / "movie.tif", predictions)
    images = np.random.default_rng(0).integers(0, 255, (2, 6, 8, 1), dtype=np.uint8)
    write_image(tmp_path / "images" / "movie.tif", images)
    folders = [str(tmp_path / "truth"), str(tmp_path / "result")]
    arguments = [*folders, "--overlay", str(tmp_path / "out"), "--images", str(tmp_path / "images")]
    assert shell.run(evaluate, arguments) == shell.OK
    drawn = sorted((tmp_path / "out" / "movie").iterdir())
    assert [path.name for path in drawn] == ["000_errors.png", "001_errors.png"]
    for page, path in enumerate(drawn):
        mistakes = find_mistakes(truths[page], predictions[page])
        options = {"image": images[page], "title": f"movie/{page:03d}"}
        assert path.read_bytes() == figures.mistake_outlines(truths[page], predictions[page], mistakes, **options)


@pytest.fixture
def tracked(tmp_path):
    """CTC folders of a division that is seen one frame late, with images."""
    folders = sequences.write_ctc(tmp_path / "ctc", sequences.division(), sequences.late_division())
    for frame in range(4):
        write_image(tmp_path / "01" / f"t{frame:03d}.tif", np.full((1, 7), 100 + frame, np.uint8))
    return [str(folder) for folder in folders]


def test_ctc_folders_with_tracks_and_images(tracked, tmp_path, capsys):
    target, listed = tmp_path / "scores.json", tmp_path / "operations.csv"
    options = ["--json", str(target), "--operations", str(listed), "--overlay", str(tmp_path / "out")]
    options += ["--images", str(tmp_path / "01")]
    assert shell.run(evaluate, [*tracked, "--measure", "det", "tra", "seg", *options]) == shell.OK
    printed = capsys.readouterr().out
    assert "AOGM operations: NS 0, FN 1, FP 0, ED 1, EA 2, EC 2" in printed
    found = json.loads(target.read_text())
    # 10 of 6 * 10 for DET; see test_evaluation for the operations.
    assert found["measures"]["det"] == pytest.approx(1 - 10 / 60)
    assert found["measures"]["tra"] == pytest.approx(1 - 16 / 67.5)
    assert [set(row) for row in found["per_image"]] == [{"name", "seg"}] * 4
    assert found["operations"] == {"NS": 0, "FN": 1, "FP": 0, "ED": 1, "EA": 2, "EC": 2}
    operations = pd.read_csv(listed, dtype=str)
    assert list(operations.columns) == ["kind", "frame", "from_frame", "labels_true", "labels_pred", "count"]
    assert operations["kind"].value_counts().to_dict() == {"EA": 2, "EC": 2, "ED": 1, "FN": 1}
    missed = operations[operations["kind"] == "FN"].iloc[0]
    assert (missed["frame"], missed["labels_true"]) == ("2", "3") and pd.isna(missed["from_frame"])
    deleted = operations[operations["kind"] == "ED"].iloc[0]
    assert (deleted["from_frame"], deleted["frame"], deleted["labels_pred"]) == ("2", "3", "1 3")
    assert len(list((tmp_path / "out").glob("00?_errors.png"))) == 4


def test_probabilities(folders, tmp_path, capsys):
    truth = str(tmp_path / "truth" / "missed.tif")
    probability = np.where(cells.two_touching() > 0, 0.75, 0.25).astype(np.float32)
    write_image(tmp_path / "missed.tif", probability)
    assert shell.run(evaluate, [truth, str(tmp_path / "missed.tif"), "--measure", "pixel_error", "v_rand"]) == shell.OK
    assert capsys.readouterr().out.splitlines()[:3] == ["1 image", "", "pixel_error  0.0000  (lower is better)"]


def break_input(case, truth, result):
    """(arguments, message) of one way in which folders of labels are wrong."""
    if case == "one side only":
        write_labels(truth / "alone.tif", cells.empty())
        return [], "1 of 5 files in .*truth have no partner: alone.tif"
    if case == "other size":
        write_labels(result / "missed.tif", cells.empty()[:5])
        return [], "missed.tif holds 1 page of 6x8 pixels, but .*missed.tif holds 1 page of 5x8 pixels"
    if case == "other length":
        write_labels(result / "missed.tif", np.stack([cells.empty()] * 3))
        return [], "holds 1 page of 6x8 pixels, but .* holds 3 pages of 6x8 pixels"
    if case == "float labels":
        write_image(result / "missed.tif", np.full((6, 8), 0.5, np.float32))
        return [
            "--measure",
            "v_rand",
            "dice",
        ], "but dice needs labels .* --measure pixel_error v_rand v_info warping_err"
    if case == "float truth":
        write_image(truth / "missed.tif", np.full((6, 8), 0.5, np.float32))
        return [], "missed.tif: labels must be whole numbers, the file holds float32"
    if case == "overlay of floats":
        write_image(result / "missed.tif", np.full((6, 8), 0.5, np.float32))
        arguments = ["--measure", "pixel_error", "--overlay", str(truth.parent / "out")]
        return arguments, "missed.tif holds a probability; --overlay draws the cells of 2-D labels"
    write_image(truth.parent / "images" / "missed.png", np.zeros((6, 8), np.uint8))
    arguments = ["--overlay", str(truth.parent / "out"), "--images", str(truth.parent / "images")]
    if case == "missing images":
        return arguments, "3 of 4 images were not found in .*images: none, perfect, shifted"
    if case == "two images":
        write_image(truth.parent / "images" / "missed.tif", np.zeros((6, 8), np.uint8))
        return arguments, "missed.png and .*missed.tif are both images of missed"
    for name in ("none", "perfect", "shifted"):
        write_image(truth.parent / "images" / f"{name}.png", np.zeros((8, 6), np.uint8))
    assert case == "image of another size"
    return arguments, "none.png holds 1 page.s. of 8x6 pixels, but .*none.tif needs page 1 of 6x8"


@pytest.mark.parametrize(
    "case",
    [
        "one side only",
        "other size",
        "other length",
        "float labels",
        "float truth",
        "overlay of floats",
        "missing images",
        "two images",
        "image of another size",
    ],
)
def test_wrong_folders_are_one_message_and_no_file(folders, tmp_path, capsys, case):
    arguments, message = break_input(case, *map(Path, folders))
    assert_refused([*folders, *arguments], message, tmp_path, capsys)


def assert_refused(arguments, message, tmp_path, capsys):
    files = [tmp_path / "scores.json", tmp_path / "scores.csv"]
    assert shell.run(evaluate, [*arguments, "--json", str(files[0]), "--csv", str(files[1])]) == shell.BAD_INPUT
    captured = capsys.readouterr()
    assert re.search(message, captured.err.replace("\n", " ")), captured.err
    assert captured.err.count("cellseg-evaluate:") == 1 and captured.out == ""
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("1 0 1 0\n2 3 3 1\n3 3 3 1\n", "mask002.tif and .*res_track.txt"),
        ("1 0 2 0\n2 3 9 1\n3 3 3 1\n", "res_track.txt: track 2 lives from frame 3 to 9"),
        ("1 0 2 0\n2 3 3 7\n3 3 3 1\n", "res_track.txt"),
        ("1 0 x\n", "res_track.txt"),
    ],
)
def test_a_table_that_disagrees_with_its_masks(tracked, tmp_path, capsys, table, message):
    (Path(tracked[1]) / "res_track.txt").write_text(table)
    assert_refused([*tracked, "--measure", "tra", "seg"], message, tmp_path, capsys)


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("res_track.txt", "There is no file .*res_track.txt. A table of tracks"),
        ("mask001.tif", "res_track.txt: track 1 lives from frame 0 to 2, but there is no image of frame 1"),
    ],
)
def test_a_result_without_its_table_or_a_frame(tracked, tmp_path, capsys, remove, message):
    (Path(tracked[1]) / remove).unlink()
    assert_refused([*tracked, "--measure", "tra"], message, tmp_path, capsys)


def test_operations_need_both_tables(tracked, tmp_path, capsys):
    (Path(tracked[1]) / "res_track.txt").unlink()
    arguments = [*tracked, "--measure", "det", "--operations", str(tmp_path / "operations.csv")]
    assert_refused(
        arguments, "operations.csv was not written: without man_track.txt and res_track.txt", tmp_path, capsys
    )


def test_compare_is_handed_on(monkeypatch, tmp_path):
    calls = []
    module = types.ModuleType("cellseg.cli.compare")
    module.compare = lambda paths, **options: calls.append((paths, options))
    monkeypatch.setitem(sys.modules, "cellseg.cli.compare", module)
    assert shell.run(evaluate, ["--compare", "a", "b"]) == shell.OK
    options = ["--published", "dsb2018", "--csv", "t.csv", "--html", "t.html", "--split", "validation"]
    assert shell.run(evaluate, ["a", "--compare", "b", "c", *options]) == shell.OK
    nothing = {"published": None, "csv_file": None, "html_file": None, "split": "test"}
    asked = {"published": "dsb2018", "csv_file": Path("t.csv"), "html_file": Path("t.html"), "split": "validation"}
    assert calls == [((Path("a"), Path("b")), nothing), ((Path("a"), Path("b"), Path("c")), asked)]


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
        (["{truth}", "{result}", "--published", "x.csv"], "--published goes with --compare RUN RUN"),
        (["{truth}", "{result}", "--html", "x.html"], "--html goes with --compare RUN RUN"),
        (["--compare", "{run}", "{run}", "--measure", "dice"], "--measure goes with TRUTH PREDICTION or one RUN"),
        (["--compare", "{run}", "{run}"], "--json goes with TRUTH PREDICTION or one RUN"),
        (["{truth}", "{result}", "--images", "{truth}"], "--images are drawn on by --overlay DIR"),
        (["{run}", "--overlay", "x", "--images", "{truth}"], "--images goes with TRUTH PREDICTION, not with a run"),
        (["{truth}", "{result}", "--tune", "dice"], "--tune chooses the threshold of a RUN"),
        (["{run}", "--operations", "x.csv"], "--operations goes with TRUTH PREDICTION, not with a run"),
        (["{truth}", "{result}", "--operations", "x.csv"], "add for example --measure tra"),
        (["{truth}", "{result}", "--measure", "tra", "--overlay", "x"], "add a measure of them"),
        (["{truth}", "{result}", "--measure", "tra"], "There is no folder"),
        (["{run}", "--measure", "tra"], "'tra' measures a tracked sequence"),
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose network calls bright pixels cells, on ten images of four discs, six of them for training."""
    folder = tmp_path_factory.mktemp("finished")
    source = datasets.write_pairs(folder / "raw")
    data = {"source": str(source), "layout": "pairs", "format": "npz", "shards": str(folder / "shards")}
    split = {"by": "image", "train": 0.6, "validation": 0.2, "test": 0.2}
    inference = {"tile": 32, "overlap": 8}
    prepared = ensure_shards(experiment(data=data, split=split, train={"patch": 32}, inference=inference))
    run = folder / "run"
    run.mkdir()
    identity().save(run / runs.MODEL)
    runs.write_text(run, runs.EXPERIMENT, prepared.experiment.placed(prepared.folder).to_yaml())
    seen = {"channels": 1, "shapes": [[64, 64]], "minimum_range": {}, "shards": str(prepared.folder)}
    runs.write_json(run, runs.DATA, seen)
    threshold = {"threshold": 0.5, "measure": "dice", "value": 1.0, "split": "validation"}
    runs.write_json(run, runs.THRESHOLD, threshold)
    return run


OLD = {"validation": {"measures": {"dice": 0.1}}, "baseline": {"dice": 0.2}, "note": "mine"}


def test_a_run_with_the_usual_measures_is_scored_anew(finished, tmp_path, capsys):
    runs.write_json(finished, runs.SCORES, OLD)
    (finished / "report.html").unlink(missing_ok=True)
    target = tmp_path / "again.json"
    arguments = [str(finished), "--split", "test", "--json", str(target), "--overlay", str(tmp_path / "drawn")]
    assert shell.run(evaluate, arguments) == shell.OK
    stored, found = runs.read_json(finished, runs.SCORES), json.loads(target.read_text())
    assert {"validation": OLD["validation"], "note": "mine"}.items() <= stored.items()
    baselines = {name: found.pop(name) for name in ("baseline", "baseline_foreground")}
    assert stored["test"] == found and {name: stored[name] for name in baselines} == baselines
    assert found["images"] == 2 and found["measures"]["dice"] > 0.95 and baselines["baseline"]["dice"] == 0
    low, high = found["intervals"]["dice"]
    assert low <= found["measures"]["dice"] <= high
    assert found["mistakes"]["found"] == 8 and found["mistakes"]["missed"] == 0
    assert (finished / "report.html").is_file()
    assert len(list((tmp_path / "drawn").glob("*_errors.png"))) == 2
    header = capsys.readouterr().out.splitlines()[2]
    assert header.split() == ["score", "95", "%", "interval", "all", "background", "all", "foreground"]


def test_another_split_leaves_the_baselines_of_the_test(finished):
    runs.write_json(finished, runs.SCORES, OLD)
    assert shell.run(evaluate, [str(finished), "--split", "validation"]) == shell.OK
    stored = runs.read_json(finished, runs.SCORES)
    assert stored["baseline"] == {"dice": 0.2} and stored["note"] == "mine" and "test" not in stored
    assert stored["validation"]["baseline"]["dice"] == 0
    assert stored["validation"]["measures"]["dice"] > 0.95


@pytest.mark.parametrize("options", [["--measure", "dice", "v_rand"], ["--split", "train"]])
def test_chosen_measures_and_training_images_change_nothing_in_the_run(finished, tmp_path, options, capsys):
    runs.write_json(finished, runs.SCORES, OLD)
    (finished / "report.html").write_text("old")
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    target = tmp_path / "scores.csv"
    assert shell.run(evaluate, [str(finished), *options, "--csv", str(target)]) == shell.OK
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    rows = pd.read_csv(target)["row"].tolist()
    assert rows[-5:] == ["pooled", "interval low", "interval high", "all background", "all foreground"]


def test_a_run_without_scores_gets_them(finished):
    (finished / runs.SCORES).unlink(missing_ok=True)
    assert shell.run(evaluate, [str(finished)]) == shell.OK
    assert set(runs.read_json(finished, runs.SCORES)) == {"test", "baseline", "baseline_foreground"}


@pytest.fixture
def tunable(finished, tmp_path):
    """A copy of the run whose experiment names instance options, with the files of an older scoring."""
    run = shutil.copytree(finished, tmp_path / "tunable")
    settings = experiments.read(run / runs.EXPERIMENT, ["tuning.instances.min_size=[500, 0]"])
    runs.write_text(run, runs.EXPERIMENT, settings.to_yaml())
    runs.write_json(run, runs.SCORES, OLD)
    (run / "report.html").write_text("old")
    return run


def test_a_run_tuned_again_for_another_measure(tunable, tmp_path, capsys):
    (tunable / runs.THRESHOLD).write_text("damaged")  # it is not needed
    target = tmp_path / "tuned.json"
    assert shell.run(evaluate, [str(tunable), "--tune", "average_precision", "--json", str(target)]) == shell.OK
    threshold, scores = runs.read_json(tunable, runs.THRESHOLD), runs.read_json(tunable, runs.SCORES)
    assert (threshold["measure"], threshold["split"], threshold["value"]) == ("average_precision", "validation", 1.0)
    assert threshold["instances"] == {"min_size": 0}  # the discs have about 113 pixels
    assert scores["validation"]["measures"]["average_precision"] == threshold["value"]
    assert json.loads(target.read_text())["measures"] == scores["test"]["measures"] and "note" not in scores
    report = (tunable / "report.html").read_text()
    assert "chosen on the validation images" in report and "2 combinations" in report
    assert threshold["tuned_again"]["date"] in report and "done again after the training" in report
    assert f"5. Tuned again on {threshold['tuned_again']['date']}" in (tunable / reproduction.RECIPE).read_text()
    assert capsys.readouterr().out.startswith("2 images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--tune", "avarage_precision"],
            "no measure. Did you mean 'average_precision'?",
        ),
        (["--tune", "lnk"], "'lnk' measures a tracked sequence"),
        (["--tune", "dice", "--measure", "seg"], "--measure does not go with --tune"),
        (["--tune", "dice", "--split", "test"], "--split does not go with --tune"),
        (["--tune", "dice", "--overlay", "drawn"], "--overlay does not go with --tune"),
    ],
)
def test_what_cannot_be_tuned_changes_nothing(tunable, capsys, options, message):
    before = {path: path.read_bytes() for path in tunable.rglob("*") if path.is_file()}
    assert shell.run(evaluate, [str(tunable), *options]) == shell.BAD_INPUT
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tunable.rglob("*") if path.is_file()} == before


def test_tuning_again_needs_the_shards(tunable, tmp_path, capsys):
    runs.write_json(tunable, runs.DATA, runs.read_json(tunable, runs.DATA) | {"shards": str(tmp_path / "gone")})
    assert shell.run(evaluate, [str(tunable), "--tune", "dice"]) == shell.BAD_INPUT
    assert str(tmp_path / "gone") in capsys.readouterr().err
    assert runs.read_json(tunable, runs.SCORES) == OLD
