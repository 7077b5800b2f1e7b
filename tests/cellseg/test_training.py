import keras
import numpy as np
import pandas as pd
import pytest

from cellseg import callbacks, training, training_parts
from cellseg import experiment as experiments
from cellseg.inference import Tiling
from cellseg.losses import TverskyBCE
from cellseg.networks import answer_size, network_for
from cellseg.trainer import Trainer
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
    network = network_for(experiment(model=SMALL), channels=1, prior=[0.9, 0.1])
    return Trainer(network, TverskyBCE())


def batch():
    rng = np.random.default_rng(0)
    x = rng.random((2, 16, 16, 1)).astype(np.float32)
    return x, (x > 0.7).astype(np.float32), np.ones_like(x)


def test_the_output_starts_at_the_prevalence():
    network = network_for(experiment(model=SMALL), channels=1, prior=[0.96, 0.04])
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
    model = Trainer(network, lambda *_: keras.ops.convert_to_tensor(0.0))
    x, y, ones = batch()
    squares = float(np.square(network.get_layer("logits").kernel).sum())
    assert float(model.compute_loss(x, y, model(x), ones)) == pytest.approx(squares)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_fit_leaves_the_best_weights_and_the_history(tmp_path, padding):
    reader = ShardReader(write_shards(tmp_path, 10))
    model = {**SMALL, "padding": padding}
    settings = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 2, "patch": 60, "learning_rate": 0.01}
    checked = experiment(model=model, train=settings)
    output = answer_size(checked, 60)
    assert output == (60 if padding == "same" else 20)
    training.seed(0)
    objective, loss = training.objective_for(checked, prior=[0.9, 0.1])
    assert loss["foreground_weight"] > loss["background_weight"]
    training.fit(
        checked,
        reader,
        network_for(checked, channels=1, prior=[0.9, 0.1]),
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
        network = network_for(checked, channels=1, prior=[0.9, 0.1])
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
            "inference.overlap must be below .* 48 px, got 64",
        ),
        ({"model": SMALL, "inference": {"overlap": 600}}, "inference.overlap must be below half of 1088 px"),
        ({"model": SMALL, "weight_map": {"name": "border", "sigma": -1}}, "weight_map: sigma must be positive, got -1"),
        ({"model": SMALL, "augment": [{"name": "RandomCrop", "height": 16, "width": 16}]}, "16x16 pixels of any image"),
        (
            {"model": SMALL, "loss": {"name": "categorical_ce"}},
            "two output channels or more, got 1. Use loss bce",
        ),
        (
            {"model": SMALL, "target": {"name": "foreground", "softmax": True}},
            "A binary cross-entropy takes one output channel, got 2. Use loss categorical_ce",
        ),
        ({"model": SMALL, "train": {"optimizer": {"name": "adm"}}}, "train.optimizer.name: 'adm' is not known"),
        (
            {"model": SMALL, "train": {"phases": [{"epochs": 2, "schedule": {"name": "cosine", "warmup_epochs": 3}}]}},
            r"schedule.warmup_epochs must be in \[0, 2\), got 3",
        ),
        ({"model": SMALL, "train": {"start_from": "nowhere"}}, "There is no run folder nowhere"),
        (
            {"model": SMALL, "target": "foreground_border", "loss": {"name": "tversky_bce"}},
            "one output channel, got 3. Use loss categorical_ce",
        ),
        (
            {
                "model": SMALL,
                "target": "foreground_distance",
                "loss": {"name": "sum", "terms": [{"name": "bce", "channel": 2}]},
            },
            r"loss.terms\[0\].channel is 2, but the network has 2 output",
        ),
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
    objective, stored = training.objective_for(experiment(model=SMALL, loss=section), prior=[0.9, 0.1])
    assert stored["terms"][1]["foreground_weight"] > 1 and stored["terms"][1]["weight"] == 0.5
    again, _ = training.objective_for(experiment(model=SMALL, loss=stored), prior=[0.1, 0.9])
    x, y, ones = batch()
    assert float(objective(y, x, ones)) == pytest.approx(float(again(y, x, ones)))


