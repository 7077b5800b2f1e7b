import keras
import numpy as np
import pytest

from cellseg import callbacks, training
from cellseg import experiment as experiments
from cellseg.inference import Tiling
from cellseg.losses import TverskyBCE
from pipelines.dataset import ShardReader
from pipelines.errors import InputError
from tests.datasets import write_shards
from tests.runs import experiment

SMALL = {
    "name": "unet",
    "padding": "same",
    "filters": 4,
    "depth": 2,
    "up": "bilinear",
    "batch_norm": True,
    "dropout": 0.0,
}


def trainer():
    network = training.network_for(experiment(model=SMALL), channels=1, foreground_fraction=0.1)
    return training.Trainer(network, TverskyBCE())


def batch():
    rng = np.random.default_rng(0)
    x = rng.random((2, 16, 16, 1)).astype(np.float32)
    return x, (x > 0.7).astype(np.float32), np.ones_like(x)


def test_the_output_starts_at_the_prevalence():
    network = training.network_for(experiment(model=SMALL), channels=1, foreground_fraction=0.04)
    assert float(network.get_layer("logits").bias[0]) == pytest.approx(np.log(0.04 / 0.96))


def test_the_weight_map_reaches_the_loss_itself():
    x, y, ones = batch()
    model = trainer()
    model.compile("sgd")
    half = ones.copy()
    half[:, :8] = 0
    expected = float(TverskyBCE()(y, model(x, training=False), half))
    assert float(model.compute_loss(x, y, model(x, training=False), half)) == pytest.approx(expected)
    assert expected != pytest.approx(float(TverskyBCE()(y, model(x, training=False), ones)), rel=1e-4)


def test_it_overfits_one_patch():
    keras.utils.set_random_seed(0)
    x, y, ones = batch()
    model = trainer()
    model.compile(keras.optimizers.Adam(0.02))
    losses = [model.train_on_batch(x, y, sample_weight=ones) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]


def test_saving_the_trainer_saves_the_plain_network(tmp_path):
    model = trainer()
    model.save(tmp_path / "model.keras")
    back = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = batch()[0]
    np.testing.assert_array_equal(back.predict_on_batch(x), model.network.predict_on_batch(x))
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_l2_of_the_layers_joins_the_loss():
    inputs = keras.layers.Input((None, None, 1))
    logits = keras.layers.Conv2D(1, 1, kernel_regularizer=keras.regularizers.L2(1.0), name="logits")(inputs)
    network = keras.Model(inputs, keras.layers.Activation("sigmoid")(logits))
    model = training.Trainer(network, lambda *_: keras.ops.convert_to_tensor(0.0))
    x, y, ones = batch()
    squares = float(np.square(network.get_layer("logits").kernel).sum())
    assert float(model.compute_loss(x, y, model(x), ones)) == pytest.approx(squares)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_fit_leaves_the_best_weights_and_the_history(tmp_path, padding):
    reader = ShardReader(write_shards(tmp_path, 10))
    model = {**SMALL, "padding": padding}
    settings = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 2, "patch": 60, "learning_rate": 0.01}
    checked = experiment(model=model, train=settings)
    output = training.patch_output(checked)
    assert output == (60 if padding == "same" else 20)
    training.seed(0)
    objective, loss = training.objective_for(checked, foreground_fraction=0.1)
    assert loss["foreground_weight"] > loss["background_weight"]
    training.fit(
        checked,
        reader,
        training.network_for(checked, channels=1, foreground_fraction=0.1),
        objective,
        geometry=Tiling(60, output, 0),
        patch_output=output,
        minimum_range={},
        work=tmp_path,
        tensorboard=tmp_path / "tensorboard",
        warnings=callbacks.Warnings(),
    )
    assert (tmp_path / "model.keras").exists()
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3


