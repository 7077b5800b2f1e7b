import dataclasses
import os
import pickle
import tracemalloc

import cv2
import numpy as np
import pytest
import tifffile

import cellseg
from cellseg.geometry import Tiling
from cellseg.inference import Predictor, PredictorMean
from cellseg.streaming import default_memory, needs_streaming, predict_streamed, whole_bytes
from cellseg.views import Part
from pipelines.errors import InputError
from pipelines.images import read_labels, read_pages, read_spacing_um, write_image
from pipelines.rasters import open_raster
from tests.runs import bright_pixels_run

LITTLE = 1_500_000  # bytes: strips of 6 rows, groups of 450 columns, pieces of up to 83 x 83 px
TILING = Tiling(48, 48, 12)


class Blur:
    """A network that sees round a pixel, and where in its tile a pixel lies, so that tiles disagree a little."""

    outputs = (None,)

    def __init__(self, kinds=1, shift=0.0):
        self._kinds, self._shift = kinds, shift

    def predict_on_batch(self, tiles):
        side = tiles.shape[1]
        where = 1 - 0.02 * np.linspace(0, 1, side, dtype=np.float32)[:, None]
        grey = np.stack([cv2.GaussianBlur(tile.mean(axis=2), (0, 0), 1.5) for tile in tiles])
        grey = np.clip(grey * where + self._shift, 0, 1)[..., None]
        if self._kinds == 1:
            return grey
        right = np.roll(grey, 5, axis=2)
        return np.concatenate([1 - grey, grey * right, grey * (1 - right)], axis=3)


class ValidBlur(Blur):
    """The same without the rim of 6 px."""

    def predict_on_batch(self, tiles):
        return super().predict_on_batch(tiles)[:, 6:-6, 6:-6]


