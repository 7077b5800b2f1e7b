import numpy as np
import pytest

from cellseg import runs
from cellseg.networks import network_for
from cellseg.transfer import start_from
from pipelines.errors import InputError
from tests.runs import bright_pixels_run, experiment

SMALL = {"name": "unet", "padding": "same", "filters": 2, "depth": 1, "dropout": 0.0}


@pytest.fixture
def folder(tmp_path):
    folder = bright_pixels_run(tmp_path)
    network_for(experiment(model=SMALL), channels=1).save(folder / runs.MODEL)
    return folder


def test_all_weights_are_taken_over(folder):
    network = network_for(experiment(model=SMALL), channels=1)
    theirs = runs.load_model(folder / runs.MODEL)
    transfer = start_from(network, folder)
    for ours, other in zip(network.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, other)
    assert transfer.weights == transfer.total == network.count_params()
    assert not (transfer.new or transfer.reshaped or transfer.unused)
    assert "(100.0 % of the weights)" in transfer.told()


def test_what_does_not_fit_starts_anew_and_is_reported(folder):
    deeper = {**SMALL, "depth": 2}
    network = network_for(
        experiment(model=deeper, target={"name": "foreground", "softmax": True}), channels=3
    )  # three channels in, two out, a level more
    before = {layer.name: layer.get_weights() for layer in network.layers}
    transfer = start_from(network, folder)
    assert transfer.reshaped == ["down0a_conv", "logits"]
    assert "down2a_conv" in transfer.new and "up1" in transfer.new
    assert "down1a_conv" in transfer.loaded and not transfer.unused
    np.testing.assert_array_equal(network.get_layer("logits").kernel, before["logits"][0])
    assert not np.array_equal(network.get_layer("down1a_conv").kernel, before["down1a_conv"][0])
    assert "of another shape, started anew: down0a_conv, logits" in transfer.told()


def test_a_run_without_a_layer_that_fits_is_refused(tmp_path):
    folder = bright_pixels_run(tmp_path)  # its one layer is called probability
    with pytest.raises(InputError, match=r"train.start_from: not one layer of .*run fits this network"):
        start_from(network_for(experiment(model=SMALL), channels=1), folder)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no run folder .*nowhere"):
        start_from(network_for(experiment(model=SMALL), channels=1), tmp_path / "nowhere")