def fit(tmp_path, checked, *, prior=(0.9, 0.1)):
    """Train as the workflow does; the network and the history."""
    reader = ShardReader(write_shards(tmp_path, 10))
    training.seed(0)
    about = {"channels": reader.manifest.channels, "prior": prior}
    precision = training.precision_of(checked)
    network = network_for(checked, **about, precision=precision)
    work = tmp_path / "work"
    work.mkdir()
    training.fit(
        checked,
        reader,
        network,
        training.objective_for(checked, prior=prior)[0],
        geometry=Tiling(64, 64, 0),
        patch_output=32,
        minimum_range={},
        work=work,
        tensorboard=tmp_path / "tensorboard",
        warnings=callbacks.Warnings(),
        saved=None if precision == "float32" else network_for(checked, **about),
    )
    return network, pd.read_csv(work / "history.csv")


QUICK = {"steps_per_epoch": 2, "batch_size": 2, "patch": 32}


def test_phases_follow_each_other_with_their_own_settings(tmp_path):
    first = {"epochs": 2, "optimizer": {"name": "sgd"}, "learning_rate": 0.1, "l2": 1e-3}
    last = {"epochs": 3, "learning_rate": 1e-5, "l2": 0}
    network, history = fit(tmp_path, experiment(model=SMALL, train={**QUICK, "phases": [first, last]}))
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(history["learning_rate"], [0.1, 0.1, 1e-5, 1e-5, 1e-5])
    assert network.get_layer("down0a_conv").kernel.regularizer is None


@pytest.mark.parametrize("own", [0.0, 0.5])
def test_the_l2_of_a_phase_ends_with_it(tmp_path, own):
    checked = experiment(
        model={**SMALL, "l2": own}, train={**QUICK, "phases": [{"epochs": 1, "l2": 1e-3}, {"epochs": 1}]}
    )
    network, _ = fit(tmp_path, checked)
    left = network.get_layer("down0a_conv").kernel.regularizer
    assert left is None if own == 0 else float(left.l2) == own


def test_a_phase_begins_with_the_best_weights_so_far(tmp_path, monkeypatch):
    loaded = []
    load = keras.Model.load_weights
    monkeypatch.setattr(keras.Model, "load_weights", lambda self, path: (loaded.append(path.name), load(self, path)))
    fit(tmp_path, experiment(model=SMALL, train={**QUICK, "phases": [{"epochs": 1}, {"epochs": 1}]}))
    assert loaded == ["best-1.keras"]


def test_a_phase_that_stops_early_leaves_its_epochs_to_nobody(tmp_path):
    phases = [{"epochs": 9, "learning_rate": 1e-12, "early_stopping": 1}, {"epochs": 2}]
    _, history = fit(tmp_path, experiment(model=SMALL, train={**QUICK, "phases": phases}))
    assert len(history) < 11 and history["epoch"].tolist() == list(range(len(history)))
    rates = history["learning_rate"].to_numpy()
    assert (rates[:-2] < 1e-9).all() and rates[-2:] == pytest.approx([1e-3, 1e-3])


def test_a_schedule_is_followed_and_written_down(tmp_path):
    section = {**QUICK, "epochs": 2, "learning_rate": 0.01, "schedule": {"name": "polynomial", "power": 1.0}}
    _, history = fit(tmp_path, experiment(model=SMALL, train=section))
    np.testing.assert_allclose(history["learning_rate"], [0.005, 0.0], atol=1e-8)


def test_the_average_of_the_weights_is_judged_and_kept(tmp_path):
    kernels = {}
    for name, settings in {"one": {"steps_per_epoch": 1}, "four": {}, "average": {"ema": 0.999}}.items():
        (tmp_path / name).mkdir()
        section = {**QUICK, "epochs": 1, "steps_per_epoch": 4, "learning_rate": 0.05, **settings}
        fit(tmp_path / name, experiment(model=SMALL, train=section))
        kept = keras.saving.load_model(tmp_path / name / "work" / "model.keras")
        kernels[name] = kept.get_layer("up0b_conv").kernel.numpy()
    # A mean of the weights after steps 1 to 4: nearer to either end than the ends are to each other.
    apart = np.abs(kernels["four"] - kernels["one"]).mean()
    assert all(0.05 * apart < np.abs(kernels["average"] - kernels[end]).mean() < apart for end in ("one", "four"))


def test_two_softmax_channels_train_with_weighted_cross_entropy(tmp_path):
    loss = {"name": "categorical_ce", "class_weights": "frequency"}
    checked = experiment(
        model=SMALL,
        target={"name": "foreground", "softmax": True},
        loss=loss,
        train={**QUICK, "epochs": 1},
        inference={"decision": "argmax"},
    )
    assert training.objective_for(checked, prior=[0.9, 0.1])[1]["class_weights"] == [0.5556, 5.0]
    network, history = fit(tmp_path, checked)
    assert network.output_shape[-1] == 2 and np.isfinite(history["val_dice"]).all()


