import keras
import numpy as np
import pytest

from cellseg.models.mask_rcnn.published import convert, load_backbone
from cellseg.models.mask_rcnn.resnet import DEVIATION, MEAN, resnet
from pipelines.errors import InputError


def backbone(depth, *, channels=3, width=64):
    image = keras.Input((None, None, channels))
    return keras.Model(image, resnet(image, depth=depth, width=width, batch_norm="frozen"))


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


def torch_features(image, arrays, depth):
    """The four stages by PyTorch's functions, with the strides and paddings of torchvision's resnet.py."""
    import torch
    from torch.nn import functional

    state = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def unit(x, conv, norm, stride=1):
        kernel = state[f"{conv}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{norm}.{name}"] for name in names))

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
    with pytest.raises(InputError, match=r"less.npz has no layer3.1.bn2.running_var; it does not hold this backbone"):
        load_backbone(backbone(18, width=4), tmp_path / "less.npz")
    with pytest.raises(FileNotFoundError, match="model.pretrained: .*missing.npz is not there"):
        load_backbone(backbone(18, width=4), tmp_path / "missing.npz")
