import json

import keras
import numpy as np
import pytest
from keras import layers

import cellseg
from cellseg import runs
from cellseg.geometry import Tiling, cheapest_tile, largest_tile, network_stride, receptive_radius, tiling
from cellseg.inference import EnsembleRun, Predictor
from cellseg.networks import answering, network_for
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


@pytest.mark.parametrize("offset", [(1, 0), (3, 17), (31, 32), (40, 5)])
def test_an_image_shifted_by_any_offset_has_its_answer_shifted(offset):
    image = np.random.default_rng(0).integers(0, 256, (97, 83, 1), dtype=np.uint8)
    answer = predictor().probability(image, limits=(0.0, 255.0))
    shifted = predictor().probability(image[offset[0] :, offset[1] :], limits=(0.0, 255.0))
    np.testing.assert_allclose(shifted, answer[offset[0] :, offset[1] :], atol=1e-6)


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
    assert geometry == Tiling(64, 48, 16, stride=4, blend="gaussian")  # two strides of 4 px are mirrored all round
    geometry = tiling(experiment(inference={"tile": 64, "overlap": 16, "rim": 0, "blend": "linear"}), shapes=[(9, 9)])
    assert geometry == Tiling(64, 64, 16, stride=4)


def test_a_valid_network_keeps_its_training_patch():
    valid = experiment(model={"name": "unet", "padding": "valid"}, train={"patch": 572})
    assert tiling(valid, shapes=[(512, 512)]) == Tiling(572, 388, 0, stride=16)


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


def test_wide_networks_get_smaller_tiles():
    # 24 bytes a pixel and filter: 2**30 / (24 * 64) = 836**2; 16 filters would allow 1672 px
    assert largest_tile(experiment(model={**SAME, "filters": 64})) == 836
    assert largest_tile(experiment(model={**SAME, "filters": 16})) == 1088
    assert largest_tile(experiment(model={"name": "pretrained", "weights": "random"})) == 836
    sides = {
        filters: tiling(experiment(model={**SAME, "filters": filters}), shapes=[(1024, 1024)]) for filters in (16, 64)
    }
    # 1024 + 2 * 8 for the rim; 2 * 560 - 64 - 4 * 8 = 1024
    assert (sides[16].tile, sides[64].tile) == (1040, 560)


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
    with pytest.raises(InputError, match=r"model.keras carries Python code of whoever made it"):
        cellseg.load_run(folder)


SAME = {"name": "unet", "padding": "same", "depth": 2, "filters": 4, "dropout": 0}
VALID = {**SAME, "padding": "valid"}


def network_of(settings):
    """A network with random weights, biases as well: zeros outside the tile must make a difference."""
    network = network_for(settings, channels=1)
    rng = np.random.default_rng(3)
    for weight in network.weights:
        fan_in = np.prod(weight.shape[:3]) if len(weight.shape) == 4 else 50
        weight.assign(rng.normal(0, 1.5 * fan_in**-0.5, weight.shape))
    return answering(network)


def probability(network, geometry, image):
    every = {"channels": 1, "contrast": (0.0, 100.0), "minimum_range": {}}
    return Predictor(network, tiling=geometry, **every).probability(image, limits=(0.0, 1.0))


def noise(*shape):
    return np.random.default_rng(5).random((*shape, 1)).astype(np.float32)


@pytest.mark.parametrize("size", [(56, 56), (97, 121), (40, 150)])
def test_exact_tiles_of_a_valid_network_equal_the_whole(size):
    settings = experiment(model=VALID, train={"patch": 84}, inference={"method": "exact"})
    network, image = network_of(settings), noise(*size)
    geometry = tiling(settings, shapes=[size])
    margin = (84 - geometry.output) // 2
    assert (geometry.output, geometry.stride) == (44, 4)
    sides = [next(n for n in range(side, side + 4) if (n - 44) % 4 == 0) for side in size]
    pads = [(margin, margin + full - side) for full, side in zip(sides, size, strict=True)]
    whole = network.predict_on_batch(np.pad(image, [*pads, (0, 0)], mode="reflect")[None])[0, : size[0], : size[1]]
    answer = probability(network, geometry, image)
    np.testing.assert_allclose(answer, whole, atol=1e-6)
    assert whole.std() > 0.01  # the network says something


