"""Put a trained run into the box: the folder `cellseg/boxed/NAME` that ships with the package, without this machine.

    python experiments/box_model.py runs/nuclei --recipe experiments/nuclei.yaml --card experiments/nuclei_card.md

The box is a run folder that predicts: model, resolved experiment, data.json, threshold and scores, and README.md, the
card with its scores filled in. Where files lay on the machine that trained is replaced by what the recipe says; a path
that is left anywhere is an error, as is a box of more than 8 MB. Training the run is the work of `cellseg-train`.
"""

import argparse
import re
import shutil
from pathlib import Path

import yaml

from cellseg import boxed, runs
from cellseg import experiment as experiments
from pipelines.errors import InputError
from pipelines.files import whole_folder

LARGEST = 8_000_000  # bytes
COPIED = (runs.MODEL, runs.THRESHOLD, runs.SCORES)
CARD = "README.md"
# A slash that begins a path: not one within a word, a URL or a fraction; and not the lone slash of a sentence.
PATH = re.compile(r"(?<![\w.:/<~*-])/(?=[\w.~-]+/|(?:home|tmp|root|usr|opt|mnt|work|data|Users)\b)|\b[A-Z]:\\")
KERNEL = re.compile(r"^(python: \S+ on [A-Za-z]+).*")
MEASURES = (
    ("dice", "Dice"),
    ("iou", "IoU"),
    ("pixel_accuracy", "pixel accuracy"),
    ("average_precision", "average precision, IoU 0.5"),
    ("average_precision_75", "average precision, IoU 0.75"),
    ("average_precision_90", "average precision, IoU 0.9"),
    ("seg", "SEG"),
    ("count_error", "count error"),
)


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments, make the box and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run folder")
    parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="the experiment as it was written")
    parser.add_argument("--card", type=Path, required=True, metavar="MD", help="text of README.md with {scores}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: cellseg/boxed/NAME")
    parser.add_argument("--overwrite", action="store_true", help="replace the box that is there")
    options = parser.parse_args(arguments)
    try:
        box = pack(options.run, options.recipe, options.card, out=options.out, overwrite=options.overwrite)
        print(f"{box}: {size(box)} bytes in {len(list(box.iterdir()))} files")
    except (InputError, OSError) as error:
        parser.error(str(error))


def pack(run: Path, recipe: Path, card: Path, *, out: Path | None = None, overwrite: bool = False) -> Path:
    """Make the box of a run.

    Args:
        run: A finished run folder, scored on validation and test.
        recipe: The experiment file that it was trained with; its places of data, split table and shards are kept.
        card: Text for README.md; `{scores}`, `{minutes}` and `{threshold}` are filled in.
        out: The folder to make; None = in the package, under the experiment's name.
        overwrite: Replace an old box.

    Returns:
        The folder.

    Raises:
        InputError: no finished run, one without scores, a path of this machine in one of the files, or too large.
    """
    finished = runs.Run.read(run)
    if not (run / runs.SCORES).is_file():
        raise InputError(f"{run} has no {runs.SCORES}: it ships with its scores. Run cellseg-evaluate {run} first.")
    written = experiments.read(recipe)
    name = finished.experiment.name
    box = boxed.BOX / name if out is None else out
    with whole_folder(box, marker=runs.MODEL, overwrite=overwrite) as folder:
        for file in COPIED:
            shutil.copyfile(run / file, folder / file)
        resolved = yaml.safe_load((run / runs.EXPERIMENT).read_text(encoding="utf-8"))
        resolved["data"] |= {"source": written.data.source, "shards": written.data.shards}
        resolved["split"]["file"] = written.split.file
        runs.write_text(folder, runs.EXPERIMENT, yaml.safe_dump(resolved, sort_keys=False))
        runs.write_json(folder, runs.DATA, {**finished.data, "shards": str(written.data.shards or f"shards/{name}")})
        text = (run / runs.ENVIRONMENT).read_text(encoding="utf-8")
        runs.write_text(folder, runs.ENVIRONMENT, _environment(text, recipe))
        filled = {
            "scores": _table(runs.read_json(run, runs.SCORES)),
            "minutes": f"{finished.data['training_minutes']:.0f}",
            "threshold": f"{finished.threshold['threshold']:g}",
        }
        runs.write_text(folder, CARD, card.read_text(encoding="utf-8").format(**filled))
        check(folder)
    return box


def check(box: Path) -> None:
    """Raise InputError if a box is too large or holds a path of the machine that made it."""
    if size(box) > LARGEST:
        raise InputError(
            f"The box takes {size(box)} bytes; at most {LARGEST} ship with the package. Train a smaller one."
        )
    for file in sorted(box.iterdir()):
        if file.name == runs.MODEL:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if PATH.search(line):
                raise InputError(f"{file.name}, line {number}, holds a path of this machine: {line.strip()[:200]}")


def size(box: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in box.iterdir())


def _environment(text: str, recipe: Path) -> str:
    """Where the run was made, without the folders of that machine."""
    lines = [line for line in text.splitlines() if not line.startswith((f"{experiments.DATA_ROOT}:", "cellseg:"))]
    command = f"command: cellseg-train experiments/{recipe.name}"
    lines = [command if line.startswith("command:") else line for line in lines]
    return "\n".join(KERNEL.sub(r"\1", line) for line in lines) + "\n"


def _table(scores: dict) -> str:
    """The measures as Markdown: test, 95 % interval, validation and both trivial answers."""
    lines = ["| measure | test | 95 % of resampled test sets | validation | all background | all foreground |"]
    lines.append("|---" * 6 + "|")
    for key, title in MEASURES:
        test = scores["test"]
        ends = test.get("intervals", {}).get(key)
        cells = [
            title,
            _number(test["measures"].get(key)),
            "" if ends is None else f"{_number(ends[0])} to {_number(ends[1])}",
            _number(scores["validation"]["measures"].get(key)),
            _number(scores["baseline"].get(key)),
            _number(scores["baseline_foreground"].get(key)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
