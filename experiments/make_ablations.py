"""Ablations: the claims of the reports, each a pair of short trainings that differ in one thing, as docs/ablations.md.

    make ablations                    all of them, hours; goes on where it was stopped
    make ablations ONLY=psc           one data set
    make ablations ONLY=psc/valid     one claim on it

What differs stands in experiments/ablations/claims.yaml. Results of the experiments themselves are made in
`experiments.make_results`.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from cellseg import runs
from cellseg.evaluation import BASELINES
from experiments import make_results
from experiments.result_tables import NOT_MEASURED, STORED, UNDEFINED, markdown, shown_number, update
from pipelines.errors import InputError

FOLDER = Path(__file__).parent / "ablations"
CLAIMS = FOLDER / "claims.yaml"
PAGE = STORED.parent / "ablations.md"
FILE = "ablations.json"
RUNS = Path("runs") / "ablations"
MEASURES = ("dice", "pixel_accuracy", "average_precision", "seg")
EXPECTED = {"better": ">", "not worse": "≥", "equal": "≈"}
CERTAIN = 2.0  # standard deviations of the base's seeds: below that no difference is seen


def claims(path: Path = CLAIMS) -> dict:
    """bases, noise, variants and claims.

    Raises:
        InputError: a claim names a variant that is not there, or expects what is none of EXPECTED.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for claim in content["claims"]:
        if claim.get("expected", "better") not in EXPECTED:
            known = ", ".join(EXPECTED)
            raise InputError(f"{path.name}: {claim['name']} expects '{claim['expected']}'. Known: {known}.")
    used = [claim[side] for claim in content["claims"] for side in ("better", "than")] + content["noise"]
    for name in used:
        if name not in content["variants"]:
            raise InputError(f"{path.name}: there is no variant {name}. Known: {', '.join(content['variants'])}.")
    return content


def wanted(defined: Mapping, only: str | None = None) -> list[tuple[str, str]]:
    """(base, variant) in the order in which they are trained: claim by claim, so that a part of it is of use.

    Raises:
        InputError: `only` names no base or no claim.
    """
    base, _, claim = (only or "").partition("/")
    for name, known in ((base, defined["bases"]), (claim, [one["name"] for one in defined["claims"]])):
        if name and name not in known:
            raise InputError(f"--only {only}: there is no {name}. Known: {', '.join(known)}.")
    chosen = [one for one in defined["claims"] if claim in ("", one["name"])]
    variants = dict.fromkeys([*defined["noise"], *(one[side] for one in chosen for side in ("than", "better"))])
    return [(data, variant) for variant in variants for data in defined["bases"] if base in ("", data)]


def train(defined: Mapping, base: str, variant: str, *, into: Path = RUNS) -> Path:
    """Train a variant of a base as `make_results.train` does; returns the run folder."""
    overrides = [override.replace("{data}", base) for override in defined["variants"][variant]]
    return make_results.train(FOLDER / f"{base}.yaml", into / base / variant, overrides)


def collect(run: Path) -> dict:
    """What is stored of a finished run."""
    scores, data = runs.read_json(run, runs.SCORES), runs.read_json(run, runs.DATA)
    section = runs.Run.read(run).experiment.train
    steps = len(pd.read_csv(run / runs.HISTORY)) * (section.steps_per_epoch or 0)
    found = {split: scores[split]["measures"] for split in ("test", "validation")}
    found |= {key: scores[key] for key in BASELINES}
    return {
        "scores": {key: {name: one.get(name) for name in MEASURES} for key, one in found.items()},
        "minutes": data["training_minutes"],
        "steps": steps,
        "parameters": runs.load_model(run / runs.MODEL).count_params(),
        **make_results.origin(run),
    }


def store(base: str, variant: str, result: Mapping, *, folder: Path = STORED) -> None:
    """Add a result to docs/results/ablations.json."""
    content = stored(folder)
    content.setdefault(base, {})[variant] = dict(result)
    runs.write_json(folder, FILE, content)


