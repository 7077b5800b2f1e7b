import functools
import math
import os
import re
import signal
from unittest import mock

import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from cellseg import experiment as experiments
from cellseg import run_list, runs, search, search_results, search_space, search_trial, study
from cellseg.cli import search as command
from cellseg.cli import shell
from pipelines.errors import InputError
from tests.datasets import write_pairs

SECTION = {
    "space": {
        "train.learning_rate": {"name": "log_uniform", "low": 1e-5, "high": 1e-1},
        "loss.beta": {"name": "uniform", "low": 0.1, "high": 0.9},
    },
    "broad": {"trials": 5},
    "narrow": {"trials": 2, "around": 2},
    "prune": None,
}
SHORT = {**SECTION, "broad": {"trials": 3}, "narrow": None}
CONTENT = {
    "name": "discs",
    "data": {"layout": "pairs", "format": "npz"},
    "model": {"name": "unet", "padding": "same", "filters": 2, "depth": 1},
    "train": {"patch": 32, "epochs": 8, "learning_rate": 1e-2},
    "search": SECTION,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("raw"), 10)


def begun(source, folder, *, section=SECTION, **sections):
    data = {**CONTENT["data"], "source": str(source), "shards": str(source / "shards")}
    checked = experiments.check({**CONTENT, **sections, "data": data, "search": section})
    with mock.patch.object(search_space, "check"):  # it has tests of its own, and builds networks
        return search.begin(checked, folder)[0]


def score(experiment):
    """The best learning rate is 1e-3, whatever else."""
    return 1 - abs(math.log10(experiment.train.learning_rate) + 3) / 4


def train(experiment, run, *, listen, tested, interrupted=None):
    """Instead of a training: scores that grow towards the experiment's."""
    assert not tested, "a search never looks at the test images"
    (run / runs.BACKUP).mkdir(parents=True)
    judge = listen("val_dice")
    history = ["epoch"]
    for epoch in range(experiment.train.epochs):
        history.append(str(epoch))
        runs.write_text(run / runs.BACKUP, runs.HISTORY, "\n".join(history) + "\n")
        judge.on_epoch_end(epoch, {"val_dice": score(experiment) * (1 - 0.5 ** (epoch + 1))})
    runs.write_json(run, runs.SCORES, {"validation": {"measures": {"dice": score(experiment), "seg": None}}})
    os.replace(run / runs.BACKUP / runs.HISTORY, run / runs.HISTORY)
    (run / runs.BACKUP).rmdir()


class Process:
    """A trial that has ended before anybody asks."""

    def __init__(self, status=0):
        self.status, self.killed = status, False

    def poll(self):
        return self.status

    def kill(self):
        self.killed = True

    def wait(self):
        return self.status


def launch(folder, number, environment, *, train=train):
    search_trial.run(folder, number, train=train)
    return Process()


@pytest.fixture(scope="module")
def found(source, tmp_path_factory):
    """The folder of a finished search, and its study."""
    folder = tmp_path_factory.mktemp("search") / "found"
    return folder, searched(source, folder)


def searched(source, folder, **options):
    """A whole search; its study."""
    given = {key: options.pop(key) for key in ("section", "train") if key in options}
    return search.go_on(begun(source, folder, **given), folder, **{"launch": launch, **options})


def test_broad_then_narrow_around_the_best(found):
    _, shared = found
    plans = [study.plan_of(trial) for trial in shared.trials]
    assert plans == [("broad", True)] + [("broad", False)] * 5 + [("narrow", False)] * 2
    assert shared.trials[0].params == {} and shared.trials[0].value == pytest.approx(0.75 * (1 - 0.5**8))
    rates = [math.log10(trial.params["train.learning_rate"]) for trial in shared.trials[1:]]
    best = sorted(rates[:5], key=lambda rate: abs(rate + 3))[:2]
    assert all(min(best) - 0.5 - 1e-9 <= rate <= max(best) + 0.5 + 1e-9 for rate in rates[5:])  # an eighth of 4 decades
    assert len(set(rates)) == 7 and max(rates[:5]) - min(rates[:5]) > 1


def test_a_trial_is_the_experiment_with_other_values(source, found):
    folder, shared = found
    stored = experiments.read(folder / "trials" / "trial-003.yaml")
    assert stored.train.learning_rate == float(f"{shared.trials[3].params['train.learning_rate']:.4g}")
    assert stored.loss["beta"] == float(f"{shared.trials[3].params['loss.beta']:.4g}")
    assert stored.search is None and stored.train.epochs == 8 and stored.data.shards == str(source / "shards")
    first = experiments.read(folder / "trials" / "trial-000.yaml")
    assert first.train.learning_rate == 1e-2 and "beta" not in first.loss


