"""Folds: one experiment trained once for each part of its data; mean and spread, out-of-fold scores, the ensemble.

How the data are divided is decided in `pipelines.splits`; one training is the work of `cellseg.workflow`.
"""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellseg import resuming, runs
from cellseg.evaluation import DEFAULT_MEASURES, Baselines, Scores
from cellseg.experiment import Experiment
from cellseg.held_out import HeldOut, held_out
from cellseg.inference import LoadedRun, load_run
from cellseg.mistakes import find_mistakes
from cellseg.preparation import ensure_shards
from cellseg.scoring import shards_of
from cellseg.workers import check_alone
from pipelines.errors import InputError
from pipelines.files import whole_file
from pipelines.prepare import Progress

TABLE = "folds.csv"
FOLD = re.compile(r"fold\d+(\.interrupted)?")


def train_folds(
    experiment: Experiment,
    out: Path,
    num: int,
    *,
    overwrite: bool = False,
    train: Callable[..., Any] | None = None,
    progress: Progress = lambda items, total: items,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Train every fold, score the images that it has not seen, and all folds together.

    Folds whose run is finished are kept: the same call goes on after an interruption.

    Args:
        experiment: Its split section says how to divide; it names no fold itself.
        out: Folder for the runs fold1, fold2, ... with their shards, and for `folds.json` and `folds.csv`.
        num: Number of folds.
        overwrite: Begin anew where `out` holds folds already.
        train: Instead of `cellseg.workflow.train`.
        progress: Wraps an iterable of known length, to draw a bar.
        say: Tells the user which step is going on.

    Returns:
        Content of `folds.json`, see `score_folds`.

    Raises:
        InputError: the data cannot be divided into so many folds, or `out` holds something else.
    """
    if train is None:
        from cellseg import workflow

        train = workflow.train
    check_alone(experiment, "--folds")
    if experiment.split.fold is not None:
        raise InputError(
            f"split.fold is {experiment.split.fold}, and --folds {num} trains all folds. Remove one of them."
        )
    folds = []
    with _place(out, _stored(experiment, num), overwrite):
        for part in range(1, num + 1):  # before any training: data that cannot be divided must not cost one
            say(f"preparing fold {part} of {num}")
            folds.append(_prepared(experiment, out, part, num, progress))
    for part, fold in enumerate(folds, start=1):
        place = out / f"fold{part}"
        if runs.is_finished(place):
            say(f"fold {part} of {num} is there")
            continue
        _forget()

        def tell(text: str, part: int = part) -> None:
            say(f"fold {part} of {num}: {text}")

        train(fold, place, interrupted=resuming.left_over(place, fold), progress=progress, say=tell)
    _forget()
    say("scoring what each fold has not seen")
    result = score_folds([out / f"fold{part}" for part in range(1, num + 1)], progress=progress)
    with whole_file(out / TABLE) as temporary:
        table(result).to_csv(temporary)
    runs.write_json(out, runs.FOLDS, result)
    return result


def score_folds(folders: list[Path], *, progress: Progress = lambda items, total: items) -> dict:
    """Scores of finished folds, one by one, out of fold, and together.

    Returns:
        {"runs": names of the folders; "split": what is out of fold: "test", or "validation" where all folds have the
        same test images (its threshold and best epoch were chosen on these very images, so it flatters a little);
        "measures": {measure: {"folds": [test score of each fold], "mean", "sd" (of a sample, n - 1),
        "all_background": of the same test images, their mean}}; "out_of_fold":
        as `Scores.result`, every image predicted by the run that has not trained on it; "baseline",
        "baseline_foreground": pooled, of the same images; "ensemble": as `Scores.result`, the mean of all folds on the
        common test images; None where each image was trained on by some fold, or the networks find cells one by one,
        which have no mean}.
    """
    loaded = [load_run(folder) for folder in folders]
    readers = [shards_of(one.run) for one in loaded]
    tests = [reader.manifest.splits["test"] for reader in readers]
    common = all(sorted(names) == sorted(tests[0]) for names in tests)
    split = "validation" if common else "test"
    pooled, baselines = Scores(), Baselines()
    pairs = list(zip(loaded, readers, strict=True))
    images = ((one, run) for run, reader in pairs for one in held_out(run, reader, split))
    total = sum(len(reader.manifest.of_split(split)) for reader in readers)
    for one, run in progress(images, total):
        _score(pooled, one, run)
        baselines.add(one.labels, one.ignore)
    ensemble = None
    if common and not loaded[0].run.experiment.detects:
        together, reader = load_run(folders), readers[0]
        scores = Scores()
        for one in progress(held_out(together, reader, "test"), len(tests[0])):
            _score(scores, one, together)
        ensemble = scores.result()
    singles = [runs.read_json(folder, runs.SCORES) for folder in folders]
    measures = {
        name: {
            **_spread([single["test"]["measures"].get(name) for single in singles]),
            "all_background": _spread([single.get("baseline", {}).get(name) for single in singles])["mean"],
        }
        for name in DEFAULT_MEASURES
    }
    return {
        "runs": [folder.name for folder in folders],
        "split": split,
        "measures": measures,
        "out_of_fold": pooled.result(),
        **baselines.result(),
        "ensemble": ensemble,
    }


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row a measure: mean and sd of the folds' test scores, each fold's, out of fold, ensemble, all background."""
    rows = {}
    for name, spread in result["measures"].items():
        rows[name] = {
            "mean": spread["mean"],
            "sd": spread["sd"],
            **dict(zip(result["runs"], spread["folds"], strict=True)),
            "out_of_fold": result["out_of_fold"]["measures"][name],
            **({} if result["ensemble"] is None else {"ensemble": result["ensemble"]["measures"][name]}),
            "all_background": spread["all_background"],
        }
    frame = pd.DataFrame.from_dict(rows, orient="index").astype(float)
    return frame.rename_axis("measure")


@contextlib.contextmanager
def _place(out: Path, stored: str, overwrite: bool) -> Iterator[None]:
    """Make `out` a folder of these folds, or find it one; others make room only if what is done inside succeeds.

    Raises:
        InputError: it holds something else, or other folds and `overwrite` is not set.
    """
    there = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    if there and _is_same(out, stored, overwrite):
        yield
        return
    aside = out.with_name(f".{out.name}.old-{os.getpid()}")
    if there:
        os.replace(out, aside)
    try:
        runs.write_text(out, runs.EXPERIMENT, stored)
        yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        if there:
            os.replace(aside, out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _is_same(out: Path, stored: str, overwrite: bool) -> bool:
    """Whether `out` holds these very folds. Raises InputError where it may not be replaced."""
    file = out / runs.EXPERIMENT
    foreign = [path.name for path in out.iterdir() if not _is_ours(path)] if out.is_dir() else [out.name]
    if foreign or not file.is_file():
        raise InputError(
            f"{out} is there and holds no folds{f', but {foreign[0]}' if foreign else ''}; nothing was changed in it. "
            "Choose another folder with --out."
        )
    same = file.read_text(encoding="utf-8") == stored
    if not same and not overwrite:
        raise InputError(
            f"{out} holds the folds of another experiment, or another number of them, and nothing was changed in it. "
            "Choose another folder with --out, or pass --overwrite to replace them."
        )
    return same


def _is_ours(path: Path) -> bool:
    return path.name in (runs.EXPERIMENT, runs.FOLDS, TABLE, "shards") or bool(FOLD.fullmatch(path.name))


def _stored(experiment: Experiment, num: int) -> str:
    """The experiment as it lies in the folder: by it the same call is known again."""
    return f"# Trained in {num} folds: cellseg-train EXPERIMENT.yaml --folds {num}\n{experiment.to_yaml()}"


def _prepared(experiment: Experiment, out: Path, part: int, num: int, progress: Progress) -> Experiment:
    """The experiment of one fold, whose shards are there."""
    data = experiment.data.model_copy(update={"shards": str((out / "shards" / f"fold{part}").resolve())})
    split = experiment.split.model_copy(update={"fold": f"{part}/{num}"})
    update = {"data": data, "split": split, "name": f"{experiment.name}-fold{part}"}
    return ensure_shards(experiment.model_copy(update=update), progress=progress).experiment


def _forget() -> None:
    """Free what Keras holds of the training before: a fold begins as if it were the first."""
    import keras

    keras.backend.clear_session()


def _score(scores: Scores, one: HeldOut, loaded: LoadedRun) -> None:
    decided = loaded.decide(one.probability)
    scores.add(one.name, one.labels, decided.labels, one.ignore)
    scores.add_mistakes(one.name, find_mistakes(one.labels, decided.labels, one.ignore))


def _spread(values: list[float | None]) -> dict[str, Any]:
    """Mean and standard deviation of the folds that have a value; None where there are too few."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    mean = float(np.mean(known)) if known else None
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return {"folds": values, "mean": mean, "sd": sd}
