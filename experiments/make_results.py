"""Results: an experiment trained and stored in docs/results, and the tables of docs/results.md made again.

    make results NAME=isbi2012-unet2            trains runs/isbi2012-unet2, or goes on with it if it was interrupted
    make results NAME=isbi2012-unet2 SEED=1     another seed, in runs/isbi2012-unet2-seed1
    make results NAME=isbi2012-unet2 RUN=DIR    takes a finished run
    make results NAME=isbi2012-unet2 PROTOCOL=report    the report's own protocol, which scores what it tunes on

The tables are made in `experiments.result_tables`; training is the work of `cellseg-train`.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cellseg import experiment as experiments
from cellseg import figures, reproduction, runs
from cellseg.evaluation import BASELINES
from experiments.result_tables import HERE, PAGE, STORED, definitions, score, tables, title, update
from pipelines.errors import InputError
from pipelines.files import whole_file

# What of `scores.json` is stored: not the scores of single images.
KEPT = ("images", "measures", "intervals", "parts", "probability", "classification", *BASELINES)
SETTLED = ("seed", "data.shards")  # overrides that make no other experiment
# cellseg-train of this checkout; the name is what a run notes as its command.
PROGRAM = "import sys; sys.argv[0] = 'cellseg-train'; from cellseg.cli.train import main; main()"
# Experiments whose images may be shown: their terms allow it.
SHOWN = ("dsb2018",)


def train(experiment: Path, run: Path, overrides: Sequence[str] = ()) -> Path:
    """Train an experiment, go on with its interrupted training, or find it finished; returns the run folder."""
    if runs.is_finished(run):
        return run
    program = [sys.executable, "-c", PROGRAM]
    if (run / runs.BACKUP).is_dir():
        subprocess.run([*program, "--resume", str(run)], check=True)
    else:
        subprocess.run([*program, str(experiment), *overrides, "--out", str(run)], check=True)
    return run


def protocol_of(name: str) -> list[str]:
    """The overrides of the report's own protocol. Raises InputError: tables.yaml knows none."""
    definition = next((one for one in definitions() if one["name"] == name), {})
    if "protocol" not in definition:
        known = ", ".join(one["name"] for one in definitions() if "protocol" in one)
        raise InputError(f"docs/results/tables.yaml has no protocol of {name}'s report. It has those of: {known}.")
    return list(definition["protocol"]["overrides"])


def collect(run: Path, name: str, *, protocol: bool = False) -> dict:
    """What is stored of a finished run: scores, what it took, with what it was made.

    Raises:
        InputError: the run is not finished, or of another experiment.
    """
    if not (run / runs.SCORES).is_file():
        raise InputError(f"{run} has no {runs.SCORES}: its training has not finished.")
    one = runs.Run.read(run)
    if one.experiment.name != name:
        raise InputError(f"{run} is a run of {one.experiment.name}, not of {name}. Give a run of {name}.")
    scores = runs.read_json(run, runs.SCORES)
    return {
        "name": name,
        "seed": one.experiment.seed,
        "command": _command(name, one.experiment.seed, protocol=protocol),
        "changed": changes(name, experiments.read(run / runs.EXPERIMENT)),  # without what was tuned
        **origin(run),
        "training_minutes": one.data["training_minutes"],
        "peak_memory_mb": one.data.get("peak_memory_mb"),
        "epochs": len(pd.read_csv(run / runs.HISTORY)),
        "parameters": runs.load_model(run / runs.MODEL).count_params(),
        "splits": one.data["splits"],
        "threshold": one.threshold["threshold"],
        "decision": one.experiment.inference.decision,
        "instances": one.threshold.get("instances", {}),
        "tuned_for": one.threshold["measure"],
        "tuned_again": _later(one.threshold),
        "scores": {
            split: {key: scores[split][key] for key in KEPT if scores[split].get(key) is not None}
            for split in ("test", "validation")
        }
        | {key: scores[key] for key in ("baseline", "baseline_foreground")},
    }


