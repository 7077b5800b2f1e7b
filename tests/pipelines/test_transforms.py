import numpy as np
import pytest

from pipelines.augment import Augmenter
from pipelines.errors import InputError
from pipelines.transforms import OWN, _albumentations, build

IDS = np.array([0, 1, 255, 300, 70_000], np.int32)
SIDE = 64
# Options without which a transform of albumentations cannot be made.
NEEDED = {
    "AtLeastOneBBoxRandomCrop": {"height": SIDE, "width": SIDE},
    "BBoxSafeRandomCrop": {},
    "CenterCrop": {"height": SIDE, "width": SIDE},
    "CenterCrop3D": {"size": [1, 2, 2]},
    "Crop": {"x_max": SIDE, "y_max": SIDE},
    "CropAndPad": {"px": -4},
    "CropNonEmptyMaskIfExists": {"height": SIDE, "width": SIDE},
    "GridElasticDeform": {"num_grid_xy": [3, 3], "magnitude": 5},
    "LongestMaxSize": {"max_size": SIDE},
    "PadIfNeeded": {"min_height": 90, "min_width": 90},
    "Pad3D": {"padding": 1},
    "PadIfNeeded3D": {"min_zyx": [1, 2, 2]},
    "RandomCrop": {"height": SIDE, "width": SIDE},
    "RandomCrop3D": {"size": [1, 2, 2]},
    "RandomResizedCrop": {"size": [SIDE, SIDE]},
    "RandomSizedBBoxSafeCrop": {"height": SIDE, "width": SIDE},
    "RandomSizedCrop": {"min_max_height": [40, 60], "size": [SIDE, SIDE]},
    "Resize": {"height": SIDE, "width": SIDE},
    "SmallestMaxSize": {"max_size": SIDE},
    "Superpixels": {"n_segments": 20, "max_size": 32},
    "TextImage": {"font_path": "font.ttf"},
}
REFUSED = {
    "BBoxSafeRandomCrop": "works on neither grey nor colour images of float32: 'bboxes'",
    "CenterCrop3D": "is not for two-dimensional images",
    "CoarseDropout3D": "is not for two-dimensional images",
    "CubicSymmetry": "is not for two-dimensional images",
    "FDA": "needs fda_metadata beside image and labels",
    "FromFloat": "makes uint8 of a float32 image",
    "HistogramMatching": "needs hm_metadata",
    "MaskDropout": "changes labels by their value",
    "Morphological": "changes labels by their value",
    "Mosaic": "needs mosaic_metadata",
    "Normalize": r"makes values from -2.12 to .*, but images are in \[0, 1\]",
    "OverlayElements": "needs overlay_metadata",
    "Pad3D": "is not for two-dimensional images",
    "PadIfNeeded3D": "is not for two-dimensional images",
    "PixelDistributionAdaptation": "needs pda_metadata",
    "RandomCrop3D": "is not for two-dimensional images",
    "RandomCropNearBBox": "needs cropping_bbox",
    "RandomSizedBBoxSafeCrop": "works on neither grey nor colour images of float32: 'bboxes'",
    "TextImage": "needs textimage_metadata",
    "ToRGB": "makes 3 channels of 1",
    "ToTensor3D": "is not for two-dimensional images",
    "ToTensorV2": "is not for two-dimensional images",
}
# These blank parts of the image, and leave the labels there: the network is to guess what was there.
BLANKING = "dropout", "spectrogram"


def scene(channels):
    """Blocks of 12 pixels; the grey value stands for the label, and is 0 where the label is."""
    places = np.random.default_rng(0).integers(0, len(IDS), (6, 7)).repeat(12, 0).repeat(12, 1)
    return np.repeat((places / 5).astype(np.float32)[..., None], channels, axis=2), IDS[places]


def run(augment, image, labels, seed):
    return augment(image.copy(), {"labels": labels, "ignore": labels == 300}, rng=np.random.default_rng(seed))