@pytest.mark.parametrize(
    ("model", "tile"), [(SAME, 112), ({**SAME, "up": "bilinear"}, 112), ({"name": "dmcn", "filters": 2}, 160)]
)
def test_halo_tiles_of_a_same_network_equal_the_whole_inside(model, tile):
    settings = experiment(model=model, inference={"blend": "halo", "tile": tile})
    network, image = network_of(settings), noise(240, 200)
    geometry = tiling(settings, shapes=[(240, 200)])
    radius = receptive_radius(settings)
    assert radius <= (tile - geometry.output) // 2 < radius + geometry.stride
    assert geometry.output % geometry.stride == 0 and geometry.output < 120  # several tiles
    whole = network.predict_on_batch(image[None])[0]
    answer = probability(network, geometry, image)
    inside = (slice(radius, -radius), slice(radius, -radius))
    np.testing.assert_allclose(answer[inside], whole[inside], atol=1e-6)
    blended = probability(network, Tiling(tile, tile, 8), image)
    assert np.abs(blended[inside] - whole[inside]).max() > 1e-4  # what the halo is for


@pytest.mark.parametrize(
    "settings",
    [
        experiment(model=SAME, inference={"blend": "halo", "tile": 112}),
        experiment(model=VALID, train={"patch": 84}, inference={"method": "exact"}),
    ],
)
def test_an_image_shifted_by_the_networks_stride_has_its_answer_shifted(settings):
    network, image, radius = network_of(settings), noise(200, 180), receptive_radius(settings)
    geometry = tiling(settings, shapes=[(200, 180)])
    answer = probability(network, geometry, image)
    inside = (slice(radius, -radius), slice(radius, -radius))
    for rows, columns in [(4, 0), (8, 20)]:
        shifted = probability(network, geometry, image[rows:, columns:])
        np.testing.assert_allclose(shifted[inside], answer[rows:, columns:][inside], atol=1e-6)


@pytest.mark.parametrize("model", [SAME, {"name": "dmcn", "filters": 2}])
def test_no_pixel_reaches_farther_than_the_receptive_radius(model):
    settings = experiment(model=model)
    network, radius, side = network_of(settings), receptive_radius(settings), 208
    image = noise(side, side)
    spoilt = image.copy()
    spoilt[side // 2 + 3, side // 2 + 1] = 1e4
    changed = network.predict_on_batch(spoilt[None])[0] != network.predict_on_batch(image[None])[0]
    rows, columns, _ = np.nonzero(changed)
    reach = max(np.abs(rows - side // 2 - 3).max(), np.abs(columns - side // 2 - 1).max())
    assert radius / 2 < reach <= radius


def test_strides_of_networks():
    assert network_stride(experiment(model=VALID)) == network_stride(experiment(model=SAME)) == 4
    assert network_stride(experiment(model={"name": "unet"}, train={"patch": 572})) == 16
    assert network_stride(experiment(model={"name": "dmcn"})) == 8
    assert network_stride(experiment(model={"name": "pretrained", "weights": "random"})) == 32


def test_what_the_inference_section_says_reaches_the_tiles():
    def geometry(**inference):
        return tiling(experiment(model=SAME, inference={"tile": 64, "overlap": 8, **inference}), shapes=[(99, 99)])

    assert geometry() == geometry(method="exact") == Tiling(64, 48, 8, stride=4, blend="gaussian")
    assert geometry(rim=0).output == 64 and geometry(rim=3).output == 58
    # an eighth of the tile is 4 px, one stride; of 24 px it is less than a stride
    assert geometry(tile=32).output == 24 and geometry(tile=24, overlap=4).output == 24
    assert geometry(method="average") == Tiling(64, 64, 8)  # what was before there was a choice
    assert geometry(method="resize").resize
    assert geometry(blend="gaussian").blend == "gaussian"
    # 2 * (1 + 2 + 4) + 2 * (1 + 2) for convolutions, (1 + 2) + (2 + 4) for sampling: 29, in steps of 4: 32
    assert geometry(blend="halo", tile=112) == Tiling(112, 48, 8, stride=4)


def test_the_cheapest_tile_pays_for_its_rims():
    # 240 px in one piece of 240 + 2 * 32; two pieces of 120 cost (2 * (120 + 64))**2 > 304**2
    assert cheapest_tile([(240, 240)], overlap=0, legal=range(4, 769, 4), rim=32) == 304


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": VALID, "train": {"patch": 84}}, "inference.blend is halo, but this network loses its rim by itself"),
        ({"model": {"name": "pretrained"}}, "inference.blend is halo, but how far the network 'pretrained' sees"),
        ({"model": SAME, "inference": {"tile": 64}}, "inference.tile is 64, but inference.blend: halo takes 32 px off"),
        ({"model": {**SAME, "depth": 6}}, "inference.blend: halo takes 576 px off every side of a tile"),
    ],
)
def test_a_halo_without_use_or_room_is_explained(sections, message):
    sections = {**sections, "inference": {"blend": "halo", **sections.get("inference", {})}}
    with pytest.raises(InputError, match=message):
        tiling(experiment(**sections), shapes=[(500, 500)])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"model": VALID, "train": {"patch": 84}, "inference": {"rim": 4}},
            "inference.rim is 4, but this network loses",
        ),
        (
            {"model": SAME, "inference": {"tile": 64, "rim": 32}},
            "inference.tile is 64, but inference.rim takes 32 px off",
        ),
        ({"model": SAME, "inference": {"rim": 540}}, "inference.rim takes 540 px off every side of a tile"),
    ],
)
def test_a_rim_without_use_or_room_is_explained(sections, message):
    with pytest.raises(InputError, match=message):
        tiling(experiment(**sections), shapes=[(500, 500)])


