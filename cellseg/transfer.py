"""Transfer: a network begins with the weights of another run, and a report says which ones.

Where the run is named: `train.start_from`. Loading a run to predict with it is the work of `cellseg.inference`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from cellseg.runs import MODEL, Run, load_model
from pipelines.errors import InputError


@dataclass(frozen=True)
class Transfer:
    """What a network took from another run; layers by name, those without weights left out.

    Args:
        source: The run folder.
        loaded: Layers whose weights were taken over.
        reshaped: Layers of both networks whose weights differ in shape; they start anew.
        new: Layers that the other run does not have; they start anew.
        unused: Layers of the other run that this network does not have.
        weights: Numbers taken over.
        total: Numbers in the network.
    """

    source: str
    loaded: list[str]
    reshaped: list[str]
    new: list[str]
    unused: list[str]
    weights: int
    total: int

    def as_dict(self) -> dict:
        """For `transfer.json`."""
        return asdict(self) | {"told": self.told()}

    def told(self) -> str:
        """In a line."""
        fresh = [
            f"{what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
            for what, names in (
                ("of another shape, started anew", self.reshaped),
                ("not there, started anew", self.new),
                ("there, but not used", self.unused),
            )
            if names
        ]
        share = 100 * self.weights / max(self.total, 1)
        text = f"{len(self.loaded)} layers ({share:.1f} % of the weights) taken from {self.source}"
        return "; ".join([text, *fresh])


def start_from(network: keras.Model, folder: Path) -> Transfer:
    """Give a network the weights of a finished run, layer by layer, where name and shapes are the same.

    Args:
        network: Changed in place.
        folder: The run folder.

    Raises:
        InputError: no finished run there, a damaged model, or not a single layer that fits.
    """
    Run.read(folder)
    theirs = _layers(load_model(folder / MODEL))
    ours = _layers(network)
    loaded, reshaped = [], []
    for name, layer in ours.items():
        if name not in theirs:
            continue
        weights = theirs[name].get_weights()
        if [array.shape for array in weights] == [tuple(variable.shape) for variable in layer.weights]:
            layer.set_weights(weights)
            loaded.append(name)
        else:
            reshaped.append(name)
    if not loaded:
        raise InputError(
            f"train.start_from: not one layer of {folder} fits this network. Same names and shapes were expected: "
            "compare the model sections of both experiments."
        )
    return Transfer(
        source=str(folder),
        loaded=loaded,
        reshaped=reshaped,
        new=[name for name in ours if name not in theirs],
        unused=[name for name in theirs if name not in ours],
        weights=sum(ours[name].count_params() for name in loaded),
        total=network.count_params(),
    )


def _layers(network: keras.Model) -> dict[str, keras.layers.Layer]:
    """Layers with weights by name; those of a network inside of it under both names."""
    found: dict[str, keras.layers.Layer] = {}
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            found |= {f"{layer.name}/{name}": inner for name, inner in _layers(layer).items()}
        elif layer.weights:
            found[layer.name] = layer
    return found