# albumentations says of some transforms that they are slow, or an alias.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(_albumentations()))
def test_every_transform_of_albumentations_obeys_the_label_rule_or_is_refused(name):
    options = {"name": name, "p": 1.0, **NEEDED.get(name, {})}
    if name in REFUSED:
        with pytest.raises(InputError, match=rf"augment\[0\]: {name} {REFUSED[name]}"):
            Augmenter([options])
        return
    augment = Augmenter([options])
    worked = 0
    for channels in (1, 3, 5):
        image, labels = scene(channels)
        labels.flags.writeable = False
        for seed in range(2):
            try:
                new, maps = run(augment, image, labels, seed)
            except InputError as error:
                assert f"augment[0]: {name} does not work on an image of 72x84x{channels}: " in str(error)
                break
            worked += 1
            assert new.dtype == np.float32 and new.shape == (*maps["labels"].shape, channels)
            assert new.min() >= -1e-3 and new.max() <= 1.001
            assert maps["labels"].dtype == np.int32 and maps["ignore"].dtype == bool
            assert set(np.unique(maps["labels"])) <= set(IDS)
            np.testing.assert_array_equal(maps["ignore"], maps["labels"] == 300)
            if moves(name):
                assert_together(new, maps["labels"])
            else:
                assert np.isin(maps["labels"][maps["labels"] != labels], 0).all()
            np.random.seed(seed)
            again = run(augment, image, labels, seed)
            np.testing.assert_array_equal(again[0], new)
            np.testing.assert_array_equal(again[1]["labels"], maps["labels"])
    assert worked


def moves(name):
    import albumentations

    transform = _albumentations()[name]
    blanks = any(part in transform.__module__ for part in BLANKING) and name != "TimeReverse"
    return issubclass(transform, albumentations.DualTransform) and not blanks