def test_a_rim_keeps_the_zeros_beyond_the_border_away():
    network, image = network_of(experiment(model=SAME)), np.full((64, 64, 1), 0.7, np.float32)
    plain = probability(network, tiling(experiment(model=SAME, inference={"rim": 0}), shapes=[(64, 64)]), image)
    rimmed = probability(network, tiling(experiment(model=SAME, inference={"rim": 32}), shapes=[(64, 64)]), image)
    # A flat image has an answer that repeats itself every 4 px, the stride, but for what the zeros beyond a tile do.
    np.testing.assert_allclose(rimmed[:4, :4], rimmed[32:36, 32:36], atol=1e-6)
    assert np.abs(plain[:4, :4] - plain[32:36, 32:36]).max() > 0.01


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "exakt"}, "inference.method: .*got 'exakt'"),
        ({"blend": "cosine"}, "inference.blend: .*got 'cosine'"),
        ({"symmetries": 2}, "inference.symmetries: .*1, 4 or 8.*got 2"),
        ({"zoom": []}, "inference.zoom: .*at least 1 item"),
        ({"zoom": [1.0, 0.0]}, "inference.zoom.1: .*greater than or equal to 0.1"),
        ({"zoom": 50}, "inference.zoom.0: .*less than or equal to 10"),
        ({"method": "resize", "blend": "halo"}, "blend: halo stands beside method: resize"),
        ({"method": "resize", "rim": 8}, "rim: 8 stands beside method: resize"),
        ({"blend": "halo", "rim": 8}, "rim: 8 stands beside blend: halo"),
    ],
)
def test_bad_inference_sections_are_explained(section, message):
    with pytest.raises(InputError, match=message):
        experiment(inference=section)


def test_one_zoom_needs_no_list():
    assert experiment(inference={"zoom": 1.5}).inference.zoom == [1.5]


def constant_run(folder, value, *, threshold=0.5, inference=None, **data):
    """A run whose network adds `value` to the image, with a threshold of its own."""
    folder.mkdir()
    path = bright_pixels_run(folder)
    inputs = layers.Input((None, None, 1))
    layer = layers.Conv2D(1, 1, kernel_initializer="ones", bias_initializer=keras.initializers.Constant(value))
    keras.Model(inputs, layer(inputs)).save(path / runs.MODEL)
    settings = experiment(inference={"tile": 32, "overlap": 8, **(inference or {})})
    runs.write_text(path, runs.EXPERIMENT, settings.to_yaml())
    runs.write_json(path, runs.DATA, {**runs.read_json(path, runs.DATA), **data})
    runs.write_json(path, runs.THRESHOLD, {**runs.read_json(path, runs.THRESHOLD), "threshold": threshold})
    return path


