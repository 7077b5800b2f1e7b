import keras
import numpy as np
import pytest
from keras import layers

import cellseg
from cellseg import runs
from cellseg.inference import Predictor, Tiling, cheapest_tile, tiling
from pipelines.errors import InputError
from tests.runs import bright_pixels_run, experiment, identity


def predictor(**options):
    defaults = {"channels": 1, "contrast": (0.0, 100.0), "minimum_range": {"uint8": 0.0}}
    return Predictor(identity(), tiling=Tiling(32, 32, 8), **{**defaults, **options})


@pytest.mark.parametrize("shape", [(1, 1), (20, 33), (32, 32), (33, 97), (70, 31)])
def test_an_identity_network_gives_the_stretched_image_back(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8)
    stretched = (image - float(image.min())) / max(float(image.max()) - float(image.min()), 1)
    np.testing.assert_allclose(predictor().probability(image), stretched, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_empty_image_works(dtype):
    assert not predictor().probability(np.full((40, 50, 1), 7, dtype)).any()


def test_the_wrong_number_of_channels_says_what_the_run_expects():
    with pytest.raises(InputError, match="has 3 channels; this run was trained on 1"):
        predictor().probability(np.zeros((8, 8, 3), np.uint8))


def test_a_dim_frame_is_reported_and_not_blown_up():
    image = np.random.default_rng(0).integers(10, 15, (32, 32, 1), dtype=np.uint8)
    with pytest.warns(UserWarning, match="contrast range 4 is far below .*at least 40 expected"):
        dim = predictor(minimum_range={"uint8": 40.0}).probability(image)
    assert dim.max() == pytest.approx(4 / 40)


def test_tile_and_overlap_of_the_yaml_win():
    geometry = tiling(experiment(inference={"tile": 64, "overlap": 16}), shapes=[(500, 500)])
    assert geometry == Tiling(64, 64, 16)


def test_a_valid_network_keeps_its_training_patch():
    valid = experiment(model={"name": "unet", "padding": "valid"}, train={"patch": 572})
    assert tiling(valid, shapes=[(512, 512)]) == Tiling(572, 388, 0)


def test_a_tile_that_the_network_cannot_take_is_refused():
    with pytest.raises(InputError, match=r"cannot take a 102x102 tile.*inference.tile"):
        tiling(experiment(inference={"tile": 102}), shapes=[(500, 500)])


LEGAL = range(16, 769, 16)


def test_the_cheapest_tile_covers_the_images_with_the_fewest_pixels():
    assert cheapest_tile([(256, 256)], overlap=64, legal=LEGAL) == 256
    assert cheapest_tile([(360, 360)], overlap=64, legal=LEGAL) == 368
    assert cheapest_tile([(576, 720)], overlap=64, legal=LEGAL) == 720
    assert cheapest_tile([(20, 20)], overlap=64, legal=LEGAL) == 128  # never so small that tiles are overlap alone
    # 4096 px need several tiles of at most 768 px; 6 tiles of 736 px (4032 + 64 = 6 * 672 + 64) are the cheapest
    assert cheapest_tile([(4096, 4096)], overlap=64, legal=LEGAL) == 736


def test_a_run_predicts_arrays(tmp_path):
    run = cellseg.load_run(bright_pixels_run(tmp_path))
    image = np.zeros((50, 70), np.uint8)
    image[5:15, 5:15] = image[30:40, 40:60] = 200
    result = run.predict(image)
    assert result.labels.dtype == np.int32 and result.labels.shape == result.probability.shape == (50, 70)
    np.testing.assert_array_equal(result.labels > 0, image > 0)
    assert result.labels.max() == 2
    for same in (image[..., None], np.repeat(image[..., None], 3, axis=2), image.astype(np.uint16) * 100, image / 255):
        np.testing.assert_array_equal(run.predict(same).labels, result.labels)


def test_an_empty_array_has_no_cells(tmp_path):
    result = cellseg.load_run(bright_pixels_run(tmp_path)).predict(np.zeros((30, 30), np.uint16))
    assert not result.labels.any()


def test_bad_arrays_are_explained(tmp_path):
    run = cellseg.load_run(bright_pixels_run(tmp_path))
    with pytest.raises(InputError, match=r"got shape \(2, 3, 4, 5\)"):
        run.predict(np.zeros((2, 3, 4, 5), np.uint8))
    with pytest.raises(InputError, match="1 pixels are NaN"):
        run.predict(np.array([[0.5, np.nan]]))
    with pytest.raises(InputError, match="has 3 channels; this run was trained on 1"):
        run.predict(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8))


def test_what_is_no_run_is_explained(tmp_path):
    with pytest.raises(InputError, match="There is no run folder"):
        cellseg.load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"lacks experiment.yaml, model.keras.*it is no run folder"):
        cellseg.load_run(tmp_path)
    folder = bright_pixels_run(tmp_path)
    (folder / "model.keras").unlink()
    (folder / runs.BACKUP).mkdir()
    with pytest.raises(InputError, match=r"lacks model.keras: its training has not finished"):
        cellseg.load_run(folder)


def test_a_damaged_model_is_named(tmp_path):
    folder = bright_pixels_run(tmp_path)
    (folder / "model.keras").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"model.keras cannot be loaded"):
        cellseg.load_run(folder)


def test_a_model_that_carries_code_is_not_loaded(tmp_path):
    folder = bright_pixels_run(tmp_path)
    inputs = layers.Input((None, None, 1))
    keras.Model(inputs, layers.Lambda(lambda x: x)(inputs)).save(folder / "model.keras")
    with pytest.raises(InputError, match=r"model.keras cannot be loaded"):
        cellseg.load_run(folder)
