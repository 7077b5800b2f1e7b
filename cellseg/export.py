"""Export: a run's network as OpenVINO computes it on a CPU, checked against Keras and kept in the run folder.

The Keras model is read in `cellseg.runs`; what is done with a network's answers lives in `cellseg.inference`.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.networks import answering
from cellseg.runs import MODEL, Run, load_model, write_bytes, write_json
from pipelines.errors import InputError
from pipelines.files import sha256

FOLDER = "export"  # of the run folder
GRAPH, WEIGHTS, RECORD = "network.xml", "network.bin", "export.json"
TOLERANCE = 1e-5  # of a probability
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}  # otherwise bfloat16 on processors that have it


class ExportWarning(UserWarning):
    """A network could not be exported, or the export answers differently; Keras is used, which is slower."""


class _NoExportError(Exception):
    """Why there is no export that can be trusted: a sentence."""


class Exported:
    """A network that OpenVINO has compiled for one shape; called as a Keras model is.

    Args:
        graph: OpenVINO's description of the network, XML.
        weights: Its weights.

    Attributes:
        outputs: One.
    """

    def __init__(self, graph: bytes, weights: bytes):
        compiled = _compiled(graph, weights)
        self.outputs = compiled.outputs
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()

    def predict_on_batch(self, tiles: np.ndarray) -> np.ndarray:
        """Probability of tiles, one after the other: float32 (n, tile, tile, C) -> float32 (n, side, side, K)."""
        with self._lock:  # a request computes one thing at a time
            return np.concatenate([self._request.infer([tile[None]], share_inputs=True)[0] for tile in tiles])


def network_of(run: Run, *, tile: int) -> Any:
    """A run's network as its `inference.engine` says: the export, or the Keras model.

    `auto` takes the export where OpenVINO is installed and Keras works on a CPU, by TensorFlow; by JAX, if the run
    folder holds one already. The export is made once, or again where it is damaged or belongs to another model file,
    tile or version of OpenVINO; where the run folder is read-only, it is made for this time alone. An export whose
    probabilities of a test tile differ from those of Keras by more than `TOLERANCE` is not used.

    Loading an export runs no code that it might carry: it is a graph of OpenVINO's own operations.

    Args:
        run: A run.
        tile: Side of the tiles that it will be asked for, in pixels.

    Returns:
        What has `predict_on_batch`: float32 (n, tile, tile, C) -> (n, side, side, K); and `outputs`, one. A network
        that finds cells one by one is Keras' own, whatever the engine.

    Raises:
        InputError: a damaged model; with engine `openvino`, that OpenVINO is missing or its answer differs.
    """
    engine, model = run.experiment.inference.engine, run.folder / MODEL
    if run.experiment.detects:
        return load_model(model)
    if engine == "keras" or (engine == "auto" and not (_installed() and _on_cpu())):
        return answering(load_model(model))
    shape = (1, tile, tile, run.data["channels"])
    try:
        origin = {"model": sha256(model), "shape": list(shape), "openvino": _version()}
        kept = _read(run.folder / FOLDER, origin)
        if kept is not None:
            return kept
        network = answering(load_model(model))
        if engine == "auto" and not _convertible():
            return network
        return _export(network, shape, folder=run.folder / FOLDER, origin=origin)
    except _NoExportError as problem:
        if engine == "openvino":
            raise InputError(
                f"{run.folder}: inference.engine is openvino, but {problem} Set inference.engine to auto or keras."
            ) from problem
        warnings.warn(f"{run.folder}: {problem} Keras predicts instead, which is slower.", ExportWarning, stacklevel=2)
        return answering(load_model(model))


def checking_tile(shape: tuple[int, ...]) -> np.ndarray:
    """What exports are checked with: random squares of 8 px, in the lower half with noise; float32 in [0, 1]."""
    rng = np.random.default_rng(0)
    _, height, width, channels = shape
    squares = np.kron(rng.random((-(-height // 8), -(-width // 8), channels)), np.ones((8, 8, 1)))
    tile = squares[:height, :width].astype(np.float32)
    tile[height // 2 :] = 0.5 * (tile[height // 2 :] + rng.random((height - height // 2, width, channels)))
    return tile[None]


def _read(folder: Path, origin: dict) -> Exported | None:
    """The export that a run folder holds; None where there is none, or one that is damaged or of another origin."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        graph, weights = (folder / GRAPH).read_bytes(), (folder / WEIGHTS).read_bytes()
        if record == origin | _sums(graph, weights):
            return Exported(graph, weights)
    except (OSError, ValueError):  # not there, or no JSON
        pass
    return None


def _export(network: Any, shape: tuple[int, ...], *, folder: Path, origin: dict) -> Exported:
    """Convert, check and keep a network."""
    graph, weights = _converted(network, shape)
    exported, tile = Exported(graph, weights), checking_tile(shape)
    difference = float(np.max(np.abs(exported.predict_on_batch(tile) - np.asarray(network.predict_on_batch(tile)))))
    if not difference <= TOLERANCE:
        raise _NoExportError(
            f"OpenVINO's probabilities differ from those of Keras by up to {difference:.2g}, more than {TOLERANCE:g}."
        )
    try:
        write_bytes(folder, GRAPH, graph)
        write_bytes(folder, WEIGHTS, weights)
        write_json(folder, RECORD, origin | _sums(graph, weights))
    except OSError:  # a read-only or full disk costs the time of another export, not the answer
        pass
    return exported


def _converted(network: Any, shape: tuple[int, ...]) -> tuple[bytes, bytes]:
    """A Keras model as OpenVINO's graph and weights, for inputs of this shape alone."""
    import keras

    _openvino()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / GRAPH
        signature = [keras.InputSpec(shape=shape, dtype="float32")]
        try:
            with _logging_as_it_was():
                network.export(str(path), format="openvino", verbose=False, input_signature=signature)
            return path.read_bytes(), path.with_name(WEIGHTS).read_bytes()
        except Exception as error:  # converters fail in ways of every kind, and Keras can do without them
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise _NoExportError(f"OpenVINO {_version()} cannot convert the network ({lines[0]}).") from error


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """OpenVINO's converter silences the log of the whole process, the caller's and other libraries' with it."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _compiled(graph: bytes, weights: bytes) -> Any:
    core = _core()
    return core.compile_model(core.read_model(graph, weights), "CPU", SETTINGS)


@functools.cache
def _core() -> Any:
    return _openvino().Core()


def _openvino() -> Any:
    # Importing OpenVINO reports to its maker, unless the package that does so is missing; so it is for this process.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise _NoExportError(f"OpenVINO cannot be imported ({error}).") from error
    return openvino


def _installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _version() -> str:
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        raise _NoExportError("it is not installed (pip install 'cellseg[openvino]').") from None


def _on_cpu() -> bool:
    """Whether Keras has nothing better than the CPU. PyTorch has no list of devices; Keras is used there."""
    import keras

    try:
        return keras.backend.backend() in ("tensorflow", "jax") and not keras.distribution.list_devices("gpu")
    except RuntimeError:  # what JAX says where there is none
        return True


def _convertible() -> bool:
    """Whether OpenVINO reads what Keras' backend traces; that of JAX is one operation that it does not know."""
    import keras

    return keras.backend.backend() == "tensorflow"


def _sums(graph: bytes, weights: bytes) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in ((GRAPH, graph), (WEIGHTS, weights))}
