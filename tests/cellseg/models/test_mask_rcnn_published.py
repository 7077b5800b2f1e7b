import types

import keras
import numpy as np
import pytest

from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.mask_rcnn.convert import convert
from cellseg.models.mask_rcnn.published import load_published
from cellseg.models.mask_rcnn.resnet import DEVIATION, MEAN, resnet
from pipelines.errors import InputError

WHOLE = {"backbone": "resnet18", "width": 4, "fpn_channels": 6, "box_features": 8, "mask_channels": 5, "mask_layers": 2}


def backbone(depth, *, channels=3, width=64):
    image = keras.Input((None, None, channels))
    return keras.Model(image, resnet(image, depth=depth, width=width, batch_norm="frozen"))


def load_backbone(network, path):
    load_published(types.SimpleNamespace(network=network), path)


def published_whole(classes):
    """Random arrays under the names of torchvision's Mask R-CNN, sizes those of `WHOLE`; background is a class."""
    rng = np.random.default_rng(2)
    arrays = {f"backbone.body.{name}": array for name, array in published(18, width=4).items()}
    fpn, features, hidden = (WHOLE[name] for name in ("fpn_channels", "box_features", "mask_channels"))
    shapes = {"rpn.head.conv": (fpn, fpn, 3, 3), "rpn.head.cls_logits": (3, fpn, 1, 1)}
    shapes |= {f"backbone.fpn.inner_blocks.{level}": (fpn, 4 * 2**level, 1, 1) for level in range(4)}
    shapes |= {f"backbone.fpn.layer_blocks.{level}": (fpn, fpn, 3, 3) for level in range(4)}
    shapes |= {"rpn.head.bbox_pred": (12, fpn, 1, 1), "roi_heads.box_head.fc6": (features, fpn * 49)}
    shapes |= {"roi_heads.box_head.fc7": (features, features)}
    shapes |= {"roi_heads.box_predictor.cls_score": (classes, features)}
    shapes |= {"roi_heads.box_predictor.bbox_pred": (4 * classes, features)}
    shapes |= {"roi_heads.mask_head.mask_fcn1": (hidden, fpn, 3, 3)}
    shapes |= {"roi_heads.mask_head.mask_fcn2": (hidden, hidden, 3, 3)}
    shapes |= {"roi_heads.mask_predictor.conv5_mask": (hidden, hidden, 2, 2)}
    shapes |= {"roi_heads.mask_predictor.mask_fcn_logits": (classes, hidden, 1, 1)}
    for name, shape in shapes.items():
        outputs = shape[1] if name.endswith("conv5_mask") else shape[0]
        arrays[f"{name}.weight"] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        arrays[f"{name}.bias"] = rng.normal(0, 0.5, outputs)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def newer(name):
    """The name that torchvision gives a convolution since 0.13."""
    for start in ("backbone.fpn.inner_blocks.", "backbone.fpn.layer_blocks."):
        if name.startswith(start):
            return f"{start}{name[len(start)]}.0.{name.rsplit('.', 1)[1]}"
    name = name.replace("rpn.head.conv.", "rpn.head.conv.0.0.")
    return name.replace("mask_head.mask_fcn1.", "mask_head.0.0.").replace("mask_head.mask_fcn2.", "mask_head.1.0.")


