"""A task on the features of another: what Taskonomy (Zamir et al. 2018) measures transfer with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtl_ext.data import Task
from mtl_ext.models.architecture import HardSharing, shares_bottom
from mtl_ext.models.layers import conv_norm
from mtl_ext.models.weights import load_weights


class Frozen(nn.Module):
    """A module that is used as it is: no parameter is trained, statistics and dropout stay as in evaluation.

    Args:
        module: what is frozen.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, inputs: Tensor) -> Any:
        """What the module gives."""
        return self.module(inputs)


class TransferHead(nn.Module):
    """Two convolutions that fit features to a head, and the head.

    Args:
        head: from features [B, C, H, W] to the task's output.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        channels = next(param.shape[1] for param in head.parameters() if param.dim() > 1)
        self.fit = nn.Sequential(*conv_norm(channels, channels, 3), *conv_norm(channels, channels, 3))
        self.head = head

    def forward(self, z: Tensor) -> Tensor:
        """Features to the task's output."""
        if not isinstance(z, Tensor) or z.dim() != 4:
            found = f"of shape {list(z.shape)}" if isinstance(z, Tensor) else f"of {len(z)} tensors"
            raise ValueError(f"the features are {found}, expected maps [B, C, H, W], which convolutions can fit")
        out: Tensor = self.head(self.fit(z))
        return out


def transfer(
    tasks: Sequence[Task],
    model: str = "resnet_split",
    model_options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
) -> HardSharing:
    """Another network's encoder, frozen, and behind it two convolutions and a head for each task.

    Args:
        tasks: the target tasks.
        model: name of the network, of those with one encoder for all tasks and features [B, C, H, W].
        model_options: its options.
        weights: file of the trained source network's ``state_dict``, of which the encoder is taken; None: the encoder
            is drawn anew, and trained with the rest.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no such network, it has no such features, or the file does not fit its encoder.
    """
    from mtl_ext.models import MODELS

    if model not in MODELS:
        raise ValueError(f"there is no model {model!r}; there are {', '.join(MODELS)}")
    made = MODELS[model](tasks, **(model_options or {}))
    if not isinstance(made, HardSharing) or not shares_bottom(made):
        raise ValueError(f"model {model!r} has parts of each task's own before its heads, expected one encoder for all")
    encoder = made.encoder
    if weights is not None:
        load_weights(nn.ModuleDict({"encoder": encoder}), weights, classifier="heads.")
        encoder = Frozen(encoder)
    return HardSharing(encoder, {task: TransferHead(head) for task, head in made.heads.items()}, made.multiple)
