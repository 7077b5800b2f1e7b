"""Contenders: runs as rows of a comparison, alone or among the methods of a published table.

The table itself lives in `cellseg.comparison`, published ones in `cellseg.published`; a run's whole evaluation is
ordered by `cellseg.workflow`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from cellseg import runs, yaml_text
from cellseg.comparison import Comparison, ranked
from cellseg.metrics import IMAGE_METRICS, METRICS, count_image
from cellseg.published import PARAMETERS, PRINTED_RANK_SUM, Column, Method, Published
from pipelines.errors import InputError
from pipelines.shards.manifest import SPLITS

# Data sets as other_reports.csv calls them, by the layout of runs on them; others by the name of their folder.
LAYOUTS = {"EM stacks (ISBI 2012)": "isbi", "EPFL hippocampus": "epfl"}
ROUNDED = "The runs' scores were ranked with as many decimals as are printed; the CSV file has them all."

Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class ScoredRun:
    """What a comparison needs of a run folder.

    Args:
        folder: Where it is.
        name: What it is called in the table.
        split: Which of its images.
        measures: Pooled scores of that split; undefined ones (None) have no entry.
        images: Names of the split's images.
        checksums: SHA-256 of the split's shards by file.
        layout, sources: Of its data.
    """

    folder: Path
    name: str
    split: str
    measures: Mapping[str, float]
    images: frozenset[str]
    checksums: Mapping[str, str]
    layout: str
    sources: tuple[str, ...]

    def is_on(self, data: str) -> bool:
        """Whether its images are of a data set as other_reports.csv names it."""
        if data in LAYOUTS:
            return self.layout == LAYOUTS[data]
        return any(Path(source).name == data for source in self.sources)


def read_runs(paths: Sequence[Path], split: str = "test") -> list[ScoredRun]:
    """The runs' scores of a split, from their `scores.json`.

    Raises:
        InputError: no run folder, a run without scores or without such a split, or the same folder twice.
    """
    last = [path.resolve().name for path in paths]
    found: list[ScoredRun] = []
    for path in paths:
        if any(path.resolve() == other.folder.resolve() for other in found):
            raise InputError(f"{path} was given twice. Give each run once.")
        name = path.resolve().name
        found.append(_read_run(path, str(path) if last.count(name) > 1 else name, split))
    return found


def _read_run(folder: Path, name: str, split: str) -> ScoredRun:
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}. Give folders that cellseg-train wrote.")
    if not (folder / runs.EXPERIMENT).is_file():
        raise InputError(
            f"{folder} is no run folder: {runs.EXPERIMENT} was looked for in it. Give folders that cellseg-train wrote."
        )
    if not (folder / runs.SCORES).is_file():
        raise InputError(
            f"{folder} has no scores: {runs.SCORES} was looked for in it. cellseg-train writes it when a training has "
            "finished."
        )
    content = runs.read_json(folder, runs.SCORES)
    if isinstance(content, dict) and split not in content:
        known = [one for one in SPLITS if one in content]
        raise InputError(
            f"{folder} has no scores of the split '{split}'. It has those of: {', '.join(known) or 'none'}."
        )
    data = runs.read_json(folder, runs.DATA) if (folder / runs.DATA).is_file() else {}
    try:
        section = yaml_text.load((folder / runs.EXPERIMENT).read_text(encoding="utf-8"))["data"]
        source = section.get("source") or []
        scores = content[split]
        return ScoredRun(
            folder,
            name,
            split,
            {measure: float(value) for measure, value in scores["measures"].items() if value is not None},
            frozenset(row["name"] for row in scores["per_image"]),
            {file: sha for file, sha in data.get("checksums", {}).items() if file.startswith(f"{split}-")},
            str(section.get("layout")),
            tuple(source) if isinstance(source, list) else (str(source),),
        )
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{folder} is damaged: {runs.SCORES} or {runs.EXPERIMENT} ({error}). Train again.") from error


def compare(
    scored: Sequence[ScoredRun],
    published: Published | None = None,
    *,
    progress: Progress = lambda items, total: items,
) -> Comparison:
    """Runs, and the methods of a published table, in one table.

    Without a published table its columns are all measures that a run has. With one they are that table's; a run is
    scored again, from its shards, where its `scores.json` holds too little, and its scores are ranked with as many
    decimals as are printed.

    Raises:
        InputError: fewer than two methods, a run on no data of the published table, or shards that are gone.
    """
    if len(scored) + (len(published.methods) if published else 0) < 2:
        names = [run.name for run in scored] + [method.name for method in (published.methods if published else ())]
        raise InputError(
            f"There is only one method to compare: {names[0]}. Give another run, or a table with --published."
            if names
            else "There is nothing to compare. Give two runs, or a table with --published."
        )
    if published is None:
        names = list(dict.fromkeys(name for run in scored for name in run.measures))
        better = {name: METRICS[name].higher_is_better if name in METRICS else None for name in names}
        columns: tuple[Column, ...] = tuple(Column(name, name, better[name]) for name in names)
        methods = [Method(run.name, run.measures, is_run=True) for run in scored]
        return ranked(columns, methods, warnings=_differences(scored))
    methods = [_among(run, published, progress) for run in scored] + _as_printed(published)
    columns = tuple(column for column in published.columns if column.name != PRINTED_RANK_SUM)
    if scored and any(column.data for column in columns):  # what no run was measured on is of no use beside it
        columns = tuple(
            column for column in columns if any(one.is_run and column.name in one.scores for one in methods)
        )
        methods = [one for one in methods if one.is_run or any(column.name in one.scores for column in columns)]
    remarks = [*published.notes, *([ROUNDED] if scored and any(one.decimals is not None for one in columns) else [])]
    return ranked(columns, methods, remarks=remarks, warnings=_differences(scored))


def needs_network(run: ScoredRun, published: Published) -> bool:
    """Whether the published table asks for more than `scores.json` holds, so that the run's network must be loaded."""
    asked = any(column.name == PARAMETERS for column in published.columns)
    return asked or _needs_scoring(run, _columns_for(run, published))


