"""Run pictures: what the report shows of a finished run: held-out images, augmented samples, ways to tile.

How a picture looks is decided in `cellseg.figures` and `pipelines.patch_sheet`; the images are scored in
`cellseg.scoring`.
"""

from collections.abc import Sequence
from dataclasses import replace

from cellseg import figures
from cellseg.held_out import look_at
from cellseg.inference import LoadedRun
from cellseg.metrics import dice
from cellseg.named import weight_map_function
from cellseg.networks import answer_size
from pipelines.dataset import Batches, ShardReader
from pipelines.patch_sheet import drawn_patches

SAMPLES = 4  # augmented patches
METHODS = {"exact": "overlap-tile", "average": "average", "resize": "resize"}
Pictures = tuple[dict[str, bytes], list[dict]]  # PNG by file name in the run folder, and what stands below each


def draw(
    loaded: LoadedRun, reader: ShardReader, per_image: Sequence[dict]
) -> tuple[dict[str, bytes], list[dict] | None]:
    """All pictures of a run, from its test images' scores.

    Returns:
        PNG by file name, and the content of `pictures.json`; ({}, None) if no test image has a Dice.
    """
    ranked = sorted((row for row in per_image if row["dice"] is not None), key=lambda row: row["dice"])
    if not ranked:
        return {}, None
    chosen = _chosen(ranked)
    pictures: dict[str, bytes] = {}
    captions: list[dict] = []
    for found, told in (
        _held_out(loaded, reader, chosen),
        _methods(loaded, reader, ranked[len(ranked) // 2]),
        _samples(loaded, reader),
    ):
        pictures |= found
        captions += told
    return pictures, captions


def _chosen(ranked: Sequence[dict]) -> dict[str, dict]:
    """The best, a typical and the worst image of the ranked ones, none of them twice."""
    if len(ranked) == 1:
        return {"only": ranked[0]}
    chosen = {"best": ranked[-1], "typical": ranked[len(ranked) // 2], "worst": ranked[0]}
    return chosen if len(ranked) > 2 else {kind: chosen[kind] for kind in ("best", "worst")}


def _samples(loaded: LoadedRun, reader: ShardReader) -> Pictures:
    """Augmented patches as the network learns from them, with labels, target and weight map."""
    experiment = loaded.run.experiment
    patch = experiment.train.patch
    batches = Batches(
        reader,
        patch=patch,
        output=patch if experiment.detects else answer_size(experiment, patch),
        batch_size=1,
        target=experiment.target,
        augment=experiment.augmentation(),
        oversample=experiment.train.oversample,
        weight_map=weight_map_function(experiment.weight_map),
        minimum_range=loaded.run.data["minimum_range"],
        seed=experiment.seed,
    )
    png = drawn_patches([batches.example(place) for place in range(SAMPLES)])
    caption = "augmented training patches: image, labels, target, how much each pixel counts"
    file = "pictures/augmented.png"
    return {file: png}, [{"file": file, "section": "samples", "caption": caption}]


def _methods(loaded: LoadedRun, reader: ShardReader, row: dict) -> Pictures:
    """One test image of a `valid` network, brought to its size in three ways; nothing for other networks."""
    experiment = loaded.run.experiment
    if experiment.detects or answer_size(experiment, experiment.train.patch) == experiment.train.patch:
        return {}, []
    sample = next(one for one in reader.manifest.of_split("test") if one["name"] == row["name"])
    record = reader.read(sample)
    maps, told = {}, []
    for method, name in METHODS.items():
        section = experiment.inference.model_copy(
            update={"method": method, "symmetries": 1, "blend": None, "rim": None}
        )
        other = LoadedRun(replace(loaded.run, experiment=experiment.model_copy(update={"inference": section})))
        one = look_at(other, sample, record)
        decided = other.decide(one.probability)
        maps[f"{name}: Dice {dice(one.labels, decided.labels, one.ignore):.3f}"] = decided.probability
        told.append(name)
    file = "pictures/methods.png"
    png = figures.answers(one.image, one.labels, maps, limits=one.limits)
    caption = f"ways to bring a network's smaller answer to the image's size: {', '.join(told)}; {row['name']}"
    return {file: png}, [{"file": file, "section": "methods", "caption": caption}]


def _held_out(loaded: LoadedRun, reader: ShardReader, chosen: dict[str, dict]) -> Pictures:
    """The chosen test images: truth, prediction, probability, outlines; and classes."""
    samples = {sample["name"]: sample for sample in reader.manifest.of_split("test")}
    pictures, captions = {}, []
    for kind, row in chosen.items():
        sample = samples[row["name"]]
        one = look_at(loaded, sample, reader.read(sample))
        decided = loaded.decide(one.probability)
        rank = "the only test image, Dice" if kind == "only" else f"{kind} by Dice"
        caption = f"{rank} ({row['dice']:.3f}): {row['name']}"
        file = f"pictures/test_{kind}.png"
        pictures[file] = figures.outlines(
            one.image,
            one.labels,
            decided.labels,
            limits=one.limits,
            probability=decided.probability,
            ignore=one.ignore,
        )
        captions.append({"file": file, "section": "test", "caption": caption})
        if decided.classes is not None and one.classes is not None:
            file = f"pictures/classes_{kind}.png"
            pictures[file] = figures.class_outlines(
                one.image,
                one.classes,
                one.labels,
                decided.classes,
                decided.labels,
                names=loaded.class_names,
                limits=one.limits,
            )
            captions.append({"file": file, "section": "classes", "caption": f"classes, {caption}"})
    return pictures, captions