def torch_answers(stages, region, fine_region, arrays):
    """Pyramid, proposals and heads by PyTorch's functions, as torchvision's modules combine them; channels last."""
    import torch
    from torch.nn import functional

    state = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def conv(x, name, padding=0):
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def dense(x, name):
        return functional.linear(x, state[f"roi_heads.{name}.weight"], state[f"roi_heads.{name}.bias"])

    fpn, above, pyramid = "backbone.fpn", None, []
    for level in (3, 2, 1, 0):
        x = conv(torch.from_numpy(stages[level].transpose(0, 3, 1, 2).copy()), f"{fpn}.inner_blocks.{level}")
        above = x if above is None else x + functional.interpolate(above, scale_factor=2, mode="nearest")
        pyramid.insert(0, conv(above, f"{fpn}.layer_blocks.{level}", 1))
    pyramid.append(functional.max_pool2d(pyramid[-1], 1, 2, 0))
    hidden = [torch.relu(conv(x, "rpn.head.conv", 1)) for x in pyramid]
    scores, codes = ([conv(x, f"rpn.head.{name}") for x in hidden] for name in ("cls_logits", "bbox_pred"))
    x = torch.from_numpy(region.transpose(0, 3, 1, 2).copy()).flatten(1)
    x = torch.relu(dense(torch.relu(dense(x, "box_head.fc6")), "box_head.fc7"))
    logits, box_codes = dense(x, "box_predictor.cls_score"), dense(x, "box_predictor.bbox_pred")
    x = torch.from_numpy(fine_region.transpose(0, 3, 1, 2).copy())
    for layer in (1, 2):
        x = torch.relu(conv(x, f"roi_heads.mask_head.mask_fcn{layer}", 1))
    name = "roi_heads.mask_predictor.conv5_mask"
    x = torch.relu(functional.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2))
    masks = conv(x, "roi_heads.mask_predictor.mask_fcn_logits")
    pyramid, scores, codes = ([x.numpy().transpose(0, 2, 3, 1) for x in one] for one in (pyramid, scores, codes))
    return pyramid, scores, codes, logits.numpy(), box_codes.numpy(), masks.numpy().transpose(0, 2, 3, 1)


def rows_first(codes):
    """Codes (dx, dy, dw, dh) of torchvision, several in the last axis, as ours: (dy, dx, dh, dw)."""
    dx, dy, dw, dh = (codes[..., side::4] for side in range(4))
    return np.stack([dy, dx, dh, dw], axis=-1).reshape(codes.shape)


