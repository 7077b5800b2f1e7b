"""Reproduction: what a run was made from and with, in words and commands, and what of it is different today.

The files themselves (`environment.txt`, `data.json`) are described in `cellseg.runs`.
"""

import hashlib
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellseg import environment, runs
from cellseg import experiment as experiments
from pipelines.errors import InputError
from pipelines.files import sha256
from pipelines.shards.manifest import NAME as MANIFEST

RECIPE, CHANGES = "reproduce.txt", "changes.diff"
MOST = 2_000_000  # characters of changes that are kept
DIRTY = "-dirty"
SITTING = re.compile(r"^resumed$", flags=re.MULTILINE)


def write_recipe(run: Path) -> None:
    """Write `reproduce.txt` and, where git knows of uncommitted changes, those to `changes.diff`."""
    if facts(run).get("git", "").endswith(DIRTY):
        changes = _git("diff", "HEAD", "--no-color")
        if changes and len(changes) <= MOST:
            runs.write_text(run, CHANGES, changes + "\n")
    runs.write_text(run, RECIPE, recipe(run))


def recipe(run: Path) -> str:
    """How to train this run again, step by step.

    Raises:
        InputError: one of the run's files is damaged.
    """
    experiment = experiments.read(run / runs.EXPERIMENT)
    known, data = facts(run), _data(run)
    revision = known.get("git", "unknown")
    lines = [f"How to train {run.name} again", ""]
    lines.append(f"It was trained on {known.get('date', 'an unknown date')} by: {known.get('command', 'unknown')}")
    if int(known.get("sittings", 1)) > 1:
        lines.append(f"and was interrupted and resumed; {runs.ENVIRONMENT} says where and when")
    lines += ["", f"1. Code: cellseg {known.get('cellseg', 'unknown')}, git {revision}"]
    if revision == "unknown":
        lines.append("   (not run from a git checkout: install this version)")
    else:
        lines.append(f"   git checkout {revision.removesuffix(DIRTY)}")
    if revision.endswith(DIRTY):
        kept = (run / CHANGES).is_file()
        then = f"git apply {run / CHANGES} (without files that git did not know)" if kept else "they were not kept"
        lines.append(f"   The working tree had uncommitted changes: {then}")
    versions = [f"{name} {known[name]}" for name in environment.PACKAGES if name in known]
    lines += ["", f"2. Environment: python {known.get('python', 'unknown')}", f"   {', '.join(versions)}"]
    lines.append(f"   {known.get('processor', 'unknown processor')}; Keras backend {known.get('backend', 'unknown')}")
    source = experiment.data.source
    lines += ["", f"3. Data: {source if isinstance(source, str) else ', '.join(source)}"]
    lines.append(f"   CELLSEG_DATA={known.get('CELLSEG_DATA', 'not set')}")
    lines.append(f"   shards in {data.get('shards', 'an unknown folder')}, SHA-256 of all {digest(data)}")
    lines.append(f"   (of each shard in {runs.DATA}, of each raw file in the shards' {MANIFEST})")
    lines += ["", f"4. Seed {experiment.seed}, which is in the file:"]
    lines.append(f"   cellseg-train {run / runs.EXPERIMENT} --out NEW")
    again = _tuned_again(run)
    if again:
        lines += ["", f"5. Tuned again on {again.get('date')}, with git {again.get('git')}: {again.get('command')}"]
    lines += [
        "",
        "With the same code, packages, processor and number of threads the weights agree to rounding; a GPU adds",
    ]
    lines += ["up in another order from run to run.", ""]
    return "\n".join(lines)


def _tuned_again(run: Path) -> Mapping[str, str]:
    """What `threshold.json` notes of a tuning after the training; {} if there was none."""
    threshold = runs.read_json(run, runs.THRESHOLD) if (run / runs.THRESHOLD).is_file() else {}
    again = threshold.get("tuned_again") if isinstance(threshold, dict) else None
    return again if isinstance(again, dict) else {}


def changed(run: Path) -> list[str]:
    """What is different today from what the run was made with, a sentence each; [] if nothing is."""
    then, now = facts(run), _facts(environment.described())
    names = ("git", "cellseg", "python", "processor", "backend", *environment.PACKAGES)
    told = [
        f"{name} was {then[name]}, is {now[name]}"
        for name in names
        if name in then and name in now and then[name] != now[name]
    ]
    if then.get("git", "").endswith(DIRTY):
        told.append("the working tree had uncommitted changes when the run was made")
    data = _data(run)
    folder = Path(data.get("shards", ""))
    if not (folder / MANIFEST).is_file():
        return [*told, f"the shards are not in {folder} any more; cellseg-train prepares them from the raw data"]
    for file, expected in data.get("checksums", {}).items():
        if not (folder / file).is_file():
            told.append(f"the shard {folder / file} is not there any more")
        elif sha256(folder / file) != expected:
            told.append(f"the shard {folder / file} has changed")
    return told


def facts(run: Path) -> dict[str, str]:
    """Content of a run's `environment.txt` by name: date, command, cellseg, git, python, processor, packages ...

    All are of the first of its `sittings`: a training that was interrupted has several.
    """
    path = run / runs.ENVIRONMENT
    if not path.is_file():
        return {}
    first, *later = SITTING.split(path.read_text(encoding="utf-8", errors="replace"))
    return _facts(first) | {"sittings": str(1 + len(later))}


def digest(data: Mapping[str, Any]) -> str:
    """One checksum of all shards, the first 16 digits; '-' for a run that noted none."""
    sums = data.get("checksums", {})
    if not sums or not isinstance(sums, dict):
        return "-"
    return hashlib.sha256("\n".join(f"{name} {sums[name]}" for name in sorted(sums)).encode()).hexdigest()[:16]


def _facts(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if not colon:
            name, _, value = line.partition(" ")
        found[name] = value.strip()
    version, comma, revision = found.get("cellseg", "").partition(", git ")
    if comma:
        found |= {"cellseg": version, "git": revision}
    return found


def _data(run: Path) -> dict:
    if not (run / runs.DATA).is_file():
        return {}
    content = runs.read_json(run, runs.DATA)
    if not isinstance(content, dict):
        raise InputError(f"{run / runs.DATA} is damaged: an object was expected. Train again.")
    sums = content.get("checksums", {})
    if not isinstance(content.get("shards", ""), str) or not isinstance(sums, dict):
        raise InputError(f"{run / runs.DATA} is damaged: shards should be a folder, checksums an object. Train again.")
    if not all(isinstance(one, str) for one in sums.values()):
        raise InputError(f"{run / runs.DATA} is damaged: checksums should be texts. Train again.")
    return content


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout
