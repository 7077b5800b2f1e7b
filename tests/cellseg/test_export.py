import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers

import cellseg
from cellseg import export, runs
from cellseg.networks import network_for
from pipelines.errors import InputError
from tests.runs import bright_pixels_run, experiment

UNET = {"name": "unet", "depth": 2, "filters": 4}
KINDS = {
    "valid": ({**UNET, "padding": "valid", "dropout": 0.5}, 84),
    "transposed": ({**UNET, "padding": "same", "up": "transposed2"}, 64),
    "bilinear": ({**UNET, "depth": 1, "padding": "same", "up": "bilinear", "batch_norm": True, "dropout": 0.2}, 64),
    "dmcn": ({"name": "dmcn", "filters": 2}, 64),  # with auxiliary outputs
    "classes": ({**UNET, "padding": "same"}, 64),
}


def random_network(settings, **options):
    """The experiment's network with random weights, moving statistics of batch normalisation as well."""
    network = network_for(settings, channels=1, **options)
    rng = np.random.default_rng(3)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:3]) if len(weight.shape) == 4 else 50
        values = rng.normal(0, 1.5 * fan_in**-0.5, weight.shape)
        weight.assign(np.abs(values) + 0.5 if weight.path.endswith(("variance", "gamma")) else values)
    return network


def run_of(folder, kind, *, engine="auto"):
    """A finished run of one of KINDS."""
    model, patch = KINDS[kind]
    target = {"target": "classes", "loss": {"name": "categorical_ce"}} if kind == "classes" else {}
    inference = {"engine": engine, **({} if kind == "valid" else {"tile": patch, "overlap": 8})}
    settings = experiment(model=model, train={"patch": patch}, inference=inference, **target)
    path = bright_pixels_run(folder)
    random_network(settings, **({"num_classes": 2} if target else {})).save(path / runs.MODEL)
    runs.write_text(path, runs.EXPERIMENT, settings.to_yaml())
    if target:
        runs.write_json(path, runs.DATA, {**runs.read_json(path, runs.DATA), "classes": ["round", "long"]})
    return path


def network_in(path):
    """What the loaded run asks."""
    return cellseg.load_run(path).predictor.members[0]._network


def set_engine(path, engine):
    settings = runs.Run.read(path).experiment
    changed = settings.model_copy(update={"inference": settings.inference.model_copy(update={"engine": engine})})
    runs.write_text(path, runs.EXPERIMENT, changed.to_yaml())


def record(path):
    return json.loads((path / export.FOLDER / export.RECORD).read_text())


def noise(*shape):
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_answers_as_keras_does(tmp_path, kind):
    path = run_of(tmp_path, kind)
    run = cellseg.load_run(path)
    assert isinstance(run.predictor.members[0]._network, export.Exported)
    image = noise(101, 90, 1)
    probability = run.predictor.probability(image)
    set_engine(path, "keras")
    by_keras = cellseg.load_run(path).predictor
    assert isinstance(by_keras._network, keras.Model)
    expected = by_keras.probability(image)
    np.testing.assert_allclose(probability, expected, atol=1e-5)
    assert expected.std() > 0.01 and expected.shape == (101, 90, 3 if kind == "classes" else 1)


def test_an_export_is_kept_and_belongs_to_its_model_tile_and_version(tmp_path, monkeypatch):
    path = run_of(tmp_path, "transposed")
    network_in(path)
    first = record(path)
    assert first["model"] == export.sha256(path / runs.MODEL) and first["shape"] == [1, 64, 64, 1]
    names = sorted(file.name for file in (path / export.FOLDER).iterdir())
    assert names == ["export.json", "network.bin", "network.xml"]

    made = []
    convert = export._converted
    monkeypatch.setattr(export, "_converted", lambda *given: made.append(given[1]) or convert(*given))
    monkeypatch.setattr(export, "load_model", lambda path: pytest.fail("the Keras model is not needed"))
    assert isinstance(network_in(path), export.Exported) and not made  # used as it is

    monkeypatch.setattr(export, "load_model", runs.load_model)
    monkeypatch.setattr(export, "_version", lambda: "2099.1")
    network_in(path)
    assert len(made) == 1 and record(path) == {**first, "openvino": "2099.1"} | {
        name: record(path)[name] for name in (export.GRAPH, export.WEIGHTS)
    }

    settings = experiment(model=KINDS["transposed"][0], inference={"tile": 32, "overlap": 8})
    runs.write_text(path, runs.EXPERIMENT, settings.to_yaml())
    network_in(path)
    assert made[1:] == [(1, 32, 32, 1)]

    before = cellseg.load_run(path).predict(noise(40, 40)).probability
    network = random_network(settings)
    network.get_layer("logits").bias.assign([3.0])
    network.save(path / runs.MODEL)
    after = cellseg.load_run(path).predict(noise(40, 40)).probability
    assert len(made) == 3 and after.mean() > before.mean() + 0.1


@pytest.mark.parametrize("name", [export.GRAPH, export.WEIGHTS, export.RECORD])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_export_is_made_anew(tmp_path, name, damage):
    path = bright_pixels_run(tmp_path)
    network_in(path)
    file = path / export.FOLDER / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "cut" else bytes([content[0] ^ 255]) + content[1:])
    image = noise(20, 20)
    image[0, 0], image[0, 1] = 0, 255
    np.testing.assert_allclose(cellseg.load_run(path).predict(image).probability, image / 255, atol=1e-6)
    assert {one: record(path)[one] for one in (export.GRAPH, export.WEIGHTS)} == export._sums(
        *((path / export.FOLDER / one).read_bytes() for one in (export.GRAPH, export.WEIGHTS))
    )


def test_a_read_only_run_folder_is_no_error(tmp_path, monkeypatch):
    def refuse(*given):
        raise PermissionError(13, "Permission denied")

    path = bright_pixels_run(tmp_path)
    monkeypatch.setattr(export, "write_bytes", refuse)
    assert isinstance(network_in(path), export.Exported)
    assert not (path / export.FOLDER).exists()


def test_a_file_of_that_name_stays(tmp_path):
    path = bright_pixels_run(tmp_path)
    (path / export.FOLDER).write_text("mine")
    assert isinstance(network_in(path), export.Exported)
    assert (path / export.FOLDER).read_text() == "mine"


def test_an_export_that_differs_is_not_used(tmp_path, monkeypatch):
    path = bright_pixels_run(tmp_path)
    convert = export._converted

    def spoilt(network, shape):
        network.layers[-1].bias.assign([2e-5])
        try:
            return convert(network, shape)
        finally:
            network.layers[-1].bias.assign([0.0])

    monkeypatch.setattr(export, "_converted", spoilt)
    with pytest.warns(export.ExportWarning, match="differ from those of Keras by up to 2e-05, more than 1e-05.*slower"):
        assert isinstance(network_in(path), keras.Model)
    assert not (path / export.FOLDER).exists()
    set_engine(path, "openvino")
    with pytest.raises(InputError, match="inference.engine is openvino, but OpenVINO's probabilities differ"):
        network_in(path)
    monkeypatch.setattr(export, "_converted", convert)
    assert isinstance(network_in(path), export.Exported)


@keras.saving.register_keras_serializable(package="tests")
class Sorted(layers.Layer):
    """A layer that OpenVINO does not know: it calls back into Python."""

    def call(self, inputs):
        import tensorflow as tf

        return tf.ensure_shape(tf.numpy_function(lambda x: x, [inputs], tf.float32), inputs.shape)

    def compute_output_shape(self, input_shape):
        return input_shape


def test_a_network_that_cannot_be_converted_is_left_to_keras(tmp_path):
    path = bright_pixels_run(tmp_path)
    inputs = layers.Input((None, None, 1))
    keras.Model(inputs, Sorted()(inputs)).save(path / runs.MODEL)
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    with pytest.warns(export.ExportWarning, match=r"OpenVINO .* cannot convert the network \(.*Keras predicts instead"):
        assert isinstance(network_in(path), keras.Model)
    assert (root.level, root.filters, root.handlers) == before  # the converter would silence everybody
    set_engine(path, "openvino")
    with pytest.raises(InputError, match=r"cannot convert the network .*Set inference.engine to auto or keras"):
        network_in(path)


