"""How the networks' parameters begin: drawn, or read from a file."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

SHOWN_KEYS = 5


def draw_convolutions(module: nn.Module) -> None:
    """Draws all convolutions for rectifiers (He et al. 2015, by the number of outputs), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def load_weights(network: nn.Module, path: str | Path, classifier: str = "", computed: tuple[str, ...] = ()) -> None:
    """Fills a network from a file of torchvision's format: parameter name -> tensor, written by ``torch.save``.

    Nothing but tensors is unpickled. The network is changed only when everything fits.

    Args:
        network: has the file's parameter names.
        path: the file.
        classifier: what the names of the file's classifier begin with, if the network is an encoder without it.
        computed: what the names of entries end with that the network computes and does not read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or entries that the network has not, lacks or has in another shape.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"weights: {path} is no file of tensors as torch.save(model.state_dict()) writes it"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} holds no mapping from parameter names to tensors: save model.state_dict()")
    given = {
        name: value
        for name, value in state.items()
        if not (classifier and name.startswith(classifier)) and not name.endswith(computed)
    }
    own = network.state_dict()
    # Files of older versions of torch do not count batches.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name} {list(given[name].shape)} (the network has {list(own[name].shape)})"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    found = {"lacks": missing, "has in another shape": shapes, "has besides": unexpected}
    complaints = [f"{what} {_some(names)}" for what, names in found.items() if names]
    if complaints:
        raise ValueError(
            f"weights: {path} does not fit the network: it {'; it '.join(complaints)}. "
            "Check the options that shape the network (depth, width, in_channels) against those of the file."
        )
    network.load_state_dict(given, strict=False)


def _some(names: list[str]) -> str:
    """The first few names and how many more there are."""
    more = len(names) - SHOWN_KEYS
    return ", ".join(names[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