def test_an_ensemble_averages_probabilities_and_thresholds(tmp_path):
    folders = [constant_run(tmp_path / "a", 0.0, threshold=0.4), constant_run(tmp_path / "b", 0.5, threshold=0.8)]
    ensemble = cellseg.load_run(folders)
    assert isinstance(ensemble, EnsembleRun) and ensemble.threshold == pytest.approx(0.6)
    image = np.zeros((20, 30), np.uint8)
    image[5:9, 5:9], image[12:15, 5:9] = 255, 100
    result = ensemble.predict(image)
    # mean of p and p + 0.5 is p + 0.25: 1.25, 0.25 and 0.39 + 0.25 = 0.64, above 0.6
    np.testing.assert_allclose(result.probability, image / 255 + 0.25, atol=1e-6)
    np.testing.assert_array_equal(result.labels > 0, image > 0)
    assert not cellseg.load_run(folders[:1]).predict(image).labels[12:15].any()  # 0.39 is below the first's 0.4


def test_members_that_answer_other_questions_are_refused(tmp_path):
    first = constant_run(tmp_path / "a", 0.0)
    grey = constant_run(tmp_path / "b", 0.0, channels=3, inference={"engine": "keras"})
    with pytest.raises(InputError, match=r"a/run and .*b/run cannot be averaged: the number of channels is 1 .* 3"):
        cellseg.load_run([first, grey])
    argmax = constant_run(tmp_path / "c", 0.0, inference={"decision": "argmax"})
    with pytest.raises(InputError, match="inference.decision is 'threshold' in the first and 'argmax'"):
        cellseg.load_run([first, argmax])
    with pytest.raises(InputError, match="at least one run folder, got an empty list"):
        cellseg.load_run([])


def test_symmetries_and_zoom_of_the_run_are_used(tmp_path):
    run = cellseg.load_run(constant_run(tmp_path / "a", 0.0, inference={"symmetries": 8, "zoom": [1.0, 2.0]}))
    shapes = []
    look = run.predictor._network.predict_on_batch
    run.predictor._network.predict_on_batch = lambda tiles: shapes.append(tiles.shape) or look(tiles)
    image = np.random.default_rng(0).integers(0, 256, (20, 25, 1), dtype=np.uint8)
    answer = run.predictor.probability(image, limits=(0.0, 255.0))
    # Of 32 px a rim of 4 is cut off; 20 x 25 takes 1 x 2 tiles, 40 x 50 takes 2 x 3: 8 for each of 8 symmetries
    assert len(shapes) == 64 and set(shapes) == {(1, 32, 32, 1)}
    assert answer.shape == image.shape and 0 < np.abs(answer - image / 255).max() < 0.25  # zoomed ones are smoother


def inside_run(folder, **sections):
    """A run of target foreground_distance whose network answers with the image's two channels."""
    folder.mkdir()
    path = bright_pixels_run(folder)
    inputs = layers.Input((None, None, 2))
    identity = keras.initializers.Constant(np.eye(2)[None, None])
    keras.Model(inputs, layers.Conv2D(2, 1, kernel_initializer=identity, name="probability")(inputs)).save(
        path / "model.keras"
    )
    settings = experiment(inference={"tile": 32, "overlap": 8}, target="foreground_distance", **sections)
    runs.write_text(path, runs.EXPERIMENT, settings.to_yaml())
    runs.write_json(path, runs.DATA, {**runs.read_json(path, runs.DATA), "channels": 2})
    return path


def test_the_inside_that_a_network_tells_cuts_touching_cells(tmp_path):
    image = np.zeros((20, 30, 2), np.float32)
    image[5:15, 5:25, 0] = 1
    image[8:12, 8:12, 1] = image[8:12, 18:22, 1] = 1  # two middles in one piece of foreground
    method = {"name": "seeded", "seed_threshold": 0.4}
    path = inside_run(tmp_path / "a", instances=method)
    for loaded in (cellseg.load_run(path), cellseg.load_run([path, inside_run(tmp_path / "b", instances=method)])):
        result = loaded.predict(image)
        assert result.labels.max() == 2 and result.labels[10, 9] == 1 and result.labels[10, 20] == 2
        np.testing.assert_allclose(result.probability, image[..., 0], atol=1e-6)
        loaded.use(0.5, {"seed_threshold": 1})
        assert loaded.predict(image).labels.max() == 1
    plain = inside_run(tmp_path / "c", instances={"name": "components"})
    assert cellseg.load_run(plain).predict(image).labels.max() == 1


