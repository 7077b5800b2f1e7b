"""Sections: the keys of an experiment file below its top level, with their defaults and checks.

The file as a whole is `cellseg.experiment`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from cellseg.named import Named
from pipelines.decoding import SPACINGS_UM

Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]
Zoom = Annotated[float, pydantic.Field(ge=0.1, le=10)]
PixelSide = Annotated[float, pydantic.Field(ge=SPACINGS_UM[0], le=SPACINGS_UM[1])]
EPOCHS = 50  # of a training without phases, where the file says nothing


class Section(pydantic.BaseModel):
    """A part of the file; keys that it does not know are errors, and numbers are finite."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """Where the images are and what they are."""

    source: str | Annotated[list[str], pydantic.Field(min_length=1)]
    layout: Literal["pairs", "ctc", "dsb2018", "isbi", "epfl", "glas", "consep"]
    images: str | None = None
    labels: str | None = None
    series: bool = False
    truth: Literal["gold", "silver", "markers", "auto"] = "gold"
    sequence: str | None = None
    kind: Literal["all", "fluorescence", "stained"] = "all"
    channels: Literal["grey", "rgb"] | list[int] | None = None
    spacing_um: tuple[PixelSide, PixelSide] | None = None
    interval_s: pydantic.PositiveFloat | None = None
    contrast: tuple[float, float] = (2.0, 98.0)
    expand: pydantic.PositiveInt | None = None
    shards: str | None = None
    format: Literal["tfrecord", "npz"] = "tfrecord"

    @pydantic.field_validator("contrast")
    @classmethod
    def _check_contrast(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            raise ValueError(f"must be two percentiles with 0 <= low < high <= 100, got {value}")
        return value

    @pydantic.field_validator("sequence", mode="before")
    @classmethod
    def _sequence_as_text(cls, value: object) -> object:
        return f"{value:02d}" if isinstance(value, int) else value  # YAML reads 01 as the number 1

    def options(self) -> dict[str, Any]:
        """The keywords of this layout's reader in `pipelines.sources`."""
        choices: dict[str, dict[str, Any]] = {
            "pairs": {
                "images": self.images and Path(self.images),
                "labels": self.labels and Path(self.labels),
                "series": self.series,
            },
            "ctc": {"truth": self.truth, "sequence": self.sequence},
            "dsb2018": {"kind": self.kind},
        }
        return choices.get(self.layout, {})

    def sources(self) -> list[str]:
        """The folders of the raw data as written, one or several."""
        return [self.source] if isinstance(self.source, str) else list(self.source)


class Split(Section):
    """Which images train, which steer training and thresholds, and which only measure the result."""

    # None: as published where the data set says so, block where there are frames, else image
    by: Literal["image", "sequence", "block", "published", "csv"] | None = None
    train: float | str | list[str | int] = 0.7
    validation: float | str | list[str | int] = 0.15
    test: float | str | list[str | int] = 0.15
    gap: pydantic.NonNegativeInt = 0
    fold: str | None = None  # "2/5": part 2 of 5
    stratify: bool = True
    file: str | None = None  # by csv: columns name and split
    seed: Seed | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _numbers_as_names(cls, values: Any) -> Any:
        """Sequence 01 and frame 12 are names, not fractions; YAML reads both as numbers."""
        if not isinstance(values, dict) or values.get("by") not in ("sequence", "block"):
            return values
        parts = {name: values[name] for name in ("train", "validation", "test") if type(values.get(name)) is int}
        return values | {name: f"{number:02d}" for name, number in parts.items()}


