"""Checkpoints: all that a training needs to go on as if it had never stopped, in one file that appears whole.

When one is written, and going on from it, is the work of `cellseg.fitting`; whether a run may go on, that of
`cellseg.resuming`.
"""

import json
import math
import random
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cellseg.runs import CHECKPOINT
from pipelines.errors import InputError
from pipelines.files import whole_file

NAME = CHECKPOINT
VERSION = 1
PARTS = ("model", "optimizer", "metrics")
# What Keras' own callbacks remember; ours name theirs in an attribute `kept`.
KEPT: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("best", "best_epoch", "wait", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


@dataclass(frozen=True)
class Place:
    """Where a training stands.

    Args:
        phase: Number of the phase, from 0.
        began: The epoch in which that phase began.
        epoch: The epoch that is to be done next, counted over all phases.
        step: Steps of it that are done.
        phase_over: The phase has ended.
        over: The whole training has ended.
    """

    phase: int = 0
    began: int = 0
    epoch: int = 0
    step: int = 0
    phase_over: bool = False
    over: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps.

    Args:
        place: Where it stands.
        values: Of all variables, by part: the model with the states of its random generators; the optimiser with its
            moments, steps, learning rate and averages; the metrics, which hold the mean loss of the epoch so far.
        kept: What each callback remembers, by the name of its class.
        history: Content of `history.csv`.
        warnings: What was said.
        rate: Factor of the learning rates, below 1 after a return to earlier weights.
        pending: The part of `rate` that the optimiser's stored learning rate does not have yet.
        restores: Returns to earlier weights so far.
        generators: States of Python's, numpy's and, where it computes, PyTorch's random generators.
    """

    place: Place
    values: dict[str, list[np.ndarray]]
    kept: dict[str, dict[str, Any]]
    history: str = ""
    warnings: list[str] = field(default_factory=list)
    rate: float = 1.0
    pending: float = 1.0
    restores: int = 0
    generators: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all; an older one is replaced in one step."""
        arrays: dict[str, Any] = {
            f"{part}_{n:05d}": value for part in PARTS for n, value in enumerate(self.values[part])
        }
        about = {**asdict(replace(self, values={})), "version": VERSION}
        about["counts"] = {part: len(self.values[part]) for part in PARTS}
        with whole_file(path) as temporary:
            np.savez(temporary, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read the file.

        Raises:
            FileNotFoundError: none there.
            InputError: damaged, or of another version.
        """
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint {path}.")
        try:
            _check_claim(path)
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:  # np.load may leave it open
                about = json.loads(stored["about"].tobytes())
                version, counts = about.pop("version"), about.pop("counts")
                if version != VERSION:
                    raise InputError(
                        f"{path} is of version {version}, and this cellseg reads version {VERSION}. Go on with the "
                        "version that began the training, or begin anew."
                    )
                values = {part: [stored[f"{part}_{n:05d}"] for n in range(counts[part])] for part in PARTS}
            return cls(**{**about, "place": Place(**about["place"]), "values": values})
        except (InputError, OSError, MemoryError):  # too little memory is no damage, after which one would begin anew
            raise
        except Exception as error:  # of zipfile, zlib, json and numpy, as the damage will have it
            raise InputError(f"{path} is damaged ({error}): the training cannot go on. Begin it anew.") from error

    def slower(self) -> "Checkpoint":
        """The same state with half the learning rate, and one return more."""
        return replace(self, rate=self.rate / 2, pending=self.pending / 2, restores=self.restores + 1)

    def set_model(self, trainer: keras.Model) -> None:
        """Give a trainer the model's part."""
        _assign(trainer.variables, self.values["model"], "model")

    def set_optimizer(self, trainer: keras.Model, *, scheduled: bool) -> None:
        """Give a trainer's optimiser, which must be built, its part; `scheduled`: a schedule sets its rate."""
        _assign(trainer.optimizer.variables, self.values["optimizer"], "optimiser")
        if not scheduled and self.pending != 1:
            rate = float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate))
            trainer.optimizer.learning_rate = rate * self.pending

    def set_metrics(self, trainer: keras.Model) -> None:
        """Give a trainer the metrics' part: the mean of an epoch under way."""
        _assign(trainer.metrics_variables, self.values["metrics"], "metrics")

    def set_generators(self) -> None:
        """Set Python's and numpy's random generators, and PyTorch's, which Keras draws dropout from there."""
        if self.generators:
            version, numbers, gauss = self.generators["python"]
            random.setstate((version, tuple(numbers), gauss))
            name, keys, *rest = self.generators["numpy"]
            np.random.set_state((name, np.array(keys, np.uint32), *rest))
            if keras.backend.backend() == "torch" and "torch" in self.generators:
                import torch

                first, *gpus = (torch.tensor(state, dtype=torch.uint8) for state in self.generators["torch"])
                torch.set_rng_state(first)
                torch.cuda.set_rng_state_all(gpus[: torch.cuda.device_count()])

    def remind(self, callbacks: Iterable[keras.callbacks.Callback]) -> None:
        """Give callbacks what they remembered."""
        for callback in callbacks:
            for name, value in self.kept.get(type(callback).__name__, {}).items():
                setattr(callback, name, value)


def values_of(trainer: keras.Model) -> dict[str, list[np.ndarray]]:
    """The values of all variables of a compiled trainer whose optimiser is built, by part."""
    fetch_state(trainer)
    variables = (trainer.variables, trainer.optimizer.variables, trainer.metrics_variables)
    return {
        part: [np.array(keras.ops.convert_to_numpy(variable)) for variable in those]
        for part, those in zip(PARTS, variables, strict=True)
    }


def fetch_state(trainer: keras.Model) -> None:
    """Let the variables hold the state after the last step: on JAX it is elsewhere within an epoch."""
    fetch = getattr(trainer, "jax_state_sync", None)
    if fetch is not None and getattr(trainer, "_jax_state", None):
        fetch()


def remembered(callbacks: Iterable[keras.callbacks.Callback]) -> dict[str, dict[str, Any]]:
    """What callbacks remember, by the name of their class."""
    found = {}
    for callback in callbacks:
        names = getattr(callback, "kept", ())
        names = names or next((kept for kind, kept in KEPT.items() if isinstance(callback, kind)), ())
        if names:
            found[type(callback).__name__] = {name: getattr(callback, name) for name in names}
    return found


def generators() -> dict[str, Any]:
    """The states of Python's and numpy's random generators, and of PyTorch's where that computes, for JSON."""
    state: Any = np.random.get_state()
    name, keys, *rest = state
    found = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}
    if keras.backend.backend() == "torch":
        import torch

        found["torch"] = [one.tolist() for one in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]
    return found


def finite(values: dict[str, list[np.ndarray]]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(np.isfinite(value).all() for part in values.values() for value in part if value.dtype.kind == "f")


def _check_claim(path: Path) -> None:
    """Raise ValueError if arrays claim to be larger than the file: ours are not compressed."""
    with zipfile.ZipFile(path) as archive:
        size = path.stat().st_size
        for member in archive.infolist():
            with archive.open(member) as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if member.file_size > size or math.prod(shape) * dtype.itemsize > size:
                raise ValueError(f"{member.filename} claims to be larger than the file")


def _assign(variables: Sequence, values: Sequence[np.ndarray], what: str) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in values]:
        raise InputError(
            f"The checkpoint does not fit the {what}: it holds {len(values)} arrays, and {len(shapes)}, or other "
            "shapes, were expected. It was written by another version of cellseg or Keras, or with another "
            "train.precision. Go on there, or begin the training anew."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
