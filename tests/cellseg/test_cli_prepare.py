import pytest

from cellseg import experiment as experiments
from cellseg.cli import prepare, shell
from cellseg.preparation import ensure_shards
from pipelines.errors import InputError
from tests.datasets import write_ctc, write_pairs


def run(*arguments):
    return shell.run(prepare.prepare, [str(argument) for argument in arguments])


def test_frames_are_split_by_block(tmp_path, capsys):
    write_ctc(tmp_path / "raw", 20)
    assert (
        run(tmp_path / "raw", "--layout", "ctc", "--truth", "silver", "--out", tmp_path / "out", "--format", "npz") == 0
    )
    text = (tmp_path / "out" / "experiment.yaml").read_text()
    assert 'by: "block"' in text and "gap: 2" in text and 'truth: "silver"' in text


def test_an_experiment_file_says_everything(tmp_path, capsys, monkeypatch):
    write_pairs(tmp_path / "cells", 8)
    path = tmp_path / "cells.yaml"
    path.write_text("name: cells\ndata: {source: cells, layout: pairs, format: npz}\n")
    assert run(path, "split.train=0.5", "split.validation=0.25", "split.test=0.25", "--out", tmp_path / "out") == 0
    assert "8 images (4 train, 2 validation, 2 test)" in capsys.readouterr().out
    assert run(path, "--out", tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err
    assert run(path, "--out", tmp_path / "out", "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give an EXPERIMENT.yaml, or SOURCE --layout LAYOUT --out DIR"),
        (["raw"], "--layout is missing"),
        (["raw", "--layout", "pairs"], "--out is missing"),
        (["nowhere", "--layout", "pairs", "--out", "out"], "There is no folder nowhere"),
        (["raw", "--layout", "pairs", "--out", "out", "a=b"], "the command line: unknown key 'a'"),
        (
            ["raw", "--layout", "pairs", "--out", "out", "--truth", "gold"],
            "--truth means nothing to the layout 'pairs'",
        ),
        (["raw", "--layout", "pairs", "--out", "out", "--seed", "-1"], "-1 is not in the range"),
        (["x.yaml", "--layout", "pairs"], "--layout cannot be given with x.yaml"),
        (["raw", "--layout", "tiles", "--out", "out"], "'tiles' is not one of"),
        (["empty", "--layout", "pairs", "--out", "out"], "images"),
    ],
)
def test_bad_arguments_exit_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "raw", 6)
    (tmp_path / "empty").mkdir()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("folder", "left"), [("images", "labels"), ("labels", "images")])