def _needs_scoring(run: ScoredRun, columns: Sequence[Column]) -> bool:
    return any(column.part or column.measure not in run.measures for column in columns)


def _columns_for(run: ScoredRun, published: Published) -> list[Column]:
    """The columns that a run can fill. Raises InputError if there are none."""
    measured = [column for column in published.columns if column.measure in IMAGE_METRICS]
    columns = [
        column
        for column in measured
        if (not column.part or any(name.startswith(f"{column.part}_") for name in run.images))
        and (not column.data or run.is_on(column.data))
    ]
    if columns:
        return columns
    parts = sorted({f"{column.part}_1" for column in measured if column.part})
    data = list(dict.fromkeys(column.data for column in measured if column.data))
    expected = "a column with the name of a measure was expected in it"
    if parts:
        expected = f"images like {' and '.join(parts)} were expected in its split '{run.split}' (split.by: published)"
    if data:
        expected = f"a run on one of these was expected: {', '.join(data)}"
    raise InputError(
        f"{run.folder} (layout {run.layout}, {', '.join(run.sources)}) has no score to compare with the table "
        f"{published.name}: {expected}."
    )


def _among(run: ScoredRun, published: Published, progress: Progress) -> Method:
    """The run as a row of a published table."""
    columns = _columns_for(run, published)
    found: Mapping[str, Mapping[str, float]] = {"": run.measures}
    notes: list[str] = []
    if _needs_scoring(run, columns):
        found, notes = _scored_again(run, columns, published.contest, progress)
    scores = {column.name: found[column.part].get(column.measure) for column in columns}
    if any(column.name == PARAMETERS for column in published.columns) and (run.folder / runs.MODEL).is_file():
        scores[PARAMETERS] = runs.load_model(run.folder / runs.MODEL).count_params() / 1e6
    if published.name == "isbi_membrane" and run.layout != "isbi":
        notes.append(f"on other data than the table: layout {run.layout}")
    return Method(run.name, {name: one for name, one in scores.items() if one is not None}, tuple(notes), is_run=True)