def origin(run: Path) -> dict[str, str]:
    """When, with which revision and on which processor a run was made."""
    known = reproduction.facts(run)
    return {
        "date": known.get("date", "unknown").partition(" ")[0],
        "git": known.get("git", "unknown"),
        "hardware": known.get("processor", "unknown"),
    }


def changes(name: str, experiment: experiments.Experiment) -> list[str]:
    """Where a run's experiment is not experiments/NAME.yaml: `key: value there -> value here`."""
    written = _flat(experiments.read(HERE / f"{name}.yaml").model_dump(mode="json"))
    used = _flat(experiment.model_dump(mode="json"))
    told = []
    for key in sorted(written.keys() | used.keys()):
        # Weights that follow the data are numbers in the run, and its paths are absolute.
        computed = key.startswith("loss.") and written.get(key) in (None, "frequency")
        if written.get(key) != used.get(key) and not computed and key not in (*SETTLED, "data.source", "split.file"):
            told.append(f"{key}: {written.get(key)} -> {used.get(key)}")
    return told


def contest(run: Path, table: str) -> dict:
    """The run ranked among the methods of a published table."""
    from cellseg import contenders
    from cellseg.published import read

    comparison = contenders.compare(contenders.read_runs([run]), read(table))
    rows = [
        {
            "name": row.method.name,
            "ours": row.method.is_run,
            "scores": {key: round(value, 4) for key, value in row.method.scores.items()},
            "rank_sum": row.rank_sum,
            "place": row.place,
        }
        for row in comparison.rows
    ]
    notes = [f"{row.method.name}: {note}" for row in comparison.rows if row.method.is_run for note in row.method.notes]
    return {"columns": [column.name for column in comparison.columns], "rows": rows, "notes": notes}


