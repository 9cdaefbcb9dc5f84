"""VGG-16 with batch normalisation (Simonyan & Zisserman 2015), as multi-domain image classification uses it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from mtl_ext.data import Task
from mtl_ext.models.architecture import HardSharing
from mtl_ext.models.heads import HeadStyle, classifier, make_heads
from mtl_ext.models.options import check_counts
from mtl_ext.models.task_norm import TaskNormSharing
from mtl_ext.models.weights import draw_convolutions, load_weights

# Channels of the convolutions between two poolings, as multiples of the width.
GROUPS = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


class VGG16(nn.Module):
    """Inputs [B, in_channels, H, W] -> [B, 8 width, H / 32, W / 32], sides rounded down, at least 32.

    Parameters have the names of torchvision's vgg16_bn, whose state dicts fit.

    Args:
        in_channels: channels of the inputs.
        width: channels of the first convolutions; 64 in the paper.
        weights: file of a state dict in torchvision's format to begin from.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, or the weights do not fit.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, weights: str | Path | None = None) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, width=width)
        layers: list[nn.Module] = []
        for group in GROUPS:
            for factor in group:
                channels = factor * width
                layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        draw_convolutions(self)
        if weights is not None:
            load_weights(self, weights, "classifier.")

    def forward(self, inputs: Tensor) -> Tensor:
        """The features."""
        out: Tensor = self.features(inputs)
        return out


def vgg16(
    tasks: Sequence[Task],
    width: int = 64,
    in_channels: int = 3,
    weights: str | Path | None = None,
    hidden: int = 0,
    task_norm: bool = False,
) -> HardSharing:
    """One VGG-16 for all tasks and a head per class or value task.

    Args:
        tasks: K tasks of kind "classes" or "values".
        width: see `VGG16`.
        in_channels: channels of the inputs.
        weights: see `VGG16`.
        hidden: units of the hidden layer in the heads; 0: one linear layer.
        task_norm: batch normalisation per task, for tasks with inputs of their own (Auto-Lambda's Multi-CIFAR100).

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, the weights do not fit, or a task is of another kind.
    """
    encoder = VGG16(in_channels, width, weights)
    heads = make_heads(tasks, GROUPS[-1][-1] * width, HeadStyle(partial(classifier, hidden=hidden)))
    return TaskNormSharing(encoder.features, heads) if task_norm else HardSharing(encoder, heads)