def test_the_table_and_the_best_experiment(found):
    folder, shared = found
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 8 and table["score"].is_monotonic_decreasing and set(table["state"]) == {"finished"}
    assert table["trial"].tolist()[0] == search_results.best_trial(shared).number
    assert table.loc[table["baseline"], "train.learning_rate"].tolist() == [1e-2]
    best = experiments.read(folder / "best.yaml")
    assert best.train.learning_rate == table["train.learning_rate"][0] and best.loss["beta"] == table["loss.beta"][0]
    assert best.name == "discs-best" and "score 0." in (folder / "best.yaml").read_text().splitlines()[0]
    space = search_space.read_space(SECTION["space"])
    lines = search_results.printed(search_results.table(shared, space, best), space, folder).splitlines()
    assert lines[0].split() == ["trial", "stage", "state", "score", "epochs", "train.learning_rate", "loss.beta"]
    assert sum("broad, as it stands" in line for line in lines) == 1 and lines[-1].startswith("8 finished")


def test_the_same_seed_searches_the_same_however_many_at_a_time(source, found, tmp_path):
    two = searched(source, tmp_path, jobs=2)
    assert [trial.params for trial in found[1].trials] == [trial.params for trial in two.trials]


def test_hopeless_trials_are_stopped_early(source, tmp_path):
    section = {**SECTION, "prune": {"name": "median", "warmup_epochs": 2, "min_trials": 2}}
    shared = searched(source, tmp_path, section=section)
    stopped = [trial for trial in shared.trials if trial.state == TrialState.PRUNED]
    assert stopped and all(max(trial.intermediate_values) == 2 for trial in stopped)
    before = [trial for trial in shared.trials if trial.number < stopped[0].number]
    worst = max(stopped[0].intermediate_values.values())
    assert sum(one.intermediate_values[2] > worst for one in before) >= len(before) / 2
    table = pd.read_csv(tmp_path / "trials.csv")
    assert (table["state"] == "pruned").sum() == len(stopped)
    assert table.loc[table["state"] == "pruned", "score"].isna().all()
    space = search_space.read_space(SECTION["space"])
    assert search_results.printed(table, space, tmp_path).count("pruned at epoch 2") == len(stopped)
    listed = run_list.look_at(as_run(tmp_path / "trials" / study.name_of(stopped[0].number)))
    assert listed.state == "pruned at epoch 2" and listed.epochs == 2


def test_without_a_finished_broad_trial_there_is_no_narrow_stage_and_it_is_said(source, found, tmp_path):
    def only_the_first(experiment, run, **options):
        if run.name != study.name_of(0):
            raise InputError("no memory")
        train(experiment, run, **options)

    section = {**SECTION, "broad": {"trials": 2}}
    shared = searched(source, tmp_path, section=section, launch=functools.partial(launch, train=only_the_first))
    assert len(shared.trials) == 3
    checked = experiments.read(tmp_path / study.EXPERIMENT).search
    assert "of the broad trials none has finished" in search_results.without_narrow(shared, checked)
    assert search_results.without_narrow(found[1], checked) == ""


def as_run(folder):
    """What a real training would have written besides."""
    for name in (runs.ENVIRONMENT, runs.EXPERIMENT):
        (folder / name).write_text("")
    return folder


def test_of_a_pruned_trial_the_history_is_kept_alone(tmp_path):
    backup = tmp_path / runs.BACKUP
    backup.mkdir()
    for name in (runs.HISTORY, runs.CHECKPOINT, "best-2.keras"):
        (backup / name).write_text(name)
    search_trial.tidy(tmp_path)
    search_trial.tidy(tmp_path)  # killed before the end, and again
    assert [path.name for path in tmp_path.iterdir()] == [runs.HISTORY]


def test_a_trial_killed_before_it_could_tell_is_not_trained_again(source, tmp_path):
    def killed(experiment, run, **options):
        train(experiment, run, **options)
        (run / runs.MODEL).write_text("")
        raise KeyboardInterrupt

    section = {**SHORT, "broad": {"trials": 1}}
    with pytest.raises(KeyboardInterrupt):
        searched(source, tmp_path, section=section, launch=functools.partial(launch, train=killed))
    checked = experiments.read(tmp_path / study.EXPERIMENT)
    shared = search.go_on(checked, tmp_path, launch=functools.partial(launch, train=once(train, 0)))
    assert [trial.state for trial in shared.trials] == [TrialState.COMPLETE] * 2
    assert shared.trials[0].value == pytest.approx(0.75 * (1 - 0.5**8))