def predictor(network, *, tiling=TILING, **options):
    return Predictor(network, tiling=tiling, channels=1, contrast=(0, 100), minimum_range={}, **options)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    return cellseg.load_run(bright_pixels_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def loaded(plain_run, monkeypatch):
    """A run whose network is `Blur`, with a watershed."""
    sections = {"instances": {"name": "watershed", "min_size": 8}}
    experiment = plain_run.run.experiment.model_copy(update=sections)
    monkeypatch.setattr(plain_run, "run", dataclasses.replace(plain_run.run, experiment=experiment))
    monkeypatch.setattr(plain_run, "predictor", predictor(Blur()))
    monkeypatch.setattr(plain_run, "threshold", 0.45)
    monkeypatch.setattr(plain_run, "class_names", ())
    plain_run.use(0.45, {})
    return plain_run


def picture(shape=(150, 900), seed=0, dtype=np.uint16):
    """Touching bright discs on a dim ground."""
    rng, image = np.random.default_rng(seed), np.zeros(shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(70):
        row, column, radius = rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.integers(4, 12)
        image[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = rng.uniform(0.5, 1)
    image += rng.normal(0.1, 0.03, shape)
    return image.astype(dtype) if np.dtype(dtype).kind == "f" else (image * 200).clip(0, 255).astype(dtype)


def check(loaded, path, target, *, memory=LITTLE, **options):
    """Streamed and whole predictions are equal; nothing else is left beside them."""
    pages = [loaded.predict(page) for page in read_pages(path)]
    said = []
    predict_streamed(loaded, path, target, memory_bytes=memory, probability="float32", say=said.append, **options)
    assert sorted(target.parent.iterdir()) == sorted({target, *target.parent.glob(f"{target.stem}_*")})
    raster, chance = open_raster(target), open_raster(target.with_name(f"{target.stem}_probability{target.suffix}"))
    for number, page in enumerate(pages):
        assert page.labels.max() > 10
        np.testing.assert_array_equal(raster.read(number, slice(None))[..., 0], page.labels)
        np.testing.assert_array_equal(chance.read(number, slice(None))[..., 0], page.probability)
        if page.classes is not None:
            kinds = open_raster(target.with_name(f"{target.stem}_classes{target.suffix}"))
            np.testing.assert_array_equal(kinds.read(number, slice(None))[..., 0], page.classes)
    return said


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_the_cells_are_those_of_the_whole_image(loaded, tmp_path, dtype, suffix):
    tifffile.imwrite(tmp_path / "a.tif", picture(dtype=dtype), tile=(64, 64), compression="zlib")
    assert check(loaded, tmp_path / "a.tif", tmp_path / "out" / f"a{suffix}") == []


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (Blur(), {"symmetries": 8}),
        (Blur(), {"symmetries": 4, "tiling": Tiling(48, 32, 5, 4)}),
        (ValidBlur(), {"tiling": Tiling(52, 40, 0, 2)}),
        (Blur(), {"tiling": Tiling(64, 64, 16, blend="gaussian")}),
    ],
)
def test_whatever_the_views_and_the_tiles_are(loaded, tmp_path, network, options):
    loaded.predictor = predictor(network, **options)
    write_image(tmp_path / "a.tif", picture())
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif")


def test_an_ensemble_is_averaged(loaded, tmp_path):
    networks = (Blur(), Blur(shift=0.1), Blur(shift=-0.07))
    loaded.predictor = PredictorMean([predictor(one, symmetries=4) for one in networks])
    write_image(tmp_path / "a.tif", picture())
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif")


def test_classes_are_those_of_the_whole_image(loaded, tmp_path):
    loaded.predictor, loaded.class_names = predictor(Blur(kinds=3)), ("one", "two")
    write_image(tmp_path / "a.tif", picture())
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif")


@pytest.mark.parametrize(("target", "kinds", "threshold"), [("foreground_border", 3, 0.45), ("distance", 1, 0.3)])
@pytest.mark.parametrize("border", ["keep", "drop"])
def test_cells_from_their_insides(loaded, tmp_path, target, kinds, threshold, border):
    method = {"name": "seeded", "min_size": 8, "depth": 0.02, "seed_threshold": 0.2, "border": border}
    sections = {"instances": method, "target": target}
    experiment = loaded.run.experiment.model_copy(update=sections)
    loaded.run = dataclasses.replace(loaded.run, experiment=experiment)
    loaded.use(threshold, {})
    loaded.predictor = predictor(Blur(kinds=kinds))
    image = picture()
    whole = loaded.predict(image).labels
    loaded.use(threshold, {"seed_threshold": 1})
    assert whole.max() > loaded.predict(image).labels.max() + 3  # the insides tell some apart
    loaded.use(threshold, {"seed_threshold": 0.2})
    write_image(tmp_path / "a.tif", image)
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif")


@pytest.mark.parametrize("fill_holes", [False, True])
def test_components(loaded, tmp_path, fill_holes):
    loaded.run.experiment.instances.clear()
    loaded.run.experiment.instances.update({"name": "components", "fill_holes": fill_holes})
    loaded.use(0.45, {})
    write_image(tmp_path / "a.tif", picture())
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif")


def test_a_stack_becomes_a_stack_with_its_pixel_size(loaded, tmp_path):
    stack = np.stack([picture(seed=number) for number in range(3)])
    options = {"photometric": "minisblack", "resolution": (2e4, 4e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif")
    assert read_labels(tmp_path / "out" / "a.tif").shape == stack.shape
    assert read_spacing_um(tmp_path / "out" / "a.tif") == pytest.approx((0.25, 0.5))


def test_three_equal_channels_count_as_one(loaded, tmp_path):
    write_image(tmp_path / "a.tif", np.repeat(picture(dtype=np.uint8)[..., None], 3, axis=2))
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif")


def test_an_image_smaller_than_a_tile_and_one_without_cells(loaded, tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((5, 7), np.uint8))
    predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif", memory_bytes=LITTLE)
    assert read_labels(tmp_path / "out" / "a.tif", page=0).tolist() == np.zeros((5, 7)).tolist()


def test_the_memory_stays_within_what_was_asked_for(loaded, tmp_path):
    image = np.tile(picture(), (8, 2))  # labels alone would take 8.6 MB, probability as much
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), compression="zlib")
    options = {"memory_bytes": 6_000_000, "probability": "float16"}
    loaded.predictor = predictor(Blur(), tiling=Tiling(128, 128, 16), symmetries=4)
    predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "b.tif", **options)  # imports and headers
    tracemalloc.start()
    try:
        predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "b.tif", **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


def test_helpers_compute_parts_with_the_same_answer(loaded, tmp_path):
    parts = []

    def helpers(some):
        for part in some:
            parts.append(part)
            yield pickle.loads(pickle.dumps(part)).answer(loaded)

    loaded.predictor = predictor(Blur(), symmetries=8)
    write_image(tmp_path / "a.tif", picture())
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif", helpers=helpers)
    assert len(parts) > 16 and all(isinstance(part, Part) for part in parts)


def test_a_low_contrast_is_told_once(loaded, tmp_path):
    loaded.predictor._minimum_range = {"uint16": 5000.0}
    write_image(tmp_path / "a.tif", picture())
    said = []
    predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out.tif", memory_bytes=LITTLE, say=said.append)
    (text,) = said
    assert text.startswith(f"{tmp_path / 'a.tif'}: contrast range")