class Phase(Section):
    """A stretch of training with settings of its own; what it leaves out is as in the train section."""

    epochs: pydantic.PositiveInt
    optimizer: Named | None = None
    learning_rate: pydantic.PositiveFloat | None = None
    schedule: Named | None = None
    l2: pydantic.NonNegativeFloat | None = None
    clip_norm: pydantic.PositiveFloat | None = None
    clip_value: pydantic.PositiveFloat | None = None
    ema: float | None = pydantic.Field(default=None, gt=0, lt=1)
    early_stopping: pydantic.PositiveInt | None = None
    plateau: pydantic.PositiveInt | None = None
    plateau_factor: float | None = pydantic.Field(default=None, gt=0, lt=1)


class Dashboard(Section):
    """What TensorBoard shows besides figures."""

    pictures: int = pydantic.Field(default=3, ge=0, le=20)  # training patches, and validation images; 0: none at all
    histograms: bool = True


class Train(Section):
    """How training runs."""

    batch_size: pydantic.PositiveInt = 4
    patch: pydantic.PositiveInt = 256
    oversample: float = pydantic.Field(default=0.0, ge=0, le=1)
    max_objects: pydantic.PositiveInt = 100  # of a patch, for networks that find cells one by one
    epochs: pydantic.PositiveInt | None = None  # None: EPOCHS, or what the phases say
    steps_per_epoch: pydantic.PositiveInt | None = None
    optimizer: Named = {"name": "adam"}
    learning_rate: pydantic.PositiveFloat = 1e-3
    schedule: Named | None = None  # None: lowered on a plateau
    l2: pydantic.NonNegativeFloat | None = None  # None: as the network was built
    clip_norm: pydantic.PositiveFloat | None = None
    clip_value: pydantic.PositiveFloat | None = None
    ema: float | None = pydantic.Field(default=None, gt=0, lt=1)
    early_stopping: pydantic.PositiveInt = 15
    plateau: pydantic.PositiveInt = 5
    plateau_factor: float = pydantic.Field(default=0.3, gt=0, lt=1)
    phases: list[Phase] = []
    auxiliary_weight: pydantic.NonNegativeFloat = 1.0
    auxiliary_decay: float | None = pydantic.Field(default=None, gt=0, le=1)
    start_from: str | None = None
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16", "auto"] = "float32"
    max_hours: pydantic.PositiveFloat | None = None  # of training, over all sittings
    checkpoint_minutes: pydantic.NonNegativeFloat | None = 10.0  # None: at the end of epochs alone; 0: every step
    on_nan: Literal["stop", "restore"] = "stop"
    jit_compile: bool | None = None  # None: on JAX alone; XLA was slower than TensorFlow on CPUs
    dashboard: Dashboard = Dashboard()

    @pydantic.model_validator(mode="after")
    def _check_phases(self) -> "Train":
        if self.phases and self.epochs is not None:
            raise ValueError(
                "epochs stands beside phases, which have epochs of their own; leave one of them out (train.epochs=null)"
            )
        for phase in self.all_phases():
            if phase.clip_norm is not None and phase.clip_value is not None:
                raise ValueError("clip_norm and clip_value exclude each other")
        return self

    def all_phases(self) -> list[Phase]:
        """The phases in order, complete: at least one, which is the section itself where it lists none."""
        own = {name: getattr(self, name) for name in Phase.model_fields if name != "epochs"}
        given = self.phases or [Phase(epochs=self.epochs or EPOCHS)]
        return [
            phase.model_copy(update={name: value for name, value in own.items() if getattr(phase, name) is None})
            for phase in given
        ]

    def total_epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.all_phases())


class Distribution(Section):
    """On which devices a training runs; without the section on one. See `cellseg.distribution`."""

    name: Literal["mirrored", "multi_worker", "data_parallel"]
    devices: pydantic.PositiveInt | None = None  # of one machine; None: all GPUs, else all that the backend knows
    workers: list[str] = []  # host:port of each machine, the chief first; TF_CONFIG goes before it
    wait_s: pydantic.PositiveFloat = 300.0  # for the other machines

    @pydantic.model_validator(mode="after")
    def _check_machines(self) -> "Distribution":
        if self.workers and self.name != "multi_worker":
            raise ValueError(f"workers are for name: multi_worker, and this is {self.name}; drop one")
        if self.devices is not None and self.name == "multi_worker":
            raise ValueError("devices are for one machine; each of several workers uses all GPUs that it sees")
        return self


