"""Search results: the table of a search's trials, the best of them as an experiment file, and TensorBoard's HParams.

The trials are run by `cellseg.search`; TensorBoard's files are written as in `cellseg.dashboard`, without TensorFlow.
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from cellseg import runs, study
from cellseg.experiment import Experiment
from cellseg.search_space import Choice, Space, with_values
from cellseg.sections import Search
from pipelines.files import whole_file

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
    TrialState.WAITING: "unfinished",
}
LISTED = 10  # trials that are printed
TENSORBOARD = "tensorboard"
CURVE, SCORE = "score", "hparams/score"  # tags: after each epoch, and the trial's own


def write(shared: optuna.Study, search: Search, space: Space, experiment: Experiment, folder: Path) -> None:
    """Write the table, the dashboard and, when a trial has finished, the best experiment."""
    with whole_file(folder / study.RESULTS) as temporary:
        table(shared, space, experiment).to_csv(temporary, index=False)
    best = best_trial(shared)
    if best is not None:
        name = f"{experiment.name}-best"
        chosen = with_values(experiment, {**study.values_of(best, space), "name": name}, where=study.BEST)
        about = (
            f"# The values of {study.name_of(best.number)}, score {best.value:.4f}; of {len(shared.trials)} trials.\n"
        )
        runs.write_text(folder, study.BEST, about + chosen.to_yaml())
    write_hparams(shared, search, space, experiment, folder / TENSORBOARD)


def best_trial(shared: optuna.Study) -> FrozenTrial | None:
    """The finished trial with the highest score; None before one has finished."""
    return next(iter(study.finished(shared.trials)), None)


def table(shared: optuna.Study, space: Space, experiment: Experiment) -> pd.DataFrame:
    """One row a trial, best first, then those without a score by their number.

    Columns: trial, stage, baseline (the experiment as it stands), state, score, best_epoch_score, epochs, minutes, each
    key of the space, error. `score` is missing unless the trial has finished.
    """
    ordered = study.finished(shared.trials)
    ordered += [trial for trial in shared.trials if trial not in ordered]
    return pd.DataFrame([_row(trial, space, experiment) for trial in ordered], columns=_columns(space))


def printed(frame: pd.DataFrame, space: Space, folder: Path) -> str:
    """The table for readers: the best trials, the experiment as it stands, and how the others ended."""
    rows = frame[(frame.index < LISTED) | frame["baseline"]]
    lines = [["trial", "stage", "state", "score", "epochs", *space]]
    for row in rows.to_dict("records"):
        stage = f"{row['stage']}, as it stands" if row["baseline"] else row["stage"]
        score = "-" if pd.isna(row["score"]) else f"{row['score']:.4f}"
        state = f"pruned at epoch {row['epochs']}" if row["state"] == STATES[TrialState.PRUNED] else row["state"]
        lines.append([str(row["trial"]), stage, state, score, str(row["epochs"]), *(_short(row[key]) for key in space)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    counted = frame["state"].value_counts()
    text += ["", ", ".join(f"{count} {state}" for state, count in counted.items()) + f" ({folder / study.RESULTS})"]
    return "\n".join(text)


def without_narrow(shared: optuna.Study, search: Search) -> str:
    """Why there is no second stage where one was asked for and the first is over; "" otherwise."""
    broad = study.of_stage(shared, study.BROAD)
    over = len(broad) >= search.broad.trials and all(trial.state.is_finished() for trial in broad)
    if search.narrow is None or not over or study.finished(broad):
        return ""
    return (
        "No narrow stage: of the broad trials none has finished, so that there is nothing to draw values near. Prune "
        "later (search.prune), or give search.broad more trials."
    )


def told(trial: FrozenTrial) -> str:
    """How a trial ended, in a line."""
    text = f"{study.name_of(trial.number)}: {STATES[trial.state]}"
    if trial.state == TrialState.COMPLETE:
        return f"{text}, score {trial.value:.4f}"
    epochs = max(trial.intermediate_values, default=0)
    if trial.state == TrialState.PRUNED:
        return f"{text} at epoch {epochs}, score {max(trial.intermediate_values.values()):.4f}"
    return f"{text}: {trial.user_attrs.get(study.ERROR, '')}"


def write_hparams(shared: optuna.Study, search: Search, space: Space, experiment: Experiment, folder: Path) -> None:
    """Write what TensorBoard's HParams and Scalars tabs show: `tensorboard --logdir FOLDER`."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
    from tensorboard.plugins.scalar import metadata as scalar

    config = folder / "events-config"
    metric = summary_v2.Metric(SCORE, display_name=search.measure or "score", description="of the validation images")
    infos = [summary_v2.HParam(key, _domain(drawn)) for key, drawn in space.items()]
    _write_once(config, [(0, summary_v2.hparams_config_pb(infos, [metric]))])
    about = scalar.create_summary_metadata("", "")
    for trial in shared.trials:
        if not trial.state.is_finished() or study.plan_of(trial) is None:
            continue
        started = 0.0 if trial.datetime_start is None else trial.datetime_start.timestamp()
        ended = started if trial.datetime_complete is None else trial.datetime_complete.timestamp()
        values = {key: _shown(value) for key, value in _values(trial, space, experiment).items() if value is not None}
        status = api_pb2.STATUS_FAILURE if trial.state == TrialState.FAIL else api_pb2.STATUS_SUCCESS
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=ended)
        name = study.name_of(trial.number)
        summaries = [(0, summary_v2.hparams_pb(values, trial_id=name, start_time_secs=started))]
        curve = sorted(trial.intermediate_values.items())
        summaries += [(epoch, _scalar(CURVE, value, about)) for epoch, value in curve]
        score = trial.value if trial.state == TrialState.COMPLETE else max((one for _, one in curve), default=None)
        if score is not None:
            summaries.append((max((epoch for epoch, _ in curve), default=0), _scalar(SCORE, score, about)))
        summaries.append((0, _session_end(plugin_data_pb2.HParamsPluginData(session_end_info=end), metadata)))
        _write_once(folder / name, summaries)