def _scored_again(
    run: ScoredRun, columns: Sequence[Column], contest: Mapping[str, int], progress: Progress
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Pooled scores by part of the run's split, computed from its labels, and what to say of them."""
    from cellseg.inference import load_run
    from pipelines.dataset import ShardReader

    loaded = load_run(run.folder)
    shards = Path(loaded.run.data["shards"])
    try:
        reader = ShardReader(shards)
        reader.manifest.check_config(loaded.run.experiment.data_config(), shards)
    except InputError as error:
        raise InputError(
            f"{run.folder} must be scored again to be compared here, but its shards cannot be used: {error}"
        ) from error
    asked: dict[str, list[str]] = {}
    for column in columns:
        asked.setdefault(column.part, []).append(column.measure)
    totals: dict[str, dict[str, np.ndarray]] = {part: {} for part in asked}
    for sample, record in progress(reader.split(run.split), len(reader.manifest.of_split(run.split))):
        parts = [part for part in asked if not part or sample["name"].startswith(f"{part}_")]
        if not parts:
            continue
        probability = loaded.predictor.probability(record["image"], limits=tuple(sample["contrast"]))
        labels_true, labels_pred = record["labels"].astype(np.int32), loaded.decide(probability).labels
        ignore = record["ignore"].astype(bool) if "ignore" in record else None
        for part in parts:
            for measure, counts in count_image(asked[part], labels_true, labels_pred, ignore).items():
                totals[part][measure] = totals[part].get(measure, 0) + counts
    values = {
        part: {measure: IMAGE_METRICS[measure].value(counts) for measure, counts in of.items()}
        for part, of in totals.items()
    }
    defined = {part: {name: one for name, one in of.items() if not np.isnan(one)} for part, of in values.items()}
    return defined, _part_notes(run, reader.manifest.splits, contest)


def _part_notes(run: ScoredRun, splits: Mapping[str, Sequence[str]], contest: Mapping[str, int]) -> list[str]:
    """How many of the contest's images the run was scored on, and whether it has seen others of them in training."""
    of = {part: [name for name in splits[run.split] if name.startswith(f"{part}_")] for part in contest}
    notes = []
    if any(len(of[part]) < number for part, number in contest.items()):
        counts = " and ".join(f"{len(of[part])} of the {number} images of {part}" for part, number in contest.items())
        notes.append(f"scored on {counts}; the printed scores are of all of them")
    seen = [
        name
        for split in ("train", "validation")
        if split != run.split
        for name in splits[split]
        if any(name.startswith(f"{part}_") for part in contest)
    ]
    if seen:
        notes.append(f"trained or tuned on {len(seen)} of the contest's test images ({seen[0]}, ...): it flatters")
    return notes


def _as_printed(published: Published) -> list[Method]:
    """The table's methods, with a note where its printed rank sum is not what its scores give."""
    columns = [column for column in published.columns if column.name != PRINTED_RANK_SUM]
    by_rule = {row.method.name: row.rank_sum for row in ranked(columns, published.methods).rows}
    methods = []
    for method in published.methods:
        printed, notes = method.scores.get(PRINTED_RANK_SUM), method.notes
        if printed is not None and printed != by_rule[method.name]:
            rule = by_rule[method.name]
            notes += (f"printed rank sum {printed:g}; the printed scores give {rule} (without runs)",)
        scores = {name: value for name, value in method.scores.items() if name != PRINTED_RANK_SUM}
        methods.append(Method(method.name, scores, notes))
    return methods


def _differences(scored: Sequence[ScoredRun]) -> list[str]:
    """A sentence for each run that was scored on other images than the first."""
    found = []
    for run in scored[1:]:
        first = scored[0]
        if run.images != first.images:
            found.append(
                f"{first.name} and {run.name} do not compare: they were scored on different images "
                f"({len(first.images)} and {len(run.images)}, {len(first.images & run.images)} names in common)."
            )
        elif run.checksums and first.checksums and run.checksums != first.checksums:
            found.append(
                f"{first.name} and {run.name} may not compare: the names of their images are the same, but not their "
                "shards. They are of different data, or prepared in different ways."
            )
    return found
