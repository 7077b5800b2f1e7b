"""Every network through the doors that training and prediction use."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from cellseg import training
from cellseg.inference import Predictor, Tiling, tiling
from cellseg.networks import answer_size, answering, network_for, outputs_of
from cellseg.trainer import Trainer
from pipelines.errors import InputError
from tests.runs import experiment

PATCH = 96  # legal for all of them
MODELS = {
    "unet": {"name": "unet", "filters": 2, "depth": 2, "padding": "same", "up": "bilinear", "batch_norm": True},
    "dmcn": {"name": "dmcn", "filters": 8, "branch_filters": 4},
    "pretrained": {"name": "pretrained", "backbone": "mobilenetv2", "weights": "random"},
    "pspnet": {"name": "pretrained", "architecture": "pspnet", "backbone": "mobilenetv2", "weights": "random"},
}
EVERY = pytest.mark.parametrize("name", MODELS)
LOAD = """
import pathlib
import sys
import numpy as np
from cellseg.networks import answering
from cellseg.runs import load_model
folder = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    network = answering(load_model(folder / f"{name}.keras"))
    np.save(folder / f"{name}.npy", network.predict_on_batch(np.load(folder / "image.npy")))
sys.exit("segmentation_models" in sys.modules)
"""


def checked(name, **sections):
    return experiment(model=MODELS[name], train={"patch": PATCH}, **sections)


def test_saved_and_loaded_in_a_fresh_process(tmp_path):
    keras.utils.set_random_seed(0)
    image = np.random.default_rng(0).random((1, PATCH, PATCH, 1)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    # EfficientNet has most layers of its own kind; what is loaded needs nothing of the library that built it.
    models = {**MODELS, "efficientnet": {**MODELS["pspnet"], "backbone": "efficientnetb0"}}
    expected = {}
    for name, model in models.items():
        settings = experiment(model=model, train={"patch": PATCH})
        network = network_for(settings, channels=1, prior=[0.8, 0.2])
        Trainer(network, lambda *_: 0.0).save(tmp_path / f"{name}.keras")
        expected[name] = answering(network).predict_on_batch(image)
        assert expected[name].shape == (1, PATCH, PATCH, 1)
    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path, *models], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, answer in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), answer, atol=1e-6)


@EVERY
def test_the_first_answer_is_the_prior(name):
    """Weights aside: with a blank image and zero weights in the head, the bias alone speaks."""
    network = network_for(checked(name, target="classes"), channels=3, prior=[0.7, 0.2, 0.1], num_classes=2)
    for weight in network.weights:
        if "logits/kernel" in weight.path:
            weight.assign(keras.ops.zeros_like(weight))
    answer = answering(network).predict_on_batch(np.zeros((1, PATCH, PATCH, 3), np.float32))
    np.testing.assert_allclose(answer[0, 0, 0], [0.7, 0.2, 0.1], atol=1e-5)


@EVERY
def test_a_predictor_takes_images_of_any_size(name):
    network = network_for(checked(name), channels=1)
    predictor = Predictor(network, tiling=Tiling(PATCH, PATCH, 8), channels=1, contrast=(0, 100), minimum_range={})
    image = np.random.default_rng(0).integers(0, 255, (70, 131, 1), dtype=np.uint8)
    assert predictor.probability(image).shape == (70, 131, 1)


@EVERY
def test_it_trains_with_every_section_checked(name):
    keras.utils.set_random_seed(0)
    settings = checked(name)
    training.check(settings)
    objective, _ = training.objective_for(settings, prior=[0.8, 0.2])
    trainer = Trainer(network_for(settings, channels=1), objective)
    trainer.compile(keras.optimizers.Adam(0.002), run_eagerly=True)
    truth = np.zeros((2, PATCH, PATCH, 1), np.float32)
    truth[:, :, PATCH // 2 :] = 1
    image = 0.2 + 0.6 * truth
    losses = [float(trainer.train_on_batch(image, truth, sample_weight=np.ones_like(image))) for _ in range(8)]
    assert np.mean(losses[5:]) < losses[0]


def test_tiles_are_sizes_that_the_network_takes():
    assert tiling(checked("dmcn"), shapes=[(512, 512)]).tile % 8 == 0
    assert tiling(checked("pretrained"), shapes=[(500, 500)]).tile % 32 == 0
    assert tiling(checked("pspnet"), shapes=[(500, 500)]).tile == PATCH
    with pytest.raises(InputError, match="inference.tile is 192, but this network is built for tiles of train.patch"):
        tiling(checked("pspnet", inference={"tile": 192}), shapes=[(500, 500)])


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("unet", 98, r"U-Net with padding='same' and depth=2 cannot take a 98x98 tile.*96 and 100"),
        ("dmcn", 100, r"DMCN cannot take a 100x100 tile.*96 and 104"),
        ("pretrained", 100, r"pretrained with architecture='unet' cannot take a 100x100 tile.*96 and 128"),
        ("pspnet", 100, r"pretrained with architecture='pspnet' cannot take a 100x100 tile.*96 and 144"),
    ],
)
def test_a_side_that_does_not_fit_is_explained(name, side, message):
    with pytest.raises(InputError, match=message):
        answer_size(checked(name), side)


def test_outputs_of_targets():
    assert outputs_of("foreground", num_classes=4) == 1
    assert outputs_of({"name": "foreground", "softmax": True}, num_classes=0) == 2
    assert outputs_of("classes", num_classes=4) == 5