def test_sigterm_ends_the_trials_that_run_and_the_search_goes_on_later(source, tmp_path, monkeypatch):
    class Running:
        """A trial during which the search is asked to end."""

        killed = False

        def poll(self):
            os.kill(os.getpid(), signal.SIGTERM)

        def kill(self):
            Running.killed = True

        def wait(self):
            return -signal.SIGKILL

    monkeypatch.setattr(search, "start", lambda *given: Running())
    path = written(tmp_path, source, broad={"trials": 1}, narrow=None)
    found = tmp_path / "found"
    before = signal.getsignal(signal.SIGTERM)
    assert shell.run(command.search, [str(path), "--out", str(found)]) == shell.TERMINATED
    assert Running.killed and signal.getsignal(signal.SIGTERM) is before and (found / "trials.csv").is_file()
    monkeypatch.setattr(search, "start", launch)
    assert shell.run(command.search, ["--resume", str(found)]) == shell.OK
    states = pd.read_csv(found / "trials.csv")["state"]
    assert list(states) == ["finished"] * 2


def once(train, number):
    """A training that fails for one trial."""

    def checked(experiment, run, **options):
        assert run.name != study.name_of(number)
        train(experiment, run, **options)

    return checked


def test_the_experiment_as_it_stands_is_never_stopped(source, tmp_path):
    class Strict(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return True

    shared = optuna.create_study(pruner=Strict(), direction="maximize")
    for spared in (True, False):
        judge = search_trial.Judge(shared.ask(), "val_dice", spared=spared)
        if spared:
            judge.on_epoch_end(0, {"val_dice": 0.1})
        else:
            with pytest.raises(search_trial.HopelessError):
                judge.on_epoch_end(0, {"val_dice": 0.1})


def test_the_later_comparison_is_not_stopped_either(source, tmp_path):
    section = {
        **SECTION,
        "broad": {"trials": 3, "overrides": {"train.epochs": 3}},
        "narrow": {"trials": 1},
        "prune": {"name": "median", "warmup_epochs": 1, "min_trials": 1},
    }
    hopeless = {**CONTENT["train"], "learning_rate": 10.0}
    shared = searched(source, tmp_path, section=section, train=hopeless)
    again = study.of_stage(shared, study.NARROW, baseline=True)
    assert [(trial.state, max(trial.intermediate_values)) for trial in again] == [(TrialState.COMPLETE, 8)]


def test_a_stage_with_other_overrides_has_its_own_comparison(source, tmp_path):
    section = {**SECTION, "broad": {"trials": 2, "overrides": {"train.epochs": 3}}, "narrow": {"trials": 1}}
    shared = searched(source, tmp_path, section=section)
    plans = [study.plan_of(trial) for trial in shared.trials]
    assert plans == [("broad", True), ("broad", False), ("broad", False), ("narrow", True), ("narrow", False)]
    assert [max(trial.intermediate_values) for trial in shared.trials] == [3, 3, 3, 8, 8]
    assert experiments.read(tmp_path / "best.yaml").train.epochs == 8


def test_equal_overrides_need_one_comparison(source, tmp_path):
    same = {"trials": 1, "overrides": {"train.epochs": 3}}
    shared = searched(source, tmp_path, section={**SECTION, "broad": same, "narrow": same})
    assert [study.plan_of(trial) for trial in shared.trials] == [("broad", True), ("broad", False), ("narrow", False)]


def test_a_measure_of_the_validation_images_can_decide(source, tmp_path):
    section = {**SECTION, "broad": {"trials": 2}, "narrow": None, "measure": "dice"}
    shared = searched(source, tmp_path, section=section)
    assert shared.trials[0].value == pytest.approx(0.75)  # of scores.json, and not of the best epoch
    failed = searched  # a measure without a value is a failure of the experiment itself
    with pytest.raises(InputError, match="as it stands, failed: the validation images have no seg"):
        failed(source, tmp_path / "none", section={**section, "measure": "seg"})


def killed_at(number, epoch):
    """A launch whose search is killed while that trial is in that epoch."""

    def stop(experiment, run, *, listen, tested, interrupted):
        def heard(monitor):
            judge = listen(monitor)
            tell = judge.on_epoch_end

            def or_die(done, logs):
                if done == epoch:
                    raise KeyboardInterrupt
                tell(done, logs)

            judge.on_epoch_end = or_die
            return judge

        train(experiment, run, listen=heard, tested=tested)

    return lambda folder, which, environment: launch(
        folder, which, environment, train=stop if which == number else train
    )


@pytest.mark.parametrize("number", [3, 6])
def test_a_killed_search_goes_on_to_the_same_end(source, found, tmp_path, number):
    _, whole = found
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        searched(source, folder, launch=killed_at(number, 3))
    with open(folder / "trials.journal", "ab") as file:  # and in the middle of a line
        file.write(b'{"op_code": 5, "wor')
    (folder / "trials.journal.lock").symlink_to(folder / "trials.journal")
    checked = experiments.read(folder / "experiment.yaml")
    shared = search.go_on(checked, folder, launch=launch)
    assert [trial.params for trial in shared.trials] == [trial.params for trial in whole.trials]
    assert [trial.value for trial in shared.trials] == [trial.value for trial in whole.trials]
    assert [trial.state for trial in shared.trials] == [TrialState.COMPLETE] * 8


def test_a_finished_search_has_nothing_left_to_do(found):
    folder, _ = found
    before = (folder / "trials.csv").read_bytes()
    search.go_on(experiments.read(folder / "experiment.yaml"), folder, launch=None)
    assert (folder / "trials.csv").read_bytes() == before


def test_one_trial_that_fails_does_not_end_the_search(source, tmp_path):
    def fails(experiment, run, **options):
        if experiment.name.endswith("trial-002"):
            raise InputError("the weights have blown up")
        train(experiment, run, **options)

    shared = searched(source, tmp_path, section=SHORT, launch=lambda *call: launch(*call, train=fails))
    assert [trial.number for trial in shared.trials if trial.state == TrialState.FAIL] == [2]
    table = pd.read_csv(tmp_path / "trials.csv")
    assert table.loc[table["state"] == "failed", "error"].tolist() == ["the weights have blown up"]
    assert len(table) == 4


def test_a_process_that_dies_is_a_failed_trial(source, tmp_path):
    def dies(folder, number, environment):
        return Process(status=-9) if number == 1 else launch(folder, number, environment)

    searched(source, tmp_path, section=SHORT, launch=dies)
    table = pd.read_csv(tmp_path / "trials.csv").set_index("trial")
    assert table["state"][1] == "failed" and "ended with status -9; " in table["error"][1]
    assert (table["state"].drop(index=1) == "finished").all()


def test_a_search_in_which_all_fail_gives_up(source, tmp_path):
    def fails(experiment, run, **options):
        raise InputError("no GPU")

    with pytest.raises(InputError, match="trial-000, the experiment as it stands, failed: no GPU"):
        searched(source, tmp_path / "first", launch=lambda *call: launch(*call, train=fails))


def test_the_hours_end_a_search_and_resume_goes_on(source, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])
    ended = []

    class Slow(Process):
        def poll(self):
            return None

        def kill(self):
            ended.append(self)

    def slow(folder, number, environment):
        now[0] += 4000.0 * (number == 3)
        return Slow() if number == 3 else launch(folder, number, environment)

    shared = searched(source, tmp_path / "search", launch=slow, hours=1.0)
    states = [trial.state for trial in shared.trials]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.RUNNING] and len(ended) == 1
    shared = search.go_on(experiments.read(tmp_path / "search" / "experiment.yaml"), tmp_path / "search", launch=launch)
    assert [trial.state for trial in shared.trials] == [TrialState.COMPLETE] * 8


