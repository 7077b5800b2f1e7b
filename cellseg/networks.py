"""Networks of an experiment: its `model` section built for its data, and the sizes that it takes.

The networks themselves live in `cellseg.models`; training one in `cellseg.training`.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cellseg.experiment import Experiment
from cellseg.named import Named, build, check_options
from pipelines.targets import num_outputs

# Set by the program, not by the YAML; the last four in networks that find cells one by one.
GIVEN = ("input_shape", "outputs", "activation", "output_bias", "classes", "channels", "seed", "precision")
ACTIVATIONS = {"foreground_distance": "sigmoid"}  # targets whose channels do not exclude each other
SPELLED = {"unet": "U-Net", "dmcn": "DMCN", "mask_rcnn": "Mask R-CNN"}
RAREST = 0.001  # a class is taken to be at least this frequent when the output's first bias is set


def network_for(
    experiment: Experiment,
    *,
    channels: int,
    prior: Sequence[float] | None = None,
    num_classes: int = 0,
    precision: str = "float32",
) -> Any:
    """The experiment's network for images of any legal size; its output starts at the prior.

    Args:
        experiment: Its `model` and `target` sections are read; `train.patch` where a network has one fixed size.
        channels: Of the images.
        prior: Share of the training pixels of each class, background first; None = unknown, all alike.
        num_classes: Of the data, without background.
        precision: Keras' name of the policy that the layers compute in; the output is float32 in any case.

    Returns:
        keras.Model with layers `logits` and `probability`; auxiliary classifiers are layers `auxiliaryN_logits`. Of an
        experiment that detects, a `cellseg.models.mask_rcnn.MaskRCNN`.
    """
    from cellseg.models import FIXED, MODELS

    options = check_options(MODELS, experiment.model, key="model", given=GIVEN)
    if experiment.detects:
        settings = {"channels": channels, "seed": experiment.seed, "precision": precision}
        return build(MODELS, experiment.model, key="model", given={"classes": max(1, num_classes), **settings})
    fixed = FIXED.get(experiment.model["name"])
    side = experiment.train.patch if fixed is not None and fixed(options) else None
    outputs = outputs_of(experiment.target, num_classes=num_classes)
    given: dict[str, Any] = {"input_shape": (side, side, channels), "outputs": outputs}
    given["activation"] = ACTIVATIONS.get(target_name(experiment.target))
    if prior is not None:
        given["output_bias"] = _output_bias(prior, outputs, given["activation"])
    with _policy(precision):
        return build(MODELS, experiment.model, key="model", given=given)


def target_name(target: str | Named) -> str:
    """Name of an experiment's target."""
    return target if isinstance(target, str) else str(target["name"])


def outputs_of(target: str | Named, *, num_classes: int) -> int:
    """Number of output channels of a network trained on this target."""
    options = {"name": target} if isinstance(target, str) else dict(target)
    name = options.pop("name")
    return num_outputs(name, **options, **({"num_classes": num_classes} if name == "classes" else {}))


def answer_size(experiment: Experiment, side: int) -> int:
    """Side of the network's answer to a tile of this side.

    Raises:
        InputError: the network cannot take such a tile; the message names the nearest sizes that fit.
    """
    from cellseg.models import OUTPUT_SIZES
    from cellseg.models.sizes import check_size

    output_size = size_function(experiment)  # first: it checks the section
    name = str(experiment.model["name"])
    of = inspect.signature(OUTPUT_SIZES[name]).parameters.values()
    options = {one.name: experiment.model.get(one.name, one.default) for one in of if one.kind is one.KEYWORD_ONLY}
    told = " and ".join(f"{option}={options[option]!r}" for option in reversed(options))
    network = SPELLED.get(name, name) + (f" with {told}" if told else "")
    return check_size(side, output_size, network=network)


def size_function(experiment: Experiment) -> Callable[[int], int | None]:
    """Side of a tile -> side of the network's answer to it, None where it cannot take such a tile."""
    from cellseg.models import MODELS, OUTPUT_SIZES

    options = check_options(MODELS, experiment.model, key="model", given=GIVEN)  # first: it looks the name up
    function = OUTPUT_SIZES[experiment.model["name"]]
    known = inspect.signature(function).parameters
    return functools.partial(function, **{name: value for name, value in options.items() if name in known})


def has_fixed_size(experiment: Experiment) -> bool:
    """Whether the network takes tiles of the training patch alone."""
    from cellseg.models import FIXED, MODELS

    fixed = FIXED.get(experiment.model["name"])
    return fixed is not None and fixed(check_options(MODELS, experiment.model, key="model", given=GIVEN))


def answering(network: Any) -> Any:
    """The network up to its layer `probability` alone: without the auxiliary classifiers that training has."""
    import keras

    if len(network.outputs) == 1:
        return network
    return keras.Model(network.inputs[0], network.get_layer("probability").output, name=network.name)


def _output_bias(prior: Sequence[float], outputs: int, activation: str | None) -> float | list[float]:
    """The logit of each class's share, so that the first answer is the share and the first loss that of a guess."""
    shares = np.clip(np.asarray(prior, float), RAREST, 1 - RAREST)
    if outputs == 1 or activation == "sigmoid":
        foreground = float(np.clip(1 - prior[0], RAREST, 1 - RAREST))
        return float(np.log(foreground / (1 - foreground)))
    if len(shares) != outputs:
        shares = np.append(shares, [RAREST] * (outputs - len(shares)))[:outputs]
    return [float(value) for value in np.log(shares / shares.sum())]


@contextlib.contextmanager
def _policy(precision: str) -> Iterator[None]:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