def test_the_prior_of_classes_comes_from_their_shares():
    checked = experiment(model=SMALL, target="classes")
    statistics = {"foreground_fraction": 0.3, "class_fractions": [0.7, 0.3]}
    assert training.prior_of(checked, statistics, num_classes=3) == [0.7, 0.3, 0.0, 0.0]
    assert training.prior_of(experiment(model=SMALL), statistics, num_classes=3) == [0.7, 0.3]
    network = network_for(checked, channels=1, prior=[0.7, 0.3, 0.0, 0.0], num_classes=3)
    answer = network.get_layer("logits").bias.numpy()
    shares = np.exp(answer) / np.exp(answer).sum()
    np.testing.assert_allclose(shares, [0.699, 0.299, 0.001, 0.001], atol=0.002)


@pytest.mark.parametrize("target", ["foreground_border", "distance", "foreground_distance"])
def test_a_target_with_insides_brings_its_loss(tmp_path, target):
    section = {**QUICK, "epochs": 1}
    checked = experiment(model=SMALL, target=target, instances={"name": "seeded"}, train=section)
    training.check(checked)
    objective, stored = training.objective_for(checked, prior=[0.9, 0.1])
    assert checked.loss["name"] != "tversky_bce" and stored["name"] == checked.loss["name"]
    outputs = {"foreground_border": 3, "distance": 1, "foreground_distance": 2}[target]
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (2, 8, 8))][..., :outputs]
    logits = rng.normal(size=truth.shape).astype(np.float32)
    weight_map = np.ones((2, 8, 8, 1), np.float32)
    weight_map[:, :3] = 0
    other_truth, other_logits = truth.copy(), logits.copy()
    other_truth[:, :3], other_logits[:, :3] = 1 - truth[:, :3], -logits[:, :3]
    loss = float(objective(truth, logits, weight_map))
    assert loss == pytest.approx(float(objective(other_truth, other_logits, weight_map)))
    for channel in range(outputs):  # every channel is learned
        other = logits.copy()
        other[..., channel] += 1
        assert float(objective(truth, other, weight_map)) != pytest.approx(loss, rel=1e-3)
    _, history = fit(tmp_path, checked)
    assert np.isfinite(history["loss"]).all() and history["val_dice"].max() > 0


def test_what_learns_from_enlarged_cells_is_judged_by_enlarged_images(tmp_path, monkeypatch):
    zooms = []
    made = training_parts.Predictor
    monkeypatch.setattr(training_parts, "Predictor", lambda *a, **b: (zooms.append(tuple(b["zoom"])), made(*a, **b))[1])
    for place, zoom in enumerate((2, [1, 1.5])):
        (tmp_path / str(place)).mkdir()
        fit(tmp_path / str(place), experiment(model=SMALL, inference={"zoom": zoom}, train={**QUICK, "epochs": 1}))
    assert zooms == [(2.0,), (1.0,)]


def test_class_weights_must_fit_the_classes():
    loss = {"name": "categorical_ce", "class_weights": [1.0, 2.0]}
    checked = experiment(model=SMALL, target="classes", loss=loss)
    with pytest.raises(InputError, match="loss.class_weights has 2 entries, but the network has 4 channels"):
        training.objective_for(checked, prior=[0.7, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_and_leaves_a_float32_network(tmp_path, precision):
    section = {**QUICK, "epochs": 2, "precision": precision}
    network, history = fit(tmp_path, experiment(model=SMALL, train=section))
    assert network.get_layer("down0a_conv").compute_dtype == precision.removeprefix("mixed_")
    assert network.get_layer("probability").compute_dtype == "float32"
    assert np.isfinite(history["loss"]).all() and history["val_dice"].max() > 0
    back = keras.saving.load_model(tmp_path / "work" / "model.keras")
    assert {layer.compute_dtype for layer in back.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"  # nothing stays behind


def test_auto_is_float32_without_a_gpu(monkeypatch):
    checked = experiment(model=SMALL, train={"precision": "auto"})
    assert training.precision_of(checked) == "float32"
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0"])
    assert training.precision_of(checked) == "mixed_float16"