def test_after_two_thirds_of_the_hours_the_narrow_stage_begins(source, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])

    def takes_ten_minutes(folder, number, environment):
        now[0] += 600
        return launch(folder, number, environment)

    shared = searched(source, tmp_path, launch=takes_ten_minutes, hours=1.0)
    # Broad trials begin at 0, 10, 20 and 30 minutes; at 40 the narrow stage does.
    assert [study.plan_of(trial).stage for trial in shared.trials] == ["broad"] * 4 + ["narrow"] * 2


def test_other_data_settings_have_shards_of_their_own(source, tmp_path):
    space = {"data.contrast": {"name": "choice", "values": [[0, 100], [5, 95]]}}
    section = {**SECTION, "space": space, "broad": {"trials": 1}, "narrow": None}
    searched(source, tmp_path / "search", section=section)
    shards = {experiments.read(path).data.shards for path in sorted((tmp_path / "search/trials").glob("*.yaml"))}
    assert shards == {str(source / "shards"), str(tmp_path / "search" / "shards" / "trial-001")}


def test_tensorboard_has_the_values_and_the_scores(found):
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import metadata

    folder, shared = found
    events = EventMultiplexer().AddRunsFromDirectory(str(folder / "tensorboard")).Reload()
    found = events.PluginRunToTagToContent("hparams")
    (config,) = found["events-config"].values()
    infos = {one.name for one in metadata.parse_experiment_plugin_data(config).hparam_infos}
    assert infos == {"train.learning_rate", "loss.beta"}
    assert set(found) == {"events-config", *(f"trial-{number:03d}" for number in range(8))}
    started = metadata.parse_session_start_info_plugin_data(found["trial-003"][metadata.SESSION_START_INFO_TAG])
    rate = started.hparams["train.learning_rate"].number_value
    assert rate == float(f"{shared.trials[3].params['train.learning_rate']:.4g}")
    (last,) = events.Tensors("trial-003", search_results.SCORE)
    assert last.tensor_proto.float_val[0] == pytest.approx(shared.trials[3].value, rel=1e-6)
    assert [one.step for one in events.Tensors("trial-003", search_results.CURVE)] == list(range(1, 9))