def _write_once(folder: Path, summaries: list[tuple[int, Any]]) -> None:
    """An event file in a folder of its own; a folder that is there is left as it is."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    if folder.is_dir():
        return
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    writer = EventFileWriter(str(temporary))
    for step, summary in summaries:
        writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()
    temporary.replace(folder)


def _scalar(tag: str, value: float, about: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_tensor_proto

    return Summary(value=[Summary.Value(tag=tag, tensor=make_tensor_proto(np.float32(value)), metadata=about)])


def _session_end(content: Any, metadata: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    about = metadata.create_summary_metadata(content)
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])


def _domain(drawn: Any) -> Any:
    from tensorboard.plugins.hparams import summary_v2

    if isinstance(drawn, Choice):
        kinds = {type(_shown(value)) for value in drawn.values}
        values = [_shown(value) if len(kinds) == 1 else str(_shown(value)) for value in drawn.values]
        return summary_v2.Discrete(values)
    return summary_v2.RealInterval(float(drawn.low), float(drawn.high))


def _columns(space: Space) -> list[str]:
    return ["trial", "stage", "baseline", "state", "score", "best_epoch_score", "epochs", "minutes", *space, "error"]


def _row(trial: FrozenTrial, space: Space, experiment: Experiment) -> dict[str, Any]:
    plan = study.plan_of(trial)
    scores = trial.intermediate_values
    return {
        "trial": trial.number,
        "stage": "" if plan is None else plan.stage,
        "baseline": plan is not None and plan.baseline,
        "state": STATES[trial.state],
        "score": trial.value if trial.state == TrialState.COMPLETE else None,
        "best_epoch_score": max(scores.values(), default=None),
        "epochs": max(scores, default=0),
        "minutes": trial.user_attrs.get(study.MINUTES),
        **{key: _shown(value) for key, value in _values(trial, space, experiment).items()},
        "error": trial.user_attrs.get(study.ERROR, ""),
    }


def _values(trial: FrozenTrial, space: Space, experiment: Experiment) -> dict[str, Any]:
    """Key of the space -> value: as drawn, or that of the experiment as it stands, None where it has none."""
    drawn = study.values_of(trial, space)
    return drawn or {key: _look_up(experiment, key) for key in space}


def _look_up(experiment: Experiment, key: str) -> Any:
    content: Any = experiment.model_dump(mode="json")
    for part in key.split("."):
        if isinstance(content, Mapping):
            content = content.get(part)
        else:
            content = content[int(part)] if isinstance(content, list) and part.isdigit() else None
    return content


def _shown(value: Any) -> Any:
    """The value, or its JSON text where it is a section or a list."""
    return json.dumps(value) if isinstance(value, Mapping | list) else value


def _short(value: Any) -> str:
    return (
        "-"
        if value is None or (isinstance(value, float) and pd.isna(value))
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )
