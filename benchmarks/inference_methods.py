"""What the shortcuts of inference cost: one trained run, its images predicted in every way that `inference` knows.

    python benchmarks/inference_methods.py RUN [OTHER ...] [--group blends|rims|views|ensembles] [--json FILE]

For each method the threshold is tuned anew on the validation images, by Dice as a training does it; the instance
settings are the run's. The first method is the whole image in one tile, and "difference" is from its probability on
the test images: mean, largest, and largest among pixels that the image's border cannot reach. "compute" is the number
of pixels that went through the network, in those of the image (for a `valid` network, in those of its one tile).
"rim" mirrors the image by so many pixels before it is one tile, for a network that pads with zeros (`same`).
Ensembles average RUN with the others: the first other, then the first two, ...; each run as one tile where it can.
The runs need their shards and are not changed.
"""

import argparse
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from side_by_side import machine

from cellseg.averaging import mean
from cellseg.evaluation import Scores
from cellseg.geometry import receptive_radius
from cellseg.inference import LoadedRun
from cellseg.networks import has_fixed_size, size_function
from cellseg.runs import Run
from cellseg.sections import Inference
from cellseg.thresholds import ThresholdCurve
from pipelines.dataset import ShardReader
from pipelines.errors import InputError

MEASURES = ("dice", "pixel_error", "v_rand", "average_precision")
GROUPS = ("blends", "rims", "views", "ensembles")
TILE = 256  # of the networks whose tiles are to be blended; the whole image is larger
WHOLE = "whole image, one tile"

COLUMNS = ["method", *(f"validation {name}" for name in MEASURES), "threshold", *(f"test {name}" for name in MEASURES)]
COLUMNS += ["mean difference", "largest", "inside", "compute"]
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"

Images = list[tuple[dict, dict[str, np.ndarray]]]
Probabilities = dict[str, list[np.ndarray]]  # split -> probability of each image
Look = Callable[[], tuple[Probabilities, int]]  # and how many pixels went through the network


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder; the first one is examined")
    parser.add_argument("--group", action="append", choices=GROUPS, help="only these methods; can be repeated")
    parser.add_argument("--only", metavar="WORD", help="only methods with this word in their name")
    parser.add_argument("--shape", nargs=2, type=int, metavar="N", help="cut every image to so many rows and columns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    groups = options.group or [group for group in GROUPS if group != "ensembles" or len(options.runs) > 1]
    if "ensembles" in groups and len(options.runs) < 2:
        parser.error("--group ensembles needs a second RUN to average with.")
    print(f"Methods of inference: {options.runs[0].name}\n{machine()}\n\n{HEAD}", flush=True)
    try:
        rows = measure([Run.read(run) for run in options.runs], groups, wanted=options.only or "", shape=options.shape)
    except (InputError, OSError) as error:
        parser.error(str(error))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


def measure(
    runs: Sequence[Run], groups: Sequence[str], *, wanted: str = "", shape: Sequence[int] | None = None
) -> list[dict]:
    """A row for every method: the figures of `scored` and `differences`, `compute` and "case", "ours", "peer", "ratio".

    `ours` is the test Dice of the method and `peer` that of the whole image.
    """
    images = {split: _images(runs[0], split, shape) for split in ("validation", "test")}
    loaded = LoadedRun(runs[0])  # decides; its network is not asked
    rim = receptive_radius(runs[0].experiment) or 0
    rows: list[dict] = []
    reference, unit = None, 1
    for case, look in methods(runs, groups, images):
        if reference is not None and wanted not in case:
            continue
        probabilities, pixels = look()
        if reference is None:
            reference, unit = probabilities, pixels
        row = {"case": case, **scored(loaded, images, probabilities), **differences(reference, probabilities, rim)}
        row |= {"compute": pixels / unit, "ours": row["test"]["dice"]}
        row["peer"] = rows[0]["ours"] if rows else row["ours"]
        rows.append({**row, "ratio": row["ours"] / row["peer"]})
        print(line(row), flush=True)
    return rows


def methods(runs: Sequence[Run], groups: Sequence[str], images: dict[str, Images]) -> Iterator[tuple[str, Look]]:
    """Name of each method and what predicts by it; the whole image comes first."""

    def look(section: Inference) -> Look:
        return lambda: predicted(LoadedRun(with_inference(runs[0], section)), images)

    @functools.cache
    def at_once(place: int = 0, zoom: float = 1.0) -> tuple[Probabilities, int]:
        return predicted(LoadedRun(with_inference(runs[place], whole(runs[place], images, zoom=zoom))), images)

    yield WHOLE, at_once
    if "blends" in groups:
        for case, section in blends(runs[0]).items():
            yield case, look(section)
    if "rims" in groups:
        for case, section in rims(runs[0], images).items():
            yield case, look(section)
    if "views" in groups:
        for symmetries in (4, 8):
            section = whole(runs[0], images).model_copy(update={"symmetries": symmetries})
            yield f"{symmetries} symmetries", look(section)
        # One factor after the other, each image as one tile of the size that it has then; averaged here.
        for zoom in ZOOMS:
            parts = (functools.partial(at_once, zoom=factor) for factor in zoom)
            yield f"zoom {', '.join(map(str, zoom))}", functools.partial(together, list(parts))
    if "ensembles" in groups:
        for number in range(2, len(runs) + 1):
            names = [run.folder.name for run in runs[:number]]
            parts = (functools.partial(at_once, place=place) for place in range(number))
            yield f"ensemble {' + '.join(names)}", functools.partial(together, list(parts))


def together(parts: Iterable[Look]) -> tuple[Probabilities, int]:
    """Mean of several probabilities of each image, and the pixels that they took together."""
    held, pixels = zip(*(part() for part in parts), strict=True)
    averages = {split: [mean(same) for same in zip(*(one[split] for one in held), strict=True)] for split in held[0]}
    return averages, sum(pixels)


def whole(run: Run, images: dict[str, Images], *, zoom: float = 1.0) -> Inference:
    """The whole image in one tile, as long as the network can take such a tile; else its tiles with the defaults."""
    if has_fixed_size(run.experiment):
        return Inference(zoom=[zoom])
    size = size_function(run.experiment)
    longest = max(round(zoom * max(record["image"].shape[:2])) for part in images.values() for _, record in part)
    tile = next(side for side in range(longest, 4 * longest) if (size(side) or 0) >= longest)
    return Inference(tile=tile, overlap=0, zoom=[zoom], blend="linear", **_rim(run, 0))


def blends(run: Run) -> dict[str, Inference]:
    """Ways to tile: those of a network that loses its rim, or of one that does not."""
    patch = run.experiment.train.patch
    if (size_function(run.experiment)(patch) or 0) < patch:
        return {
            f"exact, tile {patch}": Inference(method="exact"),
            f"average, tile {patch}": Inference(method="average"),
            f"average, tile {patch}, overlap 64": Inference(method="average", overlap=64),
            f"resize, tile {patch}": Inference(method="resize"),
        }
    bare = {"blend": "linear", "rim": 0}
    found = {"halo, tile 512": Inference(blend="halo", tile=512, overlap=0)}
    for overlap in (0, 32, 64, 128):
        found[f"linear, tile {TILE}, overlap {overlap}"] = Inference(
            tile=TILE, overlap=overlap, method="average", **bare
        )
    for overlap in (32, 64, 128):
        found[f"gaussian, tile {TILE}, overlap {overlap}"] = Inference(
            tile=TILE, overlap=overlap, method="average", blend="gaussian", rim=0
        )
    aligned = Inference(tile=TILE, overlap=64, method="exact", **bare)
    found[f"linear, tile {TILE}, overlap 64, on the network's grid"] = aligned
    found[f"gaussian, tile {TILE}, overlap 64, on the network's grid"] = aligned.model_copy(
        update={"blend": "gaussian"}
    )
    found["linear, tile 384, overlap 64"] = Inference(tile=384, overlap=64, method="average", **bare)
    found["gaussian, tile 384, overlap 64"] = Inference(tile=384, overlap=64, method="average", blend="gaussian", rim=0)
    return found | {f"resize, tile {TILE}": Inference(method="resize", tile=TILE)}


def rims(run: Run, images: dict[str, Images]) -> dict[str, Inference]:
    """Images mirrored by a rim that is cut off again, as one tile and as blended tiles; none for a `valid` network."""
    if _rim(run, 1) == {}:
        return {}
    bare = whole(run, images).tile or 0
    found = {f"rim {rim}, one tile": Inference(tile=bare + 2 * rim, overlap=0, blend="linear", rim=rim) for rim in RIMS}
    for rim in RIMS[:2]:
        section = Inference(tile=384, overlap=64, blend="gaussian", rim=rim)
        found[f"rim {rim}, gaussian, tile 384, overlap 64, on the network's grid"] = section
    for rim in RIMS[1:3]:
        section = Inference(tile=384, overlap=0, blend="linear", rim=rim)
        found[f"rim {rim}, tile 384, overlap 0, on the network's grid"] = section
    return found


def _rim(run: Run, rim: int) -> dict[str, int]:
    """The key `rim`, where the network does not lose its rim by itself."""
    patch = run.experiment.train.patch
    loses = not has_fixed_size(run.experiment) and (size_function(run.experiment)(patch) or 0) < patch
    return {} if loses else {"rim": rim}


def with_inference(run: Run, section: Inference) -> Run:
    """The same run with another `inference` section."""
    return replace(run, experiment=run.experiment.model_copy(update={"inference": section}))


def predicted(loaded: LoadedRun, images: dict[str, Images]) -> tuple[Probabilities, int]:
    """Foreground of every image, float32 (H, W), and how many pixels went through the network."""
    pixels = 0
    for member in loaded.predictor.members:
        answer = member.answer

        def counted(tiles: np.ndarray, answer=answer) -> np.ndarray:
            nonlocal pixels
            pixels += tiles[..., 0].size
            return answer(tiles)

        member.answer = counted  # type: ignore[method-assign]
    found = {
        split: [
            loaded.foreground(loaded.predictor.probability(record["image"], limits=tuple(sample["contrast"])))
            for sample, record in part
        ]
        for split, part in images.items()
    }
    return found, pixels


def scored(loaded: LoadedRun, images: dict[str, Images], probabilities: Probabilities) -> dict:
    """{"threshold": chosen on the validation images, "validation": {measure: value}, "test": {measure: value}}."""
    curve = ThresholdCurve()
    for (_, record), probability in zip(images["validation"], probabilities["validation"], strict=True):
        curve.add(record["labels"] > 0, probability)
    loaded.threshold = curve.best().threshold
    row: dict = {"threshold": loaded.threshold}
    for split, part in images.items():
        scores = Scores(MEASURES)
        for (sample, record), probability in zip(part, probabilities[split], strict=True):
            scores.add(sample["name"], record["labels"].astype(np.int32), loaded.decide(probability[..., None]).labels)
        row[split] = scores.pooled()
    return row


def differences(reference: Probabilities, probabilities: Probabilities, rim: int) -> dict:
    """Of the test images' probabilities; "inside" leaves out `rim` pixels along the border, None if nothing is left."""
    gaps = [np.abs(one - other) for one, other in zip(reference["test"], probabilities["test"], strict=True)]
    inner = [gap[rim:-rim, rim:-rim] if rim else gap for gap in gaps]
    return {
        "mean_difference": float(np.mean([gap.mean() for gap in gaps])),
        "max_difference": float(max(gap.max() for gap in gaps)),
        "max_difference_inside": float(max(gap.max() for gap in inner)) if all(gap.size for gap in inner) else None,
    }


def line(row: dict) -> str:
    """A row of the table in Markdown."""
    inside = row["max_difference_inside"]
    cells = [
        row["case"],
        *(f"{row['validation'][name]:.4f}" for name in MEASURES),
        f"{row['threshold']:.3f}",
        *(f"{row['test'][name]:.4f}" for name in MEASURES),
        f"{row['mean_difference']:.1e}",
        f"{row['max_difference']:.1e}",
        "-" if inside is None else f"{inside:.1e}",
        f"{row['compute']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _images(run: Run, split: str, shape: Sequence[int] | None) -> list[tuple[dict, dict[str, np.ndarray]]]:
    """The samples and records of a split; contrast limits stay those of the whole image."""
    folder = Path(run.data["shards"])
    reader = ShardReader(folder, verify=False)
    reader.manifest.check_config(run.experiment.data_config(), folder)
    rows, columns = (None, None) if shape is None else shape
    cut = ("image", "labels")
    return [(sample, {name: record[name][:rows, :columns] for name in cut}) for sample, record in reader.split(split)]


RIMS = (16, 32, 64, 144)  # 144: the halo of a U-Net of depth 4
ZOOMS = ((0.75,), (1.25,), (1.5,), (1.0, 1.25), (1.0, 1.5), (0.75, 1.0, 1.25), (0.75, 1.0, 1.5))


if __name__ == "__main__":
    main()