def test_a_run_whose_cells_cannot_be_told_apart_that_way_is_refused(tmp_path):
    path = bright_pixels_run(tmp_path)
    runs.write_text(path, runs.EXPERIMENT, experiment(instances={"name": "seeded"}).to_yaml())
    with pytest.raises(InputError, match="instances.name: 'seeded' needs .*; the target is foreground"):
        cellseg.load_run(path)


class Corner:
    """A network whose answer is 1 in the lower right quarter of each tile, so that overlapping tiles disagree."""

    outputs = (None,)

    def predict_on_batch(self, tiles):
        answer = np.zeros_like(tiles)
        answer[:, 16:, 16:] = 1
        return answer


def test_a_predictor_blends_and_resizes_as_its_geometry_says():
    image = noise(50, 32)
    linear, gaussian, resize = (
        probability(Corner(), Tiling(32, 32, 8, **options), image)
        for options in ({}, {"blend": "gaussian"}, {"resize": True})
    )
    # Rows 18..31 lie in both tiles, at 0 and 18: the first says 1, the second 0 to row 33. Row 25 is 6 px from the
    # end of the first and 7 px from the start of the second: linear weights 7/9 and 8/9.
    np.testing.assert_allclose(linear[25, 20], 7 / 15, atol=1e-6)
    ratio = np.exp(-0.5 * ((25 - 15.5) ** 2 - (7 - 15.5) ** 2) / 4**2)  # sigma = 32 / 8
    np.testing.assert_allclose(gaussian[25, 20], ratio / (1 + ratio), atol=1e-6)
    assert resize[20, 20] == 0 and resize[30, 20] == 1  # one tile: half of the image's height is 25


GOOD = {"channels": 1, "shapes": [[64, 64]], "minimum_range": {"uint8": 7.25}, "shards": "nowhere", "classes": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"it holds \[\], and an object was expected"),
        (None, "it holds None, and an object was expected"),
        ({"channels": 1}, "it has no key 'shapes'"),
        (GOOD | {"shapes": []}, r"its shapes are \[\], and \[\[height, width\], ...\] was expected"),
        (GOOD | {"shapes": [[64]]}, r"its shapes are \[\[64\]\]"),
        (GOOD | {"shapes": [[64, "x"]]}, "its shapes are"),
        (GOOD | {"shapes": [[64, 10**9]]}, "its shapes are"),
        (GOOD | {"channels": "1"}, "its channels are '1', and a whole number above 0 was expected"),
        (GOOD | {"channels": 0}, "its channels are 0"),
        (GOOD | {"minimum_range": [7]}, r"its minimum_range is \[7\], and numbers by name of a dtype were expected"),
        (GOOD | {"minimum_range": {"uint8": None}}, "its minimum_range is {'uint8': None}"),
        (GOOD | {"classes": "round"}, "its classes are 'round', and a list of names was expected"),
        (GOOD | {"classes": [1]}, r"its classes are \[1\]"),
        (GOOD | {"shards": 3}, "its shards are 3, and the name of a folder was expected"),
        (GOOD | {"statistics": [1]}, r"its statistics are \[1\], and objects by name of a split were expected"),
        (GOOD | {"statistics": {"train": 1}}, "its statistics are {'train': 1}"),
    ],
)
def test_data_that_a_run_cannot_predict_by_is_refused(tmp_path, content, message):
    path = bright_pixels_run(tmp_path)
    runs.write_text(path, runs.DATA, json.dumps(content))
    for tuned in (True, False):
        with pytest.raises(InputError, match=rf"run/data\.json is damaged: {message}.*Copy the run again"):
            runs.Run.read(path, tuned=tuned)
    runs.write_json(path, runs.DATA, GOOD)
    assert runs.Run.read(path).data == GOOD


def test_classes_that_do_not_fit_the_network_are_refused(tmp_path):
    path = bright_pixels_run(tmp_path)
    runs.write_json(path, runs.DATA, GOOD | {"classes": ["round", "long"]})
    message = r"run/data\.json names 2 classes, but the network of .*model\.keras tells 0 apart.*Copy the run again"
    with pytest.raises(InputError, match=message):
        cellseg.load_run(path)