def stored(folder: Path = STORED) -> dict:
    """Results by base and variant; {} if there are none yet."""
    return runs.read_json(folder, FILE) if (folder / FILE).is_file() else {}


def tables(defined: Mapping | None = None, folder: Path = STORED) -> dict[str, str]:
    """Markdown by name of the marker: `claims` of the reports, `helped` of our own, `variants` of every base."""
    defined, results = claims() if defined is None else defined, stored(folder)
    made = {"claims": claims_table(defined, results), "helped": claims_table(defined, results, ours=True)}
    for base in defined["bases"]:
        made[f"variants-{base}"] = variants_table(defined, results.get(base, {}))
    return made


def claims_table(defined: Mapping, results: Mapping, *, ours: bool = False) -> str:
    """A line a claim, of the reports or `ours`: does it hold on each data set, and by how much."""
    rows = []
    for claim in (one for one in defined["claims"] if one.get("ours", False) == ours):
        cells = [verdict(claim, results.get(base, {}), defined["noise"]) for base in defined["bases"]]
        sign = EXPECTED[claim.get("expected", "better")]
        rows.append([claim["claim"], f"{claim['better']} {sign} {claim['than']}, {claim['measure']}", *cells])
    return "\n".join(markdown(["claim", "tried as", *defined["bases"]], rows))


def verdict(claim: Mapping, results: Mapping, noise: Sequence[str]) -> str:
    """yes or no with the difference; for what should be better also that the difference drowns in that of seeds."""

    def score(variant: str) -> float | None:
        return results.get(variant, {}).get("scores", {}).get("test", {}).get(claim["measure"])

    better, than = score(claim["better"]), score(claim["than"])
    if better is None or than is None:
        return "not measured yet"
    seeds = [one for one in map(score, noise) if one is not None]
    difference = better - than
    told = f"{difference:+.4f}"
    if len(seeds) < 2:
        return f"{told} (one seed)"
    # Either side of a difference has the spread of the seeds.
    least = CERTAIN * 2**0.5 * statistics.stdev(seeds)
    expected = claim.get("expected", "better")
    if expected == "better" and abs(difference) <= least:
        return f"not seen ({told})"
    holds = {"better": difference > least, "not worse": difference >= -least, "equal": abs(difference) <= least}
    return f"yes ({told})" if holds[expected] else f"no ({told})"


def variants_table(defined: Mapping, results: Mapping) -> str:
    """Scores, time and size of every variant of a base, and what the trivial answers score."""
    if not results:
        return NOT_MEASURED
    rows = []
    for variant in defined["variants"]:
        if variant not in results:
            continue
        one = results[variant]
        test, validation = one["scores"]["test"], one["scores"]["validation"]
        seconds = f"{60 * one['minutes'] / one['steps']:.2f}" if one["steps"] else UNDEFINED
        cells = [shown_number(test[name], name) for name in MEASURES] + [shown_number(validation["dice"], "dice")]
        rows.append([variant, *cells, seconds, f"{one['parameters'] / 1e6:.2f}"])
    first = next(iter(results.values()))
    for key, name in BASELINES.items():
        known = first["scores"].get(key, {})
        rows.append([name, *(shown_number(known.get(measure), measure) for measure in MEASURES), *[UNDEFINED] * 3])
    header = ["variant", *(f"test {name}" for name in MEASURES), "validation dice", "s a step", "million weights"]
    dates = sorted({one["date"] for one in results.values()})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    told = f"{first['hardware']}, {when}; validation is part of a step's time."
    return "\n".join([*markdown(header, rows), "", told])


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, store it, make the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="BASE[/CLAIM]", help="psc, gowt1 or isbi; and the name of one claim")
    parser.add_argument("--tables", action="store_true", help="train nothing: write the page from what is stored")
    options = parser.parse_args(arguments)
    try:
        defined = claims()
        for base, variant in () if options.tables else wanted(defined, options.only):
            store(base, variant, collect(train(defined, base, variant)))
            update(PAGE, tables)
        update(PAGE, tables)
    except (InputError, OSError) as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # cellseg-train has said why


if __name__ == "__main__":
    main()
