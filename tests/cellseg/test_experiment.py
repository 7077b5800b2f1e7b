from pathlib import Path

import pytest

from cellseg import experiment as experiments
from cellseg import named
from cellseg.losses import LOSSES
from cellseg.models import MODELS
from pipelines.errors import InputError

MINIMAL = """
name: cells
data: {source: cells, layout: pairs}
"""


def write(tmp_path, text=MINIMAL):
    path = tmp_path / "cells.yaml"
    path.write_text(text)
    return path


def test_defaults_fill_the_rest(tmp_path):
    experiment = experiments.read(write(tmp_path))
    assert experiment.train.batch_size == 4 and experiment.data.contrast == (2, 98)
    assert experiment.shards().as_posix() == "shards/cells"


def test_what_is_written_reads_back_equal(tmp_path):
    experiment = experiments.read(write(tmp_path), ["train.learning_rate=1e-4", "augment=[{name: HorizontalFlip}]"])
    again = experiments.read(write(tmp_path, experiment.to_yaml()))
    assert again == experiment


def test_scientific_notation_is_a_number(tmp_path):
    assert experiments.read(write(tmp_path, MINIMAL + "loss: {name: dice, x: 1e-4}")).loss["x"] == 1e-4


def test_overrides(tmp_path):
    experiment = experiments.read(write(tmp_path), ["train.epochs=3", "split.by=block", "split.train=0-9"])
    assert experiment.train.epochs == 3 and experiment.split.train == "0-9"
    with pytest.raises(InputError, match="'train.epochs' is no override. Write key=value"):
        experiments.read(write(tmp_path), ["train.epochs"])
    with pytest.raises(InputError, match="name is a value, not a section"):
        experiments.read(write(tmp_path), ["name.x=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "trian: {}", "unknown key 'trian'. Did you mean 'train'?"),
        (MINIMAL + "train: {epoch: 3}", "unknown key 'train.epoch'. Did you mean 'epochs'?"),
        (MINIMAL + "train: {epochs: many}", "train.epochs: .*integer.*got 'many'"),
        (MINIMAL + "train: {epochs: 0}", "train.epochs: .*greater than 0.*got 0"),
        ("name: x\ndata: {source: a, layout: pair}", "data.layout: .*got 'pair'. Did you mean 'pairs'?"),
        ("name: x", "the key 'data' is missing"),
        ("name: ../x\ndata: {source: a, layout: pairs}", "name: .*got '../x'"),
        (MINIMAL + "seed: 1\nseed: 2", "the key 'seed' stands twice"),
        ("- a", "holds no experiment"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_bad_files_are_explained(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        experiments.read(write(tmp_path, text))
    assert "cells.yaml" in str(caught.value)


def test_contrast_must_be_two_percentiles(tmp_path):
    with pytest.raises(InputError, match=r"data.contrast: must be two percentiles.*got"):
        experiments.read(write(tmp_path), ["data.contrast=[98, 2]"])


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match="no experiment file nowhere.yaml"):
        experiments.read("nowhere.yaml")


def test_data_is_looked_for_below_the_root_then_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSEG_DATA", str(tmp_path / "root"))
    experiment = experiments.read(write(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match=f"data.source: 'cells' was not found.*{tmp_path}/root/cells, {tmp_path}/cells, {tmp_path}/data/cells",
    ):
        experiment.sources()
    (tmp_path / "cells").mkdir()
    assert experiment.sources() == [tmp_path / "cells"]
    (tmp_path / "root" / "cells").mkdir(parents=True)
    assert experiment.sources() == [tmp_path / "root" / "cells"]


def test_a_section_is_a_call(tmp_path):
    loss = named.build(LOSSES, {"name": "tversky_bce", "beta": 0.7}, key="loss")
    assert loss.beta == 0.7


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "tversky_bse"}, "loss.name: 'tversky_bse' is not known. Did you mean 'tversky_bce'?"),
        ({"name": "dice", "square": True}, "loss.square: 'dice' takes no such key. Did you mean 'squared'?"),
        ({"name": "tversky_bce", "beta": "much"}, "loss.beta: .*got 'much'"),
        ({}, "loss.name: 'None' is not known"),
    ],
)
def test_bad_sections_are_explained(section, message):
    with pytest.raises(InputError, match=message):
        named.build(LOSSES, section, key="loss")


def test_the_program_sets_what_the_yaml_may_not():
    with pytest.raises(InputError, match="model.outputs: 'unet' takes no such key"):
        named.check_options(MODELS, {"name": "unet", "outputs": 3}, key="model", given=("outputs",))


def test_the_shards_do_not_depend_on_the_training(tmp_path):
    one = experiments.read(write(tmp_path)).data_config()
    assert experiments.read(write(tmp_path), ["train.epochs=3"]).data_config() == one
    assert experiments.read(write(tmp_path), ["data.format=npz"]).data_config() != one
    assert experiments.read(write(tmp_path), ["seed=5"]).data_config() != one
    moved = experiments.read(write(tmp_path), ["data.source=/elsewhere/cells"]).data_config()
    assert moved == one  # the same data in another place


def test_the_runs_copy_holds_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSEG_DATA", str(tmp_path / "root"))
    (tmp_path / "cells").mkdir()
    experiment = experiments.read(write(tmp_path), ["data.shards=prepared"])
    placed = experiment.placed(experiment.shards())
    assert placed.data.source == str(tmp_path / "cells") and placed.data.shards == str(tmp_path / "prepared")
    (tmp_path / "run").mkdir()
    again = experiments.read(write(tmp_path / "run", placed.to_yaml()))
    assert again.sources() == [tmp_path / "cells"] and again.shards() == tmp_path / "prepared"
    assert again.data_config() == experiment.data_config()


def test_data_below_the_root_stays_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSEG_DATA", str(tmp_path / "root"))
    (tmp_path / "root" / "cells").mkdir(parents=True)
    experiment = experiments.read(write(tmp_path))
    assert experiment.placed(experiment.shards()).data.source == "cells"


def test_the_run_to_start_from_is_found_from_here_and_beside_the_file(tmp_path, monkeypatch):
    experiment = experiments.read(write(tmp_path), ["train.start_from=runs/first"])
    monkeypatch.chdir(tmp_path.parent)
    assert experiment.start_from() == Path("runs/first")  # nowhere: as it was written
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert experiment.start_from() == tmp_path / "runs" / "first"
    assert experiment.placed(tmp_path).train.start_from == str(tmp_path / "runs" / "first")
    assert experiments.read(write(tmp_path)).start_from() is None


def test_the_loss_left_out_is_that_of_the_target(tmp_path):
    assert experiments.read(write(tmp_path, MINIMAL)).loss == {"name": "tversky_bce"}
    checked = experiments.read(write(tmp_path, MINIMAL + "target: foreground_distance"))
    assert [term["channel"] for term in checked.loss["terms"]] == [0, 0, 1]
    named_target = MINIMAL + "target: {name: foreground_border, width: 1}"
    assert [term["name"] for term in experiments.read(write(tmp_path, named_target)).loss["terms"]] == [
        "categorical_ce",
        "dice",
    ]
    own = experiments.read(write(tmp_path, named_target + "\nloss: {name: dice}"))
    assert own.loss == {"name": "dice"}
    overridden = experiments.read(write(tmp_path, MINIMAL), ["target=distance", "loss.foreground_weight=2"])
    assert overridden.loss == {"name": "bce", "foreground_weight": 2}
