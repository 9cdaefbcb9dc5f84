"""How the encoders' parameters begin: drawn, or read from a file."""

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


def load_weights(encoder: nn.Module, path: str | Path, classifier: str) -> None:
    """Fills an encoder from a file of torchvision's format: parameter name -> tensor, written by ``torch.save``.

    Nothing but tensors is unpickled. The encoder is changed only when everything fits.

    Args:
        encoder: has torchvision's parameter names.
        path: the file.
        classifier: what the names of the file's classifier begin with, which the encoder has not.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or entries that the encoder has not, lacks or has in another shape.
    """
    given = {name: value for name, value in _read(path).items() if not name.startswith(classifier)}
    _fill(encoder, given, path)


def load_part(module: nn.Module, path: str | Path, prefix: str) -> None:
    """Fills a part of a network from a file of the whole network's ``state_dict``.

    Args:
        module: changed only when everything fits.
        path: the file.
        prefix: what the names of the part's entries begin with in the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or entries that the part has not, lacks or has in another shape.
    """
    state = _read(path)
    _fill(module, {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}, path)


def _read(path: str | Path) -> Mapping[str, Tensor]:
    """The tensors of a file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"weights: {path} is no file of tensors as torch.save(model.state_dict()) writes it"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} holds no mapping from parameter names to tensors: save model.state_dict()")
    return state


def _fill(module: nn.Module, given: Mapping[str, Tensor], path: str | Path) -> None:
    """Fills a module, after checking that everything fits."""
    own = module.state_dict()
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
            "Check depth, width and in_channels against those of the file."
        )
    module.load_state_dict(given, strict=False)


def _some(names: list[str]) -> str:
    """The first few names and how many more there are."""
    more = len(names) - SHOWN_KEYS
    return ", ".join(names[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