def written(tmp_path, source, **section):
    path = tmp_path / "discs.yaml"
    data = {**CONTENT["data"], "source": str(source), "shards": str(source / "shards")}
    path.write_text(yaml.safe_dump({**CONTENT, "data": data, "search": {**SECTION, **section}}))
    return path


def test_the_command_searches_and_resumes(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search, "start", launch)
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, source, broad={"trials": 2}, narrow={"trials": 1})
    assert shell.run(command.search, [str(path), "train.epochs=2", "--out", "found"]) == shell.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "found" and "cellseg-evaluate found/trials/trial-00" in lines[-3] and "best.yaml" in lines[-2]
    assert shell.run(command.search, ["--resume", "found"]) == shell.OK
    assert capsys.readouterr().out.splitlines() == lines
    section = tmp_path / "space.yaml"
    section.write_text(yaml.safe_dump({"search": {**SECTION, "broad": {"trials": 1}, "narrow": None}}))
    assert shell.run(command.search, [str(path), "--space", str(section), "--out", "other"]) == shell.OK
    assert "2 finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give an EXPERIMENT.yaml to begin a search, or --resume DIR"),
        (["FILE", "--resume", "x"], "Give an EXPERIMENT.yaml to begin a search, or --resume DIR"),
        (["--resume", "nowhere"], "There is no search in nowhere: it holds no experiment.yaml"),
        (["--resume", "x", "--out", "y"], "--resume goes on with what is stored in x: leave out --space, --out"),
        (["FILE", "search=null"], "The experiment has no search section"),
        (["FILE", "search.narow.trials=3"], "unknown key 'search.narow'. Did you mean 'narrow'?"),
        (["FILE", "search.narrow.trial=3"], "unknown key 'search.narrow.trial'. Did you mean 'trials'?"),
        (["FILE", "search.prune={name: medina}"], "search.prune.name: 'medina' is not known. Did you mean 'median'?"),
        (["FILE", "search.prune={name: halving, factor: 1}"], "search.prune.factor must be at least 2, got 1"),
        (["FILE", "search.measure=count_error"], "search.measure: 'count_error' cannot be searched for"),
        (["FILE", "search.broad.overrides={train.epoch: 1}"], "search.overrides: unknown key 'train.epoch'. Did you"),
        (
            ["FILE", "train.epochs=1", "train.schedule={name: cosine, warmup_epochs: 1}"],
            "the experiment as it stands: schedule.warmup_epochs must be in",
        ),
        (
            ["FILE", "search.narrow.overrides={model.filter: 1}"],
            "search.overrides: model.filter: 'unet' takes no such key",
        ),
        (["FILE", "search.broad.overrides={loss.beta: 0.5}"], "loss.beta stands in the space and in the overrides"),
        (["FILE", "--out", "full"], "The folder full exists already and nothing was changed in it.*--resume full"),
        (["FILE", "--space", "nothing.yaml"], "There is no experiment file nothing.yaml"),
    ],
)
def test_bad_input_is_refused_before_any_work(source, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    path = written(tmp_path, source)
    given = [str(path) if one == "FILE" else one for one in arguments]
    assert shell.run(command.search, given) == shell.BAD_INPUT
    assert re.search(message, capsys.readouterr().err, flags=re.DOTALL)
    assert not (tmp_path / "runs").exists()


def test_two_searches_in_one_folder_are_refused(source, tmp_path):
    checked = begun(source, tmp_path)
    with search._alone(tmp_path), pytest.raises(InputError, match="Another process is running the search in"):
        search.go_on(checked, tmp_path, launch=launch)