def assert_together(image, labels):
    """The grey value is the label's, but for a band of two pixels where labels or the image end."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(labels, 2, constant_values=-1), (5, 5))
    inside = windows.min((2, 3)) == windows.max((2, 3))
    difference = np.abs(image - np.searchsorted(IDS, labels)[..., None] / 5).max(-1)[inside]
    assert inside.mean() > 0.2
    # PiecewiseAffine stretches single places over more than the band: 1.3 % of the pixels.
    assert np.mean(difference > 0.02) < 0.02


# What the reports did, as YAML reads it.
@pytest.mark.parametrize(
    ("options", "resizes"),
    [
        ({"name": "RandomCrop", "height": 48, "width": 48}, True),
        ({"name": "CenterCrop", "height": 48, "width": 48}, True),
        ({"name": "HorizontalFlip"}, False),
        ({"name": "VerticalFlip"}, False),
        ({"name": "Rotate", "limit": [-30, 30], "border_mode": 4}, False),
        ({"name": "Affine", "translate_percent": [-0.1, 0.1], "shear": [-5, 5]}, False),
        ({"name": "Affine", "scale": [0.8, 1.2]}, False),
        ({"name": "RandomScale", "scale_limit": [-0.2, 0.2]}, True),
        ({"name": "RandomBrightnessContrast", "brightness_limit": 0.2, "contrast_limit": [-0.1, 0.1]}, False),
        ({"name": "GaussNoise", "std_range": [0.02, 0.1]}, False),
        ({"name": "GaussianBlur", "sigma_limit": [0.5, 2]}, False),
        ({"name": "Resize", "height": 384, "width": 384}, True),
        ({"name": "elastic_grid", "sigma": 10}, False),
        ({"name": "elastic_simard", "alpha": 34, "sigma": 4}, False),
        # Quarter turns swap height and width, which a square patch does not show.
        ({"name": "RandomRotate90"}, False),
        ({"name": "Transpose"}, False),
        ({"name": "CropAndPad", "px": 3}, False),
        ({"name": "CropAndPad", "px": 3, "keep_size": False}, True),
        ({"name": "Crop", "x_max": 500, "y_max": 500}, True),
        ({"name": "Rotate", "limit": 45, "crop_border": True}, True),
        ({"name": "Affine", "rotate": 45, "fit_output": True}, True),
        ({"name": "PadIfNeeded", "min_height": 256, "min_width": 256, "p": 0.01}, True),
        ({"name": "LongestMaxSize", "max_size": 96}, True),
        ({"name": "RandomResizedCrop", "size": [61, 61], "p": 0.01}, True),
    ],
)
def test_the_steps_of_the_reports(options, resizes):
    augment = Augmenter([options])
    assert augment.resizes is resizes
    side = 600 if options["name"] == "Crop" else 64
    image = np.random.default_rng(0).random((side, side, 1), np.float32)
    labels = np.ones((side, side), np.int32)
    new, maps = augment(image, {"labels": labels}, rng=np.random.default_rng(0))
    expected = (options["height"],) * 2 if "height" in options else new.shape[:2] if resizes else (side, side)
    assert new.shape == (*expected, 1) and maps["labels"].shape == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 3}, r"augment\[2\]: the step has no name. Give one of elastic_grid, elastic_simard, or a class"),
        (
            {"name": "HorizontalFlop"},
            r"augment\[2\]: albumentations has no transform 'HorizontalFlop', and .* Did you mean 'HorizontalFlip'",
        ),
        ({"name": "elastic_gird"}, "no transform 'elastic_gird', .* Did you mean 'elastic_grid'"),
        ({"name": "DualTransform"}, "albumentations has no transform 'DualTransform'"),
        ({"name": "HorizontalFlip", "probability": 0.5}, "HorizontalFlip takes no 'probability'.*It takes: p"),
        (
            {"name": "elastic_grid", "sigmas": 3},
            "elastic_grid takes no 'sigmas'. Did you mean 'sigma'. It takes: order, p, points, sigma",
        ),
        ({"name": "elastic_grid", "sigma": 0}, r"augment\[2\].sigma: Input should be greater than 0, got 0"),
        ({"name": "elastic_grid", "sigma": "wide"}, r"augment\[2\].sigma: Input should be a valid number, got 'wide'"),
        ({"name": "elastic_grid", "sigma": float("nan")}, r"augment\[2\].sigma: .*got nan"),
        ({"name": "elastic_grid", "points": 1}, r"augment\[2\].points: .* greater than or equal to 2, got 1"),
        ({"name": "elastic_grid", "points": 2.5}, r"augment\[2\].points: Input should be a valid integer, got 2.5"),
        ({"name": "elastic_grid", "p": 1.5}, r"augment\[2\].p: Input should be less than or equal to 1, got 1.5"),
        ({"name": "elastic_simard", "alpha": -1}, r"augment\[2\].alpha: .* greater than or equal to 0, got -1"),
        ({"name": "elastic_simard", "sigma": -2}, r"augment\[2\].sigma: .* greater than or equal to 0.5, got -2"),
        ({"name": "elastic_simard", "order": 2}, r"augment\[2\].order: Input should be 0, 1 or 3, got 2"),
        ({"name": "RandomCrop", "height": 3}, r"augment\[2\].width: Field required \(RandomCrop\)"),
        ({"name": "GaussNoise", "std_range": [2, 3]}, r"augment\[2\].std_range: .*, got \[2, 3\]"),
        ({"name": "HorizontalFlip", "p": 2}, r"augment\[2\].p: Input should be less than or equal to 1, got 2"),
        ({"name": "Rotate", "mask_interpolation": 1}, r"augment\[2\].mask_interpolation: 1 would .* takes 0 here"),
        ({"name": "Rotate", "fill_mask": 255}, r"augment\[2\].fill_mask: 255 would make label ids"),
        ({"name": "Pad", "padding": 3, "fill_mask": [0, 7]}, r"augment\[2\].fill_mask: \[0, 7\] would make label ids"),
        ({"name": "PixelDropout", "mask_drop_value": 3}, r"augment\[2\].mask_drop_value: 3 would"),
        (
            {"name": "Resize", "height": 9, "width": 9, "area_for_downscale": "image_mask"},
            r"augment\[2\].area_for_downscale: image_mask would .* takes image here",
        ),
        (
            {"name": "Affine", "translate_percent": 0.3, "fill": 128},
            r"augment\[2\]: Affine makes values from .* to 128, but images are in \[0, 1\]",
        ),
    ],
)
def test_what_a_step_cannot_be_is_said_at_load(options, message):
    with pytest.raises(InputError, match=message):
        build(options, "augment[2]")


def test_options_that_keep_the_labels_are_taken():
    build({"name": "Rotate", "mask_interpolation": 0, "fill_mask": 0}, "augment[0]")
    build({"name": "CoarseDropout", "fill_mask": None}, "augment[0]")
    build({"name": "Resize", "height": 9, "width": 9, "area_for_downscale": "image"}, "augment[0]")


def test_a_crop_around_cells_finds_them():
    """A transform that reads the labels gets them."""
    labels = np.zeros((200, 200), np.int32)
    labels[150:154, 20:24] = 5
    augment = Augmenter([{"name": "CropNonEmptyMaskIfExists", "height": 32, "width": 32}])
    for seed in range(5):
        _, maps = run(augment, np.zeros((200, 200, 1), np.float32), labels, seed)
        assert (maps["labels"] == 5).any()


def test_our_steps_have_their_published_defaults():
    grid, simard = OWN["elastic_grid"](), OWN["elastic_simard"]()
    assert (grid.sigma, grid.points, grid.order, grid.p) == (10.0, 3, 1, 1.0)
    assert (simard.alpha, simard.sigma, simard.order, simard.p) == (34.0, 4.0, 1, 1.0)
    assert np.abs(grid.field(np.random.default_rng(0), (300, 300))).max() < 45