class Inference(Section):
    """How an image of any size is predicted."""

    tile: pydantic.PositiveInt | None = None
    overlap: pydantic.NonNegativeInt | None = None
    # exact: tiles on the network's own grid; average: spread evenly; resize: the image as one tile
    method: Literal["exact", "average", "resize"] = "exact"
    # where tiles meet; halo: a tile's rim is cut off, as wide as its border can reach; None: gaussian, but where the
    # network is `valid` or its tiles are resized
    blend: Literal["linear", "gaussian", "halo"] | None = None
    # pixels of surroundings, mirrored at the image's border, that a tile has more than what is kept of its answer;
    # None: as `cellseg.geometry.tiling` says
    rim: pydantic.NonNegativeInt | None = None
    symmetries: Literal[1, 4, 8] = 1  # 4: mirrored; 8: also turned; probabilities are averaged
    zoom: Annotated[list[Zoom], pydantic.Field(min_length=1)] = [1.0]  # image sizes whose probabilities are averaged
    decision: Literal["threshold", "argmax"] = "threshold"  # the threshold is tuned on validation images
    engine: Literal["auto", "keras", "openvino"] = "auto"  # auto: see `cellseg.export`

    @pydantic.field_validator("zoom", mode="before")
    @classmethod
    def _one_as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value

    @pydantic.model_validator(mode="after")
    def _check_method(self) -> "Inference":
        if self.method == "resize" and (self.blend or "linear") != "linear":
            raise ValueError(f"blend: {self.blend} stands beside method: resize, which has no tiles to blend; drop one")
        if self.rim and (self.method == "resize" or self.blend == "halo"):
            other = (
                "method: resize, which has no tiles" if self.method == "resize" else "blend: halo, which has its own"
            )
            raise ValueError(f"rim: {self.rim} stands beside {other}; drop one")
        return self


class Tuning(Section):
    """What the threshold, and options of the instance method, are chosen for on validation images."""

    measure: str = "dice"  # any of cellseg.metrics.IMAGE_METRICS
    # Option of the instance method: values to try, in every combination
    instances: dict[str, Annotated[list[Any], pydantic.Field(min_length=1)]] = {}

    @pydantic.field_validator("instances", mode="before")
    @classmethod
    def _one_as_list(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {option: values if isinstance(values, list) else [values] for option, values in value.items()}


class Evaluation(Section):
    """What validation and test images are scored by, besides the usual measures."""

    measures: list[str] = []  # any of cellseg.metrics.IMAGE_METRICS
    # Measures that take probabilities, here of the network's own foreground instead of the cells; each image's best
    # threshold counts where the measure says so
    probability: list[str] = []
    # Name: pattern of image names, such as A: testA_*; these images are scored for themselves, too
    parts: dict[str, str] = {}


class Stage(Section):
    """Trials of a search that are drawn alike."""

    trials: pydantic.PositiveInt
    overrides: dict[str, Any] = {}  # YAML keys of the experiment that are other in this stage, train.epochs for example


class Narrow(Stage):
    """The second stage: values near the best of the first."""

    around: pydantic.PositiveInt = 3  # how many of the best


class Search(Section):
    """What `cellseg-search` tries; training itself does not read it."""

    space: Annotated[dict[str, Named], pydantic.Field(min_length=1)]  # see cellseg.search_space.DISTRIBUTIONS
    broad: Stage = Stage(trials=16)
    narrow: Narrow | None = Narrow(trials=8)
    measure: str | None = None  # of the validation images; None: what steers training, in its best epoch
    prune: Named | None = {"name": "median"}  # see cellseg.search.PRUNERS