def test_a_piece_that_is_too_large_is_told(loaded, tmp_path):
    write_image(tmp_path / "a.tif", np.repeat(np.array([[0], [200], [0]], np.uint8), (5, 90, 5), 0).repeat(200, 1))
    said = []
    predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out.tif", memory_bytes=LITTLE, say=said.append)
    assert len(said) == 1 and "1 of 1 connected pieces of foreground are too large" in said[0]
    assert read_labels(tmp_path / "out.tif").max() == 1


def test_what_cannot_be_read_by_windows_is_explained(loaded, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", picture((600, 900)), compression="zlib", rowsperstrip=600)
    with pytest.raises(InputError, match=r"a\.tif can only be read in blocks of 600x900 pixels.*Save it as a tiled"):
        predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out.tif", memory_bytes=LITTLE)
    check(loaded, tmp_path / "a.tif", tmp_path / "out" / "out.tif", memory=4_000_000)


def test_what_needs_the_whole_image_is_explained(loaded, tmp_path):
    write_image(tmp_path / "a.tif", picture())
    for options, message in (
        ({"zoom": (1.0, 1.5)}, r"a\.tif does not fit .*inference.zoom: \[1.0, 1.5\] a run needs the whole image"),
        ({"tiling": Tiling(48, 48, 0, resize=True)}, "with inference.method: resize a run needs the whole"),
    ):
        loaded.predictor = predictor(Blur(), **options)
        with pytest.raises(InputError, match=message):
            predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out.tif", memory_bytes=LITTLE)


def test_wrong_channels_are_named_before_any_work(loaded, tmp_path):
    image = np.stack([picture(), picture(seed=1)], axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"a\.tif: the image has 2 channels; this run was trained on 1"):
        predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif", memory_bytes=LITTLE)
    assert not list((tmp_path / "out").iterdir())


def test_nan_and_damage_leave_nothing(loaded, tmp_path):
    image = picture(dtype=np.float32)
    image[140, 3] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", image)
    with pytest.raises(InputError, match=r"a\.tif: 1 pixels are NaN or infinite"):
        predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif", memory_bytes=LITTLE)
    tifffile.imwrite(tmp_path / "b.tif", picture(), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        offset = tif.pages[0].dataoffsets[-1]
    with open(tmp_path / "b.tif", "r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 20)
    with pytest.raises(InputError, match=r"b\.tif is damaged or cut short"):
        predict_streamed(loaded, tmp_path / "b.tif", tmp_path / "out" / "b.tif", memory_bytes=LITTLE)
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_passes_through_and_leaves_nothing(loaded, tmp_path, monkeypatch):
    write_image(tmp_path / "a.tif", picture())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        predict_streamed(loaded, tmp_path / "a.tif", tmp_path / "out" / "a.tif", memory_bytes=LITTLE)
    assert not list((tmp_path / "out").iterdir())


def test_large_images_need_streaming(loaded, tmp_path):
    write_image(tmp_path / "a.tif", picture())
    need = whole_bytes(open_raster(tmp_path / "a.tif"), loaded)
    # uint16 image 2, probability 4, labels 4, and 130 to cut a piece as large as the image
    assert need == 140 * 150 * 900
    assert needs_streaming(tmp_path / "a.tif", loaded, need - 1)
    assert not needs_streaming(tmp_path / "a.tif", loaded, need)
    assert not needs_streaming(tmp_path / "a.tif", loaded)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([picture()] * 9))
    assert needs_streaming(tmp_path / "b.tif", loaded, 3 * need // 2)
    loaded.predictor = predictor(Blur(), zoom=(1.0, 4.0))
    assert whole_bytes(open_raster(tmp_path / "a.tif"), loaded) > 1.5 * need
    loaded.predictor = predictor(Blur(kinds=3))
    experiment = loaded.run.experiment.model_copy(update={"target": "foreground_border"})
    loaded.run = dataclasses.replace(loaded.run, experiment=experiment)
    # two channels more, 4 bytes each, and 8 to tell which is the strongest
    assert whole_bytes(open_raster(tmp_path / "a.tif"), loaded) == need + 16 * 150 * 900


def test_half_of_the_machine_is_the_default(monkeypatch, tmp_path):
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "max").write_text("1000000\n")
    monkeypatch.setattr("cellseg.streaming.CGROUP", tmp_path / "max")
    assert default_memory() == 500_000
    (tmp_path / "max").write_text("max\n")
    assert default_memory() == physical // 2