def published(depth, width=64):
    """Random arrays under torchvision's names and in its shapes."""
    rng, arrays = np.random.default_rng(0), {}

    def unit(conv, norm, after, before, size):
        arrays[f"{conv}.weight"] = rng.normal(0, (2 / (before * size**2)) ** 0.5, (after, before, size, size))
        for name, low, high in (("weight", 0.5, 1), ("bias", -1, 1), ("running_mean", -1, 1), ("running_var", 1, 2)):
            arrays[f"{norm}.{name}"] = rng.uniform(low, high, after)

    unit("conv1", "bn1", width, 3, 7)
    before, expansion = width, 1 if depth == 18 else 4
    for stage, count in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)):
        inner = width * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            sizes = (3, 3) if depth == 18 else (1, 3, 1)
            channels = [before, *[inner] * (len(sizes) - 1), inner * expansion]
            for part, size in enumerate(sizes):
                unit(f"{name}.conv{part + 1}", f"{name}.bn{part + 1}", channels[part + 1], channels[part], size)
            if block == 0 and (stage > 0 or depth == 50):
                unit(f"{name}.downsample.0", f"{name}.downsample.1", channels[-1], before, 1)
            before = channels[-1]
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def torch_features(image, arrays, depth, *, epsilon=1e-5):
    """The four stages by PyTorch's functions, with the strides and paddings of torchvision's resnet.py."""
    import torch
    from torch.nn import functional

    state = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def unit(x, conv, norm, stride=1):
        kernel = state[f"{conv}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{norm}.{name}"] for name in names), eps=epsilon)

    x = (image - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
    x = torch.relu(unit(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), "conv1", "bn1", 2))
    x, stages = functional.max_pool2d(x, 3, 2, padding=1), []
    strided = 1 if depth == 18 else 2  # the convolution of a block that strides
    for stage, count in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)):
        for block in range(count):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y, last = x, 2 if depth == 18 else 3
            for part in range(1, last + 1):
                y = unit(y, f"{name}.conv{part}", f"{name}.bn{part}", stride if part == strided else 1)
                y = torch.relu(y) if part < last else y
            if f"{name}.downsample.0.weight" in state:
                x = unit(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = torch.relu(x + y)
        stages.append(x.numpy().transpose(0, 2, 3, 1))
    return stages


@pytest.mark.torch
@pytest.mark.parametrize("depth", [18, 50])
def test_the_backbone_computes_what_pytorch_computes(depth, tmp_path):
    import torch

    arrays = published(depth)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()} | {"fc.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "published.pth")
    convert(tmp_path / "published.pth", tmp_path / "published.npz")
    network = backbone(depth)
    load_backbone(network, tmp_path / "published.npz")
    image = np.random.default_rng(1).random((2, 64, 96, 3), np.float32)
    for ours, theirs in zip(network(image), torch_features(image, arrays, depth), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.torch
@pytest.mark.parametrize("rename", [str, newer])
def test_the_whole_network_computes_what_pytorch_computes(rename, tmp_path):
    import torch

    arrays = published_whole(classes=3)
    for name, array in arrays.items():  # with an epsilon of 0, as torchvision sets it, a small variance tells
        if name.endswith("running_var"):
            array[::3] = 1e-5
    torch.save({rename(name): torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "whole.pth")
    convert(tmp_path / "whole.pth", tmp_path / "whole.npz")
    network = MaskRCNN(classes=2, **WHOLE, pretrained=str(tmp_path / "whole.npz"))
    rng = np.random.default_rng(1)
    image, region = rng.random((1, 64, 96, 3), np.float32), rng.random((2, 7, 7, 6), np.float32)
    fine_region = rng.random((2, 14, 14, 6), np.float32)
    body = {name.removeprefix("backbone.body."): array for name, array in arrays.items()}
    stages = torch_features(image, body, 18, epsilon=0.0)
    pyramid, scores, codes, logits, box_codes, masks = torch_answers(stages, region, fine_region, arrays)
    answer = network(image)
    own_logits, own_codes = network.box_head(region)
    pairs = [*zip(answer["features"], pyramid, strict=True), *zip(answer["scores"], scores, strict=True)]
    pairs += zip(answer["codes"], map(rows_first, codes), strict=True)
    pairs += [
        (own_logits, logits),
        (own_codes, rows_first(box_codes).reshape(2, 3, 4)),
        (network.mask_head(fine_region), masks),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_layers_of_other_classes_and_anchors_start_anew_and_all_others_are_set(tmp_path):
    arrays = published_whole(classes=91)
    np.savez(tmp_path / "whole.npz", **arrays)
    options = {**WHOLE, "classes": 1, "anchor_ratios": (0.5, 1.0)}
    keras.utils.set_random_seed(0)
    random = MaskRCNN(**options)
    keras.utils.set_random_seed(0)
    network = MaskRCNN(**options, pretrained=str(tmp_path / "whole.npz"))
    same = {
        weight.path.split("/")[-2]
        for weight, before in zip(network.weights, random.weights, strict=True)
        if np.array_equal(weight, before) and np.size(weight) > 2  # neither a seed nor a bias of zeros
    }
    assert same == {"proposal_score", "proposal_code", "class", "code", "mask_fcn_logits"}
    kernel = arrays["roi_heads.box_head.fc6.weight"].reshape(8, 6, 7, 7)  # theirs counts channels first
    own = np.asarray(network.box_head.get_layer("fc6").kernel).reshape(7, 7, 6, 8)
    np.testing.assert_array_equal(own, kernel.transpose(2, 3, 1, 0))


def test_every_weight_is_set_and_grey_is_three_equal_colours(tmp_path):
    arrays = published(18, width=4)
    np.savez(tmp_path / "published.npz", **arrays)
    colour, grey = backbone(18, width=4), backbone(18, channels=1, width=4)
    for network in (colour, grey):
        load_backbone(network, tmp_path / "published.npz")
    total = sum(float(np.sum(array, dtype=np.float64)) for array in arrays.values())
    assert sum(float(np.sum(weight, dtype=np.float64)) for weight in colour.get_weights()) == pytest.approx(total)
    assert len(colour.weights) == len(arrays)
    kernel = arrays["conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(colour.get_layer("conv1").kernel, kernel)
    np.testing.assert_allclose(grey.get_layer("conv1").kernel[:, :, 0], kernel.sum(axis=2), rtol=1e-5, atol=1e-6)


def test_files_that_hold_another_backbone(tmp_path):
    arrays = published(18, width=4)
    np.savez(tmp_path / "published.npz", **arrays)
    with pytest.raises(InputError, match=r"conv1.weight of .* is \(7, 7, 3, 4\), and \(7, 7, 3, 8\)"):
        load_backbone(backbone(18, width=8), tmp_path / "published.npz")
    del arrays["layer3.1.bn2.running_var"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(InputError, match=r"less.npz has no layer3.1.bn2.running_var; it does not hold this network"):
        load_backbone(backbone(18, width=4), tmp_path / "less.npz")
    with pytest.raises(FileNotFoundError, match="model.pretrained: .*missing.npz is not there"):
        load_backbone(backbone(18, width=4), tmp_path / "missing.npz")