def test_without_openvino_keras_predicts(tmp_path, monkeypatch):
    path = bright_pixels_run(tmp_path)
    monkeypatch.setattr(export, "_installed", lambda: False)
    assert isinstance(network_in(path), keras.Model)  # and no warning
    set_engine(path, "openvino")
    monkeypatch.setattr(export.importlib.metadata, "version", missing)
    with pytest.raises(InputError, match=r"engine is openvino, but it is not installed \(pip install 'cellseg\[openv"):
        network_in(path)


def missing(package):
    raise export.importlib.metadata.PackageNotFoundError(package)


def test_a_broken_openvino_is_reported(tmp_path, monkeypatch):
    path = bright_pixels_run(tmp_path)
    export._core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(export, "_installed", lambda: True)
    with pytest.warns(export.ExportWarning, match="OpenVINO cannot be imported"):
        assert isinstance(network_in(path), keras.Model)


def no_devices(kind):
    raise RuntimeError(f"Unknown backend: '{kind}' requested")  # as JAX does


@pytest.mark.parametrize(
    ("backend", "devices", "on_cpu"),
    [
        ("tensorflow", lambda kind: [], True),
        ("tensorflow", lambda kind: ["gpu:0"] if kind == "gpu" else [], False),
        ("jax", lambda kind: ["gpu:0"] if kind == "gpu" else [], False),
        ("jax", no_devices, True),
        ("torch", lambda kind: [], False),
    ],
)
def test_keras_keeps_its_gpu(tmp_path, monkeypatch, backend, devices, on_cpu):
    path = bright_pixels_run(tmp_path)
    monkeypatch.setattr(keras.distribution, "list_devices", devices)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert export._on_cpu() == on_cpu
    # JAX cannot make an export, but uses one that is there.
    assert isinstance(network_in(path), export.Exported if backend == "tensorflow" and on_cpu else keras.Model)
    set_engine(path, "openvino")
    assert isinstance(network_in(path), export.Exported)
    set_engine(path, "auto")
    assert isinstance(network_in(path), export.Exported if on_cpu else keras.Model)


def test_openvino_reports_nothing_to_its_maker(tmp_path):
    network_in(bright_pixels_run(tmp_path))
    assert sys.modules["openvino"] and sys.modules["openvino_telemetry"] is None
    assert "openvino_telemetry.main" not in sys.modules


def test_images_of_all_sizes_are_one_shape_to_the_network(tmp_path, monkeypatch):
    sizes = [(20, 30), (64, 64), (131, 75)]
    path = run_of(tmp_path, "bilinear")
    compiled = []
    compile_ = export._compiled
    monkeypatch.setattr(export, "_compiled", lambda *given: compiled.append(given) or compile_(*given))
    run = cellseg.load_run(path)
    for size in sizes:
        run.predict(noise(*size))
    assert len(compiled) == 1

    set_engine(path, "keras")
    run = cellseg.load_run(path)
    traced = []
    first = run.predictor._network.layers[1]
    call = first.call
    first.call = lambda *given, **options: traced.append(given[0].shape) or call(*given, **options)
    for size in sizes:
        run.predict(noise(*size))
    assert traced == [(1, 64, 64, 1)]


def test_an_ensemble_asks_exports(tmp_path):
    folders = []
    for name in "ab":
        (tmp_path / name).mkdir()
        folders.append(bright_pixels_run(tmp_path / name))
    ensemble = cellseg.load_run(folders)
    assert [type(member._network) for member in ensemble.predictor.members] == [export.Exported] * 2
    image = np.tile(np.arange(256, dtype=np.uint8), (40, 1))
    np.testing.assert_allclose(ensemble.predict(image).probability, image / 255, atol=1e-6)


def test_several_threads_may_ask(tmp_path):
    network = network_in(bright_pixels_run(tmp_path))
    tiles = np.random.default_rng(0).random((16, 1, 32, 32, 1), np.float32)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(network.predict_on_batch, tiles))
    np.testing.assert_allclose(answers, tiles, atol=1e-6)


def test_a_batch_of_tiles_is_answered_in_order(tmp_path):
    network = network_in(bright_pixels_run(tmp_path))
    tiles = np.random.default_rng(0).random((3, 32, 32, 1), np.float32)
    np.testing.assert_allclose(network.predict_on_batch(tiles), tiles, atol=1e-6)


def test_a_bad_engine_is_explained():
    with pytest.raises(InputError, match="inference.engine: .*got 'onnx'"):
        experiment(inference={"engine": "onnx"})