def tracked(run: Path, wanted: Mapping[str, str]) -> dict:
    """A run's cells of raw frames linked and scored against the markers: see `benchmarks/raw_frames.py`.

    Args:
        run: The run folder.
        wanted: `sequence` (a data set below CELLSEG_DATA), `frames` FIRST-LAST, `outlines` (folder of true masks).
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tracked.json"
        options = [word for key in ("sequence", "frames", "outlines") for word in (f"--{key}", wanted[key])]
        program = [sys.executable, str(HERE.parent / "benchmarks" / "raw_frames.py"), str(run), *options]
        subprocess.run([*program, "--json", str(file)], check=True, stdout=subprocess.DEVNULL)
        return {"frames": wanted["frames"], "rows": json.loads(file.read_text(encoding="utf-8"))["rows"]}


def store(
    run: Path,
    name: str,
    *,
    folder: Path = STORED,
    defined: Sequence[Mapping] | None = None,
    protocol: bool = False,
    ranked: Callable[[Path, str], dict] = contest,
    linked: Callable[[Path, Mapping[str, str]], dict] = tracked,
) -> Path:
    """Write a run's JSON file, and of the first seed its curves and, where terms allow it, its pictures.

    With `protocol` the run is one of the report's own protocol, and its file is NAME-report.json.

    Raises:
        InputError: the run cannot be used (see `collect`), or tables.yaml has no table for it.
    """
    defined = definitions() if defined is None else defined
    definition = next((one for one in defined if one["name"] == name), None)
    if definition is None:
        known = ", ".join(one["name"] for one in defined)
        raise InputError(f"docs/results/tables.yaml has no table for {name}. Known: {known}. Add one there.")
    result = collect(run, name, protocol=protocol)
    if "contest" in definition:
        result["contest"] = ranked(run, definition["contest"])
    if "tracking" in definition:
        result["tracking"] = linked(run, definition["tracking"])
    seed = result["seed"]
    file = f"{_stem(name, seed, protocol=protocol)}.json"
    runs.write_json(folder, file, {key: _rounded(one) for key, one in result.items()})
    if seed == 0 and not protocol:
        runs.write_bytes(folder, f"{name}-curves.png", figures.training_curves(pd.read_csv(run / runs.HISTORY)))
        for kind in ("best", "typical", "worst") if name in SHOWN else ():
            picture = run / "pictures" / f"test_{kind}.png"
            if picture.is_file():
                runs.write_bytes(folder, f"{name}-{kind}.png", picture.read_bytes())
    return folder / file


def stamped(text: str, definition: Mapping, result: Mapping) -> str:
    """An experiment file with the time and the scores of its run in its header."""
    test = result["scores"]["test"]
    found = [f"{title(column)} {score(test, column)}" for column in definition["columns"]]
    lines = {
        "Time": f"{result['training_minutes']:.0f} min of training, {result['epochs']} epochs ({result['date']})",
        "Score": f"test: {'; '.join(found)} ({result['date']}; docs/results.md)",
    }
    for key, value in lines.items():
        new = textwrap.fill(value, 120, initial_indent=f"# {key + ':':11}", subsequent_indent=f"#{'':12}")
        place = re.search(rf"^# {key}: .*\n(?:# {{12}}.*\n)*", text, flags=re.M)
        if place:
            text = f"{text[: place.start()]}{new}\n{text[place.end() :]}"
    return text


def stamp(name: str, result: Mapping, *, folder: Path | None = None) -> None:
    """Write `stamped` into experiments/NAME.yaml, unless the run is of another recipe or seed."""
    if result["changed"] or result["seed"]:
        return
    path = (HERE if folder is None else folder) / f"{name}.yaml"
    definition = next(one for one in definitions() if one["name"] == name)
    text = stamped(path.read_text(encoding="utf-8"), definition, result)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Train or take a run, store its result, make the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the experiment: a file of experiments/ without .yaml")
    parser.add_argument("--run", type=Path, help="a finished run to take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--protocol", choices=["ours", "report"], default="ours", help="report: protocol in tables.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for cellseg-train; they are stored, too")
    options = parser.parse_intermixed_args(arguments)  # parse_args finds no overrides behind an option
    try:
        report = options.protocol == "report"
        overrides = [*options.overrides, *(protocol_of(options.name) if report else ())]
        stem = _stem(options.name, options.seed, protocol=report)
        overrides = [f"seed={options.seed}", *overrides]
        run = options.run or train(HERE / f"{options.name}.yaml", Path("runs") / stem, overrides)
        file = store(run, options.name, protocol=report)
        if not report:
            stamp(options.name, json.loads(file.read_text(encoding="utf-8")))
        print(file)
        update(PAGE, tables)
    except (InputError, OSError) as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # cellseg-train has said why


def _stem(name: str, seed: int, *, protocol: bool) -> str:
    return name + "-report" * protocol + (f"-seed{seed}" if seed else "")


def _command(name: str, seed: int, *, protocol: bool) -> str:
    return f"make results NAME={name}" + (f" SEED={seed}" if seed else "") + " PROTOCOL=report" * protocol


def _later(threshold: Mapping) -> dict[str, str] | None:
    """When and with which revision a run was tuned again after its training; the command names folders."""
    again = threshold.get("tuned_again")
    return again and {key: again[key] for key in ("date", "git")}


def _flat(content: object, key: str = "") -> dict[str, object]:
    """Nested keys with dots between them."""
    if isinstance(content, dict) and content:
        return {k: v for name, one in content.items() for k, v in _flat(one, f"{key}.{name}" if key else name).items()}
    if isinstance(content, list) and content:
        return {k: v for number, one in enumerate(content) for k, v in _flat(one, f"{key}.{number}").items()}
    return {key: content}


def _rounded(content: object) -> object:
    """Floats with six significant digits, enough for any table and a diff that can be read; NaN becomes None."""
    if isinstance(content, dict):
        return {key: _rounded(one) for key, one in content.items()}
    if isinstance(content, list):
        return [_rounded(one) for one in content]
    if isinstance(content, float):
        return None if math.isnan(content) else float(f"{content:.6g}")
    return content


if __name__ == "__main__":
    main()