def test_the_same_seed_trains_the_same_weights(tmp_path):
    reader = ShardReader(write_shards(tmp_path, 8))
    weights = []
    for attempt in ("a", "b"):
        settings = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 2, "patch": 32}
        checked = experiment(model={**SMALL, "dropout": 0.2, "dropout_at": "every"}, train=settings, seed=3)
        training.seed(checked.seed)
        network = training.network_for(checked, channels=1, foreground_fraction=0.1)
        (tmp_path / attempt).mkdir()
        training.fit(
            checked,
            reader,
            network,
            TverskyBCE(),
            geometry=Tiling(64, 64, 0),
            patch_output=32,
            minimum_range={},
            work=tmp_path / attempt,
            tensorboard=tmp_path / attempt / "tensorboard",
            warnings=callbacks.Warnings(),
        )
        weights.append(np.concatenate([w.numpy().ravel() for w in network.weights]))
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"target": "foregrund"}, "target.name: 'foregrund' is not known. Did you mean 'foreground'?"),
        ({"model": {"name": "unets"}}, "model.name: 'unets' is not known. Did you mean 'unet'?"),
        ({"model": {**SMALL, "filter": 8}}, "model.filter: 'unet' takes no such key. Did you mean 'filters'?"),
        ({"model": {**SMALL, "outputs": 2}}, "model.outputs: 'unet' takes no such key"),
        ({"loss": {"name": "dice", "beta": 1}}, "loss.beta: 'dice' takes no such key"),
        ({"instances": {"name": "components", "min_sizes": 1}}, "instances.min_sizes: .*Did you mean 'min_size'?"),
        ({"augment": [{"name": "Flip"}]}, "augment.0.: albumentations has no transform 'Flip'"),
        ({"train": {"patch": 250}, "model": SMALL}, "cannot take a 250x250 tile"),
        ({"model": {**SMALL, "up": "bilnear"}}, "model.up: .*got 'bilnear'. Did you mean 'bilinear'?"),
        ({"model": {**SMALL, "padding": "sam"}}, "model.padding: .*got 'sam'. Did you mean 'same'?"),
        ({"model": {**SMALL, "filters": 0}}, "model.filters must be at least 1"),
        ({"model": {**SMALL, "depth": -1}}, "model.depth 1 to 8"),
        ({"model": {**SMALL, "dropout": 1.5}}, r"model.dropout must be in \[0, 1\), got 1.5"),
        ({"model": SMALL, "instances": {"name": "components", "min_size": -5}}, "min_size must be >= 0 pixels, got -5"),
        (
            {"model": SMALL, "inference": {"tile": 64, "overlap": 64}},
            "inference.overlap must be below .* 64 px, got 64",
        ),
        ({"model": SMALL, "inference": {"overlap": 500}}, "inference.overlap must be below half of 768 px"),
        ({"model": SMALL, "weight_map": {"name": "border", "sigma": -1}}, "weight_map: sigma must be positive, got -1"),
        ({"model": SMALL, "augment": [{"name": "RandomCrop", "height": 16, "width": 16}]}, "16x16 pixels of any image"),
        ({"model": SMALL, "target": "distance"}, "target: 'distance' can be prepared .* Train on: foreground"),
        (
            {"model": SMALL, "target": {"name": "foreground", "width": 2}},
            "target.width: 'foreground' takes no such key",
        ),
    ],
)
def test_every_section_is_checked_before_any_work(sections, message):
    with pytest.raises(InputError, match=message):
        training.check(experiment(**sections))


def test_defaults_of_the_schema_are_valid():
    content = {"name": "x", "data": {"source": "a", "layout": "pairs"}}
    training.check(experiments.check(content))


def test_a_sum_of_losses_is_stored_with_its_weights_and_built_again():
    section = {"name": "sum", "terms": [{"name": "dice"}, {"name": "bce", "weight": 0.5, "foreground_weight": None}]}
    objective, stored = training.objective_for(experiment(model=SMALL, loss=section), foreground_fraction=0.1)
    assert stored["terms"][1]["foreground_weight"] > 1 and stored["terms"][1]["weight"] == 0.5
    again, _ = training.objective_for(experiment(model=SMALL, loss=stored), foreground_fraction=0.9)
    x, y, ones = batch()
    assert float(objective(y, x, ones)) == pytest.approx(float(again(y, x, ones)))