def test_a_missing_partner_is_named(tmp_path, capsys, folder, left):
    write_pairs(tmp_path / "raw", 6)
    (tmp_path / "raw" / folder / "cell02.tif").unlink()
    assert run(tmp_path / "raw", "--layout", "pairs", "--out", tmp_path / "out") == 2
    assert "cell02" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch, capsys):
    write_pairs(tmp_path / "raw", 10)

    def interrupt(label):
        def wrap(items, total):
            for number, item in enumerate(items):
                if number == 5:
                    raise KeyboardInterrupt
                yield item

        return wrap

    monkeypatch.setattr(shell, "progress", interrupt)
    assert run(tmp_path / "raw", "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert "interrupted" in capsys.readouterr().err


def test_separate_image_and_label_folders(tmp_path):
    source = write_pairs(tmp_path / "raw", 6)
    (source / "images").rename(tmp_path / "pictures")
    (source / "labels").rename(tmp_path / "truth")
    folders = ["--images", tmp_path / "pictures", "--labels", tmp_path / "truth"]
    assert run("--layout", "pairs", *folders, "--format", "npz", "--out", tmp_path / "out") == 0


def test_overwrite_prepares_again_even_if_nothing_seems_to_have_changed(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    arguments = [tmp_path / "raw", "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out"]
    assert run(*arguments) == 0
    shard = next((tmp_path / "out").glob("train-*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100] + bytes(100))
    assert run(*arguments, "--overwrite") == 0
    assert shard.read_bytes() == whole


def test_overwrite_keeps_an_edited_experiment(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    arguments = [tmp_path / "raw", "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out"]
    assert run(*arguments) == 0
    starter = tmp_path / "out" / "experiment.yaml"
    fresh = starter.read_text()
    assert run(*arguments, "--overwrite") == 0
    assert starter.read_text() == fresh and not (tmp_path / "out" / "experiment.new.yaml").exists()
    starter.write_text(fresh + "# my own words\n")
    assert run(*arguments, "--overwrite") == 0
    assert starter.read_text().endswith("# my own words\n")
    assert (tmp_path / "out" / "experiment.new.yaml").read_text() == fresh
    assert "Your edited experiment.yaml was kept" in capsys.readouterr().out


def test_overrides_reach_the_data_section(tmp_path):
    write_pairs(tmp_path / "raw", 8)
    overrides = ["data.contrast=[0, 100]", "split.train=0.5", "split.validation=0.25", "split.test=0.25"]
    assert run(tmp_path / "raw", *overrides, "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out") == 0
    assert "contrast: [0.0, 100.0]" in (tmp_path / "out" / "experiment.yaml").read_text()


def test_a_symlinked_source_gives_a_starter_that_fits(tmp_path):
    from cellseg import experiment as experiments
    from cellseg.workflow import ensure_shards

    write_pairs(tmp_path / "raw", 6)
    (tmp_path / "link").symlink_to(tmp_path / "raw")
    assert run(tmp_path / "link", "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out") == 0
    ensure_shards(experiments.read(tmp_path / "out" / "experiment.yaml"))


def test_show_draws_augmented_samples_of_new_shards_and_of_old_ones(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    arguments = [tmp_path / "raw", "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out"]
    assert run(*arguments, "--show", "2") == 0
    assert "2 augmented samples with their labels, targets and weight maps" in capsys.readouterr().out
    manifest = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    first = (tmp_path / "out" / "augmented.png").read_bytes()
    assert run(*arguments, "--show", "3") == 0  # what is there is shown, not made again
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == manifest
    assert (tmp_path / "out" / "augmented.png").read_bytes() != first


def test_a_setting_that_folds_the_picture_is_told(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    (tmp_path / "cells.yaml").write_text(
        f"name: cells\ndata: {{source: {tmp_path / 'raw'}, layout: pairs, format: npz, shards: out}}\n"
        "train: {patch: 64}\naugment: [{name: elastic_simard, alpha: 200.0, sigma: 4.0}]\n"
    )
    assert run(tmp_path / "cells.yaml", "--show", "1") == 0
    assert "WARNING: augment[0]" in capsys.readouterr().out


def test_a_csv_and_folds_from_the_command_line(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    arguments = [tmp_path / "raw", "--layout", "pairs", "--format", "npz"]
    assert run(*arguments, "--out", tmp_path / "fold", "split.fold=2/3") == 0
    assert "2 test" in capsys.readouterr().out
    splits = ["train"] * 3 + ["validation", "test", ""]
    table = "".join(f"cell{number:02d},{split}\n" for number, split in enumerate(splits))
    (tmp_path / "splits.csv").write_text(f"name,split\n{table}")
    option = f"split.file={tmp_path / 'splits.csv'}"
    assert run(*arguments, "--out", tmp_path / "csv", option) == 0
    assert "5 images (3 train, 1 validation, 1 test)" in capsys.readouterr().out
    # The starter names the table, and an edited table is another configuration.
    starter = experiments.read(tmp_path / "csv" / "experiment.yaml")
    ensure_shards(starter)
    (tmp_path / "splits.csv").write_text(f"name,split\n{table.replace('test', 'none')}cell05,test\n")
    with pytest.raises(InputError, match="split.file was 'splits.csv, .*', is 'splits.csv, "):
        ensure_shards(starter)


def test_expanded_shards_train_from_their_starter_configuration(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    arguments = [tmp_path / "raw", "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out"]
    assert run(*arguments, "data.expand=9", "augment=[{name: HorizontalFlip, p: 1.0}]") == 0
    assert "11 images (9 train, 1 validation, 1 test)" in capsys.readouterr().out
    experiment = experiments.read(tmp_path / "out" / "experiment.yaml")
    assert experiment.augment == [{"name": "HorizontalFlip", "p": 1.0}] and experiment.augmentation() == []
    ensure_shards(experiment)  # refuses shards of another configuration


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("target=foregroud", "target.name: 'foregroud' is not known. Did you mean 'foreground'"),
        ("target={name: foreground_border, widht: 2}", "target.widht: 'foreground_border' takes no such key"),
        ("target={name: foreground_border, width: 0}", "target.width must be at least 1"),
        ("augment=[{name: HorizontalFlipp}]", "augment[0]: albumentations has no transform 'HorizontalFlipp'"),
        ("augment=[{name: elastic_grid, sigma: 1e7}]", "augment[0].sigma"),
        ("weight_map={name: border, sigma: -1}", "weight_map: sigma must be positive"),
        ("data.expand=20", "the augment section is empty"),
    ],
)
def test_an_experiment_is_checked_before_its_data_is_read(tmp_path, capsys, override, message):
    path = tmp_path / "cells.yaml"
    path.write_text(f"name: cells\ndata: {{source: {tmp_path / 'raw'}, layout: pairs, format: npz, shards: out}}\n")
    write_pairs(tmp_path / "raw", 6)
    assert run(path, override) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_source_cannot_keep_is_refused(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    arguments = [tmp_path / "raw", "--layout", "pairs", "--format", "npz", "--out", tmp_path / "out"]
    assert run(*arguments, "train.patch=32", "split.gap=0") == 2
    assert "train.patch=32: with SOURCE, KEY=VALUE sets keys of data and split" in capsys.readouterr().err


def test_the_last_line_trains_what_was_prepared(tmp_path, capsys):
    write_pairs(tmp_path / "raw", 6)
    (tmp_path / "cells.yaml").write_text(f"name: cells\ndata: {{source: {tmp_path / 'raw'}, layout: pairs}}\n")
    assert run(tmp_path / "cells.yaml", "split.seed=3", "--format", "npz", "--out", tmp_path / "out") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"cells.yaml split.seed=3 data.shards={tmp_path / 'out'} data.format=npz")
    command = last.partition("cellseg-train ")[2].split()
    ensure_shards(experiments.read(command[0], command[1:]))  # they are found, and fit
